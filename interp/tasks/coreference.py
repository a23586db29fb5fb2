"""Coreference: whom a pronoun means, in quartets of prompts that differ by the pronoun and by the order of the two.

The prompt goes on after the pronoun so that resolving it makes the model copy the antecedent: free prediction of a
pronoun would not show that. Each item gives a whole quartet, {pronoun of one, of the other} × {both orders}, so that
"the nearest", "the first" and "the subject" are each right in half of the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.tasks.base import SPLITS, Request, Task, TaskDefinition, model_kind
from interp.tasks.coreference_words import ASKS, FRAMES, GIVES, NOUNS, OCCUPATIONS, PARTICIPANTS, PRONOUNS, Frame
from interp.tasks.prompts import Filled, Prompt, fill, task_of
from interp.tasks.words import MEN, WOMEN, draw, half, is_one_token, rng, word_id

__all__ = ["TASK"]

_CORRUPTIONS = {
    "pronoun": "only the pronoun is swapped; the corrupt prompt means the other one (with occupations: the same)",
    "antecedent": "the antecedent becomes another of its kind, whom the pronoun then means; that one is the foil",
    "names": "only the two mentions are exchanged; the pronoun means the same one, who now stands in the other place. "
    "Each corrupt prompt is a clean one of the same item, so clean − corrupt is 0 over an item, whatever the model",
    "ambiguous": "the distractor becomes one that the pronoun fits too: the corrupt prompt has no right answer",
    "situation": "only for occupations: what was done is swapped, so that the corrupt prompt means the other one",
}
_OFFERS = {
    "gender": ("pronoun", "antecedent", "names", "ambiguous"),
    "number": ("pronoun", "antecedent", "names", "ambiguous"),
    "occupation": ("pronoun", "antecedent", "names", "situation"),
}


@dataclass(frozen=True)
class _Two:
    """An item: two words of different kinds, and for either another word of each kind."""

    words: tuple[str, str]
    alike: tuple[str, str]  # for either word another of its own kind (`antecedent`)
    stand_ins: tuple[str, str]  # for the first word one of the second's kind, and the reverse (`ambiguous`)
    situation: tuple[str, str] = ("", "")


def _make(model: HookedTransformer, request: Request) -> Task:
    cue = request.options.get("cue", "gender")
    cues = (cue,) if isinstance(cue, str) else tuple(cue)
    for one in cues:
        if one not in FRAMES:
            raise InputError(f"There is no cue {one!r}. Choose {', '.join(FRAMES)}, or several of them.")
        if request.corruption not in _OFFERS[one]:
            raise InputError(
                f"With the cue {one} there is no corruption {request.corruption!r}. Choose {', '.join(_OFFERS[one])}."
            )
    encoder = model_kind(model) == "encoder"
    prompts, left_out = [], {}
    for one in cues:
        words = _vocabulary(one)
        left_out[one] = [word for word in words if not is_one_token(model.tokenizer, word)]
        for split in request.splits:
            twos = _twos(one, split, model.tokenizer, request)
            frames = half(FRAMES[one], split)
            for i, two in enumerate(twos):
                which = f"{one} {split} {i % len(frames)}"
                gender = (i // len(frames)) % 2
                prompts += _quartet(
                    frames[i % len(frames)], which, one, split, two, request.corruption, encoder, gender
                )
    names = {word for one in cues for split in request.splits for word in _of_split(one, split, model.tokenizer)}
    about = {
        "corruption": _CORRUPTIONS[request.corruption],
        "cues": cues,
        "names": sorted(found for word in names if (found := word_id(model.tokenizer, word)) is not None),
        "prompts_per_item": "4: both orders × both antecedents",
        "left_out": {"words of several tokens": left_out},
    }
    return _with_distances(task_of(TASK, model, request, prompts, about, read="pronoun"))


def _vocabulary(cue: str) -> tuple[str, ...]:
    if cue == "gender":
        return (*WOMEN, *MEN)
    if cue == "number":
        return tuple(word for two in NOUNS for word in two)
    return (*OCCUPATIONS, *PARTICIPANTS, *GIVES, *ASKS)


def _of_split(cue: str, split: str, tokenizer: Any) -> list[str]:
    """The words of one split that are single tokens."""
    if cue == "gender":
        words = [*half(WOMEN, split), *half(MEN, split)]
    elif cue == "number":
        words = [word for two in half(NOUNS, split) if all(is_one_token(tokenizer, w) for w in two) for word in two]
    else:
        words = [*half(OCCUPATIONS, split), *half(PARTICIPANTS, split)]
    return [word for word in words if is_one_token(tokenizer, word)]


def _twos(cue: str, split: str, tokenizer: Any, request: Request) -> list[_Two]:
    """The items of one cue and split."""
    generator = rng(request.seed, "coreference", cue, split)
    known = _of_split(cue, split, tokenizer)
    if cue == "number":
        nouns = [two for two in half(NOUNS, split) if two[0] in known and two[1] in known]
        drawn = draw(list(combinations(nouns, 2)), request.n, generator, f"pairs of nouns in {split}")
        mixed = [rng(request.seed, "coreference", *x, *y).sample([x, y], 2) for x, y in drawn]
        return [_two_nouns(x, y, nouns, request) for x, y in mixed]
    left, right = (WOMEN, MEN) if cue == "gender" else (OCCUPATIONS, PARTICIPANTS)
    groups = [[word for word in half(words, split) if word in known] for words in (left, right)]
    situations = _situations(split, tokenizer) if cue == "occupation" else [("", "")]
    n_frames = len(half(FRAMES[cue], split))  # every frame with one situation, then with the next
    made = []
    for i, (x, y) in enumerate(draw(list(product(*groups)), request.n, generator, f"pairs of words in {split}")):
        own = rng(request.seed, "coreference", x, y)
        others = [_but(group, x, y) for group in groups]
        stand_ins = own.choice(others[1]), own.choice(others[0])
        alike = own.choice(others[0]), own.choice(others[1])
        made.append(_Two((x, y), alike, stand_ins, situations[i // n_frames % len(situations)]))
    return made


def _two_nouns(x: tuple[str, str], y: tuple[str, str], nouns: Sequence[tuple[str, str]], request: Request) -> _Two:
    """One `x` and several `y`."""
    one, several = _but(nouns, x, y), rng(request.seed, "coreference", "alike", *x, *y)
    return _Two((x[0], y[1]), (several.choice(one)[0], several.choice(one)[1]), (x[1], y[0]))


def _but(words: Sequence[Any], *without: Any) -> list[Any]:
    """The words that may stand for one of an item."""
    left = [word for word in words if word not in without]
    if not left:
        raise InputError(f"coreference needs more than {len(words)} words of a kind that are single tokens in a split.")
    return left


def _situations(split: str, tokenizer: Any) -> list[tuple[str, str]]:
    """What is done: by the one who gives, and by the one who asks."""
    gives, asks = ([word for word in half(of, split) if is_one_token(tokenizer, word)] for of in (GIVES, ASKS))
    if not gives or not asks:
        raise InputError(
            "coreference by occupation needs verbs that are single tokens; this tokenizer splits them all."
        )
    return list(product(gives, asks))


def _quartet(
    frame: Frame, which: str, cue: str, split: str, two: _Two, corruption: str, encoder: bool, gender: int
) -> list[Prompt]:
    """Both orders of the two, and of each the prompt that means the first of them and the one that means the second."""
    whole = frame.text + frame.tail
    template, forms = whole if encoder else frame.text, PRONOUNS[cue][frame.form]
    made = []
    for order, meant in product((0, 1), (0, 1)):
        first, second = two.words if order == 0 else two.words[::-1]
        pronoun = forms[gender if cue == "occupation" else meant]
        words = {"A": first, "B": second, "P": pronoun}
        words |= dict.fromkeys(("V", "W"), two.situation[meant]) if cue == "occupation" else {}
        antecedent, distractor = two.words[meant], two.words[1 - meant]
        at = {"antecedent": "AB"[order != meant], "distractor": "AB"[order == meant]}
        clean = fill(template, words)
        changed = words | _changes(corruption, words, at, two, meant, forms)
        labels = {
            "cue": cue,
            "quartet": f"{which} {' '.join(two.words)}",
            "order": "AB" if order == 0 else "BA",
            "pronoun": pronoun,
            "antecedent": antecedent,
            "distractor": distractor,
            "antecedent_place": "first" if at["antecedent"] == "A" else "second",
            "subject_is_antecedent": frame.subject == at["antecedent"],
            "situation": words.get("V", ""),
            "corrupt_antecedent": changed[at["antecedent"]] if corruption == "antecedent" else "",
            "corrupt_distractor": changed[at["distractor"]] if corruption == "ambiguous" else "",
            "antecedent_text": _said(whole, words, antecedent, frame, cue),
            "distractor_text": _said(whole, words, distractor, frame, cue),
            "split": split,
        }
        places = _places(clean, at, frame)
        made.append(
            Prompt(
                clean,
                fill(template, changed),
                f" {antecedent}",
                f" {two.alike[meant] if corruption == 'antecedent' else distractor}",
                places,
                f"{cue} {' '.join(two.words)}",
                which,
                labels,
            )
        )
    return made


def _changes(
    corruption: str, words: Mapping[str, str], at: Mapping[str, str], two: _Two, meant: int, forms: Sequence[str]
) -> dict[str, str]:
    """The slots that the corrupt prompt fills otherwise."""
    if corruption == "pronoun":
        return {"P": forms[1 - forms.index(words["P"])]}
    if corruption == "names":
        return {"A": words["B"], "B": words["A"]}
    if corruption == "antecedent":
        return {at["antecedent"]: two.alike[meant]}
    if corruption == "ambiguous":
        return {at["distractor"]: two.stand_ins[1 - meant]}
    return dict.fromkeys(("V", "W"), two.situation[1 - meant])


def _places(clean: Filled, at: Mapping[str, str], frame: Frame) -> dict[str, tuple[int, int]]:
    spans = clean.spans
    return {
        "pronoun": spans["P"],
        **{name: spans[slot] for name, slot in at.items()},
        "first": spans["A"],
        "second": spans["B"],
        "subject": spans[frame.subject],
    }


def _said(whole: str, words: Mapping[str, str], who: str, frame: Frame, cue: str) -> str:
    """The sentence with someone in the pronoun's place."""
    name = who if cue == "gender" else f"{'the' if frame.form == 'lower' else 'The'} {who}"
    return fill(whole, {**words, "P": f"{name}'s" if frame.form == "possessive" else name}).text


