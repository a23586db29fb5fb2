"""Attribution patching (Nanda 2023; Kramár 2024, §2): every patch at once, to first order.

(a_source − a_base) · ∂metric/∂a at the base run. Cheap, and wrong where the metric is not linear in the tensor: a
saturated softmax, paths that cancel, large changes of the residual stream. Verify what it finds with `interp.patch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from interp.causal.grid import Grid, SitePlaces
from interp.causal.questions import Question, pose
from interp.causal.reach import in_memory
from interp.causal.shelf import record
from interp.causal.texts import PATTERN_SITES, Recording, Text, run_texts
from interp.errors import InputError
from interp.metrics import BoundMetric
from interp.model.taps import Tap
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects

__all__ = ["attribute"]

_TOKENS_AT_ONCE = 4_096  # of one differentiated pass


def attribute(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: Any,
    over: Sequence[str] = ("layer", "pos"),
    *,
    direction: Literal["denoise", "noise"] = "denoise",
    at: Mapping[str, Any] | None = None,
    window: Any = 1,
    metric: Any = "logit_diff",
) -> Effects:
    """The first-order estimate of what `interp.patch` with the same arguments measures; marked approximate.

    Cost: 2 passes forward and 1 backward for all cells together. Several layers edited together (a window, or no
    layer axis) are estimated by the sum of their estimates.
    """
    if direction not in ("denoise", "noise"):
        raise InputError(f'direction is {direction!r}. Choose "denoise" (clean into corrupt) or "noise".')
    if torch.is_inference_mode_enabled():
        raise InputError("Attribution takes gradients, which torch.inference_mode() forbids. Call it outside.")
    question = pose(model, pairs, metric)
    into, source = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    base_texts, source_texts = question.texts(into), question.texts(source)
    if "key_pos" in (*over, *(at or {})):
        raise InputError("Attribution sums over the keys of each query, so it has no axis 'key_pos'. Use interp.patch.")
    in_encoder = question.counts_in_encoder(SitePlaces.resolve(model, site).one)
    n_pos = max(question.prompt_length(text, in_encoder) for text in range(len(base_texts)))
    grid = Grid.make(model, pairs, site, over, at, window=window, n_pos=n_pos)
    values = np.full((len(base_texts), grid.n_cells), np.nan)
    metrics = {"base": np.zeros(len(base_texts)), "source": np.zeros(len(base_texts))}
    slots = np.cumsum([0, *(len(text.reads) for text in base_texts)])
    for part in _parts(base_texts):
        clean = source_texts if direction == "denoise" else base_texts
        gradients, base, other = _differentiated(
            question, grid, part, (base_texts, source_texts, clean), slots, metrics
        )
        for i, text in enumerate(part):
            shares = {layer: _share(grid, layer, i, base, other, gradients) for layer in grid.places.sites}
            _fill(values[text], question, grid, pairs, text, shares, base_texts[text])
    combine = question.metric.combine
    shape = [len(pairs), *(len(names) for names in grid.axes.values())]
    coordinates = {"prompt": np.arange(len(pairs)), **grid.axes}
    about = {
        "method": "attribution patching",
        "site": grid.places.name,
        "direction": direction,
        "base": into,
        "source": source,
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "window": window,
        "exact": False,
        "model": model.cfg.model_name,
    }
    array = xr.DataArray(combine(values).reshape(shape), coords=coordinates, dims=("prompt", *grid.axes))
    return Effects(array, question.items, about, combine(metrics["base"]), combine(metrics["source"]), pairs.templates)


class _Leaves(Tap):
    """Keeps sites of a pass as tensors that gradients are taken of."""

    def __init__(self, names: set[str]):
        self.names, self.values, self.patterns = names, {}, {}
        self._text: int | None = None

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if name not in self.names:
            return x
        x = x if x.requires_grad else x.detach().requires_grad_()
        if self._text is None:
            self.values[name] = x
        else:
            self.patterns.setdefault(name, []).append(x)
        return x

    def wants(self, *names: str) -> bool:
        return any(name in self.names for name in names)

    def within(self, owner: int | None) -> Tap:
        one = _Leaves(self.names)
        one.values, one.patterns, one._text = self.values, self.patterns, owner
        return one


def _differentiated(
    question: Question,
    grid: Grid,
    part: Sequence[int],
    texts: tuple[Sequence[Text], Sequence[Text], Sequence[Text]],
    slots: np.ndarray,
    metrics: Mapping[str, np.ndarray],
) -> tuple[dict[str, Any], Recording, Recording]:
    """Gradients of each text's metric at every layer of the site, and the recordings of both runs."""
    model, metric = question.model, question.metric
    base_texts, source_texts, clean_texts = ([some[text] for text in part] for some in texts)
    slot = torch.tensor([s for text in part for s in range(slots[text], slots[text + 1])], device=model.device)
    names = {str(one) for one in grid.places.sites.values()}
    with torch.no_grad():
        source = record(model, source_texts, sites=names)
        if metric.needs_reference:
            clean = record(model, clean_texts).final
            assert clean is not None
            metric = metric.with_reference(model.logits(clean[None])[0], slot)
    with torch.enable_grad():
        leaves = _Leaves(names)
        base = run_texts(model, base_texts, tap=leaves)
        scores = _scores(model, metric, base, part, slot)
        flat = [x for name in sorted(names) for x in leaves.patterns.get(name, [leaves.values.get(name)])]
        if not scores.requires_grad:
            raise InputError(f"The metric {metric.name} has no gradient. Give one that can be differentiated.")
        found = torch.autograd.grad(scores.sum(), flat, allow_unused=True)
    grads = iter(torch.zeros_like(x) if g is None else g for g, x in zip(found, flat, strict=True))
    gradients: dict[str, Any] = {}
    for name in sorted(names):
        if name in leaves.patterns:
            gradients[name] = [next(grads)[0] for _ in leaves.patterns[name]]
            base.patterns[name] = [x.detach()[0] for x in leaves.patterns[name]]
        else:
            gradients[name] = next(grads)[0]
            base.values[name] = leaves.values[name].detach()[0]
    with torch.no_grad():
        there = _scores(model, metric, source, part, slot)
    for side, score in (("base", scores.detach()), ("source", there)):
        metrics[side][list(part)] = score.cpu().numpy()
    return gradients, base, source


