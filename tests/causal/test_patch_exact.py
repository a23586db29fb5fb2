"""Promise 1: a patched cell is what a whole forward pass under a hook gives, for every layout, site and direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from tests.causal.conftest import LAYOUTS, agree, compare, model_named, pairs_for
from tests.causal.oracle import oracle, site_names


SITES = [(name, site) for name in LAYOUTS for site in site_names(model_named(name))]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize(("name", "site"), SITES)
def test_every_site_of_every_layout_is_patched_as_a_hook_would(name: str, site: str, direction: str) -> None:
    model = model_named(name)
    compare(model, pairs_for(model), site, ("layer", "pos"), direction=direction)
