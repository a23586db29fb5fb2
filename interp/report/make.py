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

from interp.atlas.search import RIGORS, caveat_of, must_be_askable, must_be_of, search
from interp.atlas.whole import Whole
from interp.errors import InputError
from interp.heads.splits import as_pairs
from interp.model.identity import model_hash
from interp.model.transformer import HookedTransformer
from interp.report import null
from interp.report.claim import CANNOT_TELL, Claim, Measured, Missing, judged
from interp.report.claims import claims_for
from interp.report.evidence import Evidence, settings_key
from interp.report.intervals import NO_SPREAD
from interp.report.results import Report, sections_of
from interp.results import HeadScores

__all__ = ["report"]

Progress = Callable[[str, int, int], None]
_NAN = float("nan")
CLAIMS, _COST_OF_CLAIMS = "claims", 8.0  # of which a test of a kind costs about 6


def report(
    model: Any,
    kinds: str | Sequence[str] = "all",
    *,
    rigor: str = "quick",
    n: int | None = None,
    seed: int = 0,
    keep: Any = None,
    progress: Progress | None = None,
    found: Any = None,
    pairs: Any = None,
    corpus: Any = None,
    beside: Any = None,
) -> Report:
    """Judge every claim on some kinds of heads: *holds*, *does not hold*, or *cannot tell*, by the 95% interval.

    `rigor`: "quick" takes 32 items and 6 candidates a kind, chosen by attention and a first-order estimate, and puts
    one prompt of each item to interventions; "full" 100 items, candidates chosen by their exact effect, and two prompts
    of each. `n` overrides the number of items. `pairs` and `corpus` are the
    user's own prompts, as for `find_heads`. `found` are head scores that were found before (with the same pairs): then
    its kinds, `n` and `seed` count. `keep`: a folder for what is finished, so that the same call goes on from there.
    `beside`: what was measured of the same heads in another way, or a list of such: anything with a `heading`, `words`
    (sentences), a `frame` and `plot()`, told behind the claims.
    Kinds whose prompts cannot be made for the model are left out, with the reason. Raises `InputError` for an unknown
    kind or rigor, and where no kind is left. `progress(stage, done, total)` hears of each stage, and of all of them as
    the stage `interp.atlas.whole.WHOLE`.
    """
    start, say = time.perf_counter(), Whole(progress, [(CLAIMS, _COST_OF_CLAIMS)])
    must_be_askable("A report", model, rigor, keep)
    sections = sections_of(beside)
    given = None if pairs is None else as_pairs(pairs)
    left_out: dict[str, str] = {}
    if found is None:
        settings = {**RIGORS[rigor], **({} if n is None else {"n": n}), "seed": seed, "corpus": corpus}
        found, left_out = search(model, kinds, given, settings, keep, say)
    else:
        must_be_of(model, found, given)
        rigor = "of the heads that were given"
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
    tables = {null.TITLE: null.table(evidence), **{one.heading: one.frame for one in sections}}
    say(CLAIMS, len(claims), len(claims))
    about = _about(model, found, rigor, left_out, round(time.perf_counter() - start, 1))
    about |= {"beside": [one.told() for one in sections]} if sections else {}
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


def _about(
    model: HookedTransformer, found: HeadScores, rigor: str, left_out: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    return {
        "model": model.cfg.model_name,
        "caveat": caveat_of(model),
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
