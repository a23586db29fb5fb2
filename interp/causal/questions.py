"""Pairs and a metric, turned into the texts that have to be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from interp.causal.texts import Text
from interp.errors import InputError
from interp.metrics import BoundMetric, bind_metric
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site

__all__ = ["Question", "pose"]

Which = Literal["clean", "corrupt"]


@dataclass(frozen=True)
class Question:
    """What is asked of a model: pairs, and the metric bound to them."""

    model: HookedTransformer
    pairs: PromptPairs
    metric: BoundMetric

    def texts(self, which: Which) -> list[Text]:
        """One text for each row of the metric: the clean or corrupt prompt, and the answer's tokens it reads on."""
        made = []
        for row in self.metric.rows:
            prompt = getattr(self.pairs, which)[row.pair]
            if self.two_stacks:
                decoder = getattr(self.pairs, f"{which}_decoder")[row.pair]
                made.append(Text((*decoder, *row.continuation), tuple(row.reads), tuple(prompt)))
            else:
                made.append(Text((*prompt, *row.continuation), tuple(row.reads)))
        return made

    @property
    def two_stacks(self) -> bool:
        return self.model.encoder is not None and self.model.decoder is not None

    def counts_in_encoder(self, site: Site) -> bool:
        """Whether a site's positions are those of the encoder's text."""
        in_memory = site.part == "cross_attn" and site.name in ("hook_k", "hook_v", "hook_rot_k")
        return self.two_stacks and (site.stack == "encoder" or in_memory)

    def prompt_length(self, text: int, in_encoder: bool) -> int:
        """Tokens of a text's prompt, without the answer's."""
        pair = self.metric.rows[text].pair
        if self.two_stacks and not in_encoder:
            return len(self.pairs.clean_decoder[pair])
        return len(self.pairs.clean[pair])

    @property
    def items(self) -> tuple[str, ...]:
        return self.pairs.items or tuple(str(i) for i in range(len(self.pairs)))


def pose(model: Any, pairs: Any, metric: Any) -> Question:
    """Check that a model can be asked about these pairs; raises `InputError` if not."""
    if not isinstance(model, HookedTransformer):
        raise InputError(f"This takes a loaded model, not {model!r}. Load it first: interp.load(…).")
    if not isinstance(pairs, PromptPairs):
        raise InputError(f"This takes PromptPairs, not {type(pairs).__name__}. Make them: PromptPairs.from_text(…).")
    two = model.encoder is not None and model.decoder is not None
    if two != bool(pairs.clean_decoder):
        what = (
            "needs pairs that say what its decoder has read: decoder=" if two else "has one stack; leave decoder= out"
        )
        raise InputError(f"This model {what}.")
    highest = max(max(row) for rows in (pairs.clean, pairs.corrupt) for row in rows)
    if highest >= model.cfg.d_vocab:
        raise InputError(f"The pairs hold token {highest}; this model's vocabulary ends at {model.cfg.d_vocab - 1}.")
    longest = max(len(row) for row in (*pairs.clean, *pairs.clean_decoder))
    if longest > model.cfg.n_ctx:
        raise InputError(f"A prompt has {longest} tokens; this model reads at most {model.cfg.n_ctx}. Shorten it.")
    return Question(model, pairs, bind_metric(metric, pairs, n_vocab=model.cfg.d_vocab, device=model.device))
