"""`playback`: what one row of tokens looks like at each checkpoint, so that heads can be watched while they form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from interp.circuits.prompts import token_texts
from interp.dynamics.attending import CROSS, CrossHeads, PatternHeads
from interp.dynamics.base import Examples
from interp.dynamics.folder import Checkpoints
from interp.dynamics.measures import Losses
from interp.dynamics.played import Playback, RowLens
from interp.dynamics.sources import must_match, source_of, told_of
from interp.dynamics.training import stream
from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.model.taps import NO_TAPS
from interp.model.transformer import HookedTransformer

__all__ = ["MAX_STEPS", "MAX_TOKENS", "playable", "playback"]

Progress = Callable[[str, int, int], None]
MAX_STEPS = 64
MAX_TOKENS = 128  # that are read; one more may follow
MAX_CELLS = 12_000_000  # of attention; two bytes each
_KINDS = ("previous_token", "duplicate_token", "induction")


@torch.no_grad()
def playback(
    checkpoints: Any,
    row: Any = None,
    *,
    source: Any = None,
    kinds: str | Sequence[str] | None = None,
    tokens: Int[Tensor, "row pos"] | None = None,
    steps: Sequence[int] | None = None,
    revisions: Sequence[str] | None = None,
    k: int = 3,
    n: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Playback:
    """Attention of all heads and the logit lens on one row of tokens at each checkpoint, with the scores of all heads
    and the losses.

    `checkpoints`, `revisions`, `kinds`, `n` and `seed` are those of `interp.emergence`, and so are the numbers: scores
    and losses are means over the same rows, those that report. `row`: ids, or a text where the model has a tokenizer;
    its last token is only predicted. By default it is the first row that reports: of a training's held-out rows, or of
    `tokens`. Without `tokens`, models that are no training of ours are scored on the row itself. `source`: what the
    encoder of an encoder-decoder reads with a row of your own. `steps`: checkpoints to show, at most 64; by default
    all of them, or 64 evenly among more. `k`: likeliest tokens of the lens.
    Cost: two forward passes over the rows for each checkpoint, and one over the row.

    Raises `InputError` for a row of more than 129 tokens, attention that is too much to keep, an unknown kind or step,
    and models that do not predict the next token.
    """
    models, training, name = source_of(checkpoints, revisions)
    chosen = _chosen(list(models), steps)
    for label, number, least in (("n", n, 4), ("k", k, 1)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise InputError(f"{label} is {number!r}. Give a whole number, at least {least}.")
    first = _loaded(models, chosen[0])
    if first.cfg.decoder is None:
        raise InputError(
            f"{first.cfg.model_name} is an encoder: it predicts no next token, so there is no lens to play. Give "
            "checkpoints of a decoder or of an encoder-decoder."
        )
    first.need_unembed()
    shown = _row(first, row, source)
    examples = _examples(training, tokens, shown, n, seed)
    shown = shown or _first(examples)
    _must_suit(first, shown, len(chosen))
    reports = torch.arange(len(examples.tokens)) % 2 == 1 if len(examples.tokens) > 1 else torch.tensor([True])
    heads = _measure(kinds, examples, ~reports)
    losses = Losses(examples, reports, least=1)
    film = _Film(shown, min(k, first.cfg.d_vocab), reports, losses, heads, kinds is not None)
    for i, step in enumerate(chosen):
        model = first if i == 0 else _loaded(models, step)
        must_match((chosen[0], first), step, model)
        done = () if training is None else training.at(step).hooks()
        with model.hooks(done) if done else nullcontext():
            film.see(model)
        if progress is not None:
            progress("playing checkpoints", i + 1, len(chosen))
    about = {
        "model": name,
        "seed": seed,
        "steps": chosen,
        "n_checkpoints": len(models),
        "n": int(reports.sum()),
        "k": k,
    }
    about["training"] = told_of(training)
    return film.result(first, about)


def playable(kinds: Sequence[str] | None) -> list[str] | None:
    """Those of the kinds that can be played; None, for those that suit, where there are none."""
    played = [one for one in kinds or () if one in CROSS or isinstance(finder(one), Finder)]
    return played or None


@dataclass
class _Film:
    """What was seen so far."""

    row: Examples
    k: int
    reports: Tensor
    losses: Losses
    heads: PatternHeads | CrossHeads
    named: bool  # whether the caller named the kinds
    patterns: dict[str, list[ndarray]] = field(default_factory=dict)
    lens: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    scores: list[Mapping[str, Tensor]] = field(default_factory=list)
    token_losses: list[Tensor] = field(default_factory=list)

    def see(self, model: HookedTransformer) -> None:
        """Look at one checkpoint."""
        sites = _pattern_sites(model)
        address, n_layers = model.main.address, model.main.config.n_layers
        resid = [f"{address}blocks.{layer}.hook_resid_pre" for layer in range(n_layers)]
        resid.append(f"{address}blocks.{n_layers - 1}.hook_resid_post")
        before = self.row.tokens[:, :-1]
        names = [*resid, *(site for of in sites.values() for site in of)]
        given: dict[str, Any] = {} if self.row.source is None else {"decoder_input": before}
        _, cache = model.run_with_cache(before if self.row.source is None else self.row.source, names, **given)
        for name, of in sites.items():
            self.patterns.setdefault(name, []).append(_stacked([cache[site][0] for site in of]))
        self.lens.append(_lens(model, torch.cat([cache[site] for site in resid]), self.row.tokens[0, 1:], self.k))
        self.scores.append({key: one[self.reports] for key, one in self.heads.see(model).items()})
        self.token_losses.append(self.losses.see(model))

    def result(self, model: HookedTransformer, about: dict[str, Any]) -> Playback:
        """All that was seen; `model` names the tokens."""
        import pandas as pd

        kinds = self._asked()
        heads = torch.stack([torch.stack([one[kind].nanmean(0) for one in self.scores]) for kind in kinds])
        steps, series = about["steps"], self.losses.found(self.token_losses).series
        losses = [
            {"step": step, "group": group, "value": float(value)}
            for (measure, group), values in series.items()
            if measure == "loss"
            for step, value in zip(steps, values.mean(axis=0), strict=True)
        ]
        top, prob, following = (torch.stack(parts).numpy() for parts in zip(*self.lens, strict=True))
        row = self.row.tokens[0].tolist()
        likely = sorted({int(one) for one in np.unique(top)})
        if unasked := [kind for kind in self.scores[0] if kind not in kinds]:
            about["left_out"] = dict.fromkeys(unasked, "no row has what these heads attend to")
        about |= {"kinds": kinds, "scored": "decoder.cross_attn" if self.row.source is not None else _main(model)}
        about["widths"] = {name: _widths(model, name) for name in self.patterns}
        about |= {"ids": row, "tokens": token_texts(model, row[:-1]), "following": token_texts(model, row[1:])}
        about["names"] = dict(zip(map(str, likely), token_texts(model, likely), strict=True))
        if self.row.source is not None:
            source = self.row.source[0].tolist()
            about |= {"source": token_texts(model, source), "source_ids": source}
        patterns = {name: np.stack(of) for name, of in self.patterns.items()}
        widths = about["widths"][about["scored"]]
        missing = torch.arange(heads.shape[-1])[None] >= torch.tensor(widths)[:, None]
        scores = heads.float().masked_fill(missing, torch.nan).numpy()
        lens = RowLens(top.astype(np.int32), prob, following)
        return Playback(patterns, lens, scores, pd.DataFrame(losses), about)

    def _asked(self) -> list[str]:
        """The kinds that some row has a place for."""
        there = {kind: not bool(one.isnan().all()) for kind, one in self.scores[0].items()}
        missing = [kind for kind, asked in there.items() if not asked]
        if missing and (self.named or len(missing) == len(there)):
            raise InputError(f"No row has what {missing[0]} heads attend to. Give other tokens, or another kind.")
        return [kind for kind, asked in there.items() if asked]


def _pattern_sites(model: HookedTransformer) -> dict[str, list[str]]:
    """Kind of attention -> the sites of its patterns, layer by layer."""
    found: dict[str, list[str]] = {}
    for name, stack in model.cfg.stacks.items():
        prefix = f"{name}." if name else ""
        found[f"{prefix}attn"] = [f"{prefix}blocks.{layer}.attn.hook_pattern" for layer in range(stack.n_layers)]
        if all(block.cross_attn is not None for block in stack.blocks):
            found[f"{prefix}cross_attn"] = [
                f"{prefix}blocks.{layer}.cross_attn.hook_pattern" for layer in range(stack.n_layers)
            ]
    return found


def _widths(model: HookedTransformer, name: str) -> list[int]:
    stack, _, sublayer = name.rpartition(".")
    return [getattr(block, sublayer).n_heads for block in model.cfg.stacks[stack].blocks]


def _main(model: HookedTransformer) -> str:
    return f"{model.main.name}.attn" if model.main.name else "attn"


def _stacked(layers: Sequence[Float[Tensor, "head q_pos k_pos"]]) -> Float[ndarray, "layer head q_pos k_pos"]:
    """Narrower layers are filled up with heads that attend to nothing."""
    wide = max(len(one) for one in layers)
    padded = [torch.nn.functional.pad(one, (0, 0, 0, 0, 0, wide - len(one))) for one in layers]
    return torch.stack(padded).to(torch.float16).cpu().numpy()


def _lens(
    model: HookedTransformer, resid: Float[Tensor, "layer pos d_model"], following: Int[Tensor, " pos"], k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Per layer and position: the likeliest tokens, their probability, and that of the token that follows. A layer at
    a time, since the vocabulary may be large."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for one in resid:
        logits = model.logits(model.main.finish(one[None], NO_TAPS), NO_TAPS)[0].float()
        probs = logits.softmax(-1)
        prob, top = probs.topk(k, dim=-1)
        parts.append((top, prob, probs.gather(-1, following[:, None])[:, 0]))
    top, prob, next_prob = (torch.stack(one).cpu() for one in zip(*parts, strict=True))
    return top, prob, next_prob


def _measure(kinds: str | Sequence[str] | None, examples: Examples, chooses: Tensor) -> PatternHeads | CrossHeads:
    if kinds is None:
        names = list(_KINDS) if examples.source is None else [_cross(examples)]
    else:
        names = list(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
    if not names:
        raise InputError("kinds is empty. Name at least one kind of head.")
    if examples.source is not None:
        if wrong := [name for name in names if name not in CROSS]:
            raise InputError(f"{wrong[0]} heads are of one stack; of an encoder-decoder ask for {' or '.join(CROSS)}.")
        return CrossHeads(names, examples, chooses)
    found = [finder(name) for name in names]
    if other := [one.name for one in found if not isinstance(one, Finder)]:
        known = ", ".join(name for name, one in finders().items() if isinstance(one, Finder))
        raise InputError(f"{other[0]} is known by no pattern on plain rows of tokens. Kinds that are: {known}.")
    return PatternHeads([one for one in found if isinstance(one, Finder)], examples, chooses)


def _cross(examples: Examples) -> str:
    assert examples.source is not None
    following = examples.tokens[:, 1:]
    mirrored = examples.source.shape == following.shape and torch.equal(examples.source.flip(1), following)
    return CROSS[0] if mirrored else CROSS[1]


def _chosen(there: list[int], steps: Sequence[int] | None) -> list[int]:
    if steps is None:
        places = np.linspace(0, len(there) - 1, min(len(there), MAX_STEPS)).round().astype(int)
        return [there[int(place)] for place in places]
    asked = sorted(dict.fromkeys(steps))
    if unknown := [step for step in asked if step not in there]:
        raise InputError(f"steps names {unknown[0]!r}. There are {', '.join(map(str, there))}.")
    if not 2 <= len(asked) <= MAX_STEPS:
        raise InputError(f"steps names {len(asked)} checkpoints. Give 2 to {MAX_STEPS}.")
    return asked


def _row(model: HookedTransformer, row: Any, source: Any) -> Examples | None:
    """The caller's own row; None where there is none."""
    if row is None:
        if source is not None:
            raise InputError("source is what an encoder reads beside a row of your own. Give row as well.")
        return None
    if (source is None) != (model.cfg.encoder is None):
        what = "needs source=, the tokens that its encoder reads" if source is None else "has no encoder to read source"
        raise InputError(f"{model.cfg.model_name} {what}.")
    tokens = _ids(model, row, "row")
    return _alone(tokens, None if source is None else _ids(model, source, "source"))


