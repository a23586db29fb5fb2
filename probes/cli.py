"""`interp probe`: what can be decoded by layer, and whether it is used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.asking import Html, ModelName, Store
from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json
from interp.cli.progress import progress
from interp.cli.showing import print_frame, print_said
from interp.errors import InputError
from interp.runs.store import RunStore, must_be_writable

__all__ = ["probe"]

ESTIMATORS = ("ridge", "lda", "difference", "logistic", "mlp")


def probe(
    model: ModelName,
    task: Annotated[str | None, typer.Option(help="agreement (with a test of use), or another task.")] = None,
    labels: Annotated[str | None, typer.Option(help="A label set, e.g. part_of_speech; decoded, not tested.")] = None,
    texts: Annotated[Path | None, typer.Option(exists=True, help="Your own texts, one a line.")] = None,
    labels_csv: Annotated[
        Path | None,
        typer.Option("--labels-csv", exists=True, help="Their labels: columns text, pos, label or others; group."),
    ] = None,
    sites: Annotated[list[str] | None, typer.Option(help="resid, z, mlp_out, …; repeat for several.")] = None,
    estimator: Annotated[str, typer.Option(help=f"{', '.join(ESTIMATORS)}.")] = "ridge",
    rigor: Annotated[str, typer.Option(help="quick, or full: p over places, code length, more layers.")] = "quick",
    n: Annotated[int | None, typer.Option("--n", "-n", help="How much is drawn of a task or label set.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    heads: Annotated[
        str | None, typer.Option(help="Stored heads to set probes of z beside, by their run's id in --store.")
    ] = None,
    store: Store = None,
    html: Html = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table of all places here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decode labels from every layer, and (of agreement) find out whether the model uses what can be decoded."""
    given = [name for name, one in (("--task", task), ("--labels", labels), ("--texts", texts)) if one is not None]
    if len(given) != 1 or (texts is None) != (labels_csv is None):
        found = " and ".join(given) or "none of them"
        raise InputError(f"Give one of --task, --labels, or --texts with --labels-csv; there is {found}.")
    if estimator not in ESTIMATORS:
        raise InputError(f"--estimator is {estimator!r}. Choose {', '.join(ESTIMATORS)}.")
    if rigor not in ("quick", "full"):
        raise InputError(f"--rigor is {rigor!r}. Choose quick or full.")
    if n is not None and texts is not None:
        raise InputError("-n says how much is drawn, and --texts are taken whole. Leave it out.")
    runs = None if store is None else RunStore(store)
    causes = _causes(heads, runs, sites)
    check_places(runs, html, None)
    for file, name in ((markdown, "--markdown"), (csv, "--csv")):
        if file is not None and file.is_dir():
            raise InputError(f"{name} {file} is a folder. Give a file in it.")
        if file is not None:
            must_be_writable(file.parent)
    import interp

    settings: dict[str, Any] = {"sites": sites[0] if sites and len(sites) == 1 else sites or "resid"}
    settings |= {"estimator": estimator, "rigor": rigor, "seed": seed}
    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    with timed(timings, "probe"), progress() as report:
        if task == "agreement":
            made = _demonstrated(loaded, settings, n, report)
        else:
            made = _decoded(loaded, task or labels, (texts, labels_csv), settings, n, report)
    spec = {"analysis": "probe", "model": model, "task": task, "labels": labels, "texts": texts, **settings, "n": n}
    stored, page = [], None
    results = getattr(made, "results", made)
    beside = None if causes is None else _beside(results, causes)
    try:
        if markdown is not None:
            made.to_markdown(markdown)
        if csv is not None:
            results.to_frame().to_csv(csv, index=False)
        if html is not None:
            page = made.to_html(html)
        if runs is not None:
            stored = _stored(runs, made, results, loaded, spec, timings)
            if beside is not None:
                said = f"probes beside heads {heads} in {loaded.cfg.model_name}"
                stored.append(store_run(runs, beside, loaded, {**spec, "heads": heads}, timings, said))
        if beside is not None and not as_json:
            print_frame(beside.summary(), title=beside.heading, left=("target", "kind", "head", "together"))
            for sentence in beside.words:
                print_said(sentence)
    finally:  # what was found is shown, also where it could not be kept
        _show(made, results, [run.id for run in stored], as_json=as_json)
    for what, file in (("markdown", markdown), ("table", csv)):
        if file is not None:
            print(f"{what}: {file}", file=sys.stderr)
    for run in stored[1:]:
        print(f"stored as run {run.id}: {run.info.title}", file=sys.stderr)
    say_where(stored[0] if stored else None, runs, page, None)


