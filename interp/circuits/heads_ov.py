"""One head's OV circuit: which tokens it promotes for what it attends to, how far it copies, and where it attends."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.copying import copying_table
from interp.circuits.direct import direct_logits, final_scale
from interp.circuits.embedding import direct_embedding, effective_embedding
from interp.circuits.factored import FactoredMatrix
from interp.circuits.ov import output_norm, wide, written
from interp.circuits.places import HeadPlace, head_place, read_text, token_place
from interp.circuits.prompts import one_token
from interp.circuits.svd import factored_svd
from interp.errors import InputError
from interp.model.norms import Norm, norm_scale
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.results.tables import HeadTable
from interp.sites import Head

__all__ = ["HeadOV", "ov"]

_DIRECT = (
    "Direct effects only: later layers may undo, repeat or read it otherwise. Biases of values and outputs are left "
    "out, and so is how much attention the token gets. "
)
_SCALE = "Scales of the final norm and of an output norm are left out: logits are right up to one positive factor. "


def ov(model: HookedTransformer, head: Head | str) -> HeadOV:
    """The OV circuit of one head, to be asked what it writes (Elhage 2021). Nothing is computed yet.

    Raises `InputError` for a head that is not there, and for one in an encoder under a decoder, whose writing no
    unembedding reads.
    """
    place = head_place(model, head)
    if place.stack is not model.main:
        raise InputError(f"{place.address} writes into the encoder's stream, which no unembedding reads directly.")
    return HeadOV(model, place)


@dataclass(frozen=True)
class HeadOV:
    """What one head writes of a token, by the model's own weights. Its methods return `HeadTable`s.

    A token's vector goes through the norm in front of the head (its own scale), W_V, W_O, an output norm's gain, the
    final norm's gain and W_U.
    """

    model: HookedTransformer
    place: HeadPlace

    @property
    def head(self) -> str:
        return str(self.place.address)

    @property
    def W_V(self) -> Float[Tensor, "d_model d_head"]:
        """The key/value head's that this head shares, at least float32."""
        return wide(self.place.attn.W_V[self.place.kv_head])

    @property
    def W_O(self) -> Float[Tensor, "d_head d_model"]:
        return wide(self.place.attn.W_O[self.place.address.head])

    @property
    def circuit(self) -> FactoredMatrix:
        """W_V W_O, the checkpoint's own weights: no gain is folded in."""
        return FactoredMatrix(self.W_V, self.W_O)

    @torch.no_grad()
    def tokens(
        self, text: Any, pos: int | str, *, k: int = 10, decoder_input: Any = None, prepend_bos: bool | None = None
    ) -> HeadTable:
        """The `k` tokens that the head promotes and suppresses most when it attends to one token of a real text.

        `pos` is that token, by index or as a piece of the text (of the encoder's, for cross-attention). Logits are over
        the final norm's scale 1. Cost: one forward pass up to the head.
        """
        row, cache, _ = self._run(text, decoder_input, prepend_bos, [f"{self.place.site}hook_v"])
        at = token_place(row, pos, "pos")
        value = wide(cache[f"{self.place.site}hook_v"][0, at, self.place.kv_head])
        bias = wide(self.place.attn.b_V[self.place.kv_head])
        what = f"{self.head} on {row.tokens[at]!r} at {at}"
        return self._table(self._logits(value - bias), k, what, "a real residual", {"pos": at, "token": row.tokens[at]})

    @torch.no_grad()
    def token(self, token: int | str, *, k: int = 10) -> HeadTable:
        """The tokens promoted and suppressed for an input token, before any context: its embedding and what MLP 0 adds
        to that (the effective embedding), without attention and learned positions. In layer 0 the embedding alone."""
        index = self.model.to_single_token(token) if isinstance(token, str) else token
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self.model.cfg.d_vocab:
            raise InputError(f"token is {token!r}; ids go from 0 to {self.model.cfg.d_vocab - 1}.")
        value = self._values(torch.tensor([index], device=self.model.device))[0]
        name = self._name(index)
        return self._table(self._logits(value), k, f"{self.head} on {name!r}", self._input, {"token": name})

    @torch.no_grad()
    def whole(self, *, k: int = 10, n: int | None = 4000, seed: int = 0) -> HeadTable:
        """The tokens promoted and suppressed whatever is attended to: the mean over `n` random input tokens of the
        vocabulary (None: all), each as in `token`. `svd` says which inputs go with which outputs."""
        ids = _sample(self.model.cfg.d_vocab, n, seed).to(self.model.device)
        total = torch.stack([self._values(chunk).sum(0) for chunk in ids.split(2048)]).sum(0)
        about = {"tokens": len(ids), "seed": seed}
        return self._table(self._logits(total / len(ids)), k, f"{self.head} on the mean token", self._input, about)

    @torch.no_grad()
    def copying(self, *, n: int = 500, seed: int = 0) -> HeadTable:
        """Copying scores of the head, each with its weakness in the table; see `interp.circuits.copying`."""
        self._must_add_up("how a head copies")
        ids = _sample(self.model.cfg.d_vocab, n, seed).to(self.model.device)
        return copying_table(self.model, self.place, self.circuit, self._values(ids), ids, self._input, seed)

    @torch.no_grad()
    def attribution(
        self,
        text: Any,
        answer: int | str,
        foil: int | str | None = None,
        *,
        query: int | str = -1,
        decoder_input: Any = None,
        prepend_bos: bool | None = None,
    ) -> HeadTable:
        """What the head adds directly to the answer's logit (less the foil's) at `query`, split by source token.

        Each row is a key: attention × (its value through W_O) along the unembedding, all scales frozen at the values of
        this pass. The rows sum to the head's direct logit attribution. Values hold their bias. Cost: one forward pass.
        """
        address, layer = self.place.site, self.place.address.layer
        last = f"{self.place.stack.address}blocks.{self.place.stack.config.n_layers - 1}.hook_resid_post"
        names = [f"{address}hook_pattern", f"{address}hook_v", last]
        norm = output_norm(self.place.stack, layer, self.place.address.sublayer)
        n = type(self.place.stack.block(layer)).sublayers.index(self.place.address.sublayer) + 1
        made = f"{self.place.stack.address}blocks.{layer}.ln{n}_post.hook_in"
        self._must_add_up("what a head adds to a logit")
        row, cache, own = self._run(text, decoder_input, prepend_bos, [*names, *([made] if norm else [])])
        at = token_place(own, query, "query")
        pattern = wide(cache[f"{address}hook_pattern"][0, self.place.address.head, at])
        parts = pattern[:, None] * (wide(cache[f"{address}hook_v"][0, :, self.place.kv_head]) @ self.W_O)
        scale = None if norm is None else norm_scale(wide(cache[made][0, at : at + 1]), norm.config)
        parts = written(self.place.stack, layer, parts, self.place.address.sublayer, scale=scale)
        before, asked = "".join(own.tokens[: at + 1]), (("answer", answer), ("foil", foil))
        ids = [one_token(self.model, one, what, before) for what, one in asked if one is not None]
        logits = direct_logits(self.model, parts, torch.tensor(ids, device=parts.device))
        logits = logits / final_scale(self.model, wide(cache[last][0, at]))
        adds = (logits[:, 0] - logits[:, 1] if len(ids) > 1 else logits[:, 0]).double().cpu()
        shown = [self._name(one) for one in ids]
        frame = pd.DataFrame(
            {"pos": range(len(adds)), "token": row.tokens, "attention": pattern.double().cpu(), "logit": adds}
        )
        against = f" − {shown[1]!r}" if len(ids) > 1 else ""
        title = f"{self.head} at {own.tokens[at]!r}: what it adds to {shown[0]!r}{against}, by source token"
        about = {**self._about, "query": at, "answer": shown, "total": float(adds.sum()), "exact": True}
        left_out = "Direct effects only, norms frozen, before a logit softcap; a source token's value already mixes "
        left_out += "what earlier layers moved there. Biases of the output are left out."
        return HeadTable(frame, title, "logit", ("pos", "token"), left_out, about)

    @torch.no_grad()
    def svd(self, *, n: int = 4, k: int = 6) -> HeadTable:
        """The head's `n` largest singular directions, read as tokens: which input tokens lie along the direction that
        is read, and which output tokens along the one that is written."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n is {n!r}. Ask for 1 direction or more.")
        self._must_add_up("what its directions write")
        reads, sizes, writes = factored_svd(self.circuit)
        ids = torch.arange(self.model.cfg.d_vocab, device=self.model.device)
        inputs = None if self.place.is_cross else _read(self.place, direct_embedding(self.place.stack, ids))
        rows = []
        for i in range(min(n, len(sizes))):
            out = direct_logits(
                self.model,
                written(self.place.stack, self.place.address.layer, writes[:, i], self.place.address.sublayer),
            )
            into = None if inputs is None else inputs @ reads[:, i]
            for sign, word in ((1, "+"), (-1, "−")):
                row = {"direction": i, "sign": word, "singular_value": float(sizes[i])}
                row["share"] = float(sizes[i] ** 2 / sizes.square().sum())
                row["reads"] = "–" if into is None else self._words(into * sign, k)
                rows.append({**row, "writes": self._words(out * sign, k)})
        left_out = (
            "Weights alone: which directions residuals really take is not in them, and the two signs of a pair are "
            "equally good. What is read is read by bare embeddings (gain of the norm applied), which later layers "
            "move away from."
        )
        title = f"{self.head}: singular directions of W_V W_O"
        return HeadTable(
            pd.DataFrame(rows), title, "singular_value", ("direction", "sign", "writes"), left_out, self._about
        )

    @torch.no_grad()
    def examples(
        self, n: int = 10, *, windows: int = 40, n_tokens: int = 64, context: int = 12, bos: bool = True,
        corpus: Any = None, seed: int = 0,
    ) -> HeadTable:  # fmt: skip
        """Where the head attends hardest in natural text: the heaviest edge of each window (the first token left out,
        where heads rest), and of those the `n` heaviest. `context` tokens before the query and after the key are shown.

        Cost: one forward pass up to the head over `windows` × `n_tokens` tokens of the bundled passages or `corpus`.
        """
        if self.place.is_cross or (self.model.encoder is not None and self.model.decoder is not None):
            raise InputError(
                "Examples are cut from one text; this model reads two. Use .attribution on texts of yours."
            )
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n is {n!r}. Ask for 1 example or more.")
        text = import_module("interp.tasks.natural_text")  # stands above this room
        found = text.natural_text(self.model, windows, n_tokens=n_tokens, corpus=corpus, bos=bos, seed=seed)
        stop, site = self.place.address.layer + 1, f"{self.place.site}hook_pattern"
        rows = []
        for i, ids in enumerate(found.batch.tokens):
            _, cache = self.model.run_with_cache(ids[None], [site], stop_at_layer=stop, return_type=None)
            pattern = cache[site][0, self.place.address.head].clone()
            pattern[:, 0] = 0.0
            weight, place = pattern.flatten().max(0)
            query, key = divmod(int(place), pattern.shape[1])
            tokens = self.model.tokenizer.str_tokens(ids.tolist())
            first, last = max(0, min(query, key) - context), max(query, key) + 1
            row = {
                "weight": float(weight),
                "query": query,
                "query_token": tokens[query],
                "key": key,
                "key_token": tokens[key],
            }
            rows.append(
                {**row, "text": "".join(tokens[first : last + context // 3]), "passage": int(found.passage_index[i])}
            )
        frame = pd.DataFrame(rows).sort_values("weight", ascending=False, kind="stable").head(n).reset_index(drop=True)
        left_out = (
            "Heaviest edges are not typical ones, and attention is not effect: a head may look hard and write little. "
        )
        left_out += "Attention to the first token is left out, and so are all edges of a window but its heaviest."
        about = {**self._about, "windows": windows, "n_tokens": n_tokens, "bos": found.has_bos, "seed": seed}
        return HeadTable(
            frame, f"{self.head}: where it attends hardest", "weight", ("query_token", "key_token"), left_out, about
        )

    def __repr__(self) -> str:
        return f"HeadOV({self.head} of {self.model.cfg.model_name}, d_head {self.W_V.shape[1]})"

    # ---- inside ----

    @property
    def _about(self) -> dict[str, Any]:
        return {"model": self.model.cfg.model_name, "head": self.head, "kv_head": self.place.kv_head}

    @property
    def _input(self) -> str:
        return "the embedding" if self.place.address.layer == 0 else "embedding + MLP 0"

    def _run(self, text: Any, decoder_input: Any, prepend_bos: bool | None, names: list[str]) -> tuple[Any, Any, Any]:
        """The text of the keys, the cache, and the text of the queries."""
        model, two = self.model, self.model.encoder is not None and self.model.decoder is not None
        if two != (decoder_input is not None):
            raise InputError(f"This model {'needs' if two else 'takes no'} decoder_input=.")
        row = read_text(model, text, prepend_bos=prepend_bos)
        own = read_text(model, decoder_input, prepend_bos=prepend_bos) if two else row
        options: dict[str, Any] = {"decoder_input": own.ids} if two else {}
        _, cache = model.run_with_cache(row.ids, names, return_type=None, **options)
        return (row if self.place.is_cross else own), cache, own

    def _values(self, ids: Int[Tensor, " token"]) -> Float[Tensor, "token d_head"]:
        """Values of input tokens without context."""
        if self.place.is_cross:
            raise InputError("Cross-attention reads what an encoder made of a text, so no token has a value by itself.")
        stack, layer = self.place.stack, self.place.address.layer
        resid = direct_embedding(stack, ids) if layer == 0 else effective_embedding(stack, ids)
        norm = _read_norm(self.place)
        return wide(resid if norm is None else norm(resid, NO_TAPS)) @ self.W_V

    def _logits(self, value: Float[Tensor, " d_head"]) -> Float[Tensor, " token"]:
        self._must_add_up("what a head promotes")
        place = self.place
        return direct_logits(
            self.model, written(place.stack, place.address.layer, value @ self.W_O, place.address.sublayer)
        )

    def _must_add_up(self, what: str) -> None:
        normed = any(block.norms == "post" for block in self.place.stack.config.blocks)
        if normed or self.model.transform is not None:
            why = (
                "norms the residual stream itself after each sublayer" if normed else "unembeds behind a nonlinear head"
            )
            raise InputError(
                f"{self.model.cfg.model_name} {why}, so its heads have no direct logits and {what} cannot be shown. "
                "interp.patch measures what they do."
            )

    def _table(self, logits: Tensor, k: int, what: str, source: str, about: dict[str, Any]) -> HeadTable:
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(logits):
            raise InputError(f"k is {k!r}. Ask for 1 to {len(logits)} tokens.")
        logits = logits - logits.mean()
        rows = []
        for side, largest in (("promoted", True), ("suppressed", False)):
            found = logits.topk(k, largest=largest)
            for rank, (value, index) in enumerate(
                zip(found.values.tolist(), found.indices.tolist(), strict=True), start=1
            ):
                rows.append({"side": side, "rank": rank, "token": self._name(index), "id": index, "logit": value})
        left_out = _DIRECT + _SCALE + "The mean over the vocabulary is taken off, which no softmax sees."
        about = {**self._about, "input": source, **about}
        return HeadTable(
            pd.DataFrame(rows), f"{what}: tokens promoted and suppressed", "logit", ("side", "token"), left_out, about
        )

    def _words(self, scores: Tensor, k: int) -> str:
        return " ".join(repr(self._name(i)) for i in scores.topk(min(k, len(scores))).indices.tolist())

    def _name(self, index: int) -> str:
        return str(index) if self.model.tokenizer is None else self.model.to_single_str_token(index)


def _read_norm(place: HeadPlace) -> Norm | None:
    """The norm in front of a head of self-attention."""
    block = place.stack.block(place.address.layer)
    return getattr(block, "ln1") if block.config.norms in ("pre", "both") else None  # noqa: B009


def _read(place: HeadPlace, resid: Tensor) -> Tensor:
    """Residuals behind the gain (and the centring) of the norm in front of a head; its scale is left out."""
    norm, resid = _read_norm(place), wide(resid)
    if norm is None or norm.config.kind == "none":
        return resid
    return (resid - resid.mean(-1, keepdim=True) if norm.config.kind == "layer" else resid) * wide(norm.gain)


def _sample(d_vocab: int, n: int | None, seed: int) -> Tensor:
    if n is not None and n < 2:
        raise InputError(f"n is {n}. Take at least 2 tokens.")
    order = torch.randperm(d_vocab, generator=torch.Generator().manual_seed(seed))
    return order if n is None else order[:n].sort().values
