"""BLiMP: sentences of which one is acceptable, paired with ones that are not (Warstadt et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.readers.lines import Complaints, Malformed, OnError, Paths, Reading, each_path
from interp.readers.records import boolean_of, read_records, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MinimalPair", "MinimalPairs", "read_blimp"]

_HOLDS = "one JSON object a line (or an array of them) with sentence_good and sentence_bad, as BLiMP's data/*.jsonl do"
_PREFIXES = (
    "one_prefix_prefix", "one_prefix_word_good", "one_prefix_word_bad",
    "two_prefix_prefix_good", "two_prefix_prefix_bad", "two_prefix_word",
)  # fmt: skip
_METHODS = {
    "simple_LM_method": "simple_lm_method", "one_prefix_method": "one_prefix_method",
    "two_prefix_method": "two_prefix_method", "lexically_identical": "lexically_identical",
}  # fmt: skip


@dataclass(frozen=True)
class MinimalPair:
    """An acceptable sentence and one that is not. `uid` is the paradigm, `phenomenon` its `linguistics_term`; the
    prefix fields are there where the paradigm can be asked by them."""

    good: str
    bad: str
    uid: str
    pair_id: str
    field: str | None = None
    phenomenon: str | None = None
    simple_lm_method: bool | None = None
    one_prefix_method: bool | None = None
    two_prefix_method: bool | None = None
    lexically_identical: bool | None = None
    one_prefix_prefix: str | None = None
    one_prefix_word_good: str | None = None
    one_prefix_word_bad: str | None = None
    two_prefix_prefix_good: str | None = None
    two_prefix_prefix_bad: str | None = None
    two_prefix_word: str | None = None
    path: str = ""
    line: int = 0


@dataclass(frozen=True)
class MinimalPairs(Reading):
    """Minimal pairs of sentences, in the order of the files."""

    pairs: tuple[MinimalPair, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[MinimalPair]:
        return iter(self.pairs)

    def __getitem__(self, index: int) -> MinimalPair:
        return self.pairs[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per pair, with the file and line it comes from."""
        import pandas as pd

        return pd.DataFrame([asdict(one) for one in self.pairs])


def read_blimp(path: Paths, *, on_error: OnError = "refuse") -> MinimalPairs:
    """Read minimal pairs in BLiMP's layout from one file or several: a JSON object a line, or an array of objects.

    `sentence_good` and `sentence_bad` have to be there; some published pairs hold the same sentence twice, and those
    are read too (`interp.evaluate` counts them as ties). Without `UID` the file's name is the paradigm,
    without `pairID` (or `pair_id`) the line is the pair's. A pair that comes twice (UID and pairID) is malformed.
    A malformed line raises `InputError` with file and number; with `on_error="skip"` it is left out and stands in
    `problems`. Layout: github.com/alexwarstadt/blimp, README and data/.
    """
    complaints, paths = Complaints(on_error), each_path(path)
    seen: dict[tuple[str, str], str] = {}
    found: list[MinimalPair] = []
    for one in paths:
        name = Path(one).name.split(".")[0]

        def parse(line: int, record: Mapping[str, Any], path: str = one, name: str = name) -> MinimalPair:
            pair = _pair(record, path, line, name)
            first = seen.setdefault((pair.uid, pair.pair_id), f"{path}, line {line}")
            if first != f"{path}, line {line}":
                raise Malformed(f"pair {pair.pair_id!r} of {pair.uid!r} stands already in {first}")
            return pair

        found += read_records(one, complaints, parse, _HOLDS)
    return MinimalPairs(**complaints.reading(paths), pairs=tuple(found))


def _pair(record: Mapping[str, Any], path: str, line: int, name: str) -> MinimalPair:
    good, bad = text_of(record, "sentence_good"), text_of(record, "sentence_bad")
    uid = text_of(record, "UID") if "UID" in record else name
    given = next((record[one] for one in ("pairID", "pair_id") if one in record), line)
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise Malformed(f"'pairID' is {given!r}, not a number or a text")
    optional = {"field": "field", "linguistics_term": "phenomenon"} | {one: one for one in _PREFIXES}
    texts: dict[str, Any] = {
        ours: text_of(record, theirs) for theirs, ours in optional.items() if record.get(theirs) is not None
    }
    methods: dict[str, Any] = {ours: boolean_of(record, theirs) for theirs, ours in _METHODS.items()}
    return MinimalPair(good, bad, uid, str(given), **texts, **methods, path=path, line=line)
