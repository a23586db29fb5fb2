"""Stored runs as a list that is searched, compared and opened on the page that draws their kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
import streamlit as st

from app import models, state, store
from interp.atlas.results import Atlas
from interp.errors import InputError, InterpError
from interp.report.results import Report
from interp.runs.store import RunStore

__all__ = [
    "PAGE_OF",
    "Difference",
    "difference",
    "listed",
    "matching",
    "open_settings",
    "restore",
    "summary_of",
    "task_of",
]

PAGE_OF = {  # the page that draws a kind of run
    **dict.fromkeys(store.WITH_HEADS, "atlas"),
    "effects": "patching",
    "probes": "probes",
    "tuned_lens": "lens",
    "lens": "lens",
    "logit_attribution": "lens",
    "attention_graph": "flow",
    "explanation": "head",
    "playback": "training",
    "emergence": "training",
}
_KEYS = (  # columns that say what a row is of, as far as a table has them
    *("kind", "stack", "sublayer", "layer", "head", "neuron", "prompt", "pair", "item", "pos", "part", "source"),
    *("destination", "query", "key", "q_pos", "k_pos", "target", "place", "site", "metric", "name", "role", "token"),
)
_ROWS = 30
_SIDES = (" before", " after")
_TASK = ("task", "tasks", "kinds", "kind", "site")


@dataclass(frozen=True)
class Difference:
    """How two runs differ: `said` in words, `tables` by name, and the lines that find the same of `before` and
    `after`."""

    said: str
    tables: dict[str, pd.DataFrame]
    lines: tuple[str, ...]


def task_of(run: store.RunInfo) -> str:
    """What a run is about, by its arguments: a task, kinds of heads, a site; empty where these say nothing."""
    return _task(os.environ.get("INTERP_STORE", "runs"), run.id, str(run.created)) if run.status == "ok" else ""


@st.cache_resource(max_entries=1000, show_spinner=False)
def _task(root: str, run_id: str, created: str) -> str:
    spec = _spec(root, run_id)
    found = [spec[name] for name in _TASK if spec.get(name)]
    words = [", ".join(map(str, one)) if isinstance(one, list) else str(one) for one in found]
    return "; ".join(dict.fromkeys(words))


def _spec(root: str, run_id: str) -> Mapping[str, Any]:
    try:
        found = RunStore(root).open(run_id).manifest.get("spec")
    except InterpError:  # gone, or damaged since
        return {}
    return found if isinstance(found, dict) else {}


def matching(
    runs: list[store.RunInfo], search: str, *, kind: str | None, since: date | None = None, until: date | None = None
) -> list[store.RunInfo]:
    """The runs that hold every word of a search in id, title, model, kind, task, or what is wrong with them; of one
    kind; made on or between two days, in UTC."""
    words = search.lower().split()
    found = []
    for run in runs:
        day = run.created.date() if run.created else None
        if kind is not None and run.kind != kind:
            continue
        if (since or until) and day is None:
            continue
        if day is not None and ((since and day < since) or (until and day > until)):
            continue
        said = [run.id, run.title, run.model, run.kind, task_of(run), run.reason]
        text = " ".join(one for one in said if one).lower()
        if all(word in text for word in words):
            found.append(run)
    return found


def listed(runs: list[store.RunInfo]) -> pd.DataFrame:
    """Runs as a table, one line each."""
    return pd.DataFrame(
        {
            "made (UTC)": [f"{run.created:%Y-%m-%d %H:%M}" if run.created else "–" for run in runs],
            "kind": [run.kind or "–" for run in runs],
            "model": [run.model or "–" for run in runs],
            "task": [task_of(run) or "–" for run in runs],
            "title": [run.title or "–" for run in runs],
            "size": ["–" if run.bytes is None else _size(run.bytes) for run in runs],
            "status": [run.status if run.reason is None else f"{run.status}: {run.reason}" for run in runs],
            "id": [run.id for run in runs],
        },
        dtype=object,
    )


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def summary_of(found: Any) -> pd.DataFrame:
    """The first lines of a result, for people."""
    for name in ("summary", "top"):
        made: Any = getattr(found, name, None)
        if made is not None:
            return made().head(_ROWS)
    frame = found.to_frame()
    return frame.head(_ROWS) if isinstance(frame, pd.DataFrame) else pd.DataFrame()


def difference(before: Any, after: Any) -> Difference:
    """How one result differs from another: two atlases as `interp.atlas.compare` has it, others row by row, after −
    before, largest first. Raises `InputError` for results that have no rows in common."""
    if isinstance(before, Atlas) and isinstance(after, Atlas):
        found = before.compare(after)
        tables = {"kind by kind": found.summary(), "heads that changed": found.changes()}
        return Difference(found.describe(), tables, ("found = before.compare(after)", "print(found)"))
    frames = [_frame_line(name, one) for name, one in (("before", before), ("after", after))]
    before, after = store.heads_in(before), store.heads_in(after)
    if type(before) is not type(after):
        raise InputError(
            f"These are {type(before).__name__} and {type(after).__name__}, which have no rows in common. Choose two "
            "runs of one kind."
        )
    left, right = before.to_frame(), after.to_frame()
    keys = [name for name in _KEYS if name in left and name in right]
    values = [name for name in left if name in right and name not in keys and _is_measured(left, right, name)]
    if not keys or not values:
        raise InputError("These tables have no rows and numbers in common, so they cannot be compared row by row.")
    if left.duplicated(keys).any() or right.duplicated(keys).any():
        raise InputError(f"Rows of these tables are not told apart by {', '.join(keys)}, so they cannot be paired.")
    both = left[keys + values].merge(right[keys + values], on=keys, suffixes=_SIDES)
    if both.empty:
        raise InputError("These tables have no rows in common: they are of different places or prompts.")
    for name in values:
        both[f"{name} change"] = both[f"{name} after"] - both[f"{name} before"]
    main = next((name for name in ("score", "effect", "value") if name in values), values[0])
    order = both[f"{main} change"].abs().fillna(-1).sort_values(ascending=False, kind="stable").index
    alone = [len(left) - len(both), len(right) - len(both)]
    said = f"{len(both):,} rows in both, by change of {main}, after − before."
    said += f" {alone[0]:,} are only before, {alone[1]:,} only after." if any(alone) else ""
    said += " These are two measurements: no interval of the change is known."
    columns = keys + [f"{name}{side}" for name in values for side in (*_SIDES, " change")]
    lines = (
        *frames,
        f"keys, values = {keys!r}, {values!r}",
        f"found = before[keys + values].merge(after[keys + values], on=keys, suffixes={_SIDES!r})",
        "for name in values:",
        '    found[f"{name} change"] = found[f"{name} after"] - found[f"{name} before"]',
        "print(found)",
    )
    return Difference(said, {"changes": both.loc[order, columns].reset_index(drop=True)}, lines)


def _frame_line(name: str, found: Any) -> str:
    """The line that makes a result's table, as `store.heads_in` finds it."""
    inner = {Atlas: ".scores", Report: ".found"}.get(type(found), "")
    return f"{name} = {name}{inner}.to_frame()"


