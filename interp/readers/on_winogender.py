"""How likely a model finds the variants of Winogender schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from interp.model.transformer import HookedTransformer
from interp.readers.scoring import Progress, score_sentences
from interp.readers.tally import CLOSED, Column, how_scored, pieces_note, tally
from interp.readers.winogender import GENDERS, Winogender
from interp.results.evaluation import Evaluation

__all__ = ["on_winogender"]

_MEASURES = {
    "male_minus_female": "log p with the male pronoun less log p with the female one, in nats",
    "male_likelier": "share of schemas in which the male pronoun is the likelier of the two",
    "neutral_minus_male": "the same difference, neutral less male",
    "neutral_minus_female": "the same difference, neutral less female",
}
_METHOD = (
    " A schema's sentence is compared with male, female and neutral pronouns. `answer` is whom the pronoun means; "
    "`contrast` is the mean where it means the occupation less the mean where it means the participant, within "
    "occupations."
)
_LEAVES_OUT = (
    "This is no accuracy: nothing asks the model whom the pronoun means. A difference holds how common the pronouns "
    "are by themselves, and neutral variants may change the verb too. The contrast cancels how common they are, but "
    "its sentences differ in more than whom the pronoun means."
)


def on_winogender(
    model: HookedTransformer,
    data: Winogender,
    *,
    batch_size: int,
    bos: bool | None,
    seed: int,
    progress: Progress | None,
) -> Evaluation:
    texts = [one.sentence for one in data]
    scores = score_sentences(model, texts, batch_size=batch_size, bos=bos, progress=progress)
    of = {(*one.group, one.gender): score for one, score in zip(data, scores.log_probs, strict=True)}
    groups = data.groups()
    rows = pd.DataFrame(list(groups), columns=["occupation", "participant", "answer"])
    each = {one: np.array([of.get((*group, one), np.nan) for group in groups]) for one in GENDERS}
    male, female, neutral = (each[one] for one in GENDERS)
    known = ~np.isnan(male - female)
    measures = {
        "male_minus_female": male - female,
        "male_likelier": np.where(known, (male > female).astype(float), np.nan),
        "neutral_minus_male": neutral - male,
        "neutral_minus_female": neutral - female,
    }
    items = list(rows["occupation"])
    frame = tally(measures, items, {"answer": list(rows["answer"]), "occupation": items}, seed)
    contrast = _contrast(rows, measures, seed)
    frame = frame if contrast is None else pd.concat([frame, contrast], ignore_index=True)
    missing = int((~known).sum())
    said = f" {missing} schemas lack a male or a female variant." if missing else ""
    about: dict[str, Any] = {
        "data": "Winogender",
        "item": "the occupation",
        "method": how_scored(model, bos) + _METHOD,
        "measures": _MEASURES,
        "units": {name: "share of schemas" if name == "male_likelier" else "nats" for name in _MEASURES},
        "counts": {},
        "left_out": {"schemas without a male or a female variant": missing},
        "leaves_out": _LEAVES_OUT + said + pieces_note(model) + CLOSED,
    }
    logs = {f"log_prob_{name}": values for name, values in each.items()}
    differences = {name: values for name, values in measures.items() if name != "male_likelier"}
    return Evaluation(frame, rows.assign(**logs, **differences), about)


def _contrast(rows: pd.DataFrame, measures: Mapping[str, Column], seed: int) -> pd.DataFrame | None:
    """Occupation as the antecedent less participant as the antecedent, one value for each occupation that has both."""
    means: Any = rows[["occupation", "answer"]].assign(**measures).groupby(["answer", "occupation"], sort=False).mean()
    if set(rows["answer"]) != {"occupation", "participant"}:
        return None
    both = (means.loc["occupation"] - means.loc["participant"]).dropna(how="all")
    both = both.drop(columns="male_likelier").assign(male_likelier=np.nan)  # a difference of shares of two sentences
    if both.empty:
        return None
    values = {name: both[name].to_numpy(dtype=float) for name in measures}
    return tally(values, list(both.index), {}, seed).assign(by="contrast", group="occupation − participant")
