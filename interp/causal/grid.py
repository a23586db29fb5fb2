"""From axes to cells: which layers, positions and heads each cell of a sweep edits, text by text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.causal.questions import named_positions
from interp.causal.targets import check_prefix
from interp.errors import InputError, UnknownSiteError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import is_index, plain
from interp.sites import Site

__all__ = ["Grid", "SitePlaces", "asked_positions", "chosen_positions"]

UNIT_AXES = {"head": "head", "kv_head": "kv_head", "neuron": "d_mlp"}  # axis of a grid -> axis of a site
AXES = ("layer", "pos", "position", *UNIT_AXES, "key_pos")


@dataclass(frozen=True)
class SitePlaces:
    """One kind of site in all the layers that have it."""

    name: str
    sites: dict[int, Site]
    has_layer: bool = False  # its name says the one layer

    @classmethod
    def resolve(cls, model: HookedTransformer, name: Any) -> SitePlaces:
        """The sites that a name without a layer means, e.g. "z", "resid_pre", "encoder.z", "cross_attn.pattern"; of
        one with its layer ("z.3", "blocks.3.attn.hook_z") that one.

        `result` is patched as z, which it is a linear map of. Raises `UnknownSiteError` for an unknown name."""
        if not isinstance(name, (str, Site)):
            raise InputError(f"site is {name!r}. Give a name such as 'resid_pre', 'z', 'k' or 'mlp_out'.")
        name = str(name)
        check_prefix(model, name)
        if re.search(r"\d", name):
            site = _in_layer(model, name)
            if site is not None:
                return cls(name, {_layer(site): site}, has_layer=True)
        name = {"neurons": "mlp_post", "neuron": "mlp_post"}.get(name, name)
        short = "z".join(name.rsplit("result", 1)) if name.endswith("result") else name
        named = [stack for stack in model.cfg.stacks if not stack or name.startswith(f"{stack}.")]
        spellings = {stack: short if stack in named else f"{stack}.{short}" for stack in named or model.cfg.stacks}
        found = {stack: _layers_with(model, one, stack) for stack, one in spellings.items()}
        held = {stack: sites for stack, sites in found.items() if sites}
        if len(held) > 1:
            raise InputError(f"{name!r} could mean {' or '.join(f'{stack}.{name}' for stack in held)}. Say which.")
        if not held:
            model.sites.resolve(f"{short}.0")  # says what is near
            raise InputError(f"No layer has {name!r}.")
        return cls(name, next(iter(held.values())))

    @property
    def one(self) -> Site:
        return next(iter(self.sites.values()))

    @property
    def in_encoder(self) -> bool:
        """Whether positions count in the encoder's text, in a model with two stacks."""
        site = self.one
        keys = site.part == "cross_attn" and site.name in ("hook_k", "hook_v", "hook_rot_k")
        return site.stack == "encoder" or keys

    @property
    def keys_in_encoder(self) -> bool:
        """Whether the keys of a pattern count in the encoder's text, in a model with two stacks."""
        return self.one.stack == "encoder" or self.one.part == "cross_attn"

    @property
    def has_keys(self) -> bool:
        """Whether it has an axis of keys beside that of queries."""
        return "q_pos" in self.one.axes

    def unit_axis(self, model: HookedTransformer) -> tuple[str, int] | None:
        """Its axis of heads or neurons in a grid's terms, with the largest size over its layers; None without one."""
        for axis, own in UNIT_AXES.items():
            if own in self.one.axes:
                return axis, max(self.n_units(model, layer) for layer in self.sites)
        return None

    def is_ungrouped(self, model: HookedTransformer) -> bool:
        """Whether every layer has as many key/value heads as query heads."""
        return all(self.n_units(model, one) == self.n_units(model, one, ungroup=True) for one in self.sites)

    def n_units(self, model: HookedTransformer, layer: int, *, ungroup: bool = False) -> int:
        """Heads or neurons in one layer; with `ungroup` query heads in place of key/value heads."""
        site = self.sites[layer]
        block = model.cfg.stacks[site.stack].blocks[layer]
        attn = block.cross_attn if site.part == "cross_attn" else block.attn
        if "d_mlp" in site.axes:
            return block.mlp.d_mlp if block.mlp else 0
        assert attn is not None
        return attn.n_key_value_heads if "kv_head" in site.axes and not ungroup else attn.n_heads


