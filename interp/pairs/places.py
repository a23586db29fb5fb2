"""Where things stand in a prompt: characters to tokens, named positions, and the position that answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError
from interp.pairs.checks import PairError, is_index, plain
from interp.text import Tokenizer

__all__ = ["TextRow", "named_positions", "read_positions", "text_row"]


@dataclass(frozen=True)
class TextRow:
    """A text with its tokens; `spans` are their characters, None for tokens that stand for no text (BOS, `[CLS]`)."""

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int] | None, ...]

    def tokens_of(self, start: int, end: int) -> tuple[int, ...]:
        """Positions of the tokens that hold characters start to end. Sharing only white space does not count: the
        space in front of a word is the next token's. All tokens of one character that is split belong."""
        blank = not self.text[start:end].strip()
        found = []
        for position, span in enumerate(self.spans):
            low, high = (max(start, span[0]), min(end, span[1])) if span is not None else (0, 0)
            if low < high and (blank or self.text[low:high].strip()):
                found.append(position)
        return tuple(found)

    def before(self, read: int, *, fills: bool) -> str:
        """The text in front of what is predicted at `read`: up to that token, or if `fills` (a masked token) what
        stands before it."""
        if fills:
            starts = [span[0] for span in self.spans[read:] if span is not None]
            return (self.text[: starts[0]] if starts else self.text).rstrip()
        if not any(self.spans[read + 1 :]):
            return self.text
        ends = [span[1] for span in self.spans[: read + 1] if span is not None]
        return self.text[: ends[-1]] if ends else ""


def text_row(tokenizer: Tokenizer, text: str, prepend_bos: bool | None, *, bare: bool = False) -> TextRow:
    """A text as the model reads it; `bare` leaves out every token that does not stand in the text."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    ids = encoding.ids if bare else tokenizer.encode(text, prepend_bos=prepend_bos)
    front = next(i for i in range(len(ids) + 1) if ids[i : i + len(encoding.ids)] == encoding.ids)
    after = len(ids) - front - len(encoding.ids)
    return TextRow(text, tuple(ids), (None,) * front + tuple(encoding.offsets) + (None,) * after)


def named_positions(
    given: Any, lengths: Sequence[int], rows: Sequence[TextRow] | None = None
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Name -> token positions of each pair. Without `rows` there is no text, and only indices can be meant."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f'positions is {given!r}. Give names with places, e.g. positions={{"subject": "France"}}.')
    found = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name.strip() or ":" in name:
            raise InputError(
                f"A position is named {name!r}. Use words without a colon: {'subject:last'!r} asks for part of a span."
            )
        places = _per_pair(name, plain(value), len(lengths))
        found[name] = tuple(
            _place(name, place, pair, lengths[pair], rows[pair] if rows is not None else None)
            for pair, place in enumerate(places)
        )
    return found


def read_positions(given: Any, rows: Sequence[Sequence[int]], mask_id: int | None) -> tuple[int, ...]:
    """The position of each row whose logits answer: the last, an index for all, one each, or "mask"."""
    value, n = plain(given), len(rows)
    if value is None:
        return tuple(len(row) - 1 for row in rows)
    if is_index(value) or value == "mask":
        value = [value] * n
    if not isinstance(value, (list, tuple)) or not all(is_index(one) or one == "mask" for one in value):
        raise InputError(f'read is {given!r}. Give a position, a list with one per pair, or "mask".')
    if len(value) != n:
        raise InputError(f"read has {len(value)} positions for {n} pairs. Give one number, or one per pair.")
    return tuple(
        _mask_position(row, mask_id, pair) if one == "mask" else _index("read", one, len(row), pair)
        for pair, (one, row) in enumerate(zip(value, rows, strict=True))
    )


def _mask_position(row: Sequence[int], mask_id: int | None, pair: int) -> int:
    if mask_id is None:
        raise InputError('read="mask", but no mask token is known here. Give the position itself: read=7.')
    found = [i for i, token in enumerate(row) if token == mask_id]
    if len(found) != 1:
        places = f" (at {', '.join(map(str, found))})" if found else ""
        raise PairError(
            pair,
            f'read="mask", but the mask token stands in the text {len(found)} times{places}. '
            "Write it once, or give the position itself: read=7.",
        )
    return found[0]


def _per_pair(name: str, value: Any, n: int) -> Sequence[Any]:
    is_span = isinstance(value, tuple) and len(value) == 2 and all(is_index(one) for one in value)
    if is_span or not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) == n:
        return value
    if value and all(is_index(one) for one in value):
        return [list(value)] * n
    raise InputError(
        f"positions[{name!r}] has {len(value)} places for {n} pairs. Give one for all of them, or one per pair."
    )


def _place(name: str, place: Any, pair: int, n_tokens: int, row: TextRow | None) -> tuple[int, ...]:
    if is_index(place):
        return (_index(f"position {name!r}", place, n_tokens, pair),)
    if isinstance(place, list) and place and all(is_index(one) for one in place):
        return tuple(sorted({_index(f"position {name!r}", one, n_tokens, pair) for one in place}))
    is_span = isinstance(place, tuple) and len(place) == 2 and all(is_index(one) for one in place)
    if not is_span and not isinstance(place, str):
        raise PairError(
            pair,
            f"position {name!r} is {place!r}. Give a substring, characters (start, end), or indices.",
        )
    if row is None:
        raise PairError(
            pair, f"position {name!r} is {place!r}, which means characters, but these pairs are token ids. "
            "Give token indices, as a number or a list."
        )  # fmt: skip
    start, end = (place[0], place[1]) if isinstance(place, tuple) else _characters(name, place, pair, row.text)
    if not 0 <= start < end <= len(row.text):
        raise PairError(
            pair,
            f"position {name!r} is characters ({start}, {end}), but the clean text has {len(row.text)}. "
            "Give (start, end) with the end exclusive, or a list [index, …] for tokens.",
        )
    tokens = row.tokens_of(start, end)
    if not tokens:
        raise PairError(
            pair, f"position {name!r}, {row.text[start:end]!r}, is in no token. Give a token index instead."
        )
    return tokens


def _characters(name: str, part: Any, pair: int, text: str) -> tuple[int, int]:
    starts = [i for i in range(len(text)) if part and text.startswith(part, i)]
    if len(starts) == 1:
        return starts[0], starts[0] + len(part)
    if not starts:
        raise PairError(
            pair,
            f"position {name!r}, {part!r}, stands 0 times in the clean text {text!r}. "
            "Give a part of that text as it is written, or characters (start, end).",
        )
    spans = ", ".join(f"({i}, {i + len(part)})" for i in starts)
    raise PairError(
        pair,
        f"position {name!r}, {part!r}, stands {len(starts)} times in the clean text, at characters {spans}. "
        "Give the span you mean instead of the text.",
    )


def _index(what: str, given: Any, n_tokens: int, pair: int) -> int:
    if not -n_tokens <= given < n_tokens:
        raise PairError(pair, f"{what} is {given}, but the text has {n_tokens} tokens: 0 to {n_tokens - 1}.")
    return given % n_tokens
