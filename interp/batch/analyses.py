"""What a sweep can ask: each analysis by name, with its options, and the function that runs it.

Packages that stand above interp add theirs by an entry point of the group `interp.analyses`, whose value is an
`Analysis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from interp.batch.material import Drawn
from interp.batch.spec import is_plain, must_be_known
from interp.errors import InputError

__all__ = ["Analysis", "Ask", "analyses", "asked_analysis", "takes"]

Progress = Callable[[str, int, int], None]
Takes = Literal["task", "file", "either", "may", "never"]


@dataclass(frozen=True)
class Ask:
    """One question: the loaded model, its prompts (None where the analysis takes none), options, seed."""

    model: Any
    drawn: Drawn | None
    options: Mapping[str, Any]
    seed: int
    progress: Progress

    @property
    def given(self) -> Drawn:
        """The prompts, where the analysis takes some."""
        assert self.drawn is not None
        return self.drawn


@dataclass(frozen=True)
class Analysis:
    """`run` gives what a store can hold. `options`: name -> default; `choices`: the values an option may have.

    `takes`: prompts of a "task" or table of pairs, a "file" of a reader, "either", a task or nothing ("may"), "never"
    any; an option in `alone` that is given makes it take none. `passes`: how many passes over the prompts it costs, or
    (with none) in all, for the estimate before anything was measured. `found`: result -> its numbers in brief.
    `method` is raised whenever the same call would give other numbers.
    """

    name: str
    about: str
    run: Callable[[Ask], Any]
    takes: Takes
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    passes: float = 2.0
    found: Callable[[Any], Mapping[str, float]] | None = None
    method: int = 1


@cache
def analyses() -> dict[str, Analysis]:
    """All analyses, by name. One of another package that cannot be loaded raises `InputError` with its name."""
    from interp.batch.builtin import ANALYSES

    found = {one.name: one for one in ANALYSES}
    for point in entry_points(group="interp.analyses"):
        if point.name in found:
            continue
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"The analysis {point.name} ({point.value}) cannot be loaded: {error}. Mend or remove that package."
            ) from error
    return found


def asked_analysis(given: Any) -> tuple[Analysis, dict[str, Any]]:
    """An analysis and all its options. `InputError` for an unknown one, with what is near."""
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping) or "name" not in fields:
        raise InputError(
            f'{given!r:.80} is no analysis. Give a name, or a table such as {{name = "patch", site = "z"}}.'
        )
    one = analyses()[must_be_known(fields["name"], list(analyses()), "analysis")]
    options = dict(one.options)
    for name, value in fields.items():
        if name == "name":
            continue
        must_be_known(name, list(one.options), f"option of {one.name}") if one.options else _takes_none(one, name)
        options[name] = _of_kind(one, name, value)
        if name in one.choices:
            for each in value if isinstance(value, list | tuple) else [value]:
                must_be_known(each, list(one.choices[name]), f"value of {name} of {one.name}")
    return one, options


def takes(one: Analysis, options: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Those of a sweep's tasks that an analysis is run on; [None] where it takes none."""
    if one.takes == "never" or any(options[name] is not None for name in one.alone):
        return [None]
    wants_file = {"file": (True,), "either": (True, False)}.get(one.takes, (False,))
    fit = [task for task in tasks if ("name" not in task and "pairs" not in task) in wants_file]
    if not fit and one.takes == "may":
        return [None]
    if not fit:
        wanted = "a file for a reader" if one.takes == "file" else "a task or a table of pairs"
        raise InputError(f"{one.name} needs {wanted}, and the sweep has none. Add one to tasks.")
    return list(fit)


def _of_kind(one: Analysis, name: str, value: Any) -> Any:
    """A value of the kind that the option's default is of, as JSON holds it; of an option without one, what JSON can
    hold. So a wrong one is refused before anything is loaded, and one number has one key."""
    default = one.options[name]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if (default is not None and type(value) is not type(default)) or not is_plain(value):
        asked = "text, a finite number, true, false, or a list or table of them, not empty"
        said = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number"}
        raise InputError(f"{name} of {one.name} is {value!r:.60}. Give {said.get(type(default), asked)}.")
    return list(value) if isinstance(value, tuple) else value


def _takes_none(one: Analysis, name: str) -> None:
    raise InputError(f"{one.name} has no option {name!r}. It takes none.")
