"""What changes where one head may not look from a word to its partner: that edge of its attention set to −∞."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp.heads.base import attention_kind
from interp.heads.syntax_attention import batch_of
from interp.heads.syntax_words import LabelledTokens, Link
from interp.model.passes import Pass
from interp.model.taps import NO_TAPS, Tap, Taps, make_writes
from interp.model.tokens import Batch
from interp.model.transformer import HookedTransformer
from interp.sites import Head, Site

__all__ = ["Cuts", "cut_edges", "edge_metric"]

_ROWS = 32
Edge = tuple[int, list[int], list[int]]  # row, positions of the queries, positions of the keys


@dataclass(frozen=True)
class Cuts:
    """Per sentence: what cutting the edge to the partner changes, and what cutting that to another word does."""

    partner: NDArray[np.floating]
    other: NDArray[np.floating]


def edge_metric(model: HookedTransformer) -> tuple[str, str]:
    """What `cut_edges` measures in this model, and its unit."""
    cut = "its edge to the partner cut (others: its edge to another word; p is that of the score)"
    if _predicts(model):
        return f"KL of the next token at the word, {cut}, from the unedited run's", "millinats"
    return f"change of the word's last representation, {cut}", "share of its length"


@torch.no_grad()
def cut_edges(
    model: HookedTransformer,
    sentences: Sequence[LabelledTokens],
    head: Head,
    chosen: Sequence[Link | None],
    seed: int,
) -> Cuts:
    """Cut one link of each sentence in one head, and in its stead the edge to another word that the word could see.

    A sentence without a link, or whose word sees no other word, is left out. Cost: three forward passes, two of them
    from the head's layer on.
    """
    causal, generator = attention_kind(model) == "decoder", np.random.default_rng([seed, *b"another word"])
    rows: list[tuple[LabelledTokens, Link, int]] = []
    for sentence, link in zip(sentences, chosen, strict=True):
        if link is None:
            continue
        seen = [i for i, word in enumerate(sentence.words) if word and (i < link.word or not causal)]
        others = [i for i in seen if i != link.word and i not in link.partners]
        if others:
            rows.append((sentence, link, others[generator.integers(len(others))]))
    found = [_cut(model, head, rows[i : i + _ROWS]) for i in range(0, len(rows), _ROWS)]
    both = np.concatenate(found, axis=1) if found else np.zeros((2, 0))
    return Cuts(*both)


def _cut(
    model: HookedTransformer, head: Head, rows: Sequence[tuple[LabelledTokens, Link, int]]
) -> NDArray[np.floating]:
    """Both changes of one batch, `[partner or other, row]`."""
    batch = batch_of(model, [sentence for sentence, _, _ in rows])
    at = [list(sentence.words[link.word]) for sentence, link, _ in rows]
    before = f"{model.main.address}blocks.{head.layer}.hook_resid_pre"
    taps = Taps([before])
    clean = _read(model, _finish(model, Pass(batch=batch), taps), at)
    found = []
    for to in (
        [[pos for one in link.partners for pos in sentence.words[one]] for sentence, link, _ in rows],
        [list(sentence.words[other]) for sentence, _, other in rows],
    ):
        edges = [(row, queries, keys) for row, (queries, keys) in enumerate(zip(at, to, strict=True))]
        cut = _without(model, head, edges, taps.values[before], batch)
        found.append(_change(model, clean, _read(model, cut, at)).double().cpu().numpy())
    return np.stack(found)


def _without(
    model: HookedTransformer, head: Head, edges: Sequence[Edge], resid: Tensor, batch: Batch
) -> Float[Tensor, "row pos d_model"]:
    """The last residual where one head's edges are cut, from what enters its layer."""

    def block(scores: Tensor, hook: object) -> Tensor:
        for row, queries, keys in edges:
            grid = torch.meshgrid(torch.tensor(queries), torch.tensor(keys), indexing="ij")
            scores[row, head.head, grid[0], grid[1]] = -torch.inf
        return scores

    site = str(Site("hook_attn_scores", "attn", head.layer, head.stack))
    taps = Taps((), make_writes(model.sites, [(site, block)]))
    cut = _finish(model, Pass(resid=resid, mask=batch.mask, start=head.layer), taps)
    taps.must_have_fired()
    return cut


def _finish(model: HookedTransformer, job: Pass, tap: Tap) -> Float[Tensor, "row pos d_model"]:
    """The last residual of a pass, behind the final norm."""
    job.stop = model.main.config.n_layers
    return model.main.finish(model.run(job, tap), NO_TAPS)


def _read(model: HookedTransformer, resid: Tensor, at: Sequence[Sequence[int]]) -> Float[Tensor, "row width"]:
    """Log-probabilities of the next token at each row's word, or the mean of its tokens' representations."""
    if _predicts(model):
        last = torch.stack([row[places[-1]] for row, places in zip(resid, at, strict=True)])
        return model.logits(last[:, None])[:, 0].log_softmax(dim=-1)
    return torch.stack([row[list(places)].mean(dim=0) for row, places in zip(resid, at, strict=True)])


def _change(model: HookedTransformer, clean: Tensor, cut: Tensor) -> Float[Tensor, " row"]:
    if _predicts(model):
        return 1000 * (clean.exp() * (clean - cut)).sum(dim=-1)
    return (clean - cut).norm(dim=-1) / clean.norm(dim=-1)


def _predicts(model: HookedTransformer) -> bool:
    """Whether there is a next token to read."""
    return attention_kind(model) == "decoder" and model.cfg.has_unembed
