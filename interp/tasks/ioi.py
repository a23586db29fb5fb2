"""Indirect objects (Wang 2022): "When Mary and John went to the store, John gave a drink to" wants Mary.

`TASK` is the task of its own; `indirect_objects` the smaller set by which duplicate-token heads are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.prompts import Prompt, fill, made_task, task_of
from interp.tasks.repeated_tokens import common_vocabulary
from interp.tasks.words import MEN, OBJECTS, PLACES, WOMEN, draw, half, is_one_token, rng, word_id

__all__ = ["FRAMES", "NAMES", "TASK", "TEMPLATES", "IndirectObjects", "indirect_objects"]

# fmt: off
NAMES = (
    "Alice", "Anna", "Ben", "Bob", "Carl", "Charles", "Clara", "David", "Diana", "Edward", "Ellen", "Emma", "Eric",
    "Frank", "George", "Grace", "Hannah", "Harry", "Helen", "Henry", "Jack", "James", "Jane", "John", "Julia",
    "Karen", "Kate", "Laura", "Linda", "Lisa", "Lucy", "Mark", "Martin", "Mary", "Michael", "Nick", "Oliver", "Paul",
    "Peter", "Rachel", "Richard", "Robert", "Rose", "Ryan", "Sam", "Sarah", "Simon", "Sophie", "Steven", "Susan",
    "Thomas", "Tom", "Victoria", "William",
)
# fmt: on
TEMPLATES = (
    "When{A} and{B} went to the market,{S} gave a basket to",
    "After{A} and{B} had finished dinner,{S} passed the salt to",
    "While{A} and{B} were working at the office,{S} handed a letter to",
    "Then{A} and{B} met in the garden, and{S} showed a photo to",
    "Last week{A} and{B} had an argument, and afterwards{S} sent an apology to",
)
FRAMES = (
    "When {N1} and {N2} went to the {place}, {S2} gave {object} to",
    "On Sunday {N1} and {N2} came home from the {place}, and {S2} handed {object} to",
    "After {N1} and {N2} had a long talk at the {place}, {S2} sent {object} to",
    "Because {N1} and {N2} were bored at the {place}, {S2} showed {object} to",
    "While {N1} and {N2} were waiting near the {place}, {S2} passed {object} to",
    "Last year {N1} and {N2} met at the {place}, where {S2} sold {object} to",
    "Then {N1} and {N2} ran into each other at the {place}. Smiling, {S2} offered {object} to",
    "Once {N1} and {N2} had cleaned the {place}, {S2} brought {object} to",
    "As {N1} and {N2} were leaving the {place}, {S2} threw {object} to",
    "Early in the day {N1} and {N2} opened the {place}. At noon {S2} lent {object} to",
)
_CORRUPTIONS = {
    "swap": "the second mention becomes the other name, so that the corrupt prompt asks for the subject instead",
    "third_name": "the second mention becomes a third name, so that neither of the first two is said twice",
    "abc": "all three mentions become three other names, all different",
}


@dataclass(frozen=True)
class IndirectObjects:
    """`answer` is the name said once, `foil` the one said twice. `reference` holds the same templates with three
    different names; `template` numbers them. Prompts end at the last column: shorter ones are padded on the left."""

    batch: Batch
    reference: Batch
    answer: Int[Tensor, " prompt"]
    foil: Int[Tensor, " prompt"]
    template: Int[Tensor, " prompt"]


def indirect_objects(model: HookedTransformer, n: int, *, seed: int = 0) -> IndirectObjects:
    """`n` prompts with different name pairs, templates and orders in turn. A model without a tokenizer gets ordinary
    tokens for names, in templates of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    frames, names = _frames_and_names(model, generator)
    if len(names) < 5 or n > len(names) * (len(names) - 1):
        raise InputError(f"Only {len(names)} names are single tokens for this model: too few for {n} name pairs.")
    rows: list[list[int]] = []
    references: list[list[int]] = []
    answers, foils, templates, seen = [], [], [], set()
    while len(rows) < n:
        a, b, *others = names[torch.randperm(len(names), generator=generator)[:5]].tolist()
        if (a, b) in seen:
            continue
        seen.add((a, b))
        which, order = len(rows) % len(frames), (len(rows) // len(frames)) % 2
        subject = (a, b)[order]
        rows.append(_fill(frames[which], a, b, subject))
        references.append(_fill(frames[which], *others))
        answers.append((b, a)[order])
        foils.append(subject)
        templates.append(which)
    pad = getattr(model.tokenizer, "pad_id", None) or 0
    return IndirectObjects(
        pad_rows(rows, pad, "left", model.device),
        pad_rows(references, pad, "left", model.device),
        *(torch.tensor(one, device=model.device) for one in (answers, foils, templates)),
    )


def _frames_and_names(model: HookedTransformer, generator: torch.Generator) -> tuple[list[list[int | str]], Tensor]:
    """Templates as token ids with the letters A, B and S between them, and the ids that may stand for these."""
    if model.tokenizer is None:
        vocabulary = common_vocabulary(model)
        vocabulary = vocabulary[torch.randperm(len(vocabulary), generator=generator)]
        filler, names = vocabulary[:24].tolist(), vocabulary[24:]
        if len(names) < 5:
            raise InputError(f"A vocabulary of {model.cfg.d_vocab} tokens is too small for name pairs.")
        starts = range(0, 20, 5)
        return [[filler[i], "A", filler[i + 1], "B", *filler[i + 2 : i + 4], "S", filler[i + 4]] for i in starts], names
    encode = model.tokenizer.encode
    ids = [encode(f" {name}", prepend_bos=False) for name in NAMES]
    names = torch.tensor([one[0] for one in ids if len(one) == 1])
    frames: list[list[int | str]] = []
    for template in TEMPLATES:
        frame: list[int | str] = []
        for piece in template.replace("{", "\0{").replace("}", "}\0").split("\0"):
            frame += [piece[1]] if piece.startswith("{") else encode(piece, prepend_bos=False)
        frames.append(frame)
    return frames, names


def _fill(frame: list[int | str], a: int, b: int, subject: int) -> list[int]:
    by_letter = {"A": a, "B": b, "S": subject}
    return [by_letter[piece] if isinstance(piece, str) else piece for piece in frame]


def _make(model: HookedTransformer, request: Request) -> Task:
    if model.tokenizer is None:
        return _of_random_tokens(model, request)
    encodes = model.tokenizer
    everyone = tuple(name for pair in zip(WOMEN, MEN, strict=True) for name in pair)
    # Halved woman and man by turns, so that either split has as many of each.
    people = {one: [*half(WOMEN, one), *half(MEN, one)] for one in ("select", "report")}
    people = {one: [name for name in of if is_one_token(encodes, name)] for one, of in people.items()}
    prompts: list[Prompt] = []
    for split in request.splits:
        prompts += _prompts(people[split], request, split)
    asked = [name for split in request.splits for name in people[split]]
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "names": [word_id(encodes, name) for name in asked],
        "left_out": {"names of several tokens": [n for n in everyone if not is_one_token(encodes, n)]},
    }
    return task_of(TASK, model, request, prompts, about)


