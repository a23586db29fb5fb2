"""`interp heads`: find heads, print them, store the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_heads, print_json, scores_as_json
from interp.cli.progress import progress
from interp.runs.store import RunStore

__all__ = ["heads"]


def heads(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of head; repeat for several, or all. None: the four basic ones.")
    ] = None,
    n: Annotated[int, typer.Option(help="Prompts of each data set.")] = 32,
    screen: Annotated[
        str, typer.Option(help="Test the top heads by attention, by exact effect, or none: every head.")
    ] = "attention",
    top: Annotated[int, typer.Option(help="Heads of each kind to ablate.")] = 8,
    alpha: Annotated[float, typer.Option(help="Largest corrected p that a verdict accepts.")] = 0.05,
    corpus: Annotated[Path | None, typer.Option(exists=True, help="Your own text: a file or a folder.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep finished tasks in this folder, and go on from there.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find heads in a model, and what ablating them costs."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    kinds, settings = _kinds(kind), {"n": n, "screen": screen, "top": top, "alpha": alpha, "seed": seed}
    if corpus is not None:
        settings["corpus"] = corpus
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    with timed(timings, "find"), progress() as report:
        found = interp.find_heads(loaded, kinds, **settings, keep=keep, progress=report)
    run, page = None, None
    try:
        if runs is not None:
            title = f"heads of {found.about.get('model', model)}: {', '.join(found.kinds)}"
            run = store_run(runs, found, loaded, {"model": model, "kinds": kinds, **settings}, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what took so long to find is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **scores_as_json(found)})
        else:
            print_heads(found)
    say_where(run, runs, page, out)


def _kinds(asked: list[str] | None) -> str | list[str]:
    """The kinds to look for; an unknown one is refused before anything is loaded."""
    from interp.heads.base import finder
    from interp.heads.find import BASIC_KINDS

    if asked and "all" in asked:
        return "all"
    return [finder(one).name for one in dict.fromkeys(asked)] if asked else list(BASIC_KINDS)
