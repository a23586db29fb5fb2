"""What a sweep asks, and the jobs it comes to: plain data, checked before anything is loaded."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from interp.errors import InputError

__all__ = ["RunSpec", "Sweep", "is_plain", "must_be_known"]

_FORMAT = 1  # raised whenever the meaning of a spec changes
_LISTS = ("models", "revisions", "tasks", "analyses", "seeds")


@dataclass(frozen=True)
class RunSpec:
    """One job. `task` is {"name": …, and its options}, {"pairs": file, "sha256": …} or None; `options` are the
    analysis' own, whole, so that a default that changes makes another job. `method` is the analysis' version and
    `weights` a hash of the checkpoint's files: both decide the numbers."""

    model: str
    revision: str | int | None
    task: Mapping[str, Any] | None = field(hash=False)
    analysis: str
    options: Mapping[str, Any] = field(hash=False)
    seed: int
    weights: str
    method: int

    def key(self) -> str:
        """20 hexadecimal digits of SHA-256 over all of it: the job's name, and its run's id. Package versions do not
        count; they stand in the run's provenance."""
        decides = json.dumps([_FORMAT, self.to_dict()], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:20]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> RunSpec:
        """What `to_dict` gave."""
        return cls(**given)

    @property
    def place(self) -> tuple[str, str | int | None]:
        """The checkpoint: jobs of one are run by one process where that can be."""
        return self.model, self.revision

    @property
    def task_name(self) -> str:
        """The task in a word; "" for an analysis without one."""
        if self.task is None:
            return ""
        name = self.task.get("name")
        return name if name else Path(next(str(value) for key, value in self.task.items() if key != "sha256")).stem

    def __str__(self) -> str:
        at = "" if self.revision is None else f" @ {self.revision}"
        of = f" of {self.task_name}" if self.task_name else ""
        return f"{self.analysis}{of} on {self.model}{at}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """Every analysis on every task, for every revision of every model and every seed.

    `models`: what `interp.load` takes as text, the folder of an `interp train`, or "planted:NAME". `revisions`: of hub
    ids branches, tags or commits; of trainings steps, or "all". None given: the checkpoint as it is, of a training its
    last. `tasks`: names, or {"name": "ioi", "n": 50, …}, {"pairs": "mine.csv"}, {"blimp": "file.jsonl"} (also
    winogender, facts). `analyses`: names, or {"name": "patch", "site": "z", …}; those that take no task run once for
    each checkpoint. Paths are relative to `root`. Raises `InputError` for what is not known, with what is near.
    """

    models: Sequence[str] = ()
    revisions: Sequence[str | int] = ()
    tasks: Sequence[str | Mapping[str, Any]] = ()
    analyses: Sequence[str | Mapping[str, Any]] = ()
    seeds: Sequence[int] = (0,)
    root: Path = field(default_factory=Path.cwd, compare=False)

    def __post_init__(self) -> None:
        from interp.batch.analyses import asked_analysis
        from interp.batch.material import asked_task

        for name in _LISTS:
            given = getattr(self, name)
            if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
                raise InputError(f"{name} is {given!r:.80}. Give a list, e.g. {name} = [{given!r:.40}].")
            object.__setattr__(self, name, tuple(given))
        for name in ("models", "analyses", "seeds"):
            if not getattr(self, name):
                raise InputError(f"A sweep needs {name}. Give at least one.")
        for one in self.models:
            if not isinstance(one, str) or not one.strip():
                raise InputError(f"{one!r} in models is no text. Give a packaged name, a path or a hub id.")
        for one in (*self.revisions, *self.seeds):
            if isinstance(one, bool) or not isinstance(one, int | str):
                raise InputError(f"{one!r} is neither a revision nor a seed. Give whole numbers (revisions: or text).")
        if wrong := [one for one in self.seeds if not isinstance(one, int) or not 0 <= one < 1 << 63]:
            raise InputError(f"seeds holds {wrong[0]!r}. Give whole numbers, 0 or more (below 2**63).")
        for one in self.tasks:
            asked_task(one)
        for one in self.analyses:
            asked_analysis(one)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Sweep:
        """The sweep in a TOML file; paths in it are relative to the file's folder."""
        file = Path(path)
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Cannot read the sweep {file}: {error.strerror or error}. Give a TOML file.") from error
        except ValueError as error:
            raise InputError(f"{file} is no TOML: {error}. Mend that line.") from error
        for name in given:
            must_be_known(name, _LISTS, f"key of a sweep ({file})")
        return cls(**given, root=file.resolve().parent)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], root: Path) -> Sweep:
        """What `to_dict` gave."""
        return cls(**given, root=root)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON, without `root`."""
        return {
            name: [dict(one) if isinstance(one, Mapping) else one for one in getattr(self, name)] for name in _LISTS
        }

    def jobs(self) -> tuple[RunSpec, ...]:
        """All jobs, those of one checkpoint together. Reads (and hashes) the files of checkpoints, loads nothing.

        Raises `UnknownModelError` for a model that leads nowhere, `InputError` for a revision that there is not and
        for an analysis that cannot take one of the tasks.
        """
        from interp.batch.analyses import asked_analysis, takes
        from interp.batch.material import asked_task
        from interp.batch.sources import revisions_of, weights_of

        tasks = [asked_task(one, self.root) for one in self.tasks]
        analyses = [asked_analysis(one) for one in self.analyses]
        questions = [(task, one, options) for one, options in analyses for task in takes(one, options, tasks)]
        found: dict[str, RunSpec] = {}
        for model in dict.fromkeys(self.models):
            for revision in revisions_of(model, self.revisions, self.root):
                weights = weights_of(model, revision, self.root)
                for task, one, options in questions:
                    for seed in self.seeds:
                        spec = RunSpec(model, revision, task, one.name, options, seed, weights, one.method)
                        found.setdefault(spec.key(), spec)
        return tuple(found.values())


def must_be_known(name: Any, known: Sequence[str], what: str) -> str:
    """The name, if it is one of those known; else `InputError` with what is near."""
    if name in known:
        return str(name)
    near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f"Near it: {', '.join(near)}." if near else f"There are {', '.join(known)}."
    raise InputError(f"{name!r} is no {what}. {hint}")


def is_plain(value: Any) -> bool:
    """Whether a value of an option goes through JSON as it is: no date, no number that is none, no empty list."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(is_plain, value))
    if isinstance(value, Mapping):
        return len(value) > 0 and all(isinstance(name, str) and is_plain(one) for name, one in value.items())
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
