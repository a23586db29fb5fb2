"""`find_heads`: score every head by its attention, see what it writes, and put the best to the test against others."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.data import text_windows
from interp.heads.keep import Kept
from interp.heads.pattern_search import PatternSettings, search_patterns
from interp.heads.rows import SET_COLUMNS
from interp.heads.splits import as_pairs, halves, names_all, of_pairs, of_task
from interp.heads.syntax import SyntaxFinder
from interp.heads.syntax_corpus import is_labelled, is_parsed
from interp.heads.syntax_search import SyntaxSettings, search_syntax
from interp.heads.task_finder import TaskFinder
from interp.heads.trial import run_trial
from interp.heads.trial_input import TrialSettings
from interp.heads.verdicts import Cutoffs, cutoffs_of, judge
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import HeadScores
from interp.results.heads import all_items
from interp.stats import benjamini_hochberg, smallest_p

__all__ = ["BASIC_KINDS", "find_heads"]

AnyFinder = Finder | TaskFinder | SyntaxFinder
Progress = Callable[[str, int, int], None]
BASIC_KINDS = ("previous_token", "duplicate_token", "induction", "sink")


def find_heads(
    model: HookedTransformer,
    kinds: str | Sequence[str] = BASIC_KINDS,
    *,
    pairs: Any = None,
    corpus: Any = None,
    n: int = 32,
    screen: str = "attention",
    top: int = 8,
    n_random_sets: int = 5,
    per_item: int = 2,
    alpha: Any = 0.05,
    cutoffs: Any = None,
    seed: Any = 0,
    keep: Any = None,
    progress: Progress | None = None,
) -> HeadScores:
    """Find heads of some kinds ("all" for every kind that suits the model) and test them by intervention.

    1. Every head's attention score on `n` items; the best `top` of each kind are chosen, by it and, for kinds of a
       task, by an estimate of their effect. `screen`: "attention"; "exact" (kinds of a task: by the exact effect of
       every head on at most 50 items); "none" tests every head.
    2. The score of all heads again on `n` other items (of a task: of other templates too), with 95% intervals, with
       and without BOS; what they write.
    3. The chosen heads are tested, each alone and together. Kinds known by a pattern: set to their mean output; the
       effect is the harm to a behaviour (see `about["causes"]`). Kinds of a task: exchanged with the corrupt run in
       both directions, and ablated by the mean and by resampling. Controls: other heads of the same layers, and
       `n_random_sets` random sets from the same layers. p by sign flips of items on the harm beyond the controls',
       corrected over all heads tested by the max-statistic and over kinds by Bonferroni; q by Benjamini-Hochberg.

    Of a task, at most `per_item` prompts of each item are put to interventions (in as many orders as can be): items are
    the unit of evidence, prompts of one item are cheap only to look at.

    A verdict names the kind only if score, writing and effect pass its cutoffs (`cutoffs={"induction": {"score": .5}}`
    changes them) and the corrected p is at most `alpha`; `reason` says what failed. `pairs`: the user's own
    PromptPairs, or a mapping from corruptions to them (the first decides), with the named positions that the kinds
    need; halved by item, `n` is not used. `corpus` is a file, folder or list of files of the user's own text; for
    `syntax` also CoNLL-U files or `LabelledTokens`. `keep`: a folder where each finished task is kept, so that the
    same call goes on from there. Same seed, same numbers.
    Raises `InputError` for an unknown kind, or too few items to reject anything.
    """
    given = None if pairs is None else as_pairs(pairs)
    found = _kinds(model, kinds, given, corpus)
    settings = {"n": n, "screen": screen, "top": top, "n_random_sets": n_random_sets, "per_item": per_item}
    settings |= {"alpha": alpha, "seed": seed}
    _check(found, model, **settings)
    _check_items(found, n, None if given is None else len(set(next(iter(given.values())).items)), alpha)
    limits = cutoffs_of(found, cutoffs)
    report = progress or (lambda stage, done, total: None)
    kept = Kept.of(keep, model, settings, given, corpus, [one.name for one in found])
    parts: list[HeadScores] = []
    known: dict[Any, Any] = {}
    for group in _groups(found):
        if (done := kept.get(group)) is None:
            done = _search(model, group, given, corpus, settings, len(found), report, known)
            kept.put(group, done)
        parts.append(done)
    frame = _rows([one.frame for one in parts])
    sets = _rows([one.sets for one in parts])
    about = _about(model, found, limits, corpus, settings, given)
    for one in parts:
        for name, value in one.about.items():
            about[name] = {**about.get(name, {}), **value} if isinstance(value, dict) else value
    for name, words in zip(
        ("verdict", "reason", "decided_by"), judge(found, frame, sets, limits, alpha, about), strict=True
    ):
        frame[name] = pd.Series(words, index=frame.index, dtype="str")  # words also where there is no row
    frame["q"] = benjamini_hochberg(_smallest(found, frame).to_numpy(dtype=float))
    order = {one.name: i for i, one in enumerate(found)}
    frame = frame.sort_values("kind", key=lambda kind: kind.map(order), kind="stable").reset_index(drop=True)
    sets = sets.sort_values("kind", key=lambda kind: kind.map(order), kind="stable").reset_index(drop=True)
    tables = {name: table for one in parts for name, table in one.tables.items()}
    return HeadScores(frame, sets, about, tables, all_items([one.items for one in parts if len(one.items)]))


def _smallest(found: Sequence[AnyFinder], frame: pd.DataFrame) -> pd.Series:
    """The p of each row: the smallest of the measures that may decide, each corrected for their number."""
    further = {f"{name}_p" for one in found if isinstance(one, TaskFinder) for name in one.test.decisive[1:]}
    return frame[["p", *sorted(further & set(frame.columns))]].min(axis=1)


def _rows(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows; a table without any says nothing about the types of columns."""
    return pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)


