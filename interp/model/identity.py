"""Which model it is: a hash of its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from interp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["model_hash"]

_LABELS = ("model_name", "family")  # of a config: nothing is computed from them
_CHUNK = 4 << 20  # values; large tensors are split, so that threads share the embedding too


def model_hash(model: Any) -> str:
    """SHA-256 over a `HookedTransformer`'s config and the bytes of its parameters, as 64 hexadecimal digits.

    The same weights give the same hash, wherever they were loaded from and on whatever device; another dtype is
    another model. Names for people (`model_name`, `family`) and the tokenizer do not count. Reads every weight once:
    half a second for 135M parameters in float32 on two cores.
    """
    config = {name: value for name, value in model.cfg.to_dict().items() if name not in _LABELS}
    digests: dict[str, list[bytes]] = {}
    shapes: dict[str, tuple[str, list[int]]] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashlib lets go of the interpreter lock
        for parameters in _in_memory_together(model):
            if any(parameter.is_meta for parameter in parameters.values()):
                raise InputError("A model on the meta device has no weights to hash. Load it first.")
            chunks = [(name, part) for name, parameter in parameters.items() for part in _chunks(parameter)]
            for (name, _), digest in zip(chunks, pool.map(_digest, (part for _, part in chunks)), strict=True):
                digests.setdefault(name, []).append(digest)
            shapes |= {name: (str(one.dtype), list(one.shape)) for name, one in parameters.items()}
    whole = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(digests):
        for digest in digests[name]:
            whole.update(name.encode() + b"\0" + digest)
    for name in sorted(shapes):
        whole.update(json.dumps((name, *shapes[name])).encode())
    return whole.hexdigest()


def _in_memory_together(model: Any) -> Iterator[dict[str, Tensor]]:
    """Parameters by name, a tied one once: all of them, or one by one where they do not lie together."""
    if hasattr(model, "stored_weights"):
        yield from ({name: weight} for name, weight in model.stored_weights())
    else:
        yield dict(model.named_parameters())


def _chunks(parameter: Tensor) -> tuple[Tensor, ...]:
    return parameter.detach().reshape(-1).split(_CHUNK)


def _digest(part: Tensor) -> bytes:
    import torch

    return hashlib.sha256(part.cpu().contiguous().view(torch.uint8).numpy().data).digest()
