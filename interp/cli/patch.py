"""`interp patch`: copy activations from one prompt into another, and see where it matters."""

from __future__ import annotations

import re
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
_CSV = (
    "Pairs from a table with columns clean, corrupt, answer, and if wanted foil, item, template, read (an index or "
    "mask) and pos:NAME (a substring or an index)."
)


def patch(
    model: Annotated[str, typer.Argument(help="Packaged name, .gguf file, local folder or hub id.")],
    clean: Annotated[Texts, typer.Option(help="Clean prompt; repeat for several pairs.")] = None,
    corrupt: Annotated[Texts, typer.Option(help="Corrupt prompt of the same number of tokens.")] = None,
    answer: Annotated[Texts, typer.Option(help="What the clean prompt goes on with; one for all, or each.")] = None,
    foil: Annotated[Texts, typer.Option(help="What the corrupt prompt goes on with.")] = None,
    csv: Annotated[Path | None, typer.Option(help=_CSV)] = None,
    read: Annotated[str | None, typer.Option(help="Where the answer is read: an index, or mask (encoders).")] = None,
    decoder: Annotated[Texts, typer.Option(help="What the decoder has read; one for all pairs, or each.")] = None,
    corrupt_decoder: Annotated[Texts, typer.Option(help="The same in the corrupt run, if it differs.")] = None,
    position: Annotated[Texts, typer.Option(help="Name a place: NAME=substring of the clean prompt.")] = None,
    site: Annotated[str, typer.Option(help="What is copied: resid_pre, z, mlp_out, q, k, v, pattern, …")] = "resid_pre",
    over: Annotated[str, typer.Option(help="Axes of the grid, e.g. layer,pos or layer,head.")] = "layer,pos",
    at: Annotated[
        Texts, typer.Option(help="Restrict an axis: layer=0-11, head=4, pos=-1 (or a name, without a pos axis).")
    ] = None,
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
    places = _each_once(position, "--position", "NAME=substring")
    settings: dict[str, Any] = {
        "over": tuple(part.strip() for part in over.split(",") if part.strip()),
        "direction": direction,
        "window": window,
        "metric": metric,
        "ungroup": ungroup,
        "max_bytes": max_bytes,
        "at": {name: _numbers(value) for name, value in _each_once(at, "--at", "layer=0-11").items()},
    }
    _check_texts(texts, csv, places)
    decoders = {"decoder": _one_or_all(decoder), "corrupt_decoder": _one_or_all(corrupt_decoder)}
    asked = {name: one for name, one in {"read": _read(read), **decoders}.items() if one is not None}
    import interp

    timings: dict[str, float] = {}
    with timed(timings, "load"):
        loaded = interp.load(model)
    if csv is not None:
        pairs = interp.PromptPairs.from_csv(csv, loaded, **asked)
    else:
        sides = {name: _one_or_all(given) for name, given in texts.items() if given}
        pairs = interp.PromptPairs.from_text(loaded, **sides, **asked, positions=places or None)
    planned = interp.patch.plan(loaded, pairs, site, **settings)
    if plan:
        print_json(vars(planned.cost)) if as_json else print(planned)
        return
    if not as_json:
        print(pairs.show(0), *([f"… and {len(pairs) - 1} more pairs"] if len(pairs) > 1 else []), sep="\n", end="\n\n")
    stopped: KeyboardInterrupt | None = None
    with timed(timings, "patch"), progress() as report:
        try:
            found = planned.run(lambda done, total: report(f"patching {site}", done, total))
        except KeyboardInterrupt as error:  # what was finished is kept, marked partial
            found, stopped = planned.partial, error
            if not found.values.notnull().any():
                raise
    run, page = None, None
    try:
        if runs is not None:
            given = {name: one for name, one in texts.items() if one} if csv is None else {"csv": str(csv)}
            spec = {"analysis": "patch", "model": model, "site": site, "positions": places, **given, **asked}
            spec |= settings
            many = f"{len(pairs)} pairs" if len(pairs) > 1 else "1 pair"
            partial = "partial: " if stopped else ""
            title = f"{partial}patching {site} of {found.about.get('model', model)}: {direction}, {many}"
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
    if stopped is not None:
        raise stopped


def _check_texts(texts: dict[str, Texts], csv: Path | None, places: dict[str, str]) -> None:
    """Raise for a call without pairs, before anything is loaded."""
    given = [name for name, one in texts.items() if one]
    given += ["position"] if places else []
    if csv is not None and given:
        raise InputError(f"--csv holds the pairs, so --{given[0]} has no place. Leave one of them out.")
    missing = [name for name in ("clean", "corrupt", "answer") if not texts[name]]
    if csv is None and missing:
        raise InputError(f"--{missing[0]} is missing. Give --clean, --corrupt, --answer and --foil, or --csv.")


def _read(given: str | None) -> int | str | None:
    if given is None or given == "mask":
        return given
    if re.fullmatch(r"-?[0-9]+", given) is None:
        raise InputError(f"--read is {given!r}. Give an index (negative counts from the end), or mask.")
    return int(given)


def _one_or_all(given: list[str] | None) -> Any:
    return given[0] if given and len(given) == 1 else given


def _named(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise InputError(f"{option} {text!r} is not of the form {example}.")
    return name, value


def _each_once(given: Texts, option: str, example: str) -> dict[str, str]:
    """Options of the form NAME=value, by name."""
    found: dict[str, str] = {}
    for one in given or []:
        name, value = _named(one, option, example)
        if name in found:
            raise InputError(f"{option} names {name} twice. Give it once, with commas: {name}={found[name]},{value}.")
        found[name] = value
    return found


def _numbers(text: str) -> Any:
    """ "3", "-1", "0,4,7", "0-11", or names as they are."""
    found: list[Any] = []
    for part in (one.strip() for one in text.split(",")):
        if span := re.fullmatch(r"([0-9]+)-([0-9]+)", part):
            found += range(int(span[1]), int(span[2]) + 1)
        else:
            found.append(int(part) if re.fullmatch(r"-?[0-9]+", part) else part)
    return found
