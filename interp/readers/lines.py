"""The lines of a file that a researcher has on disk, and what is said of those that cannot be used."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from interp.errors import InputError

__all__ = [
    "Complaints",
    "Line",
    "Malformed",
    "OnError",
    "Paths",
    "Problem",
    "Reading",
    "each_path",
    "read_lines",
    "shortened",
]

OnError = str  # "refuse" or "skip"
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_GZIP = b"\x1f\x8b"
_WIDE = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_SHORT = 60
T = TypeVar("T")


class Malformed(Exception):
    """What is wrong with one line; a reader says it with the file and the number."""


@dataclass(frozen=True)
class Line:
    """A line that holds something: its number in the file (from 1) and its text, None where it is not UTF-8."""

    number: int
    text: str | None


@dataclass(frozen=True)
class Problem:
    """A line that was left out, and why."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read from which files. `n_lines` are the lines that hold data (the records of a JSON array), `n_skipped`
    those of them that were left out, for one of the `problems`."""

    paths: tuple[str, ...]
    n_lines: int
    n_skipped: int = 0
    problems: tuple[Problem, ...] = ()

    def describe(self) -> str:
        """How many lines were read, and how many skipped and why, in one line for each problem."""
        said = f"{self.n_lines} lines of {', '.join(self.paths)}; {self.n_skipped} skipped"
        return "\n".join([said, *map(str, self.problems)])


class Complaints:
    """Problems of some files: the first one raises unless they are to be skipped."""

    def __init__(self, on_error: OnError) -> None:
        if on_error not in ("refuse", "skip"):
            raise InputError(f'on_error is {on_error!r}. Choose "refuse" or "skip".')
        self.skip = on_error == "skip"
        self.problems: list[Problem] = []
        self.n_lines = self.n_skipped = 0

    def add(self, path: str, line: int, what: str, *, lines: int = 1) -> None:
        """Note that `lines` lines are left out, or raise `InputError`."""
        problem = Problem(path, line, what)
        if not self.skip:
            raise InputError(
                f'{problem}. Mend the line, or leave such lines out: on_error="skip" (on the command line --skip-bad).'
            )
        self.problems.append(problem)
        self.n_skipped += lines

    def sift(self, path: str, lines: Sequence[tuple[int, T]], parse: Callable[[int, T], Any], holds: str) -> list[Any]:
        """What `parse(number, content)` makes of each line; where it raises `Malformed`, the line is a problem.
        `holds` says what the file should hold, for one of which no line can be used."""
        found = []
        if not lines:
            raise InputError(f"{path} is empty. It should hold {holds}.")
        self.n_lines += len(lines)
        for number, content in lines:
            try:
                found.append(parse(number, content))
            except Malformed as error:
                what = str(error) if found or self.skip else f"{error}. The file should hold {holds}"
                self.add(path, number, what)
        if not found:
            raise InputError(self.nothing(path, holds))
        return found

    def nothing(self, path: str, holds: str) -> str:
        """The message for a file that has no line that can be used."""
        mine = [one for one in self.problems if one.path == path]
        first = f" The first problem is in line {mine[0].line}: {mine[0].what}." if mine else ""
        return f"No line of {path} can be used. It should hold {holds}.{first}"

    def reading(self, paths: Sequence[str]) -> dict[str, Any]:
        """The fields of a `Reading`."""
        found = {"n_lines": self.n_lines, "n_skipped": self.n_skipped, "problems": tuple(self.problems)}
        return {"paths": tuple(paths), **found}


def each_path(paths: Paths) -> tuple[str, ...]:
    """One path or several, as texts."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise InputError("There is no file to read. Give a path, or a list of them.")
    return tuple(os.fspath(one) for one in given)


def read_lines(path: str) -> list[Line]:
    """The lines of a UTF-8 text file that are not blank, without what ends them and without a byte order mark; a
    file that was packed by gzip is unpacked. Raises `InputError` for a path that leads to no such file."""
    data = _bytes(path)
    for mark, name in _WIDE:
        if data.startswith(mark):
            raise InputError(f"{path} is {name} text. Save it as UTF-8.")
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    data = data if b"\n" in data else data.replace(b"\r", b"\n")  # as old as they are, such files exist
    return list(_decoded(data))


def shortened(text: str) -> str:
    """A text as it may stand in a message."""
    return repr(text if len(text) <= _SHORT else text[: _SHORT - 1] + "…")


def _bytes(path: str) -> bytes:
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path} is a folder. Give the file, or a list of files.")
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the path and its rights.") from error
    if not data.startswith(_GZIP):
        if file.suffix == ".gz" and data:
            raise InputError(f"{path} is named .gz, but gzip did not make it. Rename it, or pack it again.")
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked: {error}. Fetch it again.") from error


def _decoded(data: bytes) -> Iterator[Line]:
    for number, one in enumerate(data.split(b"\n"), start=1):
        if one.strip():
            try:
                yield Line(number, one.decode("utf-8"))
            except UnicodeDecodeError:
                yield Line(number, None)
