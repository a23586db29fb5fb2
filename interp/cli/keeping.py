"""Where a command keeps what it found: checked before the work, written after it, and said how to open it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interp.cli.output import command_line
from interp.errors import InputError, StorageError
from interp.runs.store import Run, RunStore, must_be_writable

__all__ = ["check_places", "say_where", "store_run", "timed"]


def check_places(runs: RunStore | None, html: Path | None, out: Path | None) -> None:
    """Raise for a place where nothing can be written, before any work is done."""
    if runs is not None:
        runs.must_be_writable()
    if html is not None:
        if html.is_dir():
            raise InputError(f"--html {html} is a folder. Give a file, e.g. {html / 'page.html'}.")
        must_be_writable(html.parent)
    if out is not None:
        if out.exists() and not out.is_dir():
            raise StorageError(f"--out {out} is a file. Give a folder.")
        if out.is_dir() and any(out.iterdir()) and not (out / "about.json").is_file():
            raise StorageError(f"--out {out} holds other files. Give a new folder.")
        must_be_writable(out.parent)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds that a stage takes."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings[stage] = round(time.perf_counter() - start, 3)


def store_run(
    runs: RunStore, found: Any, model: Any, spec: Mapping[str, Any], timings: dict[str, float], title: str
) -> Run:
    """Store results with the hash of their model."""
    from interp.runs.provenance import model_hash

    with timed(timings, "hash"):
        content = model_hash(model)
    return runs.save(found, spec=spec, model_hash=content, seed=spec.get("seed"), timings=timings, title=title)


def say_where(run: Run | None, runs: RunStore | None, page: Path | None, out: Path | None) -> None:
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
