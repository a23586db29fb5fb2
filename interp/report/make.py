"""`report`: find heads of all kinds, measure what the claims need besides, and judge every claim."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.causes import CAUSES
from interp.heads.find import find_heads
from interp.heads.splits import as_pairs
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.model.identity import model_hash
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.report import null
from interp.report.claim import CANNOT_TELL, Claim, Measured, Missing, judged
from interp.report.claims import claims_for
from interp.report.evidence import Evidence, settings_key
from interp.report.intervals import NO_SPREAD
from interp.report.results import Report
from interp.report.whole import CLAIMS, Whole
from interp.results import HeadScores
from interp.tasks.load import load as load_task

__all__ = ["RIGORS", "report"]

RIGORS: dict[str, dict[str, Any]] = {
    "quick": {"n": 50, "top": 8, "screen": "attention", "per_item": 1},
    "full": {"n": 100, "top": 8, "screen": "exact", "per_item": 2},
}
Progress = Callable[[str, int, int], None]
_NAN = float("nan")


def report(
    model: Any,
    kinds: str | Sequence[str] = "all",
    *,
    rigor: str = "quick",
    n: int | None = None,
    seed: int = 0,
    keep: Any = None,
    progress: Progress | None = None,
    found: HeadScores | None = None,
    pairs: Any = None,
    corpus: Any = None,
) -> Report:
    """Judge every claim on some kinds of heads: *holds*, *does not hold*, or *cannot tell*, by the 95% interval.

    `rigor`: "quick" takes 50 items and 8 candidates a kind, chosen by attention and a first-order estimate, and puts
    one prompt of each item to interventions; "full" 100 items, candidates chosen by their exact effect, and two prompts
    of each. `n` overrides the number of items. `pairs` and `corpus` are the
    user's own prompts, as for `find_heads`. `found` are head scores that were found before (with the same pairs): then
    its kinds, `n` and `seed` count. `keep`: a folder for what is finished, so that the same call goes on from there.
    Kinds whose prompts cannot be made for the model are left out, with the reason. Raises `InputError` for an unknown
    kind or rigor, and where no kind is left. `progress(stage, done, total)` hears of each stage, and of all of them as
    the stage `interp.report.whole.WHOLE`.
    """
    start, say = time.perf_counter(), Whole(progress)
    if not isinstance(model, HookedTransformer):
        raise InputError(f"A report is about a loaded model, not {model!r}. Load it first: interp.load(…).")
    if rigor not in RIGORS:
        raise InputError(f"rigor is {rigor!r}. Choose {' or '.join(RIGORS)}.")
    if keep is not None and Path(keep).exists() and not Path(keep).is_dir():
        raise InputError(f"keep={keep} is a file. Give a folder; it is made if it is not there.")
    given = None if pairs is None else as_pairs(pairs)
    left_out: dict[str, str] = {}
    if found is None:
        settings = {**RIGORS[rigor], **({} if n is None else {"n": n}), "seed": seed, "corpus": corpus}
        found, left_out = _find(model, kinds, given, settings, keep, say)
    else:
        rigor = "of the heads that were given"
    if found.about.get("model") != model.cfg.model_name:
        raise InputError(
            f"These heads were found in {found.about.get('model')!r}, and the model is {model.cfg.model_name!r}. "
            "Give the model that they were found in."
        )
    key = settings_key(found, model_hash(model), given)
    folder = None if keep is None else Path(keep)
    n_items, drawn_by = int(found.about.get("n", 50)), int(found.about.get("seed", seed))
    evidence = Evidence(
        model, found, n_items, drawn_by, pairs=given, corpus=corpus, folder=folder, key=key, progress=say
    )
    asked = list(dict.fromkeys([*found.kinds, *left_out]))
    claims = claims_for(model.cfg.model_name, asked)
    rows = []
    for number, claim in enumerate(claims):
        say(CLAIMS, number, len(claims))
        rows.append(_row(claim, evidence, left_out))
    tables = {null.TITLE: null.table(evidence)}
    say(CLAIMS, len(claims), len(claims))
    about = _about(model, found, rigor, left_out, round(time.perf_counter() - start, 1))
    return Report(pd.DataFrame(rows, columns=list(Report.COLUMNS)), found, about, tables)


def _row(claim: Claim, evidence: Evidence, left_out: Mapping[str, str]) -> dict[str, Any]:
    measured, reason = Measured(_NAN, _NAN, _NAN), left_out.get(claim.kind, "")
    if not reason:
        try:
            measured = claim.measure(evidence)
        except (Missing, InputError) as error:
            reason = str(error)
    verdict = CANNOT_TELL if reason else judged(measured, claim.side, claim.cutoff)
    pilot = claim.pilot
    return {
        "id": claim.id,
        "kind": claim.kind,
        "claim": claim.text,
        "verdict": verdict,
        "value": float(measured.value),
        "low": float(measured.low),
        "high": float(measured.high),
        "unit": measured.unit,
        "n_items": float(measured.n_items) if measured.n_items else _NAN,
        "must_be": f"{claim.side} {claim.cutoff:g}",
        "why": reason or _why(verdict, measured),
        "note": measured.note,
        "explain": claim.explain,
        "pilot": pilot.value if pilot else _NAN,
        "against_pilot": _against(measured, pilot),
        "pilot_source": pilot.source if pilot else "",
    }


def _why(verdict: str, measured: Measured) -> str:
    if verdict != CANNOT_TELL:
        return ""
    if measured.low == measured.low:
        return "the interval holds the cutoff"
    return NO_SPREAD if NO_SPREAD in measured.note else "no interval could be given"


def _against(measured: Measured, pilot: Any) -> str:
    """How ours compares with the pilot: inside the interval, or different and why that may be."""
    if pilot is None or measured.low != measured.low:
        return ""
    if measured.low <= pilot.value <= measured.high:
        return "within the interval"
    side = "lower" if measured.high < pilot.value else "higher"
    return f"ours is {side} than the pilot's. Known differences in set-up: {pilot.set_up}"


def _find(
    model: HookedTransformer,
    kinds: str | Sequence[str],
    pairs: Mapping[str, PromptPairs] | None,
    settings: Mapping[str, Any],
    keep: Any,
    say: Whole,
) -> tuple[HeadScores, dict[str, str]]:
    """One search for all kinds; where prompts of some cannot be made, one without these."""
    options: dict[str, Any] = {**settings, "pairs": pairs, "keep": keep, "progress": say}
    asked = _asked(model, kinds)
    say.start(asked)
    try:
        return find_heads(model, kinds, **options), {}
    except InputError as error:
        left_out = (
            {} if pairs is not None else {one.name: why for one in asked if (why := _problem(model, one, settings))}
        )
        left = [one.name for one in asked if one.name not in left_out]
        if not left_out or not left:
            raise
        say.start([one for one in asked if one.name in left])
        try:
            return find_heads(model, left, **options), left_out
        except InputError:
            raise error from None


def _asked(model: HookedTransformer, kinds: str | Sequence[str]) -> list[Finder | TaskFinder | SyntaxFinder]:
    """The kinds of a call; of "all", those that suit the model."""
    if kinds != "all":
        return [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    found = []
    for one in finders().values():
        try:
            one.must_apply_to(model)
        except InputError:
            continue
        found.append(one)
    return found


def _problem(model: HookedTransformer, one: Finder | TaskFinder | SyntaxFinder, settings: Mapping[str, Any]) -> str:
    """Why a kind's prompts cannot be made for this model, or ""."""
    n, seed = settings["n"], settings["seed"]
    try:
        if isinstance(one, TaskFinder):
            for split in ("select", "report"):
                load_task(one.task, model, one.corruptions[0], split=split, n=n, seed=seed)
        elif isinstance(one, SyntaxFinder):
            one.sentences(model, settings["corpus"], n=n, seed=seed)
        else:
            one.make_data(model, 2 * n, seed, True, settings["corpus"])
            CAUSES[one.cause].make(model, n, seed)
    except InputError as error:
        return str(error)
    return ""


def _about(
    model: HookedTransformer, found: HeadScores, rigor: str, left_out: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    name = model.cfg.model_name
    caveat = f"Everything rests on one model, {name}; run the same report on others before saying more."
    if name.lower().startswith("smollm2-135m"):
        caveat = "Everything rests on one 135M model dequantised from 4 bits."
    return {
        "model": name,
        "caveat": caveat,
        "rigor": rigor,
        **{
            key: found.about.get(key)
            for key in ("n", "seed", "top", "screen", "alpha", "n_random_sets", "per_item", "corpus")
        },
        "bos": found.about.get("bos"),
        "ablation": found.about.get("ablation"),
        "normalisation": found.about.get("normalisation"),
        "intervals": "95%, bootstrap over items; exact binomial where a share is 0 or 1 for every item; corrected p by "
        "sign flips of items, over heads and kinds",
        "left_out": dict(left_out),
        "versions": {
            "interp": sys.modules["interp"].__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "seconds": seconds,
    }
