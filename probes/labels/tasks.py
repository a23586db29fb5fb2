"""Rows at the named places of a drawn task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp.model.transformer import HookedTransformer
from interp.tasks.base import Task
from probes.sources import Labelled, label_column, spell

__all__ = ["rows_of_task"]


def rows_of_task(
    model: HookedTransformer,
    task: Task,
    places: Mapping[str, str],
    labels: Mapping[str, Sequence[Any]],
    more: Mapping[str, Sequence[Any]],
    about: Mapping[str, Any],
    *,
    groups: Sequence[str] = (),
    types: Mapping[str, Sequence[str]] | None = None,
) -> Labelled:
    """The last token of each named place (`where` -> name) of every prompt. Labels, further columns and groups (its
    items, unless given) are one per prompt; so are `types`, by `where`, which are the tokens elsewhere."""
    pairs = task.pairs
    assert pairs is not None
    lines = sorted((i, pairs.span(name, i)[-1], where) for i in range(len(pairs)) for where, name in places.items())
    tokens = [np.array(row, dtype=np.int32) for row in pairs.clean]
    of = [line[0] for line in lines]
    groups = groups or task.items
    table = {"text": of, "pos": [line[1] for line in lines], "group": [groups[i] for i in of]}
    pieces = [piece.strip() or piece for piece in spell(model, [tokens[i][j] for i, j, _ in lines])]
    known = types or {}
    both = zip(lines, pieces, strict=True)
    table["type"] = [known[where][i] if where in known else piece for (i, _, where), piece in both]
    table |= {"where": [line[2] for line in lines], **{name: [some[i] for i in of] for name, some in more.items()}}
    columns = {name: label_column([some[i] for i in of]) for name, some in labels.items()}
    return Labelled(tokens, pd.DataFrame(table), pd.DataFrame(columns), dict(about))
