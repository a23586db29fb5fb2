"""Log-probabilities of sentences and of continuations, in left-padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.kinds import attention_kind
from interp.model.tokens import pad_rows, too_long
from interp.model.transformer import HookedTransformer
from interp.pairs.places import TextRow, text_row

__all__ = ["Asked", "Given", "Progress", "Scores", "check_can_score", "score_sentences", "score_tokens"]

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Asked:
    """A row of token ids, the positions whose logits are read, and the token that is looked up at each."""

    row: tuple[int, ...]
    reads: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Given:
    """log p of each token that was asked for, in nats, and its rank: how many tokens are at least as likely."""

    log_probs: Float[np.ndarray, " asked"]
    ranks: Int[np.ndarray, " asked"]


@dataclass(frozen=True)
class Scores:
    """log p of each sentence, in nats, and how many of its tokens that is the sum of."""

    log_probs: Float[np.ndarray, " sentence"]
    n_tokens: Int[np.ndarray, " sentence"]


def check_can_score(model: Any, *, sentences: bool) -> str:
    """ "decoder" or "encoder"; `InputError` for a model that gives no probability of a sentence (or, not `sentences`,
    of what follows a prompt)."""
    if not isinstance(model, HookedTransformer):
        raise InputError(f"A loaded model is evaluated, not {model!r}. Load it first: interp.load(…).")
    name, kind = model.cfg.model_name, attention_kind(model)
    if kind == "cross":
        raise InputError(
            f"{name} is an encoder-decoder: what it says of a text depends on what its encoder has read, which these "
            "data do not say. Evaluate a decoder or a masked encoder."
        )
    if model.tokenizer is None:
        raise InputError(f"{name} has no tokenizer, and these data are texts. Load it with tokenizer=.")
    if not model.cfg.has_unembed:
        raise InputError(
            f"{name} has no head that predicts tokens, so it gives no probabilities. Load a checkpoint with its "
            "language-modelling head."
        )
    if kind == "encoder" and not sentences:
        raise InputError(f"{name} is an encoder, and facts ask what comes after a prompt. Evaluate a decoder.")
    if kind == "encoder" and model.tokenizer.mask_id is None:
        raise InputError(
            f"{name} has no mask token, by which an encoder is asked for the probability of a sentence. Load it with a "
            "tokenizer that has one."
        )
    return kind


def score_sentences(
    model: HookedTransformer,
    texts: Sequence[str],
    *,
    batch_size: int,
    bos: bool | None,
    progress: Progress | None = None,
) -> Scores:
    """log p of each text.

    Decoder: the sum over its tokens of log p given those before; without BOS in front the first one has none before it
    and is not counted. Encoder: pseudo-log-likelihood, the sum of log p of each token with that one masked (Salazar
    et al. 2020), which costs a row for each token. Frames ([CLS], [SEP], BOS, EOS) are not counted. The same tokens
    are scored once, so that two texts of the same tokens have exactly the same value.
    """
    encoder = attention_kind(model) == "encoder"
    rows = [text_row(model.tokenizer, text, None if encoder else bos) for text in texts]
    asked: dict[tuple[int, ...], list[Asked]] = {}
    for text, row in zip(texts, rows, strict=True):
        if row.ids not in asked:
            _check_row(model, text, row.ids)
            asked[row.ids] = _masked(row, model.tokenizer.mask_id) if encoder else _read_on(row)
            if not asked[row.ids]:
                raise InputError(f"{text!r} has no token whose probability could be read. Give longer sentences.")
    flat = [one for several in asked.values() for one in several]
    given = score_tokens(model, flat, batch_size=batch_size, progress=progress)
    totals, at = {}, 0
    for ids, several in asked.items():
        mine = np.concatenate([one.log_probs for one in given[at : at + len(several)]])
        totals[ids], at = (float(mine.sum()), len(mine)), at + len(several)
    found = [totals[row.ids] for row in rows]
    return Scores(np.array([one for one, _ in found]), np.array([n for _, n in found], dtype=np.int64))


@torch.no_grad()
def score_tokens(
    model: HookedTransformer, asked: Sequence[Asked], *, batch_size: int, progress: Progress | None = None
) -> list[Given]:
    """What the model says of the tokens asked for; rows of like length run together, padded on the left."""
    found: list[Given | None] = [None] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i].row), asked[i].reads))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = pad_rows([asked[i].row for i in chunk], 0, "left", model.device)
        width = batch.tokens.shape[1]
        shifted = [[place + width - len(asked[i].row) for place in asked[i].reads] for i in chunk]
        places = sorted({place for one in shifted for place in one})
        # A mask even of ones: what looks like padding in a row that has none is text.
        mask = batch.mask if batch.mask is not None else torch.ones_like(batch.tokens, dtype=torch.bool)
        logits = model(batch.tokens, attention_mask=mask, unembed_pos=places)
        slot = {place: k for k, place in enumerate(places)}
        for i, row, at in zip(chunk, logits, shifted, strict=True):
            found[i] = _look_up(row[[slot[place] for place in at]], asked[i].tokens)
        if progress is not None:
            progress("scoring", start + len(chunk), len(order))
    return [one for one in found if one is not None]


def _look_up(logits: Float[Tensor, "asked d_vocab"], tokens: Sequence[int]) -> Given:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    own = wide.gather(1, torch.tensor(tokens, device=wide.device)[:, None])
    log_probs = (own - wide.logsumexp(dim=1, keepdim=True))[:, 0]
    return Given(log_probs.double().cpu().numpy(), (wide >= own).sum(dim=1).cpu().numpy())


def _read_on(row: TextRow) -> list[Asked]:
    """Each token of the text is read at the one before it."""
    places = [at for at, span in enumerate(row.spans) if span is not None and at > 0]
    if not places:
        return []
    return [Asked(row.ids, tuple(at - 1 for at in places), tuple(row.ids[at] for at in places))]


def _masked(row: TextRow, mask_id: int) -> list[Asked]:
    """Each token of the text is read at its place, masked there."""
    places = [at for at, span in enumerate(row.spans) if span is not None]
    return [Asked((*row.ids[:at], mask_id, *row.ids[at + 1 :]), (at,), (row.ids[at],)) for at in places]


def _check_row(model: HookedTransformer, text: str, ids: Sequence[int]) -> None:
    if len(ids) > model.cfg.n_ctx:
        raise InputError(f"{text!r}: {too_long(len(ids), model.cfg.n_ctx)}")
    if ids and max(ids) >= model.cfg.d_vocab:
        raise InputError(
            f"{text!r} has token id {max(ids)}, outside this model's vocabulary, 0 to {model.cfg.d_vocab - 1}. Load "
            "the model with its own tokenizer."
        )
