"""The texts that a metric reads, and what one unedited pass over some of them leaves behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.block import Memory
from interp.model.packing import PackedRows, PartRows, Segment, pack
from interp.model.stack import Stack
from interp.model.taps import Tap
from interp.model.transformer import HookedTransformer

__all__ = ["Recording", "Text", "encoders_differ", "first_difference", "run_texts"]

PATTERN_SITES = ("hook_attn_scores", "hook_pattern")  # made text by text, so they are stored text by text


@dataclass(frozen=True)
class Text:
    """One text that is run: its tokens, those of the encoder where the model has two stacks, and the places whose
    logits are read. `noise` is added to the embeddings of the stack that reads first."""

    tokens: tuple[int, ...]
    reads: tuple[int, ...]
    encoder: tuple[int, ...] = ()
    noise: Float[Tensor, "pos d_model"] | None = field(default=None, compare=False)

    def in_stack(self, is_encoder: bool) -> tuple[int, ...]:
        """The tokens that one of the stacks reads."""
        return self.encoder if is_encoder else self.tokens


def encoders_differ(one: Text, other: Text) -> bool:
    """Whether an encoder puts out another thing in two runs."""
    noisy = any(text.noise is not None and bool(text.noise.any()) for text in (one, other))
    return bool(one.encoder) and (one.encoder != other.encoder or noisy)


def first_difference(one: Text, other: Text) -> int:
    """The first position of the predicted text at which two runs differ; its length where nothing does."""
    if encoders_differ(one, other):
        return 0
    differ = [i for i, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=True)) if a != b]
    if not one.encoder:
        for text in (one, other):
            if text.noise is not None:
                differ += text.noise.any(dim=1).nonzero()[:, 0].tolist()
    return min(differ, default=len(one.tokens))


@dataclass
class Recording:
    """What a pass over packed texts left: `values` of the sites asked for, residuals entering layers, keys and
    values, the encoder's output, and the finished residual at every read.

    Packed tensors are `[token, …]`; text i begins at `starts[stack][i]`. Patterns are lists, one for each text.
    """

    texts: Sequence[Text]
    starts: dict[str, list[int]]
    values: dict[str, Tensor] = field(default_factory=dict)
    patterns: dict[str, list[Tensor]] = field(default_factory=dict)
    resid: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    memory: Memory | None = None
    final: Tensor | None = None  # [read d_model], the reads of all texts in order

    def place(self, stack: str, text: int) -> int:
        """Where a text begins in the packed tensors of a stack."""
        return self.starts[stack][text]


class _Reader(Tap):
    """Keeps packed tensors, and the patterns of each text."""

    def __init__(self, names: Collection[str], resid: Mapping[str, tuple[str, int]], into: Recording):
        self._names, self._resid, self._into = names, resid, into
        self._text: int | None = None

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if name in self._names:
            if self._text is None:
                self._into.values[name] = x[0]
            else:
                self._into.patterns.setdefault(name, []).append(x[0])
        if name in self._resid:
            self._into.resid[self._resid[name]] = x[0]
        return x

    def wants(self, *names: str) -> bool:
        return any(name in self._names for name in names)

    def within(self, owner: int | None) -> Tap:
        one = _Reader(self._names, {}, self._into)
        one._text = owner
        return one


def run_texts(
    model: HookedTransformer,
    texts: Sequence[Text],
    *,
    sites: Collection[str] = (),
    resid: Collection[tuple[str, int]] = (),
    keys: bool = False,
    logits: bool = True,
    tap: Tap | None = None,
) -> Recording:
    """Run texts once, packed, and keep what was asked for: sites by canonical name, residuals entering (stack,
    layer). A `tap` takes the reader's place, for passes that are edited or differentiated."""
    made = Recording(texts, {stack.name: _starts(texts, stack is not model.main) for stack in _stacks(model)})
    names = {f"{stack}{'.' if stack else ''}blocks.{layer}.hook_resid_pre": (stack, layer) for stack, layer in resid}
    reader = tap if tap is not None else _Reader(frozenset(sites), names, made)
    for stack in _stacks(model):
        made_rows = packed_texts(model, stack, texts)
        x = embedded(model, stack, texts, made_rows, reader)
        for layer in range(stack.config.n_layers):
            x, keys_values = stack.block(layer)(x, made_rows, reader, memory=made.memory)
            if keys and stack is model.main:
                made.keys[layer] = (keys_values[0], keys_values[1])
        if stack is not model.main:
            made.memory = Memory(stack.finish(x, reader), made_rows)
        elif logits:
            made.final = stack.finish(x[:, read_places(made.starts[stack.name], texts, x.device)], reader)[0]
    return made


def packed_texts(model: HookedTransformer, stack: Stack, texts: Sequence[Text]) -> PackedRows:
    """One segment for each text."""
    parts: PartRows = {}
    is_encoder = stack is not model.main
    segments = [Segment(i, 1, 0, len(text.in_stack(is_encoder)), owner=i) for i, text in enumerate(texts)]
    return pack(segments, model.device, parts, **stack.distances)


def embedded(
    model: HookedTransformer, stack: Stack, texts: Sequence[Text], rows: PackedRows, tap: Tap
) -> Float[Tensor, "one token d_model"]:
    """The first residual of packed texts, with their noise where they have any."""
    is_encoder = stack is not model.main
    ids = [token for text in texts for token in text.in_stack(is_encoder)]
    x = stack.embed_tokens(torch.tensor([ids], device=model.device), rows, tap)
    noisy = stack is _stacks(model)[0] and any(text.noise is not None for text in texts)
    if not noisy:
        return x
    still = x.new_zeros
    noise = [still(len(t.in_stack(is_encoder)), x.shape[-1]) if t.noise is None else t.noise for t in texts]
    return x + torch.cat([one.to(x) for one in noise])[None]


def read_places(starts: Sequence[int], texts: Sequence[Text], device: torch.device) -> Tensor:
    """Where the reads of all texts stand in the packed row."""
    places = [start + read for start, text in zip(starts, texts, strict=True) for read in text.reads]
    return torch.tensor(places, device=device)


def _stacks(model: HookedTransformer) -> list[Stack]:
    """The stacks in the order they run."""
    found = [model.encoder, model.decoder] if model.encoder is not None and model.decoder is not None else [model.main]
    return [stack for stack in found if stack is not None]


def _starts(texts: Sequence[Text], is_encoder: bool) -> list[int]:
    found = [0]
    for text in texts:
        found.append(found[-1] + len(text.in_stack(is_encoder)))
    return found[:-1]
