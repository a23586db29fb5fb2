"""The token before: one of the commonest of them, read at the token after it, in natural text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs.checks import is_index
from interp.tasks.base import SPLITS
from interp.tasks.natural_text import natural_text
from probes.labels.base import LabelRequest, LabelSet
from probes.sources import Labelled, label_column, set_bos, spell

__all__ = ["LABELS"]


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    k, n_tokens = request.options.get("k", 8), request.options.get("n_tokens", 64)
    if not is_index(k) or k < 2 or not is_index(n_tokens):
        raise InputError(f"k={k!r} and n_tokens={n_tokens!r}: give whole numbers, and at least 2 classes.")
    bos = set_bos(model, request.prepend_bos)
    found = natural_text(
        model,
        2 * request.n,
        n_tokens=n_tokens,
        corpus=request.options.get("corpus"),
        bos=bool(bos),
        seed=request.seed,
    )
    every = found.batch.tokens.cpu().numpy().astype(np.int32)
    halves = {name: every[i::2] for i, name in enumerate(SPLITS)}
    tokens = np.concatenate([halves[name] for name in request.splits])
    first = int(found.has_bos)
    counts = Counter(every[:, first:-1].ravel().tolist())  # of both splits, so that they have the same classes
    common = [token for token, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:k]]
    wanted = np.isin(tokens[:, first:-1], common)
    text, before = np.nonzero(wanted)
    pos = before + first + 1
    types = _spelled(model, tokens[text, pos])
    table = pd.DataFrame({"text": text, "pos": pos, "group": types, "type": types})
    labels = pd.DataFrame({"previous token": label_column([repr(one) for one in spell(model, tokens[text, pos - 1])])})
    about = {
        "classes": [repr(one) for one in spell(model, common)],
        "share of tokens": float(wanted.mean()),
        "n_tokens": n_tokens,
        "prepend_bos": bos,
    }
    return Labelled(list(tokens), table, labels, about)


def _spelled(model: HookedTransformer, ids: np.ndarray) -> list[str]:
    return [one.strip() or one for one in spell(model, ids)]


LABELS = LabelSet(
    name="previous_token",
    definition="which of the k commonest tokens stands right before",
    targets=("previous token",),
    unit="windows of text",
    n=32,
    group="the token itself, so that no pair of tokens is learned by heart",
    make=_make,
    options=("k", "n_tokens", "corpus"),
)