@dataclass(frozen=True)
class Grid:
    """The cells of a sweep: coordinates of each axis, and what is edited along the axes that are not spread out."""

    places: SitePlaces
    axes: dict[str, list[Any]]
    layers: list[int]
    units: list[int] | None  # None: the whole vector
    at_pos: tuple[int | str, ...] | None  # None: every position
    at_keys: tuple[int | str, ...] | None = None  # None: every key
    window: int = 1
    ungroup: bool = False
    _strides: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        model: HookedTransformer,
        pairs: PromptPairs,
        site: Any,
        over: Sequence[str],
        at: Mapping[str, Any] | None,
        *,
        window: int = 1,
        ungroup: bool = False,
        n_pos: int,
        n_keys: int = 0,
    ) -> Grid:
        """Check what the user asked for; raises `InputError` for axes that the site does not have."""
        places = SitePlaces.resolve(model, site)
        if not isinstance(at, (Mapping, type(None))) or not isinstance(over, Sequence):
            raise InputError(
                f"over={over!r}, at={at!r}: give axes, as in over=('layer', 'pos'), at={{'layer': [5, 6]}}."
            )
        over, at = (over,) if isinstance(over, str) else tuple(over), dict(at or {})
        unit = places.unit_axis(model)
        if unit is not None and unit[0] == "kv_head" and places.is_ungrouped(model) and "kv_head" not in (*over, *at):
            unit = ("head", unit[1])  # every query head has its own key and value
        ungroup = ungroup and unit is not None and unit[0] == "kv_head"  # all others go by query head already
        if ungroup:
            unit = ("head", max(places.n_units(model, layer, ungroup=True) for layer in places.sites))
            if window != 1 or "layer" not in over:
                raise InputError("ungroup=True edits one layer at a time. Use window=1 and over=('layer', …).")
        _check_axes(places, over, at, unit)
        _check_names(pairs, places, over, at)
        if not is_index(window) or window < 1:
            raise InputError(f"window is {window!r}. Give the number of layers edited together, at least 1.")
        if window != 1 and "layer" not in over:
            raise InputError(f"window={window} is around each layer, and over={over} has no layer axis. Leave one out.")
        for axis, in_encoder in (("pos", places.in_encoder), ("key_pos", places.keys_in_encoder)):
            ragged = len({len(row) for row in (pairs.clean if in_encoder else pairs.clean_decoder or pairs.clean)}) > 1
            if ragged and axis in over and any(is_index(one) and one < 0 for one in _listed(at.get(axis, ()))):
                raise InputError(
                    f"The prompts differ in length, so a negative position is another one in each. Leave {axis!r} out "
                    f"of over: at={{{axis!r}: …}} alone counts from the end of each prompt."
                )
        layers = _layers(places, at.get("layer"))
        units = _units(at.get(unit[0]), *unit) if unit is not None else None
        axes: dict[str, list[Any]] = {}
        for axis in over:
            if axis == "layer":
                axes[axis] = layers
            elif axis in ("pos", "key_pos"):
                size = n_pos if axis == "pos" else n_keys
                axes[axis] = _whole_numbers(at[axis], size, axis) if axis in at else list(range(size))
            elif axis == "position":
                axes[axis] = _names(at.get("position"), pairs)
            else:
                assert units is not None
                axes[axis] = units
        named = tuple(_names(at["position"], pairs)) if "position" in at else None
        at_pos = None if "pos" in axes or "position" in axes else asked_positions(at, "pos") if "pos" in at else named
        at_keys = asked_positions(at, "key_pos") if "key_pos" in at and "key_pos" not in axes else None
        whole = units if unit is not None and (unit[0] in axes or unit[0] in at) else None
        strides, size = {}, 1
        for axis in reversed(list(axes)):
            strides[axis] = size
            size *= len(axes[axis])
        return cls(places, axes, layers, whole, at_pos, at_keys, window, ungroup, strides)

    @property
    def n_cells(self) -> int:
        return math.prod(len(one) for one in self.axes.values())

    @property
    def unit_axis(self) -> str | None:
        return next((axis for axis in self.axes if axis in UNIT_AXES), None)

    def layer_choices(self) -> list[tuple[int, list[int]]]:
        """(index along the layer axis, the layers edited together): a window around each layer, or all at once."""
        if "layer" not in self.axes:
            return [(0, self.layers)]
        choices = []
        for i, layer in enumerate(self.layers):
            low, high = layer - self.window // 2, layer + (self.window + 1) // 2
            choices.append((i, [one for one in self.places.sites if low <= one < high]))
        return choices

    def pos_choices(self, pairs: PromptPairs, pair: int, n_prompt: int, n_text: int) -> list[tuple[int, tuple | None]]:
        """(index along the axis of positions, the positions edited; None where this text has no such position)."""
        if "position" in self.axes:
            names = enumerate(self.axes["position"])
            return [(i, named_positions(pairs, name, pair, in_encoder=self.places.in_encoder)) for i, name in names]
        if "pos" in self.axes:
            return [(i, (pos,) if pos < n_prompt else None) for i, pos in enumerate(self.axes["pos"])]
        if self.at_pos is None:
            return [(0, tuple(range(n_text)))]
        return [(0, chosen_positions(self.at_pos, pairs, pair, n_prompt, self.places.in_encoder))]

    def key_choices(self, pairs: PromptPairs, pair: int, n_prompt: int) -> list[tuple[int, tuple[int, ...] | None]]:
        """(index along the axis of keys, the keys edited; () for all of them; None where this text has none such)."""
        if "key_pos" in self.axes:
            return [(i, (key,) if key < n_prompt else None) for i, key in enumerate(self.axes["key_pos"])]
        if self.at_keys is None:
            return [(0, ())]
        return [(0, chosen_positions(self.at_keys, pairs, pair, n_prompt, self.places.keys_in_encoder))]

    def cells(self, layer: int, pos: int, n_units: int, key: int = 0) -> NDArray[np.int64]:
        """Flat numbers of the cells at one layer, position and key, along the axis of heads or neurons."""
        along = "pos" if "pos" in self.axes else "position"
        first = layer * self._strides.get("layer", 0) + pos * self._strides.get(along, 0)
        first += key * self._strides.get("key_pos", 0)
        return first + np.arange(n_units) * self._strides.get(self.unit_axis or "", 0)


