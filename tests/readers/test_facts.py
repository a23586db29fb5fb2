"""Facts in the layouts of known_1000 and CounterFact, and as pairs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.readers import read_facts
from tests.readers.conftest import COUNTERFACT, KNOWN, Write, lines


def test_a_whole_prompt_is_taken_as_it_is_and_the_subject_found_in_it(write: Write) -> None:
    found = read_facts(write("known_1000.json", json.dumps(KNOWN)))
    one = found[3]
    assert (one.id, one.prompt, one.subject, one.attribute) == ("3", "the Lake Como lies in", "Lake Como", "Italy")
    assert one.prompt[slice(*one.span)] == "Lake Como" and one.template == "the {} lies in"
    assert one.relation == one.group == "P17" and one.target_new is None


def test_a_prompt_with_a_slot_gets_its_subject(write: Write) -> None:
    one = read_facts(write("counterfact.json", json.dumps(COUNTERFACT)))[1]
    assert (one.id, one.prompt, one.attribute, one.target_new) == ("8", "the capital of Norway is", "Oslo", "Rome")
    assert one.prompt[slice(*one.span)] == "Norway" and one.template == "the capital of {} is"
    assert one.paraphrase_prompts == ("very old Norway is",) and one.relation == "P36"


def test_targets_may_be_plain_texts(write: Write) -> None:
    record = {"prompt": "the capital of Italy is", "subject": "Italy", "target_true": " Rome", "target_new": "Oslo"}
    one = read_facts(write("flat.jsonl", lines([record])))[0]
    assert (one.attribute, one.target_new, one.relation, one.group) == ("Rome", "Oslo", None, "the capital of {} is")


def test_a_subject_that_is_part_of_an_earlier_word_is_found_as_a_word(write: Write) -> None:
    record = {"prompt": "Canada honours Ada in", "subject": "Ada", "attribute": "Rome"}
    lower = {"prompt": "canada honours ada in", "subject": "ada", "attribute": "Rome"}
    for one in read_facts(write("x.jsonl", lines([record, lower]))):
        assert one.span == (15, 18)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"subject": "Rome", "attribute": "Italy"}, "there is no 'prompt' that is a text"),
        ({"prompt": "Rome lies in", "attribute": "Italy"}, "there is no 'subject'"),
        ({"prompt": "Rome lies in", "subject": "Rome"}, "neither 'attribute' nor 'target_true'"),
        ({"prompt": "Oslo lies in", "subject": "Rome", "attribute": "Italy"}, "'Rome' does not stand in the prompt"),
        ({"prompt": "{} or {}", "subject": "Rome", "attribute": "Italy"}, "has 2 places for the subject"),
        ({"prompt": "{} in", "subject": "Rome", "target_true": {"id": "Q1"}}, "there is no 'str'"),
        ({"prompt": "{} in", "subject": "Rome", "attribute": "Italy", "relation_id": 3}, "'relation_id' is 3"),
        ({"requested_rewrite": 3}, "'requested_rewrite' is not an object"),
        (
            {"requested_rewrite": COUNTERFACT[0]["requested_rewrite"], "paraphrase_prompts": "one"},
            "'paraphrase_prompts' is not a list",
        ),
    ],
)
def test_a_fact_that_cannot_be_used_is_refused_with_its_line(record: Any, message: str, write: Write) -> None:
    path = write("x.jsonl", lines([KNOWN[0], record]))
    with pytest.raises(InputError, match=f"line 2: .*{message}"):
        read_facts(path)
    assert len(read_facts(path, on_error="skip")) == 1


def test_pairs_ask_the_same_of_another_subject_of_as_many_tokens(llama: HookedTransformer, write: Write) -> None:
    facts = read_facts(write("known.json", json.dumps(KNOWN)))
    pairs = facts.to_pairs(llama)
    # Rome and Turin have one other attribute to go to, Oslo; Lake Como has two tokens and no partner.
    assert pairs.items == ("Rome", "Oslo", "Turin") and set(pairs.templates) == {"P17"}
    for i, (attribute, other) in enumerate([("Italy", "Norway"), ("Norway", "Italy"), ("Italy", "Norway")]):
        assert pairs.spell(pairs.answer[i][0]) == repr(attribute) and pairs.spell(pairs.foil[i][0]) == repr(other)
        differ = [at for at, (a, b) in enumerate(pairs.aligned(i)) if a != b]
        assert tuple(differ) == pairs.span("subject", i)
    left = facts.left_out(llama)
    assert list(left["id"]) == ["3"] and list(left["why"]) == ["no other subject of its relation has as many tokens"]


def test_the_seed_alone_chooses_the_partner(llama: HookedTransformer, write: Write) -> None:
    subjects = ["cat", "cats", "dog", "dogs", "baker", "guest", "pilot", "he"]
    answers = ["Rome", "Oslo", "Turin", "Bergen", "Italy", "Norway", "Como", "red"]
    records = [
        {**KNOWN[0], "subject": one, "prompt": f"the {one} lies in", "attribute": answer, "known_id": i}
        for i, (one, answer) in enumerate(zip(subjects, answers, strict=True))
    ]
    facts = read_facts(write("x.json", json.dumps(records)))
    assert facts.to_pairs(llama, seed=1) == facts.to_pairs(llama, seed=1)
    assert len({facts.to_pairs(llama, seed=seed).corrupt for seed in range(4)}) > 1
    assert facts.to_pairs(llama, prepend_bos=True).clean[0][0] == 1


def test_facts_without_any_partner_are_refused_and_said(llama: HookedTransformer, write: Write) -> None:
    facts = read_facts(write("x.json", json.dumps([KNOWN[0], KNOWN[2]])))
    with pytest.raises(InputError, match=r"None of the 2 facts has a partner: no other subject .* another attribute"):
        facts.to_pairs(llama)
    strange = read_facts(write("y.json", json.dumps([{**KNOWN[0], "attribute": "Atlantis"}, KNOWN[1]])))
    assert strange.left_out(llama)["why"][0] == "its attribute 'Atlantis' is not in the vocabulary"


def test_facts_of_counterfact_make_pairs_that_run(llama: HookedTransformer, write: Write) -> None:
    import interp

    pairs = read_facts(write("c.json", json.dumps(COUNTERFACT))).to_pairs(llama)
    assert len(pairs) == 2
    effects = interp.patch(llama, pairs, "resid_pre", over=("layer", "position"))
    moved = effects.mean().sel(layer=0, position="subject")
    whole = float((effects.source - effects.base).mean())
    assert float(moved) == pytest.approx(whole, abs=1e-4), "the subject is all that differs"
