"""`interp runs`: list, show, ask, check, export, import and delete what is stored, without a model and torch."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.output import (
    AsJson,
    command_line,
    console,
    effects_as_json,
    print_effects,
    print_heads,
    print_json,
    print_table,
    scores_as_json,
    shown,
)
from interp.cli.results import print_explanation, print_result, result_as_json
from interp.cli.showing import print_said, records_of
from interp.errors import InputError
from interp.files import write_atomically
from interp.runs.manifest import RunInfo
from interp.runs.store import Run, RunStore

__all__ = ["runs"]

runs = typer.Typer(no_args_is_help=True, help="List, show, ask, check, export, import and delete stored runs.")
Store = Annotated[Path, typer.Option("--store", help="The folder of runs.")]
Id = Annotated[str, typer.Argument(help="A run's id, or a beginning that only it has.")]
_STORE = Path("runs")
_ROWS = 50  # of a table that are printed


@runs.command("list")
def list_runs(
    store: Store = _STORE,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind of results, e.g. heads.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only models with this in their name.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only tasks with this in their name.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only from this day or time (UTC) on.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag: NAME=TEXT. Repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """All runs, newest first, or those asked for; damaged ones with the reason."""
    asked: dict[str, Any] = {"kind": kind, "model": model, "task": task, "since": since, "tags": _tags(tag or [])}
    found = RunStore(store).list(**asked)
    if as_json:
        print_json([info.to_dict() for info in found])
    elif not found and any(asked.values()):
        print(f"no such runs in {store}", file=sys.stderr)
    elif not found:
        make = command_line("heads", "smollm2-135m", "--store", str(store))
        print(
            f"no runs in {store}{'' if store.exists() else ', which does not exist'}. Make one: {make}", file=sys.stderr
        )
    else:
        rows = [[info.id, _when(info.created), info.title, _size(info.bytes), _status(info)] for info in found]
        columns = ["id", "created", "title", "size", "status"]
        print_table(columns, rows, whole=["id", "created", "size"], right=["size"])


@runs.command("table")
def table(
    query: Annotated[str, typer.Argument(help="A SELECT over heads, heads_sets, effects, …, runs; or a kind.")],
    store: Store = _STORE,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write this CSV file instead; - prints it.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write this Parquet file instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """One table over all runs, by SQL. `SELECT run, layer, head, score FROM heads WHERE verdict = 'induction'`"""
    runs = RunStore(store)
    found = runs.frame(kind=query) if query.isidentifier() else runs.frame(query)
    for name, reason in found.attrs["left_out"].items():
        print(f"left out {name}: {shown(reason)}", file=sys.stderr)
    if csv == Path("-"):
        found.to_csv(sys.stdout, index=False)
    elif csv is not None:
        write_atomically(csv, lambda part: found.to_csv(part, index=False) and None)
    if parquet is not None:
        found.attrs = {}
        write_atomically(parquet, lambda part: found.to_parquet(part, index=False))
    if as_json:
        print_json(json.loads(found.to_json(orient="records", date_format="iso") or "[]"))
    elif csv is None and parquet is None:
        print_table(list(found.columns), found.head(_ROWS).itertuples(index=False))
        if len(found) > _ROWS:
            print(f"{_ROWS} of {len(found):,} rows; --csv, --parquet and --json have all", file=sys.stderr)


@runs.command("show")
def show(id: Id, store: Store = _STORE, as_json: AsJson = False) -> None:
    """How a run was made, and what it found."""
    run = RunStore(store).open(id)
    results = run.results()
    if as_json:
        print_json({"manifest": run.manifest, **_results_as_json(run.info.kind, results)})
        return
    _print_manifest(run)
    if run.info.kind == "heads":
        print_heads(results)
    elif run.info.kind == "effects":
        print_effects(results)
    elif run.info.kind == "explanation":
        print_explanation(results)
    elif run.info.kind in ("composition", "head_table"):
        print_result(results)
    else:
        print_said(results)


@runs.command("check")
def check(
    id: Annotated[str | None, typer.Argument(help="A run; all, if none.")] = None,
    store: Store = _STORE,
    as_json: AsJson = False,
) -> None:
    """Read every byte and compare with the manifests' hashes. Exits with 1 if a file is missing or changed."""
    found = RunStore(store).check(id)
    if as_json:
        print_json(found)
    elif not found:
        print("every file is as it was written")
    for name, problems in ({} if as_json else found).items():
        print(f"{name}: {shown('; '.join(problems))}")
    if found:
        raise typer.Exit(1)


