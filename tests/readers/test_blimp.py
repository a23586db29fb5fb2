"""Minimal pairs in BLiMP's layout."""

from __future__ import annotations

from typing import Any

import pytest

from interp.errors import InputError
from interp.readers import read_blimp
from tests.readers.conftest import BLIMP, Write, lines


def test_every_field_of_a_pair_is_kept(write: Write) -> None:
    pair = read_blimp(write("verb_number.jsonl", lines(BLIMP)))[0]
    assert (pair.good, pair.bad) == (BLIMP[0]["sentence_good"], BLIMP[0]["sentence_bad"])
    assert (pair.uid, pair.pair_id, pair.field, pair.phenomenon) == ("verb_number", "0", "morphology", "agreement")
    assert (pair.simple_lm_method, pair.one_prefix_method, pair.two_prefix_method) == (True, True, False)
    assert pair.one_prefix_prefix == "the cats see the old" and pair.two_prefix_word is None
    assert pair.lexically_identical is False and pair.line == 1


def test_a_file_without_names_goes_by_its_own_and_the_lines(write: Write) -> None:
    bare = [{name: one[name] for name in ("sentence_good", "sentence_bad")} for one in BLIMP]
    found = read_blimp(write("my_pairs.jsonl.gz", lines(bare)))
    assert [(one.uid, one.pair_id) for one in found] == [("my_pairs", "1"), ("my_pairs", "2")]
    assert found[0].field is None and found[0].simple_lm_method is None


def test_pair_ids_may_be_numbers_under_either_name(write: Write) -> None:
    records = [
        {**BLIMP[0], "pairID": 5},
        {name: v for name, v in BLIMP[1].items() if name != "pairID"} | {"pair_id": 6},
    ]
    assert [one.pair_id for one in read_blimp(write("x.jsonl", lines(records)))] == ["5", "6"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentence_bad": None}, "'sentence_bad' is 'None', not a text"),
        ({"sentence_bad": "  "}, "not a text"),
        ({"UID": 3}, "'UID' is '3', not a text"),
        ({"pairID": [1]}, r"'pairID' is \[1\]"),
        ({"pairID": "0"}, "pair '0' of 'verb_number' stands already in .*line 1"),
        ({"one_prefix_method": "true"}, "'one_prefix_method' is 'true', not true or false"),
        ({"one_prefix_prefix": 3}, "'one_prefix_prefix' is '3', not a text"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_with_its_line(
    change: dict[str, Any], message: str, write: Write
) -> None:
    path = write("x.jsonl", lines([BLIMP[0], {**BLIMP[1], **change}]))
    with pytest.raises(InputError, match=f"line 2: .*{message}"):
        read_blimp(path)
    assert [one.line for one in read_blimp(path, on_error="skip").problems] == [2]
