"""`interp heads`: find heads, print them, store the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.output import AsJson, command_line, print_heads, print_json, scores_as_json
from interp.cli.progress import progress
from interp.errors import InputError, StorageError
from interp.runs.store import Run, RunStore, must_be_writable

__all__ = ["heads"]


def heads(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of head; repeat for several. All, if none.")] = None,
    n: Annotated[int, typer.Option(help="Prompts of each data set.")] = 32,
    screen: Annotated[str, typer.Option(help="Test the top heads by attention, or (none) every head.")] = "attention",
    top: Annotated[int, typer.Option(help="Heads of each kind to ablate.")] = 8,
    alpha: Annotated[float, typer.Option(help="Largest corrected p that a verdict accepts.")] = 0.05,
    corpus: Annotated[Path | None, typer.Option(exists=True, help="Your own text: a file or a folder.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find heads in a model, and what ablating them costs."""
    runs = None if store is None else RunStore(store)
    _check_places(runs, html, out)
    kinds, settings = _kinds(kind), {"n": n, "screen": screen, "top": top, "alpha": alpha, "seed": seed}
    if corpus is not None:
        settings["corpus"] = corpus
    import interp

    timings: dict[str, float] = {}
    with _timed(timings, "load"):
        loaded = interp.load(model)
    with _timed(timings, "find"), progress() as report:
        found = interp.find_heads(loaded, kinds, **settings, progress=report)
    run, page = None, None
    try:
        if runs is not None:
            run = _store(runs, found, loaded, {"model": model, "kinds": kinds, **settings}, timings)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what took so long to find is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **scores_as_json(found)})
        else:
            print_heads(found)
    _say_where(run, runs, page, out)


def _kinds(asked: list[str] | None) -> list[str]:
    """The kinds to look for; an unknown one is refused before anything is loaded."""
    from interp.heads.base import finder, finders

    return list(finders()) if not asked else [finder(one).name for one in dict.fromkeys(asked)]


def _check_places(runs: RunStore | None, html: Path | None, out: Path | None) -> None:
    """Raise for a place where nothing can be written, before any work is done."""
    if runs is not None:
        runs.must_be_writable()
    if html is not None:
        if html.is_dir():
            raise InputError(f"--html {html} is a folder. Give a file, e.g. {html / 'heads.html'}.")
        must_be_writable(html.parent)
    if out is not None:
        if out.exists() and not out.is_dir():
            raise StorageError(f"--out {out} is a file. Give a folder.")
        if out.is_dir() and any(out.iterdir()) and not (out / "about.json").is_file():
            raise StorageError(f"--out {out} holds other files. Give a new folder.")
        must_be_writable(out.parent)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - start, 3)


def _store(runs: RunStore, found: Any, model: Any, spec: dict[str, Any], timings: dict[str, float]) -> Run:
    from interp.runs.provenance import model_hash

    with _timed(timings, "hash"):
        content = model_hash(model)
    title = f"heads of {found.about.get('model', spec['model'])}: {', '.join(found.kinds)}"
    return runs.save(found, spec=spec, model_hash=content, seed=spec["seed"], timings=timings, title=title)


def _say_where(run: Run | None, runs: RunStore | None, page: Path | None, out: Path | None) -> None:
    """How to open what was written, on standard error."""
    lines = [f"page: {page}"] if page else []
    lines += [f"saved in {out}"] if out else []
    if run is not None and runs is not None:
        place = ["--store", str(runs.path)]
        lines.append(f"stored as run {run.id} in {runs.path}. Open it:")
        lines.append(f"  {command_line('app', *place)}    in the browser")
        lines.append(f"  {command_line('runs', 'show', run.id, *place)}    here")
    if lines:
        print("\n".join(lines), file=sys.stderr)
