"""CoNLL-U: sentences with their words, tags and dependency trees (universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.readers.lines import Complaints, Malformed, OnError, Paths, Reading, each_path, read_lines, shortened
from interp.readers.lines import Line as FileLine

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ParsedSentence", "Range", "Treebank", "Word", "read_conllu"]

_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_HOLDS = f"sentences in CoNLL-U: {len(_COLUMNS)} tab-separated columns ({', '.join(_COLUMNS)}), blank lines between"
_ID = re.compile(r"(\d+)(?:-(\d+)|\.(\d+))?")


@dataclass(frozen=True)
class Word:
    """A syntactic word, or an empty node. `id` is "3" or "8.1"; `head` is the number of the word it depends on, 0 for
    the root, None where the file does not say. What the file leaves unspecified (`_`) is None, except of `form`."""

    id: str
    form: str
    lemma: str | None
    upos: str | None
    xpos: str | None
    feats: str | None
    head: int | None
    deprel: str | None
    deps: str | None
    misc: str | None
    line: int


@dataclass(frozen=True)
class Range:
    """A token of several words ("don't" over "do" and "n't"), from word `first` to word `last`."""

    first: int
    last: int
    form: str
    misc: str | None


@dataclass(frozen=True)
class ParsedSentence:
    """`words` are the syntactic words in order, word 1 first; `ranges` the tokens of several of them, `empty` the nodes
    of enhanced graphs that stand for no text. `comments` are the `# name = value` lines, others by their text."""

    words: tuple[Word, ...]
    ranges: tuple[Range, ...] = ()
    empty: tuple[Word, ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict, hash=False)
    path: str = ""
    line: int = 0

    @property
    def sent_id(self) -> str | None:
        return self.comments.get("sent_id")

    @property
    def has_tree(self) -> bool:
        """Whether every word has a head."""
        return self.words[0].head is not None

    @cached_property
    def text(self) -> str:
        """The sentence as `# text` has it, or where there is none the tokens joined, with SpaceAfter=No heeded."""
        if self.comments.get("text"):
            return self.comments["text"]
        said = "".join(
            form + ("" if "SpaceAfter=No" in (misc or "").split("|") else " ") for form, misc, _ in self._tokens
        )
        return said.rstrip()

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Characters of each word in `text`; words of one token share that token's. `InputError` where the text does
        not hold the tokens in order."""
        at, found = 0, {}
        for form, _, numbers in self._tokens:
            start = self.text.find(form, at)
            if start < 0 or self.text[at:start].strip():
                raise InputError(
                    f"{self.path}, line {self.line}: the text {shortened(self.text)} does not go on with its "
                    f"token {form!r} at character {at}. Mend # text, or take it out."
                )
            at = start + len(form)
            found |= dict.fromkeys(numbers, (start, at))
        return tuple(found[number] for number in range(1, len(self.words) + 1))

    @property
    def _tokens(self) -> Iterator[tuple[str, str | None, tuple[int, ...]]]:
        """What stands in the text: form, MISC and the words it is made of."""
        starts = {one.first: one for one in self.ranges}
        number = 1
        while number <= len(self.words):
            if number in starts:
                one = starts[number]
                yield one.form, one.misc, tuple(range(one.first, one.last + 1))
                number = one.last + 1
            else:
                yield self.words[number - 1].form, self.words[number - 1].misc, (number,)
                number += 1


