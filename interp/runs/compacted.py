"""Many runs' tables in few files, so that one question over all of them does not open each.

`.index/` holds segments, Parquet files of many runs' rows, and `tables.json`, which says whose rows stand in which. It
is never the truth and may be deleted at any time: rows count only while their run's files have the sizes and times they
had when the rows were read, and a table is taken only if its hash is the manifest's. Segments are never changed;
one that is no longer needed stays for an hour, for those who read it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InterpError, StorageError
from interp.files import content_hash, write_atomically
from interp.runs.index import INDEX, Seen, read_checked, settled, write_checked
from interp.runs.kinds import load_results
from interp.runs.manifest import read_run

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROW", "RUN", "Part", "broken_segments", "compacted_problems", "gather", "main_table", "table_names"]

RUN, ROW = "__run", "__row"  # whose row it is, and which of its table
_CATALOG, _FORMAT = "tables.json", 1
_WORTH = 64  # runs that make a segment
_CHUNK = 2000  # runs read at once
_MOST = 8  # segments of a kind, before the small ones become one
_SMALL = 64 << 20  # bytes
_KEPT = 3600  # seconds that a segment stays after it is no longer needed
_ENDING = ".parquet"
_RESULTS = "results"
_MAIN = {
    "atlas": "heads_heads",
    "atlas_comparison": "kinds",
    "attention_graph": "edges",
    "cue_competition": "outcome",
    "evaluation": "groups",
    "head_table": "table",
    "lens": "places",
    "logit_attribution": "parts",
    "mlp_memory": "fired",
    "report": "claims",
    "walkthrough": "steps",
}
_COMPUTED = ("effects", "explanation", "composition")  # kept as bare arrays; their `to_frame()` has the axes as well


@dataclass
class Part:
    """Rows of one table of many runs: a segment's file, or a table in memory. Rows of runs other than `runs` do not
    count."""

    kind: str
    table: str
    rows: Path | pa.Table
    runs: frozenset[str]


@dataclass
class _Loose:
    """Runs read one by one: table -> rows, and what could not be read."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    runs: dict[str, Seen] = field(default_factory=dict)


def table_names(seen: Seen) -> dict[str, str]:
    """table -> file, of the Parquet tables that a run has."""
    files = [name for name in seen.files if name.startswith(f"{_RESULTS}/") and name.endswith(_ENDING)]
    return {name[len(_RESULTS) + 1 : -len(_ENDING)].replace("/", "_"): name for name in files}


def main_table(kind: str, tables: Sequence[str]) -> str | None:
    """The table that a kind's name stands for."""
    if kind in _COMPUTED:
        return kind
    wanted = (_MAIN.get(kind, kind), kind, "frame", "table", "scores")
    return next((name for name in wanted if name in tables), tables[0] if len(tables) == 1 else None)


