"""How many facts a model goes on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs.answers import answer_ids
from interp.readers.facts import Fact, Facts
from interp.readers.scoring import Asked, Given, Progress, score_tokens
from interp.readers.tally import CLOSED, Column, tally
from interp.results.evaluation import Evaluation

__all__ = ["on_facts"]

_MEASURES = {
    "top1": "share of facts whose attribute begins with the likeliest next token; a tie is wrong",
    "whole": "share whose whole attribute is what greedy decoding gives",
    "log_prob": "mean log p of the whole attribute, in nats",
    "above_new": "share whose attribute has a higher log p than target_new",
}
_LEAVES_OUT = (
    "Another right answer, another spelling or an article before the attribute counts as wrong, and one prompt says "
    "little of what is known: paraphrases are read but not measured."
)


def on_facts(
    model: HookedTransformer, data: Facts, *, batch_size: int, bos: bool | None, seed: int, progress: Progress | None
) -> Evaluation:
    asked = [_follow(model, one, one.attribute, bos) for one in data]
    asked_new = [None if one.target_new is None else _follow(model, one, one.target_new, bos) for one in data]
    flat = list(dict.fromkeys(one for one in (*asked, *asked_new) if one is not None))
    if not any(asked):
        raise InputError("No attribute of these facts is in this model's vocabulary, so there is nothing to evaluate.")
    given = dict(zip(flat, score_tokens(model, flat, batch_size=batch_size, progress=progress), strict=True))
    true, new = ([None if one is None else given[one] for one in several] for several in (asked, asked_new))
    rank = _column(true, lambda one: one.ranks[0])
    log_prob, newer = (_column(one, lambda it: it.log_probs.sum()) for one in (true, new))
    whole = _column(true, lambda one: (one.ranks == 1).all())
    compared = ~np.isnan(log_prob - newer)
    measures = {
        "top1": np.where(np.isnan(rank), np.nan, (rank == 1).astype(float)),
        "whole": whole,
        "log_prob": log_prob,
        "above_new": np.where(compared, (log_prob > newer).astype(float), np.nan),
    }
    if not compared.any():
        del measures["above_new"]
    relations = {"relation": [one.relation for one in data]}
    frame = tally(measures, [one.subject for one in data], relations, seed, medians={"median_rank": rank})
    rows = data.to_frame()[["id", "prompt", "subject", "attribute", "relation", "target_new"]].assign(
        n_tokens=[0 if one is None else len(one.tokens) for one in asked],
        rank=rank,
        log_prob=log_prob,
        log_prob_new=newer,
        whole=whole,
    )
    unknown = sum(one is None for one in asked)
    said = f" {unknown} facts have an attribute outside the vocabulary and are not scored." if unknown else ""
    about: dict[str, Any] = {
        "data": "facts",
        "item": "the subject",
        "method": f"The attribute is asked for behind the prompt{', with BOS in front' if bos else ''}.",
        "measures": {name: _MEASURES[name] for name in measures},
        "units": {name: "nats" if name == "log_prob" else "share of facts" for name in measures},
        "counts": {"median_rank": "median rank of the attribute's first token among all tokens, without interval"},
        "left_out": {"attributes outside the vocabulary": unknown},
        "leaves_out": _LEAVES_OUT + said + CLOSED,
    }
    return Evaluation(frame, rows, about)


def _follow(model: HookedTransformer, fact: Fact, answer: str, bos: bool | None) -> Asked | None:
    """The answer's tokens read behind a fact's prompt; None where the vocabulary has no such tokens."""
    row = tuple(model.tokenizer.encode(fact.prompt, prepend_bos=bos))
    wanted = answer_ids(model.tokenizer, answer, fact.prompt)
    if not wanted or model.tokenizer.unk_id in wanted:
        return None
    whole = (*row, *wanted[:-1])
    if len(whole) > model.cfg.n_ctx or max(*whole, *wanted) >= model.cfg.d_vocab:
        raise InputError(
            f"{fact.path}, line {fact.line}: with its answer the prompt has {len(whole)} tokens, up to id "
            f"{max(*whole, *wanted)}; this model reads at most {model.cfg.n_ctx}, of ids to {model.cfg.d_vocab - 1}. "
            "Take the fact out, or load the model with its own tokenizer."
        )
    return Asked(whole, tuple(range(len(row) - 1, len(whole))), wanted)


def _column(given: Sequence[Given | None], measure: Callable[[Given], Any]) -> Column:
    return np.array([np.nan if one is None else float(measure(one)) for one in given])
