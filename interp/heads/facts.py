"""What the kinds that serve facts share: the attribute that a head moves from the subject, and the class of answers
that it moves from the relation (Chughtai 2024)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from interp.heads.study import END, Study

__all__ = ["MARGIN", "attribute_logit", "class_logit", "even_share", "mixed", "other_answers"]

Grid = NDArray[np.floating]
MARGIN = 0.05  # above what even attention would give; a mixed head of a planted model reaches .09
_MUCH_MORE = 2.0  # times as much from one source as from the other is not mixed
_LEAST = 1e-6  # logits


def even_share(study: Study, name: str) -> float:
    """The share of what END sees that a position takes: what even attention would give it."""
    shares = [len(study.span(name, i)) / (study.span(END, i)[-1] + 1) for i in range(len(study.main))]
    return float(study.by_item(np.array(shares)[:, None]).mean())


def other_answers(study: Study) -> list[list[int]]:
    """First tokens of the answers of the same relation, each prompt's own left out; of all prompts' answers and foils
    where the relation is not known."""
    by_relation = study.about.get("same_relation_answers", {})
    relations = study.labels.get("relation", [None] * len(study.main))
    every = sorted({token for both in (study.answers, study.foils) for some in both for token in some})
    classes = {name: sorted({answer[0] for answer in answers}) for name, answers in by_relation.items()}
    return [
        [token for token in classes.get(relation, every) if token not in own] or list(foil)
        for relation, own, foil in zip(relations, study.answers, study.foils or study.answers, strict=True)
    ]


def attribute_logit(study: Study, source: str = "") -> Grid:
    """Direct logit of the answer, less the mean over the relation's other answers, of what a head writes at END: all
    of it, or what it moves from one place."""
    return study.writes(END, source, up=study.answers, down=other_answers(study))


def class_logit(study: Study, source: str = "") -> Grid:
    """Mean direct logit of all answers of the prompt's relation, less that of all answers of the others; NaN where
    there is no other relation. Tokens that answer both are left out."""
    own = _classes(study)
    every = {name: set(tokens) for name, tokens in own}
    up, down = [], []
    for name, tokens in own:
        others = set().union(*(some for other, some in every.items() if other != name))
        up.append(sorted(tokens - others))
        down.append(sorted(others - tokens))
    there = np.array([bool(a and b) for a, b in zip(up, down, strict=True)])
    found = study.writes(END, source, up=[one or [0] for one in up], down=[one or [0] for one in down])
    found[~there] = np.nan
    return found


def _classes(study: Study) -> Sequence[tuple[Hashable, set[int]]]:
    """Of each prompt: its relation, and the first tokens of that relation's answers. Where prompts do not say their
    relation, it is what stands at that position."""
    by_relation = study.about.get("same_relation_answers")
    if by_relation is not None and "relation" in study.labels:
        classes = {name: {answer[0] for answer in answers} for name, answers in by_relation.items()}
        return [(name, classes[name]) for name in study.labels["relation"]]
    main = study.main
    words = [tuple(main.clean[i][at] for at in main.span("relation", i)) for i in range(len(main))]
    found: dict[tuple[int, ...], set[int]] = {}
    for word, answers in zip(words, study.answers, strict=True):
        found.setdefault(word, set()).update(answers)
    return [(word, found[word]) for word in words]


def mixed(study: Study, own: Grid, other: Grid, name: str) -> np.ndarray:
    """A word for each head `[layer head]`: `name` where it writes `own`, "mixed" where it writes about as much of
    `other`, and "" where it writes nothing of its own."""
    mine, theirs = (study.by_item(one).mean(axis=0).reshape(one.shape[1:]) for one in (own, other))
    words = np.full(mine.shape, "", dtype="<U8")
    words[mine > _LEAST] = name
    words[(mine > _LEAST) & (_MUCH_MORE * theirs > mine)] = "mixed"
    return words
