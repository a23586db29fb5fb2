"""Tasks as tables: what `to_csv` writes and `from_csv` reads."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import PairError
from interp.pairs.table import PairTable, read_pair_table
from interp.tasks.base import Request, Task, TaskDefinition, model_kind
from interp.tasks.prompts import made_task, with_bos
from interp.tasks.repeated_tokens import RepeatedTokens

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_task", "task_frame", "write_task"]

_TEXTS = {"clean": "clean_text", "corrupt": "corrupt_text", "answer": "answer_text", "foil": "foil_text"}
_LABEL = "label:"


def task_frame(task: Task) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    if task.tokens is not None:
        columns["tokens"] = [" ".join(map(str, row)) for row in task.tokens.tokens.tolist()]
        columns["predictable"] = [
            " ".join(map(str, row.nonzero()[:, 0].tolist())) for row in task.tokens.predictable.cpu()
        ]
        columns |= {"period": task.tokens.period.tolist(), "item": task.items, "template": task.templates}
    else:
        columns |= _pair_columns(task)
    if task.pairs is not None and "clean_text" not in task.labels:
        columns["ids"] = [1] * len(task)  # cells are token ids, also where a model could read text
    columns["bos"] = [int(bool(task.about.get("bos")))] * len(task)
    held = _TEXTS.values() if task.tokens is None else columns
    left = {name: values for name, values in task.labels.items() if name not in held}
    return pd.DataFrame(columns | {f"{_LABEL}{name}": list(values) for name, values in left.items()})


def write_task(task: Task, path: str | os.PathLike[str]) -> None:
    try:
        task_frame(task).to_csv(path, index=False, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error


def read_task(definition: TaskDefinition, path: str | os.PathLike[str], model: Any, bos: bool | None) -> Task:
    """The task of a table; every place that the task names must be there or follow from others."""
    others = _other_columns(path)
    if bos is None:
        bos = _bos_of(path, others)
    request = Request("given", ("given",), len(others), 0, bos)
    if not definition.positions:
        return _tokens_of(definition, path, others, request)
    table = read_pair_table(path)
    table.arguments["positions"] = {
        name: [_place(cell) for cell in places] for name, places in table.arguments["positions"].items()
    }
    if "foil" not in table.arguments:
        raise InputError(f"{path} has no column foil, and {definition.name} compares the answer with one. Add it.")
    try:
        of_ids = any(row.get("ids") == "1" for row in others)
        pairs = _pairs(definition, table, model, bos, of_ids=of_ids)
    except PairError as error:
        raise InputError(f"{table.row(error.pair)}: {error.what}") from error
    pairs = _with_end(pairs) if definition.derive is None else definition.derive(_with_end(pairs))
    missing = [name for name in definition.positions if name not in pairs.positions]
    if missing:
        needed = ", ".join(f"pos:{name}" for name in missing)
        raise InputError(f"{path} lacks {needed}, which {definition.name} needs. Add a column for each.")
    labels = _labels(others)
    if model is not None and not of_ids:
        labels |= {ours: tuple(table.arguments[name]) for name, ours in _TEXTS.items()}
    has_bos = bos if model is None or of_ids else bool(with_bos(model, bos))
    about = {
        "bos": has_bos,
        "corruption": f"as in {path}",
        "source": str(path),
        "items": {"given": len(set(pairs.items))},
    }
    return replace(made_task(definition, request, pairs, labels, about), split="given")


def _pairs(
    definition: TaskDefinition, table: PairTable, model: HookedTransformer | None, bos: bool, *, of_ids: bool = False
) -> PromptPairs:
    if model is None or model.tokenizer is None or of_ids:
        cells = dict(table.arguments)
        positions = cells.pop("positions")
        ids = replace(table, arguments=cells | {"positions": {}}).as_ids()
        for name, places in positions.items():
            text = next((i for i, place in enumerate(places) if isinstance(place, str)), None)
            if text is not None:
                raise InputError(f"{table.row(text)} names position {name} by text. Give indices, or the model.")
        return PromptPairs.from_tokens(**(ids | {"positions": positions}), model=model)
    arguments = dict(table.arguments)
    if model_kind(model) == "encoder" and "read" not in arguments:
        pronouns = arguments["positions"].get("pronoun")
        if pronouns is None:
            raise InputError(f"{table.path} lacks pos:pronoun, which {definition.name} needs. Add the column.")
        pairs = PromptPairs.from_text(model, **arguments, read=0)
        return replace(pairs, read=tuple(span[0] for span in pairs.positions["pronoun"]))
    return PromptPairs.from_text(model, **arguments, prepend_bos=with_bos(model, bos))


def _with_end(pairs: PromptPairs) -> PromptPairs:
    """Where nothing says where the prompt ends, it is the position that is read."""
    if "END" in pairs.positions:
        return pairs
    return replace(pairs, positions={**pairs.positions, "END": tuple((one,) for one in pairs.read)})


def _pair_columns(task: Task) -> dict[str, Any]:
    pairs = task.pairs
    assert pairs is not None
    sides = {"clean": pairs.clean, "corrupt": pairs.corrupt}
    columns: dict[str, Any] = {}
    for name, ours in _TEXTS.items():
        if ours in task.labels:
            columns[name] = list(task.labels[ours])
        elif name in sides:
            columns[name] = [" ".join(map(str, row)) for row in sides[name]]
        else:
            columns[name] = [" ".join(map(str, one[0])) for one in getattr(pairs, name)]
    columns["item"] = pairs.items
    if pairs.templates:
        columns["template"] = pairs.templates
    if any(read != len(row) - 1 for read, row in zip(pairs.read, pairs.clean, strict=True)):
        columns["read"] = pairs.read
    spans = {f"pos:{name}": [" ".join(map(str, one)) for one in of] for name, of in pairs.positions.items()}
    return columns | spans


def _place(cell: Any) -> Any:
    """ "4 5 6" is several tokens; everything else is as in a table of pairs."""
    if isinstance(cell, str) and re.fullmatch(r"\s*\d+(\s+\d+)+\s*", cell):
        return [int(part) for part in cell.split()]
    return [cell] if isinstance(cell, int) else cell


def _other_columns(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Every cell as text; what is wrong with the file is said by `read_pair_table`, or here for tables of tokens."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}. Save it as one.") from error
    if not rows:
        raise InputError(f"{path} has no rows below its header. Add one row per prompt.")
    return rows


def _bos_of(path: Any, rows: list[dict[str, str]]) -> bool:
    said = {row["bos"] for row in rows if row.get("bos") is not None}
    if not said <= {"0", "1"} or len(said) > 1:
        raise InputError(f"{path} has {', '.join(sorted(said))} in column bos. It is 0 or 1, in all rows alike.")
    return said != {"0"}


def _tokens_of(
    definition: TaskDefinition, path: str | os.PathLike[str], rows: list[dict[str, str]], request: Request
) -> Task:
    from interp.tasks.repeats import task_of_rows

    for name in ("tokens", "period"):
        if name not in rows[0]:
            raise InputError(f"{path} has no column {name}, which {definition.name} needs: ids, and the copy's period.")
    numbers = [_numbers(row["tokens"], path, i) for i, row in enumerate(rows)]
    period = [_numbers(row["period"], path, i)[0] for i, row in enumerate(rows)]
    if len({len(row) for row in numbers}) > 1:
        raise InputError(f"{path} has rows of different lengths. Make all rows of tokens equally long.")
    tokens = torch.tensor(numbers)
    known = [row.get("predictable") for row in rows]
    predictable = torch.zeros_like(tokens, dtype=torch.bool)
    for i, cell in enumerate(known):
        places = _numbers(cell, path, i) if cell else _copied(numbers[i], period[i])
        if not places or max(places) >= tokens.shape[1]:
            raise InputError(f"Row {i + 1} of {path} repeats nothing with a period of {period[i]}. Check period.")
        predictable[i, places] = True
    task = task_of_rows(
        request, RepeatedTokens(tokens, torch.tensor(period), predictable, request.bos), ["given"] * len(rows), "given"
    )
    labels: Mapping[str, tuple] = dict(task.labels)
    given = {name: tuple(row[name] for row in rows) for name in ("item", "template") if name in rows[0]}
    given |= _labels(rows)
    return replace(task, labels={**labels, **given}, split="given", about={**task.about, "source": str(path)})


def _labels(rows: list[dict[str, str]]) -> dict[str, tuple]:
    """What the columns of labels hold: text, but for those of True and False alone, or of whole numbers alone."""
    names = [name for name in rows[0] if name and name.startswith(_LABEL) and name != _LABEL]
    return {name.removeprefix(_LABEL): _typed([row[name] for row in rows]) for name in names}


def _typed(cells: list[str]) -> tuple:
    texts = [cell or "" for cell in cells]
    if {text.lower() for text in texts} <= {"true", "false"}:  # as text, "False" would be true
        return tuple(text.lower() == "true" for text in texts)
    if all(re.fullmatch(r"0|-?[1-9]\d*", text) for text in texts):
        return tuple(int(text) for text in texts)
    return tuple(texts)


def _numbers(cell: Any, path: Any, row: int) -> list[int]:
    parts = (cell or "").split()
    if not parts or not all(part.isdigit() for part in parts):
        raise InputError(f"Row {row + 1} of {path} has {cell!r} where token ids or numbers are needed, as in '5 17 8'.")
    return [int(part) for part in parts]


def _copied(row: list[int], period: int) -> list[int]:
    """Places whose token, and the one before, stand one period earlier too."""
    return [i for i in range(period + 1, len(row)) if row[i - 1 : i + 1] == row[i - 1 - period : i + 1 - period]]
