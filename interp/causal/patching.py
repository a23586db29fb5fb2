"""Activation patching: copy a tensor from one run into another and see what the metric does.

Denoising (clean into corrupt) asks what is sufficient, noising (corrupt into clean) what is necessary (Heimersheim &
Nanda 2024, §2). Every cell is exact; what cannot matter is not computed (METHODS of this project, §1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch

from interp.causal.analysis import Analysis
from interp.causal.bundles import Bundle, Op
from interp.causal.grid import Grid, SitePlaces
from interp.causal.plan import Plan, Progress
from interp.causal.questions import Question, pose, position_tokens
from interp.causal.reach import felt, in_memory, is_causal, start_of
from interp.causal.sweep import Sweep
from interp.causal.texts import Text
from interp.causal.together import shared_prefix, target_sweep
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site

__all__ = ["CellBuilder", "longest_keys", "patch"]


@Analysis
def patch(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: Any,
    over: Sequence[str] = ("layer", "pos"),
    *,
    direction: Literal["denoise", "noise"] = "denoise",
    at: Mapping[str, Any] | None = None,
    window: Any = 1,
    metric: Any = "logit_diff",
    ungroup: bool = False,
    max_bytes: Any = None,
    progress: Progress = None,
) -> Plan:
    """Copy a site from one run of each pair into the other, cell by cell, and measure what it does.

    `site`: resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z, result, pattern, attn_scores, mlp_post (the
    neurons), or any other tensor of a layer, with a stack in front where a model has two ("decoder.cross_attn.z"); with
    its layer in the name ("z.5") where "layer" is no axis. `over` names the grid's axes: layer, pos, position (named),
    head, kv_head, neuron, and of pattern and attn_scores key_pos (pos then counts the queries): a cell copies the
    weights at that key for all its queries, or those of `at["pos"]`, and a row of the pattern is not renormalised. What
    is not spread out is edited together. With `over=("target",)` the site is a list of targets as for `ablate`: heads
    ("23.4"), tensors of a layer ("mlp_out.3"), or lists of these, patched together. `at` restricts axes, e.g. {"layer":
    [5, 6]}, or, without a pos axis, {"pos": "subject:last"}; the position "read" is the one that answers. `direction`:
    "denoise" copies clean into the corrupt run, "noise" corrupt into the clean one. `window` edits that many layers
    around each together. `metric`: "logit_diff", "logit", "prob", "log_prob", "log_prob_diff", "kl", a function of
    (logits `[cell d_vocab]`, pair `[cell]`), or of residuals (`interp.metrics.residual_metric`,
    `embedding_similarity`). With grouped queries k and v go by kv_head, or with `ungroup=True` by query head.

    Returns `Effects` `[prompt, *over]`; positions that a prompt does not have are NaN. Exact. Cost: 2 passes, and for
    each cell only the layers, positions and logits that its edit can reach; at most `max_bytes` of memory at a time
    (default 1 GiB). `interp.patch.plan(…)` says beforehand. Raises `InputError` for axes that the site does not have.
    """
    if direction not in ("denoise", "noise"):
        raise InputError(f'direction is {direction!r}. Choose "denoise" (clean into corrupt) or "noise".')
    if not isinstance(at, (Mapping, type(None))) or not isinstance(over, Sequence):
        raise InputError(f"over={over!r}, at={at!r}: give axes, as in over=('layer', 'pos'), at={{'layer': [5, 6]}}.")
    question = pose(model, pairs, metric)
    into, source = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    base_texts, source_texts = question.texts(into), question.texts(source)
    reference = "source" if direction == "denoise" else "base"
    about = {
        "method": "activation patching",
        "direction": direction,
        "base": into,
        "source": source,
        "metric": question.metric.name,
        "unit": question.metric.unit,
        "at": {name: str(value) for name, value in (at or {}).items()},
        "exact": True,
        "model": model.cfg.model_name,
    }
    if over == "target" or tuple(over) == ("target",):
        if window != 1 or ungroup:
            raise InputError("Targets are patched as they are named. Leave window= and ungroup= out.")
        texts = base_texts, source_texts
        sweep, names, sites = target_sweep(
            model, pairs, question, texts, site, at=at, reference=reference, max_bytes=max_bytes
        )
        return Plan(sweep, {"target": names}, question.items, pairs.templates, {**about, "site": sites}, progress)
    is_encoder = question.counts_in_encoder(SitePlaces.resolve(model, site).one)
    n_pos = max(question.prompt_length(text, is_encoder) for text in range(len(base_texts)))
    n_keys = longest_keys(question, model, site)
    grid = Grid.make(model, pairs, site, over, at, window=window, ungroup=ungroup, n_pos=n_pos, n_keys=n_keys)
    builder = CellBuilder(model, pairs, question, grid, base_texts, source_texts)
    bundles = [bundle for text in range(len(base_texts)) for bundle in builder.bundles(text)]
    sweep = Sweep(
        model,
        question.metric,
        base_texts,
        source_texts,
        bundles,
        builder.absent,
        reference=reference,
        max_bytes=max_bytes,
    )
    about |= {
        "site": grid.places.name,
        "window": window,
        "ungrouped": ungroup,
        **position_tokens(question, into, is_encoder),
    }
    return Plan(sweep, grid.axes, question.items, pairs.templates, about, progress)


class CellBuilder:
    """Makes the bundles of each text of a patching sweep."""

    def __init__(
        self,
        model: HookedTransformer,
        pairs: PromptPairs,
        question: Question,
        grid: Grid,
        base: Sequence[Text],
        source: Sequence[Text],
    ):
        self.model, self.pairs, self.question, self.grid = model, pairs, question, grid
        self.base, self.source = base, source
        self.absent = np.zeros((len(base), grid.n_cells), dtype=bool)

    def bundles(self, text: int) -> Iterator[Bundle]:
        """The cells of one text that can have an effect; those that it does not have are marked absent."""
        grid, site = self.grid, self.grid.places.one
        pair = self.question.metric.rows[text].pair
        in_encoder = self.question.counts_in_encoder(site)
        n_text = len(self.base[text].in_stack(in_encoder))
        n_prompt = self.question.prompt_length(text, in_encoder)
        same = shared_prefix(self.model, self.question, self.base[text], self.source[text], site)
        n_keys = self.question.prompt_length(text, self.question.two_stacks and grid.places.keys_in_encoder)
        places = grid.pos_choices(self.pairs, pair, n_prompt, n_text)
        for (j, positions), (k, keys) in product(places, grid.key_choices(self.pairs, pair, n_keys)):
            for i, layers in grid.layer_choices():
                n_units = self._n_units(layers)
                cells = grid.cells(i, j, len(grid.units) if grid.unit_axis and grid.units else 1, k)
                if positions is None or keys is None:
                    self.absent[text, cells] = True
                    continue
                units, cells = self._units(text, cells, n_units)
                differing = tuple(pos for pos in positions if pos >= same)
                ops = [op for layer in layers for op in self._ops(text, layer, differing, units, keys)]
                start = start_of(self.model, ops)
                if ops and len(cells) and any(read >= start for read in self.base[text].reads):
                    yield Bundle(text, torch.from_numpy(cells), tuple(ops), start)

    def _n_units(self, layers: Sequence[int]) -> int | None:
        if self.grid.units is None:
            return None
        return min(self.grid.places.n_units(self.model, one, ungroup=self.grid.ungroup) for one in layers)

    def _units(self, text: int, cells: np.ndarray, n_units: int | None) -> tuple[torch.Tensor | None, np.ndarray]:
        """The heads or neurons of each cell; cells beyond a narrower layer's last one are absent."""
        wanted = self.grid.units
        if wanted is None:
            return None, cells
        if self.grid.unit_axis is None:
            beyond = n_units is not None and max(wanted) >= n_units
            self.absent[text, cells[:beyond]] = True  # the one cell, or none
            return torch.tensor([wanted]), cells[beyond:]
        there = np.array([n_units is None or unit < n_units for unit in wanted])
        self.absent[text, cells[~there]] = True
        return torch.tensor(wanted)[torch.from_numpy(there)][:, None], cells[there]

    def _ops(
        self,
        text: int,
        layer: int,
        positions: tuple[int, ...],
        units: torch.Tensor | None,
        keys: tuple[int, ...],
    ) -> Iterator[Op]:
        site = self.grid.places.sites[layer]
        positions = felt(self.model, self.base[text], site, positions)
        if keys and site.part == "attn" and self.model.cfg.stacks[site.stack].blocks[layer].attn.mask == "causal":
            positions = tuple(pos for pos in positions if pos >= min(keys))  # others do not see them
        if not positions:
            return
        if not self.grid.ungroup or units is None:
            yield Op(site, positions, units, "source", keys=keys)
            return
        # One query head of a group: give the group the other key or value, then put back what its other heads wrote.
        attn = self.model.cfg.stacks[site.stack].blocks[layer]
        part = attn.cross_attn if site.part == "cross_attn" else attn.attn
        assert part is not None
        group = part.n_heads // part.n_key_value_heads
        others = [[head for head in _group_mates(row, group) if head not in row] for row in units.tolist()]
        z = Site("hook_z", site.part, layer, site.stack)
        # Only from the first edited key on, where no query sees later ones.
        first = min(positions) if is_causal(self.model, site.stack) and not in_memory(site) else 0
        n_tokens = len(self.base[text].in_stack(self.question.two_stacks and site.stack == "encoder"))
        asking = felt(self.model, self.base[text], z, range(first, n_tokens))
        if not asking:
            return
        yield Op(site, positions, units // group, "source")
        if others[0]:
            yield Op(z, asking, torch.tensor(others), "base")


def longest_keys(question: Question, model: HookedTransformer, site: Any) -> int:
    """Keys of the longest prompt, in the text that a site's keys count in."""
    in_encoder = question.two_stacks and SitePlaces.resolve(model, site).keys_in_encoder
    return max(question.prompt_length(text, in_encoder) for text in range(len(question.metric.rows)))


def _group_mates(heads: Sequence[int], group: int) -> list[int]:
    """All query heads that share a key/value head with some."""
    return [kv_head * group + i for kv_head in sorted({head // group for head in heads}) for i in range(group)]
