"""The tuned lens (Belrose 2023): for each layer an affine map of its residual, trained so that the final norm and the
unembedding behind it predict what the whole model predicts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.circuits.tuned_fit import CONVERGED, Progress, fit_translators
from interp.errors import InputError, StorageError
from interp.figures.lens import divergence_curves
from interp.figures.page import figure_html, write_page
from interp.files import atomic_folder, read_json, write_json
from interp.model.identity import model_hash
from interp.model.transformer import HookedTransformer
from interp.results.frames import about_html, as_records

__all__ = ["TunedLens"]

_FORMAT = 1
_LEFT_OUT = (
    "A tuned lens shows what an affine map can make of a layer, learned from texts of one kind: not what the model "
    "uses, and it may know more than the layer does."
)


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
        start: TunedLens | None = None,
        keep: str | os.PathLike[str] | None = None,
        progress: Progress = None,
    ) -> TunedLens:
        """Train one translator per layer, from the identity, on texts (or rows of token ids).

        Minimised is KL(model's prediction ‖ lens) by Adam, `steps` of `batch` tokens with a rate that falls to 0.
        `rank` None is a full d_model × d_model map. With `n_vocab` the sums over the vocabulary are estimated: half of
        these tokens are the likeliest on the training text, the others are drawn anew at each step and weighted by how
        many they stand for; it costs d_vocab / n_vocab times less. What `about` reports is measured over the whole
        vocabulary, on a share `held_out` of the texts that nothing was trained on: before, halfway and after. The
        defaults are quick and far from converged on a language model; `.describe()` says so layer by layer.

        `start`: a lens of this model (whose rank counts) that is trained on. `keep`: a folder for layers that are
        finished, so that the same call goes on from there after it was stopped, with the same numbers.
        At most `n_tokens` positions train, and an eighth as many measure; the first of each text is left out, because
        models rest attention there and its residual is of another size. Holds (n_layers + 1) · 9/8 n_tokens · d_model
        numbers. The same seed gives the same lens. Cost: one pass over the texts, and about 3 · steps · batch
        unembeddings of `n_vocab` tokens per layer.
        """
        if start is not None:
            start.must_fit(model)
            rank = start.A.shape[2]
        given = {"rank": rank, "steps": steps, "batch": batch, "lr": lr, "n_tokens": n_tokens, "n_vocab": n_vocab}
        given |= {"held_out": held_out, "seed": seed}
        before = None if start is None else ((start.A, start.B, start.b), dict(start.about))
        (A, B, b), about = fit_translators(model, texts, given, start=before, keep=keep, progress=progress)
        return cls(A, B, b, about)

    @property
    def n_layers(self) -> int:
        """How many residuals have a translator; the last one, behind all layers, needs none."""
        return len(self.b)

    def translate(self, resid: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """The residual entering a layer, in the last layer's basis; n_layers is behind all and stays as it is."""
        if layer == self.n_layers:
            return resid
        wide = resid if resid.dtype == torch.float64 else resid.float()
        A, B, b = (one[layer].to(wide) for one in (self.A, self.B, self.b))
        return (wide + (wide @ A) @ B + b).to(resid.dtype)

    def must_fit(self, model: HookedTransformer) -> None:
        """Raise `InputError` for any model but the one it was trained on, by the hash of its weights."""
        shape = (model.main.config.n_layers, model.cfg.d_model)
        own = (self.n_layers, self.b.shape[1])
        if shape != own:
            raise InputError(
                f"This lens has {own[0]} layers of width {own[1]}; {model.cfg.model_name} has {shape[0]} of "
                f"{shape[1]}. Fit one to this model."
            )
        if self.about.get("model_hash") not in (None, model_hash(model)):
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

    # ---- for people ----

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: held-out KL in nats before (the logit lens), halfway and after; the share of the gain that
        came in the second half of the steps; and what follows: "converged" (less than 2%), "still falling", "rising"
        (it was better halfway), or "no better" than the logit lens."""
        kl = self.about.get("kl") or {}
        nan = [float("nan")] * self.n_layers
        before, after = (np.array(kl.get(name, nan)[: self.n_layers], float) for name in ("before", "after"))
        halfway = np.array(kl.get("halfway", nan)[: self.n_layers], float)
        gained = before - after
        share = np.divide(halfway - after, gained, out=np.full_like(gained, np.nan), where=gained > 0)
        said = [_verdict(a, b) for a, b in zip(gained, share, strict=True)]
        columns = {"before": before, "halfway": halfway, "after": after, "second_half": share, "verdict": said}
        return pd.DataFrame({"layer": range(self.n_layers), **columns})

    @property
    def values(self) -> xr.DataArray:
        """Held-out KL in nats, `[when, layer]`."""
        table = self.to_frame()
        when = ["before", "halfway", "after"]
        coords = {"when": when, "layer": table["layer"].to_list()}
        return xr.DataArray(table[when].to_numpy().T, coords=coords, dims=("when", "layer"), name="kl")

    @property
    def leaves_out(self) -> str:
        """What a tuned lens does not say."""
        return _LEFT_OUT

    def describe(self) -> str:
        """How near it came on held-out text, whether it is converged, and what it leaves out."""
        table = self.to_frame()
        if not self.about.get("kl"):
            return f"Nothing is known of how this lens was fitted. {_LEFT_OUT}"
        said = f"Tuned lens of {self.about.get('model')}, {self.about.get('steps_in_all')} steps: KL(final ‖ lens) on "
        said += f"held-out text {table['before'].mean():.2f} → {table['after'].mean():.2f} nats, mean of its layers. "
        return f"{said}{self.convergence} {_LEFT_OUT}"

    @property
    def convergence(self) -> str:
        """One sentence: whether more steps would bring the lens nearer to the model."""
        table = self.to_frame()
        counts = table["verdict"].value_counts()
        if set(counts.index) == {"converged"}:
            return f"Converged: the second half of the steps brought less than {CONVERGED:.0%} of the gain."
        if "unknown" in counts:
            return "Whether it is converged was not measured."
        shown = ", ".join(f"{word} in {n}" for word, n in counts.items())
        worst = table.loc[table["verdict"] == "still falling", "second_half"].max()
        more = "" if np.isnan(worst) else f" (up to {worst:.0%} of the gain came in the second half of the steps)"
        return f"Not converged: of {self.n_layers} layers {shown}{more}. More steps: fit(…, start=this lens)."

    def plot(self) -> Any:
        """A plotly figure: held-out KL by layer, before, halfway and after."""
        shown = self.to_frame().drop(columns=["second_half", "verdict"])
        return divergence_curves(shown, title=repr(self))

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a self-contained page: the curves, the table, and what is left out."""
        sections = [figure_html(self.plot(), "kl"), self._repr_html_()]
        return write_page(path, f"Tuned lens of {self.about.get('model', 'a model')}", sections)

    def to_records(self) -> dict[str, Any]:
        """The table and what is known of the fit, as plain data for JSON."""
        return {"layers": as_records(self.to_frame()), "about": dict(self.about)}

    def __str__(self) -> str:
        return f"{self.to_frame().round(3).to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.to_frame().round(3))

    def __repr__(self) -> str:
        kl = self.about.get("kl")
        said = ""
        if kl:
            said = f", held-out KL {np.mean(kl['before'][:-1]):.2f} → {np.mean(kl['after'][:-1]):.2f} nats on average"
        return f"TunedLens({self.about.get('model', 'a model')}, {self.n_layers} layers, rank {self.A.shape[2]}{said})"


def _verdict(gained: float, share: float) -> str:
    if np.isnan(gained):
        return "unknown"
    if gained <= 0:
        return "no better"
    if np.isnan(share):
        return "unknown"
    return "still falling" if share > CONVERGED else "rising" if share < -CONVERGED else "converged"
