"""Every task of the registry keeps its promises: disjoint splits, seeds, alignment, named places, tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.tasks import coreference, fact_recall, few_shot, ioi, related_words, retrieval, words
from interp.tasks.base import definitions, model_kind
from interp.tasks.coreference_words import ASKS, FRAMES, GIVES, NOUNS, OCCUPATIONS, PARTICIPANTS, PRONOUNS
from interp.tasks.countries import countries, nonce_words
from interp.tasks.measure import best_of, measure, values_of
from interp.tasks.prompts import fill
from interp.tasks.repeated_tokens import tiled

NAMES = list(definitions())
AS_MANY_AS_THERE_ARE = ("fact_recall", "succession", "related_words", "few_shot")
SLOW_TO_DRAW = "natural_copies"  # which runs the model over windows of text
OF_FACTS = ("conflict", "fact_recall")  # which take what the model knows, and say how many that is
MANY = [pytest.param(name, marks=pytest.mark.slow if name == SLOW_TO_DRAW else ()) for name in NAMES]
OFFERS = [
    (name, corruption, {"cue": "occupation"} if corruption == "situation" else {})
    for name, one in definitions().items()
    for corruption in one.corruptions
]
CUES = ["gender", "number", "occupation"]


@pytest.fixture
def knows(monkeypatch):
    """Facts are taken as known, but for a seventh of them, so that no model has to be run."""

    def judged(model, rows, wanted, candidates):
        return [sum(row[-5:]) % 7 != 3 for row in rows], [sum(row[-5:]) % 2 == 0 for row in rows]  # BOS does not count

    for module in (fact_recall, related_words, few_shot):
        monkeypatch.setattr(module, "best_of", judged)
    monkeypatch.setattr(
        retrieval, "written", lambda model, rows, values: [tuple(word % 7 != 3 for word in value) for value in values]
    )


@pytest.fixture(scope="module")
def minilm():
    return interp.load("minilm-l6")


def tiny(d_vocab: int = 64) -> HookedTransformer:
    return HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=d_vocab, n_ctx=64))


def word(task, name: str, pair: int, side: str = "clean") -> str:
    row = getattr(task.pairs, side)[pair]
    return "".join(task.pairs.tokens_text[row[i]] for i in task.pairs.span(name, pair)).strip()


def prompts(task) -> list:
    return [tuple(row) for row in (task.pairs.clean if task.pairs is not None else task.tokens.tokens.tolist())]


# The contract, over the registry


def test_the_registry_holds_the_tasks_by_name():
    assert {"coreference", "fact_recall", "ioi", "repeated_tokens"} <= set(interp.tasks.names())
    assert all(definitions()[name].name == name for name in interp.tasks.names())


@pytest.mark.parametrize(
    ("name", "seed"), [(name, 0) for name in NAMES] + [pytest.param(*one.values, 5, marks=one.marks) for one in MANY]
)
def test_the_splits_share_no_item_no_template_and_no_prompt(smollm2, knows, name, seed):
    n = 4 if name == SLOW_TO_DRAW else 12
    select, report = (interp.tasks.load(name, smollm2, split=one, n=n, seed=seed) for one in ("select", "report"))
    for of in (lambda t: t.items, lambda t: t.templates, prompts):
        assert set(of(select)).isdisjoint(of(report))
    both = interp.tasks.load(name, smollm2, n=n, seed=seed)
    assert both.items == select.items + report.items and prompts(both) == prompts(select) + prompts(report)
    assert both.labels["split"] == ("select",) * len(select) + ("report",) * len(report)


@pytest.mark.parametrize("name", MANY)
def test_splits_of_different_seeds_do_not_meet_either(smollm2, knows, name):
    select = interp.tasks.load(name, smollm2, split="select", n=20, seed=1)
    report = interp.tasks.load(name, smollm2, split="report", n=20, seed=2)
    assert set(select.items).isdisjoint(report.items) and set(prompts(select)).isdisjoint(prompts(report))


@pytest.mark.parametrize("name", MANY)
def test_the_seed_alone_decides_and_another_seed_differs(smollm2, knows, name):
    first = interp.tasks.load(name, smollm2, n=10, seed=3)
    torch.manual_seed(77)
    again, other = (interp.tasks.load(name, smollm2, n=10, seed=seed) for seed in (3, 4))
    assert first.items == again.items and prompts(first) == prompts(again) and first.labels == again.labels
    assert prompts(first) != prompts(other)


@pytest.mark.parametrize("name", MANY)
def test_each_split_holds_a_hundred_independent_items_or_says_how_many(smollm2, knows, name):
    task = interp.tasks.load(name, smollm2, n=100)
    counts = {one: len({i for i, s in zip(task.items, task.labels["split"], strict=True) if s == one})
              for one in ("select", "report")}  # fmt: skip
    assert counts == task.about["items"] and min(counts.values()) >= 30
    assert name in (*AS_MANY_AS_THERE_ARE, *OF_FACTS) or set(counts.values()) == {100}


@pytest.mark.parametrize(("name", "corruption", "options"), OFFERS)
def test_pairs_align_and_every_place_is_named(smollm2, knows, name, corruption, options):
    task = interp.tasks.load(name, smollm2, corruption, n=6, **options)
    assert task.corruption == corruption and corruption in task.corruptions and task.about["bos"] is True
    if task.pairs is None:
        assert (task.tokens.tokens[:, 0] == smollm2.tokenizer.bos_id).all()
        return
    assert set(task.pairs.positions) == set(definitions()[name].positions)
    for pair, (clean, corrupt) in enumerate(zip(task.pairs.clean, task.pairs.corrupt, strict=True)):
        assert len(clean) == len(corrupt) and clean[0] == smollm2.tokenizer.bos_id != clean[1]
        assert (clean == corrupt) == (corruption == "noise")
        assert task.pairs.span("END", pair) == (task.pairs.read[pair],)
        assert name == "related_words" or task.pairs.read[pair] == len(clean) - 1
    assert all(len(values) == len(task) for values in task.labels.values())


@pytest.mark.parametrize("name", NAMES)
def test_without_bos_none_stands_in_front(smollm2, knows, name):
    task = interp.tasks.load(name, smollm2, n=4, bos=False)
    assert task.about["bos"] is False
    assert all(row[0] != smollm2.tokenizer.bos_id for row in prompts(task))
    if name == SLOW_TO_DRAW:
        return  # where windows begin and which copy is likeliest depend on it
    assert [len(row) + 1 for row in prompts(task)] == [
        len(row) for row in prompts(interp.tasks.load(name, smollm2, n=4))
    ]


@pytest.mark.parametrize(("name", "corruption", "options"), OFFERS)
def test_a_table_makes_the_same_task_again(smollm2, knows, tmp_path, name, corruption, options):
    task = interp.tasks.load(name, smollm2, corruption, n=5, bos=corruption != "swap", **options)
    task.to_csv(tmp_path / "task.csv")
    again = interp.tasks.from_csv(name, tmp_path / "task.csv", smollm2)
    assert again.pairs == task.pairs and prompts(again) == prompts(task)
    assert again.items == task.items and again.templates == task.templates
    assert again.about["bos"] == task.about["bos"] and again.about["metric"] == task.about["metric"]
    assert again.labels == task.labels, "numbers and truth values among them"
    if task.tokens is not None:
        assert torch.equal(again.tokens.predictable, task.tokens.predictable)


@pytest.mark.parametrize("cue", CUES)
def test_a_table_makes_the_same_task_again_for_an_encoder(minilm, tmp_path, cue):
    task = interp.tasks.load("coreference", minilm, n=3, cue=cue)
    task.to_csv(tmp_path / "task.csv")
    again = interp.tasks.from_csv("coreference", tmp_path / "task.csv", minilm)
    assert again.pairs == task.pairs and again.labels == task.labels


def test_labels_of_a_table_are_truth_values_or_numbers_only_where_all_of_them_are(smollm2, tmp_path):
    row = IOI.splitlines()[1]
    text = f"{IOI.splitlines()[0]},label:a,label:b,label:c,label:d\n{row},FALSE,7,7,\n{row},True,-12,x,007\n"
    labels = interp.tasks.from_csv("ioi", write(tmp_path / "a.csv", text), smollm2).labels
    assert (labels["a"], labels["b"]) == ((False, True), (7, -12))
    assert (labels["c"], labels["d"]) == (("7", "x"), ("", "007"))


# Words of the splits


def words_of(task, frames) -> dict[str, set[str]]:
    """The words of each split's texts, clean and corrupt, that do not stand in its frames."""
    own = {word for frame in frames for word in re.findall(r"\w+", re.sub(r"\{\w+\}", "", frame))}
    found: dict[str, set[str]] = {"select": set(), "report": set()}
    for split, *texts in zip(*(task.labels[n] for n in ("split", "clean_text", "corrupt_text")), strict=True):
        found[split] |= {word for text in texts for word in re.findall(r"\w+", text)} - own
    return found


