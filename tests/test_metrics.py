"""Metrics are the formulas they say, on logits of any width, sets, several tokens, and with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics import METRICS, BoundMetric, MetricRow, bind_metric, next_token_loss_metric
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

D_VOCAB = 30
CLEAN, CORRUPT = [[1, 2, 3], [4, 5, 6, 7], [8, 9]], [[1, 9, 3], [4, 5, 9, 7], [7, 9]]


def make(answer=(10, 11, 12), foil=(20, 21, 22), **options) -> PromptPairs:
    return PromptPairs.from_tokens(CLEAN, CORRUPT, list(answer), list(foil) if foil else None, **options)


SETS = {"answer": [[10, 13, 14], 11, [12, 10]], "foil": [20, [21, 22], [22, 25, 26]]}


def logits(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n, D_VOCAB, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scored(metric: BoundMetric, full: Tensor, slot: Tensor) -> Tensor:
    return metric.scores(full if metric.tokens is None else full[:, metric.tokens], slot)


def reduced(row: Tensor, tokens: list[int], combine: str) -> Tensor:
    chosen = torch.stack([row[token] for token in tokens])
    return chosen.mean() if combine == "mean" else chosen.exp().sum().log()


SLOTS = torch.tensor([2, 0, 0, 1, 2, 1, 0])


def listed(one) -> list[int]:
    return one if isinstance(one, list) else [one]


@pytest.mark.parametrize("combine", ["mean", "logsumexp"])
def test_logit_differences_are_those_of_the_reduced_sets(combine):
    metric = bind_metric("logit_diff", make(**SETS, combine=combine), n_vocab=D_VOCAB)
    full = logits(7)
    expected = [
        reduced(row, listed(SETS["answer"][s]), combine) - reduced(row, listed(SETS["foil"][s]), combine)
        for row, s in zip(full, SLOTS.tolist(), strict=True)
    ]
    torch.testing.assert_close(scored(metric, full, SLOTS), torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert metric.unit == "logits"
    assert metric.tokens.tolist() == [10, 11, 12, 13, 14, 20, 21, 22, 25, 26]


@pytest.mark.parametrize("combine", ["mean", "logsumexp"])
def test_the_logit_of_an_answer_is_its_set_reduced_and_needs_no_foil(combine):
    metric = bind_metric("logit", make(SETS["answer"], None, combine=combine))
    full = logits(7)
    expected = [reduced(row, listed(SETS["answer"][s]), combine) for row, s in zip(full, SLOTS.tolist(), strict=True)]
    torch.testing.assert_close(scored(metric, full, SLOTS), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_the_probability_of_a_set_is_the_sum_of_its_members_and_log_prob_its_log():
    pairs, full = make(SETS["answer"], None), logits(7)
    p = full.softmax(-1)
    expected = torch.stack([p[i, listed(SETS["answer"][s])].sum() for i, s in enumerate(SLOTS.tolist())])
    prob, log_prob = bind_metric("prob", pairs), bind_metric("log_prob", pairs)
    torch.testing.assert_close(scored(prob, full, SLOTS), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scored(log_prob, full, SLOTS), expected.log(), rtol=1e-12, atol=1e-12)
    assert (prob.unit, log_prob.unit, prob.tokens) == ("probability", "nats", None)


def test_the_difference_of_log_probabilities_of_sets_needs_only_their_own_logits():
    metric, full = bind_metric("log_prob_diff", make(**SETS)), logits(7)
    p = full.softmax(-1)
    answer, foil = (
        torch.stack([p[i, listed(SETS[what][s])].sum() for i, s in enumerate(SLOTS.tolist())]) for what in SETS
    )
    torch.testing.assert_close(scored(metric, full, SLOTS), (answer / foil).log(), rtol=1e-12, atol=1e-12)
    assert metric.tokens is not None and len(metric.rows) == 3


@pytest.mark.parametrize("name", [*METRICS, "loss"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_at_least_float32_and_keep_float64(name, dtype):
    metric = next_token_loss_metric([[1, 2], [3, 4], [5, 6]]) if name == "loss" else bind_metric(name, make())
    full = logits(3, dtype)
    metric = metric.with_reference(full.flip(0)) if name == "kl" else metric
    found = scored(metric, full, torch.arange(3))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = scored(metric, full.double(), torch.arange(3))
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*METRICS, "loss"])
def test_gradients_flow_to_finite_values_that_difference_quotients_confirm(name):
    metric = next_token_loss_metric([[1, 2], [3, 4], [5, 6]]) if name == "loss" else bind_metric(name, make(**SETS))
    metric = metric.with_reference(logits(3, seed=9)) if name == "kl" else metric
    full = logits(4).requires_grad_()
    slot = torch.tensor([0, 2, 1, 1])
    assert torch.autograd.gradcheck(lambda x: scored(metric, x, slot), (full,))
    (gradient,) = torch.autograd.grad(scored(metric, full, slot).sum(), full)
    assert gradient.abs().sum() > 0.01


def test_kl_is_zero_for_the_clean_run_itself_and_positive_elsewhere():
    metric, clean = bind_metric("kl", make(), n_vocab=D_VOCAB), logits(3)
    assert metric.needs_reference
    bound = metric.with_reference(clean)
    assert not bound.needs_reference and metric.needs_reference
    assert bound.scores(clean, torch.arange(3)).abs().max() < 1e-14
    assert bound.scores(clean + 5.0, torch.arange(3)).abs().max() < 1e-13, "a shift of all logits changes no p"
    other = logits(7, seed=1)
    p, q = clean.softmax(-1)[SLOTS], other.softmax(-1)
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(bound.scores(other, SLOTS), expected, rtol=1e-12, atol=1e-12)
    assert (expected > 0.1).all()


def test_the_reference_is_a_constant_that_no_gradient_reaches():
    clean, other = logits(3).requires_grad_(), logits(3, seed=1).requires_grad_()
    bind_metric("kl", make()).with_reference(clean).scores(other, torch.arange(3)).sum().backward()
    assert clean.grad is None and other.grad.abs().sum() > 0.01


def test_logits_of_part_of_the_vocabulary_are_refused_by_a_metric_that_needs_all():
    with pytest.raises(InputError, match=r"prob takes logits of 30 tokens, the whole vocabulary; these are of 29"):
        bind_metric("prob", make(), n_vocab=D_VOCAB).scores(logits(3)[:, 1:], torch.arange(3))


def test_kl_without_its_reference_and_with_a_reference_of_other_size_is_refused():
    metric = bind_metric("kl", make())
    with pytest.raises(InputError, match=r"kl compares with the clean run.*with_reference\(logits\)"):
        metric.scores(logits(3), torch.arange(3))
    with pytest.raises(InputError, match=r"reference has 2 rows of logits; kl reads 3 slots"):
        metric.with_reference(logits(2))
    with pytest.raises(InputError, match=r"takes logits of 30 tokens, the whole vocabulary; these are of 29"):
        metric.with_reference(logits(3)).scores(logits(3)[:, 1:], torch.arange(3))


def test_a_metric_without_reference_stays_itself_when_given_one():
    metric = bind_metric("prob", make())
    assert metric.with_reference(logits(3)) is metric


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    config = ModelConfig.decoder_only(n_layers=2, d_model=16, n_heads=2, d_vocab=D_VOCAB, n_ctx=16)
    return HookedTransformer(config, dtype=torch.float64)


def run(model: HookedTransformer, metric: BoundMetric, pairs: PromptPairs) -> Tensor:
    """What an engine does, one row at a time: read each row's logits, score its slots, sum, combine."""
    values, slot = [], 0
    for row in metric.rows:
        tokens = torch.tensor([[*pairs.clean[row.pair], *row.continuation]])
        read = model(tokens)[0, list(row.reads)].detach()
        numbers = torch.arange(slot, slot + len(row.reads))
        values.append(scored(metric, read, numbers).sum())
        slot += len(row.reads)
    assert slot == metric.n_slots
    return metric.combine(torch.stack(values))


