"""Where a residual stream came from: its sources, carried with frozen norms to the queries or keys of one attention.

A stream is a list of steps: sources are added, and norms or projections map the whole. With the scale of each norm
frozen, every step is linear, so each source can be carried through on its own, also where the residual itself is normed
(BERT, BART) or where what a sublayer adds is (Gemma 2, OLMo 2). With norms recomputed, the same steps give the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.model.attention import Attention
from interp.model.cache import ActivationCache
from interp.model.norms import Norm, norm_scale, normalize
from interp.model.positions import rotate
from interp.model.stack import Stack
from interp.sites import Head

__all__ = ["BIASES", "Source", "Stream", "View", "project", "residual_reads", "stream_to", "sum_of"]

View = str  # "layer" or "head"
Vectors = Float[Tensor, "pos width"]
BIASES = "biases"  # the label of all of them together


@dataclass(frozen=True)
class Source:
    """One thing that was added to a stream. `kind`: embedding, attn (all heads of a layer), head, mlp or bias."""

    label: str
    kind: str
    layer: int | None
    head: int | None
    vectors: Vectors


@dataclass(frozen=True)
class _Map:
    """A step that maps the whole stream: `linear` as it is with frozen scales, less the bias; `fresh` recomputed."""

    linear: Callable[[Vectors], Vectors]
    fresh: Callable[[Vectors], Vectors]
    label: str = ""
    bias: Tensor | None = None


@dataclass(frozen=True)
class _Add:
    """A step that adds sources, together mapped (by an output norm) and scaled."""

    parts: Callable[[View], Iterator[Source]]
    maps: tuple[_Map, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True)
class Stream:
    """The steps that made some positions of one text's residual stream, up to where it is read."""

    steps: tuple[_Map | _Add, ...]

    def then(self, *maps: _Map) -> Stream:
        return replace(self, steps=(*self.steps, *maps))

    def sources(self, view: View) -> Iterator[Source]:
        """Each source as the end of the stream sees it; they sum to the end. Biases come last: one by one by "head",
        in one part by "layer"."""
        biases: list[Source] = []
        for source in self._carried(view):
            if source.kind == "bias":
                biases.append(source)
            else:
                yield source
        if view == "head":
            yield from biases
        elif biases:
            yield Source(BIASES, "bias", None, None, torch.stack([one.vectors for one in biases]).sum(0))

    def raw(self, label: str, view: View) -> Vectors:
        """A source as it was made, before anything is done to it."""
        names = []
        for step in self.steps:
            for source in step.parts(view) if isinstance(step, _Add) else ():
                if source.label == label and source.kind != "bias":
                    return source.vectors
                names += [source.label] if source.kind != "bias" else []
        raise InputError(f"There is no source {label!r} here. There are {', '.join(names)}.")

    def whole(self, instead: Mapping[str, Vectors] | None = None, view: View = "layer") -> Float[Tensor, "pos end"]:
        """The end of the stream with all norms recomputed, some raw sources replaced."""
        total: Tensor | None = None
        for step in self.steps:
            if isinstance(step, _Map):
                assert total is not None
                total = step.fresh(total)
                continue
            given = instead or {}
            added = sum_of(given.get(source.label, source.vectors) for source in step.parts(view))
            for one in step.maps:
                added = one.fresh(added)
            added = added * step.factor
            total = added if total is None else total + added
        assert total is not None
        return total

    def _carried(self, view: View) -> Iterator[Source]:
        width = None
        for i, step in enumerate(self.steps):
            later = [one for one in self.steps[i + 1 :] if isinstance(one, _Map)]
            if isinstance(step, _Map):
                if step.bias is not None:
                    assert width is not None
                    yield _through(_constant(step, width), later)
                continue
            for source in step.parts(view):
                width = len(source.vectors)
                yield _through(source, [*step.maps, _times(step.factor), *later])
            for j, one in enumerate(step.maps):
                if one.bias is not None:
                    assert width is not None
                    yield _through(_constant(one, width), [*step.maps[j + 1 :], _times(step.factor), *later])


def sum_of(vectors: Iterator[Tensor]) -> Tensor:
    """One after the other, so that many are never held together."""
    total = next(vectors)
    for one in vectors:
        total = total + one
    return total


