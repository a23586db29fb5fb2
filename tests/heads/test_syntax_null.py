"""Where nothing knows who depends on whom, nobody is said to: random models that read real word forms.

Closed classes are the trap: a random head that happens to prefer "will" finds the auxiliary of every verb. What the
other words look at shows it.
"""

from __future__ import annotations

import numpy as np
import pytest

import interp
from interp.heads.syntax_grammar import drawn_sentences
from interp.heads.syntax_words import LabelledTokens, labelled
from tests.heads.syntax_models import reader, word_tokenizer
from tests.heads.test_null import ALPHA, binomial_bound


@pytest.fixture(autouse=True, scope="module")
def _quiet_threads(one_thread: None) -> None:
    pass


@pytest.fixture(scope="module")
def trees() -> list[LabelledTokens]:
    """Sentences of both splits with BOS in front, put into tokens once for all models."""
    both = [*drawn_sentences(80, "select", 0), *drawn_sentences(80, "report", 0)]
    return [labelled(one, word_tokenizer(), bos=True) for one in both]


def false_positives(seeds: range, trees, kind: str) -> tuple[int, int]:
    """Models in which p rejects for at least one head, and those in which one is named."""
    rejected = named = 0
    for seed in seeds:
        model = reader(kind, seed, sharp=(1.0, 4.0)[seed % 2])
        frame = interp.find_heads(model, "syntax", corpus=trees, n=10, top=1, alpha=ALPHA, seed=seed).frame
        rejected += bool((frame["p_corrected"] <= ALPHA).any())
        named += bool((frame["verdict"] != "").any())
    return rejected, named


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_few_random_models_have_no_syntactic_heads(kind, trees):
    assert max(false_positives(range(5), trees, kind)) <= binomial_bound(5, ALPHA)


def test_the_count_would_see_a_broken_test(trees, monkeypatch):
    broken = lambda values, **options: (np.zeros(values.shape[1]), np.zeros(values.shape[1]))  # noqa: E731
    monkeypatch.setattr("interp.heads.syntax_search.sign_flip", broken)
    assert false_positives(range(3), trees, "encoder")[0] == 3 > binomial_bound(3, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_two_hundred_random_models_stay_within_the_bound(kind, trees):
    rejected, named = false_positives(range(200), trees, kind)
    assert max(rejected, named) <= binomial_bound(200, ALPHA), (rejected, named)
