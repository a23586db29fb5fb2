"""`interp walkthrough`: from who looks at the subject to what writes the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.asking import Html, ModelName, Out, Store, ask
from interp.cli.output import AsJson, command_line
from interp.cli.showing import print_frame, print_said, records_of
from interp.errors import InputError
from interp.files import write_text

__all__ = ["walkthrough"]

_TEXT, _ANSWER, _FOIL, _CORRUPT = "The capital of France is", " Paris", " London", "The capital of England is"


def walkthrough(
    model: ModelName,
    text: Annotated[str, typer.Option(help="The prompt that is walked.")] = _TEXT,
    answer: Annotated[str, typer.Option(help="What it should be followed by.")] = _ANSWER,
    foil: Annotated[str, typer.Option(help="The answer to the other subject.")] = _FOIL,
    corrupt: Annotated[str, typer.Option(help="The prompt with another subject, as long in tokens.")] = _CORRUPT,
    others: Annotated[
        Path | None, typer.Option(help="CSV of other pairs that test the claims, with a column pos:subject.")
    ] = None,
    capitals: Annotated[
        bool | None, typer.Option("--capitals/--no-capitals", help="Test on other countries; the default's own way.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Other countries.")] = 16,
    seed: Annotated[int, typer.Option(help="Which countries.")] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Also write the walk as Markdown here.")] = None,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Walk a prompt to its answer, each step with the intervention that supports or contradicts it."""
    asked = (text, answer, foil, corrupt)
    default = asked == (_TEXT, _ANSWER, _FOIL, _CORRUPT)
    if not default and any(one == old for one, old in zip(asked, (_TEXT, _ANSWER, _FOIL, _CORRUPT), strict=True)):
        raise InputError("A prompt of your own needs all four: --text, --answer, --foil and --corrupt.")
    if others is not None and capitals:
        raise InputError("--others and --capitals are two sets of other prompts. Give one.")
    with_capitals = others is None and (default if capitals is None else capitals)

    def question(loaded: Any) -> Any:
        import interp

        given: Any = "capitals" if with_capitals else None
        given = interp.PromptPairs.from_csv(others, loaded) if others is not None else given
        return interp.walkthrough(loaded, *asked, others=given, n=n, seed=seed, progress=_report)

    def show(found: Any) -> None:
        print_frame(found.summary(), left=("step", "title"))
        for row in found.steps.to_dict("records"):
            print_said(f"{row['step']}. {row['title']} ({row['verdict']}): {row['said']}")
        print_said(found.describe())

    spec = {"analysis": "walkthrough", "text": text, "answer": answer, "foil": foil, "corrupt": corrupt, "n": n}
    spec |= {"seed": seed, "others": str(others) if others is not None else "capitals" if with_capitals else None}
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json, "places": (markdown,)}
    title = f"walk-through of {model}: {text}"
    found = ask(model, question, spec, show, records_of, title=title, **kept)
    if markdown is not None:
        write_text(markdown, found.to_markdown(_command(model, asked, default, others, capitals, n, seed)))
        print(f"page: {markdown}", file=sys.stderr)


def _command(
    model: str, asked: tuple[str, ...], default: bool, others: Path | None, capitals: bool | None, n: int, seed: int
) -> str:
    """The command that makes the page, as it can be typed."""
    parts = ["walkthrough", model]
    names = ("--text", "--answer", "--foil", "--corrupt")
    parts += [] if default else [part for pair in zip(names, asked, strict=True) for part in pair]
    parts += [] if others is None else ["--others", str(others)]
    parts += [] if capitals is None else ["--capitals" if capitals else "--no-capitals"]
    parts += ["--n", str(n)] if n != 16 else []
    parts += ["--seed", str(seed)] if seed else []
    return command_line(*parts, "--markdown", "FILE")


def _report(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {stage:<50}", end="\n" if done == total else "", file=sys.stderr, flush=True)
