"""Printing of results that are one table: what they are, the table, and what it leaves out."""

from __future__ import annotations

import json
from typing import Any

from interp.cli.output import console, print_table, shown

__all__ = ["print_explanation", "print_result", "result_as_json"]


def print_result(found: Any, n: int = 30) -> None:
    """Any result with a table, as text; tokens in quotes, so that a space in front is seen."""
    console().print(shown(repr(found)), markup=False, soft_wrap=True)
    table = found.top(n) if hasattr(found, "top") else found.to_frame().head(n).round(3)
    for name in table.columns.intersection(["token", "query_token", "key_token"]):
        table = table.assign(**{name: [repr(one) for one in table[name]]})
    print_table([str(name) for name in table.columns], table.itertuples(index=False))
    console().print(shown(found.leaves_out), markup=False, soft_wrap=True)


def print_explanation(found: Any, n: int = 8) -> None:
    """An attention edge: its keys, its sources, and what replacing them did."""
    out = console()
    out.print(shown(repr(found)), markup=False, soft_wrap=True)
    keys = found.keys.sort_values("score", ascending=False, kind="stable").head(n)
    rows = [[one.pos, repr(one.token), f"{one.score:.2f}", f"{one.attention:.3f}"] for one in keys.itertuples()]
    print_table(["pos", "key", "score", "attention"], rows, title="Keys", right=["pos", "score", "attention"])
    compared = found.about.get("against")
    title = "Parts of the score" if compared is None else f"Parts of the score against the other keys ({compared})"
    table = found.top(n)
    print_table(list(table.columns), table.itertuples(index=False), title=title)
    if found.confirmed is not None:
        about = found.about
        metric = "" if about.get("metric") is None else f"; {about['metric']} of {about['answer']!r}"
        metric += f" against {about['foil']!r}" if "foil" in about else ""
        rows = [_confirmed_row(row) for row in found.confirmed.to_dict("records")]
        columns = ["replaced in the", "source", "score", "contrast", "attention", "answer"]
        what = {"mean": "their mean elsewhere"}.get(about.get("replaced_with"), "zero")
        print_table(columns, rows, title=f"Sources replaced by {what}{metric}", right=columns[2:])
    out.print(shown(found.leaves_out), markup=False, soft_wrap=True)


def result_as_json(found: Any) -> dict[str, Any]:
    """The rows of a result with a table, and how it was made."""
    tables = {"rows": found.to_frame()}
    for name in ("keys", "confirmed"):
        if getattr(found, name, None) is not None:
            tables[name] = getattr(found, name)
    records = {name: json.loads(table.to_json(orient="records") or "[]") for name, table in tables.items()}
    return {**records, "about": dict(found.about), "leaves_out": found.leaves_out}


def _confirmed_row(row: dict[Any, Any]) -> list[str]:
    def change(name: str, digits: int) -> str:
        before, after = row[name], row[f"{name}_after"]
        if before is None or before != before:
            return "–"
        return f"{before:.{digits}f} → {after:.{digits}f}"

    return [
        row["side"],
        row["source"],
        change("score", 2),
        change("contrast", 2),
        change("attention", 3),
        change("answer", 3),
    ]
