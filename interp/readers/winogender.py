"""Winogender schemas: sentences that differ in the gender of one pronoun (Rudinger et al. 2018)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.pairs import PromptPairs
from interp.pairs.inputs import need_tokenizer
from interp.readers.lines import Complaints, Line, Malformed, OnError, Paths, Reading, each_path, read_lines, shortened

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GENDERS", "Winogender", "WinogenderSentence", "read_winogender"]

GENDERS = ("male", "female", "neutral")
_ANSWERS = {"0": "occupation", "1": "participant"}
_HOLDS = (
    "tab-separated columns under the header sentid, sentence, as Winogender's data/all_sentences.tsv does, with "
    "sentids such as technician.customer.1.male.txt"
)
_WORD = re.compile(r"\w+|\W")
_PRONOUNS = {
    "male": {"he", "him", "his", "himself"},
    "female": {"she", "her", "hers", "herself"},
    "neutral": {"they", "them", "their", "theirs", "themself", "themselves"},
}
Group = tuple[str, str, str]


@dataclass(frozen=True)
class WinogenderSentence:
    """One variant of a schema. `answer` is whom the pronoun means: "occupation" or "participant"."""

    sentid: str
    sentence: str
    occupation: str
    participant: str
    answer: str
    gender: str
    path: str = ""
    line: int = 0

    @property
    def group(self) -> Group:
        """Occupation, participant and answer: what the variants of one sentence share."""
        return self.occupation, self.participant, self.answer


@dataclass(frozen=True)
class Winogender(Reading):
    """Sentences of Winogender schemas, in the order of the file."""

    sentences: tuple[WinogenderSentence, ...] = ()

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[WinogenderSentence]:
        return iter(self.sentences)

    def __getitem__(self, index: int) -> WinogenderSentence:
        return self.sentences[index]

    def groups(self) -> dict[Group, dict[str, WinogenderSentence]]:
        """(occupation, participant, answer) -> the variants there are, by gender."""
        found: dict[Group, dict[str, WinogenderSentence]] = {}
        for one in self.sentences:
            found.setdefault(one.group, {})[one.gender] = one
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row per sentence, with the file and line it comes from."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.sentences])

    def to_pairs(self, model: Any, clean: str = "male", corrupt: str = "female", **options: Any) -> PromptPairs:
        """Sentences of one gender against those of another, which differ in the pronoun alone; the position "pronoun"
        is named, the item is the occupation, and nothing is asked (metrics "kl", functions, residuals). `options` are
        those of `PromptPairs.from_text`. Schemas that give no pair are in `left_out`."""
        chosen, _ = self._pairable(model, clean, corrupt, options.get("prepend_bos"))
        if not chosen:
            raise InputError(
                f"No schema gives a pair of {clean} and {corrupt} that differ in the pronoun alone and align. "
                "left_out(model) says why."
            )
        texts = {side: [one[i].sentence for one, _ in chosen] for i, side in enumerate(("clean", "corrupt"))}
        named = {"positions": {"pronoun": [span for _, span in chosen]}}
        named |= {"items": [one[0].occupation for one, _ in chosen]}
        named |= {"templates": [f"{one[0].participant} {one[0].answer}" for one, _ in chosen]}
        return PromptPairs.from_text(model, texts["clean"], texts["corrupt"], **{**named, **options})

    def left_out(
        self, model: Any, clean: str = "male", corrupt: str = "female", *, prepend_bos: bool | None = None
    ) -> pd.DataFrame:
        """The schemas that `to_pairs` leaves out, and why."""
        import pandas as pd

        _, left = self._pairable(model, clean, corrupt, prepend_bos)
        return pd.DataFrame(left, columns=["occupation", "participant", "answer", "why"])

    def _pairable(
        self, model: Any, clean: str, corrupt: str, prepend_bos: bool | None
    ) -> tuple[list[tuple[tuple[WinogenderSentence, WinogenderSentence], tuple[int, int]]], list[tuple[str, ...]]]:
        for one in (clean, corrupt):
            if one not in GENDERS:
                raise InputError(f"{one!r} is no variant. Choose {', '.join(GENDERS)}.")
        if clean == corrupt:
            raise InputError(f"Clean and corrupt are both {clean!r}. Choose two of {', '.join(GENDERS)}.")
        tokenizer = need_tokenizer(model)
        chosen, left = [], []
        for group, variants in self.groups().items():
            missing = [one for one in (clean, corrupt) if one not in variants]
            if missing:
                left.append((*group, f"there is no {' and no '.join(missing)} variant"))
                continue
            two = variants[clean], variants[corrupt]
            span = _pronoun(*two)
            lengths = [len(tokenizer.encode(one.sentence, prepend_bos=prepend_bos)) for one in two]
            if span is None:
                left.append((*group, "the variants differ in more than the pronoun"))
            elif lengths[0] != lengths[1]:
                left.append((*group, f"they are {lengths[0]} and {lengths[1]} tokens"))
            else:
                chosen.append((two, span))
        return chosen, left


def read_winogender(path: Paths, *, on_error: OnError = "refuse") -> Winogender:
    """Read Winogender sentences from a table with a header and the tab-separated columns sentid and sentence.

    A sentid is OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt: answer 0 says that the pronoun means the occupation, 1 the
    participant; gender is male, female or neutral. Other columns are not read. A malformed line, or one whose sentid
    has come before, raises `InputError` with file and number; with `on_error="skip"` it is left out and stands in
    `problems`. Layout: github.com/rudinger/winogender-schemas, README and scripts/instantiate.py.
    """
    complaints, paths = Complaints(on_error), each_path(path)
    seen: dict[tuple[str, ...], str] = {}
    found: list[WinogenderSentence] = []
    for one in paths:
        lines = read_lines(one)
        if not lines:
            raise InputError(f"{one} is empty. It should hold {_HOLDS}.")
        columns = _header(one, lines[0])

        def parse(number: int, line: Line, path: str = one, columns: list[str] = columns) -> WinogenderSentence:
            sentence = _sentence(line, columns, path)
            key, here = (*sentence.group, sentence.gender), f"{path}, line {number}"
            if seen.setdefault(key, here) != here:
                raise Malformed(f"sentid {sentence.sentid!r} stands already in {seen[key]}")
            return sentence

        if len(lines) < 2:
            raise InputError(f"{one} has a header but no sentences. It should hold {_HOLDS}.")
        found += complaints.sift(one, [(line.number, line) for line in lines[1:]], parse, _HOLDS)
    return Winogender(**complaints.reading(paths), sentences=tuple(found))


def _header(path: str, line: Line) -> list[str]:
    columns = [one.strip().strip('"') for one in (line.text or "").split("\t")]
    if not {"sentid", "sentence"} <= set(columns):
        raise InputError(
            f"{path}, line {line.number}: the header should name sentid and sentence, separated by a tab; this is "
            f"{shortened(line.text or '')}. The file should hold {_HOLDS}."
        )
    return columns


def _sentence(line: Line, columns: list[str], path: str) -> WinogenderSentence:
    if line.text is None:
        raise Malformed("it is not UTF-8 text")
    cells = [one.strip() for one in line.text.split("\t")]
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()  # tabs at the end of the line
    if len(cells) != len(columns):
        raise Malformed(f"it has {len(cells)} cells; the header has {len(columns)}")
    row = dict(zip(columns, cells, strict=True))
    sentid, sentence = row["sentid"], row["sentence"]
    parts = sentid.removesuffix(".txt").split(".")
    if len(parts) != 4 or not all(parts):
        raise Malformed(f"sentid {sentid!r} is not OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt")
    occupation, participant, answer, gender = parts
    if answer not in _ANSWERS or gender not in GENDERS:
        raise Malformed(
            f"sentid {sentid!r} has answer {answer!r} and gender {gender!r}; known are 0 or 1, and {GENDERS}"
        )
    if not sentence:
        raise Malformed(f"sentid {sentid!r} has no sentence")
    return WinogenderSentence(sentid, sentence, occupation, participant, _ANSWERS[answer], gender, path, line.number)


def _pronoun(one: WinogenderSentence, other: WinogenderSentence) -> tuple[int, int] | None:
    """Characters of the pronoun in the first sentence, if it is all in which the two differ."""
    words, others = _WORD.findall(one.sentence), _WORD.findall(other.sentence)
    differ = [i for i, (a, b) in enumerate(zip(words, others, strict=False)) if a != b]
    if len(words) != len(others) or len(differ) != 1:
        return None
    at = differ[0]
    if words[at].lower() not in _PRONOUNS[one.gender] or others[at].lower() not in _PRONOUNS[other.gender]:
        return None
    start = sum(map(len, words[:at]))
    return start, start + len(words[at])
