"""A needle in filler text (Wu 2024): a short sentence says three words of someone, the prompt ends with the question
for them, and each word of the answer is a prompt of its own, with those before it already written.

Only words are asked that the model itself would write: its likeliest next token is the needle's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from interp.errors import InputError
from interp.model.tokens import pad_rows
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.pairs.checks import is_index
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.natural_text import natural_text
from interp.tasks.prompts import made_task, with_bos
from interp.tasks.words import MEN, WOMEN, half, rng, word_id

__all__ = ["FRAMES", "TASK", "VALUES"]

# The needle up to its words, and the question that ends the prompt; both name the one whose words they are.
FRAMES = (
    (" The secret words of {K} are", "\n\nThe secret words of {K} are"),
    (" As a password {K} chose the words", "\n\nWe know that as a password {K} chose the words"),
    (" In the box of {K} one finds", "\n\nQuestion: what is in it? Answer: in the box of {K} one finds"),
    (" On the note for {K} was written", "\n\nNow it is clear: on the note for {K} was written"),
)
VALUES = (
    "apple", "arrow", "basket", "bell", "bird", "bone", "bottle", "bridge", "butter", "button", "cake", "camera",
    "candle", "castle", "cave", "chain", "cheese", "clock", "cloud", "coffee", "copper", "cotton", "crown", "desert",
    "diamond", "dragon", "drum", "eagle", "engine", "feather", "fence", "flag", "flame", "forest", "fox", "frog",
    "garden", "ghost", "glass", "glove", "gold", "grape", "hammer", "honey", "horse", "island", "ivory", "jacket",
    "jungle", "kitchen", "ladder", "lake", "lamp", "lemon", "lion", "marble", "mirror", "monkey", "moon", "mountain",
    "needle", "ocean", "onion", "orange", "palace", "paper", "pearl", "pencil", "pepper", "piano", "pillow", "planet",
    "potato", "prison", "rabbit", "rain", "ribbon", "river", "rocket", "rose", "salt", "sand", "shadow", "silk",
    "silver", "snake", "soap", "spider", "spoon", "stone", "storm", "sugar", "sword", "temple", "thunder", "tiger",
    "tower", "train", "valley", "violin", "whale", "wheel", "wind", "window", "wolf", "wool",
)  # fmt: skip
_CORRUPTIONS = {
    "value": "three other words in the needle, and those already written are its own: the corrupt prompt wants the "
    "other word, which is the foil",
    "needle": "filler of as many tokens in the needle's place, so that nothing says the words; the foil is as before",
}
_FILLER, _LEAST_FILLER = 128, 32  # tokens
_STEPS = 3  # words of a value
_ROWS = 16


@dataclass(frozen=True)
class _Item:
    """One needle in its filler: rows of tokens up to the question, and where the needle stands."""

    name: str
    split: str
    frame: int
    before: list[int]  # filler up to the needle
    needle: list[int]
    other: list[int]  # the needle with other words
    filler: list[int]  # as long as the needle
    after: list[int]  # filler behind it, and the question
    value: tuple[int, ...]
    foil: tuple[int, ...]
    at: int  # where the needle's words begin in it

    def asked(self) -> list[int]:
        """The prompt with all words written but the last."""
        return [*self.before, *self.needle, *self.after, *self.value[:-1]]

    def corrupt(self, step: int, corruption: str) -> list[int]:
        if corruption == "value":
            return [*self.before, *self.other, *self.after, *self.foil[:step]]
        return [*self.before, *self.filler, *self.after, *self.value[:step]]


def _make(model: HookedTransformer, request: Request) -> Task:
    filler = request.options.get("filler", _FILLER)
    if not is_index(filler) or filler < _LEAST_FILLER:
        raise InputError(f"filler is {filler!r}. Give a number of tokens, at least {_LEAST_FILLER}.")
    bos = with_bos(model, request.bos)
    front = [model.tokenizer.bos_id] if bos else []
    windows = _windows(model, int(filler), request.seed)
    items = [one for split in request.splits for one in _items(model, split, windows[split], front, request)]
    said = _said(model, items, request, bool(bos))
    parts: dict[str, Any] = {name: [] for name in ("clean", "corrupt", "answer", "foil", "items", "templates")}
    places: dict[str, list[list[int]]] = {name: [] for name in ("needle", "copied", "END")}
    labels: dict[str, list[Any]] = {name: [] for name in ("step", "split")}
    for item, right in zip(items, said, strict=True):
        for step in (step for step in range(_STEPS) if right[step]):
            clean = [*item.before, *item.needle, *item.after, *item.value[:step]]
            values = (clean, item.corrupt(step, request.corruption), item.value[step], item.foil[step], item.name)
            for name, value in zip(parts, (*values, f"{item.split} {item.frame} word {step + 1}"), strict=True):
                parts[name].append(value)
            start = len(item.before)
            places["needle"].append(list(range(start, start + len(item.needle))))
            places["copied"].append([start + item.at + step])
            places["END"].append([len(clean) - 1])
            labels["step"].append(step + 1)
            labels["split"].append(item.split)
    if not parts["clean"]:
        raise InputError(
            f"{model.cfg.model_name} writes none of the {len(items) * _STEPS} words that needles say, so nothing is "
            "retrieved."
        )
    pairs = PromptPairs.from_tokens(**parts, positions=places, model=model)
    rates = {f"word {step + 1}": sum(one[step] for one in said) / len(said) for step in range(_STEPS)}
    about = {
        "bos": bool(bos),
        "corruption": _CORRUPTIONS[request.corruption],
        "written": {**rates, "all words": sum(map(sum, said)) / (len(said) * _STEPS)},
        "written_means": "share of the words that are the model's likeliest next token; others are left out",
        "filler": int(filler),
        "left_out": {"words not written": sum(not one for right in said for one in right)},
    }
    return made_task(TASK, request, pairs, {name: tuple(values) for name, values in labels.items()}, about)


def _windows(model: HookedTransformer, width: int, seed: int) -> dict[str, list[list[int]]]:
    """Windows of the bundled text for each split, which share no passage."""
    for n in (96, 64, 48, 32, 16, 8):
        try:
            text = natural_text(model, n, n_tokens=width, bos=False, seed=seed)
        except InputError:
            continue
        rows, passages = text.batch.tokens.tolist(), text.passage_index.tolist()
        found = {
            split: [row for row, passage in zip(rows, passages, strict=True) if passage % 2 == parity]
            for parity, split in enumerate(("select", "report"))
        }
        if all(len(some) > 1 for some in found.values()):
            return found
    raise InputError(f"The bundled text holds too few windows of {width} tokens. Ask for a shorter filler=.")


def _items(
    model: HookedTransformer, split: str, windows: Sequence[list[int]], front: list[int], request: Request
) -> list[_Item]:
    names = [name for name in half((*WOMEN, *MEN), split) if word_id(model.tokenizer, name) is not None]
    values = {word_id(model.tokenizer, word): word for word in half(VALUES, split)}
    values.pop(None, None)
    if not names or len(values) < 4 * _STEPS:
        raise InputError("retrieval needs names and words that are single tokens; this tokenizer splits too many.")
    made = []
    for i in range(request.n):
        draw = rng(request.seed, "retrieval", split, str(i))
        window, spare = windows[i % len(windows)], windows[(i + 1) % len(windows)]
        name = draw.choice(names)
        frame = i % len(half(FRAMES, split))
        before, question = (_ids(model, text.format(K=name)) for text in half(FRAMES, split)[frame])
        free = sorted({one for one in values if one is not None} - {*window, *spare})
        drawn = draw.sample(free, 2 * _STEPS)
        value, foil, stop = tuple(drawn[:_STEPS]), tuple(drawn[_STEPS:]), _ids(model, ".")
        needle = [*before, *value, *stop]
        cut = _sentence_end(model, window, draw.uniform(0.2, 0.8))
        made.append(
            _Item(
                f"{name} {' '.join(str(values[one]) for one in value)}",
                split,
                frame,
                [*front, *window[:cut]],
                needle,
                [*before, *foil, *stop],
                spare[: len(needle)],
                [*window[cut:], *question],
                value,
                foil,
                len(before),
            )
        )
    return made


def _sentence_end(model: HookedTransformer, window: Sequence[int], depth: float) -> int:
    """Behind the full stop nearest to some depth of the window; there itself without any."""
    wanted = round(depth * len(window))
    ends = [i + 1 for i, text in enumerate(model.tokenizer.str_tokens(list(window))) if text.strip() == "."]
    return min(ends, key=lambda end: abs(end - wanted), default=wanted)


def _said(model: HookedTransformer, items: Sequence[_Item], request: Request, bos: bool) -> list[tuple[bool, ...]]:
    """Of each item, which of its words are the likeliest next token once those before it stand there."""
    rows = [item.asked() for item in items]
    key = ("retrieval", bos, tuple(map(tuple, rows)))
    if key not in request.known:
        request.known[key] = written(model, rows, [item.value for item in items])
    return request.known[key]


def written(
    model: HookedTransformer, rows: Sequence[list[int]], values: Sequence[tuple[int, ...]]
) -> list[tuple[bool, ...]]:
    """Whether each word of a value is the likeliest next token; rows end before the last one. One pass per row."""
    found: list[tuple[bool, ...]] = []
    reads = list(range(-_STEPS, 0))
    with torch.no_grad():
        for start in range(0, len(rows), _ROWS):
            batch = pad_rows(list(rows[start : start + _ROWS]), 0, "left", model.device)
            logits = model(batch.tokens, attention_mask=batch.mask, unembed_pos=reads)
            best = logits.argmax(-1).tolist()
            found += [tuple(a == b for a, b in zip(one, value, strict=True))
                      for one, value in zip(best, values[start : start + _ROWS], strict=True)]  # fmt: skip
    return found


def _ids(model: HookedTransformer, text: str) -> list[int]:
    return list(model.tokenizer.backend.encode(text, add_special_tokens=False).ids)


TASK = TaskDefinition(
    name="retrieval",
    definition="words that one sentence within unrelated text says of someone, asked for at the end",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("needle", "copied", "END"),
    make=_make,
    options=("filler",),
)
