"""Comparing a model with the transformers library's own, tensor by tensor; nothing here knows a family.

A live model has eager attention and random parameters, gains and biases too, so that none can be lost unseen.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import interp
from interp.model.transformer import HookedTransformer

__all__ = ["LEFT", "RIGHT", "TOLERANCE", "Row", "differences", "folder_apart", "sample_tokens", "steps_apart"]

TOLERANCE = 1e-4
N_POS = 11
RIGHT = torch.tensor([[1] * 11, [1] * 7 + [0] * 4, [1] * 3 + [0] * 8])
LEFT = RIGHT.flip(1)
_SHARP = ("q_proj", "k_proj", "qkv", "query_key_value", "c_attn")  # so that patterns are far from uniform


@dataclass(frozen=True)
class Row:
    """One tiny model: the library's config class (without `Config`), its head class, and what the config says."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    head: str = "ForCausalLM"

    def live(self) -> Any:
        import transformers

        config = getattr(transformers, f"{self.kind}Config")(**self.values)
        model_class = getattr(transformers, self.kind.removesuffix("Text") + self.head)
        model = model_class._from_config(config, attn_implementation="eager").eval()
        return randomized(model)


@torch.no_grad()
def randomized(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.add_(0.3 * noise)
        else:
            embeds = parameter.shape == model.get_input_embeddings().weight.shape
            sharp = 1.7 if any(part in name for part in _SHARP) else 0.8
            parameter.copy_(0.5 * noise if embeds else sharp / parameter.shape[1] ** 0.5 * noise)
    return model


def sample_tokens(n_rows: int, d_vocab: int, n_pos: int = N_POS) -> Tensor:
    return torch.randint(0, d_vocab, (n_rows, n_pos), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def differences(live: Any, model: HookedTransformer, tokens: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """The largest difference of logits, of the residual entering each layer and leaving the last, and of patterns, at
    real tokens."""
    theirs = _their_outputs(live, tokens, mask)
    bools = None if mask is None else mask.bool()
    logits, cache = model.run_with_cache(tokens, attention_mask=bools)
    real = torch.ones_like(tokens, dtype=torch.bool) if bools is None else bools
    n_layers = model.cfg.n_layers
    assert len(theirs.hidden_states) == n_layers + 1 and len(theirs.attentions) == n_layers
    found = {"logits": _apart(theirs.logits[real], logits[real])}
    for layer in range(n_layers):
        found[f"resid_pre.{layer}"] = _apart(theirs.hidden_states[layer][real], cache["resid_pre", layer][real])
        pattern = cache["pattern", layer].movedim(1, 2)[real]
        found[f"pattern.{layer}"] = _apart(theirs.attentions[layer].movedim(1, 2)[real], pattern)
    last = model.only.finish(cache["resid_post", n_layers - 1], _no_taps())
    found["final"] = _apart(theirs.hidden_states[-1][real], last[real])
    return found


def _their_outputs(live: Any, tokens: Tensor, mask: Tensor | None) -> Any:
    options: dict[str, Any] = {"attention_mask": mask}
    if mask is not None and "position_ids" in inspect.signature(live.forward).parameters:
        options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)  # most families count padding otherwise
    return live(tokens, output_hidden_states=True, output_attentions=True, use_cache=False, **options)


@torch.no_grad()
def steps_apart(model: HookedTransformer, tokens: Tensor, mask: Tensor | None = None) -> float:
    """The largest difference between logits of a text at once and in pieces over stored keys."""
    bools = None if mask is None else mask.bool()
    whole = model(tokens, attention_mask=bools)
    real = torch.ones_like(tokens, dtype=torch.bool) if bools is None else bools
    first = 4 if bool(real[:, :4].any(1).all()) else 9  # a piece of padding alone is refused
    cuts = [0, *(cut for cut in (4, 5, 9, 10) if cut >= first), tokens.shape[1]]
    pieces, past = [], None
    for start, stop in pairwise(cuts):
        piece = None if bools is None else bools[:, start:stop]
        logits, past = model.extend(tokens[:, start:stop], past=past, attention_mask=piece)
        pieces.append(logits)
    return _apart(whole[real], torch.cat(pieces, dim=1)[real])


@torch.no_grad()
def folder_apart(live: Any, model: HookedTransformer, tokens: Tensor, folder: Path) -> float:
    """The largest difference between logits of a live model and of the folder that it saved; their configs are
    equal."""
    live.save_pretrained(folder)
    back = interp.load(folder)
    assert replace(back.cfg, model_name="") == replace(model.cfg, model_name="")
    return _apart(model(tokens), back(tokens))


def _apart(a: Tensor, b: Tensor) -> float:
    """In units of the larger of 1 and the largest entry: residuals of some families run into the hundreds."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).abs().max()) / max(1.0, float(a.abs().max()))


def _no_taps() -> Any:
    from interp.model.taps import NO_TAPS

    return NO_TAPS
