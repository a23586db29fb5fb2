"""What the tests of the causal methods compare with: whole forward passes of single prompts under plain hooks, metrics
by their formula. It imports nothing of interp.causal or interp.metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects
from tests.model.conftest import D_VOCAB, ZOO, randomize

LAYOUTS = ["llama", "gpt2", "neox", "attention_only", "softcap", "window", "encoder", "double"]
Hooks = Iterable[tuple[str, Callable[..., Any]]]
_MADE: dict[tuple[str, bool], HookedTransformer] = {}


def model_named(name: str, *, double: bool = False) -> HookedTransformer:
    double = double or name == "double"
    if (name, double) not in _MADE:
        made = HookedTransformer(ZOO[name], dtype=torch.float64 if double else torch.float32)
        _MADE[name, double] = randomize(made)
    return _MADE[name, double]


def rows(lengths: Sequence[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, D_VOCAB, (n,), generator=generator).tolist() for n in lengths]


def changed(row: list[int], *places: int) -> list[int]:
    return [(token + 11) % D_VOCAB if i in places else token for i, token in enumerate(row)]


def pairs_for(model: HookedTransformer, **options: Any) -> PromptPairs:
    """Ragged pairs of 6, 6, 6, 4 and 4 tokens, the third of another template, the last two sides alike."""
    clean = rows([6, 6, 6, 4, 4], 1)
    corrupt = [changed(clean[0], 2, 3), changed(clean[1], 1), changed(clean[2], 4), changed(clean[3], 1, 2), clean[4]]
    given: dict[str, Any] = {"answer": [3, 17, 20, 30, 31], "foil": [4, 8, 21, 5, 6]}
    given["positions"] = {"subject": [[2, 3], [1], [3, 4], [1, 2], [2]]}
    given["templates"] = ["a", "a", "b", "a", "a"]
    if len(model.cfg.stacks) == 2:
        decoders = rows([3, 3, 3, 5, 5], 2)
        given |= {"clean_decoder": decoders, "corrupt_decoder": [changed(decoders[0], 1), *decoders[1:]]}
    elif model.cfg.decoder is None:
        given["read"] = [3, 2, 5, 0, 3]
    return PromptPairs.from_tokens(clean, corrupt, **{**given, **options})


def text_of(pairs: PromptPairs, side: str, pair: int) -> tuple[Any, dict[str, Any]]:
    """What the model is called with for one side of a pair."""
    tokens = torch.tensor([getattr(pairs, side)[pair]])
    if not pairs.clean_decoder:
        return tokens, {}
    return tokens, {"decoder_input": torch.tensor([getattr(pairs, f"{side}_decoder")[pair]])}


def run(model: HookedTransformer, text: Any, hooks: Hooks = ()) -> Tensor:
    """Logits `[pos token]` of one prompt under some hooks."""
    tokens, options = text if isinstance(text, tuple) else (torch.tensor([text]), {})
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=list(hooks), **options)[0].double()


def cached(model: HookedTransformer, text: Any, names: Sequence[str], hooks: Hooks = ()) -> dict[str, Tensor]:
    """Sites of one prompt, without the batch axis."""
    tokens, options = text if isinstance(text, tuple) else (torch.tensor([text]), {})
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, list(dict.fromkeys(names)), fwd_hooks=list(hooks), **options)
    return {name: cache[name][0] for name in names}


def put(value: Any, *index: Any) -> Callable[..., None]:
    """A hook that writes a value at an index of the one row; a tensor of the whole site is indexed too."""

    def write(x: Tensor, hook: Any) -> None:
        x[(0, *index)] = value[index] if isinstance(value, Tensor) and index else value

    return write


def judge(pairs: PromptPairs, pair: int, logits: Tensor, metric: str = "logit_diff", clean: Any = None) -> float:
    """One metric of a prompt's logits, by its formula."""
    x, answer = logits[pairs.read[pair]], pairs.answer[pair][0][0]
    if metric == "logit_diff":
        return float(x[answer] - x[pairs.foil[pair][0][0]])
    if metric == "prob":
        return float(x.softmax(-1)[answer])
    assert metric == "kl"
    p = clean[pairs.read[pair]].softmax(-1)
    return float((p * (p.log() - x.log_softmax(-1))).sum())


def agree(got: Effects, patched: Any, base: Any, *, double: bool = False) -> None:
    """The metrics of the patched and of the base runs, within a share of their size; NaN in the same cells."""
    patched, base = np.asarray(patched, dtype=float), np.asarray(base, dtype=float)
    limit = 1e-10 if double else 1e-5
    assert got.base is not None and got.values.shape == patched.shape
    np.testing.assert_array_equal(np.isnan(got.values.values), np.isnan(patched))
    assert (np.abs(got.base - base) <= limit * np.maximum(1, np.abs(base))).all(), (got.base, base)
    over = base.reshape(-1, *(1,) * (patched.ndim - 1))
    off = np.abs(got.values.values - (patched - over)) / np.fmax(1, np.fmax(np.abs(patched), np.abs(over)))
    assert np.nan_to_num(off).max() <= limit, f"off by {np.nanmax(off)} at {np.argwhere(off > limit)[:5].tolist()}"


def is_double(model: HookedTransformer) -> bool:
    return model.dtype == torch.float64
