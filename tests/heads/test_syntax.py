"""Heads that know who depends on whom: where words look, what rules are held against them, and what is said."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import interp
from interp import cli
from interp.atlas.stability import resample
from interp.errors import InputError
from interp.heads.base import finder
from interp.heads.syntax_attention import Looks, strongest
from interp.heads.syntax_corpus import Halves
from interp.heads.syntax_edges import cut_edges, edge_metric
from interp.heads.syntax_grammar import drawn_sentences
from interp.heads.syntax_scores import best_rules, count
from interp.heads.syntax_search import BEST, BY_RELATION, IN_SENTENCES, SyntaxSettings, search_syntax
from interp.heads.syntax_words import DIRECTIONS, LabelledTokens, links
from interp.planted.syntax import sentences
from interp.results import HeadScores
from interp.sites import Head
from tests.heads.syntax_models import looks_by_hand, reader, scattered
from tests.heads.test_syntax_words import as_conllu

DOWN, UP = DIRECTIONS


@pytest.fixture(autouse=True, scope="module")
def _quiet_threads(one_thread: None) -> None:
    pass


@pytest.fixture(scope="module")
def planted_scores() -> HeadScores:
    one = interp.planted.make("syntax")
    return interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, top=3)


def rows(some: HeadScores) -> dict[str, dict]:
    return {f"{row['layer']}.{row['head']}": row for row in some.frame.to_dict("records")}


# --- where words look


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_the_strongest_attention_equals_a_plain_loop(kind: str) -> None:
    model = reader(kind, seed=3, sharp=3.0)
    some = scattered(7, model.cfg.d_vocab, seed=1)
    found = strongest(model, some, rows_at_once=3)
    for i, one in enumerate(some):
        at, beaten = looks_by_hand(model, one, causal=kind == "decoder")
        n_words = len(one.words)
        assert found.at[i, :, :, :n_words].tolist() == at
        assert found.at_special[i, :, :, :n_words].tolist() == beaten
        assert (found.at[i, :, :, n_words:] == -1).all()


def test_a_word_without_tokens_neither_looks_nor_is_looked_at() -> None:
    model = reader("encoder", seed=1, sharp=3.0)
    found = strongest(model, [LabelledTokens((5, 6, 7, 8), ((0,), (), (1, 2), (3,)), ())])
    assert (found.at[..., 1] == -1).all() and not (found.at == 1).any()


# --- shares and rules, on looks that are made by hand


def looks(at: list[list[list[int]]], special: list[list[list[bool]]] | None = None) -> Looks:
    """`[sentence][head][word]` in one layer."""
    array = np.array(at, dtype=np.int16)[:, None]
    return Looks(array, np.zeros(array.shape, dtype=bool) if special is None else np.array(special)[:, None])


def words(n: int, *arcs: tuple[str, int, int]) -> LabelledTokens:
    return LabelledTokens(tuple(range(n)), tuple((i,) for i in range(n)), arcs)


def test_shares_count_words_that_find_any_of_their_partners() -> None:
    two = [words(4, ("r", 0, 3), ("r", 1, 3)), words(4, ("r", 2, 1))]
    right, wrong = [[1, 0, 0, 1], [1, 2, 0, 0]], [[3, 3, 1, 2], [1, 0, 3, 0]]
    found = count(two, looks([[right[0], wrong[0]], [right[1], wrong[1]]]), causal=False)
    down, up = found["r", DOWN], found["r", UP]
    assert down.n_words == 2 and down.hits.tolist() == [[1, 0], [1, 0]]
    assert up.words.tolist() == [2, 1] and up.hits.tolist() == [[0, 2], [0, 0]]
    assert down.share(down.hits).tolist() == [1.0, 0.0]


def test_a_special_token_that_gets_more_takes_the_hit_from_the_second_measure_only() -> None:
    one = looks([[[1, 0, 1]]], [[[False, True, False]]])
    found = count([words(3, ("r", 1, 0), ("r", 2, 1))], one, causal=False)["r", UP]
    assert found.hits.tolist() == [[2]] and found.hits_with_special.tolist() == [[1]]


def test_the_best_offset_is_that_of_most_words_and_stops_at_the_end_of_the_sentence() -> None:
    some = [words(6, ("r", 4, 2), ("r", 5, 3), ("r", 1, 0))]
    nothing = looks([[[-1] * 6]])
    found = count(some, nothing, causal=False)["r", UP]
    rule = best_rules({("r", UP): found})["r", UP]
    assert rule.offset == -2 and rule.share(found) == 1.0, "two back from the second word is the first"
    seen = count(some, nothing, causal=True)["r", UP]
    assert seen.n_words == 2, "the second word of a sentence sees one word, which is no choice"


def test_a_head_that_looks_at_one_word_whoever_asks_finds_it_for_all_other_words_too() -> None:
    sentence = words(5, ("r", 3, 0))
    favourite, knows = [1, 0, 0, 0, 0], [1, 2, 1, 0, 3]
    found = count([sentence], looks([[favourite, knows]]), causal=False)["r", UP]
    assert found.hits.tolist() == [[1, 1]] and found.other_words.tolist() == [[1.0, 0.0]]
    causal = count([sentence], looks([[favourite, knows]]), causal=True)["r", UP]
    assert causal.other_words.tolist() == [[1.0, 0.0]]


# --- the search


def test_planted_syntax_is_found_and_every_decoy_rejected(planted_scores: HeadScores) -> None:
    found = rows(planted_scores)
    assert {head: row["verdict"] for head, row in found.items() if row["verdict"]} == {
        "0.0": "syntax (det: noun → determiner)",
        "0.1": "syntax (nsubj: verb → subject)",
    }
    assert found["0.1"]["score"] == 1.0 and found["0.1"]["baseline"] < 0.45
    assert "not 0.1 above the baseline" in found["0.2"]["reason"], "the fixed offset"
    for decoy in ("0.3", "1.0"):  # the first noun, the nearest noun
        assert found[decoy]["score"] > found[decoy]["baseline"], "an offset alone would not explain it"
        assert "other words look at the same one" in found[decoy]["reason"]


def test_where_the_distance_is_fixed_an_offset_does_as_well_and_nothing_is_named() -> None:
    one = interp.planted.make("syntax")
    fixed = [layout for layout in interp.planted.syntax.LAYOUTS if layout.index("V") - layout.index("S") == 2]
    some = interp.find_heads(one.model, "syntax", corpus=sentences(160, layouts=fixed), n=8, top=1)
    table = some.tables[BY_RELATION]
    subjects = table[(table["relation"] == "nsubj")].set_index("head")
    assert subjects.loc["0.1", "score"] == subjects.loc["0.2", "score"] == subjects.loc["0.1", "baseline"] == 1.0
    assert not some.frame["verdict"].str.contains("nsubj").any()


def test_the_row_of_a_head_is_its_best_relation_on_the_selecting_sentences(planted_scores: HeadScores) -> None:
    table = planted_scores.tables[BY_RELATION]
    assert set(table["relation"]) == {"nsubj", "det", "amod"} and set(table["direction"]) == {DOWN}
    for head, row in rows(planted_scores).items():
        mine = table[(table["head"] == head) & (table["role"] == row["role"])].iloc[0]
        for name in ("score", "score_low", "score_high", "baseline", "offset", "other_words", "n_words", "p_corrected"):
            assert row[name] == mine[name]
        assert mine["score_low"] <= mine["score"] <= mine["score_high"]
    best = planted_scores.tables[BEST].set_index("relation")
    assert best.loc["nsubj", "head"] == "0.1" and best.loc["det", "head"] == "0.0" and len(best) == 3
    assert best["p"].notna().all() and best["n_sentences"].max() <= 64


def test_effects_are_those_of_the_candidates_and_nothing_is_asked_of_them(planted_scores: HeadScores) -> None:
    found, about = planted_scores.frame, planted_scores.about
    assert found["effect"].notna().sum() == 3 and {"0.0", "0.1"} <= {
        head for head, row in rows(planted_scores).items() if row["effect"] == row["effect"]
    }
    assert about["cutoffs"]["syntax"] == {"margin": 0.1} and planted_scores.sets.empty
    assert "its edge to the partner cut" in planted_scores.unit("syntax") and "millinats" in planted_scores.unit(
        "syntax"
    )
    assert about["syntax"]["targets"] == "earlier words only"
    assert set(found["decided_by"]) == {"attention"}


def test_the_same_seed_gives_the_same_numbers_and_another_halves_otherwise(planted_scores: HeadScores) -> None:
    one = interp.planted.make("syntax")
    again = interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, top=3)
    assert again.frame.equals(planted_scores.frame)
    other = interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, top=3, seed=1)
    assert not other.frame["baseline"].equals(planted_scores.frame["baseline"])


def test_a_larger_margin_changes_verdicts() -> None:
    one = interp.planted.make("syntax")
    strict = {"syntax": {"margin": 0.65}}
    some = interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, top=1, cutoffs=strict)
    assert {row["role"] for row in rows(some).values() if row["verdict"]} == {"nsubj: verb → subject"}
    with pytest.raises(InputError, match="There is no cutoff 'score' of 'syntax'"):
        interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, cutoffs={"syntax": {"score": 0.5}})


def test_p_is_corrected_for_the_number_of_kinds() -> None:
    model, halves = reader(seed=5), Halves(scattered(60, 60, 1), scattered(60, 60, 2))
    both = [
        search_syntax(model, halves, SyntaxSettings(8, 1, "attention", 0, n), lambda *_: None, "").frame for n in (1, 3)
    ]
    np.testing.assert_allclose(np.minimum(3 * both[0]["p_corrected"], 1), both[1]["p_corrected"])


def test_both_rules_have_to_be_beaten_surely() -> None:
    """p is the larger of two: a head that beats the offset and not the other words has none below .05."""
    one = interp.planted.make("syntax")
    found = rows(interp.find_heads(one.model, "syntax", corpus=sentences(160), n=8, top=1))
    assert found["0.3"]["p"] > 0.4 and found["0.1"]["p"] < 0.001


def test_every_head_is_cut_where_none_is_screened() -> None:
    one = interp.planted.make("syntax")
    some = interp.find_heads(one.model, "syntax", corpus=sentences(64), n=6, screen="none")
    assert some.frame["effect"].notna().all() and len(some.frame) == 8


def test_encoders_are_searched_in_both_directions_and_judged_by_representations() -> None:
    some = interp.find_heads(reader("encoder"), "syntax", n=5, top=2)
    table = some.tables[BEST]
    assert {"nsubj", "obj", "det", "amod", "case"} <= set(table["relation"]) and set(table["direction"]) == {UP, DOWN}
    assert some.frame["score_no_bos"].isna().all() and some.frame["effect"].notna().sum() == 2
    assert "share of its length" in some.unit("syntax") and (some.frame["effect"].dropna() > 0).all()


def test_decoders_see_partners_that_stand_earlier_with_and_without_bos() -> None:
    some = interp.find_heads(reader(sharp=2.0), "syntax", n=5, top=1)
    roles = set(some.tables[BEST]["role"])
    assert {"nsubj: verb → subject", "det: noun → determiner", "obj: object → verb"} <= roles
    assert not {"amod: adjective → noun", "det: determiner → noun"} & roles
    assert some.frame["score_no_bos"].notna().all()


def test_too_few_words_of_every_relation_are_refused() -> None:
    few = [LabelledTokens((1, 2, 3, 4), ((0,), (1,), (2,), (3,)), (("r", 3, 1),)) for _ in range(12)]
    with pytest.raises(InputError, match=r"No relation stands 20 times in each half of these sentences \(6 and 6"):
        interp.find_heads(reader(), "syntax", corpus=few, n=8)


# --- cutting edges


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_cut_edges_equal_passes_with_renormalised_patterns(kind: str) -> None:
    model, head = (
        reader(kind, seed=2),
        Head(1, 2, "attn", "" if kind == "decoder" else reader(kind).main.name),
    )
    some = scattered(6, model.cfg.d_vocab, seed=4)
    chosen = [next(iter(links(one.arcs, causal=kind == "decoder")), None) for one in some]
    cuts = cut_edges(model, some, head, chosen, seed=0)
    by_hand = []
    for one, link in zip(some, chosen, strict=True):
        if link is None or not _another(one, link, kind):
            continue
        keys = [k for partner in link.partners for k in one.words[partner]]
        by_hand.append(_cut_by_hand(model, one, list(one.words[link.word]), keys))
    np.testing.assert_allclose(cuts.partner, by_hand, rtol=1e-3, atol=1e-3 if kind == "decoder" else 1e-5)
    assert len(cuts.other) == len(by_hand) > 2 and (cuts.other > 1e-6).any()


def _another(one: LabelledTokens, link, kind: str) -> bool:
    seen = [i for i in range(len(one.words)) if i < link.word or kind == "encoder"]
    return bool(set(seen) - {link.word} - link.partners)


def _cut_by_hand(model, one: LabelledTokens, queries: list[int], keys: list[int]) -> float:
    tokens = torch.tensor([list(one.tokens)])

    def without(pattern, hook):
        for q in queries:
            row = pattern[0, 2, q].clone()
            row[keys] = 0.0
            pattern[0, 2, q] = row / row.sum()
        return pattern

    if model.cfg.decoder is not None:
        clean = model(tokens)[0, queries[-1]].log_softmax(-1)
        cut = model.run_with_hooks(tokens, fwd_hooks=[("pattern.1", without)])[0, queries[-1]].log_softmax(-1)
        return 1000 * torch.sum(clean.exp() * (clean - cut)).item()
    vectors = []
    for hooks in ([], [("pattern.1", without)]):
        resid: list[torch.Tensor] = []
        keep = [("resid_post.1", lambda x, hook, to=resid: to.append(x.clone()) or x)]
        model.run_with_hooks(tokens, fwd_hooks=[*hooks, *keep])
        vectors.append(model.main.finish(resid[0], interp.model.taps.NO_TAPS)[0, queries].mean(0))
    return ((vectors[0] - vectors[1]).norm() / vectors[0].norm()).item()


def test_the_measure_of_a_cut_is_named_for_what_the_model_can_show() -> None:
    assert edge_metric(reader())[1] == "millinats" and edge_metric(reader("encoder"))[1] == "share of its length"


# --- what can be read, and what is refused


def test_conllu_is_read_by_syntax_and_refused_by_kinds_that_read_text(tmp_path) -> None:
    (tmp_path / "mine.conllu").write_text(as_conllu(drawn_sentences(60, "select", 0)), encoding="utf-8")
    some = interp.find_heads(reader(), "syntax", corpus=tmp_path, n=5, top=1)
    assert (
        some.about["syntax"]["sentences"]["select"] == 30 and "mine.conllu" in some.about["syntax"]["sentences"]["from"]
    )
    with pytest.raises(InputError, match="sentences with trees, which sink cannot read"):
        interp.find_heads(reader(), ["syntax", "sink"], corpus=tmp_path, n=8)


def test_all_kinds_hold_syntax_where_it_can_be_read() -> None:
    from interp.heads.find import _kinds

    def names(model, corpus=None, given=None) -> set[str]:
        return {one.name for one in _kinds(model, "all", given, corpus)}

    one = interp.planted.make("syntax")
    assert "syntax" in names(reader()) and {"sink", "syntax"} <= names(reader())
    assert "syntax" not in names(one.model) and "syntax" not in names(one.model, None, dict(one.pairs))
    assert "syntax" in names(one.model, sentences(40)) and "sink" not in names(one.model, sentences(40))
    raw = "README.md"
    assert ("syntax" in names(reader(), raw)) == (find_spec("spacy") is not None)


def test_a_model_without_a_tokenizer_and_pairs_are_refused_with_what_to_give() -> None:
    one = interp.planted.make("syntax")
    with pytest.raises(InputError, match=r"planted-syntax has no tokenizer.*LabelledTokens"):
        interp.find_heads(one.model, "syntax")
    with pytest.raises(InputError, match="found on whole sentences, not on pairs"):
        interp.find_heads(reader(), "syntax", pairs=one.pairs["verb"])
    bad = [LabelledTokens((1, 2), ((0,), (5,)), ()), *sentences(20)]
    with pytest.raises(InputError, match="Word 1 has the tokens"):
        interp.find_heads(one.model, "syntax", corpus=bad)


def test_a_finished_search_is_kept_and_other_sentences_start_anew(tmp_path, monkeypatch) -> None:
    one = interp.planted.make("syntax")
    options = {"n": 8, "top": 1, "keep": tmp_path}
    first = interp.find_heads(one.model, "syntax", corpus=sentences(60), **options)
    monkeypatch.setattr("interp.heads.find.search_syntax", lambda *_: pytest.fail("searched again"))
    again = interp.find_heads(one.model, "syntax", corpus=sentences(60), **options)
    assert again.frame.equals(first.frame) and again.tables[BY_RELATION].equals(first.tables[BY_RELATION])
    with pytest.raises(BaseException, match="searched again"):
        interp.find_heads(one.model, "syntax", corpus=sentences(60, seed=1), **options)


def test_syntax_goes_with_other_kinds_in_one_table() -> None:
    some = interp.find_heads(reader(), ["induction", "syntax"], n=7, top=1, n_random_sets=1)
    assert some.kinds == ["induction", "syntax"] and list(some.sets["kind"]) == ["induction"]
    assert set(some.about["cause"]) == {"induction", "syntax"} and "one edge" in some.about["ablation"]
    assert some.of("syntax")["q"].notna().all()


def test_scores_are_saved_drawn_and_read_again(planted_scores: HeadScores, tmp_path) -> None:
    planted_scores.save(tmp_path / "scores")
    again = HeadScores.load(tmp_path / "scores")
    assert again.frame["verdict"].tolist() == planted_scores.frame["verdict"].tolist()
    page = planted_scores.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "syntax: by relation" in page and "nsubj: verb → subject" in page


def test_the_command_reads_the_users_trees(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "mine.conllu").write_text(as_conllu(drawn_sentences(60, "select", 0)), encoding="utf-8")
    monkeypatch.setattr("interp.load", lambda name, **options: reader(), raising=False)
    arguments = ["--kind", "syntax", "--corpus", str(tmp_path / "mine.conllu"), "--n", "6", "--top", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["interp", "heads", "tiny", *arguments])
    cli.main()
    data = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in data["heads"]} == {"syntax"} and data["about"]["syntax"]["sentences"]["report"] == 30


def test_the_kind_is_complete() -> None:
    one = finder("syntax")
    assert one.name == "syntax" and one.definition and one.margin == 0.1 and one.applies_to == {"decoder", "encoder"}


def test_counts_of_each_sentence_are_kept_and_say_how_firmly_a_head_is_named(planted_scores: HeadScores) -> None:
    counts = planted_scores.items.groupby(["layer", "head", "measure"])["value"].sum()
    for row in planted_scores.frame.to_dict("records"):
        words, found, offset, other = (counts[row["layer"], row["head"], name] for name in IN_SENTENCES)
        shares = [row["score"], row["baseline"], row["other_words"]]
        assert [found / words, offset / words, other / words] == pytest.approx(shares, abs=1e-9)
        assert words == row["n_words"]
    firm = resample(planted_scores, "syntax")
    assert firm.named == {head for head, row in rows(planted_scores).items() if row["verdict"]}
    assert firm.named and firm.jaccard > 0.95 and all(firm.again[head] > 0.9 for head in firm.named)
    frame = planted_scores.frame.assign(p_corrected=0.2)
    assert not resample(replace(planted_scores, frame=frame), "syntax").named
