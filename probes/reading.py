"""Which sites are read, and the one pass over packed texts that reads them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError, UnknownSiteError
from interp.model.packing import Segment, pack
from interp.model.stack import Stack
from interp.model.taps import Tap
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["GROUPS", "Plan", "Write", "plan_of", "read_rows"]

Write = Callable[[str, slice, NDArray], None]
"""Takes a site's name, the rows, and their activations."""
GROUPS: dict[str, tuple[str, str]] = {
    "resid": ("", "hook_resid_pre"),
    "attn_out": ("", "hook_attn_out"),
    "mlp_out": ("", "hook_mlp_out"),
    "z": ("attn", "hook_z"),
    "q": ("attn", "hook_q"),
    "k": ("attn", "hook_k"),
    "v": ("attn", "hook_v"),
    "neurons": ("mlp", "hook_post"),
}
"""Names of groups of sites: of every layer the tensor of this part and name; "resid" has the last resid_post too."""
_TOKENS = 2048  # of a pass: enough for full speed, and few for memory


@dataclass(frozen=True)
class Plan:
    """What is read of one stack: `sites` in forward order. Layers before `stop` are run; a residual that enters layer
    `stop` is there without running it. `embedding` is the baseline's site, `asked` whether the user asked for it."""

    stack: str
    sites: tuple[Site, ...]
    stop: int
    finish: bool
    embedding: Site
    asked: bool

    @property
    def names(self) -> list[str]:
        return [str(site) for site in self.sites]


def plan_of(model: HookedTransformer, wanted: Any) -> Plan:
    """The sites that group names and spellings mean, with the embedding layer's among them in any case.

    A model with two stacks is read in its encoder. Raises `InputError` for a tensor without one vector per token.
    """
    stack = _stack_of(model)
    several = isinstance(wanted, Sequence) and not isinstance(wanted, str) and not _is_coordinates(wanted)
    found: dict[Site, None] = {}
    for one in wanted if several else [wanted]:
        found |= dict.fromkeys(_group(model, stack, one) or [_site(model, stack, one)])
    if not found:
        raise InputError(f"sites={wanted!r} names nothing to read. Give {', '.join(GROUPS)}, all, or sites.")
    first = Site("hook_resid_pre", "", 0, stack.name)
    asked = first in found
    found |= {first: None}
    sites = tuple(site for site in model.sites if site in found)
    finish = any(site.part == "ln_final" for site in sites)
    layers = [site.layer + (site.name != "hook_resid_pre") for site in sites if site.layer is not None]
    stop = stack.config.n_layers if finish else max(layers, default=0)
    return Plan(stack.name, sites, stop, finish, first, asked)


