"""Made-up probes of the tiny model with hostile names, and a test of use of one, for tests of the page Probes."""

from __future__ import annotations

from functools import cache

import numpy as np
from serving import HOSTILE, tiny_model

import probes
from interp.pairs import PromptPairs
from probes.results import ProbeResults
from probes.used import Use

__all__ = ["TARGET", "probed"]

WORDS = ("the", "cat", "sat", "on", "a", "mat", HOSTILE[0], HOSTILE[1])
TARGET = f"article {HOSTILE[0]}"


@cache
def probed(sites: str = "resid") -> tuple[ProbeResults, Use]:
    """Whether a word is one of the first four, on random texts; and a test of that at the first word of pairs."""
    model, generator = tiny_model(), np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=6)) for _ in range(30)]
    labels = [["first" if word in WORDS[:4] else "second" for word in text.split()] for text in texts]
    data = probes.dataset(model, texts, {TARGET: labels}, sites=sites, prepend_bos=False)
    results = probes.sweep(data, "ridge", n_folds=4)
    rows = [[int(x) for x in generator.integers(2, 8, size=5)] for _ in range(24)]
    clean = [[2 + i % 4, *row] for i, row in enumerate(rows)]
    corrupt = [[6 + i % 2, *row] for i, row in enumerate(rows)]
    pairs = PromptPairs.from_tokens(
        clean=clean,
        corrupt=corrupt,
        answer=[3] * len(rows),
        foil=[7] * len(rows),
        positions={"subject": [[0]] * len(rows), "attractor": [[1]] * len(rows)},
        items=[f"{i:02}" for i in range(len(rows))],
        model=model,
    )
    tested = results.at("resid_pre.1", TARGET) if sites == "resid" else results.best(TARGET)
    return results, probes.test_use(tested, model, pairs, position="subject", n_random=2)
