"""Interventions at one place and position as cells of the exact engine: each sets a vector to a value that is made of
what stands there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.causal.bundles import Bundle, Op
from interp.causal.questions import Question, named_positions
from interp.causal.reach import felt, start_of
from interp.causal.shelf import record
from interp.causal.sweep import Sweep
from interp.causal.texts import Text
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.sites import Site
from probes.data import Place

__all__ = ["Cell", "Change", "Measured", "at_layer", "intervene", "read_at", "site_of"]

Rows = NDArray[np.floating]
Change = Callable[[Rows, NDArray[np.integer]], Rows]  # (values [row width], the pair of each row) -> new values
_ROWS_AT_ONCE = 16
_POSITIONAL = ("pos", "k_pos")


@dataclass(frozen=True, eq=False)
class Cell:
    """One intervention: at a place and a named position of every prompt, `change` of what stands there (None: the
    corrupt run's). `control` says what it is compared for ("": the intervention itself), `draw` which of several."""

    intervention: str
    place: Place
    position: str
    change: Change | None
    dose: float = float("nan")
    control: str = ""
    draw: int = 0


@dataclass(frozen=True)
class Measured:
    """The metric of each prompt: unedited, of its corrupt run, and `[prompt, cell]` edited."""

    base: Rows
    source: Rows
    patched: Rows


def site_of(model: HookedTransformer, place: Place) -> Site:
    """The site of a place, checked: a tensor of a layer with one vector a token, and a head that is there."""
    site = model.sites.resolve(place.site)
    if site.layer is None:
        raise InputError(
            f"{place} is outside the layers, where nothing is edited. Probe resid_pre.0, what enters them."
        )
    units = _units(site)
    if len(site.axes) - len(units) != 3 or site.axes[1] not in _POSITIONAL:
        raise InputError(f"{place} has axes {' '.join(site.axes)}. Give a tensor with a vector for each token.")
    if bool(units) != (place.head is not None):
        need = f"Name one of its heads: Place({place.site!r}, head)." if units else "Leave the head out."
        raise InputError(f"{site} has axes {' '.join(site.axes)}. {need}")
    return site


def at_layer(model: HookedTransformer, place: Place, layer: int) -> Place | None:
    """The same place in another layer; None where that has no such tensor."""
    name = str(replace(Site.parse(str(site_of(model, place))), layer=layer))
    return Place(name, place.head) if name in model.sites else None


def read_at(question: Question, place: Place, position: str, which: str = "clean") -> Rows:
    """What stands at the last token of a position, `[pair width]`."""
    model = question.model
    site = site_of(model, place)
    texts, at = question.texts("clean" if which == "clean" else "corrupt"), _positions(question, site, position)
    first = [
        next(i for i, row in enumerate(question.metric.rows) if row.pair == pair) for pair in range(len(question.pairs))
    ]
    values = _recorded(model, [texts[i] for i in first], {str(site): [at[i][-1:] for i in first]})[str(site)]
    return _own(values, place).double().cpu().numpy()


def intervene(
    question: Question,
    cells: Sequence[Cell],
    *,
    max_bytes: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Run every cell on every clean prompt. Cost: 3 passes, and for each cell the layers and tokens it can reach."""
    model = question.model
    texts = question.texts("clean")
    pair_of = np.array([row.pair for row in question.metric.rows])
    banks, index = _banks(question, texts, cells, pair_of)
    bundles = []
    for number, cell in enumerate(cells):
        site, rows = site_of(model, cell.place), index.get(number)
        units = None if cell.place.head is None else torch.tensor([[cell.place.head]])
        for text, (one, at) in enumerate(zip(texts, _positions(question, site, cell.position), strict=True)):
            kept = felt(model, one, site, at)
            if not kept:
                continue  # nothing that is read can feel it
            if rows is None:
                op = Op(site, kept, units, "source")
            else:
                op = Op(site, kept, units, "new", torch.tensor([rows[text] + at.index(pos) for pos in kept]))
            start = start_of(model, [op])
            if any(read >= start for read in one.reads):
                bundles.append(Bundle(text, torch.tensor([number]), (op,), start))
    absent = np.zeros((len(texts), len(cells)), dtype=bool)
    corrupt = question.texts("corrupt")
    sweep = Sweep(model, question.metric, texts, corrupt, bundles, absent, banks={"new": banks}, max_bytes=max_bytes)
    found = sweep.run(progress)
    assert found.source is not None
    combine = question.metric.combine
    return Measured(combine(found.base), combine(found.source), combine(found.patched))


def _banks(
    question: Question, texts: Sequence[Text], cells: Sequence[Cell], pair_of: NDArray
) -> tuple[dict[str, Tensor], dict[int, list[int]]]:
    """New values by site, one row for each cell, text and token; and by cell where each text's rows begin."""
    model = question.model
    wanted: dict[str, list[tuple[int, ...]]] = {}
    for cell in cells:
        if cell.change is not None:
            site = site_of(model, cell.place)
            at = _positions(question, site, cell.position)
            have = wanted.setdefault(str(site), [()] * len(texts))
            wanted[str(site)] = [tuple(sorted({*one, *more})) for one, more in zip(have, at, strict=True)]
    stored = _recorded(model, texts, wanted)
    made: dict[str, list[Tensor]] = {}
    sizes: dict[str, int] = {}
    index: dict[int, list[int]] = {}
    for number, cell in enumerate(cells):
        if cell.change is None:
            continue
        site = site_of(model, cell.place)
        name, at = str(site), _positions(question, site, cell.position)
        starts = np.cumsum([0, *map(len, wanted[name])])
        rows = [starts[text] + wanted[name][text].index(pos) for text in range(len(texts)) for pos in at[text]]
        pairs = np.repeat(pair_of, [len(one) for one in at])
        values = stored[name][rows].clone()
        own = _own(values, cell.place)
        new = torch.from_numpy(np.asarray(cell.change(own.double().cpu().numpy(), pairs))).to(own)
        if cell.place.head is None:
            values = new
        else:
            values[:, cell.place.head] = new
        offset = sizes.get(name, 0)
        index[number] = [offset + int(one) for one in np.cumsum([0, *map(len, at)])[:-1]]
        sizes[name] = offset + len(values)
        made.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in made.items()}, index


@torch.no_grad()
def _recorded(
    model: HookedTransformer, texts: Sequence[Text], wanted: Mapping[str, Sequence[tuple[int, ...]]]
) -> dict[str, Tensor]:
    """Values of sites at some positions of each text, `[row *rest]`, text after text."""
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for start in range(0, len(texts) if wanted else 0, _ROWS_AT_ONCE):
        some = texts[start : start + _ROWS_AT_ONCE]
        made = record(model, some, sites=set(wanted), logits=False)
        for name, at in wanted.items():
            site = Site.parse(name)
            stack = "encoder" if Op(site, ()).in_memory else site.stack
            places = [made.place(stack, i) + pos for i in range(len(some)) for pos in at[start + i]]
            parts[name].append(made.values[name][places].clone())
    return {name: torch.cat(pieces) for name, pieces in parts.items()}


def _positions(question: Question, site: Site, name: str) -> list[tuple[int, ...]]:
    """The tokens of a named position in each text."""
    in_encoder = question.counts_in_encoder(site)
    return [named_positions(question.pairs, name, row.pair, in_encoder=in_encoder) for row in question.metric.rows]


def _own(values: Tensor, place: Place) -> Tensor:
    """The place's own vectors, of all heads' or of everything's."""
    if place.head is None:
        return values
    if not 0 <= place.head < values.shape[1]:
        raise InputError(f"There is no head {place.head} at {place.site}: it has 0 to {values.shape[1] - 1}.")
    return values[:, place.head]


def _units(site: Site) -> tuple[str, ...]:
    return tuple(axis for axis in site.axes if axis in ("head", "kv_head"))