def sequence_log_prob(model: HookedTransformer, prompt, answer) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, token in enumerate(answer):
        total += model(torch.tensor([[*prompt, *answer[:i]]]))[0, -1].log_softmax(-1)[token].detach()
    return total


MIXED = {"answer": [(10, 11, 12), 13, (14, 15)], "foil": [20, (21, 22), (23, 24, 25)]}


def test_an_answer_of_several_tokens_scores_as_reading_it_token_by_token(model):
    pairs = make(MIXED["answer"], None)
    metric = bind_metric("log_prob", pairs, n_vocab=D_VOCAB)
    assert metric.rows[0] == MetricRow(0, (10, 11), (2, 3, 4), 1.0)
    assert metric.rows[1] == MetricRow(1, (), (3,), 1.0)
    wanted = [sequence_log_prob(model, pairs.clean[i], pairs.answer[i][0]) for i in range(3)]
    torch.testing.assert_close(run(model, metric, pairs), torch.stack(wanted), rtol=1e-10, atol=1e-10)


def test_answers_and_foils_of_unlike_lengths_are_compared_by_their_log_probability(model):
    pairs = make(**MIXED)
    metric = bind_metric("log_prob_diff", pairs)
    assert [row.weight for row in metric.rows] == [1.0, -1.0] * 3
    wanted = [
        sequence_log_prob(model, pairs.clean[i], pairs.answer[i][0])
        - sequence_log_prob(model, pairs.clean[i], pairs.foil[i][0])
        for i in range(3)
    ]
    torch.testing.assert_close(run(model, metric, pairs), torch.stack(wanted), rtol=1e-10, atol=1e-10)


