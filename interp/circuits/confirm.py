"""Whether a source made a query or a key matter: replace it in one of them, recompute the norms, run the model on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.explain import Edge
from interp.circuits.places import ReadText, positions_of, token_place
from interp.circuits.prompts import one_token, token_texts
from interp.circuits.sources import Stream, View
from interp.errors import InputError
from interp.results.explanation import AttentionExplanation

__all__ = ["confirmed"]

_SIDES = {"query": "q", "key": "k"}
_LARGEST = 3


@torch.no_grad()
def confirmed(
    edge: Edge,
    found: AttentionExplanation,
    sources: bool | str | Sequence[str],
    view: View,
    replace_with: str,
    answer: int | str | None,
    foil: int | str | None,
    read: int | str | None = None,
) -> AttentionExplanation:
    """The explanation with a table of what happened when sources were replaced, one row for each source and side."""
    if replace_with not in ("mean", "zero"):
        raise InputError(f'replace_with is {replace_with!r}. Choose "mean" or "zero".')
    asked = _asked(found, sources)
    measured = _Answer.of(edge, answer, foil, read)
    before = measured(None)
    streams = {side: edge.stream(letter, _all(edge, letter)) for side, letter in _SIDES.items()}
    kept = {side: stream.whole() for side, stream in streams.items()}
    at = edge.seen.tolist().index(edge.key)
    old = _row(edge, kept["query"][edge.query], kept["key"][edge.seen])
    compared = torch.tensor(found.keys["compared"].to_numpy().copy())
    rows = []
    for side, label in asked:
        new = dict(kept)
        pos = edge.query if side == "query" else edge.key
        new[side] = kept[side].clone()
        new[side][pos] = _replaced(edge, streams[side], side, label, view, pos, replace_with)[pos]
        after = _row(edge, new["query"][edge.query], new["key"][edge.seen])
        metric = measured(after)
        rows.append(
            {
                "side": side,
                "source": label,
                "score": float(old[at]),
                "score_after": float(after[at]),
                "contrast": _contrast(old, at, compared),
                "contrast_after": _contrast(after, at, compared),
                "attention": float(old.softmax(-1)[at]),
                "attention_after": float(after.softmax(-1)[at]),
                "attention_change": float(after.softmax(-1)[at] - old.softmax(-1)[at]),
                "answer": before,
                "answer_after": metric,
                "answer_change": None if metric is None or before is None else metric - before,
            }
        )
    about = {**found.about, "replaced_with": replace_with, **measured.about}
    return replace(found, confirmed=pd.DataFrame(rows), about=about)


def _asked(found: AttentionExplanation, sources: bool | str | Sequence[str]) -> list[tuple[str, str]]:
    """(side, source) pairs: those named, on each side that has them, or the largest of each side."""
    sums = found.marginals()
    sums = sums.loc[~sums["kind"].isin(["bias", "position"])]
    if sources is True:
        largest = sums.groupby("side", sort=False).head(_LARGEST)
        return list(zip(largest["side"], largest["source"], strict=True))
    named = [sources] if isinstance(sources, str) else list(sources) if isinstance(sources, Sequence) else []
    if not named:
        raise InputError(f"confirm is {sources!r}. Give True, the name of a source, or a list of names.")
    for name in named:
        if name not in set(sums["source"]):
            shown = ", ".join(dict.fromkeys(sums["source"].head(8)))
            raise InputError(
                f"confirm names {name!r}, which is no source that can be replaced (biases are the same everywhere). "
                f"There are, for example, {shown}."
            )
    pairs = set(zip(sums["side"], sums["source"], strict=True))
    return [(side, name) for name in named for side in _SIDES if (side, name) in pairs]


def _all(edge: Edge, letter: str) -> Tensor:
    return positions_of(edge.texts[letter].ids)


def _replaced(
    edge: Edge, stream: Stream, side: str, label: str, view: View, pos: int, replace_with: str
) -> Float[Tensor, "pos d_head"]:
    """Queries or keys with one source replaced at one position, norms recomputed."""
    raw = stream.raw(label, view)
    value = torch.zeros_like(raw[pos])
    if replace_with == "mean":
        visible = edge.seen.tolist() if side == "key" or not edge.place.is_cross else range(edge.query + 1)
        others = [one for one in visible if one not in (0, pos)]
        if not others:
            raise InputError(
                f"There is no other position to take the mean of {label} over: the text is too short. "
                'Pass replace_with="zero".'
            )
        value = raw[others].mean(0)
    new = raw.clone()
    new[pos] = value
    return stream.whole({label: new}, view)


def _row(edge: Edge, query: Float[Tensor, " d_head"], keys: Float[Tensor, "seen d_head"]) -> Float[Tensor, " seen"]:
    """The query's scores over the keys that it sees, capped and biased as the model does it."""
    config = edge.place.attn.config
    scores = keys @ (query * config.scale)
    if config.softcap is not None:
        scores = config.softcap * torch.tanh(scores / config.softcap)
    return scores + edge.bias


