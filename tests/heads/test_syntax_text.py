"""Raw text: what spaCy's trees become, and what is said where there is no spaCy."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

import interp
from interp.errors import InputError
from interp.heads import syntax_text
from interp.heads.base import finders
from interp.heads.syntax_text import MODELS, can_parse, parsed_text, sentences_of
from tests.heads.syntax_models import reader

TEXT = "The gardener near the bridge painted a small boat."


@dataclass(eq=False)
class Token:
    """As much of spaCy's token as is read."""

    i: int
    text: str
    pos_: str
    dep_: str
    whitespace_: str = " "
    is_space: bool = False
    head: Token | None = None
    children: list[Token] = field(default_factory=list)


def document(*rows: tuple[str, str, str, int], spaces: tuple[int, ...] = ()) -> SimpleNamespace:
    """A parsed document of one sentence: text, part of speech, label, and the number of the head."""
    tokens = [Token(i, *row[:3], is_space=i in spaces) for i, row in enumerate(rows)]
    for token, row in zip(tokens, rows, strict=True):
        token.head = tokens[row[3]]
        if token.head is not token:
            token.head.children.append(token)
    tokens[-1].whitespace_ = ""
    return SimpleNamespace(sents=[tokens])


def test_prepositions_hang_on_their_nouns_and_these_on_what_prepositions_hung_on():
    parse = document(
        ("The", "DET", "det", 1),
        ("gardener", "NOUN", "nsubj", 5),
        ("near", "ADP", "prep", 1),
        ("the", "DET", "det", 4),
        ("bridge", "NOUN", "pobj", 2),
        ("painted", "VERB", "ROOT", 5),
        ("boats", "NOUN", "dobj", 5),
        ("with", "ADP", "prep", 5),
        ("care", "NOUN", "pobj", 7),
        ("not", "PART", "neg", 5),
    )
    (one,) = sentences_of(parse)
    found = [(word.form, word.head, word.deprel) for word in one.words]
    assert found == [
        ("The", 2, "det"),
        ("gardener", 6, "nsubj"),
        ("near", 5, "case"),
        ("the", 5, "det"),
        ("bridge", 2, "nmod"),
        ("painted", 0, "root"),
        ("boats", 6, "obj"),
        ("with", 9, "case"),
        ("care", 6, "obl"),
        ("not", 6, "advmod"),
    ]
    assert (
        one.has_tree and one.text == "The gardener near the bridge painted boats with care not" and len(one.spans) == 10
    )


def test_blank_tokens_are_no_words_and_very_short_sentences_are_left_out():
    (one,) = sentences_of(
        document(
            ("Dogs", "NOUN", "nsubj", 2),
            ("\n", "SPACE", "dep", 2),
            ("bark", "VERB", "ROOT", 2),
            (".", "PUNCT", "punct", 2),
            spaces=(1,),
        )
    )
    assert [(word.form, word.head) for word in one.words] == [("Dogs", 2), ("bark", 0), (".", 2)]
    assert sentences_of(document(("Dogs", "NOUN", "nsubj", 1), ("bark", "VERB", "ROOT", 1))) == []


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ({"spacy", *MODELS}, r"spaCy is not installed\. Install it: pip install \"interp\[syntax\]\""),
        (set(MODELS), "spaCy is installed, but none of its English models: en_core_web_trf"),
    ],
)
def test_without_a_parser_raw_text_is_refused_with_what_to_install(missing, says, tmp_path, monkeypatch):
    monkeypatch.setattr(syntax_text, "find_spec", lambda name: None if name in missing else object())
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    with pytest.raises(InputError, match=says + r".*CoNLL-U files"):
        interp.find_heads(reader(), "syntax", corpus=tmp_path / "mine.txt")
    assert not can_parse() and not finders()["syntax"].suits(reader(), tmp_path / "mine.txt")
    assert finders()["syntax"].suits(reader(), None)


def test_the_users_text_goes_through_the_parser_that_is_given(tmp_path):
    (tmp_path / "mine.txt").write_text("Dogs bark loudly.", encoding="utf-8")
    heard = []

    def parser(text):
        heard.append(text)
        return document(("Dogs", "NOUN", "nsubj", 1), ("bark", "VERB", "ROOT", 1), ("loudly", "ADV", "advmod", 1))

    found, source = parsed_text(tmp_path, parser)
    assert heard == ["Dogs bark loudly."] and found[0].words[0].deprel == "nsubj" and "spaCy" in source


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_spacy_itself_parses_raw_text(tmp_path):
    pytest.importorskip("spacy", reason='spaCy is an extra: pip install "interp[syntax]"')
    if not any(find_spec(name) for name in MODELS):
        pytest.skip('no English model of spaCy: pip install "interp[syntax]"')
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    (one,), source = parsed_text(tmp_path / "mine.txt")
    words = {word.form: (word.deprel, one.words[(word.head or 1) - 1].form) for word in one.words}
    assert words["gardener"] == ("nsubj", "painted") and words["boat"] == ("obj", "painted")
    assert words["near"] == ("case", "bridge") and words["bridge"] == ("nmod", "gardener")
    assert words["small"] == ("amod", "boat") and "en_core_web" in source
