"""Rows into which labels were written at known places."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.data import ProbeDataset

N_LAYERS, WIDTH, HEADS, D_HEAD = 3, 20, 4, 6


def planted(
    n_groups: int = 60, *, per_group: int = 4, seed: int = 0, twin: bool = False, numbers: bool = False
) -> ProbeDataset:
    """Words (groups) in singular and plural, two rows each. `number` stands in resid_pre.1 and 2 and in head 2 of z.0,
    `colour` (three classes) in resid_pre.2 alone, the word itself everywhere. All else is noise."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), per_group)
    n = len(group)
    number = np.tile(np.arange(per_group) % 2, n_groups)
    colour = generator.integers(0, 3, n)
    size = generator.normal(size=n)
    words = generator.normal(size=(n_groups, WIDTH))
    turn = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0]
    x = {}
    for layer in range(N_LAYERS):
        rows = generator.normal(size=(n, WIDTH)) + words[group] @ turn
        if layer >= 1:
            rows += 8 * (number[:, None] - 0.5) * turn[0]
            rows += 4 * size[:, None] * turn[4]
        if layer == 2:
            rows += 8 * turn[1:4][colour]
        x[f"blocks.{layer}.hook_resid_pre"] = rows.astype(np.float32)
        z = generator.normal(size=(n, HEADS, D_HEAD))
        if layer == 0:
            z[:, 2, 1] += 8 * (number - 0.5)
        x[f"blocks.{layer}.attn.hook_z"] = z.astype(np.float32)
    forms = [f"word{g}{'s' if one else ''}" for g, one in zip(group, number, strict=True)]
    table = pd.DataFrame(
        {"text": np.arange(n), "pos": 3, "token": forms, "group": [f"word{g}" for g in group], "type": forms}
    )
    labels = pd.DataFrame(
        {
            "number": np.array(["singular", "plural"], dtype=object)[number],
            "colour": np.array(["red", "green", "blue"], dtype=object)[colour],
        }
    )
    if numbers:
        labels["size"] = size
    noise = {site: generator.normal(size=one.shape).astype(np.float32) for site, one in x.items()}
    random_init = ProbeDataset(noise, table, labels) if twin else None
    about = {"model": "planted", "labels": "written by hand"}
    return ProbeDataset(x, table, labels, about, random_init)