def residual_reads(stack: Stack, head: Head | None) -> list[str]:
    """Canonical names of what a stream needs: up to what `head` reads, or (None) to the end of the stack."""
    names = [f"{stack.address}hook_embed"]
    names += [f"{stack.address}hook_pos_embed"] if stack.pos_embed is not None else []
    for layer, n, kind in _sublayers(stack, head):
        block, address = stack.config.blocks[layer], f"{stack.address}blocks.{layer}."
        normed = block.norm.kind != "none"
        if _is_target(head, layer, kind):
            names += [f"{address}ln{n}.hook_scale"] if block.norms in ("pre", "both") and normed else []
            continue
        outputs = block.norms in ("output", "both")
        names += [f"{address}ln{n}_post.hook_in"] if outputs else []
        names += [f"{address}ln{n}_post.hook_scale"] if outputs and normed else []
        names += [f"{address}ln{n}.hook_scale"] if block.norms == "post" and normed else []
        if kind != "mlp":
            names.append(f"{address}{kind}.hook_z")
        elif not outputs:
            names.append(f"{address}hook_mlp_out")
    if head is None and stack.ln_final.config.kind != "none":
        names.append(f"{stack.address}blocks.{stack.config.n_layers - 1}.hook_resid_post")
    return names


def stream_to(cache: ActivationCache, stack: Stack, head: Head | None, pos: Int[Tensor, " pos"]) -> Stream:
    """The stream of a text (a batch of one) at some positions, up to what `head` reads after the norm in front of it;
    None: up to the stack's end, as a decoder's cross-attention reads it."""
    reader = _Reader(cache, stack, pos)
    steps: list[_Map | _Add] = reader.embedding()
    for layer, n, kind in _sublayers(stack, head):
        block = stack.config.blocks[layer]
        if _is_target(head, layer, kind):
            steps += reader.norm(layer, f"ln{n}") if block.norms in ("pre", "both") else []
            continue
        maps = reader.norm(layer, f"ln{n}_post") if block.norms in ("output", "both") else []
        steps.append(_Add(reader.parts(layer, n, kind), tuple(maps), block.residual_scale))
        steps += reader.norm(layer, f"ln{n}") if block.norms == "post" else []
    if head is None:
        steps += reader.final_norm()
    return Stream(tuple(steps))


def project(stream: Stream, attn: Attention, side: Literal["q", "k"], head: int, rows: Any, whole: Tensor) -> Stream:
    """A stream carried on to the queries or keys of one head: projected, normed where the model norms them, rotated.

    `whole` `[pos heads d_head]` are the queries or keys of all heads at these positions as the pass made them, `rows`
    the rows of these positions.
    """
    config = attn.config
    linear = attn.q if side == "q" else attn.k
    weight, bias = _wide(linear.weight), None if linear.bias is None else _wide(linear.bias)
    own = slice(head * config.d_head, (head + 1) * config.d_head)
    over_all = config.qk_norm is not None and config.qk_norm_over == "all"
    if not over_all:
        weight, bias = weight[own], None if bias is None else bias[own]
    maps = [_affine(f"{side}_bias", weight, bias)]
    if config.qk_norm is not None:
        norm = attn.q_norm if side == "q" else attn.k_norm
        read = rearrange(whole, "pos head d_head -> pos (head d_head)") if over_all else whole[:, head]
        maps += _norm_map(norm, norm_scale(read, norm.config), f"{side}_norm_bias")
    if over_all:
        maps.append(_same(lambda x: x[:, own]))
    if config.rotary is not None:
        rotary = config.rotary
        maps.append(_same(lambda x: rotate(x[None, :, None], rows, rotary)[0, :, 0]))
    return stream.then(*maps)


