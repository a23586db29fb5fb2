"""Composition scores against products multiplied out; planted pairs come first; random weights look random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.circuits import composition as module
from interp.errors import InputError
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from tests.model.conftest import ZOO, randomize

KINDS = [("Q", "whole"), ("Q", "alone"), ("K", "whole"), ("K", "alone"), ("V", "auto")]


def oracle(model: HookedTransformer, kind: str, qk: str) -> np.ndarray:
    """All pairs, d_model × d_model matrices multiplied out."""
    stack = model.main
    n_layers, n_heads = stack.config.n_layers, stack.config.blocks[0].attn.n_heads
    found = np.full((n_layers, n_heads, n_layers, n_heads), np.nan)

    def weights(layer: int, head: int) -> tuple[torch.Tensor, ...]:
        attn = stack.block(layer).attn
        kv = head // (n_heads // attn.config.n_key_value_heads)
        return attn.W_Q[head], attn.W_K[kv], attn.W_V[kv] @ attn.W_O[head]

    for a in range(n_layers):
        for i in range(n_heads):
            for b in range(a + 1, n_layers):
                for j in range(n_heads):
                    ov = weights(a, i)[2]
                    q, k, second = weights(b, j)
                    reads = {
                        "Q": q @ k.T if qk == "whole" else q,
                        "K": k @ q.T if qk == "whole" else k,
                        "V": second,
                    }[kind]
                    found[a, i, b, j] = float((ov @ reads).norm() / ov.norm() / reads.norm())
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2", "bert", "bare"])
@pytest.mark.parametrize(("kind", "qk"), KINDS)
@torch.no_grad()
def test_scores_are_those_of_the_products_multiplied_out(name: str, kind: str, qk: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 5000)  # several blocks of rows
    model = randomize(HookedTransformer(ZOO[name], dtype=torch.float64))
    found = interp.composition(model, kind, qk=qk, n_random=4)
    np.testing.assert_allclose(found.values.values, oracle(model, kind, qk), rtol=1e-9)


@torch.no_grad()
def test_in_float32_scores_are_right_to_five_digits() -> None:
    model = randomize(HookedTransformer(ZOO["llama"]))
    found = interp.composition(model, "K", n_random=4)
    np.testing.assert_allclose(found.values.values, oracle(model.double(), "K", "alone"), rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_folded_scores_are_those_of_the_folded_model(named: Any, name: str, kind: str) -> None:
    model = named(name).model
    found = interp.composition(model, kind, folded=True, n_random=4)
    copy = interp.composition(interp.fold_norms(model), kind, n_random=4)
    raw = interp.composition(model, kind, n_random=4)
    np.testing.assert_allclose(found.values, copy.values, rtol=1e-5)
    assert float(abs(found.values - raw.values).max()) > 1e-3
    assert found.about["weights"] != raw.about["weights"]


def test_rotary_models_read_with_one_side_alone_unless_asked(named: Any) -> None:
    assert interp.composition(named("llama").model, "Q", n_random=4).about["reads"] == "W_Q"
    assert interp.composition(named("llama").model, "K", n_random=4).about["reads"] == "W_K"
    assert interp.composition(named("gpt2").model, "K", n_random=4).about["reads"] == "W_K W_Qᵀ"
    assert interp.composition(named("llama").model, "Q", qk="whole", n_random=4).about["reads"] == "W_Q W_Kᵀ"


def test_the_planted_pair_comes_first(planted: Any) -> None:
    found = interp.composition(planted, "K", n_random=16).to_frame()
    best = found.iloc[0]
    assert (best["from_layer"], best["from_head"], best["to_layer"]) == (0, 1, 1) and best["to_head"] in (0, 2)
    rest = found.loc[found["from_head"] != 1]
    assert (rest["score"] < 1e-6).all() and best["z"] > 3 and best["rotated_z"] > 3
    assert interp.composition(planted, "Q", n_random=16).to_frame()["score"].max() < 1e-6


def test_only_the_planted_pair_composes(matching: Any) -> None:
    frame = interp.composition(matching, "K", n_random=16).to_frame().set_index(["from_head", "to_head"])
    assert frame["score"].idxmax() == (1, 0) and frame["score"].drop((1, 0)).max() < 1e-6
    assert len(frame) == 4


def test_heads_without_weights_have_no_score(planted: Any) -> None:
    found = interp.composition(planted, "V", n_random=4)
    assert math.isnan(float(found.values.sel(from_layer=0, from_head=3, to_layer=1, to_head=2)))


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_random_weights_score_as_the_baseline_says(kind: str) -> None:
    config = ModelConfig.decoder_only(n_layers=6, d_model=64, n_heads=6, d_head=16, d_vocab=10, n_ctx=8, d_mlp=0)
    found = interp.composition(HookedTransformer(config, seed=3), kind, qk="whole")
    scores = found.values.values[~np.isnan(found.values.values)]
    assert scores.mean() == pytest.approx(found.random_mean, rel=0.01)
    assert scores.std() == pytest.approx(found.random_deviation, rel=0.25)
    assert abs(float(found.z.mean())) < 0.3 and abs(float(found.rotated_z.mean())) < 0.2
    assert 0.7 < float(found.rotated_z.std()) < 1.4
    assert found.about["rotated_mean"] == pytest.approx(0.125) and found.random_mean == pytest.approx(0.125, rel=0.02)


def test_the_random_rotation_null_has_the_deviation_that_is_claimed() -> None:
    """Against rotations that are really drawn, for two heads of very unequal spectra."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([3.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    x, y = (sizes[:, None] * torch.randn(4, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    squared, deviation = module._all_pairs(torch.stack([x, x]), torch.stack([y, y]), 2, 1)
    x, y = x / x.norm(), y / y.norm()
    drawn = []
    for _ in range(4000):
        q, r = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64))
        drawn.append(float((x @ (q * r.diagonal().sign()) @ y.T).square().sum()))
    assert np.mean(drawn) == pytest.approx(1 / 24, rel=0.1)
    assert float(deviation[0, 1]) == pytest.approx(np.std(drawn), rel=0.1)
    assert float(squared[0, 1]) == pytest.approx(float((x @ y.T).square().sum()), rel=1e-9)