def test_a_set_beside_an_answer_of_several_tokens_is_still_summed(model):
    pairs = make([[10, 11], (12, 13), 14], None)
    found = run(model, bind_metric("log_prob", pairs), pairs)[0]
    p = model(torch.tensor([pairs.clean[0]]))[0, -1].softmax(-1).detach()
    torch.testing.assert_close(found, (p[10] + p[11]).log(), rtol=1e-10, atol=1e-10)


def test_the_reads_of_a_decoder_count_in_what_the_decoder_has_read():
    pairs = make([(10, 11)] * 3, None, clean_decoder=[[0, 5], [0], [0, 5, 6]])
    metric = bind_metric("log_prob", pairs)
    assert [row.reads for row in metric.rows] == [(1, 2), (0, 1), (2, 3)]


def test_a_chosen_read_position_is_what_the_metric_reads():
    metric = bind_metric("logit_diff", make(read=[0, 2, -1]))
    assert [row.reads for row in metric.rows] == [(0,), (2,), (1,)]


@pytest.mark.parametrize("name", ["logit_diff", "logit", "prob"])
def test_metrics_of_single_tokens_refuse_several_by_their_text_with_the_ways_out(smollm2, name):
    pairs = PromptPairs.from_text(
        smollm2, ["The capital of Albania is"], ["The capital of Italy is"], ["Tirana"], ["Rome"]
    )
    ways = r'metric="log_prob_diff" or metric="log_prob"' if name == "logit_diff" else r'metric="log_prob"'
    first = smollm2.tokenizer.encode(" Tirana")[0]
    message = rf"' Tir'\+'ana' of pair 0 is 2 tokens, and {name} compares.*Use {ways}.*answer={first}\."
    with pytest.raises(InputError, match=message):
        bind_metric(name, pairs)


def test_a_foil_of_several_tokens_is_refused_by_its_text(smollm2):
    text = "The capital of Albania is"
    with pytest.raises(InputError, match=r"The foil ' Tir'\+'ana'.*foil="):
        bind_metric("logit_diff", PromptPairs.from_text(smollm2, text, text, "Rome", "Tirana"))


def test_several_tokens_behind_a_position_inside_the_text_are_refused():
    with pytest.raises(InputError, match=r"answer 10 11 of pair 0 is 2 tokens, but.*position 1, inside.*leave read="):
        bind_metric("log_prob", make([(10, 11), 3, 4], None, read=1))


@pytest.mark.parametrize("name", ["logit_diff", "log_prob_diff"])
def test_a_difference_without_foils_is_refused(name):
    with pytest.raises(InputError, match=rf'{name} compares the answer with a foil.*Give foil=, or.*metric="log_prob"'):
        bind_metric(name, make(foil=None))


def test_unknown_metrics_and_things_that_are_none_are_refused_with_the_names():
    with pytest.raises(
        InputError, match=r"no metric 'logits'. Choose logit_diff, logit, prob, log_prob, .*kl, or give"
    ):
        bind_metric("logits", make())
    with pytest.raises(InputError, match=r"metric is 3\. Choose logit_diff.*or give a function"):
        bind_metric(3, make())


