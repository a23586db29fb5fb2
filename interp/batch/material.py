"""What a job asks a model about: a task by name, a table of pairs, a file that a reader reads, or a planted task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.batch.spec import is_plain, must_be_known
from interp.errors import InputError
from interp.files import content_hash

if TYPE_CHECKING:
    from interp.model.transformer import HookedTransformer
    from interp.pairs import PromptPairs
    from interp.tasks.base import Task

__all__ = ["FILES", "Drawn", "asked_task", "draw"]

PLANTED = "planted"  # the prompts that a planted model brings along
FILES = ("pairs", "blimp", "winogender", "facts")
_DEFAULTS: dict[str, Any] = {"n": 32, "corruption": None, "split": "report", "bos": True}


@dataclass(frozen=True)
class Drawn:
    """Prompts for one model: a `task` where one was drawn, its `pairs` where it has them, or `data` of a reader."""

    name: str
    task: Task | None = None
    pairs: PromptPairs | None = None
    data: Any = None

    def must_have_pairs(self, analysis: str) -> PromptPairs:
        """The pairs; `InputError` where there are none."""
        if self.pairs is None:
            raise InputError(f"{analysis} takes pairs of prompts, and {self.name} has none. Give another task.")
        return self.pairs


def asked_task(given: Any, root: Path | None = None) -> dict[str, Any]:
    """A task as a spec holds it, with all its options; with a `root`, files are found and hashed.

    Raises `InputError` for an unknown task or option, with what is near.
    """
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping) or not fields:
        raise InputError(f'{given!r:.80} is no task. Give a name, or a table such as {{name = "ioi", n = 50}}.')
    if "name" not in fields:
        return _of_file(dict(fields), root)
    from interp.tasks.base import definitions

    known = definitions()
    name = must_be_known(fields["name"], [*known, PLANTED], "task")
    own = () if name == PLANTED else known[name].options
    takes = ("n", "corruption") if name == PLANTED else (*_DEFAULTS, *own)
    for option in fields:
        must_be_known(option, ("name", *takes), f"option of the task {name}")
        if not is_plain(fields[option]):
            raise InputError(f"{option} of the task {name} is {fields[option]!r:.60}. Give text, numbers, or a list.")
    corruption = fields.get("corruption")
    if name != PLANTED and corruption is not None:
        must_be_known(corruption, known[name].corruptions, f"corruption of the task {name}")
    if "split" in fields:
        must_be_known(fields["split"], ("all", "select", "report"), "split")
    n = fields.get("n", _DEFAULTS["n"])
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n of the task {name} is {n!r}. Give a whole number of items, at least 1.")
    if not isinstance(fields.get("bos", True), bool):
        raise InputError(f"bos of the task {name} is {fields['bos']!r:.60}. Give true or false.")
    defaults = {option: value for option, value in _DEFAULTS.items() if option in takes}
    return {"name": name, **defaults, **{key: value for key, value in fields.items() if key != "name"}}


def _of_file(fields: dict[str, Any], root: Path | None) -> dict[str, Any]:
    kind = must_be_known(next(iter(fields)), FILES, "kind of file, nor a task's name")
    for option in fields:
        must_be_known(option, (kind,), f"option of {kind}")
    if not isinstance(fields[kind], str):
        raise InputError(f"{kind} is {fields[kind]!r:.60}. Give the path of one file.")
    if root is None:
        return fields
    file = root / Path(fields[kind]).expanduser()
    if not file.is_file():
        raise InputError(f"There is no file {file} ({kind} of a task). Paths are relative to {root}.")
    return {**fields, "sha256": content_hash(file)}


def draw(task: Mapping[str, Any] | None, model: HookedTransformer, name: str, seed: int, root: Path) -> Drawn | None:
    """The prompts of a job for its model, `name` being the model's in the spec. Raises `InputError` where the task
    does not suit the model, or its file was changed since the sweep was planned."""
    if task is None:
        return None
    if "name" not in task:
        return _read(task, model, root)
    options = {key: value for key, value in task.items() if key != "name"}
    if task["name"] == PLANTED:
        return _planted(name, seed, **options)
    from interp.tasks.load import load

    drawn = load(task["name"], model, options.pop("corruption"), seed=seed, **options)
    return Drawn(drawn.name, task=drawn, pairs=drawn.pairs)


def _planted(model: str, seed: int, *, n: int, corruption: str | None = None) -> Drawn:
    from interp.planted import make

    circuit = model.removeprefix("planted:")
    if circuit == model:
        raise InputError(f"The task planted goes with a model such as planted:ioi, not with {model}.")
    pairs = make(circuit, n=n, seed=seed).pairs
    chosen = must_be_known(corruption or next(iter(pairs), ""), list(pairs), f"corruption of planted:{circuit}")
    return Drawn(f"planted {circuit}", pairs=pairs[chosen])


def _read(task: Mapping[str, Any], model: HookedTransformer, root: Path) -> Drawn:
    kind = next(one for one in FILES if one in task)
    file = root / Path(task[kind]).expanduser()
    if not file.is_file() or content_hash(file) != task["sha256"]:
        raise InputError(f"{file} is not as it was when the sweep was planned. Plan it again.")
    if kind == "pairs":
        from interp.pairs import PromptPairs

        return Drawn(file.stem, pairs=PromptPairs.from_csv(file, model if model.tokenizer is not None else None))
    from interp import readers

    reader = {"blimp": readers.read_blimp, "winogender": readers.read_winogender, "facts": readers.read_facts}[kind]
    return Drawn(file.stem, data=reader([file]))
