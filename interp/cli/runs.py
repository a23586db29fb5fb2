"""`interp runs`: list, show, check, export and delete what is stored. No model and no torch is loaded for it."""

from __future__ import annotations

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
from interp.runs.manifest import RunInfo
from interp.runs.store import Run, RunStore

__all__ = ["runs"]

runs = typer.Typer(no_args_is_help=True, help="List, show, check, export and delete stored runs.")
Store = Annotated[Path, typer.Option("--store", help="The folder of runs.")]
Id = Annotated[str, typer.Argument(help="A run's id, or a beginning that only it has.")]
_STORE = Path("runs")


@runs.command("list")
def list_runs(store: Store = _STORE, as_json: AsJson = False) -> None:
    """All runs, newest first; damaged ones with the reason."""
    found = RunStore(store).list()
    if as_json:
        print_json([info.to_dict() for info in found])
    elif not found:
        make = command_line("heads", "smollm2-135m", "--store", str(store))
        print(
            f"no runs in {store}{'' if store.exists() else ', which does not exist'}. Make one: {make}", file=sys.stderr
        )
    else:
        rows = [[info.id, _when(info.created), info.title, _size(info.bytes), _status(info)] for info in found]
        columns = ["id", "created", "title", "size", "status"]
        print_table(columns, rows, whole=["id", "created", "size"], right=["size"])


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
    id: Id,
    path: Annotated[Path | None, typer.Argument(help="The zip file, or a folder for it. ID.zip, if none.")] = None,
    store: Store = _STORE,
    as_json: AsJson = False,
) -> None:
    """Write a run as one zip file. Unpacked in a folder of runs, it is a run again."""
    runs = RunStore(store)
    name = runs.info(id).id
    target = runs.export(name, path or Path(f"{name}.zip"))
    print_json({"id": name, "path": str(target)}) if as_json else print(target)


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
