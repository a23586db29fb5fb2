"""The answer's logit, or its difference from the foil's, as an exact sum of what each part wrote.

Parts write into the residual stream at the position that is read; the final norm's scale is frozen as the pass had it,
so the logit is linear in them (Elhage 2021; METHODS §1, direct logit attribution). Output norms of sublayers (Gemma 2,
OLMo 2) are frozen the same way, and factors on the residual (Granite) and on the logits are applied. Instead of what
each part wrote, the direction that is read is pulled back through these maps, so that no `[head d_model]` is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import einsum, repeat
from jaxtyping import Float
from torch import Tensor

from interp.circuits.direct import final_scale
from interp.circuits.prompts import Group, groups, linear_sets, prompts, token_texts, unembedded_sets
from interp.errors import InputError
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.logit_attribution import LogitAttribution

__all__ = ["logit_attribution"]

By = Literal["component", "head", "neuron", "source"]
_TOLERANCE = {torch.float64: 1e-13, torch.float32: 4e-6}  # of the sum of the parts' sizes
_LEFT_OUT = (
    "Direct effects only: later layers may undo or repeat what a part writes, and a part may act through them. The "
    "final norm's scale is frozen, so nothing here says what would happen without a part (interp.ablate does)."
)


@torch.no_grad()
def logit_attribution(
    model: HookedTransformer,
    data: Any,
    *,
    by: By = "component",
    answer: Any = None,
    foil: Any = None,
    read: Any = None,
    decoder: Any = None,
    top: int | Literal["all"] = 100,
) -> LogitAttribution:
    """The logit of the answer, or its difference from the foil's where there is one, split over `by`:

    "component" (embeddings, attention and MLP of each layer), "head" (each head of self- and cross-attention),
    "source" (each head's share by attended token: A·v·W_O, with v's bias in it), "neuron" (the `top` MLP neurons by
    mean size over the prompts, the others of a layer as one part; "all" keeps every one). Biases are parts of their
    own. `data`: PromptPairs (their clean prompts), a text, texts, or token ids with `answer` (a text, an id, or a list
    of alternatives, whose logits are averaged) and `foil`; without an answer it is the model's own top token. `read`
    and `decoder` as in `PromptPairs.from_text`.

    Unit: logits, before a softcap where the model has one. The parts sum to what the model computed; `.check` shows
    it. Raises `InputError` for models whose residual stream is no sum (BERT's layout) or whose unembedding is not
    linear, and for sets combined by logsumexp. Cost: one pass, for the `top` neurons two.
    """
    if by not in ("component", "head", "neuron", "source"):
        raise InputError(f'by is {by!r}. Choose "component", "head", "neuron" or "source".')
    if top != "all" and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise InputError(f'top is {top!r}. Give a number of neurons, 1 or more, or "all".')
    _must_be_linear(model)
    pairs = prompts(model, data, answer, foil, read=read, decoder=decoder)
    sets = linear_sets(pairs, "answer"), linear_sets(pairs, "foil") if pairs.foil else None
    chosen = _largest_neurons(model, pairs, sets, top) if by == "neuron" and top != "all" else None
    tables, checks = [], []
    for readout in _readouts(model, pairs, sets, by):
        parts = list(_parts(readout, by, chosen))
        tables.append(_frame(readout, parts))
        checks.append(_checked(readout, parts))
    frame = pd.concat(tables, ignore_index=True).sort_values("prompt", kind="stable", ignore_index=True)
    frame = frame.astype({name: "string" for name in ("part", "kind", "sublayer", "token")})
    check = pd.concat(checks, ignore_index=True).sort_values("prompt", ignore_index=True)
    return LogitAttribution(frame, check, _about(model, pairs, by, top))


@dataclass(frozen=True)
class _Part:
    """One or several parts of a kind: `values [batch part]` and what tells them apart."""

    kind: str
    values: Float[Tensor, "batch part"]
    labels: list[str]
    columns: dict[str, Any]


class _Readout:
    """One group of prompts after its pass: the direction that is read, and how it looks from inside the model."""

    def __init__(self, model: HookedTransformer, pairs: PromptPairs, sets: Any, group: Group, by: str):
        self.model, self.pairs, self.group = model, pairs, group
        self.stack = model.main
        n = self.stack.config.n_layers
        names = [name for name in model.sites.names if _wanted(name, self.stack.address, by)]
        whole = by == "source"  # keys and values of every position
        self.at = group.read if whole else 0
        logits, self.cache = model.run_with_cache(
            group.tokens, names, pos_slice=None if whole else [group.read], unembed_pos=[group.read], **group.options
        )
        self.logits = _wide(logits[:, 0])
        self.last = self.read(f"blocks.{n - 1}.hook_resid_post")
        scale = final_scale(model, self.last)
        members = list(group.prompts)
        self.answer = [sets[0][i] for i in members]
        self.foil = None if sets[1] is None else [sets[1][i] for i in members]
        direction = unembedded_sets(model, self.answer)
        if self.foil is not None:
            direction = direction - unembedded_sets(model, self.foil)
        self.direction = direction / scale

    def read(self, path: str) -> Float[Tensor, "batch *rest"]:
        """A tensor of the predicted stack at the position that is read."""
        return _wide(self.cache[self.stack.address + path][:, self.at])

    def pulled(self, layer: int, part: str) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The direction as a sublayer's own sum sees it, and what its output norm's bias adds by itself."""
        block, config = self.stack.block(layer), self.stack.config.blocks[layer]
        outer = self.direction * config.residual_scale
        if config.norms not in ("output", "both") or config.norm.kind == "none":
            return outer, outer.new_zeros(len(outer))
        name = f"ln{type(block).sublayers.index(part) + 1}_post"
        norm: Any = getattr(block, name)
        inner = outer * _wide(norm.gain) / self.read(f"blocks.{layer}.{name}.hook_scale")
        inner = inner - inner.mean(-1, keepdim=True) if norm.config.kind == "layer" else inner
        bias = outer.new_zeros(len(outer)) if norm.b is None else outer @ _wide(norm.b)
        return inner, bias

    @property
    def constant(self) -> Float[Tensor, " batch"]:
        """What the biases of the final norm and of the unembedding add."""
        norm, model = self.stack.ln_final, self.model
        bias = getattr(norm, "b", None)

        def of(token: int) -> Tensor:
            own = _wide(model.b_U[token])
            own = own if bias is None else own + _wide(bias) @ _wide(model.W_U[:, token])
            return own * model.cfg.logit_scale

        return self._of_sets(lambda row, one: torch.stack([of(token) for token in one]).mean())

    @property
    def target(self) -> Float[Tensor, " batch"]:
        """The logit (difference) as the model makes it, before a softcap: final norm and unembedding unfolded."""
        model = self.model
        if model.cfg.logit_softcap is None:
            return self._of_sets(lambda row, one: self.logits[row, one].mean())
        resid = self.cache[f"{self.stack.address}blocks.{self.stack.config.n_layers - 1}.hook_resid_post"]
        normed = self.stack.finish(resid, NO_TAPS)[:, self.at]
        every = _wide((normed @ model.W_U + model.b_U) * model.cfg.logit_scale)
        return self._of_sets(lambda row, one: every[row, one].mean())

    def _of_sets(self, value: Callable[[int, list[int]], Tensor]) -> Tensor:
        found = torch.stack([value(row, one) for row, one in enumerate(self.answer)])
        if self.foil is None:
            return found
        return found - torch.stack([value(row, one) for row, one in enumerate(self.foil)])


def _readouts(model: HookedTransformer, pairs: PromptPairs, sets: Any, by: str) -> Iterator[_Readout]:
    for group in groups(model, pairs):
        yield _Readout(model, pairs, sets, group, by)


def _parts(readout: _Readout, by: str, chosen: dict[int, Tensor] | None) -> Iterator[_Part]:
    """Every part of the sum, once."""
    yield from _embeddings(readout)
    for layer, config in enumerate(readout.stack.config.blocks):
        for sublayer in type(readout.stack.block(layer)).sublayers:
            direction, constant = readout.pulled(layer, sublayer)
            where = {"layer": layer, "sublayer": sublayer}
            if sublayer == "mlp":
                module: Any = readout.stack.block(layer).mlp
                yield from _mlp(readout, direction, layer, by, chosen)
                has_bias = module.config.bias
                bias = _wide(module.b_out)
            else:
                module = getattr(readout.stack.block(layer), sublayer)
                yield from _attention(readout, module, direction, layer, sublayer, by)
                has_bias = module.config.bias_out
                bias = _wide(module.b_O)
            normed = config.norms in ("output", "both") and config.norm.bias
            if has_bias or normed:
                yield _one("bias", direction @ bias + constant, f"{layer}.{sublayer} bias", where)
    yield _one("bias", readout.constant, "unembed bias", {})


def _one(kind: str, values: Tensor, label: str, columns: dict[str, Any]) -> _Part:
    return _Part(kind, values[:, None], [label], {name: [value] for name, value in columns.items()})


def _embeddings(readout: _Readout) -> Iterator[_Part]:
    config = readout.stack.config
    together = config.embed_norm is not None or config.embed_width is not None or bool(config.token_types)
    paths = {"embed": "blocks.0.hook_resid_pre"} if together else {"embed": "hook_embed"}
    if config.learned_positions and not together:
        paths["pos_embed"] = "hook_pos_embed"
    for label, path in paths.items():
        yield _one("embed", (readout.read(path) * readout.direction).sum(-1), label, {})


def _attention(
    readout: _Readout, module: Any, direction: Tensor, layer: int, sublayer: str, by: str
) -> Iterator[_Part]:
    """What the heads of one attention add, their output bias left out."""
    seen = einsum(_wide(module.W_O), direction, "head d_head d_model, batch d_model -> batch head d_head")
    short = "attn" if sublayer == "attn" else "cross_attn"
    n_heads = module.config.n_heads
    names = [f"{layer}.{head}" if sublayer == "attn" else f"cross_attn.{layer}.{head}" for head in range(n_heads)]
    same = {"layer": [layer] * n_heads, "sublayer": [sublayer] * n_heads, "head": list(range(n_heads))}
    if by != "source":
        heads = (readout.read(f"blocks.{layer}.{sublayer}.hook_z") * seen).sum(-1)
        if by == "head":
            yield _Part("head", heads, names, same)
        else:
            yield _one("attn", heads.sum(1), f"{layer}.{short}", {"layer": layer, "sublayer": sublayer})
        return
    pattern = _wide(readout.cache[f"{readout.stack.address}blocks.{layer}.{sublayer}.hook_pattern"])[:, :, readout.at]
    values = _wide(readout.cache[f"{readout.stack.address}blocks.{layer}.{sublayer}.hook_v"])
    group = n_heads // module.config.n_key_value_heads
    values = repeat(values, "batch k_pos kv_head d_head -> batch k_pos (kv_head group) d_head", group=group)
    shares = einsum(
        pattern, values, seen, "batch head k_pos, batch k_pos head d_head, batch head d_head -> batch head k_pos"
    )
    n_keys = shares.shape[2]
    columns = {name: [one for one in of_heads for _ in range(n_keys)] for name, of_heads in same.items()}
    columns["source"] = list(range(n_keys)) * n_heads
    labels = [f"{name} ← {key}" for name in names for key in range(n_keys)]
    yield _Part("source", shares.flatten(1), labels, columns)


def _mlp(
    readout: _Readout, direction: Tensor, layer: int, by: str, chosen: dict[int, Tensor] | None
) -> Iterator[_Part]:
    """What the neurons of one MLP add, its output bias left out."""
    where = {"layer": layer, "sublayer": "mlp"}
    values = _neurons(readout, direction, layer)
    if by != "neuron":
        yield _one("mlp", values.sum(1), f"{layer}.mlp", where)
        return
    kept = torch.arange(values.shape[1]) if chosen is None else chosen[layer]
    labels = [f"{layer}.mlp.{neuron}" for neuron in kept.tolist()]
    columns = {name: [value] * len(kept) for name, value in where.items()} | {"neuron": kept.tolist()}
    yield _Part("neuron", values[:, kept.to(values.device)], labels, columns)
    if len(kept) < values.shape[1]:
        others = torch.ones(values.shape[1], dtype=torch.bool)
        others[kept] = False
        yield _one("mlp", values[:, others.to(values.device)].sum(1), f"{layer}.mlp others", where)


def _neurons(readout: _Readout, direction: Tensor, layer: int) -> Float[Tensor, "batch d_mlp"]:
    module: Any = readout.stack.block(layer).mlp
    return readout.read(f"blocks.{layer}.mlp.hook_post") * (direction @ _wide(module.W_out).T)


def _largest_neurons(model: HookedTransformer, pairs: PromptPairs, sets: Any, top: int) -> dict[int, Tensor]:
    """Layer -> the neurons among the `top` of the whole model by mean size over prompts. Holds one number each."""
    sizes: dict[int, Tensor] = {}
    for readout in _readouts(model, pairs, sets, "neuron"):
        for layer, config in enumerate(readout.stack.config.blocks):
            if config.mlp is not None:
                found = _neurons(readout, readout.pulled(layer, "mlp")[0], layer).abs().sum(0).cpu()
                sizes[layer] = sizes.get(layer, 0) + found
    if not sizes:
        return {}
    every = torch.cat(list(sizes.values()))
    marked = torch.zeros(len(every), dtype=torch.bool)
    marked[every.topk(min(top, len(every))).indices] = True
    parts = marked.split([len(one) for one in sizes.values()])
    return {layer: part.nonzero()[:, 0] for layer, part in zip(sizes, parts, strict=True)}


def _frame(readout: _Readout, parts: list[_Part]) -> pd.DataFrame:
    """One row per prompt and part."""
    n = len(readout.group.prompts)
    tables = []
    for part in parts:
        table: dict[str, Any] = {
            name: np.tile(np.array(values, dtype=object), n) for name, values in part.columns.items()
        }
        table["part"], table["kind"] = np.tile(np.array(part.labels, dtype=object), n), part.kind
        table["prompt"] = np.repeat(list(readout.group.prompts), len(part.labels))
        table["value"] = part.values.double().cpu().numpy().ravel()
        tables.append(pd.DataFrame(table))
    found = pd.concat(tables, ignore_index=True)
    return _with_tokens(readout, found)


def _with_tokens(readout: _Readout, table: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers that may be absent, and the text of attended tokens."""
    for name in ("layer", "head", "neuron", "source"):
        column = table[name] if name in table else pd.Series([pd.NA] * len(table))
        table[name] = column.astype("Int64")
    if "sublayer" not in table:
        table["sublayer"] = None
    table["sublayer"] = table["sublayer"].astype(object).where(table["sublayer"].notna(), None)
    token = np.full(len(table), None, dtype=object)
    across = np.asarray(table["sublayer"] == "cross_attn")
    sources, rows = table["source"], np.asarray(table["prompt"])
    two = bool(readout.pairs.clean_decoder)
    for prompt in readout.group.prompts:
        own = readout.pairs.clean_decoder[prompt] if two else readout.pairs.clean[prompt]
        for crossing, ids in ((False, own), (True, readout.pairs.clean[prompt])):
            here = (rows == prompt) & (across == crossing) & np.asarray(sources.notna())
            if here.any():
                texts = np.array(token_texts(readout.model, list(ids)), dtype=object)
                token[here] = texts[np.asarray(sources[here], dtype=int)]
    table["token"] = token
    columns = ["prompt", "part", "kind", "sublayer", "layer", "head", "neuron", "source", "token", "value"]
    return table.loc[:, columns]


def _checked(readout: _Readout, parts: list[_Part]) -> pd.DataFrame:
    """The sum of all parts beside what the model computed. Rounding grows with the sizes that cancel, so the tolerance
    is a share of them."""
    every = torch.cat([part.values for part in parts], dim=1).double()
    total, size, target = every.sum(1), every.abs().sum(1), readout.target.double()
    tolerance = _TOLERANCE.get(readout.model.dtype, 3e-2) * size.clamp(min=1)
    table = pd.DataFrame({"prompt": list(readout.group.prompts), "sum": total.cpu(), "logit": target.cpu()})
    table["difference"] = (total - target).abs().cpu().numpy()
    table["tolerance"] = tolerance.cpu().numpy()
    table["ok"] = table["difference"] <= table["tolerance"]
    return table


def _wanted(name: str, address: str, by: str) -> bool:
    """Whether a site is read for this split."""
    if not name.startswith(address):
        return False
    tail = name.rpartition(".")[2]
    if tail in (
        "hook_embed",
        "hook_pos_embed",
        "hook_resid_post",
        "hook_z",
        "hook_pre",
        "hook_pre_linear",
        "hook_post",
    ):
        return True
    if name.endswith("blocks.0.hook_resid_pre") or (tail in ("hook_in", "hook_scale") and "_post." in name):
        return True
    keys = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern")
    return by == "source" and tail in keys


def _must_be_linear(model: HookedTransformer) -> None:
    model.need_unembed()
    name = model.cfg.model_name
    if any(block.norms == "post" for block in model.main.config.blocks):
        raise InputError(
            f"{name} norms the residual stream itself after each sublayer, so a logit is no sum over its parts. "
            "interp.patch and interp.ablate measure what a part does."
        )
    if model.transform is not None:
        raise InputError(
            f"{name} has a nonlinear head before its unembedding, so parts of the residual have no logits of their "
            "own. interp.patch and interp.ablate measure what a part does."
        )


def _about(model: HookedTransformer, pairs: PromptPairs, by: str, top: int | str) -> dict[str, Any]:
    cap = model.cfg.logit_softcap
    shown = [pairs.spell(one[0]) for one in pairs.answer]
    foils = [pairs.spell(one[0]) for one in pairs.foil]
    return {
        "method": "direct logit attribution",
        "model": model.cfg.model_name,
        "by": by,
        "metric": "logit_diff" if pairs.foil else "logit",
        "unit": "logits",
        "softcap": cap,
        "answer": shown[0] if len(set(shown)) == 1 else shown,
        "foil": None if not foils else foils[0] if len(set(foils)) == 1 else foils,
        "top": top if by == "neuron" else None,
        "items": list(pairs.items),
        "exact": True,
        "left_out": _LEFT_OUT
        + (f" The sum is the logit before the softcap of {cap:g}, which is no sum." if cap is not None else ""),
    }


def _wide(x: Tensor) -> Tensor:
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()
