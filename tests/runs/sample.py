"""Small head scores, made without a model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from interp.results import HeadScores


def make_scores(seed: int = 0) -> HeadScores:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "kind": "induction",
            "stack": "",
            "sublayer": "attn",
            "layer": np.repeat(np.arange(3), 4),
            "head": np.tile(np.arange(4), 3),
            "score": rng.random(12),
            "score_low": rng.random(12),
            "score_high": rng.random(12),
            "writing": np.where(np.arange(12) < 2, np.nan, rng.random(12)),
            "effect": np.nan,
            "effect_low": np.nan,
            "effect_high": np.nan,
            "verdict": "",
        }
    )
    sets = pd.DataFrame(
        [{"kind": "induction", "heads": "0.1 0.2", "effect": 1.0, "effect_low": 0.5, "effect_high": 1.5}]
    ).assign(random_mean=0.1, random_max=0.2, p=0.001)
    return HeadScores(frame, sets, {"model": "tiny", "seed": seed, "definitions": {"induction": "prefix matching"}})
