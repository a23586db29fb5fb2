"""How often heads find a word's partner, relation by relation, against rules that need no syntax.

Two rules are held against a head. *The best fixed offset* (Clark 2019): look so many words back or ahead, or at the
last word there is where there are fewer; the number that finds most partners in the very sentences the head is held to.
An offset chosen on other sentences may be far from the best one there, and a head that keeps to the best would pass.
*The same word for all*: how often the other words of the sentence look, by the same head, at the very partner. A head
that prefers one word form, or the first noun, whoever asks, finds many partners so and knows nothing of who depends on
whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.heads.syntax_attention import Looks
from interp.heads.syntax_words import LabelledTokens, Link, links

__all__ = ["LEAST_WORDS", "MAX_OFFSET", "Counts", "Name", "Rule", "best_rules", "count", "links_of"]

Name = tuple[str, str]  # relation, direction
Grid = NDArray[np.floating]
MAX_OFFSET = 10
LEAST_WORDS = 20  # of a relation on either half: below it no share is given


@dataclass(frozen=True)
class Counts:
    """One relation and direction on some sentences, summed over each sentence's words: how many words have partners,
    how many find one `[sentence, cell]` (cells are heads through the layers), with special tokens as rivals too, how
    many of the other words look at the same partner, and how many each fixed offset finds `[sentence, offset]`."""

    words: Grid
    hits: Grid
    hits_with_special: Grid
    other_words: Grid
    by_offset: Grid

    @property
    def n_words(self) -> int:
        return int(self.words.sum())

    @property
    def n_sentences(self) -> int:
        return int((self.words > 0).sum())

    def share(self, values: Grid) -> Grid:
        """Of all words that have partners."""
        return values.sum(axis=0) / self.words.sum()


@dataclass(frozen=True)
class Rule:
    """The best fixed offset of a relation and direction."""

    offset: int

    def hits(self, counts: Counts) -> Grid:
        """How many words of each sentence it finds the partner of."""
        return counts.by_offset[:, OFFSETS.index(self.offset)]

    def share(self, counts: Counts) -> float:
        return float(self.hits(counts).sum() / counts.words.sum())


OFFSETS = tuple(i for i in range(-MAX_OFFSET, MAX_OFFSET + 1) if i)


def best_rules(counts: Mapping[Name, Counts]) -> dict[Name, Rule]:
    """The offset that finds most partners; the nearer one of two that find as many."""
    found = {}
    for name, one in counts.items():
        total = one.by_offset.sum(axis=0)
        found[name] = Rule(min(OFFSETS, key=lambda i: (-total[OFFSETS.index(i)], abs(i), i)))
    return found


def links_of(sentences: Sequence[LabelledTokens], *, causal: bool) -> list[list[Link]]:
    return [links(one.arcs, causal=causal) for one in sentences]


def count(sentences: Sequence[LabelledTokens], looks: Looks, *, causal: bool) -> dict[Name, Counts]:
    """Counts of every relation and direction that these sentences have."""
    n_cells = looks.at.shape[1] * looks.at.shape[2]
    at = looks.at.reshape(len(sentences), n_cells, -1)
    special = looks.at_special.reshape(at.shape)
    found: dict[Name, dict[str, Grid]] = {}
    for i, (sentence, some) in enumerate(zip(sentences, links_of(sentences, causal=causal), strict=True)):
        n_words = len(sentence.words)
        others = _others(at[i, :, :n_words], sentence, causal=causal)
        for one in some:
            if causal and one.word < 2:
                continue  # it sees one word only, which is no choice
            sums = found.setdefault((one.relation, one.direction), _empty(len(sentences), n_cells))
            partners = sorted(one.partners)
            right = np.isin(at[i, :, one.word], partners)
            sums["words"][i] += 1
            sums["hits"][i] += right
            sums["hits_with_special"][i] += right & ~special[i, :, one.word]
            sums["other_words"][i] += others(one)
            last = one.word - 1 if causal else n_words - 1
            sums["by_offset"][i] += [min(max(one.word + k, 0), last) in one.partners for k in OFFSETS]
    return {name: Counts(**sums) for name, sums in sorted(found.items())}


def _empty(n_sentences: int, n_cells: int) -> dict[str, Grid]:
    cells = {name: np.zeros((n_sentences, n_cells)) for name in ("hits", "hits_with_special", "other_words")}
    return {"words": np.zeros(n_sentences), "by_offset": np.zeros((n_sentences, len(OFFSETS))), **cells}


def _others(at: NDArray[np.int16], sentence: LabelledTokens, *, causal: bool):
    """A function of a link: the share of the sentence's other words that look at its partners, `[cell]`."""
    there = [i for i, word in enumerate(sentence.words) if word]

    def share(one: Link) -> Grid:
        first = min(one.partners)
        some = [i for i in there if i != one.word and i not in one.partners and (i > first or not causal)]
        if not some:
            return np.zeros(len(at))
        return np.isin(at[:, some], sorted(one.partners)).mean(axis=1)

    return share
