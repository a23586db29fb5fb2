"""What a run is judged by, by name: which rows a model reads for it, at which positions, and how logits become one
number.

A metric is bound to pairs before anything runs. Its rows are the pairs' prompts, with an answer of several tokens
behind them where it is scored by log-probability; each position it reads is a slot, numbered over all rows in order.
Nothing is clamped. Scores are computed in float32, or in float64 where the logits are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import InputError
from interp.metrics.bound import BoundMetric, MetricRow, Score
from interp.metrics.residuals import ResidualMetric
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

__all__ = ["METRICS", "bind_metric", "next_token_loss_metric"]

Answers = tuple[tuple[tuple[int, ...], ...], ...]


def bind_metric(
    metric: Any,
    pairs: PromptPairs,
    *,
    n_vocab: int | None = None,
    device: torch.device | str = "cpu",
    model: HookedTransformer | None = None,
) -> BoundMetric:
    """A metric on pairs, by name or as a function.

    | name | value per pair | unit |
    |---|---|---|
    | `logit_diff` | the answer's logit − the foil's, each by `pairs.combine` over its set | logits |
    | `logit` | the answer's logit | logits |
    | `prob` | probability of the answer, summed over its set | probability |
    | `log_prob` | log of that; of several tokens the sum, each read behind those before it | nats |
    | `log_prob_diff` | `log_prob` of the answer − that of the foil | nats |
    | `kl` | Σ p_clean (log p_clean − log p) over the vocabulary | nats |

    A function `f(logits [cell d_vocab], pair [cell]) -> [cell]` gets the logits at the pairs' read positions; a
    `ResidualMetric` (`residual_metric`, `embedding_similarity`) reads residuals instead, some of them with `model`.
    "kl", functions and residuals need no answer. `n_vocab`, where known, is checked. Raises `InputError` for a missing
    answer or foil, and for an answer of several tokens where the metric compares single ones.
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise InputError(f"There is no metric {metric!r}. Choose {', '.join(METRICS)}, or give a function.")
        if not pairs.answer and metric != "kl":
            raise InputError(
                f'{metric} reads the logit of an answer, and these pairs have none. Give answer=, or metric="kl", a '
                "function of the logits, or a metric of residuals such as interp.metrics.embedding_similarity()."
            )
        bound = METRICS[metric](pairs, torch.device(device))
    elif isinstance(metric, ResidualMetric):
        return metric.bind(pairs, model)
    elif callable(metric):
        bound = _of_function(metric, pairs)
    else:
        raise InputError(f"metric is {metric!r}. Choose {', '.join(METRICS)}, or give a function of (logits, pair).")
    if n_vocab is not None and pairs.answer:
        largest = max(max(one) for sets in (*pairs.answer, *pairs.foil) for one in sets)
        if largest >= n_vocab:
            raise InputError(f"An answer is token {largest}; the vocabulary has 0 to {n_vocab - 1}. Check the ids.")
    return replace(bound, n_vocab=n_vocab)


def next_token_loss_metric(
    rows: Sequence[Sequence[int]], counted: Sequence[Sequence[int]] | None = None
) -> BoundMetric:
    """Mean −log p of the next token in each text, in nats. `counted` are the positions of the predicted tokens that
    count (each is read one position before); all but the first, unless given."""
    if not rows or (counted is not None and len(counted) != len(rows)):
        n_counted = "none" if counted is None else len(counted)
        raise InputError(f"There are {len(rows)} texts and {n_counted} lists of counted positions. Give one per text.")
    metric_rows, targets, shares = [], [], []
    for i, row in enumerate(rows):
        wanted = tuple(range(1, len(row))) if counted is None else tuple(sorted({int(one) for one in counted[i]}))
        if not wanted:
            raise InputError(f"In text {i}, of {len(row)} tokens, no token is counted. A loss needs one to predict.")
        if min(wanted) < 1 or max(wanted) >= len(row):
            raise InputError(
                f"Text {i} counts positions {min(wanted)} to {max(wanted)}; predicted are 1 to {len(row) - 1}."
            )
        metric_rows.append(MetricRow(i, reads=tuple(one - 1 for one in wanted)))
        targets += [int(row[one]) for one in wanted]
        shares += [len(wanted)] * len(wanted)
    target, share = torch.tensor(targets), torch.tensor(shares)

    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        wanted = target.to(logits.device)[slot]
        return -logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0] / share.to(logits.device)[slot]

    return BoundMetric("loss", "nats", tuple(metric_rows), None, False, score)


