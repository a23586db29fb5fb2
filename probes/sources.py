"""What activations are read for: token rows, the positions in them that become rows of a dataset, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.model.kinds import attention_kind
from interp.model.transformer import HookedTransformer
from interp.pairs.checks import is_index
from interp.pairs.places import TextRow, text_row

__all__ = [
    "Labelled",
    "LabelledText",
    "Mark",
    "Texts",
    "from_texts",
    "label_column",
    "read_texts",
    "row_of",
    "set_bos",
    "spell",
]

Ids = np.ndarray
_CHUNK = 1024  # texts that are tokenized at a time: encodings are much larger than ids


@dataclass(frozen=True)
class Texts:
    """Texts as token ids. `own` says from where to where a row is the text itself: BOS, `[CLS]` and the like stand
    around it. `texts` is empty where ids were given."""

    rows: Sequence[Ids]
    own: Sequence[tuple[int, int]]
    texts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def shown(self, model: HookedTransformer, text: int) -> str:
        """A text with its tokens, for messages."""
        pieces = " ".join(map(repr, spell(model, self.rows[text])))
        return f"{self.texts[text]!r}, as tokens {pieces}" if self.texts else f"tokens {pieces}"


@dataclass(frozen=True)
class Labelled:
    """Token rows and what is known of some of their positions, in the order of texts and positions.

    `table` has the columns text, pos, group and type, and may have more; `labels` one per target.
    """

    tokens: Sequence[Ids]
    table: pd.DataFrame
    labels: pd.DataFrame
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def with_column(self, name: str, given: Any) -> Labelled:
        """The same with groups or types of the user's: a column of the table, one value per row, or one per text."""
        if given is None:
            return self
        if isinstance(given, str):
            if given not in self.table.columns:
                raise InputError(
                    f"{name}s={given!r} is no column of the table. It has {', '.join(map(str, self.table.columns))}."
                )
            values = self.table[given].to_numpy()
        else:
            values = np.asarray(list(given), dtype=object)
            if len(values) not in (len(self), len(self.tokens)):
                raise InputError(
                    f"{name}s has {len(values)} values for {len(self.tokens)} texts and {len(self)} rows. Give one "
                    "for each text, or one for each row."
                )
            if len(values) != len(self):
                values = values[self.table["text"].to_numpy()]
        if pd.isna(values).any():
            row = int(np.flatnonzero(pd.isna(values))[0])
            raise InputError(f"{name}s has no value for row {row}. Every row belongs to some {name}.")
        return replace(self, table=self.table.assign(**{name: [str(one) for one in values]}))


@dataclass(frozen=True)
class Mark:
    """A place in a text that becomes a row: characters (their last token is read), labels, and the word that the
    control task goes by ("": the token). `more` are further columns of the table."""

    span: tuple[int, int]
    labels: Mapping[str, Any]
    type: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledText:
    """A text whose rows all belong to one group."""

    text: str
    group: str
    marks: Sequence[Mark]


def set_bos(model: HookedTransformer, prepend_bos: bool | None) -> bool | None:
    """For texts of label sets: BOS stands in front where a decoder has one, as in tasks, unless said otherwise."""
    if prepend_bos is None and attention_kind(model) == "decoder" and model.tokenizer.bos_id is not None:
        return True
    return prepend_bos


def from_texts(
    model: HookedTransformer, texts: Sequence[LabelledText], about: Mapping[str, Any], *, prepend_bos: bool | None
) -> Labelled:
    """The rows of marked texts. A mark in no token of its own raises `InputError`."""
    bos = set_bos(model, prepend_bos)
    tokens, lines = [], []
    for number, one in enumerate(texts):
        row = text_row(model.tokenizer, one.text, bos)
        tokens.append(np.array(row.ids, dtype=np.int32))
        for mark in one.marks:
            found = row.tokens_of(*mark.span)
            if not found:
                raise InputError(f"{one.text[slice(*mark.span)]!r} is in no token of {one.text!r}. Leave it out.")
            lines.append((number, found[-1], one.group, mark))
    lines.sort(key=lambda line: line[:2])
    types = [mark.type or _stripped(model, tokens[text][pos]) for text, pos, _, mark in lines]
    table = {"text": [line[0] for line in lines], "pos": [line[1] for line in lines]}
    table |= {"group": [line[2] for line in lines], "type": types}
    more = dict.fromkeys(name for line in lines for name in line[3].more)
    targets = dict.fromkeys(name for line in lines for name in line[3].labels)
    table |= {name: [line[3].more.get(name) for line in lines] for name in more}
    labels = {name: label_column([line[3].labels.get(name) for line in lines]) for name in targets}
    return Labelled(tokens, pd.DataFrame(table), pd.DataFrame(labels), {**about, "prepend_bos": bos})


