"""Whom a pronoun means: the antecedent's gender, and whether it is the first or the second of the two named.

The gender can be read off the pronoun itself, so at the pronoun the embedding layer knows it; the position has to be
resolved. Every two names give both orders and both antecedents, so names tell neither. The control task goes by the
antecedent's name: four pronouns labelled at random would be learned by heart.
"""

from __future__ import annotations

from itertools import product

from interp.errors import InputError
from interp.model.kinds import attention_kind
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Task
from interp.tasks.coreference_words import FRAMES, PRONOUNS
from interp.tasks.prompts import fill
from interp.tasks.words import MEN, WOMEN, half, is_one_token, rng
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.tasks import rows_of_task
from probes.sources import Labelled, LabelledText, Mark, from_texts

__all__ = ["LABELS"]

_TARGETS = ("antecedent gender", "antecedent position")
_GENDERS, _PLACES = ("female", "male"), ("first", "second")


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    whole = attention_kind(model) != "decoder"  # a model that reads both ways gets whole sentences
    texts: list[LabelledText] = []
    for split in request.splits:
        generator = rng(request.seed, "antecedent", split)
        names = [
            generator.sample(some, len(some))
            for every in (WOMEN, MEN)
            if (some := [name for name in half(every, split) if is_one_token(model.tokenizer, name)])
        ]
        pairs = list(zip(*names, strict=False)) if len(names) == 2 else []
        if request.n > len(pairs):
            raise InputError(
                f"n={request.n} is more than there are: {len(pairs)} pairs of a woman and a man in {split} whose names "
                f"are one token each. Ask for n={len(pairs)} or fewer."
            )
        for two in pairs[: request.n]:
            texts += _pair(two, split, whole=whole)
    about = {"rows": "at the pronoun, and at the last token (column where)"}
    return from_texts(model, texts, about, prepend_bos=request.prepend_bos)


def _pair(two: tuple[str, ...], split: str, *, whole: bool) -> list[LabelledText]:
    made = []
    for number, frame in enumerate(half(FRAMES["gender"], split)):
        for order, meant in product((0, 1), (0, 1)):
            first, second = two[order], two[1 - order]
            pronoun = PRONOUNS["gender"][frame.form][meant]
            text = frame.text + frame.tail if whole else frame.text
            filled = fill(text, {"A": first, "B": second, "P": pronoun})
            starts = {first: filled.spans["A"], second: filled.spans["B"]}
            place = _PLACES[int(starts[two[meant]] > starts[two[1 - meant]])]
            labels = {_TARGETS[0]: _GENDERS[meant], _TARGETS[1]: place}
            more = {"antecedent": two[meant], "template": f"{split} {number}", "split": split}
            end = len(filled.text)
            marks = [
                Mark(filled.spans["P"], labels, two[meant], {"where": "pronoun", **more}),
                Mark((end - 1, end), labels, two[meant], {"where": "last", **more}),
            ]
            made.append(LabelledText(filled.text, " ".join(two), marks))
    return made


def _from_task(model: HookedTransformer, task: Task) -> Labelled:
    """The prompts of a drawn task, whose groups are its pairs of names: one name may stand in several."""
    genders = {name: gender for gender, names in zip(_GENDERS, (WOMEN, MEN), strict=True) for name in names}
    labels = {
        _TARGETS[0]: [genders.get(name) for name in task.labels["antecedent"]],
        _TARGETS[1]: list(task.labels["antecedent_place"]),
    }
    more = {"antecedent": list(task.labels["antecedent"]), "split": list(task.labels["split"])}
    about = {"labels": LABELS.name, "definition": LABELS.definition, "group": "the item: names may recur in others"}
    places = {"pronoun": "pronoun", "last": "END"}
    types = dict.fromkeys(places, task.labels["antecedent"])
    return rows_of_task(model, task, places, labels, more, about, types=types)


LABELS = LabelSet(
    name="antecedent",
    definition="the gender of the one whom a pronoun means, and whether that one is named first or second",
    targets=_TARGETS,
    unit="pairs of names",
    n=15,
    group="the pair of names: no name stands in two groups",
    make=_make,
    task="coreference",
    from_task=_from_task,
)
