"""The analyses of interp itself, as a sweep asks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.batch.analyses import Analysis, Ask
from interp.batch.material import Drawn
from interp.heads.keep import METHOD

__all__ = ["ANALYSES"]

_HEAD_SITES = ("q", "k", "v", "z", "result", "pattern", "attn_scores")
_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", *_HEAD_SITES, "mlp_post")
_METRICS = ("logit_diff", "logit", "prob", "log_prob", "log_prob_diff", "kl")
_CELLS = {"site": "z", "over": None, "direction": "denoise", "metric": "logit_diff", "at": None, "window": 1}
_CELL_CHOICES = {
    "site": _SITES,
    "over": ("layer", "pos", "position", "head", "kv_head", "neuron", "key_pos"),
    "direction": ("denoise", "noise"),
    "metric": _METRICS,
}


def _evaluate(ask: Ask) -> Any:
    drawn = ask.given
    if drawn.data is not None:
        from interp.readers.evaluate import evaluate

        return evaluate(ask.model, drawn.data, seed=ask.seed, progress=ask.progress)
    return _on_task(ask, drawn)


def _on_task(ask: Ask, drawn: Drawn) -> Any:
    """The metric of each prompt, and how often the answer is above the foil, with intervals over items."""
    from dataclasses import replace

    import pandas as pd

    from interp.readers.tally import CLOSED, tally
    from interp.results.evaluation import Evaluation
    from interp.tasks.base import Task
    from interp.tasks.measure import values_of
    from interp.tasks.prompts import metric_of

    task = drawn.task
    if task is None:
        pairs = drawn.must_have_pairs("evaluate")
        task = Task(drawn.name, pairs, None, about={"metric": metric_of(pairs)})
    columns = {"metric": values_of(task, ask.model)}
    compared = columns["metric"]
    if task.pairs is not None:
        columns["corrupt"] = values_of(task, ask.model, "corrupt")
        if not task.about["metric"].endswith("_diff"):
            compared = values_of(replace(task, about={**task.about, "metric": metric_of(task.pairs)}), ask.model)
    columns = {"accuracy": (compared > 0).astype(float), **{name: one.astype(float) for name, one in columns.items()}}
    rows = pd.DataFrame({"item": task.items, "template": task.templates, **columns})
    metric = task.about["metric"]
    measures = {
        "accuracy": "share of clean prompts with the answer above the foil",
        "metric": f"mean {metric} of the clean prompts",
        "corrupt": f"mean {metric} of the corrupt prompts",
    }
    about = {
        "data": f"task {drawn.name}",
        "item": "the item of the task",
        "method": f"{metric} of each prompt.",
        "measures": {name: said for name, said in measures.items() if name in columns},
        "units": {"accuracy": "share of prompts", "metric": metric, "corrupt": metric},
        "leaves_out": "What the model says beyond answer and foil." + CLOSED,
        "model": ask.model.cfg.model_name,
        "files": [],
        "n_lines": len(task),
        "n_skipped": 0,
        "seed": ask.seed,
    }
    return Evaluation(tally(columns, task.items, {"template": task.templates}, ask.seed), rows, about)


def _patch(ask: Ask) -> Any:
    from interp.causal.patching import patch

    pairs = ask.given.must_have_pairs("patch")

    def report(done: int, of: int) -> None:
        ask.progress("patching", done, of)

    return patch(ask.model, pairs, progress=report, **_cells(ask))


def _attribute(ask: Ask) -> Any:
    import torch

    from interp.causal.attribution import attribute

    with torch.enable_grad():
        return attribute(ask.model, ask.given.must_have_pairs("attribute"), **_cells(ask))


def _cells(ask: Ask) -> dict[str, Any]:
    options = dict(ask.options)
    over = options.pop("over") or (("layer", "head") if options["site"] in _HEAD_SITES else ("layer", "pos"))
    return {**options, "over": (over,) if isinstance(over, str) else tuple(over)}


def _heads(ask: Ask) -> Any:
    from interp.heads.base import finders
    from interp.heads.find import BASIC_KINDS, find_heads
    from interp.heads.task_finder import TaskFinder

    options = dict(ask.options)
    given, pairs = options.pop("kinds"), None
    kinds: Any = [given] if isinstance(given, str) else given
    if ask.drawn is not None:
        task = ask.drawn.task
        serve = [
            name for name, one in finders().items() if isinstance(one, TaskFinder) and task and one.task == task.name
        ]
        if task is None or not serve:
            pairs = ask.drawn.must_have_pairs("heads")
        kinds = serve or "all"
    kinds = "all" if kinds and "all" in kinds else kinds
    return find_heads(ask.model, kinds or BASIC_KINDS, pairs=pairs, **options, seed=ask.seed, progress=ask.progress)


def _atlas(ask: Ask) -> Any:
    from interp.atlas.make import atlas

    return atlas(ask.model, ask.options["kinds"] or "all", **_rigor(ask))


def _report(ask: Ask) -> Any:
    from interp.report.make import report

    return report(ask.model, ask.options["kinds"] or "all", **_rigor(ask))


def _rigor(ask: Ask) -> dict[str, Any]:
    return {"rigor": ask.options["rigor"], "n": ask.options["n"], "seed": ask.seed, "progress": ask.progress}


def _composition(ask: Ask) -> Any:
    from interp.circuits.composition import composition

    return composition(ask.model, ask.options["kind"], folded=ask.options["folded"], seed=ask.seed)


def _lens(ask: Ask) -> Any:
    from interp.circuits.lens import lens

    return lens(ask.model, ask.given.must_have_pairs("lens"), k=ask.options["k"])


def _logits(ask: Ask) -> Any:
    from interp.circuits.logit_attribution import logit_attribution

    return logit_attribution(ask.model, ask.given.must_have_pairs("logit_attribution"), by=ask.options["by"])


def _of_evaluation(found: Any) -> Mapping[str, float]:
    return {name: float(found.value(name)[0]) for name in found.measures}


def _of_effects(found: Any) -> Mapping[str, float]:
    mean = found.mean()
    values = mean.to_numpy()[~np.isnan(mean.to_numpy())]
    numbers = {"largest effect": float(values[np.abs(values).argmax()])} if len(values) else {}
    return numbers | ({"base": float(found.base.mean())} if found.base is not None else {})


def _of_heads(found: Any) -> Mapping[str, float]:
    named = found.frame.loc[found.frame["verdict"] == found.frame["kind"]]
    numbers = {f"{kind} heads": float((named["kind"] == kind).sum()) for kind in found.kinds}
    best = found.frame.groupby("kind")["score"].max()
    return numbers | {f"best {kind} score": float(best[kind]) for kind in found.kinds if kind in best}


def _of_counts(found: Any) -> Mapping[str, float]:
    return {str(name): float(n) for name, n in found.counts().items()}


def _of_composition(found: Any) -> Mapping[str, float]:
    return {"largest score": float(found.values.max()), "mean of random heads": float(found.random_mean)}


def _kinds() -> tuple[str, ...]:
    from interp.heads.base import finders

    return tuple(finders())


def _known_kinds() -> Mapping[str, tuple[str, ...]]:
    return {"kinds": ("all", *_kinds())}


_WHOLE: Any = {"options": {"kinds": None, "rigor": "quick", "n": None}, "found": _of_counts, "method": METHOD}
ANALYSES = (
    Analysis("evaluate", "how the model does on a task or a reader's file", _evaluate, "either", found=_of_evaluation),
    Analysis(
        "patch", "exact patching, cell by cell", _patch, "task", _CELLS, _CELL_CHOICES, passes=20.0, found=_of_effects
    ),
    Analysis(
        "attribute",
        "its first-order estimate",
        _attribute,
        "task",
        _CELLS,
        _CELL_CHOICES,
        passes=5.0,
        found=_of_effects,
    ),
    Analysis(
        "heads",
        "heads of some kinds; of a task, those that serve it",
        _heads,
        "may",
        {"kinds": None, "n": 32, "screen": "attention", "top": 8, "alpha": 0.05},
        {**_known_kinds(), "screen": ("attention", "exact", "none")},
        alone=("kinds",),
        passes=80.0,
        found=_of_heads,
        method=METHOD,
    ),
    Analysis(
        "composition",
        "who could read whom, by weights",
        _composition,
        "never",
        {"kind": "Q", "folded": False},
        {"kind": ("Q", "K", "V")},
        passes=40.0,
        found=_of_composition,
    ),
    Analysis("lens", "what each layer would predict", _lens, "task", {"k": 5}, passes=4.0),
    Analysis(
        "logit_attribution",
        "what each part writes into the answer",
        _logits,
        "task",
        {"by": "head"},
        {"by": ("component", "head", "source", "neuron")},
        passes=3.0,
    ),
    Analysis(
        "atlas",
        "all kinds of heads in one search",
        _atlas,
        "never",
        choices={**_known_kinds(), "rigor": ("quick", "full")},
        passes=20_000.0,
        **_WHOLE,
    ),
    Analysis(
        "report",
        "claims on heads, judged",
        _report,
        "never",
        choices={**_known_kinds(), "rigor": ("quick", "full")},
        passes=25_000.0,
        **_WHOLE,
    ),
)