def read_texts(model: HookedTransformer, given: Any, prepend_bos: bool | None = None) -> Texts:
    """The user's texts, or rows of token ids, checked against the model's vocabulary and context."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(given, list | tuple):
        given = [one.tolist() if hasattr(one, "tolist") else one for one in given]
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise InputError(f"Texts come as a list of strings or of rows of token ids, with at least one; got {given!r}.")
    if all(isinstance(one, str) for one in given):
        found = _tokenized(model, list(given), prepend_bos)
    elif all(isinstance(one, Sequence) and one and all(is_index(i) for i in one) for one in given):
        rows = [np.array(one, dtype=np.int64) for one in given]
        for number, row in enumerate(rows):
            if row.min() < 0 or row.max() >= model.cfg.d_vocab:
                raise InputError(
                    f"Text {number} holds the token id {row.max() if row.min() >= 0 else row.min()}; this model has "
                    f"0 to {model.cfg.d_vocab - 1}."
                )
        found = Texts([row.astype(np.int32) for row in rows], [(0, len(row)) for row in rows])
    else:
        raise InputError("Texts are all strings, or all rows of token ids with at least one each. These are neither.")
    for number, row in enumerate(found.rows):
        if len(row) > model.cfg.n_ctx:
            raise InputError(
                f"Text {number} has {len(row)} tokens; this model reads at most {model.cfg.n_ctx}. Cut it up."
            )
    return found


def spell(model: HookedTransformer, ids: Any) -> list[str]:
    """Tokens as text, or as numbers where the model has no tokenizer."""
    ids = [int(one) for one in ids]
    if model.tokenizer is None:
        return [str(one) for one in ids]
    known = {one: "" for one in ids if model.tokenizer.backend.id_to_token(one) is not None}
    known = dict(zip(known, model.tokenizer.str_tokens(known), strict=True)) if known else {}
    return [known.get(one, str(one)) for one in ids]


def label_column(values: Sequence[Any]) -> pd.Series:
    """One target: numbers as floats with NaN, anything else as class names with None."""
    gone = [one is None or (isinstance(one, float | np.floating) and np.isnan(one)) for one in values]
    given = [one for one, is_gone in zip(values, gone, strict=True) if not is_gone]
    if given and all(isinstance(one, int | float | np.number) and not isinstance(one, bool) for one in given):
        return pd.Series([np.nan if no else float(one) for one, no in zip(values, gone, strict=True)], dtype=float)
    return pd.Series([None if no else str(one) for one, no in zip(values, gone, strict=True)], dtype=object)


def row_of(model: HookedTransformer, texts: Texts, text: int, prepend_bos: bool | None) -> TextRow:
    """One text with the characters of its tokens."""
    return text_row(model.tokenizer, texts.texts[text], prepend_bos)


def _tokenized(model: HookedTransformer, texts: list[str], prepend_bos: bool | None) -> Texts:
    if model.tokenizer is None:
        raise InputError("This model has no tokenizer, so it cannot read text. Give rows of token ids.")
    rows: list[Ids] = []
    own: list[tuple[int, int]] = []
    for start in range(0, len(texts), _CHUNK):
        some = texts[start : start + _CHUNK]
        framed = model.tokenizer.encode_batch(some, prepend_bos=prepend_bos)
        bare = [one.ids for one in model.tokenizer.backend.encode_batch_fast(some, add_special_tokens=False)]
        for number, (ids, inner) in enumerate(zip(framed, bare, strict=True), start=start):
            if not inner:
                raise InputError(f"Text {number} is empty: {texts[number]!r}. Leave it out.")
            front = next((i for i in range(len(ids)) if ids[i : i + len(inner)] == inner), 0)
            rows.append(np.array(ids, dtype=np.int32))
            own.append((front, front + len(inner)))
    return Texts(rows, own, texts)


def _stripped(model: HookedTransformer, token: Any) -> str:
    text = spell(model, [token])[0]
    return text.strip() or text
