"""CoNLL-U: words, ranges, empty nodes, comments, and trees that are trees."""

from __future__ import annotations

import pytest

from interp.errors import InputError
from interp.readers import read_conllu
from tests.readers.conftest import Write


def row(id: str, form: str, head: str = "0", deprel: str = "", misc: str = "_", deps: str = "_") -> str:
    deprel = deprel or ("root" if head == "0" else "dep")
    return "\t".join([id, form, form.lower(), "X", "_", "_", head, deprel, deps, misc]) + "\n"


def bare(id: str, form: str, misc: str = "_", deps: str = "_") -> str:
    return "\t".join([id, form, "_", "_", "_", "_", "_", "_", deps, misc]) + "\n"


# "He didn't bake bread, she cake." with what the ellipsis leaves out.
WHOLE = (
    "# newdoc\n# sent_id = bread-1\n# text = He didn't bake bread, she cake.\n"
    + row("1", "He", "4", "nsubj")
    + bare("2-3", "didn't")
    + row("2", "did", "4", "aux")
    + row("3", "n't", "4", "advmod")
    + row("4", "bake", "0", "root")
    + row("5", "bread", "4", "obj", "SpaceAfter=No")
    + row("6", ",", "4", "punct")
    + row("7", "she", "4", "parataxis")
    + bare("7.1", "baked", deps="4:parataxis")
    + row("8", "cake", "7", "orphan", "SpaceAfter=No")
    + row("9", ".", "4", "punct")
)


def test_a_sentence_has_its_words_ranges_empty_nodes_and_comments(write: Write) -> None:
    (one,) = read_conllu(write("a.conllu", WHOLE))
    assert [word.form for word in one.words] == ["He", "did", "n't", "bake", "bread", ",", "she", "cake", "."]
    assert [word.head for word in one.words] == [4, 4, 4, 0, 4, 4, 4, 7, 4]
    assert one.words[7].deprel == "orphan" and one.words[0].xpos is None and one.words[0].upos == "X"
    assert [(range.first, range.last, range.form) for range in one.ranges] == [(2, 3, "didn't")]
    assert [(node.id, node.form, node.deps, node.head) for node in one.empty] == [("7.1", "baked", "4:parataxis", None)]
    assert one.sent_id == "bread-1" and one.text == "He didn't bake bread, she cake." and "newdoc" in one.comments
    assert one.has_tree and one.line == 1 and one.words[0].line == 4


def test_every_word_knows_its_characters(write: Write) -> None:
    with_text = read_conllu(write("a.conllu", WHOLE))[0]
    without = read_conllu(write("b.conllu", WHOLE.replace("# text", "# texte")))[0]
    for one in (with_text, without):
        assert one.text == "He didn't bake bread, she cake."
        found = [one.text[slice(*span)] for span in one.spans]
        assert found == ["He", "didn't", "didn't", "bake", "bread", ",", "she", "cake", "."]


def test_a_text_that_is_not_its_words_is_said(write: Write) -> None:
    (one,) = read_conllu(write("a.conllu", WHOLE.replace("bake bread,", "bakes bread,")))
    with pytest.raises(InputError, match="does not go on with its token 'bread'"):
        _ = one.spans


def test_the_frame_has_a_row_for_each_word_alone(write: Write) -> None:
    frame = read_conllu(write("a.conllu", WHOLE + "\n" + bare("1", "Hm") + "\n")).to_frame()
    assert list(frame["id"]) == [*range(1, 10), 1] and list(frame["sentence"]) == [0] * 9 + [1]
    assert frame["head"].isna().sum() == 1 and frame["head"].iloc[7] == 7


def test_words_without_heads_are_read_without_a_tree(write: Write) -> None:
    (one,) = read_conllu(write("a.conllu", bare("1", "Hm") + bare("2", "no")))
    assert not one.has_tree and [word.head for word in one.words] == [None, None]


