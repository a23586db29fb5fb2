"""The tiny models of tests/model in float64, with ragged prompts for each."""

from __future__ import annotations

from typing import Any

import torch

from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from tests.model.conftest import D_VOCAB, ZOO, randomize

__all__ = ["LINEAR", "POST", "double", "pairs_for", "rows"]

POST = [name for name, config in ZOO.items() if any(b.norms == "post" for b in list(config.stacks.values())[-1].blocks)]
LINEAR = [name for name in ZOO if name not in POST]
_MADE: dict[str, HookedTransformer] = {}


def double(name: str) -> HookedTransformer:
    if name not in _MADE:
        _MADE[name] = randomize(HookedTransformer(ZOO[name], dtype=torch.float64)).requires_grad_(False)
    return _MADE[name]


def rows(lengths: list[int], seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, D_VOCAB, (n,), generator=generator).tolist() for n in lengths]


def pairs_for(model: HookedTransformer, lengths: tuple[int, ...] = (6, 4, 6), **options: Any) -> PromptPairs:
    """Ragged pairs whose sides differ; encoders are read inside the text."""
    clean, corrupt = rows(list(lengths), 1), rows(list(lengths), 2)
    given: dict[str, Any] = {"answer": [[3, 9], [17], [20]][: len(lengths)], "foil": [4, 8, 21][: len(lengths)]}
    if len(model.cfg.stacks) == 2:
        given["clean_decoder"] = rows([5, 3, 5][: len(lengths)], 3)
    elif model.cfg.decoder is None:
        given["read"] = [2, 1, 5][: len(lengths)]
    return PromptPairs.from_tokens(clean, corrupt, **{**given, **options})