def _contrast(row: Tensor, at: int, compared: Tensor) -> float | None:
    return float(row[at] - row[compared.to(row.device)].mean()) if bool(compared.any()) else None


class _Answer:
    """Reads the answer's logit, or its difference from the foil's, in a run where one row of scores is set."""

    def __init__(self, edge: Edge, read: int, ids: list[int], about: dict[str, Any]):
        self.edge, self.read, self.ids, self.about = edge, read, ids, about

    @classmethod
    def of(cls, edge: Edge, answer: int | str | None, foil: int | str | None, read: int | str | None) -> _Answer:
        model = edge.model
        if model.unembed is None:
            if any(one is not None for one in (answer, foil, read)):
                raise InputError(
                    f"{model.cfg.model_name} has no head that predicts tokens, so there is no answer to read. "
                    "Leave answer=, foil= and read= out: the change of attention is measured all the same."
                )
            return cls(edge, 0, [], {"metric": None})
        text = _predicted(edge)
        at, why = _place(edge, text, read)
        fills = model.decoder is None  # what stands at the position itself is what is predicted
        before = "".join(text.tokens[: at + (not fills)]).rstrip(" " if fills else "")
        asked = (("answer", answer), ("foil", foil))
        named = [one_token(model, one, what, before) for what, one in asked if one is not None]
        if answer is None:
            if foil is not None:
                raise InputError("There is a foil but no answer. Give both, or neither.")
            logits = model(edge.call[0], unembed_pos=[at], **edge.call[1])
            named = [int(logits[0, 0].argmax())]
        shown = token_texts(model, named)
        about = {"metric": "logit_diff" if len(named) > 1 else "logit", "answer": shown[0]}
        about |= {"foil": shown[1]} if len(named) > 1 else {}
        about |= {"read": at, "read_token": text.tokens[at], "read_because": why}
        about["answer_chosen"] = "the model's own prediction" if answer is None else "given"
        return cls(edge, at, named, about)

    def __call__(self, row: Tensor | None) -> float | None:
        """The metric, with the edge's row of scores replaced where one is given."""
        if not self.ids:
            return None
        edge, head = self.edge, self.edge.place.address.head
        options = {"unembed_pos": [self.read], "unembed_tokens": self.ids, **edge.call[1]}
        hooks = []
        if row is not None:

            def put(scores: Tensor, hook: Any, row: Tensor = row) -> Tensor:
                scores[0, head, edge.query, edge.seen] = row.to(scores.dtype)
                return scores

            hooks = [(f"{edge.place.site}hook_attn_scores", put)]
        logits = edge.model.run_with_hooks(edge.call[0], fwd_hooks=hooks, **options)[0, 0].double()
        return float(logits[0] - logits[1]) if len(self.ids) > 1 else float(logits[0])


def _predicted(edge: Edge) -> ReadText:
    """The text whose tokens the model predicts: the decoder's, where there are two."""
    if edge.place.stack is edge.model.main:
        return edge.texts["q"]
    ids = edge.call[1]["decoder_input"]
    return ReadText(ids, tuple(token_texts(edge.model, ids[0].tolist())))


def _place(edge: Edge, text: ReadText, read: int | str | None) -> tuple[int, str]:
    """Where the answer is read, and why there: as asked; else behind the last token, and in a model that fills gaps
    at its mask token, or without one at the query."""
    model = edge.model
    mask = None if model.tokenizer is None else model.tokenizer.mask_id
    masks = [] if mask is None else [i for i, one in enumerate(text.ids[0].tolist()) if one == mask]
    if read is not None and read != "mask":
        return token_place(text, read, "read"), "as asked"
    if read == "mask" or model.decoder is None:
        if len(masks) == 1:
            return masks[0], "the mask token stands there"
        if read == "mask":
            raise InputError(f'read="mask", but the mask token stands in the text {len(masks)} times. Give an index.')
        return edge.query, "the query stands there (this model reads both ways, and the text has no one mask token)"
    return len(text.tokens) - 1, "the last token, which the prediction follows"
