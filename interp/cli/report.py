"""`interp report`: judge the claims on a model's heads, print them, write them as a page or Markdown."""

from __future__ import annotations

from typing import Any

from interp.cli.output import AsJson, console, print_json, print_table
from interp.cli.whole import Html, Items, Keep, Kinds, Markdown, Model, Rigor, Seed, Store, Whole

__all__ = ["report"]


def report(
    model: Model,
    kind: Kinds = None,
    rigor: Rigor = "quick",
    n: Items = None,
    seed: Seed = 0,
    keep: Keep = None,
    store: Store = None,
    html: Html = None,
    markdown: Markdown = None,
    as_json: AsJson = False,
) -> None:
    """Judge every claim on a model's heads: holds, does not hold, or cannot tell."""

    def title(made: Any) -> str:
        return f"report on {made.about.get('model', model)}: {', '.join(made.kinds)}"

    def show(made: Any, run: str | None) -> None:
        print_json({"run": run, **_as_json(made)}) if as_json else _print(made)

    Whole(model, kind, rigor, n, seed, keep, store, html, markdown).run("report", title, show)


def _as_json(made: Any) -> dict[str, Any]:
    tables = {name: table.to_dict("records") for name, table in made.tables.items()}
    claims = made.to_frame().to_dict("records")
    return {"claims": claims, "counts": made.counts(), "about": dict(made.about), "tables": tables}


def _print(made: Any) -> None:
    from interp.report.render import summary

    rows, out = summary(made.claims), console()
    title = f"Claims on the heads of {made.about.get('model')}"
    print_table(list(rows.columns), rows.itertuples(index=False), title=title, whole=["claim", "verdict"])
    out.print(", ".join(f"{n} {verdict}" for verdict, n in made.counts().items()) + ".", markup=False, soft_wrap=True)
    out.print(str(made.about.get("caveat", "")), markup=False, soft_wrap=True)
