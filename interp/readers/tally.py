"""Measures over rows and over groups of them, with intervals over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.model.kinds import attention_kind
from interp.model.transformer import HookedTransformer
from interp.stats import bootstrap_interval

__all__ = ["CLOSED", "Column", "Groups", "how_scored", "pieces_note", "tally"]

Column = Float[np.ndarray, " row"]
Groups = Mapping[str, Sequence[str | None]]
CLOSED = " An interval of no width means that all items agree, not that nothing is uncertain."
_DECODER = "log p of a sentence is the sum of log p of its tokens given those before"
_ENCODER = (
    "log p of a sentence is its pseudo-log-likelihood: the sum of log p of each token with that one masked (Salazar et "
    "al. 2020)."
)
_PIECES = " Pieces of one word are masked one at a time, which makes words of several pieces look likelier."


def tally(
    measures: Mapping[str, Column],
    items: Sequence[str],
    groups: Groups,
    seed: int,
    *,
    sums: Mapping[str, Column] | None = None,
    medians: Mapping[str, Column] | None = None,
) -> pd.DataFrame:
    """Each measure's mean over all rows and over the rows of each group, with the bounds of its 95% interval; `sums`
    and `medians` of further columns without one. Rows without a label are in no group of that kind, NaN in no mean."""
    chosen: list[tuple[str, str, np.ndarray]] = [("all", "", np.ones(len(items), dtype=bool))]
    for by, labels in groups.items():
        named = np.array([one is not None for one in labels])
        texts = np.array([one or "" for one in labels])
        chosen += [(by, one, named & (texts == one)) for one in dict.fromkeys(labels) if one is not None]
    names = np.array(items)
    lines = []
    for by, group, mask in chosen:
        line = {"by": by, "group": group, "n": int(mask.sum()), "items": len(np.unique(names[mask]))}
        line |= _intervals({name: column[mask] for name, column in measures.items()}, names[mask], seed)
        line |= {name: float(np.nansum(values[mask])) for name, values in (sums or {}).items()}
        line |= {name: _median(values[mask]) for name, values in (medians or {}).items()}
        lines.append(line)
    return pd.DataFrame(lines)


def how_scored(model: HookedTransformer, bos: bool | None) -> str:
    """In words, what log p of a sentence is for this model."""
    if attention_kind(model) == "encoder":
        return _ENCODER
    return f"{_DECODER}, of the first given BOS." if bos else f"{_DECODER}; the first is not counted."


def pieces_note(model: HookedTransformer) -> str:
    """What a masked encoder's log p leaves out."""
    return _PIECES if attention_kind(model) == "encoder" else ""


def _intervals(measures: Mapping[str, Column], items: np.ndarray, seed: int) -> dict[str, float]:
    """The mean of the rows, with the interval of drawing items anew, each with all its rows."""
    index = np.unique(items, return_inverse=True)[1]
    values = np.stack(list(measures.values()), axis=1)
    present = ~np.isnan(values)
    total, count = (np.zeros((index.max() + 1, values.shape[1])) for _ in range(2))
    np.add.at(total, index, np.where(present, values, 0.0))
    np.add.at(count, index, present)
    found: dict[str, float] = {}
    for k, name in enumerate(measures):
        n = count[:, k].sum()
        found |= {name: float(total[:, k].sum() / n) if n else np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    names = np.array(list(measures))
    for measured in np.unique(count > 0, axis=1).T:  # cells of the same items are drawn together
        cells = ((count > 0) == measured[:, None]).all(axis=0)
        if measured.sum() < 2:  # one item says nothing of others
            continue
        inside = np.ix_(measured, cells)
        for name, low, high in zip(
            names[cells], *bootstrap_interval(total[inside], divisor=count[inside], seed=seed), strict=True
        ):
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _median(values: Column) -> float:
    return float(np.nanmedian(values)) if not np.isnan(values).all() else np.nan