@dataclass(frozen=True)
class Treebank(Reading):
    """Sentences of CoNLL-U files, in their order."""

    sentences: tuple[ParsedSentence, ...] = ()

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[ParsedSentence]:
        return iter(self.sentences)

    def __getitem__(self, index: int) -> ParsedSentence:
        return self.sentences[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per syntactic word (neither ranges nor empty nodes), with its sentence's number and `sent_id`."""
        import pandas as pd

        rows = [
            {"sentence": i, "sent_id": one.sent_id, **asdict(word), "id": int(word.id), "path": one.path}
            for i, one in enumerate(self.sentences)
            for word in one.words
        ]
        return pd.DataFrame(rows).astype({"head": "Int64"})


def read_conllu(path: Paths, *, on_error: OnError = "refuse") -> Treebank:
    """Read dependency trees from CoNLL-U files.

    Checked are ten columns none of which is empty, words numbered from 1, ranges and empty nodes where they belong,
    and the tree: heads in range, exactly one root (`root` iff head 0), no cycle. A sentence whose heads are all
    unspecified is read and has no tree. A malformed sentence raises `InputError` with file and line; with
    `on_error="skip"` the whole sentence is left out (`n_skipped` counts its lines) and stands in `problems`.
    """
    complaints, paths = Complaints(on_error), each_path(path)
    found: list[ParsedSentence] = []
    for one in paths:
        lines, before = read_lines(one), len(found)
        if not lines:
            raise InputError(f"{one} is empty. It should hold {_HOLDS}.")
        complaints.n_lines += len(lines)
        for block in _blocks(lines):
            reader = _Sentence(one)
            try:
                found.append(reader.read(block))
            except Malformed as error:
                hint = "" if "\t" in (block[-1].text or "") or complaints.skip else f". The file should hold {_HOLDS}"
                complaints.add(one, reader.at, f"{error}{hint}", lines=len(block))
        if len(found) == before:
            raise InputError(complaints.nothing(one, _HOLDS))
    return Treebank(**complaints.reading(paths), sentences=tuple(found))


def _blocks(lines: Sequence[FileLine]) -> Iterator[list[FileLine]]:
    """Lines that stand together: blank ones are not among them, so a gap in the numbers is one."""
    block: list[FileLine] = []
    for line in lines:
        if block and line.number != block[-1].number + 1:
            yield block
            block = []
        block.append(line)
    if block:
        yield block


class _Sentence:
    """One sentence as it is read; `at` is the line that is looked at."""

    def __init__(self, path: str) -> None:
        self.path, self.at = path, 0
        self.words: list[Word] = []
        self.empty: list[Word] = []
        self.ranges: list[Range] = []
        self.comments: dict[str, str] = {}

    def read(self, block: Sequence[FileLine]) -> ParsedSentence:
        for line in block:
            self.at = line.number
            if line.text is None:
                raise Malformed("it is not UTF-8 text")
            if line.text.startswith("#"):
                self._comment(line.text)
            else:
                self._row(line)
        if not self.words:
            raise Malformed("these are comments without words")
        if self.ranges and self.ranges[-1].last > len(self.words):
            one = self.ranges[-1]
            raise Malformed(f"range {one.first}-{one.last} goes beyond the last word, {len(self.words)}")
        self._check_tree()
        first = block[0].number
        return ParsedSentence(tuple(self.words), tuple(self.ranges), tuple(self.empty), self.comments, self.path, first)

    def _comment(self, text: str) -> None:
        if self.words or self.empty or self.ranges:
            raise Malformed("a comment stands inside a sentence; comments come before its words")
        name, equals, value = text[1:].partition("=")
        self.comments[name.strip()] = value.strip() if equals else ""

    def _row(self, line: FileLine) -> None:
        cells = (line.text or "").rstrip("\r\n").split("\t")
        if len(cells) != len(_COLUMNS):
            raise Malformed(
                f"it has {len(cells)} tab-separated columns, not {len(_COLUMNS)}: {shortened(line.text or '')}"
            )
        cells = [cell.strip() for cell in cells]
        empty = next((name for name, cell in zip(_COLUMNS, cells, strict=True) if not cell), None)
        if empty is not None:
            raise Malformed(f"column {empty} is empty; what is unspecified is written _")
        match = _ID.fullmatch(cells[0])
        if match is None:
            raise Malformed(f"ID {cells[0]!r} is not a number, a range such as 3-4 or an empty node such as 8.1")
        first, last, decimal = match.groups()
        if last is not None:
            self._range(int(first), int(last), cells)
        elif decimal is not None:
            self._empty_node(int(first), int(decimal), cells)
        else:
            if int(first) != len(self.words) + 1:
                raise Malformed(f"word {first} follows word {len(self.words)}; words count from 1 without gaps")
            self.words.append(_word(cells, line.number, _head(cells[6])))

    def _range(self, first: int, last: int, cells: Sequence[str]) -> None:
        if first != len(self.words) + 1 or last <= first:
            raise Malformed(f"range {first}-{last} stands before word {len(self.words) + 1}; it has to begin there")
        if self.ranges and first <= self.ranges[-1].last:
            raise Malformed(f"range {first}-{last} overlaps {self.ranges[-1].first}-{self.ranges[-1].last}")
        self.ranges.append(Range(first, last, cells[1], _given(cells[9])))

    def _empty_node(self, after: int, number: int, cells: Sequence[str]) -> None:
        same = sum(one.id.startswith(f"{after}.") for one in self.empty)
        if after != len(self.words) or number != same + 1:
            raise Malformed(
                f"empty node {after}.{number} stands behind word {len(self.words)}; {len(self.words)}.{same + 1} may"
            )
        if cells[6] != "_" or cells[7] != "_":
            raise Malformed(f"empty node {after}.{number} has a head; empty nodes have DEPS alone")
        self.empty.append(_word(cells, self.at, None))

    def _check_tree(self) -> None:
        n = len(self.words)
        if all(word.head is None for word in self.words):
            return
        for word in self.words:
            self.at = word.line
            if word.head is None:
                raise Malformed(f"word {word.id} has no head; others of the sentence have")
            if not 0 <= word.head <= n:
                raise Malformed(f"word {word.id} has head {word.head}; the sentence has words 1 to {n}")
            if word.deprel is not None and (word.head == 0) != (word.deprel.split(":")[0].lower() == "root"):
                raise Malformed(
                    f"word {word.id} has head {word.head} and deprel {word.deprel!r}; root goes with head 0"
                )
        roots = [word for word in self.words if word.head == 0]
        self.at = roots[1].line if len(roots) > 1 else self.words[0].line
        if len(roots) > 1:
            raise Malformed(f"words {' and '.join(one.id for one in roots)} are both roots; a tree has one")
        if not roots:
            raise Malformed("no word is the root (head 0)")
        looping = self._in_cycle()
        if looping is not None:
            self.at = looping.line
            raise Malformed(f"word {looping.id} depends on itself over its heads; a tree has no cycle")

    def _in_cycle(self) -> Word | None:
        reaches_root = {0}
        for word in self.words:
            path: list[int] = []
            number = int(word.id)
            while number not in reaches_root:
                if number in path:
                    return self.words[number - 1]
                path.append(number)
                number = self.words[number - 1].head or 0
            reaches_root.update(path)
        return None


def _word(cells: Sequence[str], line: int, head: int | None) -> Word:
    lemma, upos, xpos, feats = (_given(cell) for cell in cells[2:6])
    return Word(cells[0], cells[1], lemma, upos, xpos, feats, head, *(_given(cell) for cell in cells[7:]), line=line)


def _given(cell: str) -> str | None:
    return None if cell == "_" else cell


def _head(cell: str) -> int | None:
    if cell == "_":
        return None
    if not re.fullmatch(r"\d+", cell):
        raise Malformed(f"HEAD is {cell!r}, not a number")
    return int(cell)
