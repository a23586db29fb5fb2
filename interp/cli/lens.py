"""`interp lens` and `interp tune`: what each layer would predict, and a lens that is fitted for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.asking import Html, ModelName, Out, Store, ask
from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, print_json
from interp.cli.progress import progress
from interp.cli.showing import print_frame, print_said, records_of
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["lens", "tune"]


def lens(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    text: Annotated[str, typer.Argument(help="The prompt.")],
    pin: Annotated[list[str] | None, typer.Option(help="Token whose rank is followed; repeat for several.")] = None,
    kind: Annotated[str, typer.Option(help="logit, or tuned (which needs --lens).")] = "logit",
    tuned: Annotated[Path | None, typer.Option("--lens", help="Folder of a tuned lens of this model.")] = None,
    pos: Annotated[int, typer.Option(help="Position that is printed; negative counts from the end.")] = -1,
    k: Annotated[int, typer.Option("--k", "-k", help="Likeliest tokens of each layer that are kept.")] = 5,
    decoder: Annotated[str | None, typer.Option(help="What the decoder of an encoder-decoder has read.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each layer's residual would predict: logit lens or tuned lens, with the ranks of pinned tokens."""
    if (kind == "tuned") != (tuned is not None) and kind in ("logit", "tuned"):
        raise InputError("--kind tuned and --lens FOLDER go together. interp tune MODEL --out FOLDER makes one.")
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
        fitted = None if tuned is None else interp.TunedLens.load(tuned, loaded)
    with timed(timings, "lens"):
        found = interp.lens(loaded, text, kind=kind, lens=fitted, pins=pin or (), k=k, decoder=decoder)  # type: ignore[arg-type]
    shown_rows = found.at(pos)
    run, page = None, None
    try:
        if runs is not None:
            spec = {"analysis": "lens", "model": model, "text": text, "kind": kind, "pins": pin or [], "k": k}
            spec |= {"lens": None if tuned is None else str(tuned), "decoder": decoder}
            run = store_run(runs, found, loaded, spec, timings, f"{kind} lens of {found.about['model']}: {text}")
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what was found is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **found.to_records()})
        else:
            print_said(f"{text!r}, position {pos}; entropy and KL(final ‖ layer) in nats")
            print_frame(shown_rows, left=("likeliest",))
            print_said(found.describe())
    say_where(run, runs, page, out)


def tune(
    model: ModelName,
    steps: Annotated[int, typer.Option(help="Steps for each layer; the default is quick and not converged.")] = 100,
    rank: Annotated[int, typer.Option(help="Rank of what is added to the residual; 0: a full map.")] = 64,
    lr: Annotated[float, typer.Option(help="Rate at the first step; it falls to 0.")] = 0.01,
    n_tokens: Annotated[int, typer.Option(help="Positions that are trained on.")] = 2048,
    corpus: Annotated[Path | None, typer.Option(exists=True, help="Your own text: a file or a folder.")] = None,
    start: Annotated[Path | None, typer.Option(help="Folder of a lens of this model, which is trained on.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep finished layers in this folder, and go on from there.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    store: Store = None,
    html: Html = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Fit a tuned lens, layer by layer, and say how near it came on held-out text and whether it is converged.

    With --store it can be chosen on the app's page Lens and attribution, with --out given to interp lens --kind tuned.
    """
    settings: dict[str, Any] = {"steps": steps, "rank": rank or None, "lr": lr, "n_tokens": n_tokens, "seed": seed}

    def question(loaded: Any) -> Any:
        import interp
        from interp.tasks.natural_text import passages

        first = None if start is None else interp.TunedLens.load(start, loaded)
        with progress() as report:
            return interp.TunedLens.fit(loaded, passages(corpus), **settings, start=first, keep=keep, progress=report)

    spec = {"analysis": "tune", **settings, "corpus": corpus, "start": start}
    kept: dict[str, Any] = {"store": store, "html": html, "out": out, "as_json": as_json}
    ask(model, question, spec, print_said, records_of, title=f"tuned lens of {model}", **kept)
