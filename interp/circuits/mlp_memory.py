"""An MLP as a content-addressable memory (Geva 2021, 2022): neurons are keys that a residual matches, each with a value
that is written when its key fires.

In a gated MLP a key is the gate and the linear half together: act(x·gate) × (x·up). The value is the neuron's row of
W_out; where it is written with a negative activation, what it promotes and suppresses change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.direct import direct_logits
from interp.circuits.prompts import Group, groups, prompts, token_texts
from interp.errors import InputError
from interp.metrics import BoundMetric, bind_metric
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.mlp_memory import MLPMemory

__all__ = ["mlp_memory"]

_CELL_BYTES = 256 << 20  # of the neurons of the rows that run together
_LEFT_OUT = (
    "Effects are of setting neurons to zero, which is not a state the model is often in; other neurons may do the same "
    "(redundancy) or make up for it. What a value promotes is its direct effect on the logits, under the final norm's "
    "gain and up to one factor per position; what later layers make of it is not seen there."
)
_NOT_LINEAR = " This model has a nonlinear head before its unembedding, so values have no direct logits of their own."


@torch.no_grad()
def mlp_memory(
    model: HookedTransformer,
    layer: int | Sequence[int],
    text: Any,
    *,
    answer: Any = None,
    foil: Any = None,
    metric: Any = None,
    k: int = 5,
    tokens: int = 5,
    positions: Sequence[int] | None = None,
    n_random: int = 10,
    seed: int = 0,
    read: Any = None,
    decoder: Any = None,
) -> MLPMemory:
    """Which keys of an MLP fire hardest at each position, what their values promote, and what removing them does.

    Strength is |activation| × ‖value‖. For the `k` strongest neurons at each of `positions` (all unless given): their
    activation (gated: gate after its nonlinearity, and up), the `tokens` that the written value promotes and suppresses
    most, and the effect: the metric without that neuron at that position − the metric as it is. `sets` does the same
    for the k together, and for `n_random` sets of other neurons that fired there, drawn until their strengths sum to as
    much (or until there are no more: `random_strength` says what was reached).

    `text` is one text, one row of ids or one PromptPairs; `answer` is the model's own top token unless given; `metric`
    as in `interp.patch`: "logit_diff" with a foil, else "log_prob". Cost: one pass, and 1 + k + n_random passes from
    the layer on for each position.
    """
    layers = _layers(model, layer)
    for name, value, least in (("k", k, 1), ("tokens", tokens, 1), ("n_random", n_random, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}. Give a whole number, {least} or more.")
    asked = prompts(model, text, answer, foil, read=read, decoder=decoder)
    if len(asked) != 1:
        raise InputError(f"A memory is looked at on one text; these are {len(asked)}. Give one, e.g. pairs[0].")
    bound = _bound(model, asked, metric)
    (group,) = groups(model, asked)
    n_pos = asked.predicted_lengths[0]
    places = list(range(n_pos)) if positions is None else _positions(positions, n_pos)
    rows = (asked.clean_decoder or asked.clean)[0]
    texts = token_texts(model, list(rows))
    fired, sets, base = [], [], float("nan")
    for one in layers:
        memory = _Layer(model, group, asked, bound, one)
        base = memory.base
        keys, together = memory.look(places, texts, k, tokens, n_random, seed)
        fired.append(keys)
        sets.append(together)
    about = {
        "method": "MLP memory",
        "model": model.cfg.model_name,
        "layers": layers,
        "k": k,
        "gated": [bool(getattr(model.main.config.blocks[one].mlp, "gated", False)) for one in layers],
        "metric": bound.name,
        "unit": bound.unit,
        "base": base,
        "answer": asked.spell(asked.answer[0][0]),
        "foil": asked.spell(asked.foil[0][0]) if asked.foil else None,
        "read": asked.read[0],
        "text": texts,
        "n_random": n_random,
        "seed": seed,
        "exact": True,
        "left_out": _LEFT_OUT + ("" if model.transform is None else _NOT_LINEAR),
    }
    return MLPMemory(pd.concat(fired, ignore_index=True), pd.concat(sets, ignore_index=True), about)


@dataclass
class _Cell:
    """Neurons to be removed at one position."""

    pos: int
    neurons: Tensor


class _Layer:
    """One MLP on one text."""

    def __init__(self, model: HookedTransformer, group: Group, asked: PromptPairs, bound: BoundMetric, layer: int):
        self.model, self.group, self.bound, self.layer, self.asked = model, group, bound, layer, asked
        self.address = f"{model.main.address}blocks.{layer}."
        self.two = bool(group.options)
        paths = ["hook_resid_pre", "mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"]
        names = [self.address + path for path in paths if self.address + path in model.sites]
        logits, self.cache = model.run_with_cache(
            group.tokens, names, unembed_pos=[group.read], unembed_tokens=bound.tokens, **group.options
        )
        if bound.needs_reference:
            self.bound = bound.with_reference(logits[0])
        self.base = float(self.bound.scores(logits[0], torch.zeros(1, dtype=torch.long))[0])
        self.post: Float[Tensor, "pos d_mlp"] = self.cache[self.address + "mlp.hook_post"][0]
        block: Any = model.main.block(layer)
        self.values = _through_output_norm(model, layer, block.mlp.W_out.detach())
        self.norms = block.mlp.W_out.detach().float().norm(dim=1)
        self.act = block.mlp.act

    def look(
        self, places: Sequence[int], texts: Sequence[str], k: int, tokens: int, n_random: int, seed: int
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The tables of single neurons, and of sets."""
        strength = self.post.float().abs() * self.norms
        top = strength.topk(min(k, strength.shape[1]), dim=1).indices
        generator = np.random.default_rng([seed, self.layer, *b"mlp memory"])
        cells: list[_Cell] = []
        for pos in places:
            cells += [_Cell(pos, neuron[None]) for neuron in top[pos]] + [_Cell(pos, top[pos])]
            cells += [_Cell(pos, _matched(strength[pos], top[pos], generator)) for _ in range(n_random)]
        effects = self._removed(cells) - self.base
        each = top.shape[1] + 1 + n_random
        fired, sets = [], []
        for i, pos in enumerate(places):
            own, mine = effects[i * each : (i + 1) * each], cells[i * each : (i + 1) * each]
            n_top = top.shape[1]
            where = {"layer": self.layer, "pos": pos, "text": texts[pos]}
            fired += [{**where, **row} for row in self._keys(pos, top[pos], strength[pos], own[:n_top], tokens)]
            sets.append({**where, **_set(strength[pos], mine[n_top:], own[n_top:])})
        return pd.DataFrame(fired), pd.DataFrame(sets)

    def _keys(self, pos: int, top: Tensor, strength: Tensor, effects: np.ndarray, tokens: int) -> list[dict[str, Any]]:
        written = self.values[top] * self.post[pos, top].to(self.values.dtype)[:, None]
        promoted, suppressed = self._directly(written, tokens)
        gated = self.address + "mlp.hook_pre_linear" in self.cache
        pre = self.cache[self.address + "mlp.hook_pre"][0, pos]
        linear = self.cache[self.address + "mlp.hook_pre_linear"][0, pos] if gated else None
        found = []
        for i, neuron in enumerate(top.tolist()):
            row = {"rank": i + 1, "neuron": neuron, "activation": float(self.post[pos, neuron])}
            row |= {"gate": float(self.act(pre[neuron])) if gated else float("nan")}
            row |= {"up": float(linear[neuron]) if linear is not None else float("nan")}
            row |= {"value_norm": float(self.norms[neuron]), "strength": float(strength[neuron])}
            row |= {"promotes": promoted[i], "suppresses": suppressed[i], "effect": float(effects[i])}
            found.append(row)
        return found

    def _directly(self, written: Tensor, tokens: int) -> tuple[list[list[str]], list[list[str]]]:
        """The tokens that vectors promote and suppress most; none behind a masked-token head, which is not linear."""
        if self.model.transform is not None:
            return [[] for _ in written], [[] for _ in written]
        logits = direct_logits(self.model, written).float()
        tokens = min(tokens, logits.shape[1])
        both = (signed.topk(tokens, dim=1).indices.tolist() for signed in (logits, -logits))
        up, down = ([token_texts(self.model, row) for row in rows] for rows in both)
        return up, down

    def _removed(self, cells: Sequence[_Cell]) -> np.ndarray:
        """The metric with each cell's neurons at zero, many cells in one batch."""
        n_pos, d_mlp = self.post.shape
        step = max(1, _CELL_BYTES // (4 * n_pos * d_mlp))
        return np.concatenate([self._run(cells[i : i + step]) for i in range(0, len(cells), step)])

    def _run(self, cells: Sequence[_Cell]) -> np.ndarray:
        keep = torch.ones(len(cells), *self.post.shape, dtype=torch.bool, device=self.post.device)
        for row, cell in enumerate(cells):
            keep[row, cell.pos, cell.neurons] = False

        def silence(post: Tensor, hook: Any) -> Tensor:
            return post * keep.to(post)

        start = self.cache[self.address + "hook_resid_pre"]
        given, options = (
            (self.group.tokens, self.group.options) if self.two else (start, {"start_at_layer": self.layer})
        )
        many: dict[str, Any] = {
            name: x.expand(len(cells), -1) if isinstance(x, Tensor) else x for name, x in options.items()
        }
        logits = self.model.run_with_hooks(
            given.expand(len(cells), *given.shape[1:]),
            fwd_hooks=[(self.address + "mlp.hook_post", silence)],
            unembed_pos=[self.group.read],
            unembed_tokens=self.bound.tokens,
            **many,
        )[:, 0]
        return self.bound.scores(logits, torch.zeros(len(logits), dtype=torch.long)).double().cpu().numpy()


def _matched(strength: Tensor, top: Tensor, generator: np.random.Generator) -> Tensor:
    """Other neurons that fired, in random order, until their strengths sum to that of the top ones."""
    others: Bool[Tensor, " d_mlp"] = strength > 0
    others[top] = False
    pool = others.nonzero()[:, 0]
    order = pool[torch.from_numpy(generator.permutation(len(pool))).to(pool.device)]
    enough = strength[order].cumsum(0) >= strength[top].sum()
    n = int(enough.float().argmax()) + 1 if bool(enough.any()) else len(order)
    return order[:n]


def _set(strength: Tensor, cells: Sequence[_Cell], effects: np.ndarray) -> dict[str, Any]:
    """The top neurons together, beside random sets of as much strength."""
    random, top = effects[1:], float(strength[cells[0].neurons].sum())
    found: dict[str, Any] = {"neurons": len(cells[0].neurons), "strength": top}
    found["share"] = top / max(float(strength.sum()), 1e-30)
    found["effect"] = float(effects[0])
    if len(random):
        reached = [float(strength[cell.neurons].sum()) for cell in cells[1:]]
        found |= {"random_effect": float(random.mean()), "random_low": float(random.min())}
        found |= {"random_high": float(random.max()), "random_strength": float(np.mean(reached))}
        found["random_neurons"] = float(np.mean([len(cell.neurons) for cell in cells[1:]]))
        found["p"] = float((1 + (np.abs(random) >= abs(effects[0])).sum()) / (1 + len(random)))
    return found


def _through_output_norm(model: HookedTransformer, layer: int, W_out: Tensor) -> Float[Tensor, "d_mlp d_model"]:
    """Values as they reach the residual stream: behind an output norm's gain, up to its scale."""
    block, config = model.main.block(layer), model.main.config.blocks[layer]
    if config.norms not in ("output", "both") or config.norm.kind == "none":
        return W_out
    norm: Any = getattr(block, f"ln{len(type(block).sublayers)}_post")
    W_out = W_out - W_out.mean(-1, keepdim=True) if norm.config.kind == "layer" else W_out
    return (W_out * norm.gain.detach()).to(W_out.dtype)


def _layers(model: HookedTransformer, layer: int | Sequence[int]) -> list[int]:
    blocks = model.main.config.blocks
    given = [layer] if isinstance(layer, int) else list(layer) if isinstance(layer, Sequence) else [layer]
    if wrong := [one for one in given if isinstance(one, bool) or not isinstance(one, int)]:
        raise InputError(f"layer is {wrong[0]!r}. Give a layer's number, or a list of them.")
    found = [one + len(blocks) if one < 0 else one for one in given]
    if not found:
        raise InputError("There are no layers. Give one, or a list of them.")
    for one in found:
        if not 0 <= one < len(blocks):
            raise InputError(f"There is no layer {one}; this model has 0 to {len(blocks) - 1}.")
        if blocks[one].mlp is None:
            raise InputError(f"Layer {one} of this model has no MLP. Choose a layer that has one.")
    return found


def _positions(positions: Sequence[int], n_pos: int) -> list[int]:
    given = list(positions) if isinstance(positions, Sequence) and not isinstance(positions, str) else [positions]
    if not given:
        raise InputError("There are no positions. Give some, or None for all.")
    return [_position(one, n_pos) for one in given]  # type: ignore[arg-type]


def _position(pos: int, n_pos: int) -> int:
    if isinstance(pos, bool) or not isinstance(pos, int) or not -n_pos <= pos < n_pos:
        raise InputError(f"There is no position {pos!r}; this text has 0 to {n_pos - 1}.")
    return pos % n_pos


def _bound(model: HookedTransformer, asked: PromptPairs, metric: Any) -> BoundMetric:
    name = metric if metric is not None else "logit_diff" if asked.foil else "log_prob"
    bound = bind_metric(name, asked, n_vocab=model.cfg.d_vocab, device=model.device)
    if len(bound.rows) != 1 or bound.rows[0].continuation or len(bound.rows[0].reads) != 1:
        raise InputError(
            "A memory is judged at one position, and this answer has several tokens. Give its first token."
        )
    return bound
