"""`interp patch`: copy activations from one prompt into another, and see where it matters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.keeping import check_places, say_where, store_run, timed
from interp.cli.output import AsJson, effects_as_json, print_effects, print_json
from interp.cli.progress import progress
from interp.errors import InputError
from interp.runs.store import RunStore

__all__ = ["patch"]

Texts = list[str] | None


def patch(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    clean: Annotated[Texts, typer.Option(help="Clean prompt; repeat for several pairs.")] = None,
    corrupt: Annotated[Texts, typer.Option(help="Corrupt prompt of the same number of tokens.")] = None,
    answer: Annotated[Texts, typer.Option(help="What the clean prompt goes on with; one for all, or each.")] = None,
    foil: Annotated[Texts, typer.Option(help="What the corrupt prompt goes on with.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Pairs from a table (clean, corrupt, answer, foil).")] = None,
    position: Annotated[Texts, typer.Option(help="Name a place: NAME=substring of the clean prompt.")] = None,
    site: Annotated[str, typer.Option(help="What is copied: resid_pre, z, mlp_out, q, k, v, pattern, …")] = "resid_pre",
    over: Annotated[str, typer.Option(help="Axes of the grid, e.g. layer,pos or layer,head.")] = "layer,pos",
    at: Annotated[Texts, typer.Option(help="Restrict an axis: layer=0-11, head=4, pos=-1, pos=NAME.")] = None,
    direction: Annotated[str, typer.Option(help="denoise: clean into corrupt. noise: the reverse.")] = "denoise",
    window: Annotated[int, typer.Option(help="Layers edited together around each.")] = 1,
    metric: Annotated[str, typer.Option(help="logit_diff, logit, prob, log_prob, log_prob_diff or kl.")] = "logit_diff",
    ungroup: Annotated[bool, typer.Option(help="k and v by query head.")] = False,
    max_bytes: Annotated[int | None, typer.Option(help="Most memory to use above the weights.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would cost.")] = False,
    store: Annotated[Path | None, typer.Option(help="Store the run in this folder, e.g. runs.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save the bare results in this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Patch activations between clean and corrupt prompts, exactly, cell by cell."""
    runs = None if store is None else RunStore(store)
    check_places(runs, html, out)
    texts = {"clean": clean, "corrupt": corrupt, "answer": answer, "foil": foil}
    places = dict(_named(one, "--position", "NAME=substring") for one in position or [])
    settings: dict[str, Any] = {
        "over": tuple(part.strip() for part in over.split(",") if part.strip()),
        "direction": direction,
        "window": window,
        "metric": metric,
        "ungroup": ungroup,
        "max_bytes": max_bytes,
        "at": {name: _numbers(value) for name, value in (_named(one, "--at", "layer=0-11") for one in at or [])},
    }
    _check_texts(texts, csv)
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    if csv is not None:
        pairs = interp.PromptPairs.from_csv(csv, loaded)
    else:
        sides = {name: _one_or_all(given) for name, given in texts.items() if given}
        pairs = interp.PromptPairs.from_text(loaded, **sides, positions=places or None)
    planned = interp.patch.plan(loaded, pairs, site, **settings)
    if plan:
        print_json(vars(planned.cost)) if as_json else print(planned)
        return
    if not as_json:
        print(pairs.show(0), *([f"… and {len(pairs) - 1} more pairs"] if len(pairs) > 1 else []), sep="\n", end="\n\n")
    with timed(timings, "patch"), progress() as report:
        found = planned.run(lambda done, total: report(f"patching {site}", done, total))
    run, page = None, None
    try:
        if runs is not None:
            given = {name: one for name, one in texts.items() if one} if csv is None else {"csv": str(csv)}
            spec = {"analysis": "patch", "model": model, "site": site, "positions": places, **given, **settings}
            many = f"{len(pairs)} pairs" if len(pairs) > 1 else "1 pair"
            title = f"patching {site} of {found.about.get('model', model)}: {direction}, {many}"
            run = store_run(runs, found, loaded, spec, timings, title)
        if html is not None:
            page = found.to_html(html)
        if out is not None:
            found.save(out)
    finally:  # what took so long to find is shown, also where it could not be kept
        if as_json:
            print_json({"run": run.id if run else None, **effects_as_json(found)})
        else:
            print_effects(found)
            print(f"{timings['patch']:.2f} s", file=sys.stderr)
    say_where(run, runs, page, out)


def _check_texts(texts: dict[str, Texts], csv: Path | None) -> None:
    """Raise for a call without pairs, before anything is loaded."""
    given = [name for name, one in texts.items() if one]
    if csv is not None and given:
        raise InputError(f"--csv holds the pairs, so --{given[0]} has no place. Leave one of them out.")
    missing = [name for name in ("clean", "corrupt", "answer") if not texts[name]]
    if csv is None and missing:
        raise InputError(f"--{missing[0]} is missing. Give --clean, --corrupt, --answer and --foil, or --csv.")


def _one_or_all(given: list[str] | None) -> Any:
    return given[0] if given and len(given) == 1 else given


def _named(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InputError(f"{option} {text!r} is not of the form {example}.")
    return name, value


def _numbers(text: str) -> Any:
    """ "3", "-1", "0,4,7", "0-11", or names as they are."""
    found: list[Any] = []
    for part in text.split(","):
        low, dash, high = part.partition("-") if not part.startswith("-") else (part, "", "")
        if dash and low.isdigit() and high.isdigit():
            found += range(int(low), int(high) + 1)
        else:
            found.append(int(part) if part.lstrip("-").isdigit() else part)
    return found
