"""What makes a trial fair: orders that count alike, prompts that stand for their item, answers of others, layers of
different widths, other dtypes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import interp
from interp import planted
from interp.errors import InputError
from interp.heads.study import Study
from interp.model.config import AttentionConfig, BlockConfig, MLPConfig, ModelConfig, StackConfig
from interp.model.transformer import HookedTransformer

QUICK = {"top": 4, "n_random_sets": 2}


@pytest.fixture(scope="module")
def coreference():
    return planted.make("coreference")


def order(pairs, i: int) -> bool:
    return pairs.span("antecedent", i) < pairs.span("distractor", i)


def row(scores, kind: str, layer: int, head: int):
    return scores.of(kind).set_index(["layer", "head"]).loc[(layer, head)]


def test_a_nearest_noun_head_is_right_in_half_also_where_items_have_unequal_numbers_of_prompts(coreference):
    pairs = coreference.pairs["pronoun"]
    sides = {True: [], False: []}
    for i in range(len(pairs)):
        sides[order(pairs, i)].append(i)
    n = min(len(sides[False]), len(sides[True]) // 3)
    chosen = [i for k in range(n) for i in sides[True][3 * k : 3 * k + 3]] + sides[False][:n]
    items = tuple(f"first {k // 3}" for k in range(3 * n)) + tuple(f"second {k}" for k in range(n))
    uneven = replace(pairs.select(chosen), items=items)
    scores = interp.find_heads(coreference.model, "coreference", pairs=uneven, alpha=0.5, **QUICK)
    nearest, true = row(scores, "coreference", 0, 2), row(scores, "coreference", 0, 1)
    assert nearest["score"] == pytest.approx(0.5) and true["score"] == pytest.approx(1.0)
    assert scores.about["baselines"]["coreference"]["nearest"] == pytest.approx(0.5)


def test_thinned_prompts_hold_both_orders_of_each_item_however_they_are_listed(coreference):
    pairs = coreference.pairs["pronoun"]
    first = [i for i in range(len(pairs)) if order(pairs, i)][:16]
    second = [i for i in range(len(pairs)) if not order(pairs, i)][:16]
    listed = [i for a, b in zip(first, second, strict=True) for i in (a, b)]  # first, second, first, second …
    quartets = replace(pairs.select(listed), items=tuple(str(k // 4) for k in range(len(listed))))
    study = Study(coreference.model, {"pronoun": quartets}, ("pronoun",))
    thinned = study.thinned()
    by_item: dict[str, list[bool]] = {}
    for i, item in enumerate(thinned.main.items):
        by_item.setdefault(item, []).append(order(thinned.main, i))
    assert all(sorted(orders) == [False, True] for orders in by_item.values()) and len(by_item) == 8
    assert thinned.reference is not None and len(thinned.reference) == len(quartets)
    assert study.some([0, 1]).thinned().reference is None  # nothing was left out
    singles = study.thinned(1).main
    assert len(set(singles.items)) == len(singles) == 8  # one of each item, every other one in each order
    assert sorted(order(singles, i) for i in range(8)) == [False] * 4 + [True] * 4
    in_turn = tuple(f"template {k // 4 % 2}" for k in range(len(listed)))  # items take turns in their template
    alternating = Study(coreference.model, {"pronoun": replace(quartets, templates=in_turn)}, ("pronoun",))
    of_one = [i for i, name in enumerate(alternating.thinned(1).main.templates) if name == "template 0"]
    assert sorted(order(alternating.thinned(1).main, i) for i in of_one) == [False] * 2 + [True] * 2
    few = study.thinned(2, n_items=3).main
    assert len(set(few.items)) == 3 and len(few) == 6


def test_shuffled_answers_are_never_the_items_own(coreference):
    pairs = coreference.pairs["pronoun"]
    told_apart = tuple(((i,),) for i in range(len(pairs)))  # each prompt an answer of its own
    doubled = replace(
        pairs, answer=tuple((one,) for (one,) in told_apart), items=tuple(str(i // 2) for i in range(len(pairs)))
    )
    other = Study(coreference.model, {"pronoun": doubled}, ("pronoun",)).shuffled(3)
    given = [answer[0][0] for answer in other.main.answer]
    assert sorted(given) == list(range(len(pairs))) and other.main.clean == doubled.clean
    assert all(doubled.items[whose] != doubled.items[i] for i, whose in enumerate(given))


def test_writing_with_shuffled_answers_stands_beside_the_real_one():
    made = planted.make("ioi")
    scores = interp.find_heads(made.model, "name_mover", pairs=made.pairs["abc"], **QUICK)
    mover = next(iter(made.truth.heads["name_mover"]))
    found = row(scores, "name_mover", mover.layer, mover.head)
    assert found["writing"] > 5 and abs(found["writing_shuffled"]) < found["writing"] / 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_of_half_precision_are_searched_too(dtype):
    made = planted.make("ioi")
    half = HookedTransformer(made.model.cfg, dtype=dtype)
    half.load_state_dict({name: x.to(dtype) for name, x in made.model.state_dict().items()})
    scores = interp.find_heads(half, "name_mover", pairs=made.pairs["abc"], **QUICK)
    mover = next(iter(made.truth.heads["name_mover"]))
    assert row(scores, "name_mover", mover.layer, mover.head)["verdict"] == "name_mover"


def test_layers_may_have_different_numbers_of_heads():
    blocks = tuple(BlockConfig(AttentionConfig(n, 8, n, 8**-0.5), MLPConfig(32)) for n in (4, 2, 6))
    model = HookedTransformer(ModelConfig(32, 120, 128, decoder=StackConfig(blocks, learned_positions=128)), seed=0)
    rows = torch.randint(5, 120, (32, 70), generator=torch.Generator().manual_seed(0))
    scores = interp.find_heads(model, ["induction", "previous_token"], corpus=rows, n=8, top=3, n_random_sets=3)
    assert len(scores.of("induction")) == 12


def test_another_order_of_corruptions_is_another_search(tmp_path):
    made = planted.make("fact_recall")
    both = {name: made.pairs[name] for name in ("subject", "relation")}
    first = interp.find_heads(made.model, "fact_recall", pairs=both, keep=tmp_path, **QUICK)
    turned = dict(reversed(both.items()))
    second = interp.find_heads(made.model, "fact_recall", pairs=turned, keep=tmp_path, **QUICK)
    assert first.about["tasks"]["fact_recall"]["corruption"] == "subject"
    assert second.about["tasks"]["fact_recall"]["corruption"] == "relation"


def test_a_damaged_part_is_measured_again(tmp_path):
    made = planted.make("ioi")
    options = {"pairs": made.pairs["abc"], "keep": tmp_path, **QUICK}
    first = interp.find_heads(made.model, "name_mover", **options)
    for file in tmp_path.rglob("heads.parquet"):
        file.write_bytes(b"nothing")
    assert interp.find_heads(made.model, "name_mover", **options).frame.equals(first.frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foil": ()}, "these pairs have none"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"alpha": "x"}, "alpha is x"),
        ({"top": True}, "top is True"),
        ({"cutoffs": {"backup": 0.3}}, "Give them by kind and name"),
        ({"cutoffs": 0.3}, "Give them by kind and name"),
        ({"cutoffs": {"backup": {"score": float("nan")}}}, "score of backup is nan"),
        ({"cutoffs": {"backup": {"score": "high"}}}, "score of backup is 'high'"),
        ({"END": True}, "its logits are read at"),
    ],
)
def test_bad_requests_are_refused_by_name(change, message):
    made = planted.make("ioi")
    pairs = made.pairs["abc"]
    if "foil" in change:
        pairs = replace(pairs, foil=())
    if "END" in change:
        pairs = replace(pairs, positions={**pairs.positions, "END": tuple((0,) for _ in pairs.clean)})
    options = {name: value for name, value in change.items() if name not in ("foil", "END")}
    with pytest.raises(InputError, match=message):
        interp.find_heads(made.model, "backup", pairs=pairs, **options)


def test_prompts_that_are_scored_alike_tell_nothing():
    made = planted.make("ioi")
    pairs = made.pairs["abc"]
    alike = replace(pairs, corrupt=pairs.clean)
    scores = interp.find_heads(made.model, "name_mover", pairs=alike, **QUICK)
    assert set(scores.frame["verdict"]) == {""} and "scored alike" in scores.about["problems"]["name_mover"]
    assert np.isnan(scores.frame["effect"]).all()
