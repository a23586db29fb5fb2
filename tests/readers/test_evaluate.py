"""`interp.evaluate`: log p against a loop over single rows, batches, measures against plain counting, and refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.readers import MinimalPairs, read_blimp, read_conllu, read_facts, read_winogender
from interp.readers.scoring import score_sentences
from interp.readers.tally import tally
from interp.results.evaluation import Evaluation
from interp.runs.store import RunStore
from interp.stats import bootstrap_interval
from tests.model.conftest import ZOO, randomize
from tests.readers.conftest import BLIMP, COUNTERFACT, KNOWN, WINOGENDER, Write, lines, reader, schema, table

LAYOUTS = ["llama", "gpt2", "bloom", "encoder", "bert"]  # grouped queries, learned positions, ALiBi, masked encoders
TEXTS = [
    "the cats see the old dog .",
    "a cat",
    "they told him that a very old red dog sleeps in Oslo .",
    "the cat sleeps .",
    "the cats see the old dog .",
]


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


def by_hand(model: HookedTransformer, text: str, bos: bool) -> tuple[float, int]:
    """One row at a time: read on, or each token masked."""
    words = [model.tokenizer.backend.token_to_id(word) for word in text.split()]
    if model.cfg.decoder is None:
        total = 0.0
        for i in range(len(words)):
            row = [4, *words[:i], 3, *words[i + 1 :], 5]
            total += float(model(torch.tensor([row]))[0, i + 1].log_softmax(-1)[words[i]])
        return total, len(words)
    row = [1, *words] if bos else words
    log_probs = model(torch.tensor([row]))[0].log_softmax(-1)
    return sum(float(log_probs[at - 1, row[at]]) for at in range(1, len(row))), len(row) - 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_sentences_log_probability_is_that_of_its_row_alone(layout: str, batch_size: int) -> None:
    model = reader(layout)
    found = score_sentences(model, TEXTS, batch_size=batch_size, bos=True if model.cfg.decoder else None)
    for i, text in enumerate(TEXTS):
        total, n = by_hand(model, text, bos=True)
        assert found.log_probs[i] == pytest.approx(total, abs=1e-5 * max(1.0, abs(total)))
        assert found.n_tokens[i] == n
    assert found.log_probs[0] == found.log_probs[4], "the same text has exactly the same value"
    assert len(set(found.log_probs)) == 4


@pytest.mark.parametrize("layout", ["llama", "gpt2", "bloom"])
def test_without_bos_the_first_token_is_not_counted(layout: str) -> None:
    model = reader(layout)
    found = score_sentences(model, TEXTS, batch_size=4, bos=False)
    for i, text in enumerate(TEXTS):
        total, n = by_hand(model, text, bos=False)
        assert found.log_probs[i] == pytest.approx(total, abs=1e-5 * max(1.0, abs(total)))
        assert found.n_tokens[i] == n == len(text.split()) - 1
    with pytest.raises(InputError, match="'cat' has no token whose probability could be read"):
        score_sentences(model, ["cat"], batch_size=4, bos=False)


def many_pairs() -> list[dict[str, Any]]:
    """Pairs of unequal lengths, of two paradigms, one of which is a tie by its tokens."""
    nouns, records = ["cat", "dog", "baker", "guest", "pilot"], []
    for i, noun in enumerate(nouns):
        good, bad = f"the {noun} sleeps .", f"the {noun} sleep ." if i % 2 else f"the very old {noun} sleep in Oslo ."
        names = {"linguistics_term": "agreement"} if i < 3 else {}
        records.append({"sentence_good": good, "sentence_bad": bad, "UID": f"u{i % 2}", "pairID": str(i), **names})
    tie = {"sentence_good": "the zebra sleeps .", "sentence_bad": "the gnu sleeps ."}  # both words are unknown
    return [*records, {**tie, "UID": "u0", "pairID": "5"}]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accuracy_is_the_share_of_good_sentences_that_are_likelier(layout: str, write: Write) -> None:
    model, pairs = reader(layout), read_blimp(write("b.jsonl", lines(many_pairs())))
    found = interp.evaluate(model, pairs, batch_size=4)
    hand = [[by_hand(model, side, bos=True) for side in (one.good, one.bad)] for one in list(pairs)[:5]]
    right = [good[0] > bad[0] for good, bad in hand] + [False]
    fair = [good[0] / good[1] > bad[0] / bad[1] for good, bad in hand] + [False]
    assert list(found.rows["right"]) == right and list(found.rows["right_normalised"]) == fair
    assert found.value()[0] == pytest.approx(np.mean(right))
    assert found.value("normalised")[0] == pytest.approx(np.mean(fair))
    for group in ("u0", "u1"):
        mine = [ok for ok, one in zip(right, pairs, strict=True) if one.uid == group]
        assert found.value(by="UID", group=group)[0] == pytest.approx(np.mean(mine))
    assert found.value(by="phenomenon", group="agreement")[0] == pytest.approx(np.mean(right[:3]))
    frame = found.to_frame().set_index(["by", "group"])
    assert list(frame["n"]) == [6, 4, 2, 3], "pairs without a phenomenon are in no group of that kind"
    assert frame.loc[("all", ""), "ties"] == 1 and frame.loc[("UID", "u1"), "ties"] == 0


def test_intervals_are_those_of_the_library_over_pairs(write: Write) -> None:
    model, pairs = reader("llama"), read_blimp(write("b.jsonl", lines(many_pairs())))
    found = interp.evaluate(model, pairs, seed=3)
    right = found.rows["right"].to_numpy(dtype=float)[:, None]
    low, high = bootstrap_interval(right, seed=3)
    assert found.value()[1:] == pytest.approx((float(low[0]), float(high[0])))
    single = read_blimp(write("one.jsonl", lines(many_pairs()[:1])))
    value, low_, high_ = interp.evaluate(model, single).value()
    assert value in (0.0, 1.0) and math.isnan(low_) and math.isnan(high_), "one item says nothing of others"


def test_rows_of_one_item_are_drawn_together() -> None:
    values, items = np.array([1.0, 1.0, 1.0, 0.0, np.nan]), ["a", "a", "a", "b", "c"]
    frame = tally({"share": values}, items, {"kind": ["x", "x", None, "y", "y"]}, 0)
    assert frame["share"].tolist() == [0.75, 1.0, 0.0] and frame["items"].tolist() == [3, 1, 2]
    assert frame.loc[0, ["share_low", "share_high"]].tolist() == [0.0, 1.0], "two items with a value, not four rows"
    assert frame.loc[2, ["share_low", "share_high"]].isna().all(), "of the two items of y one has a value"


def test_the_bootstrap_of_many_items_is_drawn_in_parts_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    whole = bootstrap_interval(values, seed=1, divisor=np.abs(values) + 1)
    monkeypatch.setattr("interp.stats._CHUNK_WEIGHTS", 50 * 7)
    np.testing.assert_allclose(bootstrap_interval(values, seed=1, divisor=np.abs(values) + 1), whole, rtol=1e-12)


# ---- Winogender ----


def schemas() -> list[tuple[str, str]]:
    return [
        *WINOGENDER,
        *schema(1, "the pilot told the guest that PRO sleeps in Oslo .", "pilot.guest"),
        *schema(0, "the pilot told the guest that PRO was in the very old Rome .", "pilot.guest"),
        *schema(0, "the cat told the guest that PRO was old .", "cat.guest")[:2],
    ]


@pytest.mark.parametrize("layout", ["llama", "bert"])
def test_winogender_compares_variants_of_a_sentence_by_answer_and_occupation(layout: str, write: Write) -> None:
    model, data = reader(layout), read_winogender(write("w.tsv", table(schemas())))
    found = interp.evaluate(model, data)
    log_prob = {one.sentid: by_hand(model, one.sentence, bos=True)[0] for one in data}

    def difference(people: str, a: str, b: str) -> float:
        return log_prob[f"{people}.{a}.txt"] - log_prob[f"{people}.{b}.txt"]

    names = ["baker.guest.1", "baker.guest.0", "pilot.guest.1", "pilot.guest.0", "cat.guest.0"]
    male = np.array([difference(one, "male", "female") for one in names])
    neutral = np.array([difference(one, "neutral", "male") for one in names[:4]])
    close = {"abs": 1e-4}
    np.testing.assert_allclose(found.rows["male_minus_female"], male, atol=1e-4)
    assert found.value()[0] == pytest.approx(male.mean(), **close)
    assert found.value("male_likelier")[0] == pytest.approx((male > 0).mean())
    assert found.value("neutral_minus_male")[0] == pytest.approx(neutral.mean(), **close)
    assert found.value(by="answer", group="participant")[0] == pytest.approx(male[[0, 2]].mean(), **close)
    assert found.value(by="occupation", group="baker")[0] == pytest.approx(male[:2].mean(), **close)
    contrast = found.value(by="contrast", group="occupation − participant")
    expected = [male[1] - male[0], male[3] - male[2]]
    assert contrast[0] == pytest.approx(np.mean(expected), **close), "the cat has one answer alone"
    assert contrast[1:] == pytest.approx((min(expected), max(expected)), **close)
    assert "accuracy" not in found.frame.columns and "This is no accuracy" in found.leaves_out


def test_winogender_without_both_answers_has_no_contrast_and_says_what_lacks(write: Write) -> None:
    rows = [*WINOGENDER[:3], *schema(1, "the pilot told the guest that PRO was old .", "pilot.guest")[1:]]
    found = interp.evaluate(reader("llama"), read_winogender(write("w.tsv", table(rows))))
    assert "contrast" not in set(found.frame["by"])
    assert "1 schemas lack a male or a female variant" in found.leaves_out
    assert math.isnan(found.value(by="occupation", group="pilot")[0])
    assert not math.isnan(found.value("neutral_minus_female", by="occupation", group="pilot")[0])


# ---- facts ----


@pytest.mark.parametrize("layout", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_facts_are_ranked_and_read_token_by_token(layout: str, batch_size: int, write: Write) -> None:
    model = reader(layout)
    wide = [{**KNOWN[0], "attribute": "Lake Como of Italy"}, *KNOWN[1:]]
    data = read_facts([write("k.json", json.dumps(wide)), write("c.json", json.dumps(COUNTERFACT))])
    found = interp.evaluate(model, data, batch_size=batch_size)
    word = model.tokenizer.backend.token_to_id
    ranks, whole, total, above = [], [], [], []
    for fact in data:
        row = [1, *(word(one) for one in fact.prompt.split())]
        answer = [word(one) for one in fact.attribute.split()]
        logits = model(torch.tensor([[*row, *answer[:-1]]]))[0, len(row) - 1 :]
        each = logits.log_softmax(-1)
        ranks.append(1 + int((logits[0] > logits[0, answer[0]]).sum()))
        whole.append(logits.argmax(-1).tolist() == answer)
        total.append(float(sum(each[i, one] for i, one in enumerate(answer))))
        if fact.target_new is not None:
            above.append(total[-1] > float(each[0, word(fact.target_new)]))
    assert list(found.rows["rank"]) == ranks and list(found.rows["whole"]) == whole
    np.testing.assert_allclose(found.rows["log_prob"], total, atol=1e-4)
    assert found.value("top1")[0] == pytest.approx(np.mean([one == 1 for one in ranks]))
    assert found.value("above_new")[0] == pytest.approx(np.mean(above))
    assert found.frame.loc[0, "median_rank"] == np.median(ranks)
    p17 = found.frame.loc[found.frame["group"] == "P17"].iloc[0]
    assert p17["median_rank"] == np.median(ranks[:4]) and math.isnan(p17["above_new"]) and p17["n"] == 4
    assert list(found.rows["n_tokens"]) == [4, 1, 1, 1, 1, 1]


def test_what_the_model_would_say_itself_is_top1_and_whole(write: Write) -> None:
    model = reader("llama")
    row = torch.tensor([[1, *(model.tokenizer.backend.token_to_id(one) for one in ["the", "Rome", "lies", "in"])]])
    for _ in range(3):
        row = torch.cat([row, model(row)[:, -1:].argmax(-1)], dim=1)
    said = model.tokenizer.backend.decode(row[0, -3:].tolist(), skip_special_tokens=False)
    fact = {**KNOWN[0], "attribute": said}
    other = {**KNOWN[0], "attribute": " ".join([*said.split()[:2], "red" if said.split()[2] != "red" else "old"])}
    data = read_facts(write("k.json", json.dumps([fact, {**other, "subject": "Rome lies"}])))
    found = interp.evaluate(model, data)
    assert list(found.rows["rank"]) == [1, 1] and list(found.rows["whole"]) == [1.0, 0.0]
    assert found.value("top1")[0] == 1.0 and found.value("whole")[0] == 0.5


def test_a_tie_for_the_first_place_is_not_right(write: Write) -> None:
    """A model whose logits are all alike ranks every token last."""
    model = HookedTransformer(ZOO["llama"], reader("llama").tokenizer)
    assert model.unembed is not None
    model.unembed.weight.zero_()
    facts = interp.evaluate(model, read_facts(write("k.json", json.dumps(KNOWN))))
    assert facts.value("top1")[0] == 0.0 and set(facts.rows["rank"]) == {50}
    same = [{"sentence_good": "a cat sleeps .", "sentence_bad": "a cat sleep .", "UID": "u"}]
    pairs = interp.evaluate(model, read_blimp(write("b.jsonl", lines(same))))
    assert pairs.value()[0] == 0.0 and pairs.frame.loc[0, "ties"] == 1
    assert pairs.rows["log_prob_good"][0] == pytest.approx(-4 * math.log(50), abs=1e-5)


def test_attributes_outside_the_vocabulary_are_left_out_and_counted(write: Write) -> None:
    records = [KNOWN[0], {**KNOWN[1], "attribute": "Atlantis"}]
    found = interp.evaluate(reader("llama"), read_facts(write("k.json", json.dumps(records))))
    assert found.about["left_out"] == {"attributes outside the vocabulary": 1}
    assert "1 facts have an attribute outside the vocabulary" in found.leaves_out
    assert math.isnan(found.rows["rank"][1]) and found.rows["n_tokens"][1] == 0
    with pytest.raises(InputError, match="No attribute of these facts is in this model's vocabulary"):
        interp.evaluate(reader("llama"), read_facts(write("n.json", json.dumps(records[1:]))))


# ---- what is refused, and what is said ----


def pairs_of(write: Write) -> MinimalPairs:
    return read_blimp(write("b.jsonl", lines(BLIMP)))


def test_models_that_give_no_such_probability_are_refused(write: Write, unchecked: None) -> None:
    pairs, facts = pairs_of(write), read_facts(write("k.json", json.dumps(KNOWN)))
    encoder, words = reader("encoder"), reader("llama").tokenizer
    bare = HookedTransformer(ZOO["encoder"].headless(), encoder.tokenizer)
    for model, data, message in (
        (randomize(HookedTransformer(ZOO["two_stacks"], words)), pairs, "is an encoder-decoder: .*Evaluate a decoder"),
        (bare, pairs, "has no head that predicts tokens"),
        (HookedTransformer(ZOO["encoder"], words), pairs, "has no mask token"),
        (encoder, facts, "is an encoder, and facts ask what comes after"),
        (HookedTransformer(ZOO["llama"]), pairs, "has no tokenizer"),
        ("smollm2", pairs, "A loaded model is evaluated, not 'smollm2'"),
    ):
        with pytest.raises(InputError, match=message):
            interp.evaluate(model, data)


def test_data_and_options_that_cannot_be_used_are_refused(write: Write, unchecked: None) -> None:
    model, pairs = reader("llama"), pairs_of(write)
    tree = read_conllu(write("t.conllu", "1\tcat\tcat\tX\t_\t_\t0\troot\t_\t_\n"))
    for data, options, message in (
        (tree, {}, "data is a Treebank. Give what read_blimp"),
        ([("a", "b")], {}, "data is a list"),
        (pairs, {"batch_size": 0}, "batch_size is 0"),
        (pairs, {"batch_size": 2.5}, "batch_size is 2.5"),
        (pairs, {"seed": -1}, "seed is -1"),
        (MinimalPairs(paths=("x",), n_lines=0), {}, "There is nothing to evaluate on"),
    ):
        with pytest.raises(InputError, match=message):
            interp.evaluate(model, data, **options)


def test_sentences_longer_than_the_context_are_refused_before_anything_runs(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reader("gpt2")
    long = {"sentence_good": "a cat " * 40 + ".", "sentence_bad": "a cat sleep ."}
    fact = {**KNOWN[0], "prompt": "the Rome " + "very " * 70}
    data = [read_blimp(write("b.jsonl", lines([*BLIMP, long]))), read_facts(write("k.json", json.dumps([fact])))]
    monkeypatch.setattr(HookedTransformer, "forward", lambda *_, **__: pytest.fail("a pass ran"))
    for one, message in zip(data, ("has 82 tokens; this model reads at most 64", "line 1: .*at most 64"), strict=True):
        with pytest.raises(InputError, match=message):
            interp.evaluate(model, one)


def test_a_tokenizer_of_more_words_than_the_model_is_refused(write: Write) -> None:
    small = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=1, d_vocab=12, n_ctx=32))
    small.tokenizer = reader("llama").tokenizer
    with pytest.raises(InputError, match="outside this model's vocabulary, 0 to 11"):
        interp.evaluate(small, pairs_of(write))
    with pytest.raises(InputError, match="of ids to 11"):
        interp.evaluate(small, read_facts(write("k.json", json.dumps(KNOWN))))


def test_a_pair_of_the_same_sentence_twice_is_read_and_is_a_tie(write: Write) -> None:
    """Seven of BLiMP's 67,000 pairs are such."""
    twice = {**BLIMP[0], "sentence_bad": BLIMP[0]["sentence_good"], "pairID": "9"}
    found = interp.evaluate(reader("llama"), read_blimp(write("b.jsonl", lines([*BLIMP, twice]))))
    assert found.about["left_out"] == {"pairs of the same sentence twice": 1} and "1 pairs hold" in found.leaves_out
    assert list(found.rows["tie"]) == [False, False, True] and not found.rows["right"][2]


