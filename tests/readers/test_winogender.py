"""Winogender sentences, their groups and their pairs."""

from __future__ import annotations

import pytest
import torch

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.readers import read_winogender
from tests.readers.conftest import WINOGENDER, Write, schema, table


def test_a_sentid_is_taken_apart(write: Write) -> None:
    found = read_winogender(write("w.tsv", table(WINOGENDER)))
    one = found[1]
    assert (one.occupation, one.participant, one.answer, one.gender) == ("baker", "guest", "participant", "female")
    assert one.sentence == "the baker told the guest that she could see ." and one.line == 3
    assert found[3].answer == "occupation"


def test_variants_of_a_sentence_are_grouped(write: Write) -> None:
    groups = read_winogender(write("w.tsv", table(WINOGENDER[:5]))).groups()
    assert list(groups) == [("baker", "guest", "participant"), ("baker", "guest", "occupation")]
    assert list(groups[("baker", "guest", "participant")]) == ["male", "female", "neutral"]
    assert list(groups[("baker", "guest", "occupation")]) == ["male", "female"]


def test_columns_may_stand_in_any_order_and_be_more(write: Write) -> None:
    text = "note\tsentence\tsentid\nx\ta guest .\tbaker.guest.0.male.txt\t\t\n"
    assert read_winogender(write("w.tsv", text))[0].sentence == "a guest ."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("baker.guest.0.male.txt", "it has 1 cells; the header has 2"),
        ("baker.guest.0.male.txt\ta\tb", "it has 3 cells"),
        ("baker.guest.male.txt\ta .", "is not OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt"),
        ("baker.guest.2.male.txt\ta .", "has answer '2' and gender 'male'"),
        ("baker.guest.0.man.txt\ta .", "has answer '0' and gender 'man'"),
        ("pilot.guest.0.male.txt\t ", "it has no sentence|has no sentence"),
        ("baker.guest.1.male.txt\tagain .", "stands already in .*line 2"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_line(line: str, message: str, write: Write) -> None:
    path = write("w.tsv", table(WINOGENDER) + line + "\n")
    with pytest.raises(InputError, match=f"line 8: .*({message})"):
        read_winogender(path)
    assert len(read_winogender(path, on_error="skip")) == 6


def test_a_file_without_the_header_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="line 1: the header should name sentid and sentence"):
        read_winogender(write("w.tsv", table(WINOGENDER).split("\n", 1)[1]), on_error="skip")
    with pytest.raises(InputError, match="has a header but no sentences"):
        read_winogender(write("w.tsv", "sentid\tsentence\n"))


def test_pairs_differ_in_the_pronoun_and_name_it(llama: HookedTransformer, write: Write) -> None:
    found = read_winogender(write("w.tsv", table(WINOGENDER)))
    pairs = found.to_pairs(llama)
    assert len(pairs) == 2 and pairs.items == ("baker", "baker") and not pairs.answer
    for i in range(2):
        assert pairs.span("pronoun", i) == (pairs.first_difference[i],)
        differ = [(a, b) for a, b in pairs.aligned(i) if a != b]
        assert differ == [("he", "she")]
    swapped = found.to_pairs(llama, "female", "neutral", prepend_bos=True)
    assert [two for two in swapped.aligned(0) if two[0] != two[1]] == [("she", "they")]
    assert swapped.span("pronoun", 0) == (pairs.span("pronoun", 0)[0] + 1,)
    assert not len(found.left_out(llama))


def test_schemas_that_give_no_pair_are_said(llama: HookedTransformer, write: Write) -> None:
    rows = [
        *WINOGENDER[:3],
        *schema(0, "the pilot told the guest that PRO was paid .", "pilot.guest")[:1],  # no female
        ("pilot.guest.1.male.txt", "the guest sees that he was paid ."),
        ("pilot.guest.1.female.txt", "the guest sees that she could see ."),
        ("cat.guest.1.male.txt", "the cat sees the old guest ."),
        ("cat.guest.1.female.txt", "the cat sees the red guest ."),
    ]
    found = read_winogender(write("w.tsv", table(rows)))
    assert len(found.to_pairs(llama)) == 1
    left = found.left_out(llama)
    assert list(left["why"]) == [
        "there is no female variant",
        "the variants differ in more than the pronoun",
        "the variants differ in more than the pronoun",
    ]
    with pytest.raises(InputError, match=r"No schema gives a pair of male and female.*left_out\(model\) says why"):
        read_winogender(write("v.tsv", table(rows[3:]))).to_pairs(llama)
    for two, message in ((("male", "man"), "'man' is no variant"), (("male", "male"), "are both 'male'")):
        with pytest.raises(InputError, match=message):
            found.to_pairs(llama, *two)


def test_pairs_can_be_patched(llama: HookedTransformer, write: Write) -> None:
    import interp

    pairs = read_winogender(write("w.tsv", table(WINOGENDER))).to_pairs(llama)
    at = ("layer", "position")
    effects = interp.patch(llama, pairs, "resid_pre", over=at, direction="noise", metric="kl")
    first = effects.mean().sel(layer=0)
    assert float(first.sel(position="pronoun")) > 0, "the pronoun's embedding is all that differs"
    assert torch.isfinite(torch.tensor(float(first.sum())))
