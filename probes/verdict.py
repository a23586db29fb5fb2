"""Decodable, used, or neither: the words, from the numbers that decide them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from interp.stats import smallest_p

__all__ = ["CANNOT_TELL", "NOT_DECODABLE", "NOT_USED", "USED", "Cutoffs", "judge", "told"]

USED = "decodable and used here"
NOT_USED = "decodable, not used here"
NOT_DECODABLE = "not decodable"
CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Cutoffs:
    """What a verdict asks for: a decisive measure moves at least `min_effect` of clean − corrupt, more than random
    directions and the wrong position, with a corrected p of at most `alpha`, on at least `min_items` items."""

    min_effect: float = 0.05
    alpha: float = 0.05
    min_items: int = 8


def judge(
    frame: pd.DataFrame, contrasts: pd.DataFrame, gap: Mapping[str, Any], reads: Mapping[str, Any], cutoffs: Cutoffs
) -> tuple[str, str]:
    """The verdict and why. `gap`: clean − corrupt of the metric with its interval, and its items; `reads`: whether the
    probe decodes."""
    if reads["decodable"] is False:
        return NOT_DECODABLE, str(reads["why"])
    n = int(gap["n_items"])
    if n < cutoffs.min_items or smallest_p(n) > cutoffs.alpha:
        return CANNOT_TELL, f"there are {n} items, and {cutoffs.min_items} are asked for"
    if not gap["there"]:
        return (
            CANNOT_TELL,
            "the model does not do the task on these pairs: clean − corrupt is not above 0",
        )
    if reads["decodable"] is None:
        return CANNOT_TELL, str(reads["why"])
    decisive = frame.loc[frame["decides"]]
    each = [_measure(row, contrasts, cutoffs) for row in decisive.to_dict("records")]
    if used := [name for name, status in each if status == "moves"]:
        return USED, f"{' and '.join(used)} moves it more than random directions and the wrong position"
    if all(status == "still" for _, status in each):
        return (
            NOT_USED,
            "the interval of each deciding measure, or of its excess over random ones, is below the cutoff",
        )
    if any(status == "elsewhere" for _, status in each):
        return CANNOT_TELL, "it moves more than along random directions, but the wrong position moves it as much"
    return CANNOT_TELL, "an interval holds the cutoff, or does not stand clear of random directions"


def _measure(row: Mapping[Any, Any], contrasts: pd.DataFrame, cutoffs: Cutoffs) -> tuple[str, str]:
    """Of one measure: it "moves" the metric, leaves it "still", moves it no more than "elsewhere", or that is "open".
    A wrong position that moves it as much does not show that this one is unused, only that it is not alone."""
    name = name_of(row)
    against = contrasts.loc[contrasts["measure"] == name]
    random = against.loc[against["against"] == "random directions"]
    enough = row["effect"] >= cutoffs.min_effect and row["p_corrected"] <= cutoffs.alpha
    beyond = bool((random["low"] > 0).all()) and bool((row["effect"] > random["most"]).all())
    if enough and beyond:
        return name, "moves" if bool((against["low"] > 0).all()) else "elsewhere"
    still = row["high"] < cutoffs.min_effect or bool((random["high"] < cutoffs.min_effect).any())
    return name, "still" if still else "open"


def name_of(row: Mapping[Any, Any]) -> str:
    """What a measure is called in sentences."""
    words = {"swap": "swapping class means", "steer": f"steering by {row['dose']:g}"}
    return words.get(str(row["intervention"]), str(row["intervention"]))


def told(verdict: str, why: str, frame: pd.DataFrame, about: Mapping[str, Any], reads: Mapping[str, Any]) -> str:
    """The verdict with every number that it rests on."""
    gap, here = about["gap"], about["position"]
    parts = [f"{about['target']} at {about['place']}: {verdict} ({why})", str(reads["why"])]
    parts.append(
        f"clean − corrupt of {about['metric']} is {gap['value']:.2f} ({gap['low']:.2f} to {gap['high']:.2f}) "
        f"on {gap['n_items']} items, {gap['n_prompts']} prompts"
    )
    rows = frame.to_dict("records")
    for row in rows:
        if row["decides"]:
            parts.append(
                f"{name_of(row)} at {here!r} moves {_share(row)} of it, p = {row['p_corrected']:.2g}"
                f"{_beside(row, rows)}"
            )
    for row in rows:
        if not row["control"] and row["intervention"] in ("ablate", "leace", "inlp", "interchange"):
            at = "" if row["place"] == about["place"] else f" of {row['place']}"
            words = {
                "ablate": "the direction set to its mean",
                "leace": "erased by LEACE",
                "inlp": "erased by INLP",
                "interchange": f"all{at} exchanged with the corrupt run's",
            }
            parts.append(f"{words[row['intervention']]}: {_share(row)}")
    return "; ".join(parts) + "."


def _beside(row: Mapping[Any, Any], rows: list[dict[Any, Any]]) -> str:
    """The controls of a measure in words."""
    same = [
        one
        for one in rows
        if one["control"] and one["intervention"] == row["intervention"] and _same(one["dose"], row["dose"])
    ]
    said = []
    for one in same:
        if one["control"] == "random directions":
            said.append(f"random directions {one['effect']:.2f}, the largest of {one['n_draws']} {one['most']:.2f}")
        elif one["control"] == "wrong position":
            said.append(f"at {one['position']!r} {_share(one)}")
        else:
            said.append(f"{one['control']} {one['effect']:.2f}")
    return f" ({'; '.join(said)})" if said else ""


def _share(row: Mapping[Any, Any]) -> str:
    value, low, high = row["effect"], row["low"], row["high"]
    return f"{value:.2f}" if np.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _same(one: float, other: float) -> bool:
    return bool(one == other or (np.isnan(one) and np.isnan(other)))