@runs.command("export")
def export(
    names: Annotated[
        list[str], typer.Argument(metavar="ID... [FILE]", help="Runs, then the zip file or a folder; ID.zip, if none.")
    ],
    store: Store = _STORE,
    as_json: AsJson = False,
) -> None:
    """Write runs as one zip file. Unpacked in a folder of runs, or by `interp runs import`, they are runs again."""
    runs = RunStore(store)
    *ids, last = names
    if ids and (last.endswith(".zip") or "/" in last or Path(last).is_dir()):
        path = Path(last)
    else:
        ids, path = names, None
    found = [runs.info(one).id for one in ids]
    target = runs.export(found, path or Path(f"{found[0]}.zip" if len(found) == 1 else "runs.zip"))
    said = {"id": found[0]} if len(found) == 1 else {"ids": found}
    print_json({**said, "path": str(target)}) if as_json else print(target)


@runs.command("import")
def import_runs(
    path: Annotated[Path, typer.Argument(help="A zip file that `interp runs export` wrote.")],
    store: Store = _STORE,
    as_json: AsJson = False,
) -> None:
    """Take in the runs of a zip file, if every byte is as it was written."""
    found = RunStore(store).import_archive(path)
    if as_json:
        print_json(found)
    for name, what in ({} if as_json else found).items():
        print(f"{name}: {'added' if what == 'added' else 'was here already'}")


@runs.command("delete")
def delete(
    ids: Annotated[list[str], typer.Argument(help="Ids, or beginnings of them.")],
    store: Store = _STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete runs for good."""
    runs = RunStore(store)
    doomed = {info.id: info for info in map(runs.info, ids)}
    if not yes and not _agreed(list(doomed.values())):
        print("nothing was deleted", file=sys.stderr)
        raise typer.Exit(1)
    for name in doomed:
        runs.delete(name)
        if not as_json:
            print(f"deleted {name}")
    if as_json:
        print_json({"deleted": list(doomed)})


def _tags(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, mark, text = one.partition("=")
        if not mark or not name:
            raise InputError(f"{one!r} is no tag. Give it as NAME=TEXT, e.g. sweep=first.")
        found[name] = text
    return found


def _agreed(doomed: list[RunInfo]) -> bool:
    for info in doomed:
        print(f"{info.id}  {_when(info.created)}  {shown(info.title)}", file=sys.stderr)
    question = "Delete this run for good?" if len(doomed) == 1 else f"Delete these {len(doomed)} runs for good?"
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise InputError("Nothing was deleted: there is nobody to ask. Add --yes to delete without asking.") from None


def _print_manifest(run: Run) -> None:
    manifest, info = run.manifest, run.info
    made = found if isinstance(found := manifest.get("provenance"), dict) else {}
    facts: dict[str, Any] = {
        "id": info.id,
        "title": info.title,
        "created": _when(info.created),
        "model": f"{info.model} (content {info.model_hash[:12] if info.model_hash else 'not hashed'})",
        "arguments": _listed(manifest.get("spec")),
        "seed": info.seed,
        "seconds": _listed(manifest.get("timings")),
        "made with": _listed({name: value for name, value in made.items() if name != "versions"}),
        "versions": _listed(made.get("versions")),
        "folder": f"{run.folder} ({_size(info.bytes)})",
    }
    out = console()
    for name, value in facts.items():
        out.print(f"{name + ':':<11}{shown(value)}", markup=False, soft_wrap=True)


def _listed(table: Any) -> str:
    if not isinstance(table, dict) or not table:
        return "–"
    return ", ".join(
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in table.items()
    )


def _results_as_json(kind: str | None, results: Any) -> dict[str, Any]:
    if kind == "heads":
        return scores_as_json(results)
    if kind == "effects":
        return effects_as_json(results)
    if kind in ("explanation", "composition", "head_table"):
        return result_as_json(results)
    return records_of(results)


def _when(time: datetime | None) -> str:
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _size(size: int | None) -> str:
    if size is None:
        return "–"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _status(info: RunInfo) -> str:
    return info.status if info.reason is None else f"{info.status}: {info.reason}"
