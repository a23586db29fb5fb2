"""Indirect objects (Wang 2022): "When Mary and John went to the store, John gave a drink to" wants Mary.

Here as the behaviour that duplicate-token heads serve; both orders of the names, several templates, and for each
prompt a counterpart with three different names, which has the same shape but nothing to find out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.model.tokens import Batch, pad_rows
from interp.model.transformer import HookedTransformer
from interp.tasks.repeated_tokens import common_vocabulary

__all__ = ["NAMES", "TEMPLATES", "IndirectObjects", "indirect_objects"]

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
