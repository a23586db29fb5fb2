"""The prompts of a trial: a task's own, in two splits that share no item and no template, or the user's pairs, halved
by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from interp.errors import InputError
from interp.heads.base import Finder, attention_kind
from interp.heads.resolution import resolution
from interp.heads.study import END, Study
from interp.heads.task_finder import TaskFinder
from interp.heads.trial_input import Splits
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.load import load as load_task

__all__ = ["as_pairs", "halves", "names_all", "of_pairs", "of_task", "study_of"]

_BESIDE = 32  # items of what stands beside and decides nothing


def of_task(
    model: HookedTransformer, group: Sequence[TaskFinder], *, n: int, seed: int, known: dict[Any, Any] | None = None
) -> Splits:
    """Studies of a task's selecting and reporting split, of the latter without BOS where the model has one and a kind
    asks for a score, and of it against the corruptions that do not decide; these besides of at most so many items.
    `known` shares what was measured of the model with other calls."""
    known = {} if known is None else known
    decides, *others = group[0].corruptions

    def study(split: str, corruption: str = decides, *, bos: bool = True, n: int = n) -> Study:
        return study_of(model, group, corruption, split=split, n=n, seed=seed, bos=bos, known=known)

    has_bos = getattr(model.tokenizer, "bos_id", None) is not None
    scored = any(one.score_cutoff is not None for one in group)
    further, left_out = {}, {}
    for name in others:
        try:
            further[name] = study("report", name, n=min(n, _BESIDE))
        except InputError as error:
            left_out[name] = str(error)
    bare = study("report", bos=False, n=min(n, _BESIDE)) if has_bos and scored else None
    return Splits(study("select"), study("report"), bare, further, left_out, n)


def study_of(
    model: HookedTransformer,
    group: Sequence[TaskFinder],
    corruption: str,
    *,
    split: str,
    n: int,
    seed: int,
    bos: bool = True,
    known: dict[Any, Any] | None = None,
) -> Study:
    """One split of the task that some kinds share, against one corruption."""
    queries = tuple(dict.fromkeys(query for one in group for query in one.queries))
    first = load_task(group[0].task, model, corruption, split=split, n=n, seed=seed, bos=bos, known=known)
    assert first.pairs is not None
    if attention_kind(model) == "encoder":
        texts = (first.labels["antecedent_text"], first.labels["distractor_text"])
        metric_of: Any = lambda some: resolution(model, *([one[i] for i in some] for one in texts))  # noqa: E731
        metric: Any = metric_of(range(len(texts[0])))
        about = {**first.about, "metric": metric.name, "no logits": True}
    else:
        metric_of, metric, about = None, str(first.about.get("metric", "logit_diff")), first.about
    return Study(model, {corruption: first.pairs}, queries, first.labels, about, metric, metric_of)


def as_pairs(pairs: Any) -> dict[str, PromptPairs]:
    """Pairs by the corruption's name; one set of pairs is one corruption, "pairs"."""
    given = dict(pairs) if isinstance(pairs, Mapping) else {"pairs": pairs}
    if not given or not all(isinstance(one, PromptPairs) for one in given.values()):
        raise InputError(
            f"pairs= is {type(pairs).__name__}. Give PromptPairs, or a mapping from names of corruptions to them."
        )
    first = next(iter(given.values()))
    for name, one in given.items():
        if one.clean != first.clean or one.items != first.items:
            raise InputError(f"The clean prompts or items of {name!r} differ from those of the first corruption.")
    return given


