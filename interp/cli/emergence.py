"""`interp emergence`: what appeared in a training and when; of several trainings, which came first."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from interp.cli.asking import Html, Out, Store
from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json
from interp.cli.progress import progress
from interp.cli.showing import print_frame, print_said, records_of
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["emergence"]


def emergence(
    folders: Annotated[list[str], typer.Argument(help="Folders of interp train: one training, or seeds of a recipe.")],
    kinds: Annotated[str | None, typer.Option(help="Kinds of heads, with commas; by default those that suit.")] = None,
    measure: Annotated[
        list[str] | None, typer.Option(help="One more measure of an installed package, e.g. probe_accuracy; repeat.")
    ] = None,
    ablate_at: Annotated[
        list[int] | None, typer.Option(help="Step at which the top heads are ablated together; repeat for several.")
    ] = None,
    top: Annotated[int, typer.Option(help="Heads of each kind that are ablated together.")] = 2,
    play: Annotated[
        bool, typer.Option(help="With --store: keep a row of tokens at each checkpoint as well, for the app to play.")
    ] = True,
    patch: Annotated[bool, typer.Option(help="Patch pairs drawn from the recipe's data.")] = True,
    n: Annotated[int, typer.Option("--n", "-n", help="Held-out rows; half of them choose heads.")] = 64,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Say what rose in a training, when, how sharply, and whether loss moved with it; of several, which came first."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    from interp import dynamics

    settings: dict[str, Any] = {
        "kinds": None if kinds is None else [one.strip() for one in kinds.split(",") if one.strip()],
        "measures": measure or (),
        "ablate_at": ablate_at or (),
        "top": top,
        "pairs": "data" if patch else None,
        "n": n,
        "seed": seed,
    }
    trainings = [dynamics.checkpoints(folder) for folder in folders]
    _must_differ(trainings)
    found: list[Any] = []
    kept: list[Any] = []
    for training in trainings:
        timings: dict[str, float] = {}
        with timed(timings, "emergence"), progress() as report:
            found.append(dynamics.emergence(training, **settings, progress=report))
        if runs is not None:
            spec = {"analysis": "emergence", "model": str(training.folder), **settings}
            title = f"emergence in {found[-1].about['model']}"
            last = training[-1].load()
            kept.append(store_run(runs, found[-1], last, spec, timings, title))
            if play:
                kept.append(_played(runs, training, last, settings))
    whole = found[0] if len(found) == 1 else dynamics.order(found, _told(found[0]))
    if runs is not None and len(found) > 1:
        spec = {"analysis": "emergence order", "model": None, "folders": folders, **settings}
        kept.append(runs.save(whole, spec=spec, seed=seed, title=f"order of emergence in {len(found)} trainings"))
    try:
        page = None if html is None else whole.to_html(html)
        if out is not None:
            whole.save(out)
    finally:  # what was found is shown, also where it could not be kept
        _show(found, whole, [run.id for run in kept], as_json=as_json)
    for run in kept[:-1]:
        say_where(run, runs, None, None)
    say_where(kept[-1] if kept else None, runs, page, out)


def _played(runs: RunStore, training: Any, last: Any, settings: dict[str, Any]) -> Any:
    """Store a playback of the kinds that are known by a pattern of attention; by default of those that suit."""
    from interp import dynamics

    options = {"kinds": dynamics.playable(settings["kinds"]), "n": settings["n"], "seed": settings["seed"]}
    timings: dict[str, float] = {}
    with timed(timings, "playback"), progress() as report:
        played = dynamics.playback(training, **options, progress=report)
    spec = {"analysis": "playback", "model": str(training.folder), **options}
    return store_run(runs, played, last, spec, timings, f"playback of {played.about['model']}")


def _show(found: list[Any], whole: Any, ids: list[str], *, as_json: bool) -> None:
    several = len(found) > 1
    if as_json:
        parts = {"trainings": [records_of(one) for one in found]} if several else {}
        print_json({"runs": ids, **parts, **records_of(whole)})
        return
    for one in found:
        print_frame(one.summary(), title=f"{one.about['model']}: {one!r}", left=("series",))
        if len(one.ablations):
            table = one.ablations.round(3)
            print_frame(table, title="set to their mean together, nats", left=("set", "heads"))
    if several:
        print_frame(whole.summary(), title=repr(whole), left=("series", "against", "onset", "verdict"))
    print_said(whole.describe())


def _told(one: Any) -> list[tuple[str, str]]:
    """The series whose order is told: the loss, the in-context score, kinds of heads, and what composes."""
    known = list(zip(one.changes["measure"], one.changes["series"], strict=True))
    first = ("loss", one.about["loss"])
    others = [
        name for name in known
        if name[0] != "loss" and not name[0].startswith("patch") and name[1] != "other pairs"
    ]  # fmt: skip
    return [first, *others]


def _must_differ(trainings: list[Any]) -> None:
    recipes = sorted({one.asked["recipe"]["name"] for one in trainings})
    if len(recipes) > 1:
        raise InputError(f"These folders hold trainings of {' and '.join(recipes)}. Give seeds of one recipe.")
    seeds = [one.asked["seed"] for one in trainings]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise InputError(f"Seed {twice[0]} is given twice: {', '.join(str(one.folder) for one in trainings)}.")
