"""Function vector heads: their mean output over prompts that show a function brings the function into prompts that do
not (Todd 2024, §2.3, the average indirect effect)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.causal.bundles import Bundle, Op, in_order
from interp.causal.plan import Plan
from interp.causal.questions import Question, pose
from interp.causal.sweep import Sweep
from interp.circuits.streaming import head_grid
from interp.heads.ablation import HeadSet
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, Test
from interp.heads.ways import Harm, Report, distance
from interp.sites import Head, Site

__all__ = ["FINDER"]

LABELS = "labels"
_BANK = "function"
_ALL = ""  # the mean over all functions, for one that the selecting prompts do not have
Grid = NDArray[np.floating]


def _find_means(study: Study) -> object:
    """Each function's mean output of every head at END, over clean prompts."""
    if "function_means" not in study.memo:
        outputs, names = study.outputs(END), _functions(study)
        found = {name: outputs[[i for i, one in enumerate(names) if one == name]].mean(0) for name in set(names)}
        study.memo["function_means"] = found | {_ALL: outputs.mean(0)}
    return study.memo["function_means"]


def _functions(study: Study) -> list[str]:
    """The function of each prompt; one for all where prompts do not say."""
    return [str(name) for name in study.labels.get("relation", [_ALL] * len(study.main))]


def _vectors(study: Study) -> Float[Tensor, "prompt layer head d_head"]:
    """What each prompt's heads are set to: the means of its function that were found on other prompts, or else the mean
    over the other items here."""
    names, means = _functions(study), study.memo.get("function_means")
    if means is not None:
        return torch.stack([means.get(name, means[_ALL]) for name in names])
    outputs, found = study.outputs(END), []
    for name, item in zip(names, study.main.items, strict=True):
        others = [i for i, other in enumerate(study.main.items) if other != item]
        alike = [i for i in others if names[i] == name]
        found.append(outputs[alike or others or list(range(len(names)))].mean(0))
    return torch.stack(found)


def _rises(study: Study, sets: Sequence[HeadSet]) -> Grid:
    """Rise of the metric on each corrupt prompt when a set's outputs at END are those of the clean task,
    `[prompt set]`. Exact. Cost: a pass, and for each set the last position from its first layer on."""
    question, stack = pose(study.model, study.main, study.metric), study.model.main
    vectors = _vectors(study).to(study.model.device, study.model.dtype)
    bank = {
        str(_site(layer, stack.name)): vectors[:, layer, : config.attn.n_heads, : config.attn.d_head]
        for layer, config in enumerate(stack.config.blocks)
    }
    texts = question.texts("corrupt")
    bundles = [one for text in range(len(texts)) for one in _bundles(question, text, sets)]
    sweep = Sweep(
        study.model,
        question.metric,
        texts,
        [],
        bundles,
        np.zeros((len(texts), len(sets)), dtype=bool),
        banks={_BANK: bank},
    )
    names = {"target": [" ".join(map(str, one)) for one in sets]}
    return Plan(sweep, names, question.items, study.main.templates, {}).run(False).values.values


def _bundles(question: Question, text: int, sets: Sequence[HeadSet]) -> list[Bundle]:
    """The edits of one text: single heads of a layer side by side, other sets by themselves."""
    pair = question.metric.rows[text].pair
    read, row = question.pairs.read[pair], torch.tensor([pair])
    by_layer: dict[int, list[int]] = {}
    for number, one in enumerate(sets):
        if len(one) == 1:
            by_layer.setdefault(one[0].layer, []).append(number)
    made = []
    for layer, numbers in by_layer.items():
        units = torch.tensor([[sets[number][0].head] for number in numbers])
        op = Op(_site(layer, sets[numbers[0]][0].stack), (read,), units, _BANK, row)
        made.append(Bundle(text, torch.tensor(numbers), (op,), read))
    for number, one in enumerate(sets):
        if len(one) > 1:
            ops = [
                Op(
                    _site(layer, one[0].stack),
                    (read,),
                    torch.tensor([sorted(head.head for head in one if head.layer == layer)]),
                    _BANK,
                    row,
                )
                for layer in sorted({head.layer for head in one})
            ]
            made.append(Bundle(text, torch.tensor([number]), in_order(ops), read))
    return made


def _site(layer: int, stack: str) -> Site:
    return Site("hook_z", "attn", layer, stack)


def _indirect_effect(study: Study) -> Behaviour:
    """The rise for every head by itself, in the metric's unit, with attention to the examples' values beside it."""
    if "rises" not in study.memo:
        grid, found = head_grid(study.model), study.attention(END, LABELS)
        heads = [Head(layer, i, "attn", grid.stack) for layer, n in enumerate(grid.widths) for i in range(n)]
        rises = np.full(found.shape, np.nan)
        values = _rises(study, [(head,) for head in heads])
        for i, head in enumerate(heads):
            rises[:, head.layer, head.head] = values[:, i]
        study.memo["rises"] = rises
    return Behaviour(study.memo["rises"], {"attention": study.attention(END, LABELS)})


def _brought(study: Study, sets: Sequence[HeadSet], seed: int, report: Report | None = None) -> Harm:
    """The rise as a share of clean − corrupt."""
    known: dict[HeadSet, Grid] = study.memo.setdefault("harm:function_vector", {})
    if new := [one for one in dict.fromkeys(sets) if one not in known]:
        values = _rises(study, new) / distance(study)
        known.update({one: values[:, i] for i, one in enumerate(new)})
    if report is not None:
        report(1, 1)
    return {"function_vector": {one: known[one] for one in sets}}


def _by_function(study: Study) -> pd.DataFrame:
    """Each head's rise on each function alone, the best over all functions first. Empty without named functions."""
    names: Mapping[str, None] = dict.fromkeys(_functions(study))
    if set(names) == {_ALL}:
        return pd.DataFrame()
    rises = _indirect_effect(study).score
    whole = study.by_item(rises).mean(axis=0).reshape(rises.shape[1:])
    layers, heads = np.nonzero(~np.isnan(whole))
    table = pd.DataFrame({"layer": layers, "head": heads, "all": whole[layers, heads]})
    for name in names:
        mine = np.array(_functions(study)) == name
        table[name] = rises[mine].mean(axis=0)[layers, heads]
        table[f"{name}: items"] = len(set(study.items[mine].tolist()))
    return table.sort_values("all", ascending=False, kind="stable").reset_index(drop=True)


FINDER = TaskFinder(
    name="function_vector",
    definition="rise of p(answer) on a prompt with shuffled labels when the head's output at the end is set to its "
    "mean over clean prompts of the same function",
    task="few_shot",
    corruptions=("shuffled_labels",),
    positions=(LABELS,),
    queries=(END,),
    behaviour=_indirect_effect,
    score_cutoff=None,  # the score is what the head causes, and that is tested
    test=Test(
        "p(answer) on prompts with shuffled labels, head's output set to its mean over clean ones of the function",
        _brought,
        ("function_vector",),
        ("noise", "mean", "resample"),
    ),
    prepare=_find_means,
    needs_foil=False,
    tables={"few_shot: indirect effect of each head": _by_function},
)
