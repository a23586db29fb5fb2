"""What is walked: one prompt with its counterpart, and other prompts on which its claims are tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import Effects
from interp.stats import bootstrap_interval, item_means

__all__ = ["Outcome", "Setting", "Step", "decide", "make_setting"]

Values = NDArray[np.floating]
SUBJECT = "subject"


@dataclass(frozen=True)
class Outcome:
    """A number on the walked prompt, and over the others with a 95% interval where there are two items or more."""

    here: float
    mean: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0

    def shown(self, unit: str = "share") -> str:
        """As text."""

        def one(value: float) -> str:
            return f"{value:.0%}" if unit == "share" else f"{value:.2f} {unit}".strip()

        if not self.n:
            return one(self.here)
        ends = "" if np.isnan(self.low) else f" ({one(self.low)} to {one(self.high)})"
        return f"{one(self.here)} here, {one(self.mean)}{ends} on {self.n} others"


@dataclass(frozen=True)
class Step:
    """One claim and what became of it."""

    title: str
    claim: str
    intervention: str
    outcome: Outcome
    least: float
    unit: str
    said: str
    details: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""

    def row(self, number: int) -> dict[str, Any]:
        """A row of the result's table."""
        one = self.outcome
        verdict = self.verdict or decide(one, self.least)
        numbers = {"here": one.here, "mean": one.mean, "low": one.low, "high": one.high, "n": one.n}
        words = {"title": self.title, "claim": self.claim, "intervention": self.intervention}
        return {"step": number, **words, **numbers, "least": self.least, "unit": self.unit, "verdict": verdict,
                "said": self.said}  # fmt: skip


def decide(one: Outcome, least: float) -> str:
    """Supports: here and on average elsewhere at least what was asked, and the interval above 0. Contradicts: the
    interval elsewhere lies below what was asked (without others: the walked prompt does). Else it cannot tell."""
    if np.isnan(one.here):
        return "not measured"
    if one.n == 0:
        return "supports" if one.here >= least else "contradicts"
    if one.here >= least and one.mean >= least and one.low > 0:
        return "supports"
    return "contradicts" if one.high < least else "cannot tell"


