"""When something was learned, in several trainings side by side: with a head held and without, say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.dynamics.folder import Checkpoints
from interp.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_formation"]


def compare_formation(
    trainings: Mapping[str, Checkpoints | Sequence[Checkpoints]],
    group: str,
    *,
    share: float = 0.5,
    accuracy: float = 0.5,
) -> pd.DataFrame:
    """When each training learned a group of tokens, by the held-out loss and accuracy that its checkpoints hold.

    `trainings`: a label -> one training or several (seeds). The first label is the reference: all are dated by one loss
    (`.attrs["level"]`, nats), the one that has this `share` of the reference's way from first to last loss behind it,
    its seeds averaged. So a training that ends on a plateau above it has no date (NaN), however far it came.

    Columns: training, seed, `halfway` (the step at which the loss first passes that level, between two checkpoints
    linear in log2(1 + step)), `reached` (the first checkpoint with this `accuracy`; NaN: none), `loss` and `accuracy`
    at the end. No model is run.
    """
    if not trainings:
        raise InputError("There are no trainings to compare. Give label -> checkpoints, the reference first.")
    for name, value in (("share", share), ("accuracy", accuracy)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value!r}. Give a number between 0 and 1.")
    import pandas as pd

    found = {label: [one] if isinstance(one, Checkpoints) else list(one) for label, one in trainings.items()}
    if empty := [label for label, some in found.items() if not some]:
        raise InputError(f"{empty[0]!r} has no trainings. Give one or more for each label.")
    curves = {label: [_curve(one, group, label) for one in some] for label, some in found.items()}
    reference = next(iter(curves.values()))
    first, last = (float(np.mean([one["loss"].iloc[at] for one in reference])) for at in (0, -1))
    level = first + share * (last - first)
    rows = [
        {
            "training": label,
            "seed": one.asked["seed"],
            "halfway": _passed(curve, level),
            "reached": _reached(curve, accuracy),
            "loss": curve["loss"].iloc[-1],
            "accuracy": curve["accuracy"].iloc[-1],
        }
        for label, some in found.items()
        for one, curve in zip(some, curves[label], strict=True)
    ]
    table = pd.DataFrame(rows)
    table.attrs = {"group": group, "share": share, "level": level, "accuracy": accuracy}
    return table


def _curve(found: Checkpoints, group: str, label: str) -> pd.DataFrame:
    """Held-out loss and accuracy of one group, by step."""
    table: Any = found.held_out()
    groups = list(dict.fromkeys(table["group"]))
    if group not in groups:
        raise InputError(f"{label} has no group {group!r} of tokens. It has {', '.join(groups)}.")
    if not found.finished:
        raise InputError(f"{label} is not finished: {found!r}. Train it to the end, so that never means never.")
    return table[table["group"] == group].set_index("step")[["loss", "accuracy"]]


def _reached(curve: pd.DataFrame, accuracy: float) -> float:
    steps = curve.index.to_numpy(float)[curve["accuracy"].to_numpy(float) >= accuracy]
    return float(steps[0]) if len(steps) else float("nan")


def _passed(curve: pd.DataFrame, level: float) -> float:
    loss, scale = curve["loss"].to_numpy(float), np.log2(1 + curve.index.to_numpy(float))
    if not (below := loss <= level).any():
        return float("nan")
    after = int(below.argmax())
    if after == 0:
        return float(curve.index[0])
    part = (level - loss[after - 1]) / (loss[after] - loss[after - 1])
    return float(2 ** (scale[after - 1] + part * (scale[after] - scale[after - 1])) - 1)
