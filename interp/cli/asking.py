"""What commands that ask one thing of one model have in common: load, ask, keep, show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import print_json
from interp.runs.store import RunStore

__all__ = ["Html", "ModelName", "Out", "Store", "ask"]

ModelName = Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")]
Store = Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")]
Html = Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")]
Out = Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")]


def ask(
    model: str,
    question: Callable[[Any], Any],
    spec: Mapping[str, Any],
    show: Callable[[Any], None],
    records: Callable[[Any], dict[str, Any]],
    *,
    title: str,
    store: Path | None,
    html: Path | None,
    out: Path | None,
    as_json: bool,
    places: tuple[Path | None, ...] = (),
) -> Any:
    """Load the model, ask `question` of it, keep what was found where that was wanted, and show it. `places` are
    further files that will be written, checked before the work too."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    for place in places:
        check_places(None, place, None)
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    with timed(timings, str(spec["analysis"])):
        found = question(loaded)
    run, page = None, None
    try:
        if runs is not None:
            run = store_run(runs, found, loaded, {**spec, "model": model}, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what was found is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **records(found)})
        else:
            show(found)
    say_where(run, runs, page, out)
    return found