def test_answers_outside_the_vocabulary_and_logits_of_other_width_are_refused():
    with pytest.raises(InputError, match=r"An answer is token 22; the vocabulary has 0 to 21"):
        bind_metric("logit_diff", make(), n_vocab=22)
    with pytest.raises(InputError, match=r"takes logits of 6 tokens, its own tokens.*these are of 30"):
        bind_metric("logit_diff", make()).scores(logits(3), torch.arange(3))


def test_a_function_gets_the_logits_and_the_pair_of_each_cell():
    def top(cells: Tensor, pair: Tensor) -> Tensor:
        return cells.max(-1).values * (pair + 1)

    metric, full = bind_metric(top, make()), logits(7)
    assert (metric.name, metric.unit) == ("top", "")
    torch.testing.assert_close(metric.scores(full, SLOTS), full.amax(-1) * (SLOTS + 1))


@pytest.mark.parametrize("wrong", [lambda x, pair: x.mean(), lambda x, pair: x, lambda x, pair: 0.5])
def test_a_function_that_returns_another_shape_is_refused(wrong):
    message = r"The metric <lambda> got logits of 7 cells and returned (shape \(.*\)|float)\. Return.*\(7,\)"
    with pytest.raises(InputError, match=message):
        bind_metric(wrong, make()).scores(logits(7), SLOTS)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_combine_to_weighted_sums_by_pair_whatever_stands_behind(kind):
    metric = bind_metric("log_prob_diff", make(**MIXED))
    per_row = np.random.default_rng(0).normal(size=(6, 4, 2))
    given = per_row if kind == "numpy" else torch.from_numpy(per_row)
    found = metric.combine(given)
    assert isinstance(found, np.ndarray if kind == "numpy" else Tensor)
    np.testing.assert_allclose(np.asarray(found), per_row[0::2] - per_row[1::2])
    per_row[0] = np.nan  # a row that is missing spoils its own pair only
    assert np.isfinite(np.asarray(metric.combine(given))[1:]).all()
    with pytest.raises(InputError, match="log_prob_diff has 6 rows, but these are values of 5"):
        metric.combine(given[:5])


def test_the_loss_of_texts_is_their_mean_next_token_loss(model):
    rows = [[1, 2, 3, 4], [5, 6, 7, 8, 9, 10]]
    pairs = PromptPairs.from_tokens(rows, rows, [1, 1])
    metric = next_token_loss_metric(rows)
    wanted = [model(torch.tensor([row]), return_type="loss") for row in rows]
    torch.testing.assert_close(run(model, metric, pairs), torch.stack(wanted).detach(), rtol=1e-10, atol=1e-10)
    assert (metric.name, metric.unit) == ("loss", "nats")


def test_only_counted_tokens_enter_the_loss(model):
    rows, counted = [[1, 2, 3, 4], [5, 6, 7, 8, 9]], [[3], [1, 4]]
    metric = next_token_loss_metric(rows, counted)
    assert [row.reads for row in metric.rows] == [(2,), (0, 3)]
    pairs = PromptPairs.from_tokens(rows, rows, [1, 1])
    wanted = [
        -torch.stack([model(torch.tensor([row]))[0, i - 1].log_softmax(-1)[row[i]] for i in some]).mean().detach()
        for row, some in zip(rows, counted, strict=True)
    ]
    torch.testing.assert_close(run(model, metric, pairs), torch.stack(wanted), rtol=1e-10, atol=1e-10)


def test_a_loss_over_nothing_is_refused():
    with pytest.raises(InputError, match=r"In text 1, of 1 tokens, no token is counted"):
        next_token_loss_metric([[1, 2], [3]])
    with pytest.raises(InputError, match=r"Text 0 counts positions 0 to 1; predicted are 1 to 1"):
        next_token_loss_metric([[1, 2]], [[0, 1]])
    with pytest.raises(InputError, match=r"There are 1 texts and 2 lists of counted"):
        next_token_loss_metric([[1, 2]], [[1], [1]])
    with pytest.raises(InputError, match=r"There are 0 texts and none"):
        next_token_loss_metric([])