def _with_distances(task: Task) -> Task:
    """Labels that say how many tokens lie between the pronoun and either mention."""
    pairs = task.pairs
    assert pairs is not None
    labels = dict(task.labels)
    for name in ("antecedent", "distractor"):
        both = zip(pairs.positions["pronoun"], pairs.positions[name], strict=True)
        labels[f"{name}_distance"] = tuple(pronoun[0] - mention[-1] for pronoun, mention in both)
    return replace(task, labels=labels)


def _derive(pairs: PromptPairs) -> PromptPairs:
    """First and second are the two mentions as they stand; the subject, where nobody says, is the first."""
    positions = dict(pairs.positions)
    if not {"antecedent", "distractor"} <= positions.keys():
        return pairs
    both = [sorted(two) for two in zip(positions["antecedent"], positions["distractor"], strict=True)]
    for place, name in enumerate(("first", "second")):
        positions.setdefault(name, tuple(two[place] for two in both))
    positions.setdefault("subject", positions["first"])
    return replace(pairs, positions=positions)


TASK = TaskDefinition(
    name="coreference",
    definition="the antecedent of a pronoun, copied: of two mentions the one that the pronoun means",
    corruptions=tuple(_CORRUPTIONS),
    applies_to=frozenset({"decoder", "encoder"}),
    positions=("pronoun", "antecedent", "distractor", "first", "second", "subject", "END"),
    make=_make,
    options=("cue",),
    derive=_derive,
)
assert all(len(half(frames, one)) >= 3 for frames in FRAMES.values() for one in SPLITS)