def read_rows(
    model: HookedTransformer,
    plan: Plan,
    tokens: Sequence[NDArray],
    text: NDArray,
    pos: NDArray,
    write: Write,
    *,
    start: int = 0,
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Run each text once, and write the activations `[row (head) width]` of all sites at its rows.

    Rows `text`, `pos` are in the order of texts. Nothing runs behind the last layer that is read, nor, where attention
    is causal, behind a text's last row. Rows before `start` are left out; `done` hears how many rows are written.
    """
    stack = _stack_of(model)
    causal = all(block.attn.mask == "causal" for block in stack.config.blocks)
    for rows, batch in _batches(tokens, text, pos, causal=causal, start=start):
        order = sorted(range(len(batch)), key=lambda i: len(batch[i][0]))
        begins, at = np.zeros(len(batch), dtype=np.int64), 0
        for i in order:
            begins[i], at = at, at + len(batch[i][0])
        sizes = [(size, len(list(some))) for size, some in groupby(len(batch[i][0]) for i in order)]
        segments = [Segment(i, count, 0, size, owner=i) for i, (size, count) in enumerate(sizes)]
        index = np.concatenate([begin + places for begin, (_, places) in zip(begins, batch, strict=True)])
        ids = np.concatenate([batch[i][0] for i in order]).astype(np.int64)
        tap = _Reader(frozenset(plan.names), torch.from_numpy(index).to(model.device), rows, write)
        _run(model, stack, plan, torch.from_numpy(ids).to(model.device), segments, tap)
        done(rows.stop)


@torch.no_grad()
def _run(
    model: HookedTransformer, stack: Stack, plan: Plan, ids: Tensor, segments: Sequence[Segment], tap: _Reader
) -> None:
    packed = pack(segments, model.device, {}, **stack.distances)
    x = stack.embed_tokens(ids[None], packed, tap)
    for layer in range(plan.stop):
        x, _ = stack.block(layer)(x, packed, tap)
    if plan.stop < stack.config.n_layers:
        tap(f"{stack.address}blocks.{plan.stop}.hook_resid_pre", x)
    elif plan.finish:
        stack.finish(x, tap)


class _Reader(Tap):
    """Hands on the rows of the tensors that are wanted, as they are made: no more than one is held at a time."""

    def __init__(self, names: frozenset[str], index: Tensor, rows: slice, write: Write):
        self._names, self._index, self._rows, self._write = names, index, rows, write

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if name in self._names:
            found = x[0, self._index]
            self._write(name, self._rows, (found if found.dtype == torch.float64 else found.float()).cpu().numpy())
        return x

    def wants(self, *names: str) -> bool:
        return any(name in self._names for name in names)


def _batches(
    tokens: Sequence[NDArray], text: NDArray, pos: NDArray, *, causal: bool, start: int
) -> Iterator[tuple[slice, list[tuple[NDArray, NDArray]]]]:
    """Rows, and the texts they are of with their positions; a text is never in two batches."""
    firsts = np.flatnonzero(np.diff(text, prepend=-1))
    ends = np.append(firsts[1:], len(text))
    batch: list[tuple[NDArray, NDArray]] = []
    begin, n_tokens = start, 0
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        if end <= start:
            continue
        places, row = pos[first:end], tokens[text[first]]
        row = row[: int(places.max()) + 1] if causal else row
        if batch and n_tokens + len(row) > _TOKENS:
            yield slice(begin, first), batch
            batch, begin, n_tokens = [], first, 0
        batch.append((row, places))
        n_tokens += len(row)
    if batch:
        yield slice(begin, len(text)), batch


def _group(model: HookedTransformer, stack: Stack, name: Any) -> list[Site]:
    """The sites of a group's name; none for anything else."""
    if not isinstance(name, str):
        return []
    plain = name.removeprefix(stack.address)
    if plain.startswith("decoder."):
        _site(model, stack, plain)
    if plain == "all":
        return [site for one in GROUPS for site in _of(model, stack, one)]
    if plain not in GROUPS:
        return []
    found = _of(model, stack, plain)
    if not found:
        raise InputError(f"sites={name!r}: this model has no such tensor in any layer. print(model.sites) lists them.")
    return found


def _of(model: HookedTransformer, stack: Stack, group: str) -> list[Site]:
    part, name = GROUPS[group]
    found = [one for one in model.sites if (one.part, one.name, one.stack) == (part, name, stack.name)]
    last = Site("hook_resid_post", "", stack.config.n_layers - 1, stack.name)
    return [*found, last] if group == "resid" and stack.config.n_layers else found


def _site(model: HookedTransformer, stack: Stack, one: Any) -> Site:
    """A single site, of the stack that is read."""
    if not isinstance(one, str | Site | tuple):
        raise InputError(f'sites={one!r} is no site. Give {", ".join(GROUPS)}, all, or a name such as "resid_pre.5".')
    text = ".".join(map(str, one)) if isinstance(one, tuple) else str(one)
    try:
        site = model.sites.resolve(f"{stack.address}{text.removeprefix(stack.address)}")
    except UnknownSiteError:
        site = model.sites.resolve(one)
    if site.stack not in (stack.name, "") or (stack.name and not site.stack):
        raise InputError(
            f"{site} belongs to the text that this model's decoder reads; labels are of the text that its encoder "
            "reads. Choose sites of the encoder."
        )
    if site.axes[:2] != ("batch", "pos") or site.axes[-1] == "d_vocab":
        raise InputError(f"{site} has the axes {' '.join(site.axes)}: no vector for each token. Choose another site.")
    return site


def _stack_of(model: HookedTransformer) -> Stack:
    """The stack that reads the labelled text."""
    return model.encoder if model.encoder is not None and model.decoder is not None else model.main


def _is_coordinates(wanted: Any) -> bool:
    return isinstance(wanted, tuple) and len(wanted) > 1 and not all(isinstance(one, str | Site) for one in wanted)
