"""All commands together, and what becomes of an error: one sentence, and an exit code that says whose it was."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from importlib.metadata import entry_points
from typing import Annotated

import typer

from interp.cli.atlas import atlas, compare
from interp.cli.attribute import attribute
from interp.cli.browser import open_app
from interp.cli.emergence import emergence
from interp.cli.evaluate import evaluate
from interp.cli.explain import explain
from interp.cli.heads import heads
from interp.cli.inside import composition, cues, graph, ov
from interp.cli.lens import lens, tune
from interp.cli.models import models
from interp.cli.patch import patch
from interp.cli.report import report
from interp.cli.runs import runs
from interp.cli.tasks import tasks
from interp.cli.train import train
from interp.cli.walk import walkthrough
from interp.errors import InterpError

__all__ = ["app", "main"]

OK, FAILED, MISTAKE, STOPPED = 0, 1, 2, 130
_DEBUG = "--debug"
# What a user meets but did not do: the rest of an InterpError is theirs to mend.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("models")(models)
app.command("heads")(heads)
app.command("patch")(patch)
app.command("lens")(lens)
app.command("tune")(tune)
app.command("attribute")(attribute)
app.command("explain")(explain)
app.command("evaluate")(evaluate)
app.command("report")(report)
app.command("atlas")(atlas)
app.command("compare")(compare)
app.command("train")(train)
app.command("emergence")(emergence)
app.command("ov")(ov)
app.command("composition")(composition)
app.command("graph")(graph)
app.command("cues")(cues)
app.command("walkthrough")(walkthrough)
app.add_typer(runs, name="runs")
app.add_typer(tasks, name="tasks")
app.command("app")(open_app)


def _take_more() -> None:
    """Add the commands of packages that stand above interp, such as probes; one that cannot be loaded is named."""
    known = {one.name for one in app.registered_commands}
    for one in sorted(entry_points(group="interp.commands")):
        if one.name in known:
            continue
        try:
            app.command(one.name)(one.load())
        except (ImportError, AttributeError) as error:
            print(f"The command {one.name} ({one.value}) cannot be loaded: {error}", file=sys.stderr)


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error; may stand anywhere.")] = False):
    """Find out which attention heads do what, causally."""


def main() -> None:
    """Run a command. Exits with 2 for a user's mistake, 130 after Ctrl-C, 1 for anything else that went wrong."""
    _take_more()
    arguments, debug = _without_debug(sys.argv[1:])
    try:
        code = app(args=arguments, prog_name="interp", standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as stop:
        code = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except BrokenPipeError:  # `interp runs list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except InterpError as error:
        code = _say(f"error: {error}", FAILED if _is_the_machines(error) else MISTAKE, debug=debug)
    except Exception as error:
        complaint = getattr(error, "format_message", None)  # typer's own, about arguments
        if complaint is not None:  # empty where it has shown the help instead
            code = _say(f"error: {said}", MISTAKE, debug=debug) if (said := complaint()) else MISTAKE
        else:
            what = f"error: {type(error).__name__}: {error}. This is a fault of the program; --debug shows where."
            code = _say(what, FAILED, debug=debug)
    if code == STOPPED:  # which typer may have made of Ctrl-C itself
        _say("stopped", STOPPED, debug=debug)
    if isinstance(code, int) and code != OK:
        sys.exit(code)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """Takes `--debug` out wherever it stands, also behind the command, up to a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [one for one in arguments[:end] if one != _DEBUG]
    return kept + arguments[end:], len(kept) < end


def _say(sentence: str, code: int, *, debug: bool) -> int:
    if debug and sys.exc_info()[0]:
        traceback.print_exc()
    table = isinstance(sys.exc_info()[1], InterpError)  # prompts shown token by token keep their lines
    print(sentence if table else " ".join(sentence.split()), file=sys.stderr)
    return code


def _is_the_machines(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            return True
        error = error.__cause__
    return False
