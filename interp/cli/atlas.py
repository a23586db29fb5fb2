"""`interp atlas`: which head does what, over all kinds; `interp compare`: what moved between two stored atlases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import say_where
from interp.cli.output import AsJson, console, print_json, print_table
from interp.cli.whole import Html, Items, Keep, Kinds, Markdown, Model, Rigor, Seed, Store, Whole
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["atlas", "compare"]

_STORE = Path("runs")


def atlas(
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
    """Which head does what, over all kinds: overlaps, stability, and what stays unexplained."""

    def title(made: Any) -> str:
        return f"atlas of {made.about.get('model', model)}: {', '.join(made.scores.kinds)}"

    def show(made: Any, run: str | None) -> None:
        print_json({"run": run, **made.to_records()}) if as_json else _print(made)

    Whole(model, kind, rigor, n, seed, keep, store, html, markdown).run("atlas", title, show)


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
