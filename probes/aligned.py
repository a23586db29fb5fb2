"""The user's labels brought to the tokens that they are of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import is_index
from interp.pairs.places import TextRow, text_row
from probes.sources import Labelled, Texts, label_column, spell

__all__ = ["align", "word_labels"]

_KNOWN = ("text", "pos", "token", "group", "type", "word", "where", "item", "template", "split")
"""Columns of a table of labels that are no targets."""


def align(
    model: HookedTransformer, texts: Texts, labels: Any, *, positions: Any, pairs: PromptPairs | None, bos: bool | None
) -> Labelled:
    """One row for each labelled token, in the order of texts and positions. The type of a row is its token."""
    if isinstance(labels, list | tuple | np.ndarray | pd.Series) and len(labels) == len(texts):
        labels = {"label": list(labels)}  # as a table calls its only target
    if isinstance(labels, pd.DataFrame):
        if positions is not None:
            raise InputError("A table of labels says its positions itself. Leave positions= out.")
        found, more = _from_table(model, texts, labels, bos)
    elif isinstance(labels, Mapping) and labels:
        found, more = _from_mapping(model, texts, labels, positions, pairs), {}
    else:
        raise InputError(
            f"labels={labels!r} are no labels of {len(texts)} texts. Give one for each text (or a list, one per "
            "position), a mapping from targets to such labels, a table with the columns text, pos and label, or the "
            "name of a task or label set in place of the texts."
        )
    order = np.lexsort((found["pos"], found["text"]))
    text, pos = (np.asarray(found.pop(name), dtype=np.int64)[order] for name in ("text", "pos"))
    twice = np.flatnonzero((np.diff(text) == 0) & (np.diff(pos) == 0))
    if len(twice):
        at = int(twice[0])
        raise InputError(
            f"Position {pos[at]} of text {text[at]} is labelled twice: {texts.shown(model, int(text[at]))}."
        )
    if not len(text):
        raise InputError("No token has a label. Give at least one.")
    pieces = {one: (piece.strip() or piece) for one, piece in _pieces(model, texts, text, pos).items()}
    table = pd.DataFrame({"text": text, "pos": pos})
    table["type"] = [pieces[int(texts.rows[i][j])] for i, j in zip(text, pos, strict=True)]
    table["group"] = table["type"]
    for name, values in more.items():
        table[name] = [values[i] for i in order]
    if "type" in more and "group" not in more:
        table["group"] = table["type"]
    columns = {name: label_column([values[i] for i in order]) for name, values in found.items()}
    return Labelled(list(texts.rows), table, pd.DataFrame(columns), {"from": "texts and labels of the user's"})


def word_labels(
    model: HookedTransformer,
    words: Sequence[Sequence[str]],
    labels: Mapping[str, Any],
    *,
    texts: Sequence[str] | None = None,
    at: Literal["last", "first"] = "last",
    prepend_bos: bool | None = None,
) -> tuple[list[str], pd.DataFrame]:
    """Labels of words as a table for `dataset`: each stands at its word's last token (or its first), whose type is the
    whole word.

    `words` are those of each text, in order; `labels` are by target, one per word. Without `texts` these are the words
    with blanks between. A token belongs to the word it shares most characters with; a word without one is left out.
    Raises `InputError` for a word that the text does not go on with, and for other numbers of labels than of words.
    """
    if at not in ("last", "first"):
        raise InputError(f'at={at!r} is no end of a word. Choose "last" or "first".')
    said = [" ".join(some) for some in words] if texts is None else list(texts)
    if len(said) != len(words):
        raise InputError(f"There are {len(said)} texts and words of {len(words)}. Give the words of each text.")
    if model.tokenizer is None:
        raise InputError("This model has no tokenizer, so it cannot read words. Label token ids instead.")
    lines: dict[str, list[Any]] = {name: [] for name in ("text", "pos", "word", "type", *labels)}
    for number, (text, some) in enumerate(zip(said, words, strict=True)):
        for target, values in labels.items():
            if len(values) != len(words) or len(values[number]) != len(some):
                got = f"{len(values[number])} labels" if number < len(values) else "none"
                raise InputError(f"Text {number} has {len(some)} words and {got} of {target!r}: {text!r}. Pair them.")
        row = text_row(model.tokenizer, text, prepend_bos)
        for place, tokens in enumerate(_tokens_of_words(row, _word_spans(text, some, number))):
            if tokens:
                lines["text"].append(number)
                lines["pos"].append(tokens[-1 if at == "last" else 0])
                lines["word"].append(place)
                lines["type"].append(some[place])
                for target, values in labels.items():
                    lines[target].append(values[number][place])
    return said, pd.DataFrame(lines)


def _from_mapping(
    model: HookedTransformer, texts: Texts, labels: Mapping[str, Any], positions: Any, pairs: PromptPairs | None
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"text": [], "pos": [], **{str(name): [] for name in labels}}
    for target, values in labels.items():
        if target in ("text", "pos"):
            raise InputError(f"A target cannot be called {target!r}. A table of labels is given as a DataFrame.")
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != len(texts):
            n = 1 if isinstance(values, str) or not hasattr(values, "__len__") else len(values)
            raise InputError(f"{target!r} has labels of {n} texts; there are {len(texts)}. Give those of each text.")
    given = {str(name): list(values) for name, values in labels.items()}
    every = positions is None or (isinstance(positions, str) and positions == "all")
    chosen = None if every else _chosen(model, texts, positions, pairs)
    for text in range(len(texts)):
        mine = {name: values[text] for name, values in given.items()}
        places = _all_places(model, texts, text, mine) if chosen is None else chosen[text]
        found["text"] += [text] * len(places)
        found["pos"] += places
        for name, value in mine.items():
            some = list(value) if _is_list(value) else [value]
            if len(some) != len(places):
                raise InputError(
                    f"Text {text} has {len(some)} labels of {name!r} for {len(places)} positions ({places}): "
                    f"{texts.shown(model, text)}. Give one label for each position."
                )
            found[name] += some
    return found


def _all_places(model: HookedTransformer, texts: Texts, text: int, labels: Mapping[str, Any]) -> list[int]:
    """Every token of a text; those around it (BOS) only where they are labelled too."""
    begin, end = texts.own[text]
    whole = len(texts.rows[text])
    counts = {name: len(value) if _is_list(value) else 1 for name, value in labels.items()}
    sizes = set(counts.values())
    if sizes == {end - begin}:
        return list(range(begin, end))
    if sizes == {whole}:
        return list(range(whole))
    around = f", {whole} with those around it (BOS and the like)" if whole != end - begin else ""
    raise InputError(
        f"Text {text} has {', '.join(f'{n} labels of {name!r}' for name, n in counts.items())} for {end - begin} "
        f"tokens{around}: {texts.shown(model, text)}. Give one label for each token, say positions= for fewer, or "
        "bring labels of words to tokens with word_labels."
    )


def _chosen(model: HookedTransformer, texts: Texts, given: Any, pairs: PromptPairs | None) -> list[list[int]]:
    """The positions of each text: counted in the whole row, negative ones from its end."""
    given = given.tolist() if hasattr(given, "tolist") else given
    n = len(texts)
    if isinstance(given, str):
        if given == "last":
            return [[end - 1] for _, end in texts.own]
        if pairs is None:
            raise InputError(f'positions={given!r} is no place. Give "all", "last", indices, a function, or pairs.')
        spans = [pairs.span(given, text) for text in range(n)]
        return [list(span) for span in spans]
    if callable(given):
        places = [_called(model, texts, given, text) for text in range(n)]
    elif is_index(given):
        places = [[given]] * n
    elif isinstance(given, Sequence) and len(given) == n and all(_are_indices(one) for one in given):
        places = [list(one) if _is_list(one) else [one] for one in given]
    elif isinstance(given, Sequence) and given and all(is_index(one) for one in given):
        places = [list(given)] * n
    else:
        raise InputError(
            f'positions={given!r} names no places. Give "all", "last", an index, indices for all texts or for each of '
            f"the {n}, or a function of a text's tokens."
        )
    return [[_index(model, texts, text, one) for one in some] for text, some in enumerate(places)]


def _called(model: HookedTransformer, texts: Texts, function: Callable[..., Any], text: int) -> list[int]:
    found = function(spell(model, texts.rows[text]))
    if not _are_indices(found):
        raise InputError(f"positions= gave {found!r} for text {text}. It has to give an index, or a list of them.")
    return list(found) if _is_list(found) else [found]


def _index(model: HookedTransformer, texts: Texts, text: int, given: Any) -> int:
    n = len(texts.rows[text])
    if not -n <= given < n:
        raise InputError(
            f"Position {given} of text {text} is not there: it has {n} tokens, 0 to {n - 1}. It is "
            f"{texts.shown(model, text)}."
        )
    return int(given) % n


def _from_table(
    model: HookedTransformer, texts: Texts, frame: pd.DataFrame, bos: bool | None
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Labels by target with text and pos, and the columns that are no targets."""
    missing = [name for name in ("text", "pos") if name not in frame.columns]
    targets = [str(name) for name in frame.columns if name not in _KNOWN]
    if missing or not targets:
        lacks = f"no column {missing[0]!r}" if missing else "no column of labels"
        raise InputError(f"The table of labels has {lacks}. It needs text, pos, and label (or one for each target).")
    numbers = {text: number for number, text in enumerate(texts.texts)}
    several = {text for text, n in Counter(texts.texts).items() if n > 1}
    rows: dict[int, TextRow] = {}
    text, pos = [], []
    for line, (one, place) in enumerate(zip(frame["text"].tolist(), frame["pos"].tolist(), strict=True)):
        if isinstance(one, str) and one in several:
            raise InputError(f"Row {line} of the labels is of text {one!r}, which is there twice. Give its number.")
        number = numbers.get(one, -1) if isinstance(one, str) else one
        if not is_index(number) or not 0 <= number < len(texts):
            raise InputError(f"Row {line} of the labels is of text {one!r}; there are texts 0 to {len(texts) - 1}.")
        text.append(int(number))
        if is_index(place):
            pos.append(_index(model, texts, number, place))
            continue
        if not texts.texts:
            raise InputError(f"Row {line} of the labels stands at {place!r}, and these texts are ids. Give indices.")
        rows.setdefault(number, text_row(model.tokenizer, texts.texts[number], bos))
        pos.append(_token_of(model, texts, number, rows[number], place))
    found = {"text": text, "pos": pos, **{name: frame[name].tolist() for name in targets}}
    return found, {
        str(n): frame[n].tolist() for n in frame.columns if n in _KNOWN and n not in ("text", "pos", "token")
    }


