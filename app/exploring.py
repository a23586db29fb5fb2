"""What a model says of a prompt, token by token: how surprised it was, and what it expects behind each."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from app import models
from interp.errors import InputError
from interp.model.transformer import HookedTransformer

__all__ = ["PRESETS", "TOP", "Preset", "Reading", "expected", "named_tokens", "read_through", "reading_frame"]

TOP = 10  # likeliest tokens shown
_CHUNK = 64  # positions whose logits are held at once


@dataclass(frozen=True)
class Preset:
    """A prompt with its answer and foil; `corrupt` is the prompt that leads to `corrupt_foil` instead, as long in
    tokens, for the Patching page."""

    prompt: str
    answer: str
    foil: str
    corrupt: str
    corrupt_foil: str


_LIST = "The apple, the river, the stone, the cloud, the {}. The apple, the river, the stone, the cloud, the"
_GIFT = "When Mary and John went to the store, {} gave a drink to"
_HELP = "The {} told the {} that {} would help, and {} thanked"
PRESETS = {
    "IOI": Preset(_GIFT.format("John"), "Mary", "John", _GIFT.format("Mary"), "John"),
    "capital of France": Preset("The capital of France is", "Paris", "London", "The capital of England is", "London"),
    "repeated tokens": Preset(_LIST.format("lamp"), "lamp", "apple", _LIST.format("desk"), "desk"),
    "pronoun": Preset(
        _HELP.format("king", "queen", "he", "she"), "him", "her", _HELP.format("queen", "king", "she", "he"), "her"
    ),
    "agreement": Preset("The keys to the cabinet", "are", "is", "The key to the cabinet", "is"),
}


@dataclass(frozen=True)
class Reading:
    """A prompt once through a model: `surprisal` of each token in nats given those before it, None for the first;
    `entropy` of what is expected behind each, in nats; the last residual, from which the logits of any place follow."""

    tokens: tuple[str, ...]
    surprisal: tuple[float | None, ...]
    entropy: tuple[float, ...]
    likeliest: tuple[int, ...]
    residual: Tensor


@torch.no_grad()
def read_through(model: HookedTransformer, prompt: models.ReadPrompt) -> Reading:
    """One forward pass; logits are held for a few positions at a time. Raises `InputError` for a model that predicts
    no next token."""
    if model.decoder is None:
        raise InputError(
            f"{model.cfg.model_name} is an encoder, which predicts no next token. Choose a decoder here; the Head page "
            "shows this model's attention."
        )
    ids = torch.tensor([prompt.ids], device=model.device)
    residual = model(ids, stop_at_layer=model.cfg.n_layers)
    surprisal: list[float | None] = [None]
    entropy, likeliest = [], []
    for first in range(0, len(prompt.ids), _CHUNK):
        places = list(range(first, min(first + _CHUNK, len(prompt.ids))))
        said = _log_probs(model, residual, places)
        entropy += (-(said.exp() * said).nan_to_num().sum(-1)).tolist()
        likeliest += said.argmax(-1).tolist()
        with_next = places if places[-1] + 1 < len(prompt.ids) else places[:-1]
        surprisal += [-float(said[i, prompt.ids[place + 1]]) for i, place in enumerate(with_next)]
    return Reading(tuple(prompt.tokens), tuple(surprisal), tuple(entropy), tuple(likeliest), residual.cpu())


def _log_probs(model: HookedTransformer, residual: Tensor, places: list[int]) -> Tensor:
    return _logits(model, residual, places).log_softmax(-1)


def _logits(model: HookedTransformer, residual: Tensor, places: list[int]) -> Tensor:
    start = model.cfg.n_layers
    return model(residual.to(model.device), start_at_layer=start, unembed_pos=places)[0].float()


@torch.no_grad()
def expected(model: HookedTransformer, reading: Reading, pos: int, n: int = TOP) -> pd.DataFrame:
    """The `n` tokens likeliest behind a place: `rank`, `id`, `token`, `probability`, `logit`."""
    logits = _logits(model, reading.residual, [pos])[0]
    best = logits.topk(min(n, len(logits))).indices.tolist()
    return _rows(model, logits, best)


@torch.no_grad()
def named_tokens(model: HookedTransformer, reading: Reading, pos: int, named: dict[str, int]) -> pd.DataFrame:
    """Some tokens behind a place, one row each, with what each is called: `role`, and the columns of `expected`."""
    logits = _logits(model, reading.residual, [pos])[0]
    rows = _rows(model, logits, list(named.values()))
    rows.insert(0, "role", list(named))
    return rows


def _rows(model: HookedTransformer, logits: Tensor, ids: list[int]) -> pd.DataFrame:
    probs = logits.softmax(-1)
    tokens = [model.to_single_str_token(one) for one in ids]
    ranks = [int((logits > logits[one]).sum()) + 1 for one in ids]
    columns = {"rank": ranks, "id": ids, "token": tokens}
    return pd.DataFrame(
        {**columns, "probability": [float(probs[one]) for one in ids], "logit": [float(logits[one]) for one in ids]}
    )


def reading_frame(model: HookedTransformer, reading: Reading) -> pd.DataFrame:
    """One row a token: what it was, how surprising, and what was likeliest behind it."""
    surprisal = [float("nan") if one is None else one for one in reading.surprisal]
    return pd.DataFrame(
        {
            "pos": range(len(reading.tokens)),
            "token": reading.tokens,
            "surprisal": surprisal,
            "entropy": reading.entropy,
            "likeliest_next": [model.to_single_str_token(one) for one in reading.likeliest],
        }
    )