def _prompts(people: Sequence[str], request: Request, split: str) -> list[Prompt]:
    frames, generator = half(FRAMES, split), rng(request.seed, "ioi", split)
    made = []
    for i, pair in enumerate(draw(list(combinations(people, 2)), request.n, generator, f"name pairs in {split}")):
        item = rng(request.seed, "ioi", split, *pair)
        io, subject = item.sample(pair, 2)
        words = {"place": item.choice(half(PLACES, split)), "object": item.choice(half(OBJECTS, split))}
        order = ("ABBA", "BABA")[(i + i // len(frames) * (len(frames) % 2 == 0)) % 2]
        first, second = ("N1", "N2") if order == "ABBA" else ("N2", "N1")
        frame = frames[i % len(frames)]
        clean = fill(frame, words | {first: io, second: subject, "S2": subject})
        others = _corrupted(request.corruption, io, subject, [one for one in people if one not in pair], item)
        corrupt = fill(frame, words | dict(zip((first, second, "S2"), others, strict=True)))
        labels = {"order": order, **words, "IO": io, "S": subject, "corrupt_names": " ".join(others), "split": split}
        places = {"IO": clean.spans[first], "S1": clean.spans[second], "S2": clean.spans["S2"]}
        which = f"{split} {i % len(frames)}"
        made.append(Prompt(clean, corrupt, f" {io}", f" {subject}", places, " ".join(sorted(pair)), which, labels))
    return made


def _corrupted(corruption: str, io: Any, subject: Any, others: Sequence[Any], generator: Random) -> list[Any]:
    """What stands at IO, S1 and S2 in the corrupt prompt."""
    if corruption == "swap":
        return [io, subject, io]
    needed = 1 if corruption == "third_name" else 3
    if len(others) < needed:
        raise InputError(f"{corruption} needs {needed + 2} names, and {len(others) + 2} are single tokens here.")
    drawn = generator.sample(list(others), needed)
    return [io, subject, *drawn] if needed == 1 else drawn


def _of_random_tokens(model: HookedTransformer, request: Request) -> Task:
    """Ordinary tokens for names, in frames of other ones: for models without a tokenizer."""
    vocabulary = common_vocabulary(model).tolist()
    rng(0, "ioi without words").shuffle(vocabulary)
    if len(vocabulary) < 20:
        raise InputError(f"A vocabulary of {model.cfg.d_vocab} tokens is too small for name pairs.")
    filler, people = vocabulary[:8], vocabulary[8:]
    rows: dict[str, Any] = {name: [] for name in ("clean", "corrupt", "answer", "foil", "items", "templates")}
    places: dict[str, list] = {name: [] for name in ("IO", "S1", "S2", "END")}
    labels: dict[str, list] = {"order": [], "split": []}
    for split in request.splits:
        mine, generator = half(people, split), rng(request.seed, "ioi", split)
        frames = [filler[k:] + filler[:k] for k in range(0 if split == "select" else 1, 8, 2)]
        for i, pair in enumerate(draw(list(combinations(mine, 2)), request.n, generator, f"name pairs in {split}")):
            io, subject = generator.sample(pair, 2)
            names = _corrupted(request.corruption, io, subject, [one for one in mine if one not in pair], generator)
            f, swap = frames[i % 4], (i + i // 4) % 2  # BABA: the subject stands first
            for side, (a, b, c) in (("clean", (io, subject, subject)), ("corrupt", names)):
                a, b = (b, a) if swap else (a, b)
                rows[side].append([f[0], a, f[1], b, f[2], f[3], c, f[4]])
            for name, place in (("IO", 3 if swap else 1), ("S1", 1 if swap else 3), ("S2", 6), ("END", 7)):
                places[name].append([place])
            made = {"answer": io, "foil": subject, "items": " ".join(map(str, sorted(pair)))}
            for name, value in (made | {"templates": f"{split} {i % 4}"}).items():
                rows[name].append(value)
            labels["order"].append(("ABBA", "BABA")[swap])
            labels["split"].append(split)
    pairs = _next_of_s1(PromptPairs.from_tokens(**rows, positions=places, model=model))
    known = [one for split in request.splits for one in half(people, split)]
    about = {"bos": False, "corruption": _CORRUPTIONS[request.corruption], "names": known}
    about["words"] = "random tokens, since this model has no tokenizer"
    return made_task(TASK, request, pairs, {name: tuple(one) for name, one in labels.items()}, about)


def _next_of_s1(pairs: PromptPairs) -> PromptPairs:
    """Names the token after S1, where a previous-token head's copy of it stands."""
    if "S1+1" in pairs.positions or "S1" not in pairs.positions:
        return pairs
    after = tuple((span[-1] + 1,) for span in pairs.positions["S1"])
    return replace(pairs, positions={**pairs.positions, "S1+1": after})


TASK = TaskDefinition(
    name="ioi",
    definition="the indirect object: of two names the one that is said once, not the subject that is said twice",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("IO", "S1", "S2", "S1+1", "END"),
    make=_make,
    needs_text=False,
    derive=_next_of_s1,
)
