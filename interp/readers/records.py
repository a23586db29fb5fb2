"""JSON objects of a file, one a line or all in one array, each with the line on which it begins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from interp.errors import InputError
from interp.readers.lines import Complaints, Line, Malformed, read_lines, shortened

__all__ = ["boolean_of", "read_records", "text_of"]

_BLANK = re.compile(r"[ \t\n\r]*")


def read_records(
    path: str, complaints: Complaints, parse: Callable[[int, Mapping[str, Any]], Any], holds: str
) -> list[Any]:
    """What `parse(line, record)` makes of each object. Within an array that is broken one cannot tell where the next
    object begins, so that is refused however lines are to be treated."""
    lines = read_lines(path)
    if lines and (lines[0].text or "").lstrip().startswith("["):
        objects = _array(path, lines)
        if not objects:
            raise InputError(f"{path} is an empty array. It should hold {holds}.")
        return complaints.sift(path, objects, lambda line, one: parse(line, _object(one)), holds)
    _refuse_one_document(path, lines, holds)
    numbered = [(one.number, one) for one in lines]
    return complaints.sift(path, numbered, lambda number, one: parse(number, _object(_loaded(one))), holds)


def text_of(record: Mapping[str, Any], name: str) -> str:
    """A text that has to be there, without white space around it."""
    if name not in record:
        raise Malformed(f"there is no {name!r}; there is {', '.join(map(repr, record)) or 'nothing'}")
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name!r} is {shortened(str(value))}, not a text")
    return value.strip()


def boolean_of(record: Mapping[str, Any], name: str) -> bool | None:
    """A truth value, None where there is none."""
    value = record.get(name)
    if value is not None and not isinstance(value, bool):
        raise Malformed(f"{name!r} is {shortened(str(value))}, not true or false")
    return value


def _loaded(line: Line) -> Any:
    if line.text is None:
        raise Malformed("it is not UTF-8 text")
    try:
        return json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({_reason(error)}): {shortened(line.text.strip())}") from error


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"it is not a JSON object: {shortened(json.dumps(value, ensure_ascii=False))}")
    return value


def _array(path: str, lines: list[Line]) -> list[tuple[int, Any]]:
    """The elements of an array, with the line on which each begins."""
    broken = next((one.number for one in lines if one.text is None), None)
    if broken is not None:
        raise InputError(f"{path}, line {broken}: it is not UTF-8 text. Save the file as UTF-8.")
    starts, total = [], 0
    for one in lines:
        starts.append((total, one.number))
        total += len(one.text or "") + 1
    text = "\n".join(one.text or "" for one in lines)
    decoder, found, at, place = json.JSONDecoder(), [], text.index("[") + 1, 0

    def line_at(where: int) -> int:
        nonlocal place
        while place + 1 < len(starts) and starts[place + 1][0] <= where:
            place += 1
        return starts[place][1]

    def skip_blank(where: int) -> int:
        match = _BLANK.match(text, where)
        return where if match is None else match.end()

    at = skip_blank(at)
    while text[at : at + 1] != "]":
        begins = line_at(at)
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _broken(path, line_at(getattr(error, "pos", at)), _reason(error)) from error
        found.append((begins, value))
        at = skip_blank(at)
        if text[at : at + 1] == ",":
            at = skip_blank(at + 1)
        elif text[at : at + 1] != "]":
            raise _broken(path, line_at(min(at, len(text) - 1)), "a comma or ] is missing")
    if text[at + 1 :].strip():
        raise _broken(path, line_at(skip_blank(at + 1)), "something stands behind the array")
    return found


def _broken(path: str, line: int, what: str) -> InputError:
    return InputError(
        f"{path}, line {line}: the JSON array is broken here ({what}), and what follows cannot be told apart, so it is "
        "not skipped. Mend it, or write one object a line."
    )


def _refuse_one_document(path: str, lines: list[Line], holds: str) -> None:
    """Raise for one object over several lines: each line of it would be called broken."""
    if len(lines) < 2 or (lines[0].text or "").strip()[-1:] not in ("{", ",", "["):
        return
    try:
        value = json.loads("\n".join(one.text or "" for one in lines))
    except (ValueError, RecursionError):
        return
    said = ", ".join(map(repr, value)) if isinstance(value, dict) else type(value).__name__
    raise InputError(f"{path} is one JSON object, with {shortened(said)}. It should hold {holds}.")


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
