"""`interp report`: judge the claims on a model's heads, print them, write them as a page or Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.output import AsJson, console, print_json, print_table
from interp.cli.whole import Html, Items, Keep, Kinds, Markdown, Model, Rigor, Seed, Store, Whole
from interp.errors import InputError

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
    beside: Annotated[
        list[str] | None, typer.Option(help="Stored run told behind the claims, by its id in --store; e.g. probes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge every claim on a model's heads: holds, does not hold, or cannot tell."""

    def title(made: Any) -> str:
        return f"report on {made.about.get('model', model)}: {', '.join(made.kinds)}"

    def show(made: Any, run: str | None) -> None:
        print_json({"run": run, **_as_json(made)}) if as_json else _print(made)

    told = _opened(beside, store)
    Whole(model, kind, rigor, n, seed, keep, store, html, markdown).run("report", title, show, told)


def _opened(ids: list[str] | None, store: Path | None) -> dict[str, Any]:
    """What stored runs hold, checked before anything is loaded."""
    if not ids:
        return {}
    if store is None:
        raise InputError("--beside names runs of a store. Say which: --store FOLDER.")
    from interp.report.results import sections_of
    from interp.runs.store import RunStore

    runs = RunStore(store)
    found = [runs.open(one).results() for one in ids]
    sections_of(found)
    return {"beside": found}


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
