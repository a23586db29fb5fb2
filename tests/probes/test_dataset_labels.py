"""Labels of the user's reach the tokens they are of, or an error shows where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from probes.aligned import word_labels
from probes.gather import dataset
from tests.probes.test_dataset import model_of, odd, ragged

TEXTS = ["The keys near the cabinet", "A unicyclist rests"]


def tokens(model: HookedTransformer, text: str) -> list[str]:
    return model.tokenizer.str_tokens(model.tokenizer.encode(text, prepend_bos=False))


def by_token(model: HookedTransformer) -> dict[str, list[list[str]]]:
    return {"long": [["long" if len(piece) > 4 else "short" for piece in tokens(model, text)] for text in TEXTS]}


def test_labels_of_each_token_stand_at_the_text_and_not_at_bos(reader: HookedTransformer) -> None:
    found = dataset(reader, TEXTS, by_token(reader), prepend_bos=True, sites="resid_pre.0")
    assert found.table["token"].tolist() == [piece for text in TEXTS for piece in tokens(reader, text)]
    assert found.table["pos"].tolist()[:2] == [1, 2]
    assert found.labels["long"].tolist() == [label for some in by_token(reader)["long"] for label in some]


def test_labels_may_count_bos_in(reader: HookedTransformer) -> None:
    labels = {"long": [["none", *some] for some in by_token(reader)["long"]]}
    found = dataset(reader, TEXTS, labels, prepend_bos=True, sites="resid_pre.0")
    assert found.table["pos"].tolist()[0] == 0 and found.labels["long"][0] == "none"


def test_the_type_and_group_of_a_row_are_its_word(reader: HookedTransformer) -> None:
    found = dataset(reader, TEXTS, by_token(reader), sites="resid_pre.0")
    assert found.table["type"].tolist()[:3] == ["The", "keys", "near"]
    assert found.table["group"].equals(found.table["type"].rename("group"))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("last", [4, 3]),
        (-1, [4, 3]),
        (1, [1, 1]),
        ([2, 1], [2, 1]),
        (np.array([0, 2]), [0, 2]),
        (lambda pieces: pieces.index(next(one for one in pieces if one.startswith(" "))), [1, 1]),
    ],
)
def test_one_position_of_each_text(reader: HookedTransformer, positions: Any, expected: list[int]) -> None:
    texts = ["The keys near the cabinet", "The dog was here"]
    found = dataset(reader, texts, {"x": ["a", "b"]}, positions=positions, sites="resid_pre.0")
    assert found.table["pos"].tolist() == expected and found.labels["x"].tolist() == ["a", "b"]


def test_several_positions_of_each_text(reader: HookedTransformer) -> None:
    labels = {"x": [["a", "b"], ["c", None]], "y": [[1, 2.5], [3, None]]}
    found = dataset(reader, TEXTS, labels, positions=[[3, 1], [0, 2]], sites="resid_pre.0")
    assert found.table["pos"].tolist() == [1, 3, 0, 2], "in the order of positions"
    assert found.labels["x"].tolist()[:3] == ["b", "a", "c"] and found.labels["x"].isna().tolist()[3]
    assert found.labels["y"].dtype == float and found.labels["y"].tolist()[:3] == [2.5, 1.0, 3.0]


def test_truth_values_name_classes() -> None:
    found = dataset(model_of("llama"), ragged((3, 4)), {"x": [True, False]}, positions="last")
    assert found.labels["x"].tolist() == ["True", "False"]


def test_a_table_labels_indices_words_and_characters(reader: HookedTransformer) -> None:
    frame = pd.DataFrame(
        {"text": [0, 0, TEXTS[1], 1], "pos": [1, "cabinet", "unicyclist", (13, 18)], "label": list("abcd")}
    )
    found = dataset(reader, TEXTS, frame, sites="resid_pre.0")
    pieces = tokens(reader, TEXTS[1])
    assert found.labels["label"].tolist() == list("abcd")
    assert found.table["token"].tolist()[:2] == [" keys", " cabinet"]
    word_end = found.table["pos"].tolist()[2]
    assert "".join(pieces[: word_end + 1]) == "A unicyclist" and word_end > 1, "the last token of the word"


def test_a_table_may_bring_groups_types_and_several_targets() -> None:
    frame = pd.DataFrame(
        {"text": [1, 0], "pos": [0, 1], "group": ["g", "h"], "type": ["s", "t"], "x": ["a", "b"], "y": [0.5, 1.5]}
    )
    found = dataset(model_of("llama"), ragged((3, 4)), frame)
    assert found.targets == ("x", "y") and found.labels["y"].tolist() == [1.5, 0.5]
    assert found.table["group"].tolist() == ["h", "g"] and found.table["type"].tolist() == ["t", "s"]


def test_groups_and_types_are_given_by_text_by_row_or_by_column() -> None:
    rows = ragged((3, 2))
    options: dict[str, Any] = {"sites": "resid_pre.0"}
    by_text = dataset(model_of("llama"), rows, odd(rows), groups=["a", "b"], types="text", **options)
    assert by_text.table["group"].tolist() == list("aaabb") and by_text.table["type"].tolist() == list("00011")
    by_row = dataset(model_of("llama"), rows, odd(rows), groups=[1, 2, 3, 4, 5], **options)
    assert by_row.table["group"].tolist() == list("12345")


@pytest.mark.parametrize(
    ("groups", "message"),
    [(["a"] * 3, "3 values for 2 texts and 5 rows"), ("nothing", "no column"), (["a", None], "no value for row 3")],
)
def test_groups_that_do_not_fit_are_refused(groups: Any, message: str) -> None:
    rows = ragged((3, 2))
    with pytest.raises(InputError, match=message):
        dataset(model_of("llama"), rows, odd(rows), groups=groups)


def test_labels_of_words_stand_at_the_last_token_or_the_first(reader: HookedTransformer) -> None:
    words = [text.split() for text in TEXTS]
    given = {"length": [[len(word) for word in some] for some in words]}
    for at, want in (("last", "A unicyclist"), ("first", "A uni")):
        texts, frame = word_labels(reader, words, given, at=at)  # type: ignore[arg-type]
        found = dataset(reader, texts, frame, sites="resid_pre.0")
        assert texts == TEXTS and found.table["type"].tolist() == [word for some in words for word in some]
        assert found.labels["length"].tolist() == [float(len(word)) for some in words for word in some]
        pos = int(found.table["pos"][6])
        assert "".join(tokens(reader, TEXTS[1])[: pos + 1]).startswith(want) and found.table["type"][6] == "unicyclist"
        assert found.table["group"].tolist() == found.table["type"].tolist()


def test_words_may_touch_in_the_text(reader: HookedTransformer) -> None:
    _, frame = word_labels(
        reader, [["Rain", ",", "then", "sun", "."]], {"x": [list("abcde")]}, texts=["Rain, then sun."]
    )
    assert frame["x"].tolist() == list("abcde") and frame["pos"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "labels", "message"),
    [
        ([["The", "keys", "by"], ["A"]], {"x": [list("abc"), ["d"]]}, r"Word 2 of text 0, 'by', is not found"),
        ([["The", "keys"], ["A"]], {"x": [list("abc"), ["d"]]}, r"Text 0 has 2 words and 3 labels of 'x'"),
        ([["The", "keys"], ["A"]], {"x": [list("ab")]}, r"labels of 'x'"),
        ([["The", "keys"]], {"x": [list("ab")]}, "2 texts and words of 1"),
    ],
)
def test_words_that_the_text_does_not_hold_are_refused(
    reader: HookedTransformer, words: Any, labels: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        word_labels(reader, words, labels, texts=TEXTS)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ({"x": [["a"] * 4, ["b"] * 4]}, {}, r"Text 0 has 4 labels of 'x' for 5 tokens: 'The keys near.*'The' ' keys'"),
        ({"x": [["a"] * 5]}, {}, r"labels of 1 texts; there are 2"),
        ({"x": ["a", "b"]}, {}, r"Text 0 has 1 labels of 'x' for 5 tokens"),
        ({"x": "ab"}, {}, r"labels of 1 texts"),
        ({"x": [["a", "b"], ["c"]]}, {"positions": [1, 1]}, r"2 labels of 'x' for 1 positions \(\[1\]\)"),
        ({"x": ["a", "b"]}, {"positions": 9}, r"Position 9 of text 0 is not there: it has 5 tokens"),
        ({"x": ["a", "b"]}, {"positions": "subject"}, "is no place"),
        ({"x": ["a", "b"]}, {"positions": 1.5}, "names no places"),
        ({"x": ["a", "b"]}, {"positions": lambda pieces: "here"}, "gave 'here' for text 0"),
        ({}, {}, "are no labels of 2 texts"),
        (["a", "b", "c"], {}, "are no labels of 2 texts"),
        (None, {}, "are no labels of"),
        ({"text": ["a", "b"]}, {"positions": "last"}, "cannot be called 'text'"),
        (pd.DataFrame({"text": [0], "pos": [0]}), {}, "no column of labels"),
        (pd.DataFrame({"text": [0], "label": ["a"]}), {}, "no column 'pos'"),
        (pd.DataFrame({"text": [0], "pos": [1], "label": ["a"]}), {"positions": 1}, "says its positions itself"),
        (pd.DataFrame({"text": [2], "pos": [1], "label": ["a"]}), {}, "is of text 2; there are texts 0 to 1"),
        (pd.DataFrame({"text": [0], "pos": [5], "label": ["a"]}), {}, "Position 5 of text 0 is not there"),
        (pd.DataFrame({"text": [0], "pos": ["dog"], "label": ["a"]}), {}, "stands 0 times in text 0, 'The keys"),
        (pd.DataFrame({"text": [0], "pos": ["key"], "label": ["a"]}), {}, "stands 0 times"),
        (pd.DataFrame({"text": [0], "pos": [(5, 8)], "label": ["a"]}), {}, r"'eys'.*does not align.*hold ' ?keys'"),
        (pd.DataFrame({"text": [0], "pos": [(20, 90)], "label": ["a"]}), {}, "in no token"),
        (pd.DataFrame({"text": [0], "pos": [2.5], "label": ["a"]}), {}, "stands at 2.5"),
        (pd.DataFrame({"text": [0, 0], "pos": [1, "keys"], "label": ["a", "b"]}), {}, "is labelled twice"),
        ({"x": ["a", "b"]}, {"positions": "last", "n": 5}, "n= is for label sets"),
        ({"x": ["a", "b"]}, {"positions": "last", "split": "report"}, "split= is for label sets"),
        ({"x": ["a", "b"]}, {"positions": "last", "corpus": "a"}, "corpus= is for label sets"),
    ],
)
def test_labels_that_do_not_align_are_refused(
    reader: HookedTransformer, labels: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dataset(reader, TEXTS, labels, **options)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "list of strings"),
        (["a", [1, 2]], "all strings, or all rows"),
        ([[1, 2], []], "all strings, or all rows"),
        (["fine", ""], "Text 1 is empty"),
        ([[1, 2], [3, 99_999]], "token id 99999"),
        ([[1] * 513], "has 513 tokens; this model reads at most 512"),
        (5, "list of strings"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(reader: HookedTransformer, texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset(reader, texts, {"x": ["a", "b"]}, positions="last")


def test_rows_of_ids_come_as_lists_arrays_or_tensors() -> None:
    rows = ragged((4, 4))
    expected = dataset(model_of("llama"), rows, odd(rows), sites="resid_pre.0")
    for given in (np.array(rows), torch.tensor(rows), [np.array(row) for row in rows], tuple(map(tuple, rows))):
        found = dataset(model_of("llama"), given, odd(rows), sites="resid_pre.0")
        assert found.table.equals(expected.table)


def test_text_needs_a_tokenizer_and_a_dataset_a_model() -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        dataset(model_of("llama"), TEXTS, {"x": ["a", "b"]}, positions="last")
    with pytest.raises(InputError, match="no tokenizer"):
        word_labels(model_of("llama"), [["a"]], {"x": [["b"]]})
    with pytest.raises(InputError, match="loaded model"):
        dataset("smollm2-135m", TEXTS, {"x": ["a", "b"]})


def test_named_positions_of_pairs_are_places(reader: HookedTransformer) -> None:
    pairs = PromptPairs.from_text(
        reader,
        ["The unicyclist near the door", "The key near the door"],
        ["The unicyclist near the gate", "The key near the gate"],
        " is",
        positions={"subject": ["unicyclist", "key"]},
        items=["rider", "key"],
    )
    found = dataset(reader, pairs, {"x": ["a", "b"]}, positions="subject:last", sites="resid_pre.0")
    assert found.table["group"].tolist() == ["rider", "key"]
    assert found.table["pos"].tolist() == [pairs.span("subject", i)[-1] for i in (0, 1)]
    with pytest.raises(InputError, match="no position named"):
        dataset(reader, pairs, {"x": ["a", "b"]}, positions="object")


def test_labels_of_a_drawn_task_are_taken_by_name(reader: HookedTransformer) -> None:
    task = interp.tasks.load("ioi", reader, n=2)
    name = next(name for name in task.labels if len(set(task.labels[name])) > 1)
    found = dataset(reader, task, name, positions="END", sites="resid_pre.0")
    assert found.labels[name].tolist() == [str(one) for one in task.labels[name]]
    assert found.table["group"].tolist() == list(task.items)
    with pytest.raises(InputError, match="has no label 'nothing'"):
        dataset(reader, task, "nothing", positions="END")
    with pytest.raises(InputError, match="no label set of its own"):
        dataset(reader, task)


def test_labels_of_texts_come_as_a_plain_list_too(reader: HookedTransformer) -> None:
    found = dataset(reader, TEXTS, ["a", "b"], positions="last", sites="resid_pre.0")
    assert found.targets == ("label",) and found.labels["label"].tolist() == ["a", "b"]
    each = dataset(reader, TEXTS, by_token(reader)["long"], sites="resid_pre.0")
    assert each.labels["label"].tolist() == [label for some in by_token(reader)["long"] for label in some]


def test_a_text_that_is_there_twice_is_named_by_its_number(reader: HookedTransformer) -> None:
    table = pd.DataFrame({"text": [TEXTS[0]], "pos": [1], "label": ["a"]})
    with pytest.raises(InputError, match="there twice"):
        dataset(reader, [*TEXTS, TEXTS[0]], table, sites="resid_pre.0")
    assert dataset(reader, TEXTS, table, sites="resid_pre.0").table["text"].tolist() == [0]
