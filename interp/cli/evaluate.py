"""`interp evaluate`: how a model does on minimal pairs, Winogender schemas or facts on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json, shown
from interp.cli.progress import progress
from interp.cli.showing import print_frame, print_said
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["evaluate"]

_SAID = 10  # problems that are printed; all are in the result


def evaluate(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    blimp: Annotated[list[Path] | None, typer.Option(help="BLiMP .jsonl file; repeat for several.")] = None,
    winogender: Annotated[list[Path] | None, typer.Option(help="Winogender's all_sentences.tsv.")] = None,
    facts: Annotated[list[Path] | None, typer.Option(help="CounterFact or known_1000 .json file.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave malformed lines out, and say which.")] = False,
    batch: Annotated[int, typer.Option(help="Rows in a batch.")] = 32,
    bos: Annotated[bool, typer.Option("--bos/--no-bos", help="Put a beginning-of-text token in front.")] = True,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """How a model does on minimal pairs, Winogender schemas or facts: shares and means with 95% intervals."""
    given = {"blimp": blimp, "winogender": winogender, "facts": facts}
    named = [name for name, paths in given.items() if paths]
    if len(named) != 1:
        raise InputError("Give files of one kind: --blimp, --winogender or --facts (one of them may be repeated).")
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    import interp
    from interp.files import content_hash
    from interp.readers import read_blimp, read_facts, read_winogender

    paths = [str(one) for one in given[named[0]] or ()]
    reader: Any = {"blimp": read_blimp, "winogender": read_winogender, "facts": read_facts}[named[0]]
    data = reader(paths, on_error="skip" if skip_bad else "refuse")  # before a model is loaded
    _say_problems(data)
    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    with timed(timings, "evaluate"), progress() as report:
        found = interp.evaluate(loaded, data, batch_size=batch, bos=bos, seed=seed, progress=report)
    run, page = None, None
    try:
        if runs is not None:
            spec: dict[str, Any] = {"analysis": "evaluate", "model": model, "data": named[0], "files": paths}
            spec |= {"sha256": [content_hash(one) for one in paths], "skip_bad": skip_bad, "bos": bos, "seed": seed}
            title = f"{found.about['data']} on {found.about['model']}"
            run = store_run(runs, found, loaded, spec | {"batch": batch}, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what was found is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **found.to_records()})
        else:
            print_frame(found.summary(), title=repr(found), left=("by", "group"))
            print_said(found.describe())
    say_where(run, runs, page, out)


def _say_problems(data: Any) -> None:
    """What was skipped, on standard error."""
    if not data.problems:
        return
    lines = [shown(one) for one in data.problems[:_SAID]]
    more = len(data.problems) - len(lines)
    lines += [f"… and {more} more problems"] if more else []
    print(f"skipped {data.n_skipped} of {data.n_lines} lines:", *lines, sep="\n  ", file=sys.stderr)
