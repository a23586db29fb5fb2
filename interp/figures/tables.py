"""Tables as static HTML: escaped text only, no script."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

__all__ = ["table_html", "text_cell"]


def table_html(table: pd.DataFrame) -> str:
    """A static table; every cell is escaped text, numbers with three decimals, absent ones as a dash."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text_cell(value))}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def text_cell(value: Any) -> str:
    """A table's cell as text: three decimals, a dash for what was not measured."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}" if isinstance(value, float) else str(value)  # + 0.0: no "-0.00"
