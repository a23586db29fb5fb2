"""Prompts of agreement and of conflict are what they say: one thing changes, and controls control."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

import interp
from interp.circuits.cue_prompts import NOUNS, VERBS
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.tasks import conflict_words, fact_recall
from interp.tasks.agreement_words import FRAMES, PEOPLE, THINGS
from interp.tasks.countries import countries, nonce_words

SINGULAR = {verbs[1] for verbs in VERBS}
FACTS = {
    "capital": ["France", "Spain", "Italy", "Japan", "Egypt", "Greece", "Poland", "Peru", "Cuba", "Chile"],
    "language": ["France", "Spain", "Italy", "Japan", "Egypt", "Greece", "Poland", "Peru"],
}


def words(task, name: str, pair: int, side: str = "clean") -> str:
    row = getattr(task.pairs, side)[pair]
    return "".join(task.pairs.tokens_text[row[i]] for i in task.pairs.span(name, pair)).strip()


def changed(task, pair: int) -> list[int]:
    both = zip(task.pairs.clean[pair], task.pairs.corrupt[pair], strict=True)
    return [at for at, (a, b) in enumerate(both) if a != b]


# Agreement


@pytest.fixture(scope="module")
def agreement(smollm2):
    return {one: interp.tasks.load("agreement", smollm2, one, n=24, seed=2) for one in ("subject", "attractor")}


def test_the_answer_agrees_with_the_subject_and_not_with_the_attractor(agreement):
    every = {form: number for noun in (*PEOPLE, *THINGS) for number, form in enumerate(noun)}
    for task in agreement.values():
        for i, (answer, foil) in enumerate(zip(task.labels["answer_text"], task.labels["foil_text"], strict=True)):
            several = every[words(task, "subject", i)]
            assert (answer in SINGULAR) == (several == 0) == (task.labels["number"][i] == "singular")
            assert {answer, foil} == {f" {one}" for one in task.labels["verb"][i].split("/")}
            between = words(task, "attractor", i)
            same = (
                "no attractor" if between not in every else "congruent" if every[between] == several else "incongruent"
            )
            assert task.labels["congruence"][i] == same


@pytest.mark.parametrize("corruption", ["subject", "attractor"])
def test_only_the_number_of_one_noun_is_swapped(agreement, corruption):
    task = agreement[corruption]
    pairs = {form: noun for noun in (*PEOPLE, *THINGS) for form in noun}
    for i in range(len(task)):
        with_verb = corruption == "attractor" and task.labels["condition"][i] == "object relative"
        where = [*task.pairs.span(corruption, i), *([task.pairs.read[i]] if with_verb else [])]
        assert changed(task, i) == where and len(where) == 1 + with_verb
        before, after = (words(task, corruption, i, side) for side in ("clean", "corrupt"))
        assert {before, after} == set(pairs[before])


def test_each_corrupt_prompt_of_a_swapped_subject_is_a_clean_one_of_the_item_with_the_answers_turned_round(agreement):
    task = agreement["subject"]
    sides = [Counter(zip(task.items, rows, answer, foil, strict=True)) for rows, answer, foil in (
        (task.pairs.clean, task.pairs.answer, task.pairs.foil), (task.pairs.corrupt, task.pairs.foil, task.pairs.answer)
    )]  # fmt: skip
    assert sides[0] == sides[1]


def test_numbers_are_balanced_within_every_item_and_condition(agreement):
    task, counts = agreement["subject"], defaultdict(Counter)
    for item, *what in zip(task.items, *(task.labels[n] for n in ("condition", "number", "congruence")), strict=True):
        counts[item][tuple(what)] += 1
    assert len(counts) == 48 and all(len(one) == 10 and set(one.values()) == {1} for one in counts.values())
    assert {one[2] for one in counts[task.items[0]]} == {"no attractor", "congruent", "incongruent"}


def test_a_swapped_attractor_makes_congruent_prompts_incongruent(agreement):
    task = agreement["attractor"]
    assert set(task.labels["congruence"]) == {"congruent"} and set(task.labels["condition"]) == {
        "PP",
        "object relative",
    }
    assert set(Counter(task.items).values()) == {4}


def test_every_verb_meets_every_frame_and_the_end_is_never_the_attractor(agreement):
    task = agreement["subject"]
    met = set(zip(task.templates, task.labels["verb"], strict=True))
    assert len(met) == 12 * len(VERBS) and len(set(task.templates)) == 12
    for i in range(len(task)):
        subject, attractor, end = (task.pairs.span(name, i)[-1] for name in ("subject", "attractor", "END"))
        assert subject < attractor < end


def test_a_frame_ends_behind_its_slots_and_no_noun_stands_twice():
    for frames in FRAMES.values():
        for frame in frames:
            assert frame.text.index("{S}") < frame.text.index("{A}") and not frame.text.endswith("{A}")
            assert bool(frame.neutral) == (frame.condition == "none")
            assert frame.text.endswith("{V}") == bool(frame.verb[0]) == (frame.condition == "object relative")
        assert [frame.opening for frame in frames] == ["bare", "bare", "embedded", "embedded"], "both in either split"
    every = [form for noun in (*PEOPLE, *THINGS) for form in noun]
    assert len(set(every)) == len(every) and set(NOUNS) <= set(THINGS)


def test_the_verb_of_an_object_relative_agrees_with_the_attractor(agreement):
    task = agreement["subject"]
    for i, condition in enumerate(task.labels["condition"]):
        if condition == "object relative":
            same = task.labels["congruence"][i] == "congruent"
            several = (task.labels["number"][i] == "plural") == same
            assert words(task, "END", i).endswith("s") != several


def test_object_relatives_are_about_what_people_do(agreement):
    people = {form for noun in PEOPLE for form in noun}
    task = agreement["subject"]
    found = [words(task, "attractor", i) in people for i in range(len(task))]
    assert all(ok for ok, condition in zip(found, task.labels["condition"], strict=True) if "rel" in condition)
    assert not all(ok for ok, condition in zip(found, task.labels["condition"], strict=True) if condition == "PP")


def test_no_noun_of_agreement_is_in_both_splits(smollm2):
    seen = defaultdict(set)
    task = interp.tasks.load("agreement", smollm2, n=100)
    for split, subject, attractor, condition in zip(
        *(task.labels[n] for n in ("split", "subject", "attractor", "condition")), strict=True
    ):
        seen[split] |= {subject} | ({attractor} if condition != "none" else set())
    assert not seen["select"] & seen["report"] and min(map(len, seen.values())) >= 200


def test_more_nouns_than_there_are_names_the_largest_number(smollm2):
    with pytest.raises(
        InputError, match=r"n=10000 is more than there are: (\d+) nouns in select\. Ask for n=\1 or fewer"
    ):
        interp.tasks.load("agreement", smollm2, n=10_000)


# Conflict


def conflict(model, corruption: str, **options):
    return interp.tasks.load("conflict", model, corruption, n=8, seed=1, facts=FACTS, **options)


CORRUPTIONS = ["consistent", "irrelevant", "unknown"]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_context_says_something_false_of_the_subject_and_the_foil_is_the_truth(smollm2, corruption):
    task = conflict(smollm2, corruption)
    truth = {one.name: one.answers for one in countries()}
    every = {(relation, text) for answers in truth.values() for relation, text in answers.items()}
    for i, relation in enumerate(task.labels["relation"]):
        subject, said = task.labels["subject"][i], task.labels["said"][i]
        assert words(task, "subject", i) == words(task, "context_subject", i) == subject == task.items[i]
        assert words(task, "context_object", i) == said and task.labels["answer_text"][i] == f" {said}"
        assert task.labels["foil_text"][i] == f" {truth[subject][relation]}" and said != truth[subject][relation]
        assert (relation, said) in every, "something that is true of another country"
        assert task.labels["memory"][i] not in task.labels["clean_text"][i]
        assert len(task.pairs.answer[i][0]) == len(task.pairs.foil[i][0])
        assert task.pairs.answer[i][0][0] != task.pairs.foil[i][0][0]


def test_a_consistent_context_says_what_is_remembered_and_nothing_else_changes(smollm2):
    task = conflict(smollm2, "consistent")
    for i in range(len(task)):
        assert words(task, "context_object", i, "corrupt") == task.labels["memory"][i]
        assert set(changed(task, i)) <= set(task.pairs.span("context_object", i))


def test_an_irrelevant_context_leaves_the_question_as_it_is(smollm2):
    task, names = conflict(smollm2, "irrelevant"), {one.name for one in countries()}
    for i in range(len(task)):
        thing = words(task, "context_subject", i, "corrupt")
        assert thing.lower() in conflict_words.THINGS and not set(thing.split()) & names
        assert words(task, "context_object", i, "corrupt") in conflict_words.VALUES
        assert max(changed(task, i)) < task.pairs.span("subject", i)[0]
        assert task.labels["said"][i] not in task.labels["corrupt_text"][i]


def test_an_unknown_subject_is_made_up_and_the_same_in_context_and_question(smollm2):
    task, made_up = conflict(smollm2, "unknown"), set(nonce_words())
    for i in range(len(task)):
        name = task.labels["corrupt_subject"][i]
        assert name in made_up and task.labels["corrupt_text"][i].count(name) == 2
        assert name not in task.labels["said"][i] and name not in task.labels["memory"][i], "no hint at an answer"
        assert words(task, "subject", i, "corrupt") == words(task, "context_subject", i, "corrupt") == name
        places = {*task.pairs.span("subject", i), *task.pairs.span("context_subject", i)}
        assert set(changed(task, i)) <= places
        assert words(task, "context_object", i, "corrupt") == task.labels["said"][i]


def test_every_fact_is_put_into_at_least_four_templates_of_its_split(smollm2):
    task = conflict(smollm2, "consistent")
    met, split_of = defaultdict(set), {}
    for item, relation, template, split in zip(
        task.items, task.labels["relation"], task.templates, task.labels["split"], strict=True
    ):
        met[item, relation].add(template)
        split_of[template] = split
    assert all(len(one) == 4 for one in met.values()) and len(split_of) == 8
    assert Counter(split_of.values()) == {"select": 4, "report": 4}
    by_split = {
        split: {t.split(" ", 1)[1] for t, s in split_of.items() if s == split} for split in ("select", "report")
    }
    assert not by_split["select"] & by_split["report"] and {"story", "plain"} <= by_split["report"]


def test_the_frames_differ_and_every_slot_stands_once():
    texts = [one.text for one in conflict_words.FRAMES]
    assert len(texts) >= 8 and len(set(texts)) == len(texts) == len({one.name for one in conflict_words.FRAMES})
    for text in texts:
        assert all(text.count(f"{{{slot}}}") == 1 for slot in ("R", "CX", "CO", "Q", "X"))
        assert text.index("{X}") > max(text.index("{CX}"), text.index("{CO}"))


def test_things_values_and_made_up_names_are_not_shared_by_the_splits(smollm2):
    for corruption, label in (("irrelevant", "corrupt_context"), ("unknown", "corrupt_subject")):
        task, seen = conflict(smollm2, corruption), defaultdict(set)
        for split, said in zip(task.labels["split"], task.labels[label], strict=True):
            parts = {part.lower() for part in said.removeprefix("color of ").split(": ")}
            seen[split] |= parts
        assert min(map(len, seen.values())) >= 4 and not seen["select"] & seen["report"]


def test_only_what_the_model_knows_is_asked_and_measured_once(smollm2, monkeypatch):
    asked = []

    def judged(model, rows, wanted, candidates):
        asked.append(len(rows))
        return [sum(row[-5:]) % 3 == 0 for row in rows], [True for _ in rows]

    monkeypatch.setattr(fact_recall, "best_of", judged)
    known: dict = {}
    options = {"split": "report", "n": 1000, "known": known}
    first = interp.tasks.load("conflict", smollm2, "consistent", **options)
    other = interp.tasks.load("conflict", smollm2, "irrelevant", **options)
    assert len(asked) == 1 and set(other.items) <= set(first.items)
    facts = interp.tasks.load("fact_recall", smollm2, "noise", relations=["capital", "language"], **options)
    assert len(asked) == 1, "the same facts, so the same measurement"
    knows = set(zip(facts.labels["subject"], facts.labels["relation"], strict=True))
    asked_about = set(zip(first.labels["subject"], first.labels["relation"], strict=True))
    assert asked_about <= knows and len(knows) - len(asked_about) < 5
    again = interp.tasks.load("conflict", smollm2, "consistent", split="report", n=1000, facts=first.about["facts"])
    assert again.pairs == first.pairs and again.labels == first.labels


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "Give countries by relation"),
        (["France"], "Give countries by relation"),
        ({"river": ["France"]}, "no river of 'France'"),
        ({"capital": ["Mexico"]}, "no capital of 'Mexico' to ask for.*share a word"),
        ({"capital": ["France", "Peru"]}, "none could be put into a prompt.*no fact has another answer"),
    ],
)
def test_facts_that_cannot_be_asked_are_refused(smollm2, facts, message):
    with pytest.raises(InputError, match=message):
        interp.tasks.load("conflict", smollm2, facts=facts)


@pytest.mark.parametrize("name", ["agreement", "conflict"])
def test_a_model_without_a_tokenizer_is_told_to_give_pairs(name):
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=64, n_ctx=64))
    with pytest.raises(InputError, match=r"no tokenizer.*pairs="):
        interp.tasks.load(name, model)