def _kinds(
    model: Any, kinds: str | Sequence[str], given: Mapping[str, PromptPairs] | None, corpus: Any
) -> list[AnyFinder]:
    """The kinds asked for; each must suit the model. "all": those that suit it, and whose positions the pairs name, or
    that can read the corpus."""
    if not isinstance(model, HookedTransformer):
        raise InputError(f"find_heads takes a loaded model, not {model!r}. Load it first: interp.load(…).")
    if kinds == "all":
        every = [one for one in finders().values() if _suits(one, model, given, corpus)]
        if not every:
            of = "" if given is None else " by the positions that these pairs name"
            raise InputError(f"No kind of head can be found in {model.cfg.model_name}{of}.")
        return every
    found = [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    if not found:
        raise InputError("No kinds were asked for. Name at least one, e.g. kinds=['induction'].")
    for one in found:
        if isinstance(one, SyntaxFinder):
            one.must_apply_to(model, corpus)
        else:
            one.must_apply_to(model)
        if isinstance(one, SyntaxFinder) and given is not None:
            raise InputError("syntax heads are found on whole sentences, not on pairs. Leave syntax out, or pairs=.")
        if _reads_text(one) and _has_trees(corpus):
            raise InputError(
                f"corpus= holds sentences with trees, which {one.name} cannot read: it takes plain text. "
                "Search for syntax in a call of its own."
            )
    return found


def _reads_text(one: AnyFinder) -> bool:
    return isinstance(one, Finder) and one.make_data is text_windows


def _has_trees(corpus: Any) -> bool:
    return is_labelled(corpus) or is_parsed(corpus)


def _suits(one: AnyFinder, model: HookedTransformer, given: Mapping[str, PromptPairs] | None, corpus: Any) -> bool:
    if isinstance(one, SyntaxFinder):
        return given is None and one.suits(model, corpus)
    if (given is not None and not names_all(one, given)) or (_reads_text(one) and _has_trees(corpus)):
        return False
    try:
        one.must_apply_to(model)
    except InputError:
        return False
    return True


def _groups(found: Sequence[AnyFinder]) -> list[list[AnyFinder]]:
    """Kinds that share their passes: those known by a pattern, syntax, and those of each task."""
    groups: dict[object, list[AnyFinder]] = {}
    for one in found:
        key = (one.heading, one.corruptions) if isinstance(one, TaskFinder) else type(one).__name__
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _search(
    model: HookedTransformer,
    group: Sequence[AnyFinder],
    given: Mapping[str, PromptPairs] | None,
    corpus: Any,
    settings: Mapping[str, Any],
    n_kinds: int,
    report: Progress,
    known: dict[Any, Any],
) -> HeadScores:
    """The rows of some kinds that share their passes, verdicts still to come. `known`: what was measured before."""
    if isinstance(group[0], SyntaxFinder):
        return _search_syntax(model, group[0], corpus, settings, n_kinds, report)
    chosen = {name: settings[name] for name in ("top", "n_random_sets", "screen", "seed")}
    per_item = settings["per_item"]
    trials = [one for one in group if isinstance(one, TaskFinder)]
    if trials:
        splits = (
            of_pairs(model, trials, given, settings["seed"])
            if given is not None
            else of_task(model, trials, n=settings["n"], seed=settings["seed"], known=known)
        )
        done = run_trial(trials, splits, TrialSettings(**chosen, n_kinds=n_kinds, per_item=per_item), report)
        return HeadScores(done.frame, done.sets, done.about, done.tables, done.items)
    patterns = [one for one in group if isinstance(one, Finder)]
    both = None
    if given is not None:
        first = next(iter(given.values()))
        select, rest = halves(first, settings["seed"])
        both = first.select(select), first.select(rest)
    asked = PatternSettings(**chosen, n=settings["n"], n_kinds=n_kinds)
    frame, sets, causes, items = search_patterns(model, patterns, asked, corpus=corpus, pairs=both, progress=report)
    return HeadScores(frame, sets, {"causes": causes}, items=items)


def _search_syntax(
    model: HookedTransformer,
    one: SyntaxFinder,
    corpus: Any,
    settings: Mapping[str, Any],
    n_kinds: int,
    report: Progress,
) -> HeadScores:
    asked = {name: settings[name] for name in ("n", "seed", "alpha")}
    sentences = one.sentences(model, corpus, n_kinds=n_kinds, **asked)
    how = SyntaxSettings(settings["n"], settings["top"], settings["screen"], settings["seed"], n_kinds)
    done = search_syntax(model, sentences, how, report, one.stages[0])
    return HeadScores(done.frame, pd.DataFrame(columns=list(SET_COLUMNS)), done.about, done.tables, done.items)


def _check(
    found: Sequence[Any],
    model: Any,
    *,
    n: Any,
    screen: str,
    top: Any,
    n_random_sets: Any,
    per_item: Any,
    alpha: Any,
    seed: Any,
) -> None:
    if screen not in ("attention", "exact", "none"):
        raise InputError(
            f'screen is {screen!r}. Choose "attention" (test the top heads), "exact" (kinds of a task: the top '
            'heads by their exact effect) or "none" (test every head).'
        )
    for name, value in (("n", n), ("top", top), ("n_random_sets", n_random_sets), ("per_item", per_item)):
        if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and name != "n"):
            raise InputError(f"{name} is {value!r}. Give a whole number, at least one.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}. Give a whole number, 0 or more.")
    if not isinstance(alpha, (int, float)) or not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha}. Give the false-positive rate you accept, above 0 and below 1.")


