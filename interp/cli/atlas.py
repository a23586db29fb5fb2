"""`interp atlas`: which head does what, over all kinds; `interp compare`: what moved between two stored atlases."""

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
from interp.cli.report import kinds_asked
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["atlas", "compare"]

_STORE = Path("runs")


def atlas(
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
    """Which head does what, over all kinds: overlaps, stability, and what stays unexplained."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, None)
    check_markdown(markdown)
    if rigor not in ("quick", "full"):
        raise InputError(f"--rigor is {rigor!r}. Choose quick or full.")
    kinds = kinds_asked(kind)
    import interp
    from interp.atlas.whole import WHOLE

    kept, timings = keep or default_keep(), {}
    settings = {"rigor": rigor, "n": n, "seed": seed}
    with resumable(kept):
        with timed(timings, "load"):
            loaded = interp.load(model)
        with timed(timings, "atlas"), progress(WHOLE) as said:
            made = interp.atlas(loaded, kinds, **settings, keep=kept, progress=said)
    run, page = None, None
    try:
        if markdown is not None:
            made.to_markdown(markdown)
        if html is not None:
            page = made.to_html(html)
        if runs is not None:
            title = f"atlas of {made.about.get('model', model)}: {len(made.scores.kinds)} kinds"
            run = store_run(runs, made, loaded, {"model": model, "kinds": kinds, **settings}, timings, title)
    finally:  # what took so long is shown, also where it could not be kept
        print_json({"run": run.id if run else None, **made.to_records()}) if as_json else _print(made)
    if markdown is not None:
        print(f"markdown: {markdown}", file=sys.stderr)
    say_where(run, runs, page, None)


def compare(
    before: Annotated[str, typer.Argument(help="Id of a stored atlas, or a beginning of it.")],
    after: Annotated[str, typer.Argument(help="Id of the other.")],
    store: Annotated[Path, typer.Option(help="The folder of runs.")] = _STORE,
    keep: Annotated[bool, typer.Option(help="Store the comparison there, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What moved between two stored atlases (two models, two checkpoints, two seeds), beyond what other items move."""
    runs = RunStore(store)
    opened = [runs.open(id) for id in (before, after)]
    for run in opened:
        if run.info.kind != "atlas":
            raise InputError(
                f"Run {run.info.id} holds {run.info.kind}, not an atlas. Make one: interp atlas MODEL --store {store}"
            )
    if keep:
        runs.must_be_writable()
    from interp.atlas.compare import compare as compare_atlases

    made = compare_atlases(*(run.results() for run in opened))
    kept = None
    if keep:
        ids = [run.info.id for run in opened]
        kept = runs.save(made, spec={"before": ids[0], "after": ids[1]}, title=f"{ids[0]} against {ids[1]}")
    if as_json:
        print_json({"run": kept.id if kept else None, **made.to_records()})
    else:
        _print_table(made.summary(), "What moved")
        if len(changes := made.changes()):
            _print_table(changes, "Heads whose score or effect surely changed")
        console().print(made.describe(), markup=False, soft_wrap=True)
    say_where(kept, runs, None, None)


def _print(made: Any) -> None:
    from interp.atlas.render import heads_of, summary, unexplained_of

    _print_table(summary(made), f"Kinds of heads in {made.about.get('model')}")
    named = made.heads.loc[made.heads["n_kinds"] > 0]
    if len(named):
        _print_table(heads_of(named), "Which head does what")
    _print_table(unexplained_of(made.unexplained), "What remains unexplained")
    said = ", ".join(f"{count} {name}" for name, count in made.counts().items())
    for line in (f"{said}.", made.leaves_out, str(made.about.get("caveat", ""))):
        console().print(line, markup=False, soft_wrap=True)


def _print_table(table: Any, title: str) -> None:
    print_table(list(table.columns), table.itertuples(index=False), title=title, whole=list(table.columns[:1]))