def test_slices_of_one_head_are_named(named: Any) -> None:
    found = interp.composition(named("llama").model, "K", n_random=4)
    into, out = found.into(2, 1), found.out_of(0, 3)
    assert into.dims == ("from_layer", "from_head") and into.sizes["from_layer"] == 2
    assert out.dims == ("to_layer", "to_head") and out.sizes["to_layer"] == 2
    assert float(into.sel(from_layer=0, from_head=3)) == float(out.sel(to_layer=2, to_head=1))
    with pytest.raises(InputError, match=r"There is no head 3\.0"):
        found.into(3, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "O"}, "kind is 'O'"),
        ({"qk": "both"}, "qk is 'both'"),
        ({"stack": "encoder"}, "stack is 'encoder'"),
        ({"n_random": 1}, "at least 2 pairs"),
    ],
)
def test_what_cannot_be_meant_is_refused(named: Any, unchecked: None, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interp.composition(named("llama").model, **options)


def test_one_layer_has_no_pairs() -> None:
    config = ModelConfig.decoder_only(n_layers=1, d_model=16, n_heads=2, d_vocab=10, n_ctx=8)
    with pytest.raises(InputError, match="one layer"):
        interp.composition(HookedTransformer(config))


@pytest.mark.slow
def test_the_pair_that_makes_induction_in_smollm2_stands_out(smollm2: Any) -> None:
    """Head 18.6 reads its keys from the previous-token heads."""
    into = interp.composition(smollm2, "K", folded=True).into(18, 6)
    largest = into.stack(head=("from_layer", "from_head")).sortby(lambda x: -x)[:2]
    assert {tuple(map(int, one)) for one in largest["head"].values} == {(17, 8), (16, 0)}
    assert float(largest.min()) > 3 * float(into.median())


@pytest.mark.parametrize("name", ["gemma2", "olmo2"])
@torch.no_grad()
def test_the_gain_of_an_output_norm_is_folded_into_what_is_written(name: str, named: Any) -> None:
    model = named(name).model
    found = interp.composition(model, "V", folded=True, n_random=4).to_frame()
    row = found.loc[(found["from_layer"] == 0) & (found["from_head"] == 1)]
    row = row.loc[(row["to_layer"] == 1) & (row["to_head"] == 3)]["score"].item()
    products = []
    for layer, head in ((0, 1), (1, 3)):
        block = model.main.block(layer)
        attn = block.attn
        W_V = attn.W_V[head // (attn.config.n_heads // attn.config.n_key_value_heads)].double()
        W_V = W_V * block.ln1.gain.double()[:, None] if block.config.norms == "both" else W_V
        W_O = attn.W_O[head].double()
        products.append(W_V @ (W_O * block.ln1_post.gain.double() if layer == 0 else W_O))
    expected = (products[0] @ products[1]).norm() / (products[0].norm() * products[1].norm())
    assert row == pytest.approx(float(expected), rel=1e-4)
