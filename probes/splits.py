"""Which rows are tested while the others are fitted: whole groups together, every class on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from interp.errors import InputError

__all__ = ["grouped_folds", "leak_notes", "missing_class", "random_folds"]

Folds = NDArray[np.integer]  # fold of each row


def grouped_folds(
    groups: Sequence | NDArray, labels: NDArray | None, *, n_folds: int = 5, seed: int = 0, name: str = "the label"
) -> Folds:
    """The fold `[row]` in which each row is tested. No group stands in two folds; classes are spread evenly over them
    where groups allow it. `labels` are class names or codes; None: a regression.

    Raises `InputError` for a single class, fewer groups than folds, and a class that is missing from the training rows
    of some fold.
    """
    keys = pd.factorize(np.asarray(groups))[0]
    if (keys < 0).any():
        raise InputError(f"Row {int(np.flatnonzero(keys < 0)[0])} has no group. Give every row one.")
    n_groups = len(np.unique(keys))
    _check_counts(n_folds, n_groups, "groups", name)
    splits: list = []
    if labels is not None:
        _two_classes(labels, name)
        splits.append(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed))
    splits.append(GroupKFold(n_folds, shuffle=True, random_state=seed))
    problem = None
    for split in splits:
        folds = _assigned(split, labels, keys)
        if folds is None:  # a stratified split may leave a fold without rows
            continue
        missing = None if labels is None else missing_class(folds, labels)
        if missing is None:
            return folds
        problem = problem or missing
    assert problem is not None and labels is not None
    raise InputError(_absent(problem, labels, keys, name))


def random_folds(labels: NDArray | None, n_rows: int, *, n_folds: int = 5, seed: int = 0) -> Folds:
    """Folds of rows without regard to groups: words leak from fitting to testing. For comparison only."""
    _check_counts(n_folds, n_rows, "rows", "the label")
    split = KFold(n_folds, shuffle=True, random_state=seed)
    if labels is not None:
        split = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        if np.unique(labels, return_counts=True)[1].max() < n_folds:
            split = KFold(n_folds, shuffle=True, random_state=seed)
    folds = _assigned(split, labels, np.arange(n_rows))
    assert folds is not None
    return folds


def missing_class(folds: Folds, labels: NDArray) -> tuple[str, int] | None:
    """The first class that is absent from the training rows of a fold, and that fold; None where there is none."""
    for one in np.unique(labels):
        for fold in np.unique(folds):
            if not ((labels == one) & (folds != fold)).any():
                return str(one), int(fold)
    return None


def leak_notes(table: pd.DataFrame) -> list[str]:
    """What stands in more than one group, in words: the same word, or rows of one text. Nothing is refused: that words
    recur may be wanted, but a score of held-out groups is then no score of unseen words."""
    notes = []
    for column, what in (("type", "words"), ("text", "texts")):
        spread = table.groupby(column, sort=False, dropna=True)["group"].nunique()
        if n := int(np.sum(spread.to_numpy() > 1)):
            example = spread.index[int(np.argmax(spread.to_numpy() > 1))]
            notes.append(
                f"{n} of {len(spread)} {what} stand in more than one group (e.g. {example!r}): what is fitted on them "
                f"is also tested on them. Put all rows of a {what[:-1]} into one group to test on unseen {what}."
            )
    return notes


def _assigned(split, labels: NDArray | None, keys: NDArray) -> Folds | None:
    folds = np.full(len(keys), -1)
    with warnings.catch_warnings():  # few rows of a class: whether one is missing is checked by us
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            parts = split.split(np.zeros(len(keys)), labels if labels is not None else None, keys)
            for number, (_, test) in enumerate(parts):
                folds[test] = number
        except ValueError:  # fewer rows of every class than folds
            return None
    return folds if len(np.unique(folds)) == split.get_n_splits() and (folds >= 0).all() else None


def _check_counts(n_folds: int, n: int, what: str, name: str) -> None:
    if n_folds < 2:
        raise InputError(f"n_folds is {n_folds}. At least 2 are needed: one to test on, one to fit on.")
    if n < n_folds:
        hint = " (groups= of probes.dataset says what belongs together)" if what == "groups" else ""
        raise InputError(
            f"{name!r} has rows of {n} {what}, too few for {n_folds} folds. Give more {what}{hint} or fewer folds."
        )


def _two_classes(labels: NDArray, name: str) -> None:
    found = np.unique(labels)
    if len(found) < 2:
        only = f" ({found[0]!s})" if len(found) else ""
        raise InputError(f"{name!r} has one class{only}: there is nothing to tell apart. Give rows of another class.")


def _absent(problem: tuple[str, int], labels: NDArray, keys: NDArray, name: str) -> str:
    one, fold = problem
    n_groups = len(np.unique(keys[labels.astype(str) == one]))
    return (
        f"Class {one!r} of {name!r} is missing from the training rows of fold {fold}: its rows stand in {n_groups} "
        f"group{'s' if n_groups > 1 else ''}. Give it more groups, or leave its rows unlabelled."
    )
