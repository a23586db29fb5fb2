"""What `interp atlas` and `interp report` share: their options, and the way from a search of all kinds to what is
printed, written and stored."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import command_line
from interp.cli.progress import progress
from interp.errors import InputError
from interp.runs.store import RunStore, must_be_writable

__all__ = ["Html", "Items", "Keep", "Kinds", "Markdown", "Model", "Rigor", "Seed", "Store", "Whole"]

Model = Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Kind of head; repeat for several. All, if none.")]
Rigor = Annotated[str, typer.Option(help="quick: 32 items; full: 100, candidates by exact effect.")]
Items = Annotated[int | None, typer.Option(help="Items of each task and split, if not as rigor says.")]
Seed = Annotated[int, typer.Option(help="Same seed, same numbers.")]
Keep = Annotated[Path | None, typer.Option(help="Folder for what is finished; the same command goes on from there.")]
Store = Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")]
Html = Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")]
Markdown = Annotated[Path | None, typer.Option(help="Also write Markdown here.")]


@dataclass(frozen=True)
class Whole:
    """One call: what is asked of which model, and where the outcome goes."""

    model: str
    kind: list[str] | None
    rigor: str
    n: int | None
    seed: int
    keep: Path | None
    store: Path | None
    html: Path | None
    markdown: Path | None

    def run(
        self, what: str, title: Callable[[Any], str], show: Callable[[Any, str | None], None], more: Any = None
    ) -> None:
        """Call `interp.WHAT` (with `more` settings), write and store what it gives under a `title`, and `show` it with
        the run's id. Whatever can be refused is refused before the model is loaded."""
        runs = None if self.store is None else RunStore(self.store)
        check_places(runs, self.html, None)
        _check_markdown(self.markdown)
        if self.rigor not in ("quick", "full"):
            raise InputError(f"--rigor is {self.rigor!r}. Choose quick or full.")
        kinds = _known(self.kind)
        import interp
        from interp.atlas.whole import WHOLE

        kept = self.keep or _default_keep()
        timings: dict[str, float] = {}
        settings = {"rigor": self.rigor, "n": self.n, "seed": self.seed}
        with _resumable(kept):
            with timed(timings, "load"):
                loaded = interp.load(self.model)
            with timed(timings, what), progress(WHOLE) as said:
                made = getattr(interp, what)(loaded, kinds, **settings, keep=kept, progress=said, **(more or {}))
        run, page = None, None
        try:
            if self.markdown is not None:
                made.to_markdown(self.markdown)
            if self.html is not None:
                page = made.to_html(self.html)
            if runs is not None:
                spec = {"model": self.model, "kinds": kinds, **settings}
                run = store_run(runs, made, loaded, spec, timings, title(made))
        finally:  # what took so long is shown, also where it could not be kept
            show(made, run.id if run else None)
        if self.markdown is not None:
            print(f"markdown: {self.markdown}", file=sys.stderr)
        say_where(run, runs, page, None)


def _check_markdown(path: Path | None) -> None:
    """Raise for a Markdown file that cannot be written, before any work is done."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"--markdown {path} is a folder. Give a file, e.g. {path / 'report.md'}.")
    must_be_writable(path.parent)


def _known(kinds: list[str] | None) -> str | list[str]:
    """All, if none; an unknown kind is refused before anything is loaded."""
    from interp.heads.base import finder

    return [finder(one).name for one in dict.fromkeys(kinds)] if kinds else "all"


def _default_keep() -> Path:
    """A folder beside the converted weights."""
    from interp.families.converted import cache_folder

    return cache_folder().parent / "reports"


@contextmanager
def _resumable(kept: Path) -> Iterator[None]:
    """Say on Ctrl-C where what was finished is kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"What was finished is kept in {kept}. Go on with the same command:", file=sys.stderr)
        print(f"  {command_line(*sys.argv[1:])}", file=sys.stderr)
        raise