@dataclass(frozen=True)
class Setting:
    """The walked pair (one), others of the same kind (or None), and what steps hand on to later ones."""

    model: HookedTransformer
    case: PromptPairs
    others: PromptPairs | None
    about: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def both(self) -> list[PromptPairs]:
        """The walked prompt, and the others where there are some."""
        return [self.case] if self.others is None else [self.case, self.others]

    @property
    def n_layers(self) -> int:
        return self.model.main.config.n_layers

    @property
    def third(self) -> int:
        """A third of the depth, at least one layer."""
        return max(1, self.n_layers // 3)

    @property
    def subject(self) -> int:
        """The last token of the subject in the walked prompt."""
        return self.case.span(f"{SUBJECT}:last", 0)[0]

    @property
    def movers(self) -> list[str]:
        """Heads that an earlier step chose, the strongest first."""
        return self.known("movers")

    def known(self, name: str) -> Any:
        """What an earlier step found; `InputError` where that was not measured."""
        if name not in self.found:
            raise InputError(f"an earlier step, which this one goes on from, was not measured ({name}).")
        return self.found[name]

    def spread(self, values: list[Values]) -> Outcome:
        """One value per prompt, of the walked one and of the others."""
        here = float(values[0][0])
        if len(values) == 1:
            return Outcome(here)
        return Outcome(here, *self._interval(values[1][:, None], None), len(values[1]))

    def shares(self, effects: list[Effects], **where: Any) -> Outcome:
        """The share of clean − corrupt that one cell of a noising takes away; of the others the ratio of the means."""
        cells = [one.values.sel(**where) if where else one.values.squeeze() for one in effects]
        flat = [np.asarray(cell.values, dtype=float).reshape(-1) for cell in cells]
        gaps = [_gap(one) for one in effects]
        here = float(flat[0][0] / gaps[0][0])
        if len(flat) == 1:
            return Outcome(here)
        return Outcome(here, *self._interval(flat[1][:, None], gaps[1][:, None]), len(flat[1]))

    def _interval(self, values: Values, divisor: Values | None) -> tuple[float, float, float]:
        assert self.others is not None
        items = np.array(self.others.items)
        by_item = item_means(values, items)
        below = None if divisor is None else item_means(divisor, items)
        mean = float(np.nanmean(by_item) / (1.0 if below is None else np.nanmean(below)))
        if len(by_item) < 2:
            return mean, float("nan"), float("nan")
        low, high = bootstrap_interval(by_item, divisor=below)
        return mean, float(low[0]), float(high[0])


def _gap(effects: Effects) -> Values:
    assert effects.base is not None and effects.source is not None
    return effects.source - effects.base


def make_setting(
    model: HookedTransformer,
    text: str,
    answer: Any,
    foil: Any,
    corrupt: str,
    others: PromptPairs | Literal["capitals"] | None,
    n: int,
    seed: int,
) -> Setting:
    """Check the pair, name its subject (where the two prompts differ), and fetch the other prompts."""
    if model.encoder is not None or model.decoder is None:
        raise InputError("A walk needs a model that predicts the next word: a decoder without an encoder.")
    if model.tokenizer is None:
        raise InputError("This model has no tokenizer, so it cannot read a text.")
    pair = PromptPairs.from_text(model, text, corrupt, answer, foil)
    if any(len(one[0][0]) != 1 for one in (pair.answer, pair.foil)):
        raise InputError(
            f"The answer {pair.spell(pair.answer[0][0])} and the foil {pair.spell(pair.foil[0][0])} have to be one "
            "token each. Choose others."
        )
    apart = [i for i, (a, b) in enumerate(zip(pair.clean[0], pair.corrupt[0], strict=True)) if a != b]
    if not apart:
        raise InputError("The text and its corrupt twin are the same. Exchange the word that the answer depends on.")
    if apart[-1] >= pair.read[0]:
        raise InputError("The two texts differ in their last token, so there is nothing between subject and answer.")
    span = tuple(range(apart[0], apart[-1] + 1))
    case = PromptPairs.from_text(model, text, corrupt, answer, foil, positions={SUBJECT: list(span)})
    about = {
        "model": model.cfg.model_name,
        "text": text,
        "corrupt": corrupt,
        "answer": model.tokenizer.decode([case.answer[0][0][0]]),
        "foil": model.tokenizer.decode([case.foil[0][0][0]]),
        "subject": model.tokenizer.decode(list(case.clean[0][span[0] : span[-1] + 1])),
        "tokens": model.tokenizer.str_tokens(list(case.clean[0])),
        "seed": seed,
    }
    said = "none"
    if isinstance(others, str):
        if others != "capitals":
            raise InputError(f'others is {others!r}. Give PromptPairs, "capitals", or None.')
        others, said = _capitals(model, case, n, seed), "capitals of other countries, in other frames"
    elif others is not None:
        said = "the pairs given"
        if SUBJECT not in others.positions or not others.answer or not others.foil:
            raise InputError('The other pairs need an answer, a foil, and a position named "subject".')
    about |= {"others": said, "n_others": 0 if others is None else len(others)}
    return Setting(model, case, others, about)


def _capitals(model: HookedTransformer, case: PromptPairs, n: int, seed: int) -> PromptPairs | None:
    """Countries whose capital the model knows and that is one token, each against the next in the same frame."""
    from interp.tasks import load

    task = load("fact_recall", model, n=75, seed=seed, bos=False, relations="capital", corruption="subject")
    pairs, taken = task.pairs, {case.answer[0], case.foil[0]}
    assert pairs is not None
    groups: dict[tuple[str, int, tuple[int, ...]], list[int]] = {}
    for i in range(len(pairs)):
        if len(pairs.answer[i][0]) == 1 and pairs.answer[i] not in taken:
            key = pairs.templates[i], len(pairs.clean[i]), pairs.positions[SUBJECT][i]
            groups.setdefault(key, []).append(i)
    # In turn from each group, so that no frame has most of them.
    rows = [(k, i, group[(k + 1) % len(group)]) for group in groups.values() if len(group) > 1
            for k, i in enumerate(group)]  # fmt: skip
    rows = sorted(rows, key=lambda row: row[0])[:n]
    if len(rows) < 2:
        return None
    own, other = [i for _, i, _ in rows], [j for _, _, j in rows]
    return PromptPairs.from_tokens(
        [list(pairs.clean[i]) for i in own],
        [list(pairs.clean[j]) for j in other],
        [pairs.answer[i][0][0] for i in own],
        [pairs.answer[j][0][0] for j in other],
        positions={SUBJECT: [list(pairs.positions[SUBJECT][i]) for i in own]},
        items=[pairs.items[i] for i in own],
        templates=[pairs.templates[i] for i in own],
        model=model,
    )
