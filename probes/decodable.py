"""Whether a probe decodes at all, by its row of the results."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.flips import FoundLike

__all__ = ["decodable"]


def decodable(found: FoundLike) -> dict[str, Any]:
    """`decodable`: True where the whole interval of the test metric lies above the best constant (and, where it was
    measured, p is at most alpha); False where it does not; None where the row says nothing. And why."""
    row = {str(name): value for name, value in dict(found.row or {}).items()}
    score, low, high = (_number(row.get(name)) for name in ("score", "score_low", "score_high"))
    majority, control = _number(row.get("majority")), _number(row.get("control"))
    metric = str(row.get("metric") or "accuracy")
    if np.isnan(score) or np.isnan(majority):
        return {"decodable": None, "why": "the probe does not say how well it decodes"}
    interval = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    said = f"{metric} {score:.2f}{interval} on held-out groups, majority {majority:.2f}"
    said += "" if np.isnan(control) else f", control task {control:.2f}"
    above = bool((score if np.isnan(low) else low) > majority)
    return {"decodable": above, "why": said, "score": score, "majority": majority}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.floating, np.integer)) else float("nan")