def gather(
    store: Path, found: Sequence[Seen], broken: frozenset[str] = frozenset()
) -> tuple[list[Part], dict[str, str]]:
    """The tables of these runs, from segments where they are there and not `broken`; and run -> why it was left out.

    Writes segments of what is not in one yet, where it is worth it and the store lets us.
    """
    parts, left_out = [], {}
    by_kind: dict[str, list[Seen]] = {}
    for seen in found:
        by_kind.setdefault(str(seen.info.kind), []).append(seen)
    catalog = [one for one in _catalog(store) if not broken & {facts["file"] for facts in one["tables"].values()}]
    changed = bool(broken)
    for kind, runs in by_kind.items():
        marks = {seen.info.id: seen.mark for seen in runs}
        segments = [one for one in catalog if one["kind"] == kind and _is_whole(store, one)]
        covered: set[str] = set()
        for one in reversed(segments):  # the newest first: a run counts once
            mine = {name for name, mark in one["runs"].items() if marks.get(name) == mark} - covered
            covered |= mine
            parts += _parts(store, one, frozenset(mine))
        rest = [seen for seen in runs if seen.info.id not in covered]
        keep = len(rest) >= max(_WORTH, len(covered) // 10)
        for start in range(0, len(rest), _CHUNK):
            loose = _read_loose(store, rest[start : start + _CHUNK], left_out)
            new = _write_segment(store, kind, loose) if keep else None
            if new is not None:
                catalog.append(new)
                parts += _parts(store, new, frozenset(new["runs"]))
                changed = True
            else:
                parts += [Part(kind, name, _joined(rows), frozenset(loose.runs)) for name, rows in loose.tables.items()]
    if changed:
        _keep(store, catalog)
    return parts, left_out


def compacted_problems(store: Path) -> list[str]:
    """What of the segments is not as it was written. Reads every byte."""
    if (store / INDEX / _CATALOG).exists() and read_checked(store / INDEX / _CATALOG) is None:
        return [f"{_CATALOG} is not as it was written"]
    return [f"{name} is not as it was written" for name in sorted(broken_segments(store))]


def broken_segments(store: Path) -> frozenset[str]:
    """The files of segments that are gone or changed. Reads every byte."""
    facts = [one for segment in _catalog(store) for one in segment["tables"].values()]
    return frozenset(one["file"] for one in facts if not _is_as_written(store / INDEX / one["file"], one["sha256"]))


def _is_as_written(path: Path, digest: str) -> bool:
    try:
        return content_hash(path) == digest
    except OSError:
        return False


def _catalog(store: Path) -> list[dict[str, Any]]:
    saved = read_checked(store / INDEX / _CATALOG)
    good = isinstance(saved, dict) and saved.get("format") == _FORMAT
    return saved["segments"] if good else []


def _is_whole(store: Path, segment: Mapping[str, Any]) -> bool:
    try:
        return all(os.stat(store / INDEX / one["file"]).st_size == one["bytes"] for one in segment["tables"].values())
    except OSError:
        return False


def _parts(store: Path, segment: Mapping[str, Any], runs: frozenset[str]) -> list[Part]:
    tables = segment["tables"].items() if runs else ()
    return [Part(segment["kind"], name, store / INDEX / one["file"], runs) for name, one in tables]


def _read_loose(store: Path, runs: Sequence[Seen], left_out: dict[str, str]) -> _Loose:
    loose = _Loose()
    for seen in runs:
        name = seen.info.id
        try:
            tables = _tables(store / name, seen)
        except (InterpError, OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
            left_out[name] = str(error)
            continue
        for table, rows in tables.items():
            loose.tables.setdefault(table, []).append(_with_run(rows, name))
        loose.runs[name] = seen
    return loose


def _tables(folder: Path, seen: Seen) -> dict[str, pa.Table]:
    """The tables of one run, each of them as its manifest says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info, manifest = read_run(folder)
    if info.status != "ok":
        raise StorageError(str(info.reason))
    found = {}
    for table, file in table_names(seen).items():
        data = (folder / file).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["files"][file]["sha256"]:
            raise StorageError(f"{file} was changed: its hash is not the one it was written with")
        found[table] = _plain(pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False))
    if info.kind in _COMPUTED:
        frame = load_results(str(info.kind), folder / _RESULTS).to_frame()
        found[str(info.kind)] = _plain(pa.Table.from_pandas(frame.reset_index(drop=True), preserve_index=False))
    return found


def _plain(table: pa.Table) -> pa.Table:
    """Without pandas' index and notes, categories as their values, and no two names that differ only in case."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    taken: set[str] = {RUN, ROW}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name.startswith("__index_level_"):
            continue
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        columns[name] = column
    return pa.table(columns)


def _with_run(table: pa.Table, name: str) -> pa.Table:
    import pyarrow as pa

    n = table.num_rows
    return table.append_column(RUN, pa.repeat(pa.scalar(name), n)).append_column(ROW, pa.array(range(n), pa.int64()))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One under the other, united by name; a column whose types do not go together becomes text."""
    import pyarrow as pa

    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        pass
    types: dict[str, dict[str, pa.Field]] = {}
    for table in tables:
        for one in table.schema:
            types.setdefault(one.name, {})[str(one.type)] = one
    mixed = {name for name, fields in types.items() if not _go_together(list(fields.values()))}
    return pa.concat_tables([_as_text(table, mixed) for table in tables], promote_options="permissive")


def _go_together(fields: Sequence[pa.Field]) -> bool:
    import pyarrow as pa

    try:
        pa.unify_schemas([pa.schema([one]) for one in fields], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return False
    return True


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    import pyarrow as pa

    for i, name in enumerate(table.column_names):
        if name in names:
            texts = [None if value is None else str(value) for value in table.column(i).to_pylist()]
            table = table.set_column(i, name, pa.array(texts, pa.string()))
    return table


def _write_segment(store: Path, kind: str, loose: _Loose) -> dict[str, Any] | None:
    """The segment's entry for the catalog; None if nothing settled enough is in it, or the store refuses."""
    if not loose.runs or not all(map(settled, loose.runs.values())):
        return None
    try:
        tables = {name: _write(store, kind, name, _joined(rows)) for name, rows in loose.tables.items()}
    except StorageError:
        return None
    return {"kind": kind, "runs": {name: seen.mark for name, seen in loose.runs.items()}, "tables": tables}


def _write(store: Path, kind: str, table: str, rows: pa.Table) -> dict[str, Any]:
    import pyarrow.parquet as pq

    path = store / INDEX / f"{kind}.{table}.{secrets.token_hex(8)}{_ENDING}"
    facts: dict[str, Any] = {"file": path.name}

    def write(part: Path) -> None:
        pq.write_table(rows, part, compression="zstd", write_page_checksum=True)
        facts.update(bytes=part.stat().st_size, sha256=content_hash(part))

    write_atomically(path, write)
    return facts


def _keep(store: Path, catalog: list[dict[str, Any]]) -> None:
    """Write the catalog, with many small segments made one; remove what nobody has needed for long."""
    try:
        for kind in {one["kind"] for one in catalog}:
            catalog = _merged(store, kind, catalog)
        write_checked(store / INDEX / _CATALOG, {"format": _FORMAT, "segments": catalog})
        _tidy(store, {facts["file"] for one in catalog for facts in one["tables"].values()})
    except (OSError, ValueError):
        return  # the next one tries again; nothing that is read depends on it


def _merged(store: Path, kind: str, catalog: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    mine = [one for one in catalog if one["kind"] == kind and _is_whole(store, one)]
    rest = [one for one in catalog if one["kind"] != kind]
    small = [one for one in mine if sum(facts["bytes"] for facts in one["tables"].values()) < _SMALL]
    if len(small) <= _MOST:
        return rest + mine
    runs: dict[str, str] = {}
    tables: dict[str, list[pa.Table]] = {}
    for one in reversed(small):
        new = one["runs"].keys() - runs.keys()
        for name, facts in one["tables"].items():
            rows = pq.read_table(store / INDEX / facts["file"], page_checksum_verification=True)
            counts = pc.is_in(rows[RUN], pa.array(sorted(new), pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
            tables.setdefault(name, []).append(rows.filter(counts))
        runs |= {name: one["runs"][name] for name in new}
    for one in small:
        for facts in one["tables"].values():
            os.utime(store / INDEX / facts["file"])  # its hour begins
    written = {name: _write(store, kind, name, _joined(rows)) for name, rows in tables.items()}
    large = [one for one in mine if one not in small]
    return [*rest, *large, {"kind": kind, "runs": runs, "tables": written}]


def _tidy(store: Path, needed: set[str]) -> None:
    with os.scandir(store / INDEX) as entries:
        for one in entries:
            ours = one.name.endswith((_ENDING, ".part")) and one.name not in needed
            if ours and time.time() - one.stat().st_mtime > _KEPT:
                os.unlink(one.path)
