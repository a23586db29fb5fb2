"""What a sweep found, in tables: a row per job, and one page that holds them all and needs nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from interp.batch.folder import SweepFolder
from interp.batch.status import status
from interp.errors import StorageError
from interp.figures.document import html_sections
from interp.figures.page import figure_html, write_page
from interp.files import read_json, write_atomically, write_text
from interp.runs.manifest import MANIFEST

__all__ = ["found", "jobs", "write_csv", "write_html", "write_parquet"]

_JOB = ["key", "model", "revision", "task", "analysis", "options", "seed"]
_FIGURES = 12  # curves over revisions that a page shows; the table has the rest


def jobs(folder: SweepFolder) -> pd.DataFrame:
    """A row per job: key (its run's id, too), model, revision, task, analysis, options (those that are not the
    default, as text), seed, state ("done", "failed", "running", "waiting"), seconds, failure, message."""
    done, failed, running = set(folder.done()), folder.failures(), folder.running()
    rows = []
    for key in folder.specs:
        row = _of(folder, key)
        state = "done" if key in done else "failed" if key in failed else "running" if key in running else "waiting"
        row |= {"state": state, "seconds": float("nan"), "failure": "", "message": ""}
        if state == "done":
            timings = _manifest(folder, key).get("timings", {})
            row["seconds"] = float(sum(timings.values())) if timings else float("nan")
        elif state == "failed":
            row |= {"seconds": failed[key].seconds, "failure": failed[key].kind, "message": failed[key].message}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*_JOB, "state", "seconds", "failure", "message"])


def found(folder: SweepFolder) -> pd.DataFrame:
    """A row per finished job and number that its analysis says in brief: the columns of the job, name, value."""
    rows = []
    for key in folder.done():
        numbers = _manifest(folder, key).get("spec", {}).get("found", {})
        rows += [{**_of(folder, key), "name": name, "value": float(value)} for name, value in numbers.items()]
    return pd.DataFrame(rows, columns=[*_JOB, "name", "value"])


def write_html(folder: SweepFolder, path: str | os.PathLike[str]) -> Path:
    """One page: how the sweep stands, what was found, what failed and why."""
    every, numbers, stands = jobs(folder), found(folder), status(folder)
    name = folder.path.resolve().name
    parts: list[Any] = [("text", f"{stands}."), ("text", _asked(folder))]
    sections = html_sections(parts)
    if len(numbers):
        sections += html_sections([("2", "What was found")])
        sections += [figure_html(one, f"curve{i}") for i, one in enumerate(_curves(numbers))]
        for analysis, rows in numbers.groupby("analysis", sort=False):
            sections += html_sections([("3", str(analysis)), ("table", _wide(rows))])
    bad = every.loc[every["state"] == "failed", [*_JOB[1:5], "seed", "failure", "message", "key"]]
    if len(bad):
        sections += html_sections([("2", "What failed"), ("table", bad)])
    times = (
        every.loc[every["state"] == "done"].groupby("analysis", sort=False)["seconds"].agg(["count", "median", "sum"])
    )
    if len(times):
        sections += html_sections([("2", "Seconds"), ("table", times.reset_index())])
    return write_page(path, f"Sweep {name}", sections, with_plotly=bool(len(numbers)))


def write_parquet(folder: SweepFolder, path: str | os.PathLike[str]) -> Path:
    """What was found, joined with every job: jobs without numbers have one row without any."""
    table = _together(folder).astype({"revision": "str"})
    write_atomically(path, lambda part: table.to_parquet(part))
    return Path(path)


def write_csv(folder: SweepFolder, path: str | os.PathLike[str]) -> Path:
    """The table of `write_parquet` as CSV."""
    write_text(path, _together(folder).to_csv(index=False))
    return Path(path)


def _together(folder: SweepFolder) -> pd.DataFrame:
    return jobs(folder).merge(found(folder)[["key", "name", "value"]], on="key", how="left")


def _of(folder: SweepFolder, key: str) -> dict[str, Any]:
    from interp.batch.analyses import analyses

    spec = folder.specs[key]
    known = analyses().get(spec.analysis)
    default = {} if known is None else known.options
    options = ", ".join(f"{name} {value}" for name, value in spec.options.items() if value != default.get(name))
    more = {"model": spec.model, "revision": spec.revision, "task": spec.task_name, "analysis": spec.analysis}
    return {"key": key, **more, "options": options, "seed": spec.seed}


def _manifest(folder: SweepFolder, key: str) -> dict[str, Any]:
    try:
        held = read_json(folder.store.path / key / MANIFEST)
    except StorageError:
        return {}
    return held if isinstance(held, dict) else {}


def _asked(folder: SweepFolder) -> str:
    asked = folder.sweep.to_dict()
    return "; ".join(f"{name}: {', '.join(_said(one) for one in given)}" for name, given in asked.items() if given)


def _said(one: Any) -> str:
    return " ".join(f"{value}" for value in one.values()) if isinstance(one, dict) else str(one)


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model, revision, task and options; of several seeds the mean, and how many."""
    by = ["model", "revision", "task", "options"]
    table = rows.assign(revision=rows["revision"].map(lambda one: "" if one is None or one != one else one))
    wide = table.pivot_table(index=by, columns="name", values="value", aggfunc="mean", sort=False)
    wide = wide.assign(seeds=table.groupby(by, sort=False)["seed"].nunique()).reset_index()
    wide.columns.name = None
    return wide.drop(columns=[name for name in ("revision", "task", "options") if not wide[name].astype(bool).any()])


def _curves(numbers: pd.DataFrame) -> list[Any]:
    """Numbers over the steps of trainings, one figure for each analysis, task and name."""
    from interp.figures.curves import curves

    steps = numbers.loc[numbers["revision"].map(lambda one: isinstance(one, int | float) and one == one)]
    figures = []
    for (analysis, task, options, name), rows in steps.groupby(["analysis", "task", "options", "name"], sort=False):
        if rows["revision"].nunique() < 2:
            continue
        title = " ".join(str(one) for one in (analysis, task, options) if one)
        lines = {
            f"{model}, seed {seed}": (one["revision"].astype(float).tolist(), one["value"].tolist())
            for (model, seed), one in rows.sort_values("revision").groupby(["model", "seed"], sort=False)
        }
        figures.append(curves(lines, title=f"{title}: {name}", x="step", y=str(name)))
    return figures[:_FIGURES]
