"""How a tuned lens is trained: each layer by itself, what is finished kept, and how far it came measured.

x ↦ x + x·A·B + b is trained from the identity (or from a lens that was fitted before) by Adam on KL(final ‖ lens).
Layers share nothing but the target, so each that is finished can be kept and need not be trained again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import InputError
from interp.files import write_atomically
from interp.model.identity import model_hash
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

__all__ = ["CONVERGED", "Progress", "Translators", "fit_translators"]

METHOD = 1  # raised whenever the same call would give other numbers
CONVERGED = 0.02  # of what the steps gained altogether: less than this in their second half is converged
_BYTES = 32 << 20  # of logits at once
Progress = Callable[[str, int, int], None] | None
Translators = tuple[Tensor, Tensor, Tensor]  # A, B and b of one layer, or of all


def fit_translators(
    model: HookedTransformer,
    texts: Sequence[Any],
    given: dict[str, Any],
    *,
    start: tuple[Translators, dict[str, Any]] | None,
    keep: Any,
    progress: Progress,
) -> tuple[Translators, dict[str, Any]]:
    """A, B and b of all layers, and what is known of them: see `TunedLens.fit`."""
    settings = _checked(model, given)
    held_out, seed, n_tokens = settings["held_out"], settings["seed"], settings["n_tokens"]
    train, test = _split(_rows(model, texts), held_out, seed)
    content = model_hash(model)
    kept = _Kept.of(keep, {"model": content, "settings": settings, "train": train}, None if start is None else start[0])
    resid, unseen = (_residuals(model, part, n) for part, n in ((train, n_tokens), (test, max(n_tokens // 8, 1))))
    end, halfway = _train(model, resid, settings, None if start is None else start[0], kept, progress)
    steps = settings["steps"] + (0 if start is None else start[1].get("steps_in_all", 0))
    about = {
        "method": "tuned lens",
        "model": model.cfg.model_name,
        "model_hash": content,
        "settings": settings,
        "steps_in_all": steps,
        "tokens": {"train": resid.shape[1], "held_out": unseen.shape[1]},
        "texts": {"train": len(train), "held_out": len(test)},
        "kl": {
            "before": _divergences(model, unseen, None),
            "halfway": _divergences(model, unseen, halfway),
            "after": _divergences(model, unseen, end),
        },
    }
    return end, about


def _checked(model: HookedTransformer, found: dict[str, Any]) -> dict[str, Any]:
    """The settings, or `InputError`."""
    model.need_unembed()
    least = {"rank": 1, "steps": 0, "batch": 1, "n_tokens": 2, "n_vocab": 2, "seed": 0}
    for name, low in least.items():
        value = found[name]
        if value is None and name in ("rank", "n_vocab"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"{name} is {value!r}. Give a whole number, {low} or more.")
    if not 0 < found["held_out"] < 1 or not found["lr"] > 0:
        raise InputError(f"held_out is {found['held_out']!r} and lr {found['lr']!r}. Give a share, and a rate above 0.")
    if model.encoder is not None and model.decoder is not None:
        raise InputError("A tuned lens is fitted to one text; this model reads two. The logit lens takes decoder=.")
    return found


def _rows(model: HookedTransformer, texts: Sequence[Any]) -> list[list[int]]:
    """Texts as tokens, cut to what the model reads; those of fewer than two tokens are left out."""
    if isinstance(texts, str) or not len(texts):
        raise InputError("A tuned lens is fitted to several texts, some of them held out. Give a list of texts.")
    if isinstance(texts[0], str):
        rows = [model._need_tokenizer().encode(text, prepend_bos=None) for text in texts]
    else:
        rows = [[int(token) for token in row] for row in texts]
        wrong = next((one for row in rows for one in row if not 0 <= one < model.cfg.d_vocab), None)
        if wrong is not None:
            raise InputError(f"A text holds the token {wrong}; this vocabulary has ids 0 to {model.cfg.d_vocab - 1}.")
    return [list(row[: model.cfg.n_ctx]) for row in rows if len(row) > 1]


def _split(rows: list[list[int]], held_out: float, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Whole texts to train on, and others to measure on."""
    if len(rows) < 2:
        raise InputError(f"There are {len(rows)} texts of two tokens or more. Give at least two: one is held out.")
    order = np.random.default_rng([seed, *b"tuned lens"]).permutation(len(rows))
    n_test = min(max(1, round(held_out * len(rows))), len(rows) - 1)
    shuffled = [rows[i] for i in order]
    return shuffled[n_test:], shuffled[:n_test]