def _check_items(found: Sequence[Any], n: int, given: int | None, alpha: float) -> None:
    """Too few items could not reject anything. Of pairs that were `given` half of the items choose."""
    n = n if given is None else given // 2
    measures = {one.name: len(one.test.decisive) if isinstance(one, TaskFinder) else 1 for one in found}
    kind = max(measures, key=lambda name: measures[name])
    times = len(found) * measures[kind]
    reachable = min(smallest_p(n) * times, 1.0) if n > 0 else 1.0
    if reachable > alpha:
        least = smallest_p(10**9) * times
        if alpha < least:
            raise InputError(f"alpha={alpha:g} cannot be reached: the flips allow no corrected p below {least:.2g}.")
        enough = max(2, math.ceil(-math.log2(alpha / times)))
        corrected = f"{len(found)} kind{'s' if found[1:] else ''}"
        corrected += f" and the {measures[kind]} measures that may decide of {kind}" if measures[kind] > 1 else ""
        asked = f"With n={n} items" if given is None else f"With {given} items in these pairs, half to report on,"
        raise InputError(
            f"{asked} and {corrected} the smallest corrected p that sign flips can reach is {reachable:.3g}, above "
            f"alpha={alpha:g}: nothing could be found. "
            + (f"Use n ≥ {enough}." if given is None else f"Give pairs of at least {2 * enough} items, or fewer kinds.")
        )


def _about(
    model: HookedTransformer,
    found: Sequence[AnyFinder],
    limits: Cutoffs,
    corpus: Any,
    settings: Mapping[str, Any],
    given: Mapping[str, PromptPairs] | None,
) -> dict[str, Any]:
    patterns = [one for one in found if isinstance(one, Finder)]
    trials = [one for one in found if isinstance(one, TaskFinder)]
    others = [one for one in found if not isinstance(one, TaskFinder)]
    data = {one.name: one.data for one in others} | {one.name: f"task {one.task}" for one in trials}
    ablations = []
    if patterns:
        ablations.append("mean over the reference prompts, position by position")
    if trials:
        ablations.append("of a task: exchange in both directions, mean and resample over the corrupt prompts")
    if any(isinstance(one, SyntaxFinder) for one in found):
        ablations.append("of syntax: the score of one edge set to −∞, another word's as control")
    return {
        "model": model.cfg.model_name,
        "definitions": {one.name: one.definition for one in found},
        "writing": {one.name: one.writing.label for one in found if one.writing is not None},
        "data": data if given is None else {one.name: f"the pairs given: {', '.join(given)}" for one in found},
        "corpus": "the sample of this package" if corpus is None else _corpus_name(corpus),
        "bos": "one BOS in front where the model has one; score_no_bos without it"
        if given is None
        else "as in the pairs given",
        "ablation": "; ".join(ablations) + "; exact",
        "normalisation": "harm: positive where the behaviour got worse",
        "cause": {one.name: one.cause for one in others} | {one.name: one.test.label for one in trials},
        "causes": {
            one.test.label: {"metric": f"{one.test.label} on {one.task}", "unit": "share of clean − corrupt"}
            for one in trials
        },
        "tests": {
            one.name: {"decides": list(one.test.decisive), "supports": list(one.test.supporting), "sign": one.sign}
            for one in trials
        },
        "cutoffs": limits,
        **settings,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "caveat": "measured on one model; run the same search on others before saying more",
    }


def _corpus_name(corpus: Any) -> str:
    return f"{len(corpus)} labelled token rows" if is_labelled(corpus) else str(corpus)
