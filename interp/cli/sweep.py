"""`interp sweep`: plan, run, look at, retry and report many analyses of many checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.output import AsJson, command_line, console, print_json, print_table, shown
from interp.cli.progress import progress
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.batch import Status

__all__ = ["sweep"]

sweep = typer.Typer(
    no_args_is_help=True, help="Many models, checkpoints, tasks and analyses: resumable, on any engine."
)
File = Annotated[Path, typer.Argument(help="A sweep as TOML, or the folder of one that was begun.")]
Out = Annotated[Path | None, typer.Option(help="The sweep's folder; by default beside the file, of its name.")]
Executor = Annotated[str, typer.Option(help="local, slurm or ray.")]
Workers = Annotated[int | None, typer.Option(help="Processes (of slurm: jobs at once); by default as many as fit.")]
Memory = Annotated[float | None, typer.Option(help="GB that each worker may take; a job that wants more fails.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the executor, NAME=VALUE; repeat for several.")
]
_SHOWN = 20


@sweep.command("plan")
def plan_sweep(file: File, out: Out = None, as_json: AsJson = False) -> None:
    """List the jobs, and what they will cost. Nothing is loaded or written."""
    from interp.batch.cost import costs
    from interp.batch.folder import SweepFolder
    from interp.batch.run import place_of
    from interp.batch.spec import Sweep

    if file.is_dir():
        folder = SweepFolder.open(file)
    else:
        asked = Sweep.from_toml(file)
        folder = SweepFolder(out or place_of(file), asked, {one.key(): one for one in asked.jobs()})
    known, done = costs(folder), set(folder.done())
    left = [key for key in folder.specs if key not in done]
    if as_json:
        rows = [
            {"key": key, **spec.to_dict(), **vars(known[key]), "done": key in done}
            for key, spec in folder.specs.items()
        ]
        print_json({"folder": str(folder.path), "jobs": rows})
        return
    columns = ["job", "model", "revision", "task", "analysis", "seed", "seconds", "from", "GB", "done"]
    rows = []
    for key, spec in list(folder.specs.items())[:_SHOWN]:
        cost = known[key]
        row = [key[:8], spec.model, spec.revision, spec.task_name or None, spec.analysis, spec.seed]
        rows.append([*row, f"{cost.seconds:.1f}", cost.by, f"{cost.bytes / 1e9:.1f}", "yes" if key in done else None])
    print_table(columns, rows, whole=["job"], right=["seed", "seconds", "GB"])
    out_to = console()
    if len(folder.specs) > _SHOWN:
        out_to.print(f"… and {len(folder.specs) - _SHOWN} more (--json lists all)", markup=False)
    total = sum(known[key].seconds for key in left)
    most = max((known[key].bytes for key in left), default=0)
    said = f"{len(folder.specs)} jobs, {len(done)} done; about {total:,.0f} s on one thread for the rest"
    out_to.print(
        f"{said}, {most / 1e9:.1f} GB a process. Estimates by sizes tell the order of magnitude.", markup=False
    )


@sweep.command("run")
def run_sweep(
    file: File,
    out: Out = None,
    executor: Executor = "local",
    workers: Workers = None,
    memory: Memory = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Do what is neither done nor failed; go on after a kill with the same command. Exits with 1 if a job failed."""
    from interp.batch.run import run

    with progress() as report:
        found = run(file, out, executor=executor, progress=report, **_options(workers, memory, settings))
    _end(found, as_json)


@sweep.command("retry")
def retry_sweep(
    file: File,
    out: Out = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only those that failed so: error, memory, killed, load, time.")
    ] = None,
    job: Annotated[list[str] | None, typer.Option(help="Only this job, by the beginning of its key; repeat.")] = None,
    executor: Executor = "local",
    workers: Workers = None,
    memory: Memory = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Do failed jobs again, and only those. Exits with 1 if a job of the sweep failed."""
    from interp.batch.run import retry

    with progress() as report:
        options = _options(workers, memory, settings)
        found = retry(file, out, kinds=kind or (), keys=job or (), executor=executor, progress=report, **options)
    _end(found, as_json)


@sweep.command("status")
def status_of(file: File, out: Out = None, as_json: AsJson = False) -> None:
    """What is done, what failed and why, who is at what, and how long it will take. Exits with 1 if a job failed."""
    from interp.batch.status import status

    _end(status(_opened(file, out)), as_json)


@sweep.command("report")
def report_on(
    file: File,
    out: Out = None,
    html: Annotated[Path | None, typer.Option(help="The page; report.html in the sweep's folder, if none.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Also write the table of all numbers here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="And as CSV here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what was found so far as one self-contained page, and as tables."""
    from interp.batch import report

    folder = _opened(file, out)
    written = {"html": report.write_html(folder, html or folder.path / "report.html")}
    if parquet is not None:
        written["parquet"] = report.write_parquet(folder, parquet)
    if csv is not None:
        written["csv"] = report.write_csv(folder, csv)
    if as_json:
        print_json({name: str(path) for name, path in written.items()})
        return
    for name, path in written.items():
        print(f"{name}: {path}")


def _opened(file: Path, out: Path | None) -> Any:
    """The folder of a sweep that was begun, by itself or by its file."""
    from interp.batch.folder import SweepFolder
    from interp.batch.run import place_of

    return SweepFolder.open(file if file.is_dir() else out or place_of(file))


def _options(workers: int | None, memory: float | None, settings: list[str] | None) -> dict[str, Any]:
    """Options of the executor; numbers, true and false are read as such."""
    options: dict[str, Any] = {} if workers is None else {"workers": workers}
    if memory is not None:
        options["memory"] = int(memory * 1e9)
    for one in settings or ():
        name, mark, value = one.partition("=")
        if not mark:
            raise InputError(f"--set {one} says no value. Write --set NAME=VALUE.")
        options[name] = _number(value)
    return options


def _number(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _end(found: Status, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
    else:
        print(found)
        for key, one in list(found.failed.items())[:_SHOWN]:
            print(f"  {key[:8]} {one.kind}: {shown(' '.join(one.message.split()))[:300]}")
        if len(found.failed) > _SHOWN:
            print(f"  … and {len(found.failed) - _SHOWN} more")
        if found.failed:
            print(f"try them again: {command_line('sweep', 'retry', found.folder)}")
        if found.done:
            print(f"look at what is there: {command_line('app', '--store', str(Path(found.folder) / 'store'))}")
    if found.failed:
        raise typer.Exit(1)