@dataclass(frozen=True)
class _Sets:
    """For each slot the columns of the logits that make up a set; `real` is False where a set is shorter."""

    columns: Int[Tensor, "slot alternative"]
    real: Bool[Tensor, "slot alternative"]

    @classmethod
    def of(cls, sets: Sequence[Sequence[int]], device: torch.device, tokens: Sequence[int] | None = None) -> _Sets:
        """Sets of token ids as columns of logits that hold `tokens` only, or the whole vocabulary."""
        place = None if tokens is None else {token: column for column, token in enumerate(tokens)}
        columns = torch.zeros(len(sets), max(len(one) for one in sets), dtype=torch.long)
        real = torch.zeros_like(columns, dtype=torch.bool)
        for slot, one in enumerate(sets):
            columns[slot, : len(one)] = torch.tensor([token if place is None else place[token] for token in one])
            real[slot, : len(one)] = True
        return cls(columns.to(device), real.to(device))

    def mean(self, logits: Tensor, slot: Tensor) -> Tensor:
        columns, real = self._at(slot, logits.device)
        return logits.gather(1, columns).masked_fill(~real, 0.0).sum(1) / real.sum(1)

    def logsumexp(self, logits: Tensor, slot: Tensor) -> Tensor:
        columns, real = self._at(slot, logits.device)
        return logits.gather(1, columns).masked_fill(~real, -torch.inf).logsumexp(1)

    def _at(self, slot: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.columns.to(device)[slot], self.real.to(device)[slot]


def _logit(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    answers = _single(pairs, "answer", "logit")
    tokens = sorted({token for one in answers for token in one})
    sets = _Sets.of(answers, device, tokens)
    reduce = sets.mean if pairs.combine == "mean" else sets.logsumexp
    return _of_tokens("logit", "logits", pairs, tokens, device, lambda logits, slot, _: reduce(logits, slot))


def _logit_diff(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    _need_foils(pairs, "logit_diff", 'metric="prob" or metric="log_prob"')
    answers, foils = _single(pairs, "answer", "logit_diff"), _single(pairs, "foil", "logit_diff")
    return _difference("logit_diff", "logits", pairs, (answers, foils), pairs.combine, device)


def _difference(
    name: str, unit: str, pairs: PromptPairs, both: tuple[Any, Any], combine: str, device: torch.device
) -> BoundMetric:
    tokens = sorted({token for sets in both for one in sets for token in one})
    answer, foil = (_Sets.of(sets, device, tokens) for sets in both)

    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        if combine == "mean":
            return answer.mean(logits, slot) - foil.mean(logits, slot)
        return answer.logsumexp(logits, slot) - foil.logsumexp(logits, slot)

    return _of_tokens(name, unit, pairs, tokens, device, score)


def _prob(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    sets = _Sets.of(_single(pairs, "answer", "prob"), device)

    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        return (sets.logsumexp(logits, slot) - logits.logsumexp(-1)).exp()

    return BoundMetric("prob", "probability", _prompt_rows(pairs), None, False, score)


def _log_prob(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    return _log_prob_of("log_prob", pairs, [(pairs.answer, "answer", 1.0)], device)


def _log_prob_diff(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    _need_foils(pairs, "log_prob_diff", 'metric="log_prob"')
    if all(len(one) == 1 for sets in (*pairs.answer, *pairs.foil) for one in sets):
        # The same normaliser is taken from both, so no other logit matters.
        both = (_single(pairs, "answer", "log_prob_diff"), _single(pairs, "foil", "log_prob_diff"))
        return _difference("log_prob_diff", "nats", pairs, both, "logsumexp", device)
    sides = [(pairs.answer, "answer", 1.0), (pairs.foil, "foil", -1.0)]
    return _log_prob_of("log_prob_diff", pairs, sides, device)


def _log_prob_of(
    name: str, pairs: PromptPairs, sides: Sequence[tuple[Answers, str, float]], device: torch.device
) -> BoundMetric:
    """Weighted log-probabilities: one row for each side of a pair, and one slot for each token of a long answer."""
    rows, slots = [], []
    for pair in range(len(pairs)):
        for answers, what, weight in sides:
            first, long = answers[pair][0], len(answers[pair][0]) > 1
            read = pairs.read[pair]
            if long and read != pairs.predicted_lengths[pair] - 1:
                raise InputError(
                    f"The {what} {pairs.spell(first)} of pair {pair} is {len(first)} tokens, but the logits are read "
                    f"at position {read}, inside the text. Only behind its last token can several be scored: "
                    "leave read= out, or give a single token."
                )
            tokens = [[one] for one in first] if long else [[one[0] for one in answers[pair]]]
            reads = tuple(read + i for i in range(len(tokens)))
            rows.append(MetricRow(pair, first[:-1] if long else (), reads, weight))
            slots += tokens
    sets = _Sets.of(slots, device)

    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        return sets.logsumexp(logits, slot) - logits.logsumexp(-1)

    return BoundMetric(name, "nats", tuple(rows), None, False, score)


def _kl(pairs: PromptPairs, device: torch.device) -> BoundMetric:
    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return (reference.exp() * (reference - logits.log_softmax(-1))).sum(-1)

    return BoundMetric("kl", "nats", _prompt_rows(pairs), None, True, score)


METRICS: dict[str, Callable[[PromptPairs, torch.device], BoundMetric]] = {
    "logit_diff": _logit_diff,
    "logit": _logit,
    "prob": _prob,
    "log_prob": _log_prob,
    "log_prob_diff": _log_prob_diff,
    "kl": _kl,
}


def _of_function(function: Callable[..., Any], pairs: PromptPairs) -> BoundMetric:
    name = getattr(function, "__name__", type(function).__name__)

    def score(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
        values = function(logits, slot)  # one read per pair, in order: a slot is a pair
        found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(logits),):
            raise InputError(
                f"The metric {name} got logits of {len(logits)} cells and returned {found}. "
                f"Return a tensor of shape ({len(logits)},), one value per cell."
            )
        return values.to(logits.dtype)

    return BoundMetric(name, "", _prompt_rows(pairs), None, False, score)


def _of_tokens(
    name: str, unit: str, pairs: PromptPairs, tokens: Sequence[int], device: torch.device, score: Score
) -> BoundMetric:
    return BoundMetric(name, unit, _prompt_rows(pairs), torch.tensor(tokens, device=device), False, score)


def _prompt_rows(pairs: PromptPairs) -> tuple[MetricRow, ...]:
    return tuple(MetricRow(pair, reads=(read,)) for pair, read in enumerate(pairs.read))


def _single(pairs: PromptPairs, what: str, name: str) -> list[list[int]]:
    """Sets of single tokens; an answer of several is refused by its text."""
    sets = pairs.answer if what == "answer" else pairs.foil
    for pair, alternatives in enumerate(sets):
        one = alternatives[0]
        if len(one) > 1:
            ways = 'metric="log_prob"' if name in ("prob", "logit") else 'metric="log_prob_diff" or metric="log_prob"'
            raise InputError(
                f"The {what} {pairs.spell(one)} of pair {pair} is {len(one)} tokens, and {name} compares single "
                f"tokens. Use {ways}, or give the first token's id: {what}={one[0]}."
            )
    return [[one[0] for one in alternatives] for alternatives in sets]


def _need_foils(pairs: PromptPairs, name: str, instead: str) -> None:
    if not pairs.foil:
        raise InputError(
            f"{name} compares the answer with a foil, and these pairs have none. Give foil=, or {instead}."
        )
