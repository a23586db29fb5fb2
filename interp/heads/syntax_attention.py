"""Where each word of a sentence looks: its strongest attention among the words, head by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.circuits.streaming import LayerHeads, head_grid, stream_heads
from interp.heads.base import attention_kind
from interp.heads.syntax_words import LabelledTokens
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer

__all__ = ["Looks", "batch_of", "strongest"]


@dataclass(frozen=True)
class Looks:
    """`at[sentence, layer, head, word]` is the word that gets a word's strongest attention; −1 where there is none to
    look at, or no such head. `at_special`: a special token (BOS, `[CLS]`) gets more than that word."""

    at: NDArray[np.int16]
    at_special: NDArray[np.bool_]


def strongest(model: HookedTransformer, sentences: Sequence[LabelledTokens], *, rows_at_once: int = 32) -> Looks:
    """The strongest attention of every word: summed over the tokens *of the other word*, averaged over its own
    (Clark 2019, §4.1). Left out are the word itself, special tokens, and for decoders what comes later.

    Cost: one forward pass without logits.
    """
    grid, n_words = head_grid(model), max(len(one.words) for one in sentences)
    shape = (len(sentences), grid.n_layers, grid.n_heads, n_words)
    at, special = np.full(shape, -1, dtype=np.int16), np.zeros(shape, dtype=bool)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].tokens))  # little padding
    for start in range(0, len(order), rows_at_once):
        part = order[start : start + rows_at_once]
        found = Looks(at[part], special[part])
        _look(model, [sentences[i] for i in part], found.at, found.at_special)
        at[part], special[part] = found.at, found.at_special
    return Looks(at, special)


def batch_of(model: HookedTransformer, sentences: Sequence[LabelledTokens]) -> Batch:
    """The token rows of some sentences, padded behind."""
    pad = getattr(model.tokenizer, "pad_id", None) or 0
    return pad_rows([list(one.tokens) for one in sentences], pad, "right", model.device)


def _look(
    model: HookedTransformer,
    sentences: Sequence[LabelledTokens],
    at: NDArray[np.int16],
    special: NDArray[np.bool_],
) -> None:
    """Fill `at` and `special` for one batch."""
    batch, n_words = batch_of(model, sentences), at.shape[-1]
    own = _membership(sentences, n_words, batch.tokens.shape[1]).to(model.device)
    mean = own / own.sum(dim=-1, keepdim=True).clamp(min=1)
    real = batch.mask if batch.mask is not None else torch.ones_like(batch.tokens, dtype=torch.bool)
    odd = real & (own.sum(dim=1) == 0)  # tokens of no word
    there = own.any(dim=-1)
    allowed = there[:, :, None] & there[:, None, :] & ~torch.eye(n_words, dtype=torch.bool, device=model.device)
    if attention_kind(model) == "decoder":
        allowed &= torch.ones(n_words, n_words, device=model.device).tril(-1).bool()

    def visit(heads: LayerHeads) -> None:
        rows = torch.zeros(len(sentences), heads.q.shape[2], n_words, batch.tokens.shape[1], device=model.device)
        for queries, pattern in heads.patterns():
            rows += torch.einsum("bwq,bhqk->bhwk", mean[:, :, queries], pattern.float())
        to_words = torch.einsum("bhwk,bvk->bhwv", rows, own).masked_fill(~allowed[:, None], -1.0)
        best, place = to_words.max(dim=-1)
        most_special = rows.masked_fill(~odd[:, None, None], 0.0).amax(dim=-1)
        place = place.masked_fill(best < 0, -1)
        n_heads = place.shape[1]
        at[:, heads.layer, :n_heads] = place.cpu().numpy()
        special[:, heads.layer, :n_heads] = ((most_special > best) & (best >= 0)).cpu().numpy()

    stream_heads(model, batch, visit)


def _membership(sentences: Sequence[LabelledTokens], n_words: int, n_tokens: int) -> Float[Tensor, "sentence word pos"]:
    """1 where a token belongs to a word."""
    own = torch.zeros(len(sentences), n_words, n_tokens)
    for i, one in enumerate(sentences):
        for number, positions in enumerate(one.words):
            own[i, number, list(positions)] = 1.0
    return own
