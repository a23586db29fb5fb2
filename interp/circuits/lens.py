"""What the residual stream would predict if the model stopped at each layer: the logit lens and the tuned lens.

The logit lens (nostalgebraist 2020) norms the residual of each layer with the final norm and unembeds it; the tuned
lens (Belrose 2023) first maps it by an affine translator that was trained for that layer. Logits are made for a slice
of the vocabulary at a time and reduced on the spot, so that `[layer pos d_vocab]` is never held, nor even one layer of
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.circuits.prompts import Group, groups, one_token, prompts, token_texts
from interp.circuits.tuned import TunedLens
from interp.errors import InputError
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results.lens import Lens

__all__ = ["Reduced", "layer_residuals", "lens", "reduce_logits"]

_BYTES = 32 << 20  # of one slice of logits; a handful of such slices live at a time
_LEFT_OUT = {
    "logit": "The logit lens reads early layers in the basis of the last one: what it cannot read there may be present "
    "all the same, and what it reads need not be used.",
    "tuned": "A tuned lens was trained to predict the last layer, so it shows what can be decoded by an affine map of "
    "its training texts' kind, not what the model uses; it may know more than the layer does.",
}


@torch.no_grad()
def lens(
    model: HookedTransformer,
    text: Any,
    *,
    kind: Literal["logit", "tuned"] = "logit",
    lens: TunedLens | None = None,
    pins: Any = (),
    k: int = 5,
    decoder: Any = None,
    max_bytes: int = _BYTES,
) -> Lens:
    """For each layer and position the `k` likeliest tokens with their probability, the entropy (nats), the divergence
    KL(final ‖ layer) from the model's own prediction (nats), and the rank, probability and logit of each pinned token.

    `text`: a text, texts, token ids, or PromptPairs (their clean prompts). Layer l is the residual that enters layer l
    (0: the embeddings); the last one, n_layers, gives the model's own logits, softcap included. `pins`: texts or ids
    that are one token each; a text without leading white space gets a space where the tokenizer has it as one token.
    Rank 1 is the likeliest; ties count as one rank. `kind="tuned"` needs `lens=`, a TunedLens of this very model.
    `decoder` is what the decoder of an encoder-decoder has read. `max_bytes` bounds a slice of logits. Cost: one pass,
    and n_layers + 1 unembeddings.
    """
    if kind not in ("logit", "tuned"):
        raise InputError(f'kind is {kind!r}. Choose "logit" or "tuned".')
    if (kind == "tuned") != (lens is not None):
        what = "A tuned lens has to be given: lens=interp.TunedLens.load(folder) or .fit(model, texts)."
        raise InputError(what if lens is None else 'A lens was given but kind is "logit". Say kind="tuned".')
    model.need_unembed()
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= model.cfg.d_vocab:
        raise InputError(f"k is {k!r}. Give a number of tokens from 0 to {model.cfg.d_vocab}.")
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise InputError(f"max_bytes is {max_bytes!r}. Give the size of a slice of logits, 1 or more.")
    if lens is not None:
        lens.must_fit(model)
    pairs = _texts(model, text, decoder)
    pinned = _pin_ids(model, pairs, pins)
    tables: dict[str, list[pd.DataFrame]] = {"frame": [], "tokens": [], "pins": []}
    for group in groups(model, pairs):
        resid = layer_residuals(model, group)
        normed = _normed(model, resid, lens)
        found = reduce_logits(model, normed, pins=list(pinned.values()), k=k, max_bytes=max_bytes)
        for name, table in _tables(model, pairs, group, found, list(pinned)).items():
            tables[name].append(table)
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    joined = {name: one.sort_values("prompt", kind="stable", ignore_index=True) for name, one in joined.items()}
    about = {
        "method": f"{kind} lens",
        "model": model.cfg.model_name,
        "n_layers": model.main.config.n_layers,
        "pins": {name: token for name, token in pinned.items()},
        "k": k,
        "lens": None if lens is None else dict(lens.about),
        "left_out": _LEFT_OUT[kind] if lens is None else f"{_LEFT_OUT[kind]} {lens.convergence}",
    }
    return Lens(joined["frame"], joined["tokens"], joined["pins"], about)


def layer_residuals(model: HookedTransformer, group: Group) -> Float[Tensor, "layer batch pos d_model"]:
    """The residual entering each layer, and the one after the last."""
    address, n = model.main.address, model.main.config.n_layers
    names = [f"{address}blocks.{layer}.hook_resid_pre" for layer in range(n)]
    names.append(f"{address}blocks.{n - 1}.hook_resid_post")
    _, cache = model.run_with_cache(group.tokens, names, unembed_pos=[0], unembed_tokens=[0], **group.options)
    return torch.stack([cache[name] for name in names])


@dataclass
class Reduced:
    """What is kept of logits `[row d_vocab]`, row by row."""

    lse: Float[Tensor, " row"]  # log of the sum of exponentials: the normaliser
    entropy: Float[Tensor, " row"]
    kl: Float[Tensor, " row"]  # KL(reference row ‖ row)
    top: Float[Tensor, "row k"]  # logits of the likeliest tokens
    tokens: Int[Tensor, "row k"]
    pins: Float[Tensor, "row pin"]
    ranks: Int[Tensor, "row pin"]


@torch.no_grad()
def reduce_logits(
    model: HookedTransformer,
    normed: Float[Tensor, "layer row d_model"],
    *,
    pins: Sequence[int] = (),
    k: int = 5,
    max_bytes: int = _BYTES,
) -> list[Reduced]:
    """Per layer the reductions of its logits over the whole vocabulary; the last layer is what KL compares with.

    Two sweeps over slices of the vocabulary: the reference's normalisers first, then everything. Both are also cut over
    rows, so that no slice of logits is larger than `max_bytes`.
    """
    vocabulary = _Vocabulary(model)
    d_vocab, item = vocabulary.size, torch.finfo(model.dtype).bits // 8
    width = max(1, min(d_vocab, max(1024, max_bytes // (item * normed.shape[1]))))
    rows = max(1, max_bytes // (item * width))
    parts = [_reduced(vocabulary, normed[:, i : i + rows], pins, k, width) for i in range(0, normed.shape[1], rows)]
    return [_joined([part[layer] for part in parts]) for layer in range(len(normed))]


class _Vocabulary:
    """The unembedding, a slice at a time."""

    def __init__(self, model: HookedTransformer):
        self.model, self.unembed = model, model.need_unembed()
        self.size = len(self.unembed.weight)

    def slices(self, width: int) -> Iterator[tuple[int, int]]:
        return ((start, min(start + width, self.size)) for start in range(0, self.size, width))

    def logits(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Of the tokens from `start` up to `stop`, at least float32."""
        return self._finished(x, self.unembed.weight[start:stop], slice(start, stop))

    def of(self, x: Tensor, tokens: Sequence[int]) -> Tensor:
        return self._finished(x, self.unembed.weight[list(tokens)], list(tokens))

    def _finished(self, x: Tensor, weight: Tensor, which: Any) -> Tensor:
        cfg = self.model.cfg
        bias = None if self.unembed.bias is None else self.unembed.bias[which]
        logits = nn.functional.linear(x, weight, bias) * cfg.logit_scale
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits if cfg.logit_softcap is None else cfg.logit_softcap * torch.tanh(logits / cfg.logit_softcap)


