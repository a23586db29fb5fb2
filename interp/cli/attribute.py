"""`interp attribute`: a logit as the sum of what each part wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json
from interp.cli.showing import print_frame, print_said
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["attribute"]

_BY = ("component", "head", "neuron", "source")


def attribute(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    text: Annotated[list[str], typer.Argument(help="The prompt, or several.")],
    answer: Annotated[
        list[str] | None, typer.Option(help="One for all prompts, or each its own. The model's own, if none.")
    ] = None,
    foil: Annotated[list[str] | None, typer.Option(help="What the answer is compared with.")] = None,
    by: Annotated[str, typer.Option(help="component, head, neuron or source (heads by attended token).")] = "component",
    top: Annotated[int, typer.Option(help="Neurons that are kept apart, with --by neuron.")] = 100,
    rows: Annotated[int, typer.Option(help="Parts that are printed.")] = 15,
    decoder: Annotated[str | None, typer.Option(help="What the decoder of an encoder-decoder has read.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Split the answer's logit (or its difference from the foil's) into what each part of the model wrote: direct logit
    attribution, an exact sum that is checked and shown.

    In Python this is interp.logit_attribution. It is not interp.attribute, which is attribution patching: a first-order
    estimate of what patching each place between two prompts would do, indirect effects included. The sum here is exact
    but knows direct effects only.
    """
    if by not in _BY:
        raise InputError(f"--by is {by!r}. Choose {', '.join(_BY)}.")
    if rows < 1:
        raise InputError(f"--rows is {rows}. Give 1 or more.")
    for name, given in (("answer", answer), ("foil", foil)):
        if given and len(given) not in (1, len(text)):
            raise InputError(f"There are {len(text)} prompts and {len(given)} --{name}. Give one for all, or one each.")
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    one_each = {"answer": _one_or_all(answer), "foil": _one_or_all(foil)}
    with timed(timings, "attribute"):
        found = interp.logit_attribution(loaded, text, by=by, **one_each, decoder=decoder, top=top)  # type: ignore[arg-type]
    run, page = None, None
    try:
        if runs is not None:
            spec = {"analysis": "logit_attribution", "model": model, "text": text, "by": by, "top": top}
            spec |= {"answer": answer, "foil": foil, "decoder": decoder}
            title = f"logit attribution of {found.about['model']} by {by}: {text[0]}"
            run = store_run(runs, found, loaded, spec, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what was found is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **found.to_records()})
        else:
            print_said(repr(found))
            print_frame(found.summary(rows), left=("part", "kind", "token"))
            print_said(found.describe())
    say_where(run, runs, page, out)


def _one_or_all(given: list[str] | None) -> str | list[str] | None:
    return given[0] if given and len(given) == 1 else given or None
