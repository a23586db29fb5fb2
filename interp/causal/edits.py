"""Edits as data: frozen, checked when they are used, saved as JSON and safetensors; and one pass with some of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import InputError, StorageError
from interp.files import atomic_folder, read_json, write_json
from interp.model.transformer import HookedTransformer
from interp.sites import Site

__all__ = ["Edit", "load_edits", "run_with_edits", "save_edits", "steer"]

_FORMAT = 1
_POSITIONS = ("pos", "q_pos", "k_pos")
_UNITS = ("head", "kv_head", "d_mlp")


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of one site: `kind` "set" puts `value` there, "add" adds it, "scale" multiplies by it.

    `value` is a number or a tensor that fits behind the chosen places (a vector `[d_model]`, or one for each chosen
    position …). `pos`, `units` (heads, key/value heads or neurons) and `rows` choose places; None is all of them, and
    negative positions count from the end of the row, padding included.
    """

    site: str
    value: float | Tensor = 0.0
    kind: Literal["set", "add", "scale"] = "set"
    pos: Any = None
    units: Any = None
    rows: Any = None

    def __post_init__(self) -> None:
        if self.kind not in ("set", "add", "scale"):
            raise InputError(f'kind is {self.kind!r}. Choose "set", "add" or "scale".')
        if not isinstance(self.value, (int, float, Tensor)):
            raise InputError(f"value is {self.value!r}. Give a number or a tensor.")
        for name in ("pos", "units", "rows"):
            given = getattr(self, name)
            if given is not None:
                places = (given,) if isinstance(given, int) else tuple(int(i) for i in given)
                if not places:
                    raise InputError(f"{name} is empty, so the edit changes nothing. Leave it out to mean all of them.")
                object.__setattr__(self, name, places)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; a tensor is left to `save_edits`."""
        value = None if isinstance(self.value, Tensor) else float(self.value)
        if value is not None and not math.isfinite(value):
            value = str(value)  # JSON has no infinities, and −∞ is what blocks a score
        places = {name: getattr(self, name) and list(getattr(self, name)) for name in ("pos", "units", "rows")}
        return {"site": self.site, "kind": self.kind, "value": value, **places}

    def applied(self, x: Tensor, site: Site) -> Tensor:
        """The tensor of a site with this edit; a new tensor, through which gradients flow."""
        places: list[Tensor] = []
        for axis, size in enumerate(x.shape):
            chosen = self._chosen(site.axes[axis], size, site)
            index = torch.arange(size, device=x.device) if chosen is None else torch.tensor(chosen, device=x.device)
            places.append(index)
        last = max((i for i, axis in enumerate(site.axes) if axis in ("batch", *_POSITIONS, *_UNITS)), default=0)
        grid = torch.meshgrid(*places[: last + 1], indexing="ij")
        here = x[grid]
        value = self.value if isinstance(self.value, Tensor) else x.new_tensor(float(self.value))
        value = value.to(device=x.device, dtype=x.dtype)
        try:
            value = value.expand(here.shape)
        except RuntimeError as error:
            raise InputError(
                f"The value of the edit of {site} has shape {tuple(value.shape)}; the chosen places are "
                f"{tuple(here.shape)} ({' '.join(site.axes)}). Give a number, or a tensor that broadcasts to them."
            ) from error
        new = {"set": lambda: value, "add": lambda: here + value, "scale": lambda: here * value}[self.kind]()
        return x.index_put(grid, new)

    def _chosen(self, axis: str, size: int, site: Site) -> list[int] | None:
        kind = "rows" if axis == "batch" else "pos" if axis == _pos_axis(site) else "units" if axis in _UNITS else ""
        asked = getattr(self, kind) if kind else None
        if asked is None:
            return None
        wrong = [i for i in asked if not -size <= i < size]
        if wrong:
            raise InputError(f"The edit of {site} names {kind} {wrong[0]}; there are {size}.")
        return [i % size for i in asked]


def run_with_edits(model: HookedTransformer, x: Any, edits: Edit | Sequence[Edit], **options: Any) -> Any:
    """The output of one pass with some edits, in their order; `options` are those of `model(…)`.

    Gradients flow through the edits. Raises `HookError` for an edit whose site this pass does not compute, and
    `InputError` for one that names places that are not there or an axis that the site has not.
    """
    edits = [edits] if isinstance(edits, Edit) else list(edits)
    if not edits or not all(isinstance(edit, Edit) for edit in edits):
        raise InputError("There is no edit. Give an interp.Edit, or a list of them.")
    return model.run_with_hooks(x, fwd_hooks=[(_checked(model, edit), _hook(edit)) for edit in edits], **options)


def steer(
    model: HookedTransformer,
    x: Any,
    site: Any,
    direction: Tensor,
    scale: float = 1.0,
    *,
    pos: Any = None,
    **options: Any,
) -> Any:
    """The output with `scale` × `direction [d_model]` (or the site's own last axis) added to a site, at every
    position or at `pos`. The direction is taken as it is: normalise it first to have `scale` in its unit."""
    if not isinstance(direction, Tensor) or not direction.is_floating_point():
        raise InputError(f"direction is {type(direction).__name__}. Give a tensor of floats such as [d_model].")
    if not bool(torch.isfinite(direction).all()):
        raise InputError("direction holds values that are not finite.")
    places = None if pos is None else (pos,) if isinstance(pos, int) else tuple(pos)
    return run_with_edits(model, x, Edit(_spelled(model, site), direction * scale, "add", pos=places), **options)


def save_edits(path: str | os.PathLike[str], edits: Sequence[Edit]) -> Path:
    """Write a folder: edits.json, and values.safetensors with the tensors among the values; all or nothing."""
    values = [(str(i), edit.value) for i, edit in enumerate(edits)]
    tensors = {name: x.detach().cpu().contiguous() for name, x in values if isinstance(x, Tensor)}
    with atomic_folder(path, marker="edits.json") as folder:
        write_json(folder / "edits.json", {"format": _FORMAT, "edits": [edit.to_dict() for edit in edits]})
        save_file({name: x.clone() for name, x in tensors.items()}, folder / "values.safetensors")
    return Path(path)


def load_edits(path: str | os.PathLike[str]) -> list[Edit]:
    """Read what `save_edits` wrote; raises `StorageError` for a damaged or newer folder."""
    folder = Path(path)
    saved = read_json(folder / "edits.json")
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise StorageError(f"{folder} holds no edits of format {_FORMAT}. Save them again with this version.")
    try:
        tensors = load_file(folder / "values.safetensors")
        found = []
        for i, one in enumerate(saved["edits"]):
            value = tensors[str(i)] if one["value"] is None else float(one["value"])
            places = {name: one[name] and tuple(one[name]) for name in ("pos", "units", "rows")}
            found.append(Edit(one["site"], value, one["kind"], **places))
        return found
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"Cannot read the edits in {folder}: {error!r}.") from error


def _checked(model: HookedTransformer, edit: Edit) -> Site:
    site = model.sites.resolve(edit.site)
    has = {"pos": _POSITIONS, "units": _UNITS}
    for name, axes in has.items():
        if getattr(edit, name) is not None and not any(axis in axes for axis in site.axes):
            raise InputError(
                f"{site} has no axis for {name}={getattr(edit, name)}: its axes are {' '.join(site.axes)}."
            )
    return site


def _pos_axis(site: Site) -> str:
    """The axis that `pos` counts along: the queries' in scores, the other text's in cross-attention's keys."""
    return next((axis for axis in ("pos", "q_pos", "k_pos") if axis in site.axes), "")


def _hook(edit: Edit) -> Callable[..., Tensor]:
    def apply(x: Tensor, hook: Any) -> Tensor:
        return edit.applied(x, hook.site)

    return apply


def _spelled(model: HookedTransformer, site: Any) -> str:
    return str(model.sites.resolve(site))
