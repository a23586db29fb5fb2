"""Facts: prompts about a subject whose attribute is known, as in CounterFact and known_1000 (Meng et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.pairs import PromptPairs
from interp.readers.lines import Complaints, Malformed, OnError, Paths, Reading, each_path
from interp.readers.records import read_records, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Fact", "Facts", "read_facts"]

_SLOT = "{}"
_HOLDS = (
    "an array of JSON objects (or one a line): CounterFact's with requested_rewrite, or such as known_1000's with "
    "prompt, subject and attribute"
)
_LISTS = ("paraphrase_prompts", "neighborhood_prompts", "attribute_prompts", "generation_prompts")


@dataclass(frozen=True)
class Fact:
    """A prompt that ends where `attribute` should follow. `span` are the characters of the subject in `prompt`, and
    `template` is the prompt with {} in the subject's place. `target_new` is CounterFact's counterfactual answer."""

    id: str
    prompt: str
    subject: str
    span: tuple[int, int]
    attribute: str
    relation: str | None = None
    target_new: str | None = None
    paraphrase_prompts: tuple[str, ...] = ()
    neighborhood_prompts: tuple[str, ...] = ()
    attribute_prompts: tuple[str, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    path: str = ""
    line: int = 0

    @property
    def template(self) -> str:
        return self.prompt[: self.span[0]] + _SLOT + self.prompt[self.span[1] :]

    @property
    def group(self) -> str:
        """The relation; where the file does not say, the template."""
        return self.relation or self.template


@dataclass(frozen=True)
class Facts(Reading):
    """Facts in the order of the files."""

    facts: tuple[Fact, ...] = ()

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __getitem__(self, index: int) -> Fact:
        return self.facts[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per fact, with the file and line it comes from."""
        import pandas as pd

        return pd.DataFrame([{**asdict(one), "template": one.template} for one in self.facts])

    def to_pairs(self, model: Any, *, seed: int = 0, prepend_bos: bool | None = None) -> PromptPairs:
        """Each fact's prompt against the same prompt about another subject of its relation, with as many tokens and
        another attribute, which is the foil; `seed` draws it. The position "subject" is named in both alike, the item
        is the subject, the template the relation. Facts without such a partner are in `left_out`; `InputError` where
        no fact has one."""
        from interp.readers.fact_pairs import paired

        chosen, left = paired(self.facts, model, seed, prepend_bos)
        if not chosen:
            raise InputError(
                f"None of the {len(self)} facts has a partner: {left[0][1]}. left_out(model) says it of each."
            )
        facts = [self.facts[i] for i, _ in chosen]
        return PromptPairs.from_text(
            model,
            [one.prompt for one in facts],
            [other.prompt for _, other in chosen],
            [one.attribute for one in facts],
            [other.attribute for _, other in chosen],
            positions={"subject": [one.span for one in facts]},
            items=[one.subject for one in facts],
            templates=[one.group for one in facts],
            prepend_bos=prepend_bos,
        )

    def left_out(self, model: Any, *, seed: int = 0, prepend_bos: bool | None = None) -> pd.DataFrame:
        """The facts that `to_pairs` leaves out, and why."""
        import pandas as pd

        from interp.readers.fact_pairs import paired

        _, left = paired(self.facts, model, seed, prepend_bos)
        rows = [(self.facts[i].id, self.facts[i].prompt, self.facts[i].relation, why) for i, why in left]
        return pd.DataFrame(rows, columns=["id", "prompt", "relation", "why"])


def read_facts(path: Paths, *, on_error: OnError = "refuse") -> Facts:
    """Read facts from one file or several, an array of objects or one object a line.

    CounterFact (rome.baulab.info/data/dsets/counterfact.json): `requested_rewrite` with `prompt` ("The mother tongue
    of {} is"), `subject`, `target_true.str`, and if there `target_new.str`, `relation_id`; its lists of further prompts
    are kept. known_1000 (in the same place): `prompt` (whole), `subject`, `attribute`, and if there `relation_id`.
    A prompt with {} gets the subject put in, a whole one has to hold it; where it does so twice, the first counts. A
    malformed record raises `InputError` with file and line; with `on_error="skip"` it is left out and stands in
    `problems`.
    """
    complaints, paths = Complaints(on_error), each_path(path)
    found: list[Fact] = []
    for one in paths:

        def parse(line: int, record: Mapping[str, Any], path: str = one) -> Fact:
            return _fact(record, path, line)

        found += read_records(one, complaints, parse, _HOLDS)
    return Facts(**complaints.reading(paths), facts=tuple(found))


def _fact(record: Mapping[str, Any], path: str, line: int) -> Fact:
    rewrite = record.get("requested_rewrite", record)
    if not isinstance(rewrite, Mapping):
        raise Malformed("'requested_rewrite' is not an object")
    subject, given = text_of(rewrite, "subject"), rewrite.get("prompt", rewrite.get("template"))
    if not isinstance(given, str) or not given.strip():
        raise Malformed("there is no 'prompt' that is a text")
    prompt, span = _placed(given.strip(), subject)
    attribute = text_of(rewrite, "attribute") if "attribute" in rewrite else _target(rewrite, "target_true")
    if attribute is None:
        raise Malformed("there is neither 'attribute' nor 'target_true'")
    known = next((record[name] for name in ("case_id", "known_id") if name in record), line)
    relation = rewrite.get("relation_id")
    if relation is not None and not isinstance(relation, str):
        raise Malformed(f"'relation_id' is {relation!r}, not a text")
    lists = {name: _texts(record, name) for name in _LISTS}
    new = _target(rewrite, "target_new")
    return Fact(str(known), prompt, subject, span, attribute, relation, new, **lists, path=path, line=line)


def _placed(prompt: str, subject: str) -> tuple[str, tuple[int, int]]:
    """The whole prompt, and the characters of the subject in it."""
    slots = prompt.count(_SLOT)
    if slots > 1:
        raise Malformed(f"the prompt {prompt!r} has {slots} places for the subject; it may have one")
    if slots:
        start = prompt.index(_SLOT)
        return prompt.replace(_SLOT, subject), (start, start + len(subject))
    as_word = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)
    start = as_word.start() if as_word else prompt.find(subject)
    if start < 0:
        raise Malformed(f"the subject {subject!r} does not stand in the prompt {prompt!r}")
    return prompt, (start, start + len(subject))


def _target(rewrite: Mapping[str, Any], name: str) -> str | None:
    """A target's text: in an object under "str", or by itself."""
    value = rewrite.get(name)
    if value is None:
        return None
    return text_of(value, "str") if isinstance(value, Mapping) else text_of(rewrite, name)


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = record.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Malformed(f"{name!r} is not a list of texts")
    return tuple(value)
