"""Whether a statement about a capital is true, at its full stop.

Two countries exchange their capitals, so that each country and each city stands in as many true statements as false
ones, and neither stands in another group. The two are of one continent where there are two left: a false statement
is then no worse geography than need be.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from random import Random

from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from interp.tasks.countries import Country, countries
from interp.tasks.prompts import fill
from interp.tasks.words import half, rng
from probes.labels.base import LabelRequest, LabelSet
from probes.sources import Labelled, LabelledText, Mark, from_texts

__all__ = ["LABELS"]

_TEMPLATES = (
    "The capital of {X} is {Y}.",
    "{Y} is the capital of {X}.",
    "Everybody who lives in {X} knows that its capital is {Y}.",
    "The government of {X} has its seat in {Y}, the capital.",
)


def _make(model: HookedTransformer, request: LabelRequest) -> Labelled:
    texts: list[LabelledText] = []
    for split in request.splits:
        pairs = _pairs(split, rng(request.seed, "truth", split))
        if request.n > len(pairs):
            raise InputError(
                f"n={request.n} is more than there are: {len(pairs)} pairs of countries in {split}. Ask for fewer."
            )
        for two in pairs[: request.n]:
            for template, country, stated in product(_TEMPLATES, two, two):
                texts.append(_statement(template, country, stated, two, split))
    about = {
        "rows": "at the full stop",
        "known": "not asked: labels are what is true, whether or not the model knows it",
    }
    return from_texts(model, texts, about, prepend_bos=request.prepend_bos)


def _statement(
    template: str, country: Country, stated: Country, two: tuple[Country, Country], split: str
) -> LabelledText:
    city = stated.answers["capital"]
    text = fill(template, {"X": country.name, "Y": city}).text
    more = {"where": "full stop", "country": country.name, "city": city, "split": split}
    more["template"] = f"template {_TEMPLATES.index(template)}"
    mark = Mark((len(text) - 1, len(text)), {"truth": "true" if stated is country else "false"}, city, more)
    return LabelledText(text, " / ".join(sorted(one.name for one in two)), [mark])


def _pairs(split: str, generator: Random) -> list[tuple[Country, Country]]:
    """Countries of one split in pairs, in random order."""
    by_continent: dict[str, list[Country]] = defaultdict(list)
    for country in half([one for one in countries() if "capital" in one.answers], split):
        by_continent[country.answers.get("continent", "")].append(country)
    pairs, left = [], []
    for some in by_continent.values():
        generator.shuffle(some)
        pairs += list(zip(some[::2], some[1::2], strict=False))
        left += some[len(some) // 2 * 2 :]
    pairs += list(zip(left[::2], left[1::2], strict=False))
    generator.shuffle(pairs)
    return pairs


LABELS = LabelSet(
    name="truth",
    definition="whether a statement that names the capital of a country is true",
    targets=("truth",),
    unit="pairs of countries",
    n=20,
    group="the two countries that exchange their capitals: no country and no city stands in two groups",
    make=_make,
)
