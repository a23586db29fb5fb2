"""Functions shown by five examples (Todd 2024): "hot -> cold, …, big ->" wants small. With the answers of the examples
permuted nothing shows which function is meant.

Only words are asked whose value is the model's likeliest next token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Request, Task, TaskDefinition
from interp.tasks.functions import functions
from interp.tasks.measure import best_of
from interp.tasks.prompts import Filled, Prompt, fill, task_of, with_bos
from interp.tasks.words import half, in_turns, is_one_token, rng, word_id

__all__ = ["FORMATS", "N_SHOTS", "TASK"]

N_SHOTS = 5
# What stands around an example's word and in front of its value, and what stands between examples.
FORMATS = (("{x} ->", "\n"), ("Q: {x}\nA:", "\n\n"), ("Input: {x} Output:", "\n"), ("{x} becomes", ". "))
_CORRUPTIONS = {
    "shuffled_labels": "the values of the examples are permuted so that none keeps its own; words, format and what is "
    "asked stay. The foil is a value of the function that stands nowhere in the prompt"
}
_AT_ONCE = 32
_LEAST = 2 * (N_SHOTS + 2)  # pairs of a function: examples, the one asked and a foil in each split


@dataclass(frozen=True)
class _Asked:
    function: str
    word: str
    value: str
    foil: str
    split: str
    format: int  # in its split
    clean: Filled
    corrupt: Filled


def _make(model: HookedTransformer, request: Request) -> Task:
    names = request.options.get("functions", tuple(functions()))
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names or set(names) - set(functions()):
        raise InputError(f"functions is {names!r}. Choose among {', '.join(functions())}.")
    pairs = {name: [pair for pair in functions()[name] if is_one_token(model.tokenizer, pair[1])] for name in names}
    pairs = {name: some for name, some in pairs.items() if len(some) >= _LEAST}
    if not pairs:
        raise InputError("few_shot needs functions with enough values that are single tokens; here there is none.")
    kept: list[_Asked] = []
    seen: dict[str, list[bool]] = defaultdict(list)
    for split in request.splits:
        kept += _known(model, _questions(pairs, split, request), request, seen)
    if not kept:
        raise InputError(f"{model.cfg.model_name} gives none of the values that five examples ask for.")
    prompts = [_prompt(one) for one in kept]
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "known": {
            name: {"asked": len(right), "known": sum(right), "rate": sum(right) / len(right)}
            for name, right in sorted(seen.items())
        },
        "known_means": "the value is the likeliest next token; others are left out",
        "same_relation_answers": {
            name: [(word_id(model.tokenizer, value),) for value in dict.fromkeys(value for _, value in some)]
            for name, some in pairs.items()
        },
        "left_out": {
            "functions with too few values of one token": [name for name in names if name not in pairs],
            "questions not known": sum(not one for right in seen.values() for one in right),
        },
    }
    task = task_of(TASK, model, request, prompts, about)
    assert task.pairs is not None
    return replace(task, pairs=_with_labels(task.pairs))


def _with_labels(pairs: Any) -> Any:
    """The values of all examples under one name."""
    each = [pairs.positions[f"y{i}"] for i in range(N_SHOTS)]
    joined = tuple(tuple(at for span in spans for at in span) for spans in zip(*each, strict=True))
    return replace(pairs, positions={"labels": joined, "END": pairs.positions["END"]})


def _questions(pairs: dict[str, list[tuple[str, str]]], split: str, request: Request) -> list[_Asked]:
    """Every word of a split once, in random order, the functions in turns."""
    every = [(name, pair) for name, some in pairs.items() for pair in half(some, split)]
    rng(request.seed, "few_shot", split).shuffle(every)
    made = []
    for i, (name, (word, value)) in enumerate(in_turns(every, lambda one: one[0])):
        draw = rng(request.seed, "few_shot", split, name, word)
        shots, foil = _shots([pair for pair in half(pairs[name], split) if pair != (word, value)], value, draw)
        if len(shots) < N_SHOTS or not foil:
            continue
        formats = half(FORMATS, split)
        permuted = _deranged([y for _, y in shots], draw)
        clean, corrupt = (
            _filled(formats[i % len(formats)], [x for x, _ in shots], values, word)
            for values in ([y for _, y in shots], permuted)
        )
        made.append(_Asked(name, word, value, foil, split, i % len(formats), clean, corrupt))
    return made


def _shots(pairs: Sequence[tuple[str, str]], value: str, draw: Random) -> tuple[list[tuple[str, str]], str]:
    """Five examples whose values all differ, also from the one that is asked for, and a value for the foil."""
    chosen: dict[str, tuple[str, str]] = {}
    for pair in draw.sample(list(pairs), len(pairs)):
        if pair[1] != value:
            chosen.setdefault(pair[1], pair)
    foil = next(iter(list(chosen)[N_SHOTS:]), "")
    return list(chosen.values())[:N_SHOTS], foil


def _deranged(values: Sequence[str], draw: Random) -> list[str]:
    """The values in another order, none in its own place."""
    while True:
        order = draw.sample(list(values), len(values))
        if all(a != b for a, b in zip(order, values, strict=True)):
            return order


def _filled(form: tuple[str, str], words: Sequence[str], values: Sequence[str], asked: str) -> Filled:
    one, between = form
    shots = [f"{one.format(x=f'{{x{i}}}')} {{y{i}}}{between}" for i in range(len(words))]
    slots = {f"x{i}": word for i, word in enumerate(words)} | {f"y{i}": value for i, value in enumerate(values)}
    return fill("".join(shots) + one, slots | {"x": asked})


def _known(
    model: HookedTransformer, asked: Sequence[_Asked], request: Request, seen: dict[str, list[bool]]
) -> list[_Asked]:
    """The first questions that the model answers, as many as are wanted; no more are run than needed."""
    prepend = with_bos(model, request.bos)
    kept: list[_Asked] = []
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        if len(kept) >= request.n:
            break
        key = ("few_shot", prepend, tuple(one.clean.text for one in some))
        if key not in request.known:
            rows = [model.tokenizer.encode(one.clean.text, prepend_bos=prepend) for one in some]
            wanted: list[Any] = [(word_id(model.tokenizer, one.value),) for one in some]
            request.known[key] = best_of(model, rows, wanted, [[one] for one in wanted])[1]
        for one, right in zip(some, request.known[key], strict=True):
            seen[one.function].append(right)
            kept += [one] if right else []
    return kept[: request.n]


def _prompt(one: _Asked) -> Prompt:
    places = {f"y{i}": one.clean.spans[f"y{i}"] for i in range(N_SHOTS)}
    labels = {"relation": one.function, "query": one.word, "split": one.split}
    item, template = f"{one.function} {one.word}", f"{one.split} {one.format}"
    return Prompt(one.clean, one.corrupt, f" {one.value}", f" {one.foil}", places, item, template, labels)


TASK = TaskDefinition(
    name="few_shot",
    definition="what a word becomes by a function that five examples show: its opposite, plural, past tense, capital …",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder"}),
    positions=("labels", "END"),
    make=_make,
    options=("functions",),
    metric="prob",
)
