"""The slow oracle of patching: whole forward passes under hooks, one row of a batch for each cell, and metrics by plain
formula. It imports nothing of interp.causal or interp.metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import UnknownSiteError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs

UNITS = ("head", "kv_head", "neuron")
SHORT = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_mid_cross": "resid_mid_cross",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_cross_attn_out": "cross_attn_out",
    "hook_mlp_out": "mlp_out",
    "hook_attn_scores": "attn_scores",
    "hook_pre": "mlp_pre",
    "hook_pre_linear": "pre_linear",
    "hook_post": "mlp_post",
}  # the others lose `hook_`


@dataclass(frozen=True)
class Answer:
    """What the oracle says: the metric of each patched run `[prompt, *over]`, NaN where a prompt has no such cell."""

    axes: dict[str, list[Any]]
    patched: np.ndarray
    base: np.ndarray
    source: np.ndarray

    @property
    def effect(self) -> np.ndarray:
        return self.patched - self.base.reshape(-1, *(1,) * len(self.axes))


@dataclass(frozen=True)
class Row:
    """A text that the metric reads: what stands behind the prompt, and a score of all its logits `[cell pos token]`."""

    continuation: tuple[int, ...]
    score: Callable[[Tensor], Tensor]
    weight: float = 1.0


def site_names(model: HookedTransformer) -> list[str]:
    """Short names of every tensor inside the layers of a model, in forward order."""
    two = len(model.cfg.stacks) == 2
    found = []
    for site in model.sites:
        if site.layer is None:
            continue
        name = SHORT.get(site.name, site.name.removeprefix("hook_"))
        part = f"{site.part}." if site.part == "cross_attn" or site.part.startswith("ln") else ""
        if site.name == "hook_in":
            part, name = "", f"{site.part}_in"
        found.append(f"{site.stack}.{part}{name}" if two else part + name)
    return list(dict.fromkeys(found))


def oracle(
    model: HookedTransformer,
    pairs: PromptPairs,
    site: str,
    over: Sequence[str] = ("layer", "pos"),
    *,
    direction: str = "denoise",
    at: Mapping[str, Any] | None = None,
    window: int = 1,
    metric: Any = "logit_diff",
    ungroup: bool = False,
    at_once: int = 256,
) -> Answer:
    """Every cell of a grid, by one whole run for each cell and text."""
    job = _Job(model, pairs, site, tuple(over), direction, dict(at or {}), window, metric, ungroup, at_once)
    axes = job.axes()
    shape = (len(pairs), *(len(one) for one in axes.values()))
    patched, base, source = np.zeros(shape), np.zeros(len(pairs)), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        for row in job.metric_rows(pair):
            made = job.row(pair, row, axes)
            base[pair] += row.weight * made[0]
            source[pair] += row.weight * made[1]
            patched[pair] += row.weight * made[2].reshape(shape[1:])
    return Answer(axes, patched, base, source)


@dataclass(frozen=True)
class _Job:
    model: HookedTransformer
    pairs: PromptPairs
    site: str
    over: tuple[str, ...]
    direction: str
    at: dict[str, Any]
    window: int
    metric: Any
    ungroup: bool
    at_once: int

    # ---- the grid ----

    @cached_property
    def sites(self) -> dict[int, Any]:
        """The site of each layer that has it."""
        n_layers = max(stack.n_layers for stack in self.model.cfg.stacks.values())
        found = {layer: _known(self.model.sites, f"{self.site}.{layer}") for layer in range(n_layers)}
        return {layer: site for layer, site in found.items() if site is not None}

    @property
    def in_encoder(self) -> bool:
        """Whether positions count in the encoder's text."""
        site = next(iter(self.sites.values()))
        keys = site.part == "cross_attn" and site.name in ("hook_k", "hook_v", "hook_rot_k")
        return bool(self.pairs.clean_decoder) and (site.stack == "encoder" or keys)

    def n_prompt(self, pair: int) -> int:
        two = bool(self.pairs.clean_decoder)
        return len((self.pairs.clean_decoder if two and not self.in_encoder else self.pairs.clean)[pair])

    @property
    def key_rows(self) -> Any:
        """The prompts that keys of a pattern count in."""
        site = next(iter(self.sites.values()))
        in_encoder = site.stack == "encoder" or site.part == "cross_attn" or not self.pairs.clean_decoder
        return self.pairs.clean if in_encoder else self.pairs.clean_decoder

    def keys(self, cell: Mapping[str, Any], pair: int) -> list[int] | slice | None:
        """The keys that a cell of scores or patterns edits; None where the prompt has none such."""
        n_keys = len(self.key_rows[pair])
        if "key_pos" in cell:
            return [cell["key_pos"]] if cell["key_pos"] < n_keys else None
        if "key_pos" not in self.at:
            return slice(None)
        asked = self.at["key_pos"]
        if isinstance(asked, str):
            return list(self.pairs.positions[asked][pair])
        return [one % n_keys for one in ([asked] if isinstance(asked, int) else asked)]

    def axes(self) -> dict[str, list[Any]]:
        sizes = {"pos": max(self.n_prompt(pair) for pair in range(len(self.pairs)))}
        for layer, site in self.sites.items():
            block = self.model.cfg.stacks[site.stack].blocks[layer]
            attn = block.cross_attn if site.part == "cross_attn" else block.attn
            sizes["head"] = max(sizes.get("head", 0), attn.n_heads)
            sizes["kv_head"] = max(sizes.get("kv_head", 0), attn.n_key_value_heads)
            sizes["neuron"] = max(sizes.get("neuron", 0), block.mlp.d_mlp if block.mlp else 0)
        made: dict[str, list[Any]] = {}
        for axis in self.over:
            if axis == "position":
                made[axis] = list(self.at.get(axis, self.pairs.positions))
            elif axis == "layer":
                made[axis] = list(self.at.get(axis, self.sites))
            elif axis == "key_pos":
                made[axis] = list(self.at.get(axis, range(max(map(len, self.key_rows)))))
            else:
                made[axis] = list(self.at.get(axis, range(sizes[axis])))
        return made

    def layers(self, cell: Mapping[str, Any]) -> list[int]:
        if "layer" not in cell:
            asked = self.at.get("layer", list(self.sites))
            return [asked] if isinstance(asked, int) else list(asked)
        before, after = self.window // 2, (self.window - 1) // 2
        return [layer for layer in self.sites if cell["layer"] - before <= layer <= cell["layer"] + after]

    def positions(self, cell: Mapping[str, Any], pair: int, n_text: int) -> list[int] | None:
        if "pos" in cell:
            return [cell["pos"]] if cell["pos"] < self.n_prompt(pair) else None
        asked = cell.get("position", self.at.get("position", self.at.get("pos", range(n_text))))
        found: set[int] = set()
        for one in [asked] if isinstance(asked, (int, str)) else asked:
            if isinstance(one, str):
                name, _, end = one.partition(":")
                span = self.pairs.positions[name][pair]
                found |= {"first": {span[0]}, "last": {span[-1]}, "": set(span)}[end]
            else:
                found.add(one if one >= 0 else self.n_prompt(pair) + one)
        return sorted(found)

    def units(self, cell: Mapping[str, Any]) -> list[int] | None:
        for axis in UNITS:
            if axis in cell:
                return [cell[axis]]
            if axis in self.at:
                return [self.at[axis]] if isinstance(self.at[axis], int) else list(self.at[axis])
        return None

    # ---- the runs ----

    def row(self, pair: int, row: Row, axes: Mapping[str, list[Any]]) -> tuple[float, float, np.ndarray]:
        """The metric of the base run, of the source run and of every cell's run, on one text."""
        into, source = ("corrupt", "clean") if self.direction == "denoise" else ("clean", "corrupt")
        base_input, source_input = self.input(pair, into, row), self.input(pair, source, row)
        sites = [str(site) for site in self.sites.values()]
        base_logits, base_cache = self.run_with_cache(base_input, sites)
        source_logits, source_cache = self.run_with_cache(source_input, sites)
        n_text = len(base_input[0]) if self.in_encoder or not self.pairs.clean_decoder else len(base_input[1])
        cells = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        edits: list[list[tuple[str, Any, Tensor]] | None] = []
        for cell in cells:
            where = self.positions(cell, pair, n_text)
            keys = self.keys(cell, pair)
            if where is None or keys is None or self.beyond(cell):
                edits.append(None)
            else:
                edits.append(self.edits(cell, where, keys, base_cache, source_cache))
        values = np.full(len(cells), np.nan)
        there = [i for i, edit in enumerate(edits) if edit is not None]
        for start in range(0, len(there), self.at_once):
            some = there[start : start + self.at_once]
            logits = self.run_edited(base_input, [edits[i] or [] for i in some])
            values[some] = row.score(logits).double().numpy(force=True)
        unedited = [float(row.score(logits)[0]) for logits in (base_logits, source_logits)]
        return unedited[0], unedited[1], values

    def beyond(self, cell: Mapping[str, Any]) -> bool:
        """Whether a cell's head or neuron is beyond the last one of one of its layers."""
        units, sizes = self.units(cell), []
        for layer in self.layers(cell):
            site = self.sites[layer]
            block = self.model.cfg.stacks[site.stack].blocks[layer]
            attn = block.cross_attn if site.part == "cross_attn" else block.attn
            kv = "kv_head" in site.axes and not self.ungroup
            sizes.append(block.mlp.d_mlp if "d_mlp" in site.axes else attn.n_key_value_heads if kv else attn.n_heads)
        return units is not None and max(units) >= min(sizes)

    def edits(
        self, cell: Mapping[str, Any], where: list[int], keys: Any, base: Any, source: Any
    ) -> list[tuple[str, Any, Tensor]]:
        """What one cell writes: (site, index into a row, value)."""
        made, units = [], self.units(cell)
        for layer in self.layers(cell):
            site = self.sites[layer]
            if self.ungroup and units is not None and "kv_head" in site.axes:
                for head in units:
                    z = self.z_of_head(site, head, where, base, source)
                    made.append((str(site).rpartition(".")[0] + ".hook_z", (slice(None), head), z))
                continue
            value = source[str(site)][0]
            for pos in where:
                for unit in units if units is not None else [slice(None)]:
                    by_head = site.axes[1] == "head"  # scores and patterns: [head q_pos k_pos]
                    plain = "head" not in site.axes and "kv_head" not in site.axes and "d_mlp" not in site.axes
                    index = (unit, pos, keys) if by_head else (pos,) if plain else (pos, unit)
                    made.append((str(site), index, value[index]))
        return made

    def z_of_head(self, site: Any, head: int, where: list[int], base: Any, source: Any) -> Tensor:
        """z of one query head that alone reads the source's keys (or values) at some positions, by its formula."""
        prefix = str(site).rpartition(".")[0] + "."
        block = self.model.cfg.stacks[site.stack].blocks[site.layer]
        attn = block.cross_attn if site.part == "cross_attn" else block.attn
        kv_head = head // (attn.n_heads // attn.n_key_value_heads)
        rotated = "rot_" if attn.rotary is not None else ""
        of = {"hook_k": f"hook_{rotated}k", "hook_rot_k": "hook_rot_k", "hook_v": "hook_v"}[site.name]
        q = base[f"{prefix}hook_{rotated}q"][0, :, head]
        k, v = base[f"{prefix}hook_{rotated}k"][0, :, kv_head].clone(), base[f"{prefix}hook_v"][0, :, kv_head].clone()
        (v if of == "hook_v" else k)[where] = source[prefix + of][0, where, kv_head]
        scores = (q * attn.scale) @ k.T
        if attn.softcap is not None:
            scores = attn.softcap * torch.tanh(scores / attn.softcap)
        unseen = base[f"{prefix}hook_attn_scores"][0, head] == -torch.inf
        return scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v

    def input(self, pair: int, side: str, row: Row) -> tuple[list[int], list[int] | None]:
        prompt = list(getattr(self.pairs, side)[pair])
        if not self.pairs.clean_decoder:
            return prompt + list(row.continuation), None
        return prompt, list(getattr(self.pairs, f"{side}_decoder")[pair]) + list(row.continuation)

    def run_with_cache(self, ids: tuple[list[int], list[int] | None], sites: list[str]) -> tuple[Tensor, Any]:
        names: Any = sites
        if self.ungroup:
            parts = {one.rpartition(".")[0] for one in sites}
            names = lambda name: name.rpartition(".")[0] in parts  # noqa: E731
        with torch.no_grad():
            return self.model.run_with_cache(_row(ids[0], 1, self.model), names, **_decoder(ids[1], 1, self.model))

    def run_edited(self, ids: Any, edits: list[list[tuple[str, Any, Tensor]]]) -> Tensor:
        """Logits `[cell pos token]` of as many copies of a text as there are cells, each under its own edits."""
        by_site: dict[str, list[tuple[int, Any, Tensor]]] = {}
        for row, some in enumerate(edits):
            for name, index, value in some:
                by_site.setdefault(name, []).append((row, index, value))

        def hook(name: str) -> Callable[..., None]:
            def write(x: Tensor, hook: Any) -> None:
                for row, index, value in by_site[name]:
                    x[row][index] = value

            return write

        hooks = [(name, hook(name)) for name in by_site]
        n = len(edits)
        with torch.no_grad():
            tokens, options = _row(ids[0], n, self.model), _decoder(ids[1], n, self.model)
            return self.model.run_with_hooks(tokens, fwd_hooks=hooks, **options)

    # ---- the metric ----

    def metric_rows(self, pair: int) -> list[Row]:
        pairs, read = self.pairs, self.pairs.read[pair]
        answers = pairs.answer[pair]
        foils = pairs.foil[pair] if pairs.foil else ()
        if callable(self.metric):
            number = lambda x: torch.full((len(x),), pair)  # noqa: E731
            return [Row((), lambda x: self.metric(_wide(x[:, read]), number(x)))]
        match self.metric:
            case "logit":
                return [Row((), lambda x: self._logits(x[:, read], answers))]
            case "logit_diff":
                return [Row((), lambda x: self._logits(x[:, read], answers) - self._logits(x[:, read], foils))]
            case "prob":
                one = [answer[0] for answer in answers]
                return [Row((), lambda x: _wide(x[:, read]).softmax(-1)[:, one].sum(-1))]
            case "kl":
                clean, _ = self.run_with_cache(self.input(pair, "clean", Row((), len)), [])
                p = _wide(clean[0, read]).softmax(-1)
                return [Row((), lambda x: (p * (p.log() - _wide(x[:, read]).log_softmax(-1))).sum(-1))]
            case "log_prob":
                return [_log_prob(answers, read)]
            case "log_prob_diff":
                return [_log_prob(answers, read), _log_prob(foils, read, -1.0)]
        raise AssertionError(self.metric)

    def _logits(self, logits: Tensor, answers: Any) -> Tensor:
        own = _wide(logits)[:, [answer[0] for answer in answers]]
        return own.mean(-1) if self.pairs.combine == "mean" else own.exp().sum(-1).log()


def _log_prob(answers: Any, read: int, weight: float = 1.0) -> Row:
    first = answers[0]
    if len(first) == 1:
        one = [answer[0] for answer in answers]
        return Row((), lambda x: _wide(x[:, read]).softmax(-1)[:, one].sum(-1).log(), weight)

    def score(logits: Tensor) -> Tensor:
        log_p = _wide(logits).log_softmax(-1)
        return torch.stack([log_p[:, read + i, token] for i, token in enumerate(first)]).sum(0)

    return Row(first[:-1], score, weight)


def _known(book: Any, name: str) -> Any:
    try:
        return book.resolve(name)
    except UnknownSiteError:
        return None


def _wide(x: Tensor) -> Tensor:
    return x.double()


def _row(ids: list[int], n: int, model: HookedTransformer) -> Tensor:
    return torch.tensor([ids] * n, device=model.device)


def _decoder(ids: list[int] | None, n: int, model: HookedTransformer) -> dict[str, Tensor]:
    return {} if ids is None else {"decoder_input": _row(ids, n, model)}