def _is_measured(left: pd.DataFrame, right: pd.DataFrame, name: str) -> bool:
    """Whether a column holds numbers of both, other than the ends of intervals and p."""
    if name.endswith(("_low", "_high")) or name in ("p", "q") or name.endswith("p_corrected"):
        return False
    return all(pd.api.types.is_float_dtype(one[name]) and bool(one[name].notna().any()) for one in (left, right))


def open_settings(run: store.RunInfo) -> tuple[str, dict[str, str | None]] | None:
    """The page that shows a run and the settings, as an address has them, that make it show this one; None where no
    page draws its kind, or its model or prompt is not at hand."""
    page = PAGE_OF.get(run.kind or "")
    if page is None or run.status != "ok":
        return None
    if run.kind in store.WITH_HEADS:
        return page, {"run": run.id, "kind": None, "verdict": None, "value": None, "model": None, "head": None}
    if run.kind == "effects":
        texts = dict.fromkeys(("clean", "corrupt", "answer", "foil", "site", "over", "direction", "metric", "model"))
        return page, {"effects": run.id, **texts}
    if run.kind == "probes":
        return page, {"probes": run.id, "target": None, "place": None, "use": None}
    if page == "training":
        return page, {"training": run.id, "step": None, "train_head": None, "train_kind": None}
    if run.model not in models.installed():
        return None
    if run.kind == "tuned_lens":
        return page, {"lens": run.id, "model": run.model}
    return _of_prompt(run, page)


def _of_prompt(run: store.RunInfo, page: str) -> tuple[str, dict[str, str | None]] | None:
    """Settings of a run that was made of one prompt."""
    spec = store.spec(run)
    text = spec.get("text")
    text = text[0] if isinstance(text, list) and len(text) == 1 else text
    if not isinstance(text, str):
        return None
    bos = spec["bos"] if "bos" in spec else models.loaded(str(run.model)).tokenizer.add_bos
    found: dict[str, str | None] = {"model": run.model, "prompt": text, "bos": "1" if bos else "0", "pos": None}
    if page == "flow":
        found |= {"edges": _text(spec.get("top_k")), "weight": _text(spec.get("edge"))}
    elif page == "head":
        found |= {"head": _text(spec.get("head")), "view": _text(spec.get("view"))}
        found |= {"edge": f"{spec.get('query')},{spec.get('key')}"}
    elif run.kind == "lens":
        pins = [one.strip(" '") for one in spec.get("pins") or [] if isinstance(one, str)]
        found |= {"pins": " ".join(pins), "lens": _text(spec.get("lens"))}
    else:
        found |= {"by": _text(spec.get("by")), "pos": _text(spec.get("read"))}
    return page, found


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def restore(settings: Mapping[str, str | None]) -> None:
    """Choose settings as an address would; what cannot be read keeps its default."""
    for name, text in settings.items():
        state.take(name, text)
