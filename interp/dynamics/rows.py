"""Rows of tokens to measure checkpoints on that come without data: blocks that repeat, or a text cut into rows."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.dynamics.base import drawn
from interp.dynamics.induction import TiledBlocks
from interp.dynamics.training import stream
from interp.errors import InputError
from interp.model.transformer import HookedTransformer

__all__ = ["must_predict", "repeated_rows", "text_rows"]


def must_predict(model: HookedTransformer) -> None:
    """Raise `InputError` for a model that does not predict each token from those before it."""
    if model.encoder is not None or any(block.attn.mask != "causal" for block in model.main.config.blocks):
        raise InputError(
            f"{model.cfg.model_name} does not predict each token from those before it alone, so tokens= have no loss "
            "that can be followed. Give checkpoints of a decoder."
        )


def repeated_rows(model: HookedTransformer, n: int = 64, *, length: int = 64, seed: int = 0) -> Int[Tensor, "row pos"]:
    """Random tokens in blocks that repeat, as in the recipe "induction": periods from an eighth of the row to half of
    it, drawn for each row. A BOS token stands first, where the model has one."""
    length = _length(model, length)
    data = TiledBlocks(model.cfg.d_vocab, length - 1, (max(2, length // 8), (length - 1) // 2))
    tokens = data.draw(n, stream(seed, "rows")).tokens
    bos = getattr(model.tokenizer, "bos_id", None)
    tokens[:, 0] = drawn(0, model.cfg.d_vocab, (n,), stream(seed, "first")) if bos is None else bos
    return tokens


def text_rows(model: HookedTransformer, text: str, n: int = 64, *, length: int = 64) -> Int[Tensor, "row pos"]:
    """The first `n` rows of a text's tokens, one behind the other. A BOS token stands first in each, where the model
    has one. Raises `InputError` for a model without a tokenizer, or a text of fewer than four rows."""
    if model.tokenizer is None:
        raise InputError(f"{model.cfg.model_name} has no tokenizer to read a text with. Leave the text out.")
    length = _length(model, length)
    bos = getattr(model.tokenizer, "bos_id", None)
    start = [] if bos is None else [bos]
    ids, each = model.tokenizer.encode(text, prepend_bos=False), length - len(start)
    rows = [start + ids[i : i + each] for i in range(0, len(ids) - each + 1, each)][:n]
    if len(rows) < 4:
        raise InputError(
            f"The text has {len(ids)} tokens: fewer than four rows of {length}. Give a longer one, or shorter rows."
        )
    return torch.tensor(rows)


def _length(model: HookedTransformer, length: int) -> int:
    """As asked, but not longer than the model reads."""
    if isinstance(length, bool) or not isinstance(length, int) or length < 16:
        raise InputError(f"length is {length!r}. Give a whole number of tokens, at least 16.")
    must_predict(model)
    return min(length, model.cfg.n_ctx)
