"""A metric bound to pairs: the rows that are run, the positions that are read, and how they become one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError

__all__ = ["BoundMetric", "MetricRow", "wide"]

Values = TypeVar("Values", np.ndarray, Tensor)
Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits [read token], slot [read], reference [read token]
TextScore = Callable[[Tensor, int], Tensor]  # finished residuals [cell read d_model], pair


@dataclass(frozen=True)
class MetricRow:
    """One text the model reads for a metric: a pair's prompt, and for answers of several tokens the answer behind it.

    `continuation` is appended to the predicted text (an answer's tokens but the last), `reads` are positions in both
    together. A pair's value is the sum over its rows of `weight` × the sum of the scores at its reads.
    """

    pair: int
    continuation: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class BoundMetric:
    """A metric of certain pairs. `tokens` are the only logits that `scores` takes, in that order; None is the whole
    vocabulary. With `needs_reference` the clean run's logits have to be given first, to `with_reference`.

    With `of_residuals` it takes no logits: `text_scores` gives one score for all reads of a row together.
    """

    name: str
    unit: str
    rows: tuple[MetricRow, ...]
    tokens: Int[Tensor, " token"] | None
    needs_reference: bool
    score: Score
    n_vocab: int | None = None
    reference: Float[Tensor, "some_slots token"] | None = None
    reference_row: Int[Tensor, " slot"] | None = None  # the row of the reference that a slot has; −1: none
    text_score: TextScore | None = None
    needs_read: bool = True  # it is read where the pairs say, which an encoder's pairs have to

    @property
    def n_slots(self) -> int:
        return sum(len(row.reads) for row in self.rows)

    @property
    def of_residuals(self) -> bool:
        """Whether it reads finished residuals in place of logits."""
        return self.text_score is not None

    def text_scores(self, resid: Float[Tensor, "cell some_reads d_model"], row: int) -> Float[Tensor, " cell"]:
        """The score of each cell's finished residuals at all reads of one row. Gradients flow."""
        assert self.text_score is not None
        return self.text_score(wide(resid), self.rows[row].pair)

    def scores(self, logits: Float[Tensor, "read token"], slot: Int[Tensor, " read"]) -> Float[Tensor, " read"]:
        """The score of each row of logits, which was read at `slot`; several may come from the same slot. Gradients
        flow."""
        assert not self.of_residuals, "a metric of residuals takes no logits"
        if self.needs_reference:
            raise InputError(f"{self.name} compares with the clean run. Give its logits first: with_reference(logits).")
        self._check_width(logits)
        return self.score(wide(logits), slot, self._reference_of(slot.to(logits.device)))

    def with_reference(
        self, logits: Float[Tensor, "some_slots token"], slots: Int[Tensor, " some_slots"] | None = None
    ) -> BoundMetric:
        """The metric that compares with these logits, the clean run's at every slot, or at `slots` alone. One that
        compares with nothing stays as it is."""
        if not self.needs_reference and self.reference is None:
            return self
        if slots is None and len(logits) != self.n_slots:
            raise InputError(f"The reference has {len(logits)} rows of logits; {self.name} reads {self.n_slots} slots.")
        self._check_width(logits)
        row = torch.full((self.n_slots,), -1, device=logits.device)
        row[slice(None) if slots is None else slots] = torch.arange(len(logits), device=logits.device)
        reference = wide(logits).detach().log_softmax(-1)
        return replace(self, needs_reference=False, reference=reference, reference_row=row)

    def _reference_of(self, slot: Tensor) -> Tensor | None:
        if self.reference is None or self.reference_row is None:
            return None
        row = self.reference_row.to(slot.device)[slot]
        assert bool((row >= 0).all()), "a slot without its clean run"
        return self.reference.to(slot.device)[row]

    def combine(self, per_row: Values) -> Values:
        """Values of rows `[row *rest]`, each the sum over its reads, to values of pairs `[pair *rest]`."""
        if len(per_row) != len(self.rows):
            raise InputError(f"{self.name} has {len(self.rows)} rows, but these are values of {len(per_row)}.")
        values: Any = per_row  # either library's; the arithmetic is the same
        pair, n_rest = [row.pair for row in self.rows], values.ndim - 1
        weights, shape = [row.weight for row in self.rows], (max(pair) + 1, *values.shape[1:])
        if isinstance(values, Tensor):
            weighted = values * values.new_tensor(weights).reshape(-1, *(1,) * n_rest)
            empty: Any = values.new_zeros(shape)
            return empty.index_add(0, torch.tensor(pair, device=values.device), weighted)
        total: Any = np.zeros(shape, values.dtype)
        np.add.at(total, pair, values * np.asarray(weights, values.dtype).reshape(-1, *(1,) * n_rest))
        return total

    def _check_width(self, logits: Tensor) -> None:
        wanted = self.n_vocab if self.tokens is None else len(self.tokens)
        if self.reference is not None:
            wanted = self.reference.shape[1]
        if wanted is not None and logits.shape[1] != wanted:
            what = "its own tokens, in the order of .tokens" if self.tokens is not None else "the whole vocabulary"
            raise InputError(f"{self.name} takes logits of {wanted} tokens, {what}; these are of {logits.shape[1]}.")


def wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
