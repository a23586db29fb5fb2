"""Attention and weights of kinds of heads over a training: by a pattern, across two stacks, by a task, and composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from interp.circuits.composition import composition
from interp.dynamics.base import Examples
from interp.dynamics.measures import Found, best_and_sum
from interp.errors import InputError
from interp.heads.base import Finder
from interp.heads.patterns import attention_shares
from interp.heads.splits import of_pairs, study_of
from interp.heads.study import Study
from interp.heads.task_finder import TaskFinder
from interp.model.taps import active_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

__all__ = ["CROSS", "Composed", "CrossHeads", "PatternHeads", "TaskHeads"]

CROSS = ("mirror", "source_token")
HeadId = tuple[int, int]


@dataclass
class PatternHeads:
    """Attention of kinds that are known by a pattern. `ranked`, once there are series: heads by kind, best first."""

    kinds: Sequence[Finder]
    examples: Examples
    chooses: Tensor
    ranked: dict[str, list[HeadId]] = field(default_factory=dict)

    def asking(self, one: Finder) -> Bool[Tensor, " row"]:
        """Rows that have what a kind attends to."""
        tokens = self.examples.tokens[:, :-1]
        return one.rule(tokens, torch.arange(tokens.shape[1])).any(dim=(1, 2))

    def too_few(self, one: Finder) -> bool:
        """Whether a kind cannot be chosen on one half of the rows and reported on the other."""
        asks = self.asking(one)
        return int((asks & self.chooses).sum()) < 1 or int((asks & ~self.chooses).sum()) < 2

    def see(self, model: HookedTransformer) -> Mapping[str, Tensor]:
        for one in self.kinds:
            one.must_apply_to(model)
        if any(owner == id(model) for owner, _ in active_writes.get()):
            return self._as_held(model)
        return attention_shares(model, Batch(self.examples.tokens[:, :-1]), {one.name: one.rule for one in self.kinds})

    def _as_held(self, model: HookedTransformer) -> dict[str, Tensor]:
        """The same under the hooks around this call, which `attention_shares` does without: it makes patterns of
        queries and keys. A head that writes the same everywhere counts as one that attends to nothing."""
        tokens, main = self.examples.tokens[:, :-1], model.main
        names = [f"{main.address}blocks.{layer}.attn.hook_" for layer in range(main.config.n_layers)]
        _, cache = model.run_with_cache(tokens, [name + what for name in names for what in ("pattern", "z")])
        says = [(cache[name + "z"] != cache[name + "z"][:1, :1]).any(dim=3).any(dim=1).any(dim=0) for name in names]
        patterns = [cache[name + "pattern"] * some[:, None, None] for name, some in zip(names, says, strict=True)]
        found, width = {}, max(one.shape[1] for one in patterns)
        for one in self.kinds:
            keys = one.rule(tokens, torch.arange(tokens.shape[1]))
            asked = keys.any(dim=-1).sum(-1)[:, None]
            shares = [torch.einsum("bhqk,bqk->bh", pattern, keys.to(pattern.dtype)) / asked for pattern in patterns]
            wide = [torch.nn.functional.pad(one, (0, width - one.shape[1]), value=torch.nan) for one in shares]
            found[one.name] = torch.stack(wide, dim=1)
        return found

    def found(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        made = Found(about={"best": {}, "uniform": self._uniform()})
        for one in self.kinds:
            scores = torch.stack([each[one.name] for each in seen], dim=-1).double().numpy()
            asks, chooses = self.asking(one).numpy(), self.chooses.numpy()
            total, best, order = best_and_sum(scores[asks], chooses[asks])
            self.ranked[one.name] = order
            made.about["best"][one.name] = _name(order[0])
            made.series[one.name, "sum"], made.series[one.name, "best"] = total, best
        return made

    def _uniform(self) -> dict[str, float]:
        """The score of one head that attends alike to every token it may see."""
        tokens = self.examples.tokens[:, :-1]
        queries, scores = torch.arange(tokens.shape[1]), {}
        for one in self.kinds:
            keys = one.rule(tokens, queries).float().sum(-1)
            scores[one.name] = float((keys / (queries + 1))[keys > 0].mean())
        return scores


@dataclass
class CrossHeads:
    """Attention of cross-attention heads to the source token that comes next: at its `mirror`ed place, or at every
    place that holds it (`source_token`)."""

    kinds: Sequence[str]
    examples: Examples
    chooses: Tensor

    def __post_init__(self) -> None:
        source, following = self.examples.source, self.examples.tokens[:, 1:]
        assert source is not None
        if "mirror" in self.kinds and not (source.shape == following.shape and torch.equal(source.flip(1), following)):
            raise InputError("The decoder's tokens are not the source reversed, so nothing is mirrored. Ask for the "
                             'kind "source_token".')  # fmt: skip

    def see(self, model: HookedTransformer) -> dict[str, Tensor]:
        source, before = self.examples.source, self.examples.tokens[:, :-1]
        assert source is not None and model.decoder is not None
        sites = [f"decoder.cross_attn.pattern.{layer}" for layer in range(model.decoder.config.n_layers)]
        _, cache = model.run_with_cache(source, sites, decoder_input=before)
        wanted = {name: _cross_targets(name, source, self.examples.tokens[:, 1:]) for name in self.kinds}
        shares = {}
        for name, targets in wanted.items():
            asked = targets.any(-1).sum(-1)[:, None, None]
            total = [torch.einsum("bhqk,bqk->bh", cache[site], targets.to(cache[site].dtype)) for site in sites]
            shares[name] = torch.stack(total, dim=1) / asked
        return shares

    def found(self, seen: Sequence[Mapping[str, Tensor]]) -> Found:
        source = self.examples.source
        assert source is not None
        made = Found(about={"best": {}, "uniform": {}})
        for name in self.kinds:
            targets = _cross_targets(name, source, self.examples.tokens[:, 1:])
            scores = torch.stack([one[name] for one in seen], dim=-1).double().numpy()
            total, best, order = best_and_sum(scores, self.chooses.numpy())
            made.about["best"][name] = f"decoder.cross_attn {_name(order[0])}"
            keys = targets.float().sum(-1)
            made.about["uniform"][name] = float(keys[keys > 0].mean()) / source.shape[1]
            made.series[name, "sum"], made.series[name, "best"] = total, best
        return made


@dataclass
class TaskHeads:
    """Attention of a kind that serves a task, on the caller's pairs or, where the model has a tokenizer, the task's own
    prompts. Rows are items."""

    kind: TaskFinder
    pairs: PromptPairs | None
    n: int
    seed: int

    def see(self, model: HookedTransformer) -> ndarray:
        self.kind.must_apply_to(model)
        if self.kind.score_cutoff is None:
            raise InputError(
                f"{self.kind.name} heads have no score of attention; what they cause decides. Leave it out."
            )
        study = self._study(model)
        if self.kind.prepare is not None:
            self.kind.prepare(study)
        score = self.kind.behaviour(study).score
        return study.by_item(score).reshape(-1, *score.shape[1:])

    def found(self, seen: Sequence[ndarray]) -> Found:
        scores = np.stack(seen, axis=-1)
        if len(scores) < 4:
            raise InputError(f"{self.kind.name} is scored on {len(scores)} items. Give at least 4.")
        total, best, order = best_and_sum(scores, np.arange(len(scores)) % 2 == 0)
        made = Found(about={"best": {self.kind.name: _name(order[0])}})
        made.series[self.kind.name, "sum"], made.series[self.kind.name, "best"] = total, best
        return made

    def _study(self, model: HookedTransformer) -> Study:
        if self.pairs is not None:
            return of_pairs(model, [self.kind], {"pairs": self.pairs}, self.seed).report
        if model.tokenizer is None:
            raise InputError(
                f"{self.kind.name} heads are scored on prompts, and {model.cfg.model_name} has no tokenizer. Give "
                f"pairs= with the positions {', '.join(self.kind.positions)}."
            )
        decides = self.kind.corruptions[0]
        return study_of(model, [self.kind], decides, split="report", n=self.n, seed=self.seed)


@dataclass
class Composed:
    """K-composition of previous-token heads into induction heads, above that of random weights of the same shapes."""

    heads: PatternHeads
    seed: int

    def see(self, model: HookedTransformer) -> tuple[ndarray, float, float]:
        scores = composition(model, "K", n_random=100, seed=self.seed)
        return scores.values.values, scores.random_mean, scores.random_deviation

    def found(self, seen: Sequence[tuple[ndarray, float, float]]) -> Found:
        to = self.heads.ranked["induction"][0]
        earlier = [one for one in self.heads.ranked["previous_token"] if one[0] < to[0]]
        if not earlier:
            why = f"the best induction head, {_name(to)}, stands in the first layer"
            return Found(about={"left_out": {"composition": why}})
        above = np.stack([scores - random for scores, random, _ in seen], axis=-1)
        pair = above[*earlier[0], *to]
        if np.isnan(pair).any():
            why = "the best previous-token or induction head has no weights in some checkpoint"
            return Found(about={"left_out": {"composition": why}})
        others = np.asarray(~np.isnan(above).any(axis=-1))
        others[*earlier[0], *to] = False
        deviation = float(np.mean([one[2] for one in seen]))
        made = Found(about={"best": {"K-composition": f"{_name(earlier[0])} → {_name(to)}"}})
        made.series["K-composition", "best"] = pair[None]
        made.noise["K-composition", "best"] = 2 * deviation
        if others.any():
            made.series["K-composition", "other pairs"] = above[others].mean(axis=0)[None]
            made.noise["K-composition", "other pairs"] = 2 * deviation / float(others.sum()) ** 0.5
        return made


def _cross_targets(
    name: str, source: Int[Tensor, "row source_pos"], following: Int[Tensor, "row pos"]
) -> Bool[Tensor, "row pos source_pos"]:
    if name == "source_token":
        return following[:, :, None] == source[:, None, :]
    return torch.eye(source.shape[1], dtype=torch.bool).flip(1).expand(len(source), -1, -1)


def _name(head: HeadId) -> str:
    return f"{head[0]}.{head[1]}"
