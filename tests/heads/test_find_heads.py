"""Finders on a model whose truth is known, on one where there is nothing, and on bad requests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import config as shape_checks

import interp
from interp.circuits.ov import copying_ratio, written_norms
from interp.circuits.streaming import stream_heads
from interp.errors import InputError
from interp.heads.ablation import ablate_sets
from interp.heads.base import Finder, finder, finders
from interp.heads.causes import CAUSES
from interp.heads.find import BASIC_KINDS
from interp.heads.patterns import attention_shares, prefix_match, previous_token
from interp.heads.splits import halves
from interp.heads.task_finder import TaskFinder
from interp.model.config import ModelConfig
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Head
from interp.tasks.base import definitions
from interp.tasks.repeated_tokens import common_vocabulary, single_repeats, tiled

KINDS = ["duplicate_token", "induction"]


@pytest.fixture(scope="module")
def found(planted, random_rows):
    kinds = ["previous_token", "induction"]
    return interp.find_heads(planted, kinds, corpus=random_rows, n=12, top=2, n_random_sets=3, seed=0)


def row(found, kind: str, layer: int, head: int) -> pd.Series:
    table = found.of(kind)
    return table[(table["layer"] == layer) & (table["head"] == head)].iloc[0]


def test_planted_heads_are_found_and_nothing_else(found):
    verdicts = found.frame[found.frame["verdict"].isin(["previous_token", "induction"])]
    named = {(r.kind, r.layer, r.head) for r in verdicts.itertuples()}
    assert named == {("previous_token", 0, 1), ("induction", 1, 2)}


def test_decoys_have_the_pattern_but_no_effect_and_no_verdict(found):
    for kind, real, decoy in (("previous_token", (0, 1), (0, 0)), ("induction", (1, 2), (1, 0))):
        assert row(found, kind, *decoy)["score"] == pytest.approx(row(found, kind, *real)["score"], abs=1e-6)
        assert abs(row(found, kind, *decoy)["effect"]) < 1e-9  # sums of other heights round differently
        assert row(found, kind, *decoy)["verdict"] == f"attends like {kind}"
        assert row(found, kind, *real)["effect"] > 1.0


def test_copying_tells_the_head_that_copies_from_the_one_that_does_not(found):
    assert row(found, "induction", 1, 2)["writing"] > 20  # 25 tokens to choose from
    assert not row(found, "induction", 1, 0)["writing"] >= 2.0


def test_what_was_not_measured_is_absent(found):
    table = found.to_frame()
    unscored = table[(table["kind"] == "induction") & (table["layer"] == 1) & (table["head"] == 1)].iloc[0]
    assert np.isnan(unscored["effect"]) and np.isnan(unscored["p"])
    assert len(table) == 2 * 8 and not table["score"].isna().any()


def test_tables_carry_addresses_and_settings(found):
    assert {"kind", "stack", "sublayer", "layer", "head", "score"} <= set(found.to_frame().columns)
    assert found.about["seed"] == 0 and found.about["n"] == 12
    assert found.about["cutoffs"]["induction"] == {"score": 0.4, "writing": 2.0, "effect": 0.1}


def test_same_seed_gives_the_same_numbers_and_another_seed_others(random_model):
    first, again, other = (
        interp.find_heads(random_model, KINDS, n=8, top=1, n_random_sets=1, seed=seed).frame for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["score"], other["score"])


def test_shares_equal_those_of_the_whole_pattern(random_model, monkeypatch):
    batch = Batch(tiled(random_model, 3, block=7, repeats=3).tokens)
    monkeypatch.setattr("interp.circuits.streaming._CHUNK_BYTES", 3 * 4 * 21 * 4 * 5)  # five queries a chunk
    shares = attention_shares(random_model, batch, {"prefix": prefix_match, "previous": previous_token}, rows_at_once=2)
    with torch.no_grad():
        _, cache = random_model.run_with_cache(batch.tokens)
    for layer in range(2):
        pattern = cache["pattern", layer]
        expected = torch.zeros(3, 4)
        for row_index in range(3):
            tokens, asked = batch.tokens[row_index].tolist(), 0
            for query in range(21):
                keys = [key for key in range(1, query + 1) if tokens[key - 1] == tokens[query] and key - 1 < query]
                asked += bool(keys)
                expected[row_index] += pattern[row_index, :, query, keys].sum(-1)
            expected[row_index] /= asked
        torch.testing.assert_close(shares["prefix"][:, layer], expected, atol=1e-6, rtol=1e-5)
        diagonal = pattern.diagonal(offset=-1, dim1=2, dim2=3).mean(-1)
        torch.testing.assert_close(shares["previous"][:, layer], diagonal, atol=1e-6, rtol=1e-5)


def test_padding_neither_asks_nor_counts(random_model):
    tokens = tiled(random_model, 2, block=7, repeats=2).tokens
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), tokens], dim=1)
    mask = torch.cat([torch.zeros(2, 5, dtype=torch.bool), torch.ones_like(tokens, dtype=torch.bool)], dim=1)
    plain = attention_shares(random_model, Batch(tokens), {"x": prefix_match})["x"]
    left = attention_shares(random_model, Batch(padded, mask), {"x": prefix_match})["x"]
    torch.testing.assert_close(left, plain, atol=1e-5, rtol=1e-4)


def test_a_prompt_without_targets_scores_nan_not_zero(random_model):
    tokens = torch.arange(20, 30)[None]
    assert attention_shares(random_model, Batch(tokens), {"x": prefix_match})["x"].isnan().all()


def test_ablated_losses_equal_a_plain_hooked_run(random_model):
    data = single_repeats(random_model, 5, seed=7)
    behaviour = CAUSES["repeated_tokens"].make(random_model, 5, 7)
    sets = [(Head(0, 1),), (Head(1, 3), Head(0, 2)), (Head(1, 0),)]
    fast = ablate_sets(random_model, behaviour, sets, max_bytes=1_000_000)
    with torch.no_grad():
        _, cache = random_model.run_with_cache(data.tokens, ["z.0", "z.1"])
        for heads, losses in zip(sets, fast.ablated, strict=True):

            def to_mean(z, hook, heads=heads):
                for head in heads:
                    if head.layer == hook.layer():
                        z[:, :, head.head] = cache["z", head.layer][:, :, head.head].mean(0)

            hooks = [(f"z.{layer}", to_mean) for layer in {head.layer for head in heads}]
            loss = random_model.run_with_hooks(data.tokens, fwd_hooks=hooks, return_type="loss", loss_per_token=True)
            copied = data.predictable[:, 1:]
            expected = (loss * copied).sum(1) / copied.sum(1)
            np.testing.assert_allclose(losses, expected.numpy(), atol=1e-5)


def test_streaming_leaves_nothing_on_the_model_and_sees_every_layer(random_model):
    before = {name: id(module) for name, module in random_model.named_modules()}
    seen = []
    stream_heads(random_model, Batch(torch.arange(30, 40)[None]), lambda heads: seen.append(heads.layer))
    assert seen == [0, 1]
    assert before == {name: id(module) for name, module in random_model.named_modules()}
    assert all(not module._forward_hooks for module in random_model.modules())


def test_repeated_tokens_repeat_where_they_say(random_model):
    data = single_repeats(random_model, 6, n_tokens=40, periods=(5, 12), seed=2)
    for tokens, period, predictable in zip(data.tokens, data.period, data.predictable, strict=True):
        assert tokens[-period:].tolist() == tokens[-2 * period : -period].tolist()
        assert predictable.sum() == period - 1  # the copy's first token cannot be known
        assert len(tokens[:-period].unique()) == 40 - period
    assert len(data.period.unique()) > 1
    assert (data.fresh & data.predictable).sum() == 0
    vocabulary = common_vocabulary(random_model)
    assert vocabulary.min() == 6 and vocabulary.max() == 113  # 5% of 120 at either end


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"kinds": ["nonsense"]}, "Known are"),
        ({"kinds": []}, "Name at least one"),
        ({"n": 3}, "smallest corrected p"),
        ({"n": 0}, "smallest corrected p"),
        ({"top": 0}, "at least one"),
        ({"n_random_sets": 0}, "at least one"),
        ({"n": 1000, "alpha": 1e-5}, "cannot be reached"),
        ({"alpha": 0.0}, "false-positive rate"),
        ({"n": 6}, r"Use n ≥ 7"),  # four kinds: 0.05 / 4
        ({"screen": "all"}, '"none"'),
        ({"pairs": object()}, "Give PromptPairs"),
        ({"cutoffs": {"induction": {"speed": 1.0}}}, "There are"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(random_model, monkeypatch, request_, message):
    monkeypatch.setattr(HookedTransformer, "run", lambda *args: pytest.fail("a pass was made"))
    with pytest.raises(InputError, match=message):
        interp.find_heads(random_model, **request_)


def test_too_small_an_n_names_one_that_is_enough(random_model):
    with pytest.raises(InputError, match=r"Use n ≥ 5"):
        interp.find_heads(random_model, ["induction"], n=4, alpha=0.05)
    assert len(interp.find_heads(random_model, ["induction"], n=5, top=1, n_random_sets=1).frame) == 8


def test_a_context_too_short_for_the_prompts_is_said():
    cfg = ModelConfig.decoder_only(n_layers=1, d_model=16, n_heads=2, d_vocab=120, n_ctx=50)
    with pytest.raises(InputError, match="more than this model reads"):
        interp.find_heads(HookedTransformer(cfg), ["induction"], n=8)


# The contract every kind keeps; a new file in interp/heads is tested here by itself.
PATTERNS = [name for name, one in finders().items() if isinstance(one, Finder)]
TRIALS = [name for name, one in finders().items() if isinstance(one, TaskFinder)]


def test_every_kind_is_known_by_a_pattern_or_by_a_task_or_by_trees():
    assert sorted([*PATTERNS, *TRIALS, "syntax"]) == sorted(finders()) and set(BASIC_KINDS) == set(PATTERNS)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kind_of_a_pattern_is_complete(name):
    one = finder(name)
    assert one.name == name and one.definition and one.data
    assert 0 < one.score_cutoff < 1 and one.cause in CAUSES


@pytest.mark.parametrize("name", TRIALS)
def test_every_kind_of_a_task_is_complete_and_asks_for_what_its_task_has(name):
    one = finder(name)
    assert one.name == name and one.definition and one.test.label and one.test.decisive
    assert one.score_cutoff is None or 0 < one.score_cutoff < 1
    assert 0 < one.effect_cutoff < 1 and one.sign in (1, -1)
    task = definitions()[one.task]
    assert set(one.corruptions) <= set(task.corruptions)
    assert {*one.positions, *one.queries} <= {*task.positions, "END"}
    assert {kind for kind in one.applies_to} <= set(task.applies_to)
    if one.writing is not None:
        assert (one.writing.measure is None) == bool(one.writing.tested)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kind_of_a_pattern_scores_every_head_within_a_share(name, random_model, random_rows):
    one = finder(name)
    scores = attention_shares(random_model, one.make_data(random_model, 2, 0, True, random_rows), {"x": one.rule})["x"]
    assert scores.shape == (2, 2, 4)
    assert ((scores >= 0) & (scores <= 1 + 1e-6)).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kind_of_a_pattern_draws_the_same_data_for_the_same_seed(name, random_model, random_rows):
    one = finder(name)
    first, again, other = (one.make_data(random_model, 3, seed, True, random_rows).tokens for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_shape_checks_are_on_in_these_tests():
    assert not shape_checks.jaxtyping_disable


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kind_of_a_pattern_measures_its_writing_on_every_head(name, random_model, random_rows):
    one = finder(name)
    if one.writing is None:
        assert name in ("previous_token", "duplicate_token")
        return
    measured = one.writing.measure(random_model, one.make_data(random_model, 2, 0, True, random_rows))
    assert measured.shape == (2, 4) and measured.isfinite().all() and (measured >= 0).all()


def test_a_planted_induction_model_needs_its_heads_jointly_and_alone(found):
    joint = found.sets.set_index("kind").loc["induction"]
    assert "1.2" in joint["heads"].split() and joint["effect"] > joint["random_max"]
    assert joint["p"] <= 0.01 and joint["stability"] > 0.3


def test_testing_every_head_finds_the_same_and_leaves_none_out(planted, random_rows):
    kinds = ["previous_token", "induction"]
    scores = interp.find_heads(planted, kinds, corpus=random_rows, n=12, top=2, n_random_sets=1, screen="none")
    assert not scores.frame["effect"].isna().any()
    named = scores.frame[scores.frame["verdict"].isin(kinds)]
    assert {(row.kind, row.layer, row.head) for row in named.itertuples()} == {
        ("previous_token", 0, 1),
        ("induction", 1, 2),
    }
    assert (scores.frame["q"] >= scores.frame["p"]).all()


def test_changed_cutoffs_change_verdicts_and_are_reported(planted, random_rows):
    strict = {"induction": {"writing": 1e6}}
    scores = interp.find_heads(planted, ["induction"], n=12, top=2, n_random_sets=1, cutoffs=strict)
    assert row(scores, "induction", 1, 2)["verdict"] == "attends like induction"
    assert scores.about["cutoffs"]["induction"]["writing"] == 1e6


def test_select_and_report_prompts_are_different_ones(random_model):
    table = interp.find_heads(random_model, ["induction"], n=6, top=1, n_random_sets=1).frame
    assert (table["score_select"] != table["score"]).all()


def test_text_kinds_on_a_model_without_a_tokenizer_say_what_to_do(random_model):
    with pytest.raises(InputError, match="tokenizer"):
        interp.find_heads(random_model, ["sink"], n=8)


def test_indirect_object_means_come_from_three_name_prompts_of_the_same_template(random_model):
    pairs = CAUSES["ioi"].make(random_model, 8, 0).data
    heads = ((Head(0, 2), Head(1, 1)),)
    fast = ablate_sets(random_model, CAUSES["ioi"].make(random_model, 8, 0), heads, max_bytes=1_000_000)
    with torch.no_grad():
        _, reference = random_model.run_with_cache(torch.tensor(pairs.corrupt), ["z.0", "z.1"])
        same = torch.tensor([[a == b for b in pairs.templates] for a in pairs.templates])

        def to_mean(z, hook):
            for head in heads[0]:
                if head.layer == hook.layer():
                    for prompt in range(len(z)):
                        z[prompt, :, head.head] = reference["z", head.layer][same[prompt]][:, :, head.head].mean(0)

        hooks = [("z.0", to_mean), ("z.1", to_mean)]
        logits = random_model.run_with_hooks(torch.tensor(pairs.clean), fwd_hooks=hooks)[:, -1]
        expected = [row[a[0][0]] - row[f[0][0]] for row, a, f in zip(logits, pairs.answer, pairs.foil, strict=True)]
    np.testing.assert_allclose(fast.ablated[0], torch.stack(expected).numpy(), atol=1e-5)
    drop = fast.clean - fast.ablated[0]
    np.testing.assert_allclose(fast.harm[heads[0]], drop / abs(fast.clean.mean() - fast.reference.mean()), rtol=1e-9)


def test_copying_ratio_equals_a_plain_loop(random_model):
    tokens = tiled(random_model, 2, block=6, repeats=3).tokens
    fast = copying_ratio(random_model, Batch(tokens))
    with torch.no_grad():
        _, cache = random_model.run_with_cache(tokens)
        W_U = random_model.W_U * random_model.ln_final.w[:, None]
        for layer, head in ((0, 1), (1, 3)):
            own = chance = 0.0
            W_O = random_model.blocks[layer].attn.W_O[head]
            for prompt in range(2):
                distinct = tokens[prompt].unique()
                for key in range(1, tokens.shape[1]):
                    logits = cache["v", layer][prompt, key, head // 2] @ W_O @ W_U[:, distinct]
                    raised = (logits - logits.mean()).clamp(min=0)
                    weight = cache["pattern", layer][prompt, head, :, key].sum()
                    own += weight * raised[distinct == tokens[prompt, key]].item()
                    chance += weight * raised.mean()
            assert fast[layer, head].item() == pytest.approx(float(own / chance), rel=1e-4)


def test_written_norms_equal_those_of_the_head_results(random_model):
    tokens = tiled(random_model, 3, block=6, repeats=2).tokens
    with torch.no_grad():
        _, cache = random_model.run_with_cache(tokens)
    for layer in range(2):
        norms = cache["result", layer][:, 1:].norm(dim=-1).pow(2).mean((0, 1)).sqrt()
        torch.testing.assert_close(written_norms(random_model, Batch(tokens))[layer], norms, rtol=1e-4, atol=1e-6)


def test_heads_without_controls_get_no_p_and_no_causal_verdict(random_rows):
    cfg = ModelConfig.decoder_only(n_layers=2, d_model=32, n_heads=1, d_vocab=120, n_ctx=128, d_mlp=64)
    scores = interp.find_heads(HookedTransformer(cfg), ["induction"], n=6, top=2, n_random_sets=2)
    assert scores.frame[["control", "p", "p_corrected"]].isna().all().all()
    assert scores.sets["p"].isna().all() and not scores.frame["verdict"].str.startswith("induction").any()


def test_pairs_of_any_length_are_scored_and_one_that_asks_nothing_does_not_spoil_the_others(
    random_model: HookedTransformer,
) -> None:
    lengths = [4, 6, 5, 7, 4, 6, 5, 8] * 2
    rows = [[2, *range(5, 5 + n), *(5, 6) * (i % 4 != 3)] for i, n in enumerate(lengths)]  # every fourth: no repeat
    other = [[*row[:-1], row[-1] + 1] for row in rows]
    n = len(rows)
    names = {"answer": [20] * n, "foil": [21] * n, "items": [f"item {i}" for i in range(n)]}
    pairs = PromptPairs.from_tokens(rows, other, **names)
    found = interp.find_heads(random_model, ["sink", "duplicate_token"], pairs=pairs, top=2, n_random_sets=1)
    _, report = halves(pairs, 0)
    for kind, rule in (("sink", lambda row, q: [0]), ("duplicate_token", lambda row, q: _copies(row, q))):
        mine = found.of(kind)
        assert mine["effect"].notna().sum() >= 2  # candidates are chosen and tested
        for row in mine.to_dict("records"):
            shares = []
            for tokens in (rows[i] for i in report):
                site = f"blocks.{row['layer']}.attn.hook_pattern"
                pattern = random_model.run_with_cache(torch.tensor([tokens]), [site])[1][site][0, row["head"]].detach()
                asked = {q: keys for q in range(1, len(tokens)) if (keys := rule(tokens, q))}
                if asked:
                    shares.append(np.mean([float(pattern[q, keys].sum()) for q, keys in asked.items()]))
            assert row["score"] == pytest.approx(np.mean(shares), abs=1e-5)


def _copies(row: list[int], q: int) -> list[int]:
    return [k for k in range(q) if row[k] == row[q]]


def test_heads_are_not_measured_around_hooks_that_their_patterns_would_not_show(random_model):
    batch = Batch(torch.arange(6)[None])
    with random_model.hooks([("blocks.0.attn.hook_pattern", lambda pattern, hook: pattern * 0)]):
        random_model(batch.tokens)
        with pytest.raises(InputError, match=r"without the hooks of .*Call it outside"):
            stream_heads(random_model, batch, lambda heads: None)
