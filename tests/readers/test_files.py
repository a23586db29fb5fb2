"""What holds for every reader: how files are opened, how malformed lines are said, refused and skipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interp.errors import InputError
from interp.readers import read_blimp, read_conllu, read_facts, read_winogender
from tests.readers.conftest import BLIMP, KNOWN, WINOGENDER, Write, lines, table

TREE = "# text = cats sleep\n1\tcats\tcat\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tsleep\tsleep\tVERB\t_\t_\t0\troot\t_\t_\n\n"
READERS: dict[str, tuple[Callable[..., Any], str, int]] = {
    "blimp": (read_blimp, lines(BLIMP), 2),
    "winogender": (read_winogender, table(WINOGENDER), 6),
    "facts": (read_facts, lines(KNOWN), 4),
    "conllu": (read_conllu, TREE + TREE, 2),
}
# A line that no reader takes, put into a good file, and where; and how many lines go with it.
BROKEN = {
    "blimp": ("{broken\n", 2, 1),
    "winogender": ("no tab in here\n", 3, 1),
    "facts": ('{"subject": "Rome"}\n', 3, 1),
    "conllu": ("no tabs in here\n\n", 5, 1),
}


@pytest.fixture(params=READERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def content(reading: Any) -> Any:
    return reading.to_frame().drop(columns="path")


def with_broken_line(kind: str) -> tuple[str, int]:
    text, at, _ = BROKEN[kind]
    whole = READERS[kind][1].splitlines(keepends=True)
    return "".join([*whole[: at - 1], text, *whole[at - 1 :]]), at


def test_a_good_file_is_read_whole_and_says_so(kind: str, write: Write) -> None:
    read, text, n = READERS[kind]
    path = write("data.txt", text)
    found = read(path)
    data_lines = sum(bool(one.strip()) for one in text.splitlines()) - (kind == "winogender")
    assert len(found) == len(list(found)) == n and found.n_lines == data_lines
    assert (found.n_skipped, found.problems, found.paths) == (0, (), (str(path),))
    assert len(found.to_frame()) == (4 if kind == "conllu" else n)


@pytest.mark.parametrize("how", ["bom", "crlf", "gz", "cr", "no end", "trailing space", "blank lines"])
def test_how_a_file_is_written_makes_no_difference(kind: str, how: str, write: Write) -> None:
    read, text, _ = READERS[kind]
    plain = content(read(write("plain.txt", text)))
    changed = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "cr": text.replace("\n", "\r").encode(),
        "gz": text.encode(),
        "no end": text.rstrip("\n").encode(),
        "trailing space": text.replace("\n", "  \n").encode(),
        "blank lines": ("\n \n" + text + "\n\n  \n").encode(),
    }[how]
    found = content(read(write("data.txt.gz" if how == "gz" else "data.txt", changed)))
    moved = 2 if how == "blank lines" else 0
    assert (found["line"] == plain["line"] + moved).all(), "numbers count every line of the file"
    assert found.drop(columns="line").equals(plain.drop(columns="line"))


def test_a_malformed_line_is_refused_with_file_and_number(kind: str, write: Write) -> None:
    text, at = with_broken_line(kind)
    path = write("data.txt", text)
    with pytest.raises(InputError) as error:
        READERS[kind][0](path)
    assert f"{path}, line {at}: " in str(error.value) and 'on_error="skip"' in str(error.value)


def test_a_malformed_line_is_skipped_as_asked_and_said(kind: str, write: Write) -> None:
    text, at = with_broken_line(kind)
    read, good, n = READERS[kind]
    path = write("data.txt", text)
    found = read(path, on_error="skip")
    assert len(found) == n and found.n_skipped == BROKEN[kind][2]
    assert [(one.path, one.line) for one in found.problems] == [(str(path), at)]
    assert found.n_lines == read(write("good.txt", good)).n_lines + BROKEN[kind][2]
    assert f"line {at}" in found.describe() and "1 skipped" in found.describe()


def test_bytes_that_are_not_utf8_are_a_problem_of_their_line(kind: str, write: Write) -> None:
    text, at = with_broken_line(kind)
    data = text.encode().replace(BROKEN[kind][0].encode(), b"caf\xe9" + (b"\n\n" if kind == "conllu" else b"\n"))
    path = write("data.txt", data)
    with pytest.raises(InputError, match=f"line {at}: it is not UTF-8"):
        READERS[kind][0](path)
    assert [one.line for one in READERS[kind][0](path, on_error="skip").problems] == [at]


def test_several_files_are_read_in_their_order(kind: str, write: Write) -> None:
    read, text, n = READERS[kind]
    other = text.replace("verb_number", "noun_number").replace("baker.", "pilot.")
    paths = [write("a.txt", text), write("b.txt", other)]
    found = read(paths)
    assert len(found) == 2 * n and found.paths == tuple(map(str, paths))
    assert list(dict.fromkeys(found.to_frame()["path"])) == list(map(str, paths))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d, "is a folder"),
        (lambda d: d / "none.jsonl", "There is no file"),
        (lambda d: write_in(d, "empty", b""), "is empty"),
        (lambda d: write_in(d, "blank", b"\n  \n"), "is empty"),
        (lambda d: write_in(d, "utf16", "a,b".encode("utf-16")), "is UTF-16 text"),
        (lambda d: write_in(d, "false.gz", b"plain"), "gzip did not make it"),
        (lambda d: write_in(d, "cut.gz", b"\x1f\x8b\x08\x00\x00"), "cannot be unpacked"),
        (lambda d: [], "There is no file to read"),
    ],
)
def test_a_path_that_leads_to_no_such_file_is_said(kind: str, make: Any, message: str, tmp_path: Path) -> None:
    for on_error in ("refuse", "skip"):
        with pytest.raises(InputError, match=message):
            READERS[kind][0](make(tmp_path), on_error=on_error)


def write_in(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_a_file_of_another_format_is_refused_also_when_lines_are_skipped(kind: str, write: Write) -> None:
    path = write("table.csv", "sentence_good,sentence_bad\nthe cat sleeps,the cat sleep\n")
    for on_error in ("refuse", "skip"):
        with pytest.raises(InputError, match="should") as error:
            READERS[kind][0](path, on_error=on_error)
        assert str(path) in str(error.value) and "hold" in str(error.value)


def test_another_word_for_on_error_is_refused(kind: str, write: Write) -> None:
    with pytest.raises(InputError, match="on_error is 'ignore'"):
        READERS[kind][0](write("data.txt", READERS[kind][1]), on_error="ignore")


# ---- JSON: lines or an array ----


@pytest.mark.parametrize(("read", "records"), [(read_blimp, BLIMP), (read_facts, KNOWN)])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_holds_what_lines_hold(read: Any, records: list[Any], indent: int | None, write: Write) -> None:
    path = write("array.json", json.dumps(records, indent=indent))
    found, expected = content(read(path)), content(read(write("lines.jsonl", lines(records))))
    assert found.drop(columns="line").equals(expected.drop(columns="line"))
    if indent:
        text = path.read_text().splitlines()
        assert [text[one - 1].strip() for one in found["line"]] == ["{"] * len(records), "where each begins"


def test_a_record_of_an_array_is_skipped_and_a_broken_array_is_not(write: Write) -> None:
    records = [BLIMP[0], {"sentence_good": "a cat ."}, 3, BLIMP[1]]
    path = write("array.json", json.dumps(records, indent=1).replace("\n ", "\n\n "))
    with pytest.raises(InputError, match="there is no 'sentence_bad'"):
        read_blimp(path)
    found = read_blimp(path, on_error="skip")
    assert (len(found), found.n_lines, found.n_skipped) == (2, 4, 2)
    text = path.read_text().splitlines()
    assert "3," in text[found.problems[1].line - 1]
    for broken, at in (('[{"a": 1},\n{"a" 2}]', 2), ('[{"a": 1}\n{"a": 2}]', 2), ('[{"a": 1}]\nmore', 2), ("[\n3", 2)):
        path = write("broken.json", broken)
        with pytest.raises(InputError, match=f"line {at}: the JSON array is broken"):
            read_blimp(path, on_error="skip")


def test_one_object_over_many_lines_is_called_that(write: Write) -> None:
    path = write("one.json", json.dumps({"rows": BLIMP, "version": 1}, indent=2))
    with pytest.raises(InputError, match=r"is one JSON object, with .*'rows'"):
        read_blimp(path, on_error="skip")


def test_depth_without_end_is_a_problem_not_a_crash(write: Write) -> None:
    deep = '{"sentence_good": ' + "[" * 100_000
    with pytest.raises(InputError, match="line 3: it is not JSON"):
        read_blimp(write("deep.jsonl", lines(BLIMP) + deep))