@dataclass
class _Running:
    """Sums over the slices so far; exponentials are taken behind the largest logit so far."""

    largest: Tensor
    total: Tensor
    weighted: Tensor  # Σ e^(l − largest) · l
    cross: Tensor  # Σ p_reference · (l_reference − l)
    top: Tensor
    tokens: Tensor
    above: Tensor  # tokens with a larger logit than each pin
    pins: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def start(cls, x: Tensor, pins: Tensor, k: int) -> _Running:
        zero = pins.new_zeros(len(x))
        none = pins.new_full((len(x), 0), 0.0)
        top, tokens = none, none.long()
        above = torch.zeros_like(pins, dtype=torch.long)
        return cls(torch.full_like(zero, -torch.inf), zero, zero, zero, top, tokens, above, pins)

    def add(self, logits: Tensor, start: int, pin_ids: Tensor, k: int) -> None:
        largest = torch.maximum(self.largest, logits.amax(1))
        kept, new = (self.largest - largest).exp(), (logits - largest[:, None]).exp()
        self.total = self.total * kept + new.sum(1)
        self.weighted = self.weighted * kept + (new * logits).sum(1)
        self.largest = largest
        if k:
            top, index = logits.topk(min(k, logits.shape[1]), dim=1)
            both, ids = torch.cat([self.top, top], 1), torch.cat([self.tokens, index + start], 1)
            self.top, place = both.topk(min(k, both.shape[1]), dim=1)
            self.tokens = ids.gather(1, place)
        for i, pin in enumerate(pin_ids.tolist()):
            larger = logits > self.pins[:, i, None]
            if start <= pin < start + logits.shape[1]:
                larger[:, pin - start] = False  # its own logit, perhaps rounded differently
            self.above[:, i] += larger.sum(1)


