"""A table of pairs in a CSV file, as the arguments that `PromptPairs.from_text` takes."""

from __future__ import annotations

import csv
import difflib
import os
import re
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError

__all__ = ["PairTable", "read_pair_table"]

_NEEDED = ("clean", "corrupt", "answer")
_OTHERS = {"foil": "foil", "item": "items", "template": "templates", "read": "read"}
_KNOWN = (*_NEEDED, *_OTHERS)


@dataclass(frozen=True)
class PairTable:
    """`arguments` for `from_text`, and the file's line of each row for messages."""

    path: str
    arguments: dict[str, Any]
    lines: tuple[int, ...]

    def row(self, pair: int) -> str:
        return f"Row {pair + 1} of {self.path} (line {self.lines[pair]})"

    def as_ids(self) -> dict[str, Any]:
        """The arguments with token ids in place of texts; answers of several ids are several tokens."""
        made = dict(self.arguments)
        for name in ("clean", "corrupt", "answer", "foil"):
            rows = [self._ids(cell, name, pair) for pair, cell in enumerate(made.get(name, ()))]
            if rows:
                made[name] = rows if name in ("clean", "corrupt") else [tuple(r) if len(r) > 1 else r[0] for r in rows]
        for name, places in made["positions"].items():
            wrong = next((i for i, place in enumerate(places) if not isinstance(place, int)), None)
            if wrong is not None:
                raise InputError(f"{self.row(wrong)} names position {name} by text. Give an index, or the model.")
        return made

    def _ids(self, cell: str, name: str, pair: int) -> list[int]:
        parts = cell.split()
        if not parts or not all(part.isdigit() for part in parts):
            raise InputError(
                f"{self.row(pair)} has the text {cell!r} in column {name!r}, and texts need the model that reads them: "
                "PromptPairs.from_csv(path, model). Without a model give token ids, as in '504 3575 282'."
            )
        return [int(part) for part in parts]


def read_pair_table(path: str | os.PathLike[str]) -> PairTable:
    """Read and check a table. Raises `InputError` for a file that is none, a missing column or an empty cell."""
    columns, rows, lines = _cells(path)
    table = PairTable(str(path), {}, lines)
    for name in columns:
        for number, row in enumerate(rows):
            if _is_ours(name) and not row[name].strip():
                raise InputError(f"{table.row(number)} has nothing in column {name!r}. Fill it, or take the row out.")
    arguments: dict[str, Any] = {name: [row[name] for row in rows] for name in _NEEDED}
    arguments |= {ours: [row[name] for row in rows] for name, ours in _OTHERS.items() if name in columns}
    if "read" in columns:
        arguments["read"] = [_read(row["read"], table.row(number)) for number, row in enumerate(rows)]
    positions = {
        name.removeprefix("pos:").strip(): [_index_or_text(row[name]) for row in rows]
        for name in columns
        if name.startswith("pos:")
    }
    return PairTable(str(path), arguments | {"positions": positions}, lines)


def _cells(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, str]], tuple[int, ...]]:
    rows, lines = [], []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = _header(path, [name.strip() for name in next(reader, [])])
            for cells in filter(None, reader):
                if len(cells) != len(columns):
                    raise InputError(
                        f"Row {len(rows) + 1} of {path} (line {reader.line_num}) has {len(cells)} cells; the header "
                        f"has {len(columns)}. Put quotes around text with commas."
                    )
                rows.append(dict(zip(columns, cells, strict=True)))
                lines.append(reader.line_num)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    except UnicodeDecodeError as error:
        where = f"after row {len(rows)}" if rows else "at its start"
        raise InputError(f"{path} is not UTF-8 text ({where}, {error.reason}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"Row {len(rows) + 1} of {path} is not CSV: {error}. Check its quotes.") from error
    if not rows:
        raise InputError(f"{path} has a header but no rows. Add one row per pair.")
    return columns, rows, tuple(lines)


def _header(path: str | os.PathLike[str], columns: list[str]) -> list[str]:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise InputError(
            f"Row 0 of {path}, its header, lacks {', '.join(missing)}; it has {', '.join(columns) or 'nothing'}. "
            "Columns are clean, corrupt, answer, and if wanted foil, item, template, read and pos:NAME."
        )
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise InputError(f"The header of {path} has column {doubled[0]!r} twice. Keep one of them.")
    for name in columns:
        near = difflib.get_close_matches(name.lower(), _KNOWN, 1, 0.8)
        meant = near[0] if near else f"pos:{name[4:]}" if re.match(r"pos[ _.-]", name) else None
        if not _is_ours(name) and meant is not None:
            raise InputError(f"{path} has a column {name!r}. Is it {meant!r}? Rename it; other columns are not read.")
    return columns


def _is_ours(name: str) -> bool:
    return name in _KNOWN or name.startswith("pos:")


def _index_or_text(cell: str) -> int | str:
    return int(cell) if re.fullmatch(r"\s*-?\d+\s*", cell) else cell


def _read(cell: str, row: str) -> int | str:
    value = _index_or_text(cell)
    if isinstance(value, str) and value.strip() != "mask":
        raise InputError(f"{row} has {cell!r} in column 'read'. Give a position, or mask.")
    return value.strip() if isinstance(value, str) else value