def _layers_with(model: HookedTransformer, name: str, stack: str) -> dict[int, Site]:
    """The site of each layer of a stack that has it."""
    found = {}
    for layer in range(model.cfg.stacks[stack].n_layers):
        try:
            found[layer] = model.sites.resolve(f"{name}.{layer}")
        except UnknownSiteError:  # a layer without it
            continue
    return found


def _in_layer(model: HookedTransformer, name: str) -> Site | None:
    """The site of a name that says its layer; None where it does not."""
    try:
        site = model.sites.resolve(name)
    except UnknownSiteError:
        return None
    return replace(site, name="hook_z") if site.name == "hook_result" else site if site.layer is not None else None


def _layer(site: Site) -> int:
    assert site.layer is not None
    return site.layer


def chosen_positions(
    asked: Sequence[int | str], pairs: PromptPairs, pair: int, n_prompt: int, in_encoder: bool
) -> tuple[int, ...]:
    """Positions of one prompt from names and indices."""
    chosen: set[int] = set()
    for one in asked:
        if isinstance(one, str):
            chosen.update(named_positions(pairs, one, pair, in_encoder=in_encoder))
        elif not -n_prompt <= one < n_prompt:
            raise InputError(f"at has position {one}; the text of pair {pair} has {n_prompt} tokens.")
        else:
            chosen.add(one % n_prompt)
    return tuple(sorted(chosen))


def _check_names(pairs: PromptPairs, places: SitePlaces, over: Sequence[str], at: Mapping[str, Any]) -> None:
    """Refuse names of positions in a text that they do not count in."""
    listed = list(pairs.positions) if "position" in over and "position" not in at else []
    for axis, in_encoder in (
        ("position", places.in_encoder),
        ("pos", places.in_encoder),
        ("key_pos", places.keys_in_encoder),
    ):
        names = listed if axis == "position" else []
        for name in (*names, *(one for one in _listed(at.get(axis, ())) if isinstance(one, str))):
            if pairs.clean_decoder and not in_encoder and name != "read":
                raise InputError(
                    f"Named positions count in the encoder's text; {places.name} is a tensor of the decoder. Use 'pos'."
                )
            named_positions(pairs, name, 0, in_encoder=in_encoder)


