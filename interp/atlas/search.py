"""One search for heads of many kinds, of those that can be searched for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.atlas.whole import Whole
from interp.errors import InputError
from interp.heads.base import Finder, finder, finders
from interp.heads.causes import CAUSES
from interp.heads.find import find_heads
from interp.heads.syntax import SyntaxFinder
from interp.heads.task_finder import TaskFinder
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.results import HeadScores
from interp.tasks.load import load as load_task

__all__ = ["RIGORS", "SETTINGS", "caveat_of", "must_be_askable", "must_be_of", "search"]

RIGORS: dict[str, dict[str, Any]] = {
    "quick": {"n": 32, "top": 6, "screen": "attention", "per_item": 1},
    "full": {"n": 100, "top": 8, "screen": "exact", "per_item": 2},
}
SETTINGS = ("n", "seed", "top", "screen", "alpha", "n_random_sets", "per_item")  # of a search, as its `about` has them


def must_be_askable(what: str, model: Any, rigor: str, keep: Any) -> None:
    """Raise `InputError` for what no atlas or report can be made of."""
    if not isinstance(model, HookedTransformer):
        raise InputError(f"{what} is of a loaded model, not {model!r}. Load it first: interp.load(…).")
    if rigor not in RIGORS:
        raise InputError(f"rigor is {rigor!r}. Choose {' or '.join(RIGORS)}.")
    if keep is not None and Path(keep).exists() and not Path(keep).is_dir():
        raise InputError(f"keep={keep} is a file. Give a folder; it is made if it is not there.")


def must_be_of(model: HookedTransformer, found: Any, pairs: Mapping[str, PromptPairs] | None) -> None:
    """Raise `InputError` for head scores that are not this model's, or that do not say how they were made; and where
    they were made of pairs that are not given again, for what is measured besides would be of other prompts."""
    if not isinstance(found, HeadScores):
        raise InputError(f"found is {type(found).__name__}. Give the HeadScores that interp.find_heads returned.")
    if found.about.get("model") != model.cfg.model_name:
        raise InputError(
            f"These heads were found in {found.about.get('model')!r}, and the model is {model.cfg.model_name!r}. "
            "Give the model that they were found in."
        )
    if missing := [name for name in SETTINGS if found.about.get(name) is None]:
        raise InputError(f"These scores do not say their {', '.join(missing)}. Find the heads again with this version.")
    of_pairs = any(str(data).startswith("the pairs given") for data in found.about.get("data", {}).values())
    if of_pairs and pairs is None:
        raise InputError("These heads were found on pairs that were given. Give the same pairs= again.")


def search(
    model: HookedTransformer,
    kinds: str | Sequence[str],
    pairs: Mapping[str, PromptPairs] | None,
    settings: Mapping[str, Any],
    keep: Any,
    say: Whole,
) -> tuple[HeadScores, dict[str, str]]:
    """One search for all kinds asked for; where prompts of some cannot be made, one without these, and why. Raises
    `InputError` for an unknown kind, and where no kind is left."""
    options: dict[str, Any] = {**settings, "pairs": pairs, "keep": keep, "progress": say}
    asked = _asked(model, kinds)
    say.start(asked)
    try:
        return find_heads(model, kinds, **options), {}
    except InputError as error:
        left_out = (
            {} if pairs is not None else {one.name: why for one in asked if (why := _problem(model, one, settings))}
        )
        left = [one.name for one in asked if one.name not in left_out]
        if not left_out or not left:
            raise
        say.start([one for one in asked if one.name in left])
        try:
            return find_heads(model, left, **options), left_out
        except InputError:
            raise error from None


def _asked(model: HookedTransformer, kinds: str | Sequence[str]) -> list[Finder | TaskFinder | SyntaxFinder]:
    """The kinds of a call; of "all", those that suit the model."""
    if kinds != "all":
        return [finder(kind) for kind in dict.fromkeys([kinds] if isinstance(kinds, str) else kinds)]
    found = []
    for one in finders().values():
        try:
            one.must_apply_to(model)
        except InputError:
            continue
        found.append(one)
    return found


def _problem(model: HookedTransformer, one: Finder | TaskFinder | SyntaxFinder, settings: Mapping[str, Any]) -> str:
    """Why a kind's prompts cannot be made for this model, or ""."""
    n, seed = settings["n"], settings["seed"]
    try:
        if isinstance(one, TaskFinder):
            for split in ("select", "report"):
                load_task(one.task, model, one.corruptions[0], split=split, n=n, seed=seed)
        elif isinstance(one, SyntaxFinder):
            one.sentences(model, settings["corpus"], n=n, seed=seed)
        else:
            one.make_data(model, 2 * n, seed, True, settings["corpus"])
            CAUSES[one.cause].make(model, n, seed)
    except InputError as error:
        return str(error)
    return ""


def caveat_of(model: HookedTransformer) -> str:
    """What one model's numbers cannot say, in every atlas and report."""
    name = model.cfg.model_name
    if name.lower().startswith("smollm2-135m"):
        return "Everything rests on one 135M model dequantised from 4 bits."
    return f"Everything rests on one model, {name}; run the same on others before saying more."