def _ids(model: HookedTransformer, given: Any, what: str) -> Int[Tensor, "one pos"]:
    if isinstance(given, str):
        ids = model.to_tokens(given)
    else:
        ids = torch.as_tensor(given)
        if ids.is_floating_point() or ids.dtype == torch.bool or ids.squeeze().ndim != 1:
            raise InputError(f"{what} has shape {tuple(ids.shape)}, {ids.dtype}. Give a text, or one row of token ids.")
    return ids.reshape(1, -1).long()


def _alone(tokens: Tensor, source: Tensor | None) -> Examples:
    return Examples(tokens, {"all": (torch.arange(tokens.shape[1]) > 0)[None]}, source)


def _first(examples: Examples) -> Examples:
    """The first row that reports, as long as it can be shown."""
    at = min(1, len(examples.tokens) - 1)
    source = None if examples.source is None else examples.source[at : at + 1]
    return _alone(examples.tokens[at : at + 1, : MAX_TOKENS + 1], source)


def _examples(training: Checkpoints | None, tokens: Tensor | None, row: Examples | None, n: int, seed: int) -> Examples:
    """The rows that scores and losses are of."""
    if tokens is not None:
        if len(tokens) < 4 or tokens.shape[1] < 3:
            raise InputError(f"tokens has shape {tuple(tokens.shape)}. Give at least 4 rows of 3 tokens.")
        return Examples(tokens, {"all": (torch.arange(tokens.shape[1]) > 0).expand(len(tokens), -1)})
    if training is not None:
        return training.data.draw(n, stream(seed, "emergence"), held_out=True)
    if row is None:
        raise InputError("These models come without data. Give row, one row of tokens to watch, or tokens [row pos].")
    return row


