"""From finished residuals to the metric: of whole unedited runs, and of a wave's cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.causal.bundles import Bundle
from interp.causal.wave import Outputs
from interp.errors import InputError
from interp.metrics import BoundMetric
from interp.model.transformer import HookedTransformer

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """A metric of some texts: `rows` are their numbers among the metric's rows, `slots` those of each text's reads.
    Logits are made of at most `max_bytes` at a time."""

    model: HookedTransformer
    metric: BoundMetric
    rows: Sequence[int]
    slots: Sequence[Sequence[int]]
    max_bytes: int

    def of_runs(self, final: Float[Tensor, "read d_model"] | None) -> list[list[float]]:
        """Scores of every read of every text; one for all of a text's reads where residuals are scored."""
        assert final is not None
        if self.metric.of_residuals:
            parts = final.split([len(some) for some in self.slots])
            scored = [self._of_text(part[None], text) for text, part in enumerate(parts)]
            return [one.tolist() for one in scored]
        flat = torch.tensor([slot for some in self.slots for slot in some], device=final.device)
        scores = iter(self._of_logits(final, flat).tolist())
        return [[next(scores) for _ in some] for some in self.slots]

    def of_cells(
        self,
        bundles: Sequence[Bundle],
        outputs: Outputs,
        unedited: Sequence[Sequence[float]],
        final: Float[Tensor, "read d_model"] | None,
    ) -> Iterator[NDArray[np.floating]]:
        """Scores of each bundle's cells. Reads before a bundle's start cannot feel its edit: they keep what they have
        in the unedited run, whose scores and residuals these are."""
        late = [self.slots[bundle.text][-x.shape[1] :] for bundle, x in zip(bundles, outputs, strict=True)]
        if self.metric.of_residuals:
            assert final is not None
            begins = np.cumsum([0, *map(len, self.slots)])
            for bundle, some, x in zip(bundles, late, outputs, strict=True):
                begin, n_early = begins[bundle.text], len(self.slots[bundle.text]) - len(some)
                early = final[begin : begin + n_early].expand(len(x), -1, -1)
                yield self._of_text(torch.cat([early, x], dim=1), bundle.text).double().cpu().numpy()
            return
        slot = torch.tensor([s for some, x in zip(late, outputs, strict=True) for _ in range(len(x)) for s in some])
        flat = torch.cat([x.flatten(0, 1) for x in outputs])
        scores = self._of_logits(flat, slot.to(flat.device)).double().cpu().numpy()
        start = 0
        for bundle, some, x in zip(bundles, late, outputs, strict=True):
            mine = scores[start : start + len(x) * len(some)].reshape(len(x), len(some))
            yield sum(unedited[bundle.text][: len(self.slots[bundle.text]) - len(some)]) + mine.sum(axis=1)
            start += mine.size

    def _of_text(self, resid: Float[Tensor, "cell some_reads d_model"], text: int) -> Float[Tensor, " cell"]:
        return self._checked(self.metric.text_scores(resid, self.rows[text]))

    def _of_logits(self, final: Float[Tensor, "some_reads d_model"], slot: Tensor) -> Tensor:
        """Unembed only the tokens that the metric needs, a part of the reads at a time."""
        tokens = self.metric.tokens
        n_tokens = self.model.cfg.d_vocab if tokens is None else len(tokens)
        step = max(1, self.max_bytes // (n_tokens * final.element_size()))
        parts = []
        for start in range(0, len(final), step):
            part = slice(start, start + step)
            logits = self.model.logits(final[None, part], tokens=tokens)[0]
            parts.append(self._checked(self.metric.scores(logits, slot[part])))
        return torch.cat(parts) if parts else final.new_zeros(0)

    def _checked(self, scores: Tensor) -> Tensor:
        if bool(scores.isnan().any()):
            raise InputError(
                f"The metric {self.metric.name} is not a number on some run, which could not be told from a cell that "
                "does not exist. Look for infinities in the logits, or in the metric."
            )
        return scores
