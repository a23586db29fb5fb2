"""Whether a probe decodes at all, by its row of the results."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.flips import FoundLike

__all__ = ["decodable"]


def decodable(found: FoundLike) -> dict[str, Any]:
    """`decodable`: what the row's own verdict says; without one, whether the whole interval of its score lies above the
    best constant; None where the row says nothing, or that there is no telling. And why, with the numbers."""
    row = {str(name): value for name, value in dict(found.row or {}).items()}
    if row.get("verdict"):
        known = {"decodable": True, "not decodable": False}.get(str(row["verdict"]))
        return {"decodable": known, "why": str(row.get("why") or row["verdict"]).rstrip(".")}
    score, low, high = (_number(row.get(name)) for name in ("score", "score_low", "score_high"))
    majority, control = _number(row.get("majority")), _number(row.get("control"))
    metric = str(row.get("metric") or "accuracy")
    if np.isnan(score) or np.isnan(majority):
        return {"decodable": None, "why": "the probe does not say how well it decodes"}
    interval = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    said = f"{metric} {score:.2f}{interval} on held-out groups, majority {majority:.2f}"
    said += "" if np.isnan(control) else f", control task {control:.2f}"
    above = bool((score if np.isnan(low) else low) > majority)
    return {"decodable": above, "why": said}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.floating, np.integer)) else float("nan")
