"""Plain data that checks itself: what a dataclass' type hints say of its fields holds from its construction on.

A hint says what is allowed: `Literal[…]` and `ActName` a closed set, `Size`, `Count`, `Positive` and `Finite` a range.
A field with a hint of these is checked without a line of its own.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from interp.errors import CheckpointError, InputError
from interp.model.activations import ACTIVATIONS

__all__ = ["ActName", "Checked", "Count", "Finite", "Positive", "Size", "build", "hints"]


@dataclass(frozen=True)
class Allowed:
    """A test of one value, and what it lets through in words."""

    words: str
    test: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Size = Annotated[int, Allowed("a whole number from 1", lambda value: _whole(value) and value >= 1)]
Count = Annotated[int, Allowed("a whole number from 0", lambda value: _whole(value) and value >= 0)]
Positive = Annotated[float | int, Allowed("a finite number above 0", lambda value: _number(value) and value > 0)]
Finite = Annotated[float | int, Allowed("a finite number", _number)]
ActName = Annotated[
    str, Allowed(f"one of {', '.join(ACTIVATIONS)}", lambda value: isinstance(value, str) and value in ACTIVATIONS)
]


class Checked:
    """Base of a dataclass. Raises `InputError` at construction for a field that its hint does not allow: which, what
    was given, what may stand there."""

    about_fields = ""  # where to look for a field that the class does not have

    def __new__(cls, *args: Any, **named: Any) -> Any:
        # Here and not in __post_init__, so that this answers before anything else looks at the values.
        known = hints(cls)
        if unknown := [name for name in named if name not in known]:
            where = cls.about_fields or f"Its fields are {', '.join(known)}."
            raise InputError(f"{cls.__name__} has no field {', '.join(unknown)}. {where}")
        for name, value in {**dict(zip(known, args, strict=False)), **named}.items():
            if not _fits(known[name], value):
                given = repr(value) if not dataclasses.is_dataclass(value) else f"a {type(value).__name__}"
                raise InputError(f"{cls.__name__} has {name}={given}. It takes {_words(known[name])}.")
        return super().__new__(cls)


@cache
def hints(kind: type) -> dict[str, Any]:
    """Field -> its type hint, with what is allowed."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def _fits(hint: Any, value: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(arg, value) for arg in args)
    if origin is Annotated:
        return all(allowed.test(value) for allowed in args[1:] if isinstance(allowed, Allowed))
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(args[0], item) for item in value)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is Annotated:
        return ", ".join(allowed.words for allowed in args[1:] if isinstance(allowed, Allowed))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        return f"a tuple, each {_words(args[0])}"
    return {type(None): "None", bool: "True or False", str: "a string"}.get(hint, f"a {hint.__name__}")


def build(kind: Any, data: Any) -> Any:
    """A dataclass (or optional, or tuple of them) from what `asdict` and JSON made of it."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if data is None else build(next(arg for arg in args if arg is not type(None)), data)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(build(args[0], item) for item in data)
    if not dataclasses.is_dataclass(kind):
        return data
    name = typing.cast(type, kind).__name__
    if not isinstance(data, dict):
        raise CheckpointError(f"The fields of {name} should stand here, not {data!r:.80}. Get a sound copy.")
    known = hints(typing.cast(type, kind))
    if unknown := sorted(set(data) - set(known)):
        raise CheckpointError(f"The model config has fields that this version does not know: {', '.join(unknown)}.")
    try:
        return typing.cast(Any, kind)(**{name: build(known[name], value) for name, value in data.items()})
    except TypeError as error:
        raise CheckpointError(f"The fields of {name} are not all there ({error}). Get a sound copy.") from error
