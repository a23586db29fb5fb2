"""What stands behind a mean: effects by corruption and by template, which measure decided, and with whom heads are
compared."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import interp
from interp import planted
from interp.errors import InputError
from interp.heads.splits import halves
from interp.stats import benjamini_hochberg

CORRUPTIONS = ("abc", "swap")


@cache
def found(screen: str = "attention"):
    made = planted.make("ioi")
    pairs = {name: made.pairs[name] for name in CORRUPTIONS}
    return made, interp.find_heads(made.model, "name_mover", pairs=pairs, top=4, n_random_sets=1, screen=screen)


def report_half(made, corruption: str):
    pairs = made.pairs[corruption]
    return pairs.select(halves(pairs, 0)[1])


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_effects_by_corruption_are_those_of_the_exact_engine(corruption, direction):
    made, scores = found()
    table = scores.tables["ioi: effects by corruption"]
    rows = table[(table["corruption"] == corruption) & (table["direction"] == direction)]
    assert len(rows) == 4 and set(rows["kind"]) == {"name_mover"}
    rest = report_half(made, corruption)
    for row in rows.itertuples():
        effects = interp.patch(made.model, rest, [row.head], over=("target",), direction=direction)
        clean, corrupt = (effects.base, effects.source) if direction == "noise" else (effects.source, effects.base)
        in_units = effects.values.values.mean() * (-1 if direction == "noise" else 1)
        assert row.in_units == pytest.approx(in_units, abs=1e-5)
        assert row.effect == pytest.approx(in_units / (clean.mean() - corrupt.mean()), abs=1e-6)
        assert (row.clean, row.corrupt) == pytest.approx((clean.mean(), corrupt.mean()))
        assert row.effect_low <= row.effect <= row.effect_high and row.n_items == len(set(rest.items))


def test_the_first_corruption_given_decides_and_the_others_do_not():
    made, scores = found()
    alone = interp.find_heads(made.model, "name_mover", pairs=made.pairs["abc"], top=4, n_random_sets=1)
    same = ["score", "noise", "denoise", "p_corrected", "verdict"]
    assert scores.frame[same].equals(alone.frame[same])
    assert set(alone.tables["ioi: effects by corruption"]["corruption"]) == {"pairs"}


def test_templates_together_make_the_effect_of_the_head():
    made, scores = found()
    table, rest = scores.tables["ioi: by template"], report_half(made, "abc")
    rows = scores.of("name_mover").set_index(["layer", "head"])
    for head, mine in table[table["measure"] == "noise"].groupby("head"):
        assert sorted(mine["template"]) == sorted(set(rest.templates))
        layer, number = map(int, head.split("."))
        harm = interp.patch(made.model, rest, [head], over=("target",), direction="noise")
        share = -harm.values.values[:, 0] / (harm.base.mean() - harm.source.mean())
        for row in mine.itertuples():
            chosen = np.array(rest.templates) == row.template
            items = np.array(rest.items)[chosen]
            by_item = [share[chosen][items == item].mean() for item in sorted(set(items))]
            assert row.effect == pytest.approx(np.mean(by_item), abs=1e-6) and row.n_items == len(by_item)
        weights = mine["n_items"] / mine["n_items"].sum()
        if mine["n_items"].sum() == len(set(rest.items)):  # no item stands in two templates
            assert (mine["effect"] * weights).sum() == pytest.approx(rows.loc[(layer, number), "noise"], abs=1e-6)
            assert (mine["score"] * weights).sum() == pytest.approx(rows.loc[(layer, number), "score"], abs=1e-6)


def test_every_row_says_which_measure_decided():
    _, scores = found()
    rows = scores.of("name_mover")
    tested = rows["effect"].notna()
    assert set(rows.loc[tested, "decided_by"]) <= {"noise", "denoise"} and set(rows.loc[~tested, "decided_by"]) == {""}
    sufficient = rows["verdict"].str.contains("sufficient")
    assert (rows.loc[sufficient, "decided_by"] == "denoise").all()
    smallest = rows[["p", "denoise_p"]].min(axis=1)
    np.testing.assert_array_equal(rows["q"], benjamini_hochberg(smallest.to_numpy()))


def test_a_search_of_every_head_compares_with_heads_that_are_no_candidates():
    made, _ = found()
    one = interp.find_heads(made.model, "name_mover", pairs=made.pairs["abc"], top=4, n_random_sets=1, screen="none")
    movers = {(head.layer, head.head) for head in made.truth.heads["name_mover"]}
    rows = one.of("name_mover").set_index(["layer", "head"])
    assert rows["effect"].notna().all()
    for layer, head in movers:
        others = [h for h in rows.loc[layer].index if (layer, h) not in movers]
        assert rows.loc[(layer, others), "control"].abs().max() < 1e-6  # the mover's own effect is in nobody's controls
        assert rows.loc[(layer, head), "verdict"].startswith("name_mover")


def test_relation_heads_are_found_by_prompts_with_another_relation_and_by_no_others():
    made = planted.make("additive_facts")
    kinds = ["fact_recall", "fact_relation"]
    both = {name: made.pairs[name] for name in ("subject", "relation")}
    scores = interp.find_heads(made.model, kinds, pairs=both, top=4, n_random_sets=2)
    for kind in kinds:
        rows = scores.of(kind)
        chosen = rows[rows["verdict"].str.startswith(f"{kind} (") | (rows["verdict"] == kind)]
        names = {f"{row.layer}.{row.head}" for row in chosen.itertuples()}
        assert names == {str(head) for head in made.truth.heads[kind]}, rows[["layer", "head", "reason"]].to_string()
    assert {"fact_recall", "fact_recall by relation"} <= set(scores.about["tasks"])
    with pytest.raises(InputError, match="changes the tokens of relation"):
        interp.find_heads(made.model, kinds, pairs=made.pairs["subject"], top=4, n_random_sets=2)


def test_even_attention_is_no_sign_of_a_head_that_reads_the_subject():
    made = planted.make("fact_recall")
    pairs = made.pairs["subject"]
    wide = replace(pairs, positions={**pairs.positions, "subject": tuple(tuple(range(1, r)) for r in pairs.read)})
    rows = interp.find_heads(made.model, "fact_recall", pairs=wide, top=4, n_random_sets=1).of("fact_recall")
    assert (rows["baseline"] > 0.6).all()
    below = rows[rows["score"] < rows["baseline"] + 0.05]
    assert len(below) and (below["reason"].str.contains("above the baseline")).all()


def test_calls_on_one_model_share_what_they_measured_of_it(monkeypatch, smollm2):
    import interp.tasks.fact_recall as facts

    asked = []
    best_of = facts.best_of
    monkeypatch.setattr(facts, "best_of", lambda *a: asked.append(a) or best_of(*a))
    known: dict = {}
    options = {"split": "report", "n": 3, "relations": "continent", "known": known}
    first, again = (interp.tasks.load("fact_recall", smollm2, one, **options) for one in ("subject", "subject"))
    assert len(asked) == 1 and first.pairs.clean == again.pairs.clean and first.about == again.about
    interp.tasks.load("fact_recall", smollm2, "subject", **{**options, "split": "select"})
    assert len(asked) == 2
    with pytest.raises(InputError, match="Give a dict, empty at first"):
        interp.tasks.load("fact_recall", smollm2, known=[1])


def test_all_kinds_of_given_pairs_are_those_whose_positions_they_name():
    made = planted.make("additive_facts")
    scores = interp.find_heads(made.model, "all", pairs=made.pairs["subject"], top=2, n_random_sets=1)
    asked = set(scores.kinds)
    assert "fact_recall" in asked and "induction" in asked
    assert not asked & {"name_mover", "coreference", "copy_suppression", "fact_relation"}  # the relation stays the same


@pytest.mark.parametrize("seed", [1, 2])
def test_a_head_that_only_brings_the_relation_to_others_is_no_relation_head(seed):
    noise = planted.EPSILON["fact_recall"]
    made = planted.make("fact_recall", seed=seed, noise=noise, n=80)
    mover = next(iter(made.truth.heads["relation_mover"]))
    rows = interp.find_heads(made.model, "fact_relation", pairs=made.pairs["relation"], top=4, n_random_sets=1).frame
    row = rows.set_index(["layer", "head"]).loc[(mover.layer, mover.head)]
    assert row["effect"] > 0.9 and row["score"] > 0.9
    assert row["verdict"] == "attends like fact_relation" and "writing" in row["reason"]
    assert not rows["verdict"].str.startswith("fact_relation").any()