class _Reader:
    """Reads the steps of one stack from a cache, at some positions."""

    def __init__(self, cache: ActivationCache, stack: Stack, pos: Tensor):
        self.cache, self.stack, self.pos = cache, stack, pos
        self.prefix = stack.address  # labels of a model with two stacks say which

    def embedding(self) -> list[_Map | _Add]:
        stack = self.stack
        found = {"embed": self.read("hook_embed")}
        if stack.pos_embed is not None:
            found["pos_embed"] = self.read("hook_pos_embed").expand_as(found["embed"])
        if stack.type_embed is not None:
            found["type_embed"] = _wide(stack.type_embed.weight[0]).expand_as(found["embed"])
        parts = [Source(f"{self.prefix}{name}", "embedding", None, None, x) for name, x in found.items()]
        steps: list[_Map | _Add] = [_Add(lambda view: iter(parts))]
        if stack.embed_norm is not None:
            scale = norm_scale(sum_of(iter(found.values())), stack.embed_norm.config)
            steps += _norm_map(stack.embed_norm, scale, f"{self.prefix}embed_norm_bias")
        if stack.embed_project is not None:
            linear = stack.embed_project
            steps.append(_affine(f"{self.prefix}embed_project_bias", _wide(linear.weight), _wide(linear.bias)))
        return steps

    def parts(self, layer: int, n: int, kind: str) -> Callable[[View], Iterator[Source]]:
        return lambda view: self._mlp(layer, n) if kind == "mlp" else self._attention(layer, kind, view)

    def norm(self, layer: int, part: str) -> list[_Map]:
        norm = cast(Norm, getattr(self.stack.block(layer), part))
        if norm.config.kind == "none":
            return []
        scale = self.read(f"blocks.{layer}.{part}.hook_scale")
        return _norm_map(norm, scale, f"{self.prefix}{layer}_{part}_bias")

    def final_norm(self) -> list[_Map]:
        norm = self.stack.ln_final
        if norm.config.kind == "none":
            return []
        last = self.read(f"blocks.{self.stack.config.n_layers - 1}.hook_resid_post")
        return _norm_map(norm, norm_scale(last, norm.config), f"{self.prefix}ln_final_bias")

    def read(self, path: str) -> Float[Tensor, "pos *rest"]:
        return _wide(self.cache[f"{self.stack.address}{path}"][0, self.pos])

    def _mlp(self, layer: int, n: int) -> Iterator[Source]:
        outputs = self.stack.config.blocks[layer].norms in ("output", "both")
        path = f"blocks.{layer}.ln{n}_post.hook_in" if outputs else f"blocks.{layer}.hook_mlp_out"
        made = self.read(path)
        factor = self.stack.config.blocks[layer].residual_scale
        if not outputs and factor != 1.0:
            made = made / factor  # the site is what was added; the step scales it
        yield Source(f"{self.prefix}{layer}_mlp_out", "mlp", layer, None, made)

    def _attention(self, layer: int, kind: str, view: View) -> Iterator[Source]:
        attn = cast(Attention, getattr(self.stack.block(layer), kind))
        z = self.read(f"blocks.{layer}.{kind}.hook_z")
        W_O = _wide(attn.W_O)
        if view == "layer":
            whole = einsum(z, W_O, "pos head d_head, head d_head d_model -> pos d_model")
            yield Source(f"{self.prefix}{layer}_{kind}_out", "attn", layer, None, whole)
        else:
            for i in range(z.shape[1]):
                label = str(Head(layer, i, kind, self.stack.name))
                yield Source(label, "head", layer, i, z[:, i] @ W_O[i])
        if attn.o.bias is not None:
            bias = _wide(attn.o.bias).expand(len(z), -1)
            yield Source(f"{self.prefix}{layer}_{kind}_bias", "bias", layer, None, bias)


def _sublayers(stack: Stack, head: Head | None) -> Iterator[tuple[int, int, str]]:
    """Layer, number and kind of the sublayers up to the one that a head belongs to, that one included."""
    for layer in range(stack.config.n_layers):
        for n, kind in enumerate(type(stack.block(layer)).sublayers, start=1):
            yield layer, n, kind
            if _is_target(head, layer, kind):
                return


def _is_target(head: Head | None, layer: int, kind: str) -> bool:
    return head is not None and (head.layer, head.sublayer) == (layer, kind)


def _through(source: Source, maps: list[_Map]) -> Source:
    vectors = source.vectors
    for one in maps:
        vectors = one.linear(vectors)
    return replace(source, vectors=vectors)


def _constant(step: _Map, n_pos: int) -> Source:
    assert step.bias is not None
    return Source(step.label, "bias", None, None, step.bias.expand(n_pos, -1))


def _norm_map(norm: Norm, scale: Tensor, label: str) -> list[_Map]:
    if norm.config.kind == "none":
        return []

    bias, gain = None if norm.b is None else _wide(norm.b), _wide(norm.gain)

    def fresh(x: Tensor) -> Tensor:
        y = normalize(x, norm_scale(x, norm.config), norm.config) * gain
        return y if bias is None else y + bias

    return [_Map(partial(_frozen, norm.config.kind, scale, gain), fresh, label, bias)]


def _frozen(kind: str, scale: Tensor, gain: Tensor, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    return x / scale * gain


def _affine(label: str, weight: Tensor, bias: Tensor | None) -> _Map:
    linear = lambda x: x @ weight.T  # noqa: E731
    return _Map(linear, linear if bias is None else lambda x: x @ weight.T + bias, label, bias)


def _same(function: Callable[[Tensor], Tensor]) -> _Map:
    return _Map(function, function)


def _times(factor: float) -> _Map:
    return _same(lambda x: x if factor == 1.0 else x * factor)


def _wide(x: Tensor) -> Tensor:
    """At least float32: sums of many parts lose digits in half precision."""
    x = x.detach()
    return x if x.dtype == torch.float64 else x.float()