def test_an_underscore_may_be_a_form_and_a_form_may_hold_spaces(write: Write) -> None:
    (one,) = read_conllu(write("a.conllu", row("1", "_") + row("2", "10 000", "1")))
    assert [word.form for word in one.words] == ["_", "10 000"]


def test_an_empty_node_may_stand_before_the_first_word(write: Write) -> None:
    (one,) = read_conllu(write("a.conllu", bare("0.1", "it") + bare("0.2", "is") + row("1", "Done")))
    assert [node.id for node in one.empty] == ["0.1", "0.2"]


BAD = {
    "two columns": ("1\tHe\n", 1, "it has 2 tab-separated columns, not 10"),
    "spaces": (row("1", "He").replace("\t", "    "), 1, "it has 1 tab-separated columns"),
    "empty column": (row("1", "He").replace("X", ""), 1, "column UPOS is empty"),
    "id": (row("one", "He"), 1, "ID 'one' is not a number"),
    "first id": (row("2", "He"), 1, "word 2 follows word 0"),
    "id twice": (row("1", "He") + row("1", "He", "1"), 2, "word 1 follows word 1"),
    "gap": (row("1", "He") + row("3", "He", "1"), 2, "word 3 follows word 1"),
    "head beyond": (row("1", "He", "2") + row("2", "goes", "3"), 2, "word 2 has head 3; the sentence has words 1 to 2"),
    "head text": (row("1", "He", "two"), 1, "HEAD is 'two', not a number"),
    "head negative": (row("1", "He", "-1"), 1, "HEAD is '-1'"),
    "some heads": (row("1", "He", "2") + bare("2", "goes"), 2, "word 2 has no head"),
    "two roots": (row("1", "He") + row("2", "goes"), 2, "words 1 and 2 are both roots"),
    "no root": (row("1", "He", "2") + row("2", "goes", "1"), 1, "no word is the root"),
    "itself": (row("1", "He") + row("2", "goes", "2"), 2, "word 2 depends on itself"),
    "cycle": (row("1", "He") + row("2", "a", "3") + row("3", "b", "4") + row("4", "c", "2"), 2, "depends on itself"),
    "root deprel": (row("1", "He", "0", "nsubj"), 1, "root goes with head 0"),
    "deprel root": (row("1", "He") + row("2", "goes", "1", "root"), 2, "root goes with head 0"),
    "range place": (row("1", "He") + bare("1-2", "Hego") + row("2", "go", "1"), 2, "range 1-2 stands before word 2"),
    "range back": (bare("1-1", "He") + row("1", "He"), 1, "range 1-1 stands before word 1"),
    "range beyond": (bare("1-3", "He") + row("1", "He") + row("2", "goes", "1"), 3, "goes beyond the last word, 2"),
    "range overlaps": (
        bare("1-3", "a") + row("1", "a") + bare("2-4", "b") + row("2", "b", "1"), 3, "range 2-4 overlaps 1-3",
    ),
    "empty place": (row("1", "He") + bare("2.1", "x"), 2, "empty node 2.1 stands behind word 1; 1.1 may"),
    "empty number": (row("1", "He") + bare("1.2", "x"), 2, "1.1 may"),
    "empty head": (row("1", "He") + row("1.1", "x", "1"), 2, "empty nodes have DEPS alone"),
    "comment inside": (row("1", "He") + "# text = He\n", 2, "a comment stands inside a sentence"),
    "comments alone": ("# text = He\n", 1, "these are comments without words"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_sentence_is_refused_by_line_or_left_out_whole(name: str, write: Write) -> None:
    text, at, message = BAD[name]
    first = row("1", "Hm") + "\n\n"
    path = write("a.conllu", first + text + "\n" + row("1", "Ok") + "\n")
    with pytest.raises(InputError) as error:
        read_conllu(path)
    assert f"{path}, line {at + 3}: " in str(error.value) and message in str(error.value)
    found = read_conllu(path, on_error="skip")
    assert [one.words[0].form for one in found] == ["Hm", "Ok"]
    assert found.n_skipped == text.count("\n") and [one.line for one in found.problems] == [at + 3]
