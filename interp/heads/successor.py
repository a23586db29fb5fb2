"""Successor heads: their OV circuit turns a member of an ordered class into the next one (Gould 2023, §3).

The share of successors is read from the weights alone; that a head is used so, only exchanges of it show.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.circuits.ov_tokens import token_ov_logits
from interp.heads.facts import other_answers
from interp.heads.study import END, Study
from interp.heads.task_finder import Behaviour, TaskFinder, TaskWriting, Test
from interp.heads.ways import exchanges
from interp.tasks.succession import CYCLIC

__all__ = ["FINDER"]

Grid = NDArray[np.floating]


def _increments(study: Study) -> Behaviour:
    """Whether a head's OV on the prompt's last ordinal puts the answer above every other member of its class; beside it
    the same of what the head really moves from there to END. Chance is one over the size of the class."""
    own, classes = _ordinals(study), _classes(study)
    right = np.full((len(own), *study.attention(END, "ordinal").shape[1:]), np.nan)
    for members in dict.fromkeys(classes):
        mine = [i for i, one in enumerate(classes) if one == members]
        wanted = [(own[i], study.answers[i][0]) for i in mine]
        right[mine] = _hits(study, wanted, members)
    chance = study.by_item(np.array([[1 / len(one)] for one in classes]))
    beside = {"in_context": _in_context(study, classes), "attention": study.attention(END, "ordinal")}
    return Behaviour(right, beside, {"chance": float(chance.mean())})


def _in_context(study: Study, classes: Sequence[Sequence[int]]) -> Grid:
    """Whether what a head moves from the last ordinal to END, as it stands in context, raises the answer above every
    other member of its class, `[prompt layer head]`."""
    own = study.writes(END, "ordinal", up=study.answers)
    best = np.full_like(own, -np.inf)
    for rank in range(max(map(len, classes))):
        others = [members[rank % len(members)] for members in classes]
        found = study.writes(END, "ordinal", up=[[one] for one in others])
        itself = np.array([one in answers for one, answers in zip(others, study.answers, strict=True)])
        best = np.maximum(best, np.where(itself[:, None, None], -np.inf, found))
    return np.where(np.isnan(own), np.nan, own > best)


def _hits(study: Study, wanted: Sequence[tuple[int, int]], members: Sequence[int]) -> Grid:
    """`[pair layer head]`: 1 where the second of a pair of tokens is promoted most among the members for the first."""
    inputs = sorted({token for token, _ in wanted})
    device = study.model.device
    logits = token_ov_logits(
        study.model, torch.tensor(inputs, device=device), torch.tensor(list(members), device=device)
    )
    logits = logits.double().cpu().numpy()
    found = []
    for token, successor in wanted:
        given, at = logits[:, :, inputs.index(token)], members.index(successor)
        others = np.delete(given, at, axis=-1)
        best = (given[..., at] > others.max(axis=-1)).astype(float)
        found.append(np.where(np.isnan(given[..., at]), np.nan, best))
    return np.stack(found)


def _ordinals(study: Study) -> list[int]:
    """The token of each prompt's last ordinal."""
    return [row[study.span("ordinal", i)[-1]] for i, row in enumerate(study.main.clean)]


def _classes(study: Study) -> list[tuple[int, ...]]:
    """Members of each prompt's class; where prompts do not say it, all ordinals, answers and foils that there are."""
    known, relations = study.about.get("same_relation_answers", {}), study.labels.get("relation")
    if known and relations is not None:
        return [tuple(answer[0] for answer in known[name]) for name in relations]
    every = {token for both in (study.answers, study.foils) for some in both for token in some}
    return [tuple(sorted(every | set(_ordinals(study))))] * len(study.main)


def _moved(study: Study) -> Grid:
    """What a head moves from the last ordinal to END adds to the logit of its successor, less the mean over the other
    members of the class."""
    if "relation" in study.labels:
        return study.writes(END, "ordinal", up=study.answers, down=other_answers(study))
    down = [
        [one for one in members if one not in own] for members, own in zip(_classes(study), study.answers, strict=True)
    ]
    return study.writes(END, "ordinal", up=study.answers, down=down)


def _by_class(study: Study) -> pd.DataFrame:
    """Each head's share of successors over whole classes, by the weights alone: one column a class, and how many
    ordinals each rests on in `n`. Empty where prompts do not say their class."""
    known = study.about.get("same_relation_answers", {})
    if not known:
        return pd.DataFrame()
    shares, counts = {}, []
    for name, answers in known.items():
        members = [answer[0] for answer in answers]
        after = members[1:] + (members[:1] if name in CYCLIC else [])
        shares[name] = _hits(study, list(zip(members, after, strict=False)), members)
        counts.append(f"{name} {len(after)}")
    whole = np.concatenate(list(shares.values())).mean(axis=0)
    layers, heads = np.nonzero(~np.isnan(whole))
    table = pd.DataFrame({"layer": layers, "head": heads, "all": whole[layers, heads]})
    for name, hits in shares.items():
        table[name] = hits.mean(axis=0)[layers, heads]
    table["n"] = ", ".join(counts)
    return table.sort_values("all", ascending=False, kind="stable").reset_index(drop=True)


FINDER = TaskFinder(
    name="successor",
    definition="share of ordinals whose successor the head's OV (embedding + MLP 0) puts above every other member of "
    "the class",
    task="succession",
    corruptions=("start", "shuffled"),
    positions=("ordinal",),
    queries=(END,),
    behaviour=_increments,
    score_cutoff=0.5,  # of most ordinals; chance is one in seven or less
    margin=0.1,
    writing=TaskWriting("direct logit of the successor from the last ordinal, less the mean over its class", _moved),
    test=Test(
        "logit difference of the successor, head exchanged with that of a list begun elsewhere",
        exchanges,
        ("noise", "denoise"),
        ("mean", "resample"),
    ),
    tables={"successor: share of successors by class": _by_class},
)
