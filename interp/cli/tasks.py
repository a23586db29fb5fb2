"""`interp tasks`: which tasks there are, what one looks like for a model and how the model does, and its table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.output import AsJson, console, print_json, print_table

__all__ = ["tasks"]

tasks = typer.Typer(no_args_is_help=True, help="List, show and export the tasks that heads are tested on.")
Name = Annotated[str, typer.Argument(help="A task, e.g. ioi.")]
Model = Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")]
Corruption = Annotated[str | None, typer.Option(help="How the corrupt prompts differ; the task's first, if none.")]
Split = Annotated[str, typer.Option(help="select, report, or all for both.")]
Number = Annotated[int, typer.Option("--n", help="Items in each split.")]
Seed = Annotated[int, typer.Option(help="The same seed draws the same items.")]
Bos = Annotated[bool, typer.Option("--bos/--no-bos", help="Put a beginning-of-text token in front.")]
Cue = Annotated[str | None, typer.Option(help="Of coreference: gender, number or occupation.")]


@tasks.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """All tasks, with their corruptions and named places."""
    from interp.tasks.base import definitions

    found = list(definitions().values())
    if as_json:
        fields = ("name", "definition", "corruptions", "positions", "options")
        print_json([{name: getattr(one, name) for name in fields} for one in found])
        return
    rows = [[one.name, one.definition, ", ".join(one.corruptions), ", ".join(one.positions)] for one in found]
    print_table(["task", "what it asks", "corruptions", "named places"], rows, whole=["task"])


@tasks.command("show")
def show(
    name: Name,
    model: Model,
    corruption: Corruption = None,
    split: Split = "all",
    n: Number = 10,
    seed: Seed = 0,
    bos: Bos = True,
    cue: Cue = None,
    pairs: Annotated[int, typer.Option(help="How many prompts to print.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Some prompts of a task token by token, and how the model does on all that were drawn."""
    task, loaded = _load(name, model, corruption, split, n, seed, bos, cue)
    from interp.tasks.measure import measure

    measured = measure(task, loaded) if loaded.cfg.has_unembed else None
    about = {key: value for key, value in task.about.items() if key not in ("names", "same_relation_answers")}
    if as_json:
        print_json({"about": about, "measured": measured, "prompts": task.to_frame().to_dict("records")})
        return
    out = console()
    step = max(len(task) // max(pairs, 1), 1)
    for i in range(0, min(step * pairs, len(task)), step):
        out.print(task.show(i), end="\n\n", markup=False, soft_wrap=True)
    for key, value in about.items():
        out.print(f"{key}: {value}", markup=False, soft_wrap=True)
    if measured is None:
        print("this model gives no logits, so there is no accuracy to show", file=sys.stderr)
    else:
        _print_measured(measured)


@tasks.command("export")
def export(
    name: Name,
    model: Model,
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    corruption: Corruption = None,
    split: Split = "all",
    n: Number = 100,
    seed: Seed = 0,
    bos: Bos = True,
    cue: Cue = None,
) -> None:
    """Write a task as a table. interp.tasks.from_csv reads it, also when it has been edited."""
    task, _ = _load(name, model, corruption, split, n, seed, bos, cue)
    task.to_csv(out)
    print(out)


def _load(
    name: str, model: str, corruption: str | None, split: str, n: int, seed: int, bos: bool, cue: str | None
) -> tuple[Any, Any]:
    import interp
    from interp.tasks.base import definition

    definition(name)  # a wrong name is said before a model is loaded
    options: dict[str, Any] = {} if cue is None else {"cue": cue}
    loaded = interp.load(model)
    return interp.tasks.load(name, loaded, corruption, split=split, n=n, seed=seed, bos=bos, **options), loaded


def _print_measured(measured: dict[str, Any]) -> None:
    rows = [["all", "", measured]]
    rows += [["corrupt prompts", "", measured["corrupt"]]] if "corrupt" in measured else []
    rows += [
        [group, value, found]
        for group, values in measured.items()
        if isinstance(values, dict) and group != "corrupt"
        for value, found in values.items()
    ]
    table = [[a, b, found["n"], f"{found['accuracy']:.2f}", f"{found['mean']:+.2f}"] for a, b, found in rows]
    title = f"{measured['metric']} on {measured['n']} prompts of {measured['items']} items"
    print_table(["by", "", "prompts", "accuracy", "mean"], table, title=title, right=["prompts", "accuracy", "mean"])