def _must_suit(model: HookedTransformer, row: Examples, n_steps: int) -> None:
    """Raise `InputError` for a row that cannot be read, shown or kept."""
    n = row.tokens.shape[1] - 1
    if not 2 <= n <= min(MAX_TOKENS, model.cfg.n_ctx):
        most = min(MAX_TOKENS, model.cfg.n_ctx) + 1
        raise InputError(f"The row has {n + 1} tokens. Give 3 to {most}: the last one is only predicted.")
    n_source = 0 if row.source is None else row.source.shape[1]
    if n_source > MAX_TOKENS:
        raise InputError(f"The source has {n_source} tokens. Give at most {MAX_TOKENS}.")
    for ids in (row.tokens, row.source):
        if ids is not None and not bool(((ids >= 0) & (ids < model.cfg.d_vocab)).all()):
            raise InputError(f"The row holds ids outside the vocabulary, 0 to {model.cfg.d_vocab - 1}.")
    cells = 0
    for name in _pattern_sites(model):
        asks = n_source if name.startswith("encoder.") else n
        widths, keys = _widths(model, name), n_source if "cross" in name else asks
        cells += n_steps * len(widths) * max(widths) * asks * keys
    if cells > MAX_CELLS:
        raise InputError(
            f"The attention of {n_steps} checkpoints on {n} tokens has {cells:,} weights, more than {MAX_CELLS:,}. "
            "Give fewer steps= or a shorter row."
        )


def _loaded(models: Mapping[int, Any], step: int) -> HookedTransformer:
    one = models[step]
    return one if isinstance(one, HookedTransformer) else one()