def test_models_without_bos_say_of_how_many_pairs_the_first_word_may_decide(write: Write) -> None:
    records = [*BLIMP, {"sentence_good": "the cat sleeps .", "sentence_bad": "a cat sleeps .", "UID": "d"}]
    pairs = read_blimp(write("b.jsonl", lines(records)))
    without = interp.evaluate(reader("llama", bos=False), pairs)
    assert "No BOS stands in front" in without.leaves_out and "1 pairs differ in the first word" in without.leaves_out
    assert without.about["bos"] is False and "the first is not counted" in without.about["method"]
    same = interp.evaluate(reader("llama"), pairs, bos=False)
    pd.testing.assert_frame_equal(same.frame, without.frame)
    with_bos = interp.evaluate(reader("llama"), pairs)
    assert "No BOS" not in with_bos.leaves_out and with_bos.about["bos"] is True
    assert "pseudo-log-likelihood" in interp.evaluate(reader("bert"), pairs).describe()


def test_progress_counts_every_row(write: Write) -> None:
    seen: list[tuple[str, int, int]] = []
    interp.evaluate(reader("llama"), pairs_of(write), batch_size=3, progress=lambda *one: seen.append(one))
    assert seen == [("scoring", 3, 4), ("scoring", 4, 4)]


# ---- the result ----