def _check_axes(places: SitePlaces, over: Sequence[str], at: Mapping[str, Any], unit: tuple[str, int] | None) -> None:
    unknown = [axis for axis in (*over, *at) if axis not in AXES]
    if unknown:
        raise InputError(f"There is no axis {unknown[0]!r}. Choose from {', '.join(AXES)}.")
    if not over:
        raise InputError("over is empty. Name at least one axis, e.g. over=('layer', 'pos').")
    if len(set(over)) != len(over) or {"pos", "position"} <= {*over, *at}:
        raise InputError(f"over={tuple(over)} and at={dict(at)} name the same axis twice. Name each once.")
    if places.has_layer and "layer" in (*over, *at):
        raise InputError(
            f"{places.name!r} names its layer, and so does the axis 'layer'. Drop the layer, e.g. "
            f"{places.one.row.short[0]!r}, or leave 'layer' out of over and at."
        )
    if "key_pos" in (*over, *at) and not places.has_keys:
        raise InputError(f"{places.name} has no axis 'key_pos': only pattern and attn_scores have queries and keys.")
    wrong = [axis for axis in (*over, *at) if axis in UNIT_AXES and (unit is None or axis != unit[0])]
    if not wrong:
        return
    if unit is not None and unit[0] == "kv_head" and wrong[0] == "head":
        raise InputError(
            f"{places.name} has {unit[1]} key/value heads, shared by the query heads. Use 'kv_head', or "
            "ungroup=True to patch what a single query head reads."
        )
    has = f"has the axis {unit[0]!r}" if unit is not None else "is one vector; its heads are at site 'z'"
    raise InputError(f"{places.name} has no axis {wrong[0]!r}: it {has}.")


def _layers(places: SitePlaces, asked: Any) -> list[int]:
    if asked is None:
        return list(places.sites)
    n_layers = max(places.sites) + 1
    layers = _whole_numbers(asked, n_layers, "layer")
    missing = [layer for layer in layers if layer not in places.sites]
    if missing:
        raise InputError(f"Layer {missing[0]} has no {places.name}. Layers that have it: {list(places.sites)}.")
    return layers


def _units(asked: Any, axis: str, size: int) -> list[int]:
    return list(range(size)) if asked is None else _whole_numbers(asked, size, axis)


def _listed(asked: Any) -> tuple[Any, ...]:
    """One value or several, with numbers of any library as Python's."""
    values = plain(asked)
    return tuple(plain(one) for one in values) if isinstance(values, (list, tuple, range)) else (values,)


def asked_positions(at: Mapping[str, Any], axis: str) -> tuple[int | str, ...]:
    """The indices and names that `at` gives for an axis."""
    found = _listed(at[axis])
    if not found or not all(isinstance(one, str) or is_index(one) for one in found):
        raise InputError(f"at[{axis!r}] is {at[axis]!r}. Give positions, as whole numbers or names, at least one.")
    return found


def _whole_numbers(asked: Any, size: int, axis: str) -> list[int]:
    found = []
    for one in _listed(asked):
        if not is_index(one) or not -size <= one < size:
            ways = (
                " A named position goes into at without 'pos' in over, or into over as the axis 'position'."
                if axis in ("pos", "key_pos") and isinstance(one, str)
                else ""
            )
            raise InputError(f"at[{axis!r}] holds {one!r}. Give whole numbers from 0 to {size - 1}.{ways}")
        found.append(one % size)
    if not found or len(set(found)) != len(found):
        raise InputError(f"at[{axis!r}] is {asked!r}. Give at least one number, each once.")
    return found


def _names(asked: Any, pairs: PromptPairs) -> list[str]:
    names = list(pairs.positions) if asked is None else [str(one) for one in _listed(asked)]
    if not names:
        raise InputError("These pairs name no positions. Give them as PromptPairs.from_text(…, positions={…}).")
    if len(set(names)) != len(names):
        raise InputError(f"at['position'] is {asked!r}. Give each name once.")
    for name in names:
        pairs.span(name, 0)
    return names