def _causes(heads: str | None, runs: RunStore | None, sites: list[str] | None) -> Any:
    """The stored heads that probes are set beside."""
    if heads is None:
        return None
    if runs is None or "z" not in (sites or ()):
        raise InputError("--heads names a run of heads in a store, for probes of heads. Give --store and --sites z.")
    run = runs.open(heads)
    if run.info.kind != "heads":
        raise InputError(f"Run {run.id} holds {run.info.kind}, not heads. Make some: interp heads … --store.")
    return run.results()


def _beside(results: Any, causes: Any) -> Any:
    import probes

    return probes.beside_causes(results, causes)


def _demonstrated(loaded: Any, settings: dict[str, Any], n: int | None, report: Any) -> Any:
    import probes

    return probes.demonstrate(loaded, **settings, n=n, items=n, progress=report)


def _decoded(
    loaded: Any,
    name: str | None,
    files: tuple[Path | None, Path | None],
    settings: dict[str, Any],
    n: int | None,
    report: Any,
) -> Any:
    """A sweep over a label set, or over the user's own texts."""
    import probes

    kept = {key: one for key, one in settings.items() if key not in ("sites", "estimator")}
    drawn = {"sites": settings["sites"], "seed": settings["seed"], "random_init": True}
    if name is not None:
        data = probes.dataset(loaded, name, n=n, progress=report, **drawn)
    else:
        texts, table = _own(*files)
        data = probes.dataset(loaded, texts, table, progress=report, **drawn)
    return probes.sweep(data, settings["estimator"], progress=report, **kept)


def _own(texts: Path | None, labels: Path | None) -> tuple[list[str], Any]:
    """The user's texts, one a line, and the table of their labels."""
    import pandas as pd

    assert texts is not None and labels is not None
    try:
        # By line feeds alone: other characters that end lines may stand in a text. "NA" and "None" are labels.
        lines = texts.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
        table = pd.read_csv(labels, encoding="utf-8-sig", keep_default_na=False, na_values=["", "NaN", "nan"])
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(
            f"Cannot read {texts} and {labels}: {error}. Give UTF-8 text, and CSV with a header."
        ) from error
    blank = next((i for i, line in enumerate(lines) if not line.strip()), None)
    if blank is not None:
        raise InputError(
            f"Line {blank} of {texts} (from 0) is blank. Take it out, so that the lines' numbers are clear."
        )
    if "text" not in table or not len(table):
        raise InputError(f"{labels} needs a row per label and a column text: the number of its line, from 0.")
    return lines, table


def _stored(runs: RunStore, made: Any, results: Any, loaded: Any, spec: dict[str, Any], timings: dict) -> list[Any]:
    """The probes as one run, and each test of use as another."""
    what = spec["task"] or spec["labels"] or spec["texts"]
    title = f"probes of {what} in {loaded.cfg.model_name}"
    stored = [store_run(runs, results, loaded, spec, timings, title)]
    for use in getattr(made, "uses", ()):
        said = f"use of {use.about['target']} at {use.about['place']}: {use.verdict}"
        stored.append(store_run(runs, use, loaded, {**spec, "analysis": "test_use"}, timings, said))
    return stored


def _show(made: Any, results: Any, ids: list[str], *, as_json: bool) -> None:
    from probes.demonstration import layer_table

    if as_json:
        from interp.results.frames import as_records

        plain = {"probes": as_records(results.to_frame()), "about": dict(results.about)}
        records = made.to_records() if hasattr(made, "to_records") else plain
        print_json({"runs": ids, **records})
        return
    for target in dict.fromkeys(results.to_frame()["target"]):
        table = layer_table(results, target)
        if len(table) > _ROWS:
            table = results.top(target, _ROWS)
        print_frame(table, title=target, left=("place", "verdict"))
    for note in results.about.get("leaks", ()):
        print_said(note)
    if not hasattr(made, "uses"):
        for target in results.targets:
            print_said(results.describe(target))
        print_said("Decodable is not used: probes.test_use(results.at(place), model, pairs) tests whether it is.")
        return
    print_frame(made.summary(), title="Decoded and used", left=("target", "place", "verdict"))
    for sentence in made.sentences:
        print_said(sentence)


_ROWS = 40
