"""One row of tokens at each checkpoint of a training: attention, lens, scores of all heads, losses; saved and read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from interp.errors import InputError, StorageError
from interp.files import atomic_folder, read_json, write_json
from interp.results.frames import about_html, as_records
from interp.sites import Head

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Playback", "RowLens"]

_FORMAT, _KIND = 1, "playback"
_PATTERN, _LENS = "pattern ", ("top", "prob", "next_prob")
_LEFT_OUT = (
    "One row of tokens shows what can happen, not how often: scores and losses are means over other rows as well, the "
    "attention and the lens are of this row alone. Attention does not say that a head is used, and the lens reads "
    "early layers in the basis of the last one. Nothing is known of the updates between two checkpoints."
)


@dataclass(frozen=True)
class RowLens:
    """The logit lens of the row at each checkpoint; layer l is the residual that enters layer l, the last one is the
    model's own prediction. `top`: ids of the likeliest tokens, `prob`: their probabilities, `next_prob`: that of the
    token that does follow."""

    top: Integer[ndarray, "step layer pos k"]
    prob: Float[ndarray, "step layer pos k"]
    next_prob: Float[ndarray, "step layer pos"]


@dataclass(frozen=True)
class Playback:
    """What one row of tokens looks like at each checkpoint.

    `patterns`: of each kind of attention that the model has ("attn", or "encoder.attn", "decoder.attn" and
    "decoder.cross_attn") the weights of all heads, in half precision; heads that a narrower layer does not have are 0.
    `heads`: the scores of all heads, mean over the rows that report: a share of attention from 0 to 1, NaN for heads
    that there are not. They are of the attention `about["scored"]`. `losses`: a row per checkpoint and group of tokens:
    step, group, value (nats). `about`: steps, model, training, kinds, widths of the layers by attention, the texts of
    the tokens (`tokens`, `following` and, of an encoder-decoder, `source`), their ids, and `names` of the lens' tokens.
    """

    patterns: Mapping[str, Float[ndarray, "step layer head q_pos k_pos"]]
    lens: RowLens
    heads: Float[ndarray, "kind step layer head"]
    losses: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _must_fit(self)

    @property
    def steps(self) -> list[int]:
        """Updates that each checkpoint has behind it."""
        return list(self.about["steps"])

    @property
    def kinds(self) -> list[str]:
        """The kinds of heads that are scored."""
        return list(self.about["kinds"])

    @property
    def leaves_out(self) -> str:
        """What this does not say."""
        return _LEFT_OUT

    def pattern(self, step: int, head: Any) -> Float[ndarray, "q_pos k_pos"]:
        """What a head ("1.3", or "decoder.cross_attn.0.2") attends to at a checkpoint."""
        at = self._at(step)
        one = head if isinstance(head, Head) else Head.parse(str(head))
        name = f"{one.stack + '.' if one.stack else ''}{one.sublayer}"
        widths = self.about["widths"].get(name)
        if widths is None or one.layer >= len(widths) or one.head >= widths[one.layer]:
            there = "; ".join(f"{key}: {len(of)} layers of up to {max(of)}" for key, of in self.about["widths"].items())
            raise InputError(f"There is no head {one}. Heads there are: {there}.")
        return self.patterns[name][at, one.layer, one.head].astype(np.float32)

    def read(self, step: int) -> pd.DataFrame:
        """The lens at a checkpoint: layer, pos, token, the likeliest token and its probability, the token that follows
        and its probability."""
        import pandas as pd

        at, about = self._at(step), self.about
        n_layers, n = self.lens.next_prob.shape[1:]
        names = about["names"]
        rows = {
            "layer": np.repeat(np.arange(n_layers), n),
            "pos": np.tile(np.arange(n), n_layers),
            "token": about["tokens"] * n_layers,
            "likeliest": [names[str(one)] for one in self.lens.top[at, :, :, 0].ravel().tolist()],
            "prob": self.lens.prob[at, :, :, 0].ravel().astype(float),
            "next": about["following"] * n_layers,
            "next_prob": self.lens.next_prob[at].ravel().astype(float),
        }
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """Scores of all heads: step, kind, head, layer, index, score."""
        import pandas as pd

        rows = []
        for (k, s, layer, head), score in np.ndenumerate(self.heads):
            if not np.isnan(score):
                rows.append((self.steps[s], self.kinds[k], str(self._head(layer, head)), layer, head, float(score)))
        return pd.DataFrame(rows, columns=["step", "kind", "head", "layer", "index", "score"])

    def curves(self) -> pd.DataFrame:
        """Losses, and of each kind the head that is best in the last checkpoint, with the columns of
        `Emergence.scores`; no intervals. On all rows that report, the best head was chosen on the same ones."""
        import pandas as pd

        rows = [
            {"step": row["step"], "measure": "loss", "series": row["group"], "value": row["value"]}
            for row in as_records(self.losses)
        ]
        for kind, scores in zip(self.kinds, self.heads, strict=True):
            values = scores[(slice(None), *_best(scores))]
            rows += [
                {"step": step, "measure": kind, "series": "best", "value": float(value)}
                for step, value in zip(self.steps, values, strict=True)
            ]
        return pd.DataFrame(rows).assign(low=np.nan, high=np.nan)

    def summary(self) -> pd.DataFrame:
        """Of each kind the best head of the last checkpoint, and where it came from."""
        import pandas as pd

        rows = []
        for kind, scores in zip(self.kinds, self.heads, strict=True):
            layer, head = _best(scores)
            first, last = (float(scores[at, layer, head]) for at in (0, -1))
            name = str(self._head(layer, head))
            rows.append({"kind": kind, "best head": name, "at first": f"{first:.2f}", "at last": f"{last:.2f}"})
        return pd.DataFrame(rows)

    def describe(self) -> str:
        """What is shown, and what is left out."""
        about = self.about
        n = f"{about['n']} row{'s' if about['n'] != 1 else ''}"
        return f"{len(self.steps)} checkpoints of {about['model']}; scores and losses of {n}. {self.leaves_out}"

    def to_records(self) -> dict[str, Any]:
        """Scores, losses and how they were made as plain data for JSON; patterns and lens stay arrays."""
        return {"heads": as_records(self.to_frame()), "losses": as_records(self.losses), "about": dict(self.about)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder, all or nothing: playback.safetensors, losses.parquet and about.json."""
        from safetensors.numpy import save_file

        arrays = {f"{_PATTERN}{name}": one for name, one in self.patterns.items()}
        arrays |= {f"lens {name}": getattr(self.lens, name) for name in _LENS} | {"heads": self.heads}
        with atomic_folder(path, marker="about.json") as folder:
            save_file(
                {name: np.ascontiguousarray(one) for name, one in arrays.items()}, folder / f"{_KIND}.safetensors"
            )
            self.losses.to_parquet(folder / "losses.parquet")
            write_json(folder / "about.json", {"kind": _KIND, "format": _FORMAT, "about": dict(self.about)})
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Playback:
        """Read what `save` wrote; raises `StorageError` for a damaged or newer folder."""
        import pandas as pd
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(path)
        saved = read_json(folder / "about.json")
        good = isinstance(saved, dict) and isinstance(saved.get("about"), dict)
        if not good or saved.get("kind") != _KIND or saved.get("format") != _FORMAT:
            raise StorageError(f"{folder} holds no {_KIND} of format {_FORMAT}. Make it again with this version.")
        try:
            arrays = load_file(folder / f"{_KIND}.safetensors")
            patterns = {name.removeprefix(_PATTERN): one for name, one in arrays.items() if name.startswith(_PATTERN)}
            lens = RowLens(*(arrays[f"lens {name}"] for name in _LENS))
            losses = pd.read_parquet(folder / "losses.parquet")
            return cls(patterns, lens, arrays["heads"], losses, saved["about"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError, InputError) as error:
            raise StorageError(f"Cannot read the {_KIND} in {folder}: {error}") from error

    def __repr__(self) -> str:
        first, last = self._ends()
        n = len(self.about["tokens"])
        return f"Playback({n} tokens, {', '.join(self.patterns)}, {len(self.steps)} checkpoints, {first} to {last})"

    def __str__(self) -> str:
        return f"{self.summary().to_string(index=False)}\n{self.describe()}"

    def _repr_html_(self) -> str:
        return about_html(repr(self), self.describe(), self.summary())

    def best(self, kind: str) -> Head:
        """The head with the highest score in the last checkpoint."""
        if kind not in self.kinds:
            raise InputError(f"This playback scores no {kind} heads, only {', '.join(self.kinds)}.")
        return self._head(*_best(self.heads[self.kinds.index(kind)]))

    def _head(self, layer: int, head: int) -> Head:
        stack, _, sublayer = self.about["scored"].rpartition(".")
        return Head(layer, head, sublayer, stack)

    def _ends(self) -> tuple[int, int]:
        return self.steps[0], self.steps[-1]

    def _at(self, step: int) -> int:
        if step not in self.steps:
            near = min(self.steps, key=lambda one: abs(one - step)) if isinstance(step, int) else self.steps[-1]
            raise InputError(f"There is no checkpoint of step {step!r}. The nearest is {near}.")
        return self.steps.index(step)


def _best(scores: Float[ndarray, "step layer head"]) -> tuple[int, int]:
    layer, head = np.unravel_index(int(np.nanargmax(scores[-1])), scores[-1].shape)
    return int(layer), int(head)


def _must_fit(one: Playback) -> None:
    """Raise `InputError` where arrays and what is said of them differ; a folder that was changed shows here."""
    about, n_steps = one.about, len(one.about["steps"])
    n = len(about["tokens"])
    wrong = [name for name, of in one.patterns.items() if of.shape != _shape(name, about)]
    if wrong or set(one.patterns) != set(about["widths"]):
        raise InputError(f"The patterns of {', '.join(wrong) or 'some attention'} do not fit the steps and tokens.")
    n_layers = len(about["widths"][about["scored"]])
    if one.lens.next_prob.shape[::2] != (n_steps, n) or one.lens.top.shape != one.lens.prob.shape:
        raise InputError("The lens does not fit the steps and tokens.")
    if one.heads.shape[:3] != (len(about["kinds"]), n_steps, n_layers) or len(about["following"]) != n:
        raise InputError("The scores of heads do not fit the steps and kinds.")


def _shape(name: str, about: Mapping[str, Any]) -> tuple[int, ...]:
    """Of the patterns of a kind of attention: step, layer, head, q_pos, k_pos."""
    tokens, widths = len(about["tokens"]), about["widths"][name]
    source = len(about.get("source", ()))
    asks = source if name.startswith("encoder.") else tokens
    return len(about["steps"]), len(widths), max(widths), asks, source if name.endswith("cross_attn") else asks
