"""`interp emergence`: what appeared in a training and when; of several trainings, which came first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Folders of interp train: one training, or seeds of a recipe. Or one model's checkpoints in the hub's "
            "layout, or a hub id with --revision."
        ),
    ],
    kinds: Annotated[str | None, typer.Option(help="Kinds of heads, with commas; by default those that suit.")] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help='One more measure: "conflict" (of facts-in-context), or of a package: probe_accuracy; repeat.'
        ),
    ] = None,
    ablate_at: Annotated[
        list[int] | None, typer.Option(help="Step at which the top heads are ablated together; repeat for several.")
    ] = None,
    top: Annotated[int, typer.Option(help="Heads of each kind that are ablated together.")] = 2,
    play: Annotated[
        bool, typer.Option(help="With --store: keep a row of tokens at each checkpoint as well, for the app to play.")
    ] = True,
    patch: Annotated[bool, typer.Option(help="Patch pairs drawn from the recipe's data.")] = True,
    revision: Annotated[
        list[str] | None, typer.Option(help="Revision of a hub id, e.g. step1000; repeat for each checkpoint.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Measure models without a recipe on this text; by default on repeated tokens.")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of a row, for models without a recipe.")] = 64,
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
    asked = _asked(folders, revision, text, length, n, seed)
    found: list[Any] = []
    kept: list[Any] = []
    for one in asked:
        timings: dict[str, float] = {}
        with timed(timings, "emergence"), progress() as report:
            found.append(dynamics.emergence(one.given, **one.options, **settings, progress=report))
        if runs is not None:
            spec = {"analysis": "emergence", "model": one.name, **one.spec, **settings}
            title = f"emergence in {found[-1].about['model']}"
            last = one.last()
            kept.append(store_run(runs, found[-1], last, spec, timings, title))
            if play:
                kept.append(_played(runs, one, last, settings))
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


@dataclass
class _Asked:
    """One list of checkpoints: what `interp.emergence` is given, and how it is named in a store."""

    given: Any
    name: str
    last: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


def _asked(
    names: list[str], revisions: list[str] | None, text: Path | None, length: int, n: int, seed: int
) -> list[_Asked]:
    """Each training by itself; checkpoints without a recipe together, with rows to measure them on."""
    from interp import dynamics
    from interp.dynamics.folder import ASKED

    ours = [(Path(name) / ASKED).exists() for name in names]
    if revisions and (len(names) > 1 or ours[0]):
        raise InputError("--revision goes with one hub id. Folders of interp train are given by themselves.")
    if not revisions and (any(ours) or len(names) == 1):
        if not all(ours) and len(names) > 1:
            other = names[ours.index(False)]
            raise InputError(f"{other} holds no training, the others do. Give trainings, or one model's checkpoints.")
        if text is not None and all(ours):
            raise InputError("--text is for models without a recipe; a training is measured on its own data.")
        trainings = [dynamics.checkpoints(name) for name in names]
        _must_differ(trainings)
        return [_Asked(one, str(one.folder), one[-1].load) for one in trainings]
    from interp.dynamics.rows import repeated_rows, text_rows
    from interp.dynamics.sources import source_of

    given: Any = names[0] if revisions else names
    models, _, name = source_of(given, revisions)
    first = next(iter(models.values()))()
    tokens = (
        repeated_rows(first, n, length=length, seed=seed)
        if text is None
        else text_rows(first, _read(text), n, length=length)
    )
    options = {"tokens": tokens, **({"revisions": revisions} if revisions else {})}
    spec = {"folders": names, "revisions": revisions, "text": None if text is None else str(text), "length": length}
    return [_Asked(given, name, next(reversed(models.values())), options, spec)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read --text {path}: {error}") from error


def _played(runs: RunStore, one: _Asked, last: Any, settings: dict[str, Any]) -> Any:
    """Store a playback of the kinds that are known by a pattern of attention; by default of those that suit."""
    from interp import dynamics

    options = {"kinds": dynamics.playable(settings["kinds"]), "n": settings["n"], "seed": settings["seed"]}
    timings: dict[str, float] = {}
    with timed(timings, "playback"), progress() as report:
        played = dynamics.playback(one.given, **one.options, **options, progress=report)
    spec = {"analysis": "playback", "model": one.name, **one.spec, **options}
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
    recipes = sorted({_recipe(one) for one in trainings})
    if len(recipes) > 1:
        raise InputError(f"These folders hold trainings of {' and '.join(recipes)}. Give seeds of one recipe.")
    seeds = [one.asked["seed"] for one in trainings]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise InputError(f"Seed {twice[0]} is given twice: {', '.join(str(one.folder) for one in trainings)}.")


def _recipe(training: Any) -> str:
    held = ", ".join(f"{one.head} {one.action}" for one in training.interventions)
    return training.asked["recipe"]["name"] + (f" with {held}" if held else "")