def _reduced(vocabulary: _Vocabulary, normed: Tensor, pins: Sequence[int], k: int, width: int) -> list[Reduced]:
    final = normed[-1]
    reference = None
    for start, stop in vocabulary.slices(width):
        lse = vocabulary.logits(final, start, stop).logsumexp(1)
        reference = lse if reference is None else torch.logaddexp(reference, lse)
    assert reference is not None
    pin_ids = torch.tensor(list(pins), dtype=torch.long)
    empty = reference.new_zeros(len(final), 0)
    running = [_Running.start(x, vocabulary.of(x, pins) if len(pins) else empty, k) for x in normed]
    for start, stop in vocabulary.slices(width):
        target = vocabulary.logits(final, start, stop)
        p = (target - reference[:, None]).exp()
        for x, one in zip(normed, running, strict=True):
            logits = vocabulary.logits(x, start, stop)
            one.add(logits, start, pin_ids, k)
            one.cross = one.cross + (p * (target - logits)).sum(1)
    return [_finished(one, reference) for one in running]


def _finished(one: _Running, reference: Tensor) -> Reduced:
    lse = one.largest + one.total.log()
    entropy, kl = lse - one.weighted / one.total, one.cross - reference + lse
    return Reduced(lse, entropy.clamp(min=0), kl.clamp(min=0), one.top, one.tokens, one.pins, one.above + 1)


def _joined(parts: list[Reduced]) -> Reduced:
    return Reduced(*(torch.cat([getattr(part, name) for part in parts]) for name in Reduced.__dataclass_fields__))


def _normed(model: HookedTransformer, resid: Tensor, lens: TunedLens | None) -> Float[Tensor, "layer row d_model"]:
    """Residuals as the unembedding reads them: translated where a lens is given, then normed (and through a
    masked-token head, where there is one)."""
    found = []
    for layer, x in enumerate(resid.flatten(1, 2)):
        x = x if lens is None else lens.translate(x, layer)
        x = model.main.finish(x[None], NO_TAPS)
        found.append((x if model.transform is None else model.transform(x))[0])
    return torch.stack(found)


def _texts(model: HookedTransformer, text: Any, decoder: Any) -> PromptPairs:
    """The texts as prompts; which position is read, and with what answer, plays no part."""
    if isinstance(text, PromptPairs):
        return text
    read = 0 if model.cfg.decoder is None else None
    return prompts(model, text, answer=0, read=read, decoder=decoder)


def _pin_ids(model: HookedTransformer, pairs: PromptPairs, pins: Any) -> dict[str, int]:
    """Label -> token id."""
    given = [pins] if isinstance(pins, str | int) or not isinstance(pins, Iterable) else list(pins)
    found: dict[str, int] = {}
    rows = pairs.clean_decoder or pairs.clean
    for one in given:
        before = model._need_tokenizer().decode(list(rows[0])) if isinstance(one, str) else ""
        token = one_token(model, one, "The pin", before)
        (label,) = token_texts(model, [token])
        if found.get(label, token) != token:  # two tokens that read alike, as halves of a character do
            label = f"{label} ({token})"
        found[label] = token
    return found


def _tables(
    model: HookedTransformer, pairs: PromptPairs, group: Group, found: list[Reduced], pins: list[str]
) -> dict[str, pd.DataFrame]:
    """Long tables of one group: per place, per likely token, per pin."""
    rows = pairs.clean_decoder or pairs.clean
    n_rows, n_pos = len(group.prompts), len(rows[group.prompts[0]])
    texts = [token_texts(model, list(rows[i])) for i in group.prompts]
    place = {
        "prompt": np.repeat(list(group.prompts), n_pos),
        "pos": np.tile(np.arange(n_pos), n_rows),
        "text": np.array([one for row in texts for one in row], dtype=object),
    }
    frames, tokens, pinned = [], [], []
    for layer, one in enumerate(found):
        here = {name: values for name, values in place.items()}
        frames.append(pd.DataFrame({**here, "layer": layer, "entropy": _np(one.entropy), "kl": _np(one.kl)}))
        k, n_pins = one.top.shape[1], one.pins.shape[1]
        table = {name: np.repeat(values, k) for name, values in here.items()} | {"layer": layer}
        ids = one.tokens.flatten().tolist()
        table |= {"rank": np.tile(np.arange(1, k + 1), len(one.lse)), "token_id": ids}
        table["token"] = np.array(token_texts(model, ids), dtype=object)
        tokens.append(pd.DataFrame({**table, **_likelihood(one.top, one.lse)}))
        table = {name: np.repeat(values, n_pins) for name, values in here.items()} | {"layer": layer}
        table |= {"pin": np.tile(np.array(pins, dtype=object), len(one.lse)), "rank": _np(one.ranks).ravel()}
        pinned.append(pd.DataFrame({**table, **_likelihood(one.pins, one.lse)}))
    parts = {"frame": frames, "tokens": tokens, "pins": pinned}
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _likelihood(logits: Tensor, lse: Tensor) -> dict[str, np.ndarray]:
    return {"prob": _np((logits - lse[:, None]).exp()).ravel(), "logit": _np(logits).ravel()}


def _np(x: Tensor) -> np.ndarray:
    return x.cpu().numpy() if not x.is_floating_point() else x.double().cpu().numpy()
