"""What erasure leaves behind: one affine map, frozen, on arrays and tensors alike; and checks that both ways share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.errors import InputError

__all__ = ["Eraser", "as_rows", "as_targets"]

Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Eraser:
    """x − left · right · (x − mean), on NumPy arrays or tensors `[..., width]`, in their own dtype and on their own
    device. `left [width rank]`, `right [rank width]`: what is taken out is of that rank; the mean stays where it is."""

    left: Rows
    right: Rows
    mean: Rows

    def __post_init__(self) -> None:
        for name in ("left", "right", "mean"):  # frozen in earnest
            own = np.array(getattr(self, name), dtype=float)
            own.setflags(write=False)
            object.__setattr__(self, name, own)

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def rank(self) -> int:
        """Dimensions that are taken out; 0 where there was nothing to erase."""
        return len(self.right)

    @property
    def matrix(self) -> Rows:
        """The linear part `[width width]`: a projection, for LEACE an oblique one."""
        return np.eye(self.width) - self.left @ self.right

    def __call__(self, x: Any) -> Any:
        """A new array or tensor with the concept erased."""
        if not isinstance(x, torch.Tensor):
            x = np.asarray(x)
            x = x if np.issubdtype(x.dtype, np.floating) else x.astype(float)
        elif not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        if x.ndim == 0 or x.shape[-1] != self.width:
            raise InputError(
                f"Activations of shape {tuple(x.shape)} were given; this eraser takes [..., {self.width}]."
            )
        parts: list[Any] = [self.left, self.right, self.mean]
        if isinstance(x, torch.Tensor):
            left, right, mean = (torch.tensor(one).to(x) for one in parts)
        else:
            left, right, mean = (one.astype(x.dtype) for one in parts)
        return x - ((x - mean) @ right.T) @ left.T


def as_rows(x: Any, width: int | None = None) -> Rows:
    """Activations as `[row width]` in double precision; raises `InputError` for other shapes and for NaN."""
    x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if x.ndim != 2 or not len(x) or not x.shape[1]:
        raise InputError(f"Activations are [row width], with at least one row; these have shape {x.shape}.")
    if width is not None and x.shape[1] != width:
        raise InputError(f"These activations are {x.shape[1]} wide; those before them were {width}.")
    x = x.astype(float)
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InputError(f"Row {bad} of the activations holds NaN or infinities. Leave such rows out.")
    return x


def as_targets(y: Any, n: int, classes: Any = None) -> tuple[Rows, NDArray | None]:
    """Labels as `[row target]`: one column a class for names and whole numbers, themselves for floats; and the classes
    (None for numbers). Raises `InputError` for labels that do not align, are absent, or of one class."""
    y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if len(y) != n:
        raise InputError(f"There are {n} rows and {len(y)} labels. Give one for each row.")
    if np.issubdtype(y.dtype, np.floating):
        z = y.astype(float).reshape(n, -1)
        if not np.isfinite(z).all():
            raise InputError("Some labels are NaN or infinite. Leave rows without a label out.")
        return z, None
    if any(one is None or (isinstance(one, float) and np.isnan(one)) for one in y.ravel().tolist()):
        raise InputError("Some labels are missing. Leave rows without a label out.")
    if y.ndim != 1:
        raise InputError(f"Classes are one name a row; these labels have shape {y.shape}.")
    names = np.unique(y) if classes is None else np.asarray(classes)
    if len(names) < 2:
        raise InputError(f"All rows are of one class, {names[0]}: there is nothing to erase. Give at least two.")
    unknown = sorted(set(y.tolist()) - set(names.tolist()))
    if unknown:
        raise InputError(f"There is a label {unknown[0]}; the classes are {', '.join(map(str, names))}.")
    return (y[:, None] == names[None]).astype(float), names
