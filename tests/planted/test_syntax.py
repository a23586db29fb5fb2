"""The finder has precision and recall 1 on planted syntax, in every variant, for decoders and encoders."""

from __future__ import annotations

import pytest

import interp
from interp import planted
from interp.planted.syntax import LAYOUTS, sentences
from tests.heads.syntax_models import both_ways

VARIANTS = [(norm, rotate, seed) for norm in ("none", "rms", "layer") for rotate in (False, True) for seed in (1, 2, 3)]
QUICK = [("none", False, 0), ("rms", True, 1), ("layer", True, 2)]


def named(model: interp.HookedTransformer, seed: int) -> dict[str, str]:
    found = interp.find_heads(model, "syntax", corpus=sentences(160, seed), n=8, top=1, seed=seed)
    return {f"{row['layer']}.{row['head']}": row["role"] for row in found.frame.to_dict("records") if row["verdict"]}


def holds(norm: str, rotate: bool, seed: int) -> None:
    one = planted.make("syntax", norm=norm, rotate=rotate, noise=planted.EPSILON["syntax"], seed=seed, n=8)
    assert set(named(one.model, seed)) == {str(head) for head in one.truth.heads["syntax"]}


@pytest.mark.parametrize(("norm", "rotate", "seed"), QUICK)
def test_the_finder_names_what_is_planted_and_nothing_else(norm: str, rotate: bool, seed: int) -> None:
    holds(norm, rotate, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "rotate", "seed"), VARIANTS)
def test_it_does_so_in_every_variant(norm: str, rotate: bool, seed: int) -> None:
    holds(norm, rotate, seed)


def test_the_same_weights_in_an_encoder_show_the_same_heads() -> None:
    """Adjectives, which stand before their noun, can be told there too; nothing planted looks at it."""
    one = planted.make("syntax", n=8)
    assert named(both_ways(one.model), 0) == {"0.0": "det: noun → determiner", "0.1": "nsubj: verb → subject"}


def test_no_fixed_offset_explains_the_planted_arcs() -> None:
    for relation, least in (("nsubj", 4), ("det", 3)):
        distances = {
            head - dependent for one in sentences(40) for name, dependent, head in one.arcs if name == relation
        }
        assert len(distances) >= least
    for one in sentences(8):
        one.must_fit()


def test_sentences_are_those_of_the_prompts_layouts() -> None:
    one = planted.make("syntax", n=8)
    prompts = one.pairs["verb"]
    assert set(prompts.templates) == set(LAYOUTS)
    for row, template in zip(prompts.clean, prompts.templates, strict=True):
        assert len(row) == len(template) + 1