@torch.no_grad()
def _residuals(model: HookedTransformer, rows: list[list[int]], limit: int) -> Float[Tensor, "layer token d_model"]:
    """Residuals entering each layer and behind the last, of about equally many tokens of each text."""
    address, n = model.main.address, model.main.config.n_layers
    names = [f"{address}blocks.{i}.hook_resid_pre" for i in range(n)] + [f"{address}blocks.{n - 1}.hook_resid_post"]
    share, found, held = -(-limit // len(rows)), [], 0
    for row in sorted(rows, key=len):
        left = max(share, -(-(limit - held) // max(1, len(rows) - len(found))))
        tokens = torch.tensor([row[: left + 1]], device=model.device)
        _, cache = model.run_with_cache(tokens, names, unembed_pos=[0], unembed_tokens=[0])
        found.append(torch.stack([cache[name][0, 1:] for name in names]))
        held += found[-1].shape[1]
        if held >= limit:
            break
    return torch.cat(found, dim=1)[:, :limit]


def _train(
    model: HookedTransformer,
    resid: Float[Tensor, "layer token d_model"],
    settings: dict[str, Any],
    start: Translators | None,
    kept: _Kept,
    progress: Progress,
) -> tuple[Translators, Translators]:
    """Translators of all layers as they are in the end and halfway there, one layer after the other."""
    n_layers = len(resid) - 1
    target = None
    ends, halves = [], []
    if progress is not None:
        progress("fitting the lens", 0, n_layers)
    for layer in range(n_layers):
        found = kept.get(layer, settings["rank"] or resid.shape[2])
        if found is None:
            target = _Target.of(model, resid[-1], settings["n_vocab"]) if target is None else target
            own = None if start is None else tuple(one[layer] for one in start)
            found = _fit_layer(model, _wide(resid[layer]), target, settings, layer, own)  # type: ignore[arg-type]
            kept.put(layer, found)
        ends.append(found[0])
        halves.append(found[1])
        if progress is not None:
            progress("fitting the lens", layer + 1, n_layers)
    device = resid.device
    stacked = [tuple(torch.stack(parts).to(device) for parts in zip(*one, strict=True)) for one in (ends, halves)]
    return stacked[0], stacked[1]  # type: ignore[return-value]


def _fit_layer(
    model: HookedTransformer,
    x: Tensor,
    target: _Target,
    settings: dict[str, Any],
    layer: int,
    start: Translators | None,
) -> tuple[Translators, Translators]:
    """One translator, in the end and halfway. It is trained from and to coordinates of unit spread, and the spread is
    put into A, B and b afterwards: residual streams have a few coordinates a hundred times the size of others, and one
    rate serves all only when they are even."""
    spread, centre = x.std(0).clamp(min=1e-6), x.mean(0)
    generator = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + layer)
    d_model, rank = x.shape[1], settings["rank"] or x.shape[1]
    full, steps = rank >= d_model, settings["steps"]
    A, B, b = _begin(x, spread, centre, rank, generator, start)
    trained = [one.requires_grad_() for one in ((B, b) if full else (A, B, b))]
    scaled, rate = (x - centre) / spread, settings["lr"] / (d_model**0.5 if full else 1.0)
    optimizer = torch.optim.Adam(trained, lr=rate)
    halfway = None
    with torch.enable_grad():
        for step in range(steps):
            if 2 * step >= steps and halfway is None:
                halfway = _finished(A, B, b, spread, centre)
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            rows = torch.randint(len(x), (min(settings["batch"], len(x)),), generator=generator).to(x.device)
            moved = x[rows] + spread * ((scaled[rows] @ A) @ B + b)
            loss = target.divergence(model, moved.to(model.dtype), rows, generator)
            grads = torch.autograd.grad(loss, trained)  # the model's own parameters get none
            for one, grad in zip(trained, grads, strict=True):
                one.grad = grad
            optimizer.step()
    end = _finished(A, B, b, spread, centre)
    return end, end if halfway is None else halfway


def _begin(
    x: Tensor, spread: Tensor, centre: Tensor, rank: int, generator: torch.Generator, start: Translators | None
) -> Translators:
    """A, B and b in even coordinates: nothing is added yet, or what an earlier lens adds."""
    d_model = x.shape[1]
    if start is not None:
        A, B, b = (one.detach().to(x) for one in start)
        return A * spread[:, None], B / spread, (b + (centre @ A) @ B) / spread
    if rank >= d_model:
        A = torch.eye(d_model, dtype=x.dtype)
    else:  # as LoRA starts: the product is 0, its gradient is not
        A = torch.randn(d_model, rank, generator=generator, dtype=x.dtype) / d_model**0.5
    return A.to(x.device), x.new_zeros(min(rank, d_model), d_model), x.new_zeros(d_model)


def _finished(A: Tensor, B: Tensor, b: Tensor, spread: Tensor, centre: Tensor) -> Translators:
    """As the residual itself is read and written: the inverse of what `_begin` does."""
    A, B, b = A.detach() / spread[:, None], B.detach() * spread, b.detach() * spread
    return A, B, b - (centre @ A) @ B


@dataclass(frozen=True)
class _Kept:
    """Finished layers in a folder, each a file named for a hash of all that decides its numbers."""

    folder: Path | None
    key: str

    @classmethod
    def of(cls, folder: Any, decides: dict[str, Any], start: Translators | None) -> _Kept:
        if folder is None:
            return cls(None, "")
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise InputError(f"keep={path} is a file. Give a folder; it is made if it is not there.")
        whole = hashlib.sha256(json.dumps({"method": METHOD, **decides}, sort_keys=True).encode())
        for one in start or ():
            whole.update(one.detach().cpu().contiguous().numpy().tobytes())
        return cls(path, whole.hexdigest()[:16])

    def get(self, layer: int, rank: int) -> tuple[Translators, Translators] | None:
        """A layer that was finished before; a damaged one is trained again."""
        path = self._path(layer)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                both = [tuple(file.get_tensor(f"{when}.{name}") for name in "ABb") for when in ("end", "half")]
        except (OSError, SafetensorError):
            return None
        return (both[0], both[1]) if both[0][0].shape[1] == rank else None  # type: ignore[return-value]

    def put(self, layer: int, found: tuple[Translators, Translators]) -> None:
        """Keep a finished layer, whole or not at all."""
        if (path := self._path(layer)) is None:
            return
        tensors = {
            f"{when}.{name}": tensor.cpu().contiguous().clone()
            for when, one in zip(("end", "half"), found, strict=True)
            for name, tensor in zip("ABb", one, strict=True)
        }
        write_atomically(path, lambda part: save_file(tensors, part))

    def _path(self, layer: int) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.key}-{layer:03d}.safetensors"


@dataclass(frozen=True)
class _Target:
    """What the model itself predicts at every training token, and the tokens that stand for the vocabulary."""

    normed: Float[Tensor, "token d_model"]
    lse: Float[Tensor, " token"]  # of its logits over the whole vocabulary
    frequent: Tensor
    others: Tensor
    n_drawn: int

    @classmethod
    @torch.no_grad()
    def of(cls, model: HookedTransformer, final: Tensor, n_vocab: int | None) -> _Target:
        """The tokens with the largest probability on average, found a few positions at a time."""
        d_vocab = len(model.need_unembed().weight)
        normed = model.main.finish(final[None], NO_TAPS)
        total, lse = _wide(final).new_zeros(d_vocab), []
        step = max(1, _BYTES // (4 * d_vocab))
        for start in range(0, len(final), step):
            logits = _logits(model, normed[:, start : start + step])
            lse.append(logits.logsumexp(-1))
            total += (logits - lse[-1][:, None]).exp().sum(0)
        n_chosen = d_vocab if n_vocab is None else min(n_vocab, d_vocab)
        n_drawn = 0 if n_chosen == d_vocab else n_chosen // 2
        order = total.argsort(descending=True)
        n_frequent = n_chosen - n_drawn
        return cls(normed[0], torch.cat(lse), order[:n_frequent], order[n_frequent:], n_drawn)

    def divergence(
        self, model: HookedTransformer, moved: Tensor, rows: Tensor, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """KL(model ‖ lens) of some tokens on average, in nats; an estimate where tokens stand for others."""
        drawn = self.others[torch.randperm(len(self.others), generator=generator)[: self.n_drawn].to(moved.device)]
        chosen = torch.cat([self.frequent, drawn])
        weight = self.lse.new_zeros(len(chosen))
        if self.n_drawn:
            weight[len(self.frequent) :] = float(np.log(len(self.others) / len(drawn)))
        with torch.no_grad():
            target = _logits(model, self.normed[None, rows], chosen) - self.lse[rows, None]
        logits = _logits(model, model.main.finish(moved[None], NO_TAPS), chosen)
        own = logits - (logits + weight).logsumexp(-1, keepdim=True)
        return ((target + weight).exp() * (target - own)).sum(-1).mean()


def _logits(model: HookedTransformer, normed: Tensor, chosen: Tensor | None = None) -> Float[Tensor, "token some"]:
    """Of a normed residual `[1 token d_model]`, at least float32."""
    logits = model.logits(normed, tokens=chosen)[0]
    return logits if logits.dtype == torch.float64 else logits.float()


def _divergences(model: HookedTransformer, resid: Tensor, lens: Translators | None) -> list[float]:
    """KL(final ‖ layer) on average, per layer, over the whole vocabulary; the last one is the model's own."""
    reduce_logits = import_module("interp.circuits.lens").reduce_logits  # which imports this file
    moved = list(resid)
    if lens is not None:
        A, B, b = lens
        wide = [_wide(x) for x in resid[:-1]]
        moved[:-1] = [(x + (x @ A[i].to(x)) @ B[i].to(x) + b[i].to(x)).to(resid.dtype) for i, x in enumerate(wide)]
    with torch.no_grad():
        normed = torch.stack([model.main.finish(x[None], NO_TAPS)[0] for x in moved])
        normed = normed if model.transform is None else torch.stack([model.transform(x[None])[0] for x in normed])
        return [float(one.kl.mean()) for one in reduce_logits(model, normed, k=0)]


def _wide(x: Tensor) -> Tensor:
    """At least float32: small steps are lost in half precision."""
    return x if x.dtype == torch.float64 else x.float()
