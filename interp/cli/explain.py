"""`interp explain`: which part of a query matched which part of a key, in one head on one text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json
from interp.cli.results import print_explanation, result_as_json
from interp.runs.store import RunStore

__all__ = ["explain"]


def explain(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    head: Annotated[str, typer.Option(help="layer.head, as in 23.4, or decoder.cross_attn.5.3.")],
    query: Annotated[str, typer.Option(help="The token that attends: a piece of the text, or its index.")],
    key: Annotated[str, typer.Option(help="The token attended to.")],
    view: Annotated[str, typer.Option(help="layer: sources are whole layers. head: each earlier head.")] = "layer",
    against: Annotated[
        str, typer.Option(help="others: compare with the other keys but the first. all: the first too. none: do not.")
    ] = "others",
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Replace the largest sources, in the query only or the key only.")
    ] = False,
    source: Annotated[list[str] | None, typer.Option(help="Confirm these sources instead, e.g. 0_mlp_out.")] = None,
    replace_with: Annotated[str, typer.Option(help="What replaces a source: mean or zero.")] = "mean",
    answer: Annotated[str | None, typer.Option(help="Whose logit is read when confirming.")] = None,
    foil: Annotated[str | None, typer.Option(help="Read the difference from this one's.")] = None,
    read: Annotated[
        str | None, typer.Option(help='Where the answer is read: index, piece of the text, or "mask".')
    ] = None,
    decoder_input: Annotated[str | None, typer.Option(help="The decoder's text, in a model with two.")] = None,
    bos: Annotated[
        bool | None, typer.Option("--bos/--no-bos", help="BOS in front. The model's own way, if none.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a head attends from one token to another: its score, split by source of query and key."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    settings: dict[str, Any] = {
        "view": view,
        "against": None if against == "none" else against,
        "confirm": source or confirm,
        "replace_with": replace_with,
        "answer": answer,
        "foil": foil,
        "read": None if read is None else _place(read),
        "decoder_input": decoder_input,
        "prepend_bos": bos,
    }
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    with timed(timings, "explain"):
        found = interp.explain_attention(loaded, text, head, _place(query), _place(key), **settings)
    run, page = None, None
    try:
        if runs is not None:
            spec = {
                "analysis": "explain",
                "model": model,
                "text": text,
                "head": head,
                "query": query,
                "key": key,
                **settings,
            }
            title = f"head {head} of {found.about.get('model', model)}: {query} → {key}"
            run = store_run(runs, found, loaded, spec, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:
        if as_json:
            print_json({"run": run.id if run else None, **result_as_json(found)})
        else:
            print_explanation(found)
    say_where(run, runs, page, out)


def _place(text: str) -> int | str:
    """An index, or a piece of the text."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text