@pytest.fixture
def results(write: Write) -> list[Evaluation]:
    model = reader("llama")
    pairs = read_blimp(write("b.jsonl", lines([*many_pairs(), {"sentence_good": 3}])), on_error="skip")
    wino = read_winogender(write("w.tsv", table(schemas())))
    facts = read_facts(write("c.json", json.dumps([*COUNTERFACT, *KNOWN])))
    return [interp.evaluate(model, one) for one in (pairs, wino, facts)]


def test_what_is_stored_comes_back_as_it_was(results: list[Evaluation], tmp_path: Any) -> None:
    for found in results:
        run = RunStore(tmp_path / "runs").save(found, spec={"analysis": "evaluate", "model": "tiny"})
        back = run.results()
        assert run.info.kind == "evaluation" and repr(back) == repr(found) and str(back) == str(found)
        pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
        pd.testing.assert_frame_equal(back.rows, found.rows)


def test_a_result_says_its_value_its_interval_and_what_it_leaves_out(results: list[Evaluation], tmp_path: Any) -> None:
    pairs, wino, facts = results
    value, low, high = pairs.value()
    assert f"accuracy {value:.3f} ({low:.3f} to {high:.3f})" in repr(pairs) and low <= value <= high
    assert "7 lines read, 1 skipped" in pairs.describe() and "line 7" in pairs.about["problems"][0]
    for found in results:
        said = found.summary()
        assert len(said) == len(found.frame) and set(found.measures) <= set(said.columns)
        assert found.leaves_out in str(found) and found.leaves_out.split(".")[0] in found._repr_html_()
        page = found.to_html(tmp_path / "page.html").read_text("utf-8")
        assert "<table" in page and found.about["data"] in page
        assert json.dumps(found.to_records(), allow_nan=False)
        copied = found.to_frame()
        copied["n"] = 0
        assert (found.frame["n"] > 0).all(), "a copy"
    assert wino.summary()["male_minus_female"].str.contains("to").any()
    assert len(wino.plot(by="answer").data[0].x) == 2 and len(facts.plot("log_prob").data[0].x) == 3
    for call, message in (
        (lambda: pairs.value("f1"), "measure is 'f1'. Measured were accuracy, normalised"),
        (lambda: pairs.value(by="UID", group="u9"), "There is no group 'u9' by 'UID'"),
        (lambda: pairs.plot(by="moon"), "by is 'moon'. Choose all, UID"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_hostile_name_is_shown_as_text(write: Write, tmp_path: Any) -> None:
    evil = "<img/src=x/onerror=alert(1)>"
    found = interp.evaluate(reader("llama"), read_blimp(write("b.jsonl", lines([{**BLIMP[0], "UID": evil}]))))
    for html in (found._repr_html_(), found.to_html(tmp_path / "page.html").read_text("utf-8")):
        assert evil not in html and "&lt;img" in html


# ---- a real model ----


@pytest.mark.slow
def test_smollm2_scores_a_padded_batch_as_single_rows_and_knows_some_grammar(smollm2: Any, write: Write) -> None:
    nouns = [
        "teacher",
        "engineers",
        "old lady",
        "children",
        "tall policeman",
        "many of the customers",
        "neighbour",
        "dogs",
    ]
    plural = [False, True, False, True, False, True, False, True]
    records = []
    for noun, many in zip(nouns, plural, strict=True):
        good, bad = (f"The {noun} {verb} in the garden." for verb in (("are", "is") if many else ("is", "are")))
        records.append({"sentence_good": good, "sentence_bad": bad, "UID": "agreement"})
    pairs = read_blimp(write("b.jsonl", lines(records)))
    batched, single = (interp.evaluate(smollm2, pairs, batch_size=size) for size in (16, 1))
    for name in ("log_prob_good", "log_prob_bad"):
        np.testing.assert_allclose(batched.rows[name], single.rows[name], atol=1e-4, rtol=1e-5)
    row = smollm2.to_tokens(records[0]["sentence_good"], prepend_bos=True)
    loss = smollm2(row, return_type="loss") * (row.shape[1] - 1)
    assert batched.rows["log_prob_good"][0] == pytest.approx(-float(loss), rel=1e-5, abs=1e-4)
    assert batched.value()[0] > 0.5, "better than a coin on the simplest agreement"


@pytest.mark.slow
def test_smollm2_goes_on_with_facts_as_greedy_decoding_does(smollm2: Any, write: Write) -> None:
    facts = [("France", "Paris"), ("Japan", "Tokyo"), ("Mongolia", "Ulaanbaatar"), ("Italy", "Berlin")]
    records = [
        {"prompt": f"The capital of {country} is", "subject": country, "attribute": city, "relation_id": "P36"}
        for country, city in facts
    ]
    data = read_facts(write("k.json", json.dumps(records)))
    found = interp.evaluate(smollm2, data)
    for one, whole in zip(data, found.rows["whole"], strict=True):
        row = smollm2.to_tokens(one.prompt, prepend_bos=True)
        wanted = smollm2.tokenizer.encode(f" {one.attribute}", prepend_bos=False)
        for _ in wanted:
            row = torch.cat([row, smollm2(row)[:, -1:].argmax(-1)], dim=1)
        assert (row[0, -len(wanted) :].tolist() == wanted) == bool(whole)
    assert len(data.to_pairs(smollm2)) >= 2