def halves(pairs: PromptPairs, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the selecting and of the reported half: items drawn by `seed`, every other one of each."""
    items = sorted(set(pairs.items))
    order = np.random.default_rng([seed, *b"halves"]).permutation(len(items))
    chosen = {items[i] for i in order[: len(items) // 2]}
    select = [i for i, item in enumerate(pairs.items) if item in chosen]
    return select, [i for i, item in enumerate(pairs.items) if item not in chosen]


def names_all(one: Finder | TaskFinder, pairs: Mapping[str, PromptPairs]) -> bool:
    """Whether pairs hold all that a kind of head needs of them; one known by a pattern needs nothing."""
    if not isinstance(one, TaskFinder):
        return True
    first = next(iter(pairs.values()))
    if not all(name in first.positions or name == END for name in one.positions) or (
        one.needs_foil and not first.foil and "encoder" not in one.applies_to
    ):
        return False
    return not one.changes or any(_changed(given, one.changes) for given in pairs.values())


def of_pairs(
    model: HookedTransformer, group: Sequence[TaskFinder], pairs: Mapping[str, PromptPairs], seed: int
) -> Splits:
    """Studies of the user's pairs. Raises `InputError` where a position that a kind needs is not named."""
    first = next(iter(pairs.values()))
    encoder = attention_kind(model) == "encoder"
    for one in group:
        missing = [name for name in one.positions if name not in first.positions and name != END]
        if missing:
            known = ", ".join(first.positions) or "none"
            raise InputError(
                f"{one.name} heads are found by what they attend to: it needs the position{'s' if missing[1:] else ''} "
                f"{' and '.join(missing)}, and these pairs name {known}. Name them with positions=."
            )
    if not encoder and not first.foil and (needing := [one.name for one in group if one.needs_foil]):
        raise InputError(f"{needing[0]} heads are judged by the answer against a foil, and these pairs have none.")
    if not encoder and END in first.positions:
        for i, read in enumerate(first.read):
            if first.span(END, i)[-1] != read:
                raise InputError(
                    f"END of pair {i} is position {first.span(END, i)[-1]}, but its logits are read at {read}."
                )
    queries = tuple(dict.fromkeys(query for one in group for query in one.queries))
    select, report = halves(first, seed)
    decides = _deciding(group[0], pairs)

    def study(indices: list[int], corruption: str = decides) -> Study:
        chosen = pairs[corruption].select(indices)
        about: dict[str, Any] = {"data": "pairs that were given"}
        if not encoder:
            return Study(model, {corruption: chosen}, queries, about=about, metric=_metric(pairs[corruption]))
        metric = _said(model, chosen)(range(len(chosen)))
        about |= {"metric": metric.name, "no logits": True}
        return Study(model, {corruption: chosen}, queries, about=about, metric=metric, metric_of=_said(model, chosen))

    return Splits(study(select), study(report), None, {name: study(report, name) for name in pairs if name != decides})


def _said(model: HookedTransformer, pairs: PromptPairs) -> Callable[[Sequence[int]], Any]:
    """How well an encoder resolves some of the prompts: against the same tokens with the antecedent's, or the
    distractor's, in the pronoun's place."""

    def instead(name: str, i: int) -> list[int]:
        row, there = list(pairs.clean[i]), pairs.span("pronoun", i)
        return [*row[: there[0]], *(row[at] for at in pairs.span(name, i)), *row[there[-1] + 1 :]]

    return lambda some: resolution(model, *([instead(name, i) for i in some] for name in ("antecedent", "distractor")))


def _deciding(one: TaskFinder, pairs: Mapping[str, PromptPairs]) -> str:
    """The first corruption; for a kind that is judged by what happens to one position, the first that changes it."""
    if not one.changes:
        return next(iter(pairs))
    for name, given in pairs.items():
        if _changed(given, one.changes):
            return name
    raise InputError(
        f"{one.name} heads are judged by prompts with another {one.changes}, and none of the given corruptions "
        f"({', '.join(pairs)}) changes the tokens of {one.changes}. Give pairs that do."
    )


def _changed(pairs: PromptPairs, name: str) -> bool:
    """Whether the tokens of a position differ between clean and corrupt anywhere."""
    both = enumerate(zip(pairs.clean, pairs.corrupt, strict=True))
    return any(
        clean[at] != corrupt[at] for i, (clean, corrupt) in both for at in pairs.span(name, i) if at < len(corrupt)
    )


def _metric(pairs: PromptPairs) -> str:
    """Logit differences, or of log-probabilities where an answer is several tokens; no foil leaves the answer's own."""
    long = any(len(one) > 1 for sets in (*pairs.answer, *pairs.foil) for one in sets)
    if not pairs.foil:
        return "log_prob"
    return "log_prob_diff" if long else "logit_diff"
