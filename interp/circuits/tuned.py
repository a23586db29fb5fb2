"""The tuned lens (Belrose 2023): for each layer an affine map of its residual, trained so that the final norm and the
unembedding behind it predict what the whole model predicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import InputError, StorageError
from interp.files import atomic_folder, read_json, write_json
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

__all__ = ["TunedLens"]

_FORMAT = 1
_BYTES = 32 << 20  # of logits at once
Progress = Callable[[str, int, int], None] | None


@dataclass(frozen=True, eq=False)
class TunedLens:
    """x ↦ x + x·A·B + b for the residual entering each layer (Belrose 2023, with its translator kept at low rank).

    `A [layer d_model rank]`, `B [layer rank d_model]`, `b [layer d_model]`; `about` says which model (by the hash of
    its weights), which texts and settings, and `kl`: per layer the divergence KL(final ‖ lens) on held-out text, in
    nats, before (the logit lens) and after.
    """

    A: Float[Tensor, "layer d_model rank"]
    B: Float[Tensor, "layer rank d_model"]
    b: Float[Tensor, "layer d_model"]
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        model: HookedTransformer,
        texts: Sequence[Any],
        *,
        rank: int | None = 64,
        steps: int = 100,
        batch: int = 64,
        lr: float = 0.01,
        n_tokens: int = 2048,
        n_vocab: int | None = 2048,
        held_out: float = 0.2,
        seed: int = 0,
        progress: Progress = None,
    ) -> TunedLens:
        """Train one translator per layer, from the identity, on texts (or rows of token ids).

        Minimised is KL(model's prediction ‖ lens) by Adam, `steps` of `batch` tokens with a rate that falls to 0.
        `rank` None is a full d_model × d_model map. With `n_vocab` the sums over the vocabulary are estimated: half of
        these tokens are the likeliest on the training text, the others are drawn anew at each step and weighted by how
        many they stand for; it costs d_vocab / n_vocab times less. What `about` reports is measured over the whole
        vocabulary, on a share `held_out` of the texts that nothing was trained on.
        At most `n_tokens` positions train, and an eighth as many measure; the first of each text is left out, because
        models rest attention there and its residual is of another size. Holds (n_layers + 1) · 9/8 n_tokens · d_model
        numbers. The same seed gives the same lens. Cost: one pass over the texts, and about 3 · steps · batch
        unembeddings of `n_vocab` tokens per layer.
        """
        settings = _checked(model, rank, steps, batch, lr, n_tokens, n_vocab, held_out, seed)
        rows = _rows(model, texts)
        train, test = _split(rows, held_out, seed)
        gathered = [
            _residuals(model, part, limit) for part, limit in ((train, n_tokens), (test, max(n_tokens // 8, 1)))
        ]
        trained = _train(model, gathered[0], settings, progress)
        about = {
            "method": "tuned lens",
            "model": model.cfg.model_name,
            "model_hash": _hash(model),
            "settings": settings,
            "tokens": {"train": gathered[0].shape[1], "held_out": gathered[1].shape[1]},
            "texts": {"train": len(train), "held_out": len(test)},
        }
        lens = cls(trained[0], trained[1], trained[2], about)
        kl = {"before": _divergences(model, gathered[1], None), "after": _divergences(model, gathered[1], lens)}
        return cls(trained[0], trained[1], trained[2], {**about, "kl": kl})

    @property
    def n_layers(self) -> int:
        """How many residuals have a translator; the last one, behind all layers, needs none."""
        return len(self.b)

    def translate(self, resid: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """The residual entering a layer, in the last layer's basis; n_layers is behind all and stays as it is."""
        if layer == self.n_layers:
            return resid
        A, B, b = (one[layer].to(resid) for one in (self.A, self.B, self.b))
        return resid + (resid @ A) @ B + b

    def must_fit(self, model: HookedTransformer) -> None:
        """Raise `InputError` for any model but the one it was trained on, by the hash of its weights."""
        shape = (model.main.config.n_layers, model.cfg.d_model)
        own = (self.n_layers, self.b.shape[1])
        if shape != own:
            raise InputError(
                f"This lens has {own[0]} layers of width {own[1]}; {model.cfg.model_name} has {shape[0]} of "
                f"{shape[1]}. Fit one to this model."
            )
        if self.about.get("model_hash") not in (None, _hash(model)):
            raise InputError(
                f"This lens was trained on {self.about.get('model')} with other weights (or another dtype) than this "
                f"{model.cfg.model_name}. Load that one, or fit a lens to this model."
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder: translators.safetensors and about.json, all or nothing."""
        with atomic_folder(path, marker="about.json") as folder:
            tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("A", "B", "b")}
            save_file(tensors, folder / "translators.safetensors")
            write_json(folder / "about.json", {"format": _FORMAT, **self.about})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: HookedTransformer | None = None) -> TunedLens:
        """Read what `save` wrote; `StorageError` for a damaged folder. With `model` it must be the one it was trained
        on, else that is found out when the lens is used."""
        folder = Path(path)
        about = read_json(folder / "about.json")
        if not isinstance(about, dict) or about.get("format") != _FORMAT or about.get("method") != "tuned lens":
            raise StorageError(f"{folder} holds no tuned lens of format {_FORMAT}. Fit it again with this version.")
        try:
            with safe_open(folder / "translators.safetensors", "pt") as file:
                tensors = [file.get_tensor(name) for name in ("A", "B", "b")]
        except (OSError, SafetensorError) as error:
            raise StorageError(f"Cannot read {folder / 'translators.safetensors'}: {error}") from error
        said = {name: value for name, value in about.items() if name != "format"}
        found = cls(tensors[0], tensors[1], tensors[2], said)
        if model is not None:
            found.must_fit(model)
        return found

    def __repr__(self) -> str:
        kl = self.about.get("kl")
        said = ""
        if kl:
            said = f", held-out KL {np.mean(kl['before'][:-1]):.2f} → {np.mean(kl['after'][:-1]):.2f} nats on average"
        return f"TunedLens({self.about.get('model', 'a model')}, {self.n_layers} layers, rank {self.A.shape[2]}{said})"


def _checked(model: HookedTransformer, *given: Any) -> dict[str, Any]:
    """The settings by name, or `InputError`."""
    names = ("rank", "steps", "batch", "lr", "n_tokens", "n_vocab", "held_out", "seed")
    found: dict[str, Any] = dict(zip(names, given, strict=True))
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
    model: HookedTransformer, resid: Float[Tensor, "layer token d_model"], settings: dict[str, Any], progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Translators of all layers, one after the other: they share nothing but the target."""
    n_layers, d_model = len(resid) - 1, resid.shape[2]
    target = _Target.of(model, resid[-1], settings["n_vocab"])
    found = []
    for layer in range(n_layers):
        found.append(_fit_layer(model, resid[layer], target, settings, layer))
        if progress is not None:
            progress("fitting the lens", layer + 1, n_layers)
    assert found[0][0].shape[0] == d_model
    A, B, b = (torch.stack(parts) for parts in zip(*found, strict=True))
    return A, B, b


def _fit_layer(
    model: HookedTransformer, x: Tensor, target: _Target, settings: dict[str, Any], layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One translator. It is trained from and to coordinates of unit spread, and the spread is put into A, B and b
    afterwards: residual streams have a few coordinates a hundred times the size of others, and one rate serves all only
    when they are even."""
    spread = x.std(0).clamp(min=1e-6)
    centre = x.mean(0)
    generator = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + layer)
    d_model, rank = x.shape[1], settings["rank"] or x.shape[1]
    full = rank >= d_model
    if full:
        A, B = torch.eye(d_model, dtype=x.dtype), torch.zeros(d_model, d_model, dtype=x.dtype)
    else:  # as LoRA starts: the product is 0, its gradient is not
        A = torch.randn(d_model, rank, generator=generator, dtype=x.dtype) / d_model**0.5
        B = torch.zeros(rank, d_model, dtype=x.dtype)
    A, B, b = A.to(x.device), B.to(x.device).requires_grad_(), x.new_zeros(d_model).requires_grad_()
    trained = [B, b] if full else [A.requires_grad_(), B, b]
    steps, scaled = settings["steps"], (x - centre) / spread
    optimizer = torch.optim.Adam(trained, lr=settings["lr"] / (d_model**0.5 if full else 1.0))
    with torch.enable_grad():
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = settings["lr"] / (d_model**0.5 if full else 1.0) * (1 - step / steps)
            rows = torch.randint(len(x), (min(settings["batch"], len(x)),), generator=generator).to(x.device)
            moved = x[rows] + spread * ((scaled[rows] @ A) @ B + b)
            loss = target.divergence(model, moved, rows, generator)
            grads = torch.autograd.grad(loss, trained)  # the model's own parameters get none
            for one, grad in zip(trained, grads, strict=True):
                one.grad = grad
            optimizer.step()
    A, B, b = A.detach(), B.detach(), b.detach()
    A = A / spread[:, None]
    return A, B * spread, (b - (centre @ A) @ B) * spread


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
        total, lse = final.new_zeros(d_vocab), []
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
        weight = moved.new_zeros(len(chosen))
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


def _divergences(model: HookedTransformer, resid: Tensor, lens: TunedLens | None) -> list[float]:
    """KL(final ‖ layer) on average, per layer, over the whole vocabulary."""
    lens_room = import_module("interp.circuits.lens")  # which imports this file
    moved = torch.stack([x if lens is None else lens.translate(x, layer) for layer, x in enumerate(resid)])
    with torch.no_grad():
        normed = torch.stack([model.main.finish(x[None], NO_TAPS)[0] for x in moved])
        normed = normed if model.transform is None else torch.stack([model.transform(x[None])[0] for x in normed])
        return [float(one.kl.mean()) for one in lens_room.reduce_logits(model, normed, k=0)]


def _hash(model: HookedTransformer) -> str:
    return import_module("interp.runs.provenance").model_hash(model)  # stands above this room
