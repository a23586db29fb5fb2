"""Trees for structural probes (Hewitt & Manning 2019): the depth of every word, and which word it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.readers.conllu import ParsedSentence
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.sentences import OPTIONS, of_words
from probes.sources import Labelled

__all__ = ["LABELS", "tree_depths", "tree_distances"]

_TARGET = "tree depth"


def tree_distances(heads: Sequence[int]) -> NDArray[np.int64]:
    """Steps between any two words of a tree, `[word word]`. `heads` are the places of their heads, from 0; −1 for the
    root. Raises `InputError` for what is no tree."""
    _must_be_tree(heads)
    n = len(heads)
    paths = [_path(heads, word) for word in range(n)]
    found = np.zeros((n, n), dtype=np.int64)
    for a in range(n):
        steps = {word: i for i, word in enumerate(paths[a])}
        for b in range(a):
            up = next(i for i, word in enumerate(paths[b]) if word in steps)
            found[a, b] = found[b, a] = up + steps[paths[b][up]]
    return found


def tree_depths(heads: Sequence[int]) -> NDArray[np.int64]:
    """Steps from the root to each word of a tree, as `tree_distances` takes it."""
    _must_be_tree(heads)
    return np.array([len(_path(heads, word)) - 1 for word in range(len(heads))], dtype=np.int64)


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    numbers: dict[int, int] = {}

    def line(sentence: ParsedSentence, number: int) -> Mapping[str, Any]:
        heads = [(word.head or 0) - 1 for word in sentence.words]
        name = f"sentence {numbers.setdefault(id(sentence), len(numbers))}"
        upos = sentence.words[number].upos or ""
        depth = len(_path(heads, number)) - 1
        return {"group": name, "sentence": name, "word": number, "head": heads[number], "upos": upos, _TARGET: depth}

    return of_words(model, request, line, [_TARGET], whole=True)


def _path(heads: Sequence[int], word: int) -> list[int]:
    """From a word up to the root."""
    found = [word]
    while heads[found[-1]] >= 0:
        found.append(heads[found[-1]])
    return found


def _must_be_tree(heads: Sequence[int]) -> None:
    n, roots = len(heads), [word for word, head in enumerate(heads) if head == -1]
    if len(roots) != 1 or any(not -1 <= head < n for head in heads):
        raise InputError(f"heads={list(heads)} is no tree: one word has head −1, the others one of 0 to {n - 1}.")
    for word in range(n):
        seen = set()
        while word >= 0:
            if word in seen:
                raise InputError(f"heads={list(heads)} is no tree: word {word} depends on itself.")
            seen.add(word)
            word = heads[word]


LABELS = LabelSet(
    name="dependency_tree",
    definition="how many steps a word is from the root of its sentence; the columns word and head hold the tree",
    targets=(_TARGET,),
    unit="sentences",
    n=100,
    group="the sentence",
    make=_make,
    options=OPTIONS,
)