@pytest.mark.parametrize(("cue", "corruption"), [(c, k) for c, some in coreference._OFFERS.items() for k in some])
def test_no_word_of_a_coreference_item_is_in_both_splits(smollm2, cue, corruption):
    task = interp.tasks.load("coreference", smollm2, corruption, n=70, cue=cue)
    found = words_of(task, [frame.text for frame in FRAMES[cue]])
    found = {
        split: words - {form for forms in PRONOUNS[cue].values() for form in forms} for split, words in found.items()
    }
    assert min(map(len, found.values())) >= 16 and not found["select"] & found["report"]


@pytest.mark.parametrize("corruption", ["swap", "third_name", "abc"])
def test_no_name_object_or_place_of_ioi_is_in_both_splits(smollm2, corruption):
    task = interp.tasks.load("ioi", smollm2, corruption, n=150)
    found = {split: words - {"a", "an"} for split, words in words_of(task, ioi.FRAMES).items()}
    assert min(map(len, found.values())) >= 40 + 10 + 8 and not found["select"] & found["report"]


def test_no_word_stands_twice_in_the_lists_that_are_halved():
    lists = [(*words.WOMEN, *words.MEN), words.OBJECTS, words.PLACES, (*OCCUPATIONS, *PARTICIPANTS), (*GIVES, *ASKS)]
    for some in (*lists, [word for two in NOUNS for word in two], [one.name for one in countries()]):
        assert len({one.lower() for one in some}) == len(some)


