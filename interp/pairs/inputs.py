"""The arguments of pairs as rows: texts, what a decoder has read, and the position that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.errors import InputError
from interp.model.tokens import TextMethods
from interp.pairs.checks import PairError, check_reads, id_rows, plain
from interp.pairs.places import TextRow, read_positions, text_row

__all__ = ["decoder_ids", "decoder_rows", "decoder_texts", "need_tokenizer", "reads_of", "text_rows", "texts"]

Rows = tuple[tuple[int, ...], ...]


def need_tokenizer(model: TextMethods) -> Any:
    if model.tokenizer is None:
        raise InputError(
            "This model has no tokenizer, so it reads no text. Give ids with PromptPairs.from_tokens, "
            "or load the model with tokenizer=."
        )
    return model.tokenizer


def texts(given: Any, what: str) -> list[str]:
    values = [given] if isinstance(given, str) else plain(given)
    if not isinstance(values, (list, tuple)) or not all(isinstance(one, str) for one in values):
        raise InputError(f"{what} is {given!r}. Give a text or a list of texts; token ids go to from_tokens.")
    if not values:
        raise InputError(f"There are no {what} prompts. Give at least one text.")
    return list(values)


def text_rows(tokenizer: Any, side: str, texts: Sequence[str], prepend_bos: bool | None) -> list[TextRow]:
    rows = [text_row(tokenizer, text, prepend_bos) for text in texts]
    for pair, row in enumerate(rows):
        if not row.ids:
            raise PairError(pair, f"the {side} prompt {row.text!r} is empty. Give some text, or prepend_bos=True.")
    return rows


def reads_of(
    model: Any, read: Any, rows: Sequence[Sequence[int]], mask_id: int | None, *, answered: bool
) -> tuple[int, ...]:
    """The positions that are read: the last ones where none were named, which an encoder with answers may not do."""
    if read is None and model is not None and answered:
        check_reads(model)
    return read_positions(read, rows, mask_id)


def decoder_rows(model: TextMethods, clean: Any, corrupt: Any, n: int) -> tuple[Rows, Rows]:
    """What the decoder has read, as ids; nothing for a model with one stack."""
    two = model.cfg.encoder is not None and model.cfg.decoder is not None
    if two and clean is None:
        raise InputError(
            "This model has an encoder and a decoder. Say what the decoder has read: decoder= (a text or ids; ids "
            "alone in from_tokens)."
        )
    if not two and (clean is not None or corrupt is not None):
        raise InputError("This model has one stack, so there is no decoder text. Leave the decoder arguments out.")

    def ids(given: Any) -> Any:
        values = plain(given)
        if isinstance(values, str):
            return text_row(need_tokenizer(model), values, None, bare=True).ids
        return [ids(one) for one in values] if isinstance(values, (list, tuple)) else values

    return decoder_ids(None if clean is None else ids(clean), None if corrupt is None else ids(corrupt), n)


def decoder_ids(clean: Any, corrupt: Any, n: int) -> tuple[Rows, Rows]:
    """One row for all pairs, or one each; `corrupt` is as `clean` where it is not given."""
    if clean is None and corrupt is not None:
        raise InputError("There is a corrupt decoder text but no clean one. Give both, or the clean one for both.")
    if clean is None:
        return (), ()
    sides = [id_rows(one, "the decoder's text") for one in (clean, clean if corrupt is None else corrupt)]
    for rows in sides:
        if len(rows) not in (1, n):
            raise InputError(f"There are {len(rows)} decoder texts for {n} pairs. Give one for all, or one per pair.")
    one_each = [rows * n if len(rows) == 1 else rows for rows in sides]
    return one_each[0], one_each[1]


def decoder_texts(tokenizer: Any, rows: Rows, reads: Sequence[int]) -> list[str]:
    return [tokenizer.decode(row[: at + 1], skip_special_tokens=True) for row, at in zip(rows, reads, strict=True)]
