"""An atlas, and what moved between two, as headings, paragraphs, lists and tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.figures.document import Part
from interp.figures.tables import text_cell
from interp.results.heads import with_interval

if TYPE_CHECKING:
    from interp.atlas.results import Atlas

__all__ = ["document", "heads_of", "summary", "unexplained_of"]

_MOST = 40  # rows of heads that no kind names


def document(made: Atlas) -> list[Part]:
    """The whole atlas, its title first."""
    about, n = made.about, made.counts()
    said = ", ".join(f"{count} {name}" for name, count in n.items() if name != "heads")
    named = made.heads.loc[made.heads["n_kinds"] > 0]
    others = made.heads.loc[made.heads["n_kinds"] == 0]
    parts: list[Part] = [
        ("1", f"Which head does what: {about.get('model', 'a model')}"),
        ("text", str(about.get("caveat", ""))),
        ("text", f"{n['heads']} heads: {said}. {made.leaves_out}"),
        ("2", "Heads that some kind names"),
        ("table", heads_of(named)) if len(named) else ("text", "None."),
        ("2", "Kinds"),
        ("table", summary(made)),
        (
            "text",
            "Stability: the mean Jaccard index of the named heads with those that pass the same cutoffs of size when "
            "items are resampled, and what 97.5% of resamples reach. p are corrected over heads and over all kinds.",
        ),
        ("2", "What remains unexplained"),
        ("table", unexplained_of(made.unexplained)),
        ("2", "How kinds overlap"),
        *_overlap(made.overlap),
    ]
    if len(others):
        parts += [("2", "Heads that only attend like a kind, or only matter"), ("table", heads_of(others.head(_MOST)))]
        if len(others) > _MOST:
            parts.append(("text", f"And {len(others) - _MOST} more, in the saved tables."))
    settings = [f"{name}: {value}" for name, value in about.items() if name not in ("caveat", "left_out")]
    return [*parts, ("2", "How it was measured"), ("list", settings)]


def summary(made: Atlas) -> pd.DataFrame:
    """One line per kind, for people."""
    rows = []
    for row in made.kinds.to_dict("records"):
        stable, least = row.get("stability", math.nan), row.get("stability_low", math.nan)
        rows.append(
            {
                "kind": row["kind"],
                "heads": row["named"] or "none",
                "tested": str(row["tested"]),
                "stability": "–" if math.isnan(stable) else f"{stable:.2f} (≥ {least:.2f})",
                "highest score": "–" if _absent(row.get("best")) else f"{row['best']}: {row['best_score']:.2f}",
                "problem": row["problem"] or "–",
            }
        )
    return pd.DataFrame(rows)


def heads_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `Atlas.heads` as text for people."""
    lines = []
    for row in rows.to_dict("records"):
        line = {"head": row["address"], "is": row["is"]} if row["n_kinds"] else {"head": row["address"]}
        line |= {name: row[name] or "–" for name in ("attends like", "matters for")}
        line["largest effect"] = f"{text_cell(float(row['largest effect']))} {row['of']}".strip()
        if row["n_kinds"]:
            line["named again"] = "–" if math.isnan(row["named again"]) else f"{row['named again']:.0%}"
        lines.append(line)
    return pd.DataFrame(lines)


def unexplained_of(table: pd.DataFrame) -> pd.DataFrame:
    """`Atlas.unexplained` as text for people."""
    lines = []
    for row in table.to_dict("records"):
        lines.append(
            {
                "behaviour": row["behaviour"],
                "kinds": row["kinds"],
                "named heads": str(row["named"]),
                "carried together (95%)": with_interval(row, "carried"),
                "left": "–" if _absent(row["left"]) else f"{row['left']:.0%}",
                "heads that matter and no kind names": row["heads that matter and are not named"] or "–",
                "cannot tell": row["cannot tell"] or "–",
            }
        )
    return pd.DataFrame(lines)


def _overlap(table: pd.DataFrame) -> list[Part]:
    shared = table.loc[table["both"] > 0].sort_values("jaccard", ascending=False)
    lines = [
        {
            "kinds": f"{row['kind']} and {row['other']}",
            "heads": row["heads"],
            "both of": f"{row['both']} of {row['n']} and {row['n_other']}",
            "expected by chance": text_cell(float(row["expected"])),
            "p": f"{row['p']:.2g}",
            "rank correlation of scores": text_cell(float(row["rank_correlation"])),
        }
        for row in shared.to_dict("records")
    ]
    if not lines:
        return [("text", "No head is named by two kinds.")]
    return [("table", pd.DataFrame(lines))]


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
