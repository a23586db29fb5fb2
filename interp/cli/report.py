"""`interp report`: judge the claims on a model's heads, print them, write them as a page or Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import (
    check_markdown,
    check_places,
    default_keep,
    resumable,
    say_where,
    store_run,
    timed,
)
from interp.cli.output import AsJson, console, print_json, print_table
from interp.cli.progress import progress
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["kinds_asked", "report"]


def report(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of head; repeat for several. All, if none.")] = None,
    rigor: Annotated[str, typer.Option(help="quick: 50 items; full: 100, candidates by exact effect.")] = "quick",
    n: Annotated[int | None, typer.Option(help="Items of each task and split, if not as rigor says.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for what is finished; the same command goes on from there.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge every claim on a model's heads: holds, does not hold, or cannot tell."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, None)
    check_markdown(markdown)
    if rigor not in ("quick", "full"):
        raise InputError(f"--rigor is {rigor!r}. Choose quick or full.")
    kinds = kinds_asked(kind)
    import interp
    from interp.atlas.whole import WHOLE

    kept = keep or default_keep()
    timings: dict[str, float] = {}
    settings = {"rigor": rigor, "n": n, "seed": seed}
    with resumable(kept):
        with timed(timings, "load"):
            loaded = interp.load(model)
        with timed(timings, "report"), progress(WHOLE) as said:
            made = interp.report(loaded, kinds, **settings, keep=kept, progress=said)
    run, page = None, None
    try:
        if markdown is not None:
            made.to_markdown(markdown)
        if html is not None:
            page = made.to_html(html)
        if runs is not None:
            title = f"report on {made.about.get('model', model)}: {', '.join(made.kinds)}"
            run = store_run(runs, made, loaded, {"model": model, "kinds": kinds, **settings}, timings, title)
    finally:  # what took so long is shown, also where it could not be kept
        print_json({"run": run.id if run else None, **_as_json(made)}) if as_json else _print(made)
    if markdown is not None:
        print(f"markdown: {markdown}", file=sys.stderr)
    say_where(run, runs, page, None)


def kinds_asked(kinds: list[str] | None) -> str | list[str]:
    """All, if none; an unknown kind is refused before anything is loaded."""
    from interp.heads.base import finder

    return [finder(one).name for one in dict.fromkeys(kinds)] if kinds else "all"


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