def _scores(
    model: HookedTransformer, metric: BoundMetric, made: Recording, part: Sequence[int], slot: Tensor
) -> Tensor:
    """The metric of each text, `[text]`."""
    assert made.final is not None
    n_reads = [len(text.reads) for text in made.texts]
    if metric.of_residuals:
        resid = zip(made.final.split(n_reads), part, strict=True)
        return torch.cat([metric.text_scores(one[None], row) for one, row in resid]).double()
    scores = metric.scores(model.logits(made.final[None], tokens=metric.tokens)[0], slot).double()
    return torch.stack([one.sum() for one in scores.split(n_reads)])


def _share(
    grid: Grid, layer: int, text: int, base: Recording, source: Recording, gradients: Mapping[str, Any]
) -> np.ndarray:
    """Estimated effect of each position (and head or neuron) of one layer on one text: `[pos]` or `[pos unit]`."""
    site = grid.places.sites[layer]
    name = str(site)
    if site.name in PATTERN_SITES:
        change = source.patterns[name][text] - base.patterns[name][text]
        change = torch.where(torch.isfinite(change), change, 0.0)  # scores of keys that no query sees
        return (change * gradients[name][text]).sum(-1).T.double().cpu().numpy()
    stack = "encoder" if in_memory(site) else site.stack
    start = base.place(stack, text)
    stop = start + len(base.texts[text].in_stack(stack == "encoder" and bool(base.texts[text].encoder)))
    product = (source.values[name] - base.values[name])[start:stop] * gradients[name][start:stop]
    if "d_mlp" not in site.axes:  # neurons are units by themselves; of all others the last axis is one vector
        product = product.sum(-1)
    return product.double().cpu().numpy()


def _fill(
    row: np.ndarray,
    question: Question,
    grid: Grid,
    pairs: PromptPairs,
    text: int,
    shares: Mapping[int, np.ndarray],
    one: Text,
) -> None:
    """Sum what each cell edits together."""
    site = grid.places.one
    in_encoder = question.counts_in_encoder(site)
    n_text, n_prompt = len(one.in_stack(in_encoder)), question.prompt_length(text, in_encoder)
    for j, positions in grid.pos_choices(pairs, question.metric.rows[text].pair, n_prompt, n_text):
        if positions is None:
            continue
        for i, layers in grid.layer_choices():
            sums = [shares[layer][list(positions)].sum(axis=0) for layer in layers]
            if grid.unit_axis is None and grid.units is not None and any(max(grid.units) >= len(x) for x in sums):
                continue  # a layer without one of these heads
            if grid.unit_axis is None:
                chosen = [one if one.ndim == 0 or grid.units is None else one[grid.units] for one in sums]
                row[grid.cells(i, j, 1)] = sum(float(one.sum()) for one in chosen)
                continue
            assert grid.units is not None
            for k, unit in enumerate(grid.units):
                if all(unit < len(one) for one in sums):
                    row[grid.cells(i, j, len(grid.units))[k]] = sum(float(one[unit]) for one in sums)


def _parts(texts: Sequence[Text]) -> list[list[int]]:
    """Texts that are differentiated together."""
    parts: list[list[int]] = [[]]
    used = 0
    for i, text in enumerate(texts):
        size = len(text.tokens) + len(text.encoder)
        if parts[-1] and used + size > _TOKENS_AT_ONCE:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += size
    return parts
