"""One question over all runs: SQL over their tables, by DuckDB, which is let near nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.runs.compacted import ROW, RUN, Part, broken_segments, gather, main_table
from interp.runs.index import Seen

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

__all__ = ["tidy_frame"]

_RUNS = "runs"
_FACTS = ("run", "run_kind", "title", "model", "model_hash", "seed", "created", "task")
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}


class _BadQueryError(InputError):
    """A query that no data could answer."""


def tidy_frame(store: Path, found: Sequence[Seen], query: str | None, kind: str | None) -> pd.DataFrame:
    """See `RunStore.frame`."""
    good = [seen for seen in found if seen.info.status == "ok" and kind in (None, seen.info.kind)]
    if query is None:
        kind = _one_kind(good, kind)
    needed = good if query is None else [seen for seen in good if _may_name(query, str(seen.info.kind))]
    try:
        frame = _ask(store, good, needed, query, kind, frozenset())
    except (InputError, OSError, ValueError) as error:
        broken = frozenset() if isinstance(error, _BadQueryError) else broken_segments(store)
        if not broken and len(needed) == len(good):
            raise
        frame = _ask(store, good, good, query, kind, broken)  # without them; or for a message that names all tables
    doubtful = [seen.info for seen in found if seen.info.status != "ok"]
    bad = {one.id: str(one.reason) for one in doubtful if kind is None or one.kind in (None, kind)}
    frame.attrs["left_out"] = dict(sorted((frame.attrs["left_out"] | bad).items()))
    return frame


def _ask(
    store: Path,
    good: Sequence[Seen],
    needed: Sequence[Seen],
    query: str | None,
    kind: str | None,
    broken: frozenset[str],
) -> pd.DataFrame:
    import duckdb

    parts, left_out = gather(store, needed, broken)
    with duckdb.connect(":memory:", config=_SETTINGS) as connection:
        _register_runs(connection, good)
        tables = _register(connection, parts)
        connection.execute("SET lock_configuration = true")
        if query is None:
            if kind not in tables:
                raise InputError(f"Runs of kind {kind!r} hold no table that stands for them. {_listed(tables)}")
            query = f"{tables[kind]} ORDER BY r.created, r.run, t.{ROW}"
        else:
            for name, text in tables.items():
                connection.execute(f"CREATE VIEW {_quoted(name)} AS {text}")
        frame = _answer(connection, query, [_RUNS, *tables])
    frame.attrs["left_out"] = left_out
    return frame


def _one_kind(good: Sequence[Seen], kind: str | None) -> str:
    kinds = sorted({str(seen.info.kind) for seen in good})
    if len(kinds) == 1:
        return kinds[0]
    if kind is not None or not kinds:
        raise InputError(f"There are no sound runs{f' of kind {kind!r}' if kind else ''} here. `list()` shows what is.")
    raise InputError(f"The store holds runs of {len(kinds)} kinds: {', '.join(kinds)}. Give one as `kind`, or a query.")


def _may_name(query: str, kind: str) -> bool:
    """Whether a query can ask for a kind's tables: each of their names begins with the kind's. What is read for nothing
    only takes time."""
    return kind.lower() in query.lower() or not query.strip()


def _answer(connection: duckdb.DuckDBPyConnection, query: str, names: Sequence[str]) -> pd.DataFrame:
    import duckdb

    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise _BadQueryError(
                f"A query is one SELECT; this is {query.strip()!r:.200}. {_columns(connection, names)}"
            )
        return connection.execute(query).df()
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        raise _BadQueryError(f"The query failed: {error}\n{_columns(connection, names)}") from error
    except duckdb.Error as error:
        raise InputError(f"The query failed: {error}\n{_columns(connection, names)}") from error


def _columns(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> str:
    import duckdb

    lines = []
    for name in names:
        try:
            columns = connection.execute(f"SELECT * FROM {_quoted(name)} LIMIT 0").description or []
        except duckdb.Error:
            continue
        lines.append(f"  {name}: {', '.join(str(one[0]) for one in columns)}")
    return "Tables and their columns:\n" + "\n".join(lines)


def _listed(tables: Iterable[str]) -> str:
    return f"Tables: {', '.join([_RUNS, *tables])}."


def _register_runs(connection: duckdb.DuckDBPyConnection, good: Sequence[Seen]) -> None:
    """One row a run: the facts of the list, and each tag as a column `tag_…`."""
    import pyarrow as pa

    infos = [seen.info for seen in good]
    tags = sorted({name for info in infos for name in info.tags})
    times = [None if info.created is None else info.created.astimezone(UTC).replace(tzinfo=None) for info in infos]
    texts: dict[str, list[str | None]] = {
        "run": [info.id for info in infos],
        "run_kind": [info.kind for info in infos],
        "title": [info.title for info in infos],
        "model": [info.model for info in infos],
        "model_hash": [info.model_hash for info in infos],
        "task": [info.task for info in infos],
        **{f"tag_{tag}": [info.tags.get(tag) for info in infos] for tag in tags},
    }
    columns: dict[str, Any] = {name: pa.array(map(_utf8, values), pa.string()) for name, values in texts.items()}
    seeds = [info.seed if info.seed is None or abs(info.seed) < 1 << 63 else None for info in infos]
    columns |= {"seed": pa.array(seeds, pa.int64()), "created": pa.array(times, pa.timestamp("us"))}
    order = [*_FACTS, *(name for name in columns if name not in _FACTS)]
    connection.register("__runs", pa.table({name: columns[name] for name in order}))
    connection.execute(f"CREATE TABLE {_RUNS} AS SELECT * FROM __runs")


def _utf8(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()


def _register(connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> dict[str, str]:
    """View -> the SELECT that makes it."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    by_table: dict[tuple[str, str], list[str]] = {}
    columns: dict[tuple[str, str], set[str]] = {}
    for i, part in enumerate(parts):
        rows = ds.dataset(part.rows, format=_format()) if isinstance(part.rows, Path) else part.rows
        connection.register(f"__part{i}", rows)
        connection.register(f"__runs{i}", pa.table({RUN: pa.array(sorted(part.runs), pa.string())}))
        text = f"SELECT * FROM __part{i} SEMI JOIN __runs{i} USING ({RUN})"
        by_table.setdefault((part.kind, part.table), []).append(text)
        columns.setdefault((part.kind, part.table), set()).update(name.lower() for name in rows.schema.names)
    facts = [one[0] for one in connection.execute(f"SELECT * FROM {_RUNS} LIMIT 0").description or []]
    names = _view_names(by_table)
    return {
        name: f"SELECT {_facts(facts, columns[one])}, t.* EXCLUDE ({RUN}, {ROW}) "
        f"FROM ({' UNION ALL BY NAME '.join(by_table[one])}) t JOIN {_RUNS} r ON r.run = t.{RUN}"
        for name, one in names.items()
    }


def _format() -> Any:
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)


def _view_names(tables: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, str]]:
    """A kind's name for its main table, kind_table for the others."""
    of_kind: dict[str, list[str]] = {}
    for kind, table in tables:
        of_kind.setdefault(kind, []).append(table)
    names = {kind: (kind, main) for kind, found in of_kind.items() if (main := main_table(kind, found))}
    for kind, found in of_kind.items():
        for table in found:
            if (kind, table) not in names.values():
                names.setdefault(f"{kind}_{table}", (kind, table))
    return names


def _facts(facts: Sequence[str], taken: set[str]) -> str:
    """The run's columns; one whose name the table has itself comes as run_…"""
    chosen = []
    for name in facts:
        shown = name
        while shown.lower() in taken:
            shown = f"run_{shown}"
        chosen.append(f"r.{_quoted(name)} AS {_quoted(shown)}")
    return ", ".join(chosen)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
