"""The command line: a few lines over the public API for each command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import InterpError

if TYPE_CHECKING:
    from interp.results import HeadScores

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_debug = False


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Find out which attention heads do what, causally."""
    global _debug
    _debug = debug


@app.command()
def heads(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of head; repeat for several.")] = None,
    n: Annotated[int, typer.Option(help="Prompts of each data set.")] = 24,
    top: Annotated[int, typer.Option(help="Heads of each kind to ablate.")] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the results in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON instead.")] = False,
) -> None:
    """Find heads in a model, and what ablating them costs."""
    import interp
    from interp.heads.base import finder

    kinds = kind or ["previous_token", "induction"]
    for one in kinds:
        finder(one)
    loaded = interp.load(model)
    with _progress() as report:
        found = interp.find_heads(loaded, kinds, n=n, top=top, seed=seed, progress=report)
    if as_json:
        print(
            json.dumps({"heads": json.loads(found.frame.to_json(orient="records") or "[]"), "about": dict(found.about)})
        )
    else:
        _print_heads(found)
    if out is not None:
        print(f"saved in {found.save(out)}", file=sys.stderr)
    if html is not None:
        print(f"page: {found.to_html(html)}", file=sys.stderr)


def _print_heads(found: HeadScores) -> None:
    """The table that people read: each kind's heads, then what ablating them together costs."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind in found.kinds:
        table = Table(title=f"{kind}: {found.about['definitions'][kind]}", title_justify="left")
        rows = found.summary(kind)
        for name in rows.columns:
            table.add_column(name, justify="left" if name == "verdict" else "right")
        for row in rows.itertuples(index=False):
            table.add_row(*row)
        console.print(table)
    loss = found.about["loss"]
    console.print(
        f"Loss on copied tokens: {loss['copies']:.2f} nats (fresh tokens: {loss['fresh tokens']:.2f}). "
        "With the top heads ablated together:"
    )
    for row in found.sets.to_dict("records"):
        console.print(
            f"  {row['kind']}: {row['loss_ablated']:.2f} (+{row['effect']:.2f}, 95% interval "
            f"{row['effect_low']:.2f} to {row['effect_high']:.2f}); random sets of the same layers "
            f"+{row['random_mean']:.2f} (at most +{row['random_max']:.2f}), p = {row['p']:.2g}",
            highlight=False,
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with rate and time left on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def main() -> None:
    """Run a command. A user's mistake prints one sentence and exits with 2; Ctrl-C exits with 130."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except InterpError as error:
        if _debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        complaint = getattr(error, "format_message", None)  # typer's own, about arguments
        if complaint is None:
            raise
        print(f"error: {complaint()}", file=sys.stderr)
        sys.exit(2)
