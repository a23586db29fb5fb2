"""Answers beside token ids: one for all rows or one each, of one token or said to be more, in words that fit."""

from __future__ import annotations

from typing import Any

import pytest

import interp
from interp.circuits.prompts import one_token, prompts
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from tests.model.conftest import _one_thread, talker, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]

ROWS = [[1, 2, 3], [4, 5, 6]]


def ids_of(talker: HookedTransformer, text: str) -> int:
    return one_token(talker, text, "answer", "w1")


def test_one_text_is_the_answer_of_every_row(talker: HookedTransformer) -> None:
    token = ids_of(talker, "w3")
    assert [one[0] for one in prompts(talker, ROWS, "w3").answer] == [(token,)] * 2
    found = interp.logit_attribution(talker, ROWS, answer="w3", foil=["w4", "w5"])
    same = interp.logit_attribution(talker, ROWS, answer=token, foil=[ids_of(talker, "w4"), ids_of(talker, "w5")])
    assert found.frame.equals(same.frame)
    assert prompts(talker, [ROWS[0]], [["w3", "w4"]]).answer == (((token,), (ids_of(talker, "w4"),)),)
    assert prompts(talker, [ROWS[0]], ["w3"]).answer == (((token,),),)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_answer_of_two_tokens_is_said_to_be_two_however_many_rows_there_are(
    n: int, talker: HookedTransformer
) -> None:
    """Two tokens were once taken for the answers of two rows, and refused with a wrong reason for other numbers."""
    rows = [[1, 2, 3 + i] for i in range(n)]
    assert [len(one[0]) for one in prompts(talker, rows, "w3 w4").answer] == [2] * n
    with pytest.raises(InputError, match="is 2 tokens; its"):
        interp.logit_attribution(talker, rows, answer="w3 w4")


@pytest.mark.parametrize("given", ["nonsense", ["w3", "nonsense"]])
def test_what_the_vocabulary_lacks_is_no_answer(given: Any, talker: HookedTransformer) -> None:
    assert talker.tokenizer is not None and talker.tokenizer.unk_id is not None
    with pytest.raises(InputError, match="'nonsense' is not in this vocabulary"):
        interp.logit_attribution(talker, ROWS, answer=given)
    with pytest.raises(InputError, match="The pin 'nonsense' is not in this vocabulary"):
        interp.lens(talker, ROWS, pins=["nonsense"])
    with pytest.raises(InputError, match="answer 'nonsense' is not in this vocabulary"):
        interp.ov(talker, "1.1").attribution(ROWS[:1], "nonsense")
    with pytest.raises(InputError, match="answer 'nonsense' is not in this vocabulary"):
        interp.explain_attention(talker, ROWS[:1], "1.1", 2, 1, confirm=True, answer="nonsense")


def test_other_counts_than_rows_are_refused_with_the_count(talker: HookedTransformer) -> None:
    with pytest.raises(InputError, match="There are 2 pairs, but answer has 3"):
        interp.logit_attribution(talker, ROWS, answer=["w1", "w2", "w3"])


def test_what_is_no_token_is_refused(unchecked: None, talker: HookedTransformer) -> None:
    for given, message in (
        (50, "ids 0 to 49"),
        (-1, "ids 0 to 49"),
        (True, "answer is True"),
        (2.0, "answer is 2.0"),
        ("", "is 0 tokens"),
        ("w1 w2", "is 2 tokens"),
    ):
        with pytest.raises(InputError, match=message):
            interp.ov(talker, "1.1").attribution(ROWS[:1], given)
        with pytest.raises(InputError, match=message):
            interp.explain_attention(talker, ROWS[:1], "1.1", 2, 1, confirm=True, answer=given)


def test_two_pins_that_read_alike_stay_two(talker: HookedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.circuits import lens as room

    monkeypatch.setattr(room, "token_texts", lambda model, ids: ["half" for _ in ids])
    found = interp.lens(talker, ROWS[:1], pins=[5, 9, 5])
    assert found.about["pins"] == {"half": 5, "half (9)": 9} and found.pins["pin"].nunique() == 2
