"""A training played back in the browser: one axis of time, a map of heads, attention and lens on one row of tokens."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from streamlit.components.v2 import component

from interp.dynamics.played import Playback
from interp.errors import InputError

__all__ = ["panels", "player_data", "starting_view", "training_player"]

_HERE = Path(__file__).parent
_SCRIPTS = (
    "colour.js", "tokens.js", "training_time.js", "training_heads.js", "training_row.js", "training_lens.js",
    "training_player.js",
)  # fmt: skip
_component = component(
    "interp.training_player",
    html=(_HERE / "training_player.html").read_text(),
    css=(_HERE / "training_player.css").read_text(),
    js="\n".join((_HERE / name).read_text() for name in _SCRIPTS),
)
_PANELS = {
    "best": "attention, best head of the last checkpoint",
    "sum": "attention, sum of all heads",
    "in_context": "in-context score, nats",
    "patch": "restored by patching, share",
    "patch gap": "clean − corrupt, logits",
    "K-composition": "K-composition above random weights",
}


def training_player(data: dict[str, Any], *, key: str) -> dict[str, Any] | None:
    """Draw it; returns what the reader came to rest on since the last run (step, head, kind), else None."""
    said = _component(key=key, data=data, on_view_change=lambda: None).view
    if not isinstance(said, str) or len(said) > 500:
        return None
    try:
        view = json.loads(said)
    except ValueError:
        return None
    good = isinstance(view, dict) and set(view) == {"step", "head", "kind"} and isinstance(view["step"], int)
    return view if good and all(isinstance(view[name], str) for name in ("head", "kind")) else None


def player_data(found: Playback, curves: pd.DataFrame, changes: pd.DataFrame | None, *, id: str) -> dict[str, Any]:
    """What the component draws, the same on every run. Attention is in 256 steps, probabilities in 65,536; both are
    base64. `curves` and `changes` have the columns of an `Emergence`; without changes there are no dates."""
    about, lens = found.about, found.lens
    ids = sorted(int(one) for one in about["names"])
    place = {token: at for at, token in enumerate(ids)}
    top = np.vectorize(place.__getitem__, otypes=[np.uint32])(lens.top)
    attention = [
        {
            "name": name,
            "widths": about["widths"][name],
            "cross": name.endswith("cross_attn"),
            "of_source": name.startswith("encoder."),
            "weights": _packed(one.astype(np.float32) * 255, np.uint8),
        }
        for name, one in found.patterns.items()
    ]
    return {
        "id": id,
        "steps": found.steps,
        "kinds": found.kinds,
        "scored": about["scored"],
        "attention": attention,
        "tokens": about["tokens"],
        "following": about["following"],
        "source": about.get("source", []),
        "heads": _numbers(found.heads),
        "lens": {
            "layers": lens.next_prob.shape[1],
            "k": int(lens.top.shape[-1]),
            "top": _packed(top, np.uint32),
            "prob": _packed(lens.prob * 65535, np.uint16),
            "next": _packed(lens.next_prob * 65535, np.uint16),
            "names": [about["names"][str(one)] for one in ids],
        },
        "panels": panels(curves, changes, found.steps),
    }


def starting_view(found: Playback, step: int | None, head: str | None, kind: str | None) -> dict[str, Any]:
    """Where the player begins: as asked, else the last checkpoint, induction or the kind that is clearest there, and
    the best head of it. Raises `InputError` for what there is not."""
    if step is not None and step not in found.steps:
        near = min(found.steps, key=lambda one: abs(one - step))
        raise InputError(f"There is no checkpoint of step {step}. The nearest is {near}.")
    if kind is not None:
        found.best(kind)
    else:
        last = dict(zip(found.kinds, found.heads[:, -1], strict=True))
        kind = max(found.kinds, key=lambda one: (one == "induction", float(np.nanmax(last[one]))))
    if head is None:
        head = str(found.best(kind))
    else:
        found.pattern(found.steps[0], head)
    return {"step": found.steps[-1] if step is None else step, "head": head, "kind": kind}


def panels(curves: pd.DataFrame, changes: pd.DataFrame | None, steps: list[int]) -> list[dict[str, Any]]:
    """Series that share an axis, the losses first. A series has values at all of `steps`, null where it was not
    measured; `date` is its halfway step."""
    dated = {} if changes is None else {(one["measure"], one["series"]): one for one in changes.to_dict("records")}
    found: dict[str, dict[str, Any]] = {}
    for measure, series in dict.fromkeys(zip(curves["measure"], curves["series"], strict=True)):
        key = str(series) if series in ("best", "sum") and measure not in _PANELS else str(measure)
        title = "loss, nats" if measure == "loss" else _PANELS.get(key, key)
        share = key in ("best", "patch") or measure == "probe_accuracy"
        panel = found.setdefault(title, {"title": title, "loss": measure == "loss", "share": share, "series": []})
        of = curves.loc[(curves["measure"] == measure) & (curves["series"] == series)]
        rows = {row["step"]: row for row in of.to_dict("records")}
        change = dated.get((measure, series), {})
        line = {"name": f"{measure}, {series}", "kind": str(measure)}
        line |= {name: [_number(rows.get(step, {}).get(name)) for step in steps] for name in ("value", "low", "high")}
        line |= {"date": _number(change.get("step")), "octaves": _number(change.get("octaves"))}
        panel["series"].append(line)
    order = ["loss, nats", *_PANELS.values()]
    return sorted(found.values(), key=lambda one: order.index(one["title"]) if one["title"] in order else len(order))


def _packed(values: np.ndarray, dtype: Any) -> str:
    return base64.b64encode(np.rint(values).astype(np.dtype(dtype).newbyteorder("<")).tobytes()).decode()


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(one) for one in np.asarray(values, dtype=float).ravel().tolist()]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)
