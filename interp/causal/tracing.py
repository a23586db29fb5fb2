"""Causal tracing (Meng 2022, §2.1): noise on the subject's embeddings, and what restoring single states brings back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.causal.analysis import Analysis
from interp.causal.grid import Grid, SitePlaces
from interp.causal.patching import CellBuilder, longest_keys
from interp.causal.plan import Plan, Progress
from interp.causal.questions import pose
from interp.causal.sweep import Sweep
from interp.errors import InputError
from interp.metrics import ResidualMetric
from interp.pairs.checks import is_index

__all__ = ["causal_trace"]


@Analysis
def causal_trace(
    model: Any,
    pairs: Any,
    subject: Any = "subject",
    *,
    noise: Any = 3.0,
    draws: Any = 10,
    window: Any = 1,
    site: Any = "resid_post",
    over: Sequence[str] = ("layer", "pos"),
    at: Any = None,
    metric: Any = "prob",
    seed: Any = 0,
    max_bytes: Any = None,
    progress: Progress = None,
) -> Plan:
    """Corrupt the clean prompts by Gaussian noise on the embeddings of `subject` (a named position), and restore
    clean values of `site` cell by cell. With two stacks the noise is on the encoder's text, and states of either stack
    are restored (`site="encoder.resid_post"`, `"decoder.resid_post"`).

    `noise` is in standard deviations of all the embedding matrix' entries; each prompt gets `draws` draws, whose
    effects are averaged. `window` layers are restored together (Meng takes 10 for "mlp_out" and "attn_out", and
    single states "resid_post"). `.base` is the metric of the noised run, `.source` of the clean one.

    Returns `Effects` `[prompt, *over]`. Exact for these draws (the same seed draws the same noise); off-distribution
    by design. Cost: `draws` times that of a patching sweep.
    """
    pose(model, pairs, metric)
    if not is_index(draws) or draws < 1:
        raise InputError(f"draws is {draws!r}. Give a whole number, at least 1.")
    if not is_index(seed) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    if not isinstance(subject, str):
        raise InputError(f"subject is {subject!r}. Give the name of a position of the pairs, e.g. 'subject:last'.")
    if not isinstance(noise, (int, float)) or not 0 < noise < float("inf"):
        raise InputError(f"noise is {noise!r}. Give standard deviations above 0; 3 is usual.")
    repeated = pairs.select([pair for pair in range(len(pairs)) for _ in range(draws)])
    question = pose(model, repeated, _of_prompts(metric, draws))
    clean = question.texts("clean")
    generator = torch.Generator().manual_seed(seed)
    reader = model.encoder if question.two_stacks else model.main
    sigma = noise * float(reader.embed.weight.detach().float().std()) * reader.config.embed_scale
    # Rows of one pair that a metric reads in several texts get the same noise: they are one corrupted prompt.
    drawn = [
        torch.randn(len(question.pairs.span(subject, pair)), model.cfg.d_model, generator=generator) * sigma
        for pair in range(len(repeated))
    ]
    noised = []
    for text, row in zip(clean, question.metric.rows, strict=True):
        added = torch.zeros(len(text.in_stack(question.two_stacks)), model.cfg.d_model)
        added[list(question.pairs.span(subject, row.pair))] = drawn[row.pair]
        noised.append(replace(text, noise=added.to(model.device, model.dtype)))
    in_encoder = question.counts_in_encoder(SitePlaces.resolve(model, site).one)
    n_pos = max(question.prompt_length(text, in_encoder) for text in range(len(clean)))
    n_keys = longest_keys(question, model, site)
    grid = Grid.make(model, repeated, site, over, at, window=window, n_pos=n_pos, n_keys=n_keys)
    builder = CellBuilder(model, repeated, question, grid, noised, clean)
    bundles = [bundle for text in range(len(clean)) for bundle in builder.bundles(text)]
    sweep = Sweep(
        model,
        question.metric,
        noised,
        clean,
        bundles,
        builder.absent,
        reference="source",
        max_bytes=max_bytes,
    )
    about = {
        "method": "causal tracing",
        "site": grid.places.name,
        "direction": "denoise",
        "base": f"clean with {noise:g}σ noise on {subject}",
        "source": "clean",
        "noise": float(noise),
        "sigma": sigma,
        "draws": draws,
        "window": window,
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "seed": seed,
        "exact": True,
        "model": model.cfg.model_name,
    }
    return Plan(sweep, grid.axes, pairs.items, pairs.templates, about, progress, draws)


def _of_prompts(metric: Any, draws: int) -> Any:
    """A metric function is told the pair, not the number of the draw."""
    if isinstance(metric, ResidualMetric):
        return metric.of_draws(draws)
    if not callable(metric):
        return metric

    def told(logits: Tensor, pair: Tensor) -> Any:
        return metric(logits, pair // draws)

    told.__name__ = getattr(metric, "__name__", type(metric).__name__)
    return told
