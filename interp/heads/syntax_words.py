"""Labelled sentences as a model reads them: which tokens a word is made of, and which words depend on which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.readers.conllu import ParsedSentence

__all__ = ["DIRECTIONS", "RELATIONS", "LabelledTokens", "Link", "labelled", "links", "relation_of", "role_of"]

Arc = tuple[str, int, int]
DIRECTIONS = ("head → dependent", "dependent → head")
RELATIONS = {  # what the head and the dependent of a relation are called
    "nsubj": ("verb", "subject"),
    "nsubj:pass": ("verb", "passive subject"),
    "obj": ("verb", "object"),
    "iobj": ("verb", "indirect object"),
    "obl": ("verb", "noun behind a preposition"),
    "nmod": ("noun", "noun behind a preposition"),
    "nmod:poss": ("noun", "possessor"),
    "case": ("noun", "preposition"),
    "det": ("noun", "determiner"),
    "amod": ("noun", "adjective"),
    "nummod": ("noun", "numeral"),
    "compound": ("noun", "modifying noun"),
    "advmod": ("modified word", "adverb"),
    "aux": ("verb", "auxiliary"),
    "aux:pass": ("verb", "passive auxiliary"),
    "cop": ("predicate", "copula"),
    "conj": ("first conjunct", "later conjunct"),
    "cc": ("conjunct", "conjunction"),
    "mark": ("verb", "marker"),
    "acl:relcl": ("noun", "verb of its relative clause"),
    "advcl": ("verb", "verb of the adverbial clause"),
    "ccomp": ("verb", "verb of its clause"),
    "xcomp": ("verb", "open complement"),
    "pobj": ("preposition", "noun"),
    "prep": ("word", "preposition"),
}
_SAME = {"dobj": "obj", "poss": "nmod:poss", "relcl": "acl:relcl", "nsubjpass": "nsubj:pass", "auxpass": "aux:pass"}
_SUBTYPES = ("nsubj:pass", "nmod:poss", "aux:pass", "acl:relcl")
_NO_RELATION = ("punct", "root", "dep", "discourse", "reparandum", "orphan", "goeswith")


@dataclass(frozen=True)
class LabelledTokens:
    """A sentence in token ids. `words` has the positions of each word's tokens, in order; `arcs` are (relation,
    dependent, head), words counted from 0. Positions of no word (BOS, `[CLS]`) are special. Checked by `must_fit`."""

    tokens: Sequence[int]
    words: Sequence[Sequence[int]]
    arcs: Sequence[Arc]

    def must_fit(self) -> None:
        """Raise `InputError` where a word has a token that is not there or another word's, or an arc no word."""
        held: set[int] = set()
        for number, word in enumerate(self.words):
            if not set(word) <= set(range(len(self.tokens))):
                raise InputError(f"Word {number} has the tokens {list(word)}; the row has {len(self.tokens)}.")
            if held & set(word):
                raise InputError(f"Word {number} has tokens of an earlier word: {sorted(held & set(word))}.")
            held |= set(word)
        for relation, dependent, head in self.arcs:
            if not {dependent, head} <= set(range(len(self.words))) or dependent == head:
                raise InputError(
                    f"The arc {relation} joins words {dependent} and {head}; words count from 0 to "
                    f"{len(self.words) - 1}, and no word depends on itself."
                )


@dataclass(frozen=True)
class Link:
    """A word and its right partners in one relation and direction: a verb and its objects, an adjective and its
    noun."""

    relation: str
    direction: str
    word: int
    partners: frozenset[int]


def labelled(sentence: ParsedSentence, tokenizer: Any, *, bos: bool | None) -> LabelledTokens:
    """A parsed sentence in a tokenizer's ids; `bos` as in `Tokenizer.encode`.

    A token belongs to the word that it shares most characters with. A word without a token of its own (the second of
    two that are written as one, "don't" as one token) is nobody's partner: its arcs are left out.
    """
    bare = tokenizer.backend.encode(sentence.text, add_special_tokens=False)
    row = tokenizer.encode(sentence.text, prepend_bos=bos)
    front = next((i for i in range(len(row) - len(bare.ids) + 1) if row[i : i + len(bare.ids)] == bare.ids), None)
    if front is None:
        raise InputError(f"The tokenizer frames {sentence.text!r} in a way that hides its tokens. Leave it out.")
    words: list[list[int]] = [[] for _ in sentence.words]
    for position, (start, stop) in enumerate(bare.offsets):
        shared = [min(stop, last) - max(start, first) for first, last in sentence.spans]  # characters
        if max(shared, default=0) > 0:
            words[shared.index(max(shared))].append(front + position)
    arcs = [
        (relation, number, word.head - 1)
        for number, word in enumerate(sentence.words)
        if word.head and (relation := relation_of(word.deprel)) and words[number] and words[word.head - 1]
    ]
    return LabelledTokens(tuple(row), tuple(map(tuple, words)), tuple(arcs))


def relation_of(deprel: str | None) -> str:
    """The relation that a label stands for: subtypes that are no relation of their own are dropped, ClearNLP's names
    become those of Universal Dependencies. "" for what joins no two words in a way of interest."""
    name = (deprel or "").lower()
    name = _SAME.get(name, name)
    name = name if name in _SUBTYPES else name.split(":")[0]
    return "" if name in _NO_RELATION else name


def links(arcs: Sequence[Arc], *, causal: bool) -> list[Link]:
    """All links of a sentence, both directions. Where attention is `causal` a word sees only what stands before it:
    later partners are none, and a word without an earlier one has no link."""
    found: dict[tuple[str, str, int], set[int]] = {}
    for relation, dependent, head in arcs:
        found.setdefault((relation, DIRECTIONS[0], head), set()).add(dependent)
        found.setdefault((relation, DIRECTIONS[1], dependent), set()).add(head)
    seen = ((key, frozenset(one for one in some if not causal or one < key[2])) for key, some in sorted(found.items()))
    return [Link(*key, partners) for key, partners in seen if partners]


def role_of(relation: str, direction: str) -> str:
    """A relation and direction in words: "nsubj: verb → subject"."""
    head, dependent = RELATIONS.get(relation, ("head", "dependent"))
    both = (head, dependent) if direction == DIRECTIONS[0] else (dependent, head)
    return f"{relation}: {' → '.join(both)}"
