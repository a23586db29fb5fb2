"""`atlas`: find heads of all kinds in one resumable run, and say what they do together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from interp.atlas.results import Atlas
from interp.atlas.search import RIGORS, SETTINGS, caveat_of, must_be_askable, must_be_of, search
from interp.atlas.together import STAGE, carried_together
from interp.atlas.whole import Whole
from interp.errors import InputError
from interp.heads.base import finder
from interp.heads.splits import as_pairs
from interp.heads.task_finder import TaskFinder

__all__ = ["atlas"]

Progress = Callable[[str, int, int], None]
_COST_OF_TOGETHER = 6.0  # as the test of a kind


def atlas(
    model: Any,
    kinds: str | Sequence[str] = "all",
    *,
    rigor: str = "quick",
    n: int | None = None,
    seed: int = 0,
    keep: Any = None,
    progress: Progress | None = None,
    found: Any = None,
    pairs: Any = None,
    corpus: Any = None,
) -> Atlas:
    """Which head does what: one search for heads of all kinds that suit the model, p corrected over all of them, and
    what they say together: what each head does, how kinds overlap, how stable the sets are, what stays unexplained.

    `rigor`: "quick" takes 32 items and 6 candidates a kind; "full" 100 items, candidates chosen by their exact effect.
    `n` overrides the number of items. `keep`: a folder for what is finished, so that the same call goes on from there.
    `pairs` and `corpus` are the user's own prompts, as for `find_heads`. `found`: head scores that were found before,
    which are then not looked for again. Kinds whose prompts cannot be made for the model, or that score no head, are
    left out, and said so.
    Raises `InputError` for an unknown kind or rigor, and where no kind is left.
    """
    start, say = time.perf_counter(), Whole(progress, [(STAGE, _COST_OF_TOGETHER)])
    must_be_askable("An atlas", model, rigor, keep)
    given = None if pairs is None else as_pairs(pairs)
    left_out: dict[str, str] = {}
    if found is None:
        settings = {**RIGORS[rigor], **({} if n is None else {"n": n}), "seed": seed, "corpus": corpus}
        found, left_out = search(model, kinds, given, settings, keep, say)
    else:
        must_be_of(model, found, given)
        rigor = "of the heads that were given"
    without = {kind: why for kind, why in found.about.get("problems", {}).items() if kind not in found.kinds}
    if not found.kinds:
        said = "; ".join(f"{kind}: {why}" for kind, why in without.items())
        raise InputError(f"No head has a score to make an atlas of. {said or 'Name other kinds'}.")
    left_out |= without
    asked = {name: found.about[name] for name in SETTINGS}
    groups: dict[Any, list[TaskFinder]] = {}
    for one in (finder(kind) for kind in found.kinds):
        if isinstance(one, TaskFinder):
            groups.setdefault((one.heading, one.corruptions), []).append(one)
    together = carried_together(model, list(groups.values()), found, given, asked, say)
    about = {
        "model": model.cfg.model_name,
        "caveat": caveat_of(model),
        "rigor": rigor,
        **asked,
        "kinds": found.kinds,
        "left_out": left_out,
        "seconds": round(time.perf_counter() - start, 1),
        **{name: found.about.get(name) for name in ("corpus", "bos", "ablation", "threads", "versions")},
    }
    return Atlas(found, together, about)
