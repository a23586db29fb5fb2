"""One head's QK circuit by its weights: which directions of the query meet which of the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from interp.circuits.embedding import direct_embedding, effective_embedding
from interp.circuits.factored import FactoredMatrix
from interp.circuits.ov import wide
from interp.circuits.places import HeadPlace, head_place, must_be_dot
from interp.circuits.svd import factored_svd
from interp.errors import InputError
from interp.model.norms import Norm
from interp.model.positions import Rows, rotate
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.results.tables import HeadTable
from interp.sites import Head

__all__ = ["HeadQK", "qk"]


def qk(model: HookedTransformer, head: Head | str) -> HeadQK:
    """The QK circuit of one head (Elhage 2021). For one edge of one text see `interp.explain_attention`."""
    place = head_place(model, head)
    must_be_dot(place.attn.config, "A QK circuit")
    return HeadQK(model, place)


@dataclass(frozen=True)
class HeadQK:
    """What one head's queries look for, by the model's own weights."""

    model: HookedTransformer
    place: HeadPlace

    @property
    def head(self) -> str:
        return str(self.place.address)

    @property
    def W_Q(self) -> Float[Tensor, "d_model d_head"]:
        return wide(self.place.attn.W_Q[self.place.address.head])

    @property
    def W_K(self) -> Float[Tensor, "d_model d_head"]:
        """The key/value head's that this head shares."""
        return wide(self.place.attn.W_K[self.place.kv_head])

    def circuit(self, distance: int = 0) -> FactoredMatrix:
        """W_Q W_Kᵀ, the checkpoint's own weights; where positions are rotated, for a key `distance` tokens before the
        query."""
        return FactoredMatrix(self._turned(self.W_Q, distance), self.W_K.mT)

    @torch.no_grad()
    def svd(self, *, n: int = 4, k: int = 6, distance: int = 0) -> HeadTable:
        """The `n` largest singular directions, read as tokens by their effective embeddings (embedding + MLP 0; in
        layer 0 the embedding): query tokens along the one, key tokens along the other."""
        if self.place.is_cross:
            raise InputError("Cross-attention reads an encoder's output, so its directions are not those of tokens.")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n is {n!r}. Ask for 1 direction or more.")
        if isinstance(distance, bool) or not isinstance(distance, int):
            raise InputError(f"distance is {distance!r}. Give how many tokens the key stands before the query.")
        queries, sizes, keys = factored_svd(self.circuit(distance))
        inputs = self._inputs()
        along = inputs @ torch.cat([queries[:, :n], keys[:, :n]], dim=1)
        rows = []
        for i in range(min(n, len(sizes))):
            for sign, word in ((1, "+"), (-1, "−")):
                row: dict[str, Any] = {"direction": i, "sign": word, "singular_value": float(sizes[i])}
                row["share"] = float(sizes[i] ** 2 / sizes.square().sum())
                row["query_tokens"] = self._words(along[:, i] * sign, k)
                row["key_tokens"] = self._words(along[:, min(n, len(sizes)) + i] * sign, k)
                rows.append(row)
        left_out = (
            "Weights alone, at one distance: biases, norms of queries and keys and a bias of distances are left out, "
            "and so is everything that context adds to a token. The two signs of a pair are equally good."
        )
        about = {
            "model": self.model.cfg.model_name,
            "head": self.head,
            "kv_head": self.place.kv_head,
            "distance": distance,
        }
        title = f"{self.head}: singular directions of W_Q W_Kᵀ" + (f" at distance {distance}" if distance else "")
        return HeadTable(
            pd.DataFrame(rows), title, "singular_value", ("direction", "sign", "key_tokens"), left_out, about
        )

    def __repr__(self) -> str:
        return f"HeadQK({self.head} of {self.model.cfg.model_name}, d_head {self.W_Q.shape[1]})"

    def _turned(self, W_Q: Tensor, distance: int) -> Tensor:
        rotary = self.place.attn.config.rotary
        if rotary is None or distance == 0:
            return W_Q
        rows = Rows(torch.tensor([[distance]], device=W_Q.device), None, 0, distance + 1)
        turned = rotate(rearrange(W_Q, "d_model d_head -> d_model 1 1 d_head"), rows, rotary)
        return rearrange(turned, "d_model 1 1 d_head -> d_model d_head")

    def _inputs(self) -> Float[Tensor, "token d_model"]:
        """Every token as the head would read it without context, in chunks so that MLP 0 never holds all."""
        place = self.place
        block = place.stack.block(place.address.layer)
        norm: Norm | None = block.ln1 if block.config.norms in ("pre", "both") else None  # type: ignore[assignment]
        make = direct_embedding if place.address.layer == 0 else effective_embedding
        ids = torch.arange(self.model.cfg.d_vocab, device=self.model.device)
        chunks = [make(place.stack, chunk) for chunk in ids.split(4096)]
        return torch.cat([wide(one if norm is None else norm(one, NO_TAPS)) for one in chunks])

    def _words(self, scores: Tensor, k: int) -> str:
        found = scores.topk(min(k, len(scores))).indices.tolist()
        if self.model.tokenizer is None:
            return " ".join(map(str, found))
        return " ".join(repr(self.model.to_single_str_token(i)) for i in found)
