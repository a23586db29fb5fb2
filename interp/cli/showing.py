"""Results that know how to tell of themselves: as lines for people, as records for programs."""

from __future__ import annotations

from typing import Any

from interp.cli.output import console, print_table, shown

__all__ = ["print_frame", "print_said", "records_of"]


def print_frame(table: Any, *, title: str | None = None, left: tuple[str, ...] = ()) -> None:
    """A table of texts; numbers to the right, the columns named in `left` not."""
    columns = list(table.columns)
    right = [name for name in columns if name not in left]
    print_table(columns, table.itertuples(index=False), title=title, right=right)


def print_said(text: Any) -> None:
    """Lines as they are, each without what would steer a terminal."""
    out = console()
    for line in str(text).splitlines():
        out.print(shown(line), markup=False, soft_wrap=True)


def records_of(results: Any) -> dict[str, Any]:
    """Plain data for JSON, by the result's own `to_records` where it has one."""
    return results.to_records() if hasattr(results, "to_records") else {"results": str(results)}
