"""How a model does on minimal pairs: whether the good sentence is the likelier one."""

from __future__ import annotations

from typing import Any

from interp.model.kinds import attention_kind
from interp.model.transformer import HookedTransformer
from interp.readers.blimp import MinimalPairs
from interp.readers.scoring import Progress, score_sentences
from interp.readers.tally import CLOSED, how_scored, pieces_note, tally
from interp.results.evaluation import Evaluation

__all__ = ["on_pairs"]

_MEASURES = {
    "accuracy": "share of pairs whose good sentence has the higher log p; a tie is wrong",
    "normalised": "the same with log p divided by the number of tokens",
}
_LEAVES_OUT = (
    "Pairs of a paradigm share their grammar and their words, which intervals over pairs ignore. The prefix "
    "methods are not measured."
)


def on_pairs(
    model: HookedTransformer,
    data: MinimalPairs,
    *,
    batch_size: int,
    bos: bool | None,
    seed: int,
    progress: Progress | None,
) -> Evaluation:
    texts = [side for one in data for side in (one.good, one.bad)]
    scores = score_sentences(model, texts, batch_size=batch_size, bos=bos, progress=progress)
    good, bad = scores.log_probs[::2], scores.log_probs[1::2]
    n_good, n_bad = scores.n_tokens[::2], scores.n_tokens[1::2]
    rows = data.to_frame()[["uid", "pair_id", "phenomenon", "field", "good", "bad"]].assign(
        log_prob_good=good, log_prob_bad=bad, n_tokens_good=n_good, n_tokens_bad=n_bad
    )
    tie = good == bad  # the same tokens are scored once, so ties are not a matter of rounding
    rows = rows.assign(right=good > bad, right_normalised=good / n_good > bad / n_bad, tie=tie)
    frame = tally(
        {"accuracy": (good > bad).astype(float), "normalised": (good / n_good > bad / n_bad).astype(float)},
        [f"{one.uid} {one.pair_id}" for one in data],
        {
            "UID": [one.uid for one in data],
            "phenomenon": [one.phenomenon for one in data],
            "field": [one.field for one in data],
        },
        seed,
        sums={"ties": tie.astype(float)},
    )
    twice = sum(one.good == one.bad for one in data)
    said = f" {twice} pairs hold the same sentence twice, so they are ties whatever the model." if twice else ""
    about: dict[str, Any] = {
        "data": "minimal pairs",
        "item": "the pair",
        "method": how_scored(model, bos),
        "measures": _MEASURES,
        "units": dict.fromkeys(_MEASURES, "share of pairs"),
        "counts": {"ties": "pairs of equal log p"},
        "left_out": {"pairs of the same sentence twice": twice},
        "leaves_out": _LEAVES_OUT + said + _first_words(data, bos, model) + pieces_note(model) + CLOSED,
    }
    return Evaluation(frame, rows, about)


def _first_words(data: MinimalPairs, bos: bool | None, model: HookedTransformer) -> str:
    """Without BOS the first token is not scored: of how many pairs that may decide."""
    n = sum(one.good.split()[0] != one.bad.split()[0] for one in data)
    if bos or attention_kind(model) == "encoder" or not n:
        return ""
    return f" No BOS stands in front, so first tokens are not scored; {n} pairs differ in the first word."
