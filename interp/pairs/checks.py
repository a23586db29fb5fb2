"""What every set of pairs must satisfy, and the plain values that arguments of any kind become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.model.tokens import TextMethods, too_long

if TYPE_CHECKING:
    from interp.pairs.pairs import PromptPairs

__all__ = [
    "PairError",
    "check_model",
    "check_pairs",
    "check_reads",
    "check_sizes",
    "id_rows",
    "is_index",
    "labels",
    "plain",
]


class PairError(InputError):
    """A mistake in one pair; `pair` and `what` let a reader of files say it by row."""

    def __init__(self, pair: int, what: str) -> None:
        super().__init__(f"Pair {pair}: {what}")
        self.pair, self.what = pair, what


def plain(given: Any) -> Any:
    """Tensors, arrays and series as lists of Python numbers, at any depth."""
    if isinstance(given, str):
        return given
    if hasattr(given, "tolist"):
        return given.tolist()
    if isinstance(given, tuple):
        return tuple(plain(one) for one in given)
    return [plain(one) for one in given] if isinstance(given, list) else given


def is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def id_rows(given: Any, what: str) -> tuple[tuple[int, ...], ...]:
    """Rows of token ids from lists or tensors; one flat row is one pair."""
    values = plain(given)
    if isinstance(given, TextMethods):
        raise InputError(
            f"{what} is a model. from_tokens takes ids first: (clean, corrupt, answer, foil, model=model)."
        )
    if isinstance(given, str) or (isinstance(values, (list, tuple)) and values and isinstance(values[0], str)):
        raise InputError(f"{what} is {_short(given)}, a text. Texts go to PromptPairs.from_text(model, clean, …).")
    if not isinstance(values, (list, tuple)) or not values:
        raise InputError(f"{what} is {_short(given)}. Give rows of token ids: lists, or a tensor [pair, pos].")
    if all(is_index(one) for one in values):
        values = [values]
    for pair, row in enumerate(values):
        if not isinstance(row, (list, tuple)) or not all(is_index(one) for one in row):
            raise PairError(
                pair, f"{what} is {_short(row)}, not a row of token ids (whole numbers). Text goes to from_text."
            )
    return tuple(tuple(row) for row in values)


def labels(given: Any, n: int, what: str) -> tuple[str, ...]:
    """One name per pair; one string names them all."""
    if given is None:
        return ()
    values = plain(given)
    if isinstance(values, str):
        return (values,) * n
    if not isinstance(values, (list, tuple)) or len(values) != n:
        count = f"{len(values)} of them" if isinstance(values, (list, tuple)) else f"{_short(given)}"
        raise InputError(f"{what} names each of the {n} pairs, but there are {count}. Give {n}, one per pair.")
    return tuple(str(one) for one in values)


def check_model(model: Any) -> TextMethods:
    if not isinstance(model, TextMethods):
        raise InputError(f"model is {_short(model)}, not a loaded model. Load one first: model = interp.load(…).")
    return model


def check_pairs(pairs: PromptPairs) -> None:
    """Raise for anything that makes pairs unusable, whoever built them."""
    n = len(pairs.clean)
    if n == 0:
        raise InputError("There are no pairs. Give at least one clean and one corrupt prompt.")
    counts = {"corrupt": len(pairs.corrupt), "read": len(pairs.read), "items": len(pairs.items)}
    optional = {"answer": pairs.answer, "foil": pairs.foil, "templates": pairs.templates}
    optional |= {"clean_decoder": pairs.clean_decoder, "corrupt_decoder": pairs.corrupt_decoder}
    counts |= {name: len(value) for name, value in optional.items() if value}
    counts |= {f"positions[{name!r}]": len(spans) for name, spans in pairs.positions.items()}
    for name, count in counts.items():
        if count != n:
            raise InputError(f"There are {n} clean prompts, but {name} has {count}. Give one per pair.")
    if pairs.combine not in ("mean", "logsumexp"):
        raise InputError(f'combine is {pairs.combine!r}. Choose "mean" or "logsumexp".')
    if pairs.foil and not pairs.answer:
        raise InputError("There is a foil but no answer to compare it with. Give answer= too, or neither.")
    if bool(pairs.clean_decoder) != bool(pairs.corrupt_decoder):
        raise InputError("Only one of clean_decoder and corrupt_decoder was given. Give both, or clean_decoder alone.")
    for pair in range(n):
        _check_rows(pairs, pair)
        _check_answers(pairs, pair)


def check_reads(model: TextMethods) -> None:
    """Raise for an encoder, which has no position to read unless one is named."""
    if model.cfg.decoder is None:
        raise InputError(
            "This model is an encoder: it predicts at every position, not after the last. "
            'Give read=, the position of the masked token, or read="mask".'
        )


def check_sizes(pairs: PromptPairs, model: TextMethods) -> None:
    """What only a model can tell: ids outside its vocabulary, rows longer than its context, answers it cannot give."""
    limit, n_ctx = model.cfg.d_vocab, model.cfg.n_ctx
    for pair in range(len(pairs)):
        rows = [side[pair] for side in (pairs.clean, pairs.corrupt, pairs.clean_decoder, pairs.corrupt_decoder) if side]
        answers = [one for sets in (pairs.answer, pairs.foil) if sets for one in sets[pair]]
        for row in [*rows, *answers]:
            if max(row) >= limit:
                raise PairError(pair, f"token id {max(row)} is outside this model's vocabulary, 0 to {limit - 1}.")
        longest = max(len(row) for row in rows)
        if longest > n_ctx:
            raise PairError(pair, too_long(longest, n_ctx))
        several = next((one for one in answers if len(one) > 1), None)
        if several is not None and model.cfg.decoder is None:
            raise PairError(
                pair,
                f"{pairs.spell(several)} is {len(several)} tokens, and an encoder fills one position. "
                "Choose a text that is one token, or give one token's id.",
            )
        behind = max((len(one) for one in answers), default=1) - 1
        if pairs.predicted_lengths[pair] + behind > n_ctx:
            raise PairError(
                pair, f"with its answer behind it: {too_long(pairs.predicted_lengths[pair] + behind, n_ctx)}"
            )


def _check_rows(pairs: PromptPairs, pair: int) -> None:
    sides = [("prompt", pairs.clean[pair], pairs.corrupt[pair])]
    if pairs.clean_decoder:
        sides.append(("decoder text", pairs.clean_decoder[pair], pairs.corrupt_decoder[pair]))
    for what, clean, corrupt in sides:
        if not clean or not corrupt:
            side = "corrupt" if clean else "clean"
            raise PairError(pair, f"the {side} {what} is empty. Give at least one token.")
        if min(*clean, *corrupt, 0) < 0:
            raise PairError(pair, f"token id {min(*clean, *corrupt)} is negative. Ids count from 0.")
        if len(clean) != len(corrupt):
            raise PairError(pair, _misaligned(what, _shown(pairs, clean), _shown(pairs, corrupt)))
    n_read = pairs.predicted_lengths[pair]
    if not 0 <= pairs.read[pair] < n_read:
        raise PairError(pair, f"read is position {pairs.read[pair]}, but the text has positions 0 to {n_read - 1}.")
    n_tokens = len(pairs.clean[pair])
    for name, spans in pairs.positions.items():
        if not spans[pair] or not all(0 <= one < n_tokens for one in spans[pair]):
            raise PairError(
                pair, f"position {name!r} is {spans[pair]}. Give at least one index from 0 to {n_tokens - 1}."
            )


def _check_answers(pairs: PromptPairs, pair: int) -> None:
    if not pairs.answer:
        return
    answer = pairs.answer[pair]
    foil = pairs.foil[pair] if pairs.foil else None
    for what, given in (("answer", answer), ("foil", foil)):
        if given is None:
            continue
        if not given or not all(given):
            raise PairError(pair, f"the {what} is empty. Give a text, a token id, or a list of these.")
        if min(min(one) for one in given) < 0:
            raise PairError(pair, f"the {what} holds a negative token id. Ids count from 0.")
        several = [one for one in given if len(one) > 1]
        if several and len(given) > 1:
            raise PairError(
                pair,
                f"the {what} is a set of {len(given)} alternatives, of which {pairs.spell(several[0])} is "
                f"{len(several[0])} tokens. A set is of single tokens: leave that one out, or give it alone.",
            )
    same = [one for one in answer if foil and one in foil]
    if same:
        raise PairError(
            pair, f"{pairs.spell(same[0])} is the answer and the foil. Choose a foil that differs, or give none."
        )


def _shown(pairs: PromptPairs, row: Sequence[int]) -> list[str]:
    return [pairs.spell((one,)) for one in row]


def _misaligned(what: str, clean: list[str], corrupt: list[str]) -> str:
    """Both rows, token by token; an arrow where they first differ."""
    differ = next((i for i, (a, b) in enumerate(zip(clean, corrupt, strict=False)) if a != b), None)
    first = min(len(clean), len(corrupt)) if differ is None else differ
    wide = max(len("clean"), *(len(one) for one in clean))
    lines = [f"     {'clean':<{wide}}  corrupt"]
    for i in range(max(len(clean), len(corrupt))):
        a, b = (row[i] if i < len(row) else "–" for row in (clean, corrupt))
        mark = "  <- first difference" if i == first else ""
        lines.append(f"{i:>3}  {a:<{wide}}  {b}{mark}")
    return (
        f"the clean {what} has {len(clean)} tokens and the corrupt one {len(corrupt)}; patching needs them to align. "
        "Choose words of equally many tokens.\n" + "\n".join(lines)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
