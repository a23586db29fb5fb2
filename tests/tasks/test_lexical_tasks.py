"""Succession, retrieval, related words and few-shot prompts: what each promises of words, places and corruptions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.tasks import few_shot, related_words, retrieval, succession
from interp.tasks.functions import functions
from interp.tasks.related_pairs import FRAMES, PAIRS
from interp.tasks.succession import CLASSES, CYCLIC
from interp.tasks.words import in_turns


@pytest.fixture
def knows(monkeypatch):
    """Whatever is asked is known, so that no model has to be run."""
    for module in (related_words, few_shot):
        monkeypatch.setattr(module, "best_of", lambda model, rows, *_: ([True] * len(rows), [True] * len(rows)))
    monkeypatch.setattr(retrieval, "written", lambda model, rows, values: [(True,) * 3] * len(rows))


def word(task, name: str, pair: int, side: str = "clean") -> str:
    row = getattr(task.pairs, side)[pair]
    return "".join(task.pairs.tokens_text[row[i]] for i in task.pairs.span(name, pair)).strip()


def text(task, pair: int, side: str) -> str:
    return task.labels[f"{side}_text"][pair]


# Succession


def after(name: str, member: str) -> str:
    words = CLASSES[name]
    at = words.index(member) + 1
    return words[at % len(words)] if name in CYCLIC else words[at]


@pytest.mark.parametrize("corruption", ["start", "shuffled"])
def test_answers_are_successors_and_the_corrupt_prompt_does_not_say_them(smollm2, corruption):
    task = interp.tasks.load("succession", smollm2, corruption, n=100)
    for i, name in enumerate(task.labels["relation"]):
        answer, foil = (task.labels[f"{side}_text"][i].strip() for side in ("answer", "foil"))
        assert answer == after(name, word(task, "ordinal", i)) != foil and foil in CLASSES[name]
        said = [one.strip(",") for one in text(task, i, "corrupt").split()]
        assert answer not in said
        last = word(task, "ordinal", i, "corrupt")
        if corruption == "start":
            assert foil == after(name, last) and last != word(task, "ordinal", i)
        else:
            assert last == word(task, "ordinal", i) and task.labels["asked"][i] == "list"
            listed = [one for one in said if one in CLASSES[name]][-3:]
            assert all(a == CLASSES[name][-1] or after(name, a) != b for a, b in pairwise(listed))


def test_every_item_is_asked_behind_a_list_and_by_itself(smollm2):
    task = interp.tasks.load("succession", smollm2, n=100)
    asked = Counter(zip(task.items, task.labels["asked"], strict=True))
    assert set(asked.values()) == {1} and len(asked) == 2 * len(set(task.items))
    assert min(task.about["items"].values()) >= 30 and "numbers" in task.about["left_out"]
    assert len(set(task.labels["relation"])) == 7


def test_a_class_ends_before_a_member_of_several_tokens(smollm2):
    task = interp.tasks.load("succession", smollm2, n=100)
    ids = task.about["same_relation_answers"]
    assert len(ids["roman numerals"]) == 14 and len(ids["letters"]) == 26
    assert succession._single_tokens(smollm2, ("one", "two", "seventeenhundred", "four")) == ("one", "two")


def test_turns_give_each_group_its_first_before_any_its_second():
    assert in_turns(["a1", "a2", "b1", "a3", "c1", "b2"], lambda one: one[0]) == ["a1", "b1", "c1", "a2", "b2", "a3"]


# Retrieval


@pytest.mark.parametrize("corruption", ["value", "needle"])
def test_the_needle_says_each_word_that_is_asked_for(smollm2, knows, corruption):
    task = interp.tasks.load("retrieval", smollm2, corruption, n=6)
    steps = Counter(task.items)
    assert set(steps.values()) == {3}
    for i, step in enumerate(task.labels["step"]):
        clean, corrupt = task.pairs.clean[i], task.pairs.corrupt[i]
        (at,) = task.pairs.span("copied", i)
        answer, foil = task.pairs.answer[i][0][0], task.pairs.foil[i][0][0]
        needle = task.pairs.span("needle", i)
        assert clean[at] == answer and clean.count(answer) == 1 and answer not in corrupt and at in needle
        written = list(clean[len(clean) - step + 1 :]) if step > 1 else []
        assert written == [clean[at - step + 1 + k] for k in range(step - 1)]
        differ = {j for j, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b}
        if corruption == "value":
            assert corrupt[at] == foil
            assert differ <= {*needle, *range(len(clean) - 2, len(clean))} and len(differ) == 3 + step - 1
        else:
            assert differ <= set(needle) and foil not in corrupt
    lengths = sorted(map(len, task.pairs.clean))
    assert lengths[0] > 130 and lengths[-1] < 190


def test_words_that_the_model_would_not_write_are_left_out_and_counted(smollm2, monkeypatch):
    monkeypatch.setattr(retrieval, "written", lambda model, rows, values: [(True, False, True)] * len(rows))
    task = interp.tasks.load("retrieval", smollm2, n=4, filler=40)
    assert set(task.labels["step"]) == {1, 3} and task.about["left_out"] == {"words not written": 8}
    assert task.about["written"] == {"word 1": 1.0, "word 2": 0.0, "word 3": 1.0, "all words": pytest.approx(2 / 3)}
    monkeypatch.setattr(retrieval, "written", lambda model, rows, values: [(False,) * 3] * len(rows))
    with pytest.raises(InputError, match="writes none of the 24 words"):
        interp.tasks.load("retrieval", smollm2, n=4, filler=40)


def test_what_the_model_writes_is_what_plain_passes_give():
    cfg = ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=64, n_ctx=64)
    model, draw = HookedTransformer(cfg, seed=2), torch.Generator().manual_seed(1)
    rows, values, wanted = [], [], []
    for i in range(5):
        row = torch.randint(1, 64, (6 + i,), generator=draw).tolist()
        best = [int(model(torch.tensor([row[: len(row) - 2 + step]]))[0, -1].argmax()) for step in range(3)]
        right = [(i + step) % 2 == 0 for step in range(3)]
        rows.append(row)
        values.append(tuple(one if ok else one + 1 for one, ok in zip(best, right, strict=True)))
        wanted.append(tuple(right))
    assert retrieval.written(model, rows, values) == wanted


def test_a_filler_of_another_length_can_be_asked_for(smollm2, knows):
    short, long = (interp.tasks.load("retrieval", smollm2, n=3, filler=width) for width in (40, 80))
    assert {len(b) - len(a) for a, b in zip(short.pairs.clean, long.pairs.clean, strict=True)} == {40}
    with pytest.raises(InputError, match="filler is 7"):
        interp.tasks.load("retrieval", smollm2, n=3, filler=7)
    with pytest.raises(InputError, match="too few windows of 100000 tokens"):
        interp.tasks.load("retrieval", smollm2, n=3, filler=100_000)


# Related words


def test_related_words_are_read_before_they_come_and_their_cue_alone_is_exchanged(smollm2, knows):
    task = interp.tasks.load("related_words", smollm2, n=200)
    by_cue = {cue: related for some in PAIRS.values() for cue, related in some}
    for i in range(len(task)):
        cue, related, other = word(task, "cue", i), word(task, "related", i), word(task, "cue", i, "corrupt")
        assert by_cue[cue] == related == task.labels["answer_text"][i].strip() == word(task, "related", i, "corrupt")
        assert by_cue[other] == task.labels["foil_text"][i].strip() != related
        clean, corrupt = task.pairs.clean[i], task.pairs.corrupt[i]
        differ = [j for j, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b]
        assert tuple(differ) == task.pairs.span("cue", i)
        assert task.pairs.span("END", i) == (task.pairs.read[i],) == (task.pairs.span("related", i)[0] - 1,)
        assert (cue, related) in PAIRS[task.labels["relation"][i]]
        assert (other, by_cue[other]) in PAIRS[task.labels["relation"][i]]


def test_no_word_is_the_first_of_two_pairs_and_every_relation_has_enough(smollm2, knows):
    cues = [cue for some in PAIRS.values() for cue, _ in some]
    assert len(set(cues)) == len(cues) and set(FRAMES) == set(PAIRS)
    known = interp.tasks.load("related_words", smollm2, n=200).about["known"]
    assert len(known) == 7 and min(one["pairs"] for one in known.values()) >= 12
    frames = [frame for some in FRAMES.values() for frame in some]
    assert len(set(frames)) == len(frames) and all(frame.endswith("{R}") for frame in frames)
    assert all(frame.count("{C}") == frame.count("{R}") == 1 and not frame.startswith("{") for frame in frames)


def test_pairs_that_the_model_does_not_know_are_left_out_and_counted(smollm2, monkeypatch):
    some = lambda model, rows, *_: ([i % 3 > 0 for i in range(len(rows))], [True] * len(rows))  # noqa: E731
    monkeypatch.setattr(related_words, "best_of", some)
    task = interp.tasks.load("related_words", smollm2, n=200, relations="antonym")
    rates = task.about["known"]["antonym"]
    assert rates["known"] == len(task) == rates["asked"] - task.about["left_out"]["questions not known"]
    assert rates["rate"] == pytest.approx(2 / 3, abs=0.01) and set(task.labels["relation"]) == {"antonym"}
    monkeypatch.setattr(related_words, "best_of", lambda model, rows, *_: ([False] * len(rows),) * 2)
    with pytest.raises(InputError, match="the related word of none of the"):
        interp.tasks.load("related_words", smollm2)
    with pytest.raises(InputError, match="Choose among antonym, young"):
        interp.tasks.load("related_words", smollm2, relations=["country"])


# Few shots


def test_examples_show_their_function_and_shuffled_ones_none_of_it(smollm2, knows):
    task = interp.tasks.load("few_shot", smollm2, n=60)
    by_name = {name: dict(some) for name, some in functions().items()}
    assert len(set(task.labels["relation"])) == 8
    for i, name in enumerate(task.labels["relation"]):
        places = task.pairs.span("labels", i)
        assert len(places) == few_shot.N_SHOTS == len(set(places))
        values, permuted = (
            [task.pairs.tokens_text[rows[i][at]].strip() for at in places]
            for rows in (task.pairs.clean, task.pairs.corrupt)
        )
        answer, foil = (task.labels[f"{side}_text"][i].strip() for side in ("answer", "foil"))
        assert sorted(values) == sorted(permuted) and len(set(values)) == len(values)
        assert all(a != b for a, b in zip(values, permuted, strict=True))
        assert by_name[name][task.labels["query"][i]] == answer and not {answer, foil} & set(values) and answer != foil
        assert set(values) <= set(by_name[name].values())
        both = zip(task.pairs.clean[i], task.pairs.corrupt[i], strict=True)
        differ = {j for j, (a, b) in enumerate(both) if a != b}
        assert differ == set(places)


def test_words_of_one_split_are_neither_asked_nor_shown_in_the_other(smollm2, knows):
    found = {}
    for split in ("select", "report"):
        task = interp.tasks.load("few_shot", smollm2, split=split, n=60, functions="antonym")
        found[split] = {w.strip(".") for one in task.labels["clean_text"] for w in one.split()}
    frame = {"->", "Q:", "A:", "Input:", "Output:", "becomes"}
    assert not (found["select"] & found["report"]) - frame


def test_functions_are_pairs_of_which_no_word_comes_twice():
    for name, some in functions().items():
        words = [x for x, _ in some]
        assert len(some) >= 19 and len(set(words)) == len(words), name
        assert all(x != y for x, y in some), name


def test_no_more_questions_are_run_than_are_wanted(smollm2, monkeypatch):
    asked = []

    def top(model, rows, *_):
        asked.append(len(rows))
        return [True] * len(rows), [i % 2 == 0 for i in range(len(rows))]

    monkeypatch.setattr(few_shot, "best_of", top)
    task = interp.tasks.load("few_shot", smollm2, split="report", n=20)
    assert task.about["items"] == {"report": 20} and asked == [32, 32]
    assert sum(one["asked"] for one in task.about["known"].values()) == 64
    with pytest.raises(InputError, match="Choose among antonym, plural"):
        interp.tasks.load("few_shot", smollm2, functions="cube root")
    monkeypatch.setattr(few_shot, "best_of", lambda model, rows, *_: ([False] * len(rows),) * 2)
    with pytest.raises(InputError, match="none of the values that five examples ask for"):
        interp.tasks.load("few_shot", smollm2)
