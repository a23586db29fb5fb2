"""In half precision everything that is asked of a head has an answer, near the one in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits import direct
from interp.model.transformer import HookedTransformer
from tests.model.conftest import ZOO, _one_thread, ids, randomize

__all__ = ["_one_thread"]

NAMES = ["llama", "gpt2", "gemma2", "softcap", "granite", "olmo2", "qwen3", "two_stacks"]


def both(name: str) -> list[HookedTransformer]:
    """The same weights in half and in single precision."""
    half = randomize(HookedTransformer(ZOO[name], dtype=torch.bfloat16))
    single = HookedTransformer(ZOO[name])
    single.load_state_dict({key: value.float() for key, value in half.state_dict().items()})
    return [half, single]


def near(one: Any, other: Any, share: float = 0.1) -> None:
    one, other = np.asarray(one, float), np.asarray(other, float)
    assert np.abs(one - other).max() <= share * np.abs(other).max()


@pytest.mark.parametrize("name", NAMES)
def test_an_edge_is_explained_and_confirmed(name: str) -> None:
    options = {"decoder_input": ids(1, 7, 3)} if name == "two_stacks" else {}
    found = [interp.explain_attention(m, ids(1, 9), "1.1", 5, 4, confirm=True, **options) for m in both(name)]
    near(found[0].values, found[1].values)
    for one in found:
        assert one.confirmed is not None and one.confirmed["attention_after"].between(0, 1).all()
        assert one.confirmed["attention"].to_numpy() == pytest.approx(one.about["attention"], abs=0.02)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_a_head_writes_and_reads(name: str) -> None:
    half, single = (interp.ov(model, "1.1") for model in both(name))
    options = {"decoder_input": ids(1, 7, 3)} if name == "two_stacks" else {}
    near(half.W_V @ half.W_O, single.W_V @ single.W_O, 1e-6)
    near(half._logits(half._values(torch.tensor([3]))[0]), single._logits(single._values(torch.tensor([3]))[0]))
    rows = [one.attribution(ids(1, 9), 3, 4, query=3, **options).frame["logit"] for one in (half, single)]
    near(*rows)
    scores = [one.copying(n=20).frame.set_index("score")["value"] for one in (half, single)]
    near(scores[0]["eigenvalues"], scores[1]["eigenvalues"])
    near(*(one.svd(n=2, k=2).frame["singular_value"] for one in (half, single)))
    near(*(interp.qk(one.model, "1.1").svd(n=2, k=2).frame["singular_value"] for one in (half, single)))


def test_slices_of_a_wide_vocabulary_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    half, _ = both("llama")
    vector = torch.randn(3, 32)
    whole = direct.direct_logits(half, vector).detach()
    monkeypatch.setattr(direct, "_SLICE", 7)
    torch.testing.assert_close(direct.direct_logits(half, vector), whole)
    some = torch.tensor([9, 2, 40])
    torch.testing.assert_close(direct.direct_logits(half, vector, some), whole[:, some])
