"""Metrics of what a model computes, where it has no logits or they are not the question: of its finished residuals.

Finished is what stands behind the last layer and the final norm (where there is one): what an unembedding reads, and
what a sentence encoder pools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from interp.errors import InputError
from interp.metrics.bound import BoundMetric, MetricRow, wide
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

__all__ = ["ResidualMetric", "embedding_similarity", "residual_metric"]

At = Literal["all", "read", "first"]


@dataclass(frozen=True)
class ResidualMetric:
    """A metric of finished residuals: `function(resid [cell pos d_model], pair [cell]) -> [cell]` of those `at` all
    positions of the predicted text, the read one or the first. `prepare` makes the function once pairs and model are
    known."""

    name: str
    unit: str
    at: At
    function: Callable[..., Any] | None = None
    prepare: Callable[[PromptPairs, HookedTransformer], Callable[..., Any]] | None = None
    draws: int = 1  # consecutive pairs that are draws of one, which is the pair that the function is told

    def bind(self, pairs: PromptPairs, model: HookedTransformer | None) -> BoundMetric:
        """The metric of these pairs."""
        function = self.function
        if self.prepare is not None:
            if model is None:
                raise InputError(f"{self.name} runs the model for what it compares with. Give bind_metric model=.")
            function = self.prepare(pairs.select(range(0, len(pairs), self.draws)), model)
        assert function is not None

        def score(resid: Tensor, pair: int) -> Tensor:
            told = torch.full((len(resid),), pair // self.draws, device=resid.device)
            return self._checked(function(resid, told), resid)

        rows = tuple(MetricRow(pair, reads=_reads(pairs, pair, self.at)) for pair in range(len(pairs)))
        needs_read = self.at == "read"
        return BoundMetric(self.name, self.unit, rows, None, False, _no_logits, text_score=score, needs_read=needs_read)

    def of_draws(self, draws: int) -> ResidualMetric:
        """The same for pairs of which each stands `draws` times."""
        return replace(self, draws=draws)

    def _checked(self, values: Any, resid: Tensor) -> Tensor:
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(resid),):
            found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"The metric {self.name} got residuals of {len(resid)} cells and returned {found}. "
                f"Return a tensor of shape ({len(resid)},), one value per cell."
            )
        return values.to(resid.dtype)


def residual_metric(
    function: Callable[..., Any], *, at: At = "all", name: str | None = None, unit: str = ""
) -> ResidualMetric:
    """A metric of the finished residuals: `function(resid [cell pos d_model], pair [cell]) -> [cell]`.

    `at`: "all" positions of the predicted text (an encoder's own text; the decoder's where there are two), the "read"
    one, or the "first" ([CLS]). All cells of a call are of one pair.
    """
    if not callable(function):
        raise InputError(f"function is {function!r}. Give a function of (residuals, pair).")
    if at not in ("all", "read", "first"):
        raise InputError(f'at is {at!r}. Choose "all", "read" or "first".')
    return ResidualMetric(name or getattr(function, "__name__", type(function).__name__), unit, at, function)


def embedding_similarity(target: Any = None, *, pool: Literal["mean", "read", "first"] = "mean") -> ResidualMetric:
    """Cosine similarity, −1 to 1, of a text's embedding with a target; pairs need no answer for it.

    The embedding is pooled from the finished residuals: their "mean" over the text's tokens (as all-MiniLM-L6-v2 is
    used; no padding enters), or the "read" or "first" position alone. `target`: a text, one per pair, vectors
    `[d_model]` or `[pair d_model]`, or None for the clean prompt's own embedding.
    """
    if pool not in ("mean", "read", "first"):
        raise InputError(f'pool is {pool!r}. Choose "mean", "read" or "first".')
    texts = [target] if isinstance(target, str) else target
    is_texts = isinstance(texts, (list, tuple)) and bool(texts) and all(isinstance(one, str) for one in texts)
    if not is_texts and target is not None and not isinstance(target, Tensor):
        raise InputError(f"target is {target!r}. Give a text, one per pair, or vectors [pair d_model].")
    if is_texts and pool == "read":
        raise InputError('A target text has no read position. Give vectors, or choose pool="mean" or "first".')
    at: At = "all" if pool == "mean" else pool

    def prepare(pairs: PromptPairs, model: HookedTransformer) -> Callable[..., Tensor]:
        if target is None:
            vectors = torch.stack([_embedded(model, pairs, pair, at) for pair in range(len(pairs))])
        else:
            vectors = _of_texts(model, texts, at) if is_texts else wide(target).detach().to(model.device)
        _check_vectors(vectors, model, pairs)

        def similarity(resid: Float[Tensor, "cell some_pos d_model"], pair: Tensor) -> Float[Tensor, " cell"]:
            wanted = vectors if vectors.ndim == 1 else vectors[0] if len(vectors) == 1 else vectors[pair]
            return F.cosine_similarity(resid.mean(dim=1), wanted.to(resid).expand(len(resid), -1), dim=-1)

        return similarity

    return ResidualMetric("embedding_similarity", "cosine", at, prepare=prepare)


def _check_vectors(vectors: Tensor, model: HookedTransformer, pairs: PromptPairs) -> None:
    shape, n = tuple(vectors.shape), len(pairs)
    if shape[-1:] != (model.cfg.d_model,) or len(shape) > 2 or (len(shape) == 2 and shape[0] not in (1, n)):
        raise InputError(
            f"target has shape {shape}; there are {n} pairs, and residuals of {model.cfg.d_model}. "
            f"Give [{model.cfg.d_model}], or one for each pair."
        )


def _reads(pairs: PromptPairs, pair: int, at: At) -> tuple[int, ...]:
    if at == "all":
        return tuple(range(pairs.predicted_lengths[pair]))
    return (0,) if at == "first" else (pairs.read[pair],)


def _embedded(model: HookedTransformer, pairs: PromptPairs, pair: int, at: At) -> Tensor:
    """The embedding of a pair's clean prompt."""
    decoder = pairs.clean_decoder[pair] if pairs.clean_decoder else None
    return _finished(model, pairs.clean[pair], decoder)[list(_reads(pairs, pair, at))].mean(dim=0)


def _of_texts(model: HookedTransformer, texts: Sequence[str], at: At) -> Tensor:
    if len(model.cfg.stacks) > 1:
        raise InputError("A target text is read by one stack, and this model has two. Give vectors, or None.")
    rows = [model.to_tokens(text)[0].tolist() for text in texts]
    finished = [_finished(model, row, None) for row in rows]
    return torch.stack([x.mean(dim=0) if at == "all" else x[0] for x in finished])


def _finished(
    model: HookedTransformer, row: Sequence[int], decoder: Sequence[int] | None
) -> Float[Tensor, "pos d_model"]:
    """The finished residuals of one text."""
    main = model.main
    name = f"{main.address}blocks.{main.config.n_layers - 1}.hook_resid_post"
    options: dict[str, Any] = {} if decoder is None else {"decoder_input": torch.tensor([list(decoder)])}
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([list(row)]), name, return_type=None, **options)
        return wide(main.finish(cache[name], NO_TAPS)[0])


def _no_logits(logits: Tensor, slot: Tensor, reference: Tensor | None) -> Tensor:
    raise AssertionError("a metric of residuals was given logits")
