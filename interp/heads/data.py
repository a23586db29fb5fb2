"""The prompts that attention is scored on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.errors import InputError
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.tasks.natural_text import natural_text
from interp.tasks.repeated_tokens import tiled

__all__ = ["TEXT", "TILED", "text_windows", "tiled_blocks"]

TILED = "blocks of 25 random tokens, four times over"
TEXT = "windows of 64 tokens of natural text"


def tiled_blocks(model: HookedTransformer, n: int, seed: int, bos: bool, corpus: Any = None) -> Batch:
    """Repeated random tokens; `corpus` plays no part."""
    return Batch(tiled(model, n, bos=bos, seed=seed).tokens)


def text_windows(model: HookedTransformer, n: int, seed: int, bos: bool, corpus: Any = None) -> Batch:
    """Natural text: the bundled sample, the user's own files, or (for models without a tokenizer) rows of token ids."""
    if isinstance(corpus, Tensor):
        return _rows_of(model, corpus, n, seed)
    return natural_text(model, n, n_tokens=64, corpus=corpus, bos=bos, seed=seed).batch


def _rows_of(model: HookedTransformer, corpus: Tensor, n: int, seed: int) -> Batch:
    batch = model.batch(corpus)
    if len(batch.tokens) < n:
        raise InputError(
            f"The corpus has {len(batch.tokens)} rows of token ids; {n} are needed. Give more, or a smaller n."
        )
    chosen = torch.randperm(len(batch.tokens), generator=torch.Generator().manual_seed(seed))[:n]
    return Batch(batch.tokens[chosen], None if batch.mask is None else batch.mask[chosen])
