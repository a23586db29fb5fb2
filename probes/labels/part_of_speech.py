"""Parts of speech (Universal Dependencies' UPOS), word by word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.model.transformer import HookedTransformer
from interp.readers.conllu import ParsedSentence
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.sentences import OPTIONS, of_words
from probes.sources import Labelled

__all__ = ["LABELS"]

_TARGET = "part of speech"


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    return of_words(model, request, _line, [_TARGET])


def _line(sentence: ParsedSentence, number: int) -> Mapping[str, Any] | None:
    """Punctuation and what has no tag is left out."""
    tag = sentence.words[number].upos
    return None if tag in (None, "PUNCT", "SYM", "X", "_") else {"sentence": sentence.sent_id, _TARGET: tag}


LABELS = LabelSet(
    name="part_of_speech",
    definition="the part of speech of a word, punctuation left out",
    targets=(_TARGET,),
    unit="sentences",
    n=100,
    group="the word, small letters or not",
    make=_make,
    options=OPTIONS,
)