def _token_of(model: HookedTransformer, texts: Texts, text: int, row: TextRow, place: Any) -> int:
    """The last token of a word or of characters, whose ends have to be ends of tokens."""
    if isinstance(place, str):
        starts = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(place)}(?!\w)", row.text)]
        if len(starts) != 1:
            raise InputError(
                f"The word {place!r} stands {len(starts)} times in text {text}, {texts.shown(model, text)}. Give its "
                "characters (start, end), or the token's index."
            )
        start, end = starts[0], starts[0] + len(place)
    elif isinstance(place, tuple | list) and len(place) == 2 and all(is_index(one) for one in place):
        start, end = place
    else:
        raise InputError(f"A label of text {text} stands at {place!r}. Give an index, a word, or (start, end).")
    tokens = row.tokens_of(start, end) if 0 <= start < end <= len(row.text) else tuple[int, ...]()
    spans = [span for one in tokens if (span := row.spans[one]) is not None]
    if not spans:
        raise InputError(f"Characters {start} to {end} of text {text} are in no token: {texts.shown(model, text)}.")
    covered = (min(span[0] for span in spans), max(span[1] for span in spans))
    if row.text[slice(*covered)].strip() != row.text[start:end].strip():
        raise InputError(
            f"The label at characters {start} to {end} ({row.text[start:end]!r}) of text {text} does not align with "
            f"tokens: they hold {row.text[slice(*covered)]!r}. The text is {texts.shown(model, text)}."
        )
    return tokens[-1]