@pytest.mark.parametrize(("name", "options"), [("ioi", {}), *(("coreference", {"cue": cue}) for cue in CUES)])
def test_an_item_is_a_pair_of_words_in_whatever_order(smollm2, name, options):
    task = interp.tasks.load(name, smollm2, n=60, **options)
    both = ("IO", "S") if name == "ioi" else ("antecedent", "distractor")
    items, orders = defaultdict(set), defaultdict(set)
    for i, item in enumerate(task.items):
        items[frozenset(task.labels[one][i] for one in both)].add(item)
        orders[item].add(task.labels["order"][i])
    assert len(items) == 120 == len(set(task.items)) and all(len(some) == 1 for some in items.values())
    assert name == "ioi" or all(len(some) == 2 for some in orders.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_selection_keeps_prompts_and_labels_together(smollm2, knows, name):
    task = interp.tasks.load(name, smollm2, n=5)
    some = task.select([3, -1])
    assert prompts(some) == [prompts(task)[3], prompts(task)[-1]] and some.items == (task.items[3], task.items[-1])
    assert all(some.labels[key] == (values[3], values[-1]) for key, values in task.labels.items())
    with pytest.raises(InputError, match="There is no pair 99999"):
        task.select([99999])
    assert task.pairs is None or task.show(2).startswith("pair 2: ")
    assert task.show(1).strip() != task.show(2).strip()


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_asked_is_refused(smollm2, name):
    load = interp.tasks.load
    with pytest.raises(InputError, match=f"{name} has no corruption 'none such'"):
        load(name, smollm2, "none such")
    with pytest.raises(InputError, match="There is no split 'test'"):
        load(name, smollm2, split="test")
    with pytest.raises(InputError, match="n is 0"):
        load(name, smollm2, n=0)
    with pytest.raises(InputError, match="seed is -1"):
        load(name, smollm2, seed=-1)
    with pytest.raises(InputError, match=f"{name} has no option 'colour'"):
        load(name, smollm2, colour="red")
    with pytest.raises(InputError, match="Load it first"):
        load(name, "smollm2-135m")


def test_an_unknown_task_is_told_which_there_are(smollm2):
    with pytest.raises(InputError, match=r"no task called 'oii'\. Known are agreement, conflict, coreference"):
        interp.tasks.load("oii", smollm2)


@pytest.mark.parametrize("name", ["ioi", "coreference"])
def test_more_items_than_there_are_names_the_largest_number(smollm2, name):
    with pytest.raises(InputError, match=r"n=100000 is more than there are: (\d+) .* Ask for n=\1 or fewer"):
        interp.tasks.load(name, smollm2, n=100_000)


def test_more_copies_than_the_text_holds_are_refused(smollm2):
    with pytest.raises(InputError, match=r"too short for 100000 windows in each split\. Ask for fewer"):
        interp.tasks.load("natural_copies", smollm2, n=100_000)


@pytest.mark.parametrize("name", ["coreference", "fact_recall"])
def test_a_model_without_a_tokenizer_is_told_to_give_pairs(name):
    with pytest.raises(InputError, match=r"no tokenizer.*pairs="):
        interp.tasks.load(name, tiny())


# Indirect objects


def test_ioi_names_stand_where_they_are_said_to_stand(smollm2):
    task = interp.tasks.load("ioi", smollm2, n=20)
    for i in range(len(task)):
        io, subject = task.labels["IO"][i], task.labels["S"][i]
        assert [word(task, name, i) for name in ("IO", "S1", "S2")] == [io, subject, subject]
        assert task.pairs.span("S1+1", i)[0] == task.pairs.span("S1", i)[0] + 1
        assert (task.pairs.span("IO", i) < task.pairs.span("S1", i)) == (task.labels["order"][i] == "ABBA")
        assert task.labels["answer_text"][i] == f" {io}" and task.labels["foil_text"][i] == f" {subject}"
        assert {task.pairs.answer[i][0][0], task.pairs.foil[i][0][0]} <= set(task.about["names"])


def test_ioi_is_balanced_over_orders_within_every_template(smollm2):
    task = interp.tasks.load("ioi", smollm2, n=100)
    table = Counter(zip(task.templates, task.labels["order"], strict=True))
    assert len(set(task.templates)) == 10 and set(table.values()) == {10}


@pytest.mark.parametrize(("corruption", "same"), [("swap", 2), ("third_name", 0), ("abc", 0)])
def test_ioi_corruptions_change_the_names_that_they_say(smollm2, corruption, same):
    task = interp.tasks.load("ioi", smollm2, corruption, n=15)
    for i in range(len(task)):
        io, s1, s2 = (word(task, name, i, "corrupt") for name in ("IO", "S1", "S2"))
        asked, subject = task.labels["IO"][i], task.labels["S"][i]
        if corruption == "swap":
            assert (io, s1, s2) == (asked, subject, asked)
        elif corruption == "third_name":
            assert (io, s1) == (asked, subject) and s2 not in (io, s1)
        else:
            assert len({io, s1, s2, asked, subject}) == 5


def test_ioi_names_of_the_splits_are_disjoint(smollm2):
    names = [set(interp.tasks.load("ioi", smollm2, split=one, n=3).about["names"]) for one in ("select", "report")]
    assert not names[0] & names[1] and min(map(len, names)) >= 12


@pytest.mark.parametrize("corruption", ["swap", "third_name", "abc"])
def test_ioi_of_a_model_without_words_has_the_same_shape(corruption):
    task = interp.tasks.load("ioi", tiny(), corruption, n=20, seed=2)
    assert len(task) == 40 and set(task.pairs.positions) == set(definitions()["ioi"].positions)
    for i, row in enumerate(task.pairs.clean):
        io, s1, s2 = (row[task.pairs.span(name, i)[0]] for name in ("IO", "S1", "S2"))
        assert io != s1 == s2 and task.pairs.answer[i] == ((io,),) and task.pairs.foil[i] == ((s1,),)
        assert (task.pairs.span("IO", i) < task.pairs.span("S1", i)) == (task.labels["order"][i] == "ABBA")
        changed = [row[k] != task.pairs.corrupt[i][k] for k in range(len(row))]
        assert sum(changed) == (3 if corruption == "abc" else 1)
    with pytest.raises(InputError, match="too small for name pairs"):
        interp.tasks.load("ioi", tiny(12), n=1)


# Coreference


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_every_quartet_is_complete_and_both_places_are_right_equally_often(smollm2, minilm, cue, kind):
    model = smollm2 if kind == "decoder" else minilm
    assert model_kind(model) == kind
    task = interp.tasks.load("coreference", model, n=12, cue=cue)
    quartets = defaultdict(set)
    for i, name in enumerate(task.labels["quartet"]):
        quartets[name].add((task.labels["order"][i], task.labels["antecedent"][i]))
        assert word(task, "antecedent", i).lower() == task.labels["antecedent"][i].lower()
        assert word(task, "distractor", i).lower() == task.labels["distractor"][i].lower()
        assert word(task, "pronoun", i).lower() == task.labels["pronoun"][i].lower()
        assert task.pairs.span(task.labels["antecedent_place"][i], i) == task.pairs.span("antecedent", i)
        assert (task.pairs.span("subject", i) == task.pairs.span("antecedent", i)) == task.labels[
            "subject_is_antecedent"
        ][i]
    assert len(quartets) == 24 and all(len(four) == 4 for four in quartets.values())
    for label in ("antecedent_place", "order", "subject_is_antecedent"):
        assert set(Counter(task.labels[label]).values()) == {len(task) // 2}
    distances = [sorted(task.labels[f"{name}_distance"]) for name in ("antecedent", "distractor")]
    assert distances[0] == distances[1], "the distractor is as far away as the antecedent"


def test_the_first_mention_is_not_always_the_subject(smollm2):
    task = interp.tasks.load("coreference", smollm2, n=8)
    spans = [task.pairs.positions[name] for name in ("subject", "first")]
    assert 0 < sum(a == b for a, b in zip(*spans, strict=True)) < len(task)


@pytest.mark.parametrize("cue", ["gender", "number"])
def test_the_answer_flips_when_only_the_pronoun_does(smollm2, cue):
    task = interp.tasks.load("coreference", smollm2, "pronoun", n=8, cue=cue)
    by_text = dict(zip(task.labels["clean_text"], task.labels["answer_text"], strict=True))
    for i, corrupt in enumerate(task.labels["corrupt_text"]):
        assert by_text[corrupt] == task.labels["foil_text"][i]
        assert task.pairs.first_difference[i] == task.pairs.span("pronoun", i)[0]


def test_exchanged_names_move_the_antecedent_and_keep_the_answer(smollm2):
    task = interp.tasks.load("coreference", smollm2, "names", n=8)
    by_text = dict(zip(task.labels["clean_text"], task.labels["answer_text"], strict=True))
    for i, corrupt in enumerate(task.labels["corrupt_text"]):
        assert by_text[corrupt] == task.labels["answer_text"][i]
        assert word(task, "distractor", i, "corrupt") == task.labels["antecedent"][i]


@pytest.mark.parametrize("cue", CUES)
def test_exchanged_names_are_the_same_prompts_again_so_an_item_shows_no_difference(smollm2, cue):
    """Whatever the model: why shares of clean − corrupt mean nothing there."""
    task = interp.tasks.load("coreference", smollm2, "names", n=6, cue=cue)
    sides = [Counter(zip(task.items, rows, task.pairs.answer, task.pairs.foil, strict=True))
             for rows in (task.pairs.clean, task.pairs.corrupt)]  # fmt: skip
    assert sides[0] == sides[1] and all(a != b for a, b in zip(task.pairs.clean, task.pairs.corrupt, strict=True))


@pytest.mark.parametrize("cue", CUES)
def test_another_antecedent_is_of_the_same_kind_and_becomes_the_answer(smollm2, cue):
    kinds = {
        "gender": (words.WOMEN, words.MEN),
        "number": tuple(zip(*NOUNS, strict=True)),
        "occupation": (OCCUPATIONS, PARTICIPANTS),
    }[cue]
    task = interp.tasks.load("coreference", smollm2, "antecedent", n=20, cue=cue)
    for i, (clean, corrupt) in enumerate(zip(task.pairs.clean, task.pairs.corrupt, strict=True)):
        was, now = task.labels["antecedent"][i], task.labels["corrupt_antecedent"][i]
        changed = [at for at, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a != b]
        assert changed == list(task.pairs.span("antecedent", i)) and word(task, "antecedent", i, "corrupt") == now
        assert now not in (was, task.labels["distractor"][i]) and any(was in one and now in one for one in kinds)
        assert task.pairs.foil[i][0] == (corrupt[changed[0]],)


def test_every_frame_of_occupations_meets_every_situation(smollm2):
    task = interp.tasks.load("coreference", smollm2, n=54, cue="occupation")
    met = {(frame, verb) for frame, verb in zip(task.templates, task.labels["situation"], strict=True)}
    assert len(met) == 6 * 6, "three that give and three that ask in each of three frames, in either split"
    by_verb = Counter(zip(task.labels["situation"], task.labels["pronoun"], strict=True))
    assert len(by_verb) == 2 * len((*GIVES, *ASKS)), "and both genders"


def test_an_ambiguous_distractor_is_one_that_the_pronoun_fits(smollm2):
    from interp.tasks.words import WOMEN

    task = interp.tasks.load("coreference", smollm2, "ambiguous", n=20)
    for i in range(len(task)):
        mentions = [word(task, name, i, "corrupt") for name in ("antecedent", "distractor")]
        assert len(set(mentions)) == 2 and len({one in WOMEN for one in mentions}) == 1
        assert mentions == [task.labels["antecedent"][i], task.labels["corrupt_distractor"][i]]


def test_a_situation_and_not_the_gender_decides_of_occupations(smollm2):
    task = interp.tasks.load("coreference", smollm2, "situation", n=12, cue="occupation")
    by_text = dict(zip(task.labels["clean_text"], task.labels["answer_text"], strict=True))
    assert all(
        by_text[c] == foil for c, foil in zip(task.labels["corrupt_text"], task.labels["foil_text"], strict=True)
    )
    swapped = interp.tasks.load("coreference", smollm2, "pronoun", n=12, cue="occupation")
    assert swapped.labels["answer_text"] == task.labels["answer_text"]
    assert set(Counter(task.labels["pronoun"]).values()) == {len(task) // 2}
    with pytest.raises(InputError, match="With the cue gender there is no corruption 'situation'"):
        interp.tasks.load("coreference", smollm2, "situation")


def test_a_sentence_says_who_is_meant_in_the_pronouns_place(minilm):
    task = interp.tasks.load("coreference", minilm, n=8)
    assert task.about["bos"] is False and all(row[0] != row[-1] for row in task.pairs.clean)
    for i, text in enumerate(task.labels["clean_text"]):
        assert task.pairs.read[i] == task.pairs.span("pronoun", i)[0]
        pronoun = f" {task.labels['pronoun'][i]} "
        assert text.count(pronoun) == 1 and text[-1] in '."'
        for name in ("antecedent", "distractor"):
            said = task.labels[f"{name}_text"][i]
            assert said.count(task.labels[name][i]) == 2 and pronoun not in said


# Fact recall


@pytest.mark.parametrize("corruption", ["subject", "relation", "nonce", "noise"])
def test_facts_stand_where_they_are_said_and_foils_differ(smollm2, knows, corruption):
    task = interp.tasks.load("fact_recall", smollm2, corruption, n=10)
    real = {one.name for one in countries()}
    by_relation = task.about["same_relation_answers"]
    for i, relation in enumerate(task.labels["relation"]):
        subject, corrupt = task.labels["subject"][i], task.labels["corrupt_subject"][i]
        assert word(task, "subject", i) == subject == task.items[i] and relation in word(task, "relation", i)
        assert (
            task.labels["answer"][i] != task.labels["foil"][i]
            and task.labels["answer"][i] not in task.labels["clean_text"][i]
        )
        assert (corrupt == subject) == (corruption in ("relation", "noise"))
        assert (corrupt in real) == (corruption != "nonce")
        assert task.pairs.answer[i][0] in by_relation[relation]
        assert len(task.pairs.answer[i][0]) == task.labels["n_answer_tokens"][i]
        if corruption == "subject":
            assert task.pairs.foil[i][0] in by_relation[relation]


def test_made_up_countries_are_not_shared_by_the_splits(smollm2, knows):
    task = interp.tasks.load("fact_recall", smollm2, "nonce", n=60)
    found = {one: {name for name, split in zip(task.labels["corrupt_subject"], task.labels["split"], strict=True)
                   if split == one} for one in ("select", "report")}  # fmt: skip
    assert min(map(len, found.values())) > 30 and not found["select"] & found["report"]


def test_what_is_not_known_is_left_out_and_counted(smollm2, knows):
    task = interp.tasks.load("fact_recall", smollm2, n=1000)
    rates = task.about["known"]
    assert all(task.labels["known"]) and set(rates) == {"capital", "language", "continent"}
    asked, known = (sum(one[name] for one in rates.values()) for name in ("asked", "known"))
    assert 0.8 < known / asked < 0.92, "a seventh is not known"
    assert rates["capital"]["rate"] == rates["capital"]["known"] / rates["capital"]["asked"]
    assert len(task) + sum(task.about["left_out"].values()) == asked
    kept = interp.tasks.load("fact_recall", smollm2, n=1000, keep_unknown=True)
    assert not all(kept.labels["known"]) and len(kept) > len(task)
    assert kept.about["metric"] == "log_prob_diff", "capitals of several tokens are scored by log-probability"


def test_relations_can_be_chosen(smollm2, knows):
    task = interp.tasks.load("fact_recall", smollm2, n=5, relations="language")
    assert set(task.labels["relation"]) == {"language"} and len(task) == 10
    with pytest.raises(InputError, match="Choose among capital, language, continent"):
        interp.tasks.load("fact_recall", smollm2, relations=["river"])


def test_a_model_that_knows_nothing_is_told_so(smollm2, monkeypatch):
    monkeypatch.setattr(fact_recall, "best_of", lambda m, rows, *_: ([False] * len(rows), [False] * len(rows)))
    with pytest.raises(InputError, match=r"the right answer to none of the .* keep_unknown=True"):
        interp.tasks.load("fact_recall", smollm2)


def test_countries_do_not_give_their_answers_away_and_nonce_words_are_no_countries():
    assert len(countries()) > 140 and len({one.name for one in countries()}) == len(countries())
    by_name = {one.name: one.answers for one in countries()}
    assert by_name["France"] == {"capital": "Paris", "language": "French", "continent": "Europe"}
    assert "capital" not in by_name["Mexico"] and "continent" not in by_name["South Africa"]
    assert set(nonce_words()).isdisjoint(by_name) and len(nonce_words()) > 500


def test_the_best_of_the_candidates_is_judged_token_by_token():
    model = tiny()
    row = [3, 4, 5]
    with torch.no_grad():
        first = int(model(torch.tensor([row]))[0, -1].argmax())
        second = int(model(torch.tensor([[*row, first]]))[0, -1].argmax())
    worse, wrong = (first, (second + 1) % 64), ((first + 1) % 64, second)
    best = (first, second)
    asked = [best, worse, wrong, worse, wrong]
    candidates = [[best, worse, wrong]] * 3 + [[worse, wrong], [worse, wrong]]
    right, top = best_of(model, [row] * 5, asked, candidates)
    assert right == [True, False, False, True, False] and top == [True, False, False, False, False]


# Repeated tokens, and what is measured


def test_repeated_tokens_are_the_rows_of_the_room(smollm2):
    task = interp.tasks.load("repeated_tokens", smollm2, split="select", n=4, seed=3, layout="tiled")
    assert torch.equal(task.tokens.tokens, tiled(smollm2, 4, seed=6).tokens)
    with pytest.raises(InputError, match="There is no layout 'wide'"):
        interp.tasks.load("repeated_tokens", smollm2, layout="wide")


def test_values_are_those_of_the_model_itself():
    model = tiny()
    task = interp.tasks.load("ioi", model, n=6)
    for which, rows in (("clean", task.pairs.clean), ("corrupt", task.pairs.corrupt)):
        logits = [model(torch.tensor([row]))[0, -1].detach() for row in rows]
        wanted = [
            float(x[a[0][0]] - x[f[0][0]]) for x, a, f in zip(logits, task.pairs.answer, task.pairs.foil, strict=True)
        ]
        assert values_of(task, model, which).tolist() == pytest.approx(wanted, abs=1e-5)
    found = measure(task, model)
    assert found["n"] == 12 and found["accuracy"] == (values_of(task, model) > 0).mean()
    assert sum(one["n"] for one in found["template"].values()) == 12


def test_an_answer_is_right_above_its_foil_also_where_log_probabilities_are_the_metric(tmp_path):
    model = tiny()
    rows = "\n".join(f"{i} 6 7 8 7,{i} 6 9 8 7,{i + 20},{i + 21},2" for i in range(10, 20))
    table = write(tmp_path / "a.csv", f"clean,corrupt,answer,foil,pos:copies\n{rows}\n")
    task = interp.tasks.from_csv("natural_copies", table)
    last = [model(torch.tensor([row]))[0, -1].detach() for row in task.pairs.clean]
    above = [bool(x[i + 20] > x[i + 21]) for i, x in enumerate(last, 10)]
    found = measure(task, model)
    assert found["metric"] == "log_prob" and found["accuracy"] == sum(above) / 10 and 0 < sum(above) < 10
    said = [float(x.log_softmax(-1)[i + 20]) for i, x in enumerate(last, 10)]
    assert found["mean"] == pytest.approx(sum(said) / 10, abs=1e-5)


def test_a_filled_template_knows_where_its_words_stand():
    filled = fill("On {A} met {B}.", {"A": "Ann", "B": "Bo"})
    assert filled.text == "On Ann met Bo." and {k: filled.text[slice(*v)] for k, v in filled.spans.items()} == {
        "A": "Ann",
        "B": "Bo",
    }


@pytest.mark.slow
def test_the_real_model_knows_enough_of_every_relation(smollm2):
    task = interp.tasks.load("fact_recall", smollm2)
    counts = Counter(zip(task.labels["relation"], task.labels["split"], strict=True))
    assert min(counts.values()) >= 30 and len(counts) == 6
    assert all(0 < one["rate"] < 1 for one in task.about["known"].values())


# Tables of the user's own


def write(path, text: str):
    path.write_text(text)
    return path


IOI = """clean,corrupt,answer,foil,pos:IO,pos:S1,pos:S2
"Then Anna and Tom sat, and Tom gave it to","Then Anna and Tom sat, and Anna gave it to",Anna,Tom,2,4,8
"""


def test_a_users_table_becomes_a_task_with_what_follows_filled_in(smollm2, tmp_path):
    task = interp.tasks.from_csv("ioi", write(tmp_path / "a.csv", IOI), smollm2)
    assert [word(task, name, 0) for name in ("IO", "S1", "S2", "S1+1", "END")] == ["Anna", "Tom", "Tom", "sat", "to"]
    assert task.about["bos"] is True and task.split == "given" and task.corruption == "given"


def test_a_table_that_lacks_a_place_or_a_foil_is_told_which(smollm2, tmp_path):
    with pytest.raises(InputError, match="lacks pos:S2, which ioi needs"):
        interp.tasks.from_csv("ioi", write(tmp_path / "a.csv", IOI.replace("pos:S2", "where")), smollm2)
    with pytest.raises(InputError, match="no column foil"):
        interp.tasks.from_csv("ioi", write(tmp_path / "b.csv", IOI.replace("foil", "other")), smollm2)
    with pytest.raises(InputError, match="has no column period"):
        interp.tasks.from_csv("repeated_tokens", write(tmp_path / "c.csv", "tokens\n1 2 1 2\n"))
    with pytest.raises(InputError, match="cannot be read"):
        interp.tasks.from_csv("ioi", tmp_path / "none.csv", smollm2)


def test_a_table_of_ids_needs_no_model(tmp_path):
    text = "clean,corrupt,answer,foil,pos:IO,pos:S1,pos:S2\n5 6 7 8 7 9,5 6 7 8 6 9,6,7,1,2,4\n"
    task = interp.tasks.from_csv("ioi", write(tmp_path / "a.csv", text))
    assert task.pairs.positions["S1+1"] == ((3,),) and task.pairs.positions["END"] == ((5,),)
    rows = interp.tasks.from_csv("repeated_tokens", write(tmp_path / "b.csv", "tokens,period\n1 2 3 1 2 3,3\n"))
    assert rows.tokens.predictable.tolist() == [[False] * 4 + [True] * 2]
