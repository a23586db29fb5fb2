"""The relation of a word to what it depends on, word by word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.heads.syntax_words import relation_of
from interp.model.transformer import HookedTransformer
from interp.readers.conllu import ParsedSentence
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.sentences import OPTIONS, of_words
from probes.sources import Labelled

__all__ = ["LABELS"]

_TARGET = "dependency relation"


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    return of_words(model, request, _line, [_TARGET])


def _line(sentence: ParsedSentence, number: int) -> Mapping[str, Any] | None:
    """Roots, punctuation and what joins no two words in a way of interest are left out."""
    word = sentence.words[number]
    relation = relation_of(word.deprel)
    return {"sentence": sentence.sent_id, "upos": word.upos or "", _TARGET: relation} if relation else None


LABELS = LabelSet(
    name="dependency",
    definition="the relation of a word to the word it depends on; roots and punctuation left out",
    targets=(_TARGET,),
    unit="sentences",
    n=100,
    group="the word, small letters or not",
    make=_make,
    options=OPTIONS,
)