def _word_spans(text: str, words: Sequence[str], number: int) -> list[tuple[int, int]]:
    """The characters of words that follow each other, with nothing but white space between."""
    spans, at = [], 0
    for place, word in enumerate(words):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip() or not word:
            raise InputError(
                f"Word {place} of text {number}, {word!r}, is not found: behind character {at} the text goes on "
                f"{text[at : at + 30]!r}. It is {text!r}, and the words are {len(words)}: {' | '.join(words)}."
            )
        at = start + len(word)
        spans.append((start, at))
    return spans


def _tokens_of_words(row: TextRow, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    words: list[list[int]] = [[] for _ in spans]
    for position, span in enumerate(row.spans):
        shared = [min(span[1], end) - max(span[0], start) for start, end in spans] if span is not None else []
        if max(shared, default=0) > 0:
            words[shared.index(max(shared))].append(position)
    return words


def _pieces(model: HookedTransformer, texts: Texts, text: np.ndarray, pos: np.ndarray) -> dict[int, str]:
    """The tokens that rows stand at, as text."""
    held = sorted({int(texts.rows[i][j]) for i, j in zip(text, pos, strict=True)})
    return dict(zip(held, spell(model, held), strict=True))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray | pd.Series)


def _are_indices(value: Any) -> bool:
    return is_index(value) or (_is_list(value) and all(is_index(one) for one in value))
