"""`interp train`: a small model of a known recipe, with checkpoints to watch heads form in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.output import AsJson, print_json, print_table
from interp.cli.progress import progress
from interp.errors import InputError

__all__ = ["RECIPES", "train"]

# Said here, too, so that --help needs no torch.
RECIPES = (
    "induction",
    "induction-one-layer",
    "induction-fixed-period",
    "facts",
    "facts-in-context",
    "coreference",
    "copy",
    "reversal",
    "reversal-additive",
    "reversal-lengths",
)


def train(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    out: Annotated[Path, typer.Option(help="Folder of the training; where it holds this one unfinished, go on.")],
    seed: Annotated[int, typer.Option(help="Of the first weights and the batches.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Updates; by default the recipe's own number.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; by default the recipe's own.")] = None,
    per_octave: Annotated[int, typer.Option(help="Checkpoints for each doubling of the steps.")] = 4,
    ablate: Annotated[
        list[str] | None, typer.Option(help='Head whose output is 0 while the model learns: "0.2", or "0.*".')
    ] = None,
    clamp: Annotated[
        list[str] | None, typer.Option(help='Head with a given pattern: "0.1=previous_token", "0.1=uniform".')
    ] = None,
    hold_from: Annotated[int, typer.Option(help="First update in which --ablate and --clamp hold.")] = 0,
    hold_until: Annotated[int | None, typer.Option(help="Update in which they hold no more; by default none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a small model whose circuit is known; keeps checkpoints on a log schedule, and survives a kill."""
    from interp import dynamics

    asked = [(head, "zero") for head in ablate or ()] + [_clamped(text) for text in clamp or ()]
    held = [dynamics.Intervention(head, action, hold_from, hold_until) for head, action in asked]  # type: ignore[arg-type]
    with progress() as report:
        done = dynamics.train(
            recipe, out=out, seed=seed, steps=steps, lr=lr, per_octave=per_octave, interventions=held, progress=report
        )
    found = done.held_out()
    if as_json:
        print_json({"folder": str(done.folder), "asked": dict(done.asked), "held_out": found.to_dict("records")})
        return
    groups = list(dict.fromkeys(found["group"]))
    columns = ["step", *(f"{what} {group}" for group in groups for what in ("loss", "accuracy"))]
    rows = [
        [one.step, *(_cell(one.held_out[group].get(what)) for group in groups for what in ("loss", "accuracy"))]
        for one in done
    ]
    print_table(columns, rows, title=repr(done), right=columns)


def _clamped(text: str) -> tuple[str, str]:
    head, sign, pattern = text.partition("=")
    if not sign or pattern not in ("previous_token", "uniform"):
        raise InputError(f"--clamp {text!r} says no pattern. Write HEAD=previous_token or HEAD=uniform.")
    return head, pattern


def _cell(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
