"""The capital of a country that is asked about, at the country and where the answer is to come.

Its identity is a class of its own, so it cannot be held out: the groups are the templates, and a probe is tested on
countries that it has seen, in words that it has not. At the country it can go by the country's own token, which the
embedding layer shows. Nor can the control task (by country) be harder: a country's capital is as good as its name.
The continent (`relation="continent"`) is shared by countries, which are then the groups.
"""

from __future__ import annotations

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.base import Task
from interp.tasks.countries import RELATIONS, countries
from interp.tasks.prompts import fill
from interp.tasks.words import half, rng
from probes.labels.base import LabelRequest, LabelSet
from probes.labels.tasks import rows_of_task
from probes.sources import Labelled, LabelledText, Mark, from_texts

__all__ = ["LABELS"]

_TEMPLATES = (
    "The {R} of {X} is",
    "Travellers to {X} ask for its {R}, which is",
    "Here is a picture of {X}. The {R} of the country is",
    "She wrote about {X} and its {R}, called",
    "In a quiz on {X} they wanted the {R}. He answered",
    "My cousin lives in {X}. Everybody there knows the {R},",
    "A new map of {X} was printed. On it the {R} is",
    "When you hear the name {X}, you may think of the {R},",
)


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    relation = request.options.get("relation", "capital")
    if relation not in RELATIONS:
        raise InputError(f"relation={relation!r} is not known. Choose {', '.join(RELATIONS)}.")
    texts: list[LabelledText] = []
    for split in request.splits:
        every = [one for one in half(countries(), split) if relation in one.answers]
        if request.n > len(every):
            raise InputError(f"n={request.n} is more than there are: {len(every)} countries in {split}. Ask for fewer.")
        rng(request.seed, "capital", split).shuffle(every)
        for country in every[: request.n]:
            for number, template in enumerate(_TEMPLATES):
                filled = fill(template, {"X": country.name, "R": relation})
                group = f"template {number}" if relation == "capital" else country.name
                labels = {relation: country.answers[relation]}
                more = {"country": country.name, "template": f"template {number}", "split": split}
                end = len(filled.text)
                marks = [
                    Mark(filled.spans["X"], labels, country.name, {"where": "country", **more}),
                    Mark((end - 1, end), labels, country.name, {"where": "last", **more}),
                ]
                texts.append(LabelledText(filled.text, group, marks))
    about = {
        "rows": "at the country, and at the last token (column where)",
        "group": "the template, since a capital is its country's alone" if relation == "capital" else "the country",
        "known": "not asked: labels are what is true, whether or not the model knows it",
    }
    return from_texts(model, texts, about, prepend_bos=request.prepend_bos)


def _from_task(model: HookedTransformer, task: Task) -> Labelled:
    """The facts of a drawn task, by relation; groups are its templates."""
    relations = list(task.labels["relation"])
    labels = {
        one: [answer if of == one else None for answer, of in zip(task.labels["answer"], relations, strict=True)]
        for one in dict.fromkeys(relations)
    }
    more = {"country": list(task.labels["subject"]), "relation": relations, "template": list(task.templates)}
    about = {"labels": LABELS.name, "definition": LABELS.definition, "group": "the template"}
    places = {"country": "subject", "last": "END"}
    types = dict.fromkeys(places, task.labels["subject"])
    return rows_of_task(model, task, places, labels, more, about, groups=task.templates, types=types)


LABELS = LabelSet(
    name="capital",
    definition="the capital (language, continent) of the country that is asked about",
    targets=RELATIONS,
    unit="countries",
    n=10,
    group="the template for the capital, which is its country's alone; else the country",
    make=_make,
    options=("relation",),
    task="fact_recall",
    from_task=_from_task,
)
