"""Weights under the hub's names: a live model of every family and what ours writes back give the same logits, as loaded
and after an edit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import InputError
from interp.families.base import families
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer
from tests.families import test_parity_encoders as encoders
from tests.families.parity import TOLERANCE, sample_tokens
from tests.families.test_parity import ROWS

DECODERS = {f"{family}-{n}": row for family, rows in ROWS.items() for n, row in enumerate(rows)}
NAMES = [*DECODERS, *encoders.CASES]
QUICK = {name for name in NAMES if name.endswith("-0") or name in (*encoders.QUICK, "mt5", "t5-1.1", "falcon-1")}
ALL = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.parity_all]) for name in NAMES]
LENIENT = {"bert-pretraining"}  # the pooler and the head of next sentences are left out
UNSTORED = {"bart-untied"}  # its shared embedding, which nothing reads


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def live_model(name: str) -> Any:
    return DECODERS[name].live() if name in DECODERS else encoders.CASES[name].live()


def fresh_like(live: Any) -> Any:
    """A model of the same class and config with other random weights."""
    torch.manual_seed(99)
    return type(live)._from_config(live.config, attn_implementation="eager").eval()


def pair_of_logits(name: str, live: Any, model: HookedTransformer) -> tuple[Tensor, Tensor]:
    if name in DECODERS:
        tokens = sample_tokens(2, live.config.vocab_size)
        return live(tokens).logits, model(tokens)
    source, decoder_input = encoders.inputs(name)
    ours = model(source) if decoder_input is None else model(source, decoder_input=decoder_input)
    return encoders.theirs(live, source, decoder_input)["logits"], ours


def written(name: str, live: Any, model: HookedTransformer) -> Any:
    """A fresh model of the library with our weights, loaded strictly where that is possible."""
    other = fresh_like(live)
    if encoders.CASES.get(name) is not None and encoders.CASES[name].own_logits:
        other.lm_head.weight = torch.nn.Parameter(torch.empty_like(other.lm_head.weight))
    result = other.load_state_dict(model.to_hf_state_dict(), strict=not {name} & (LENIENT | UNSTORED))
    assert not result.unexpected_keys
    if name in UNSTORED:
        assert result.missing_keys == ["model.shared.weight"]
    return other


def test_every_family_is_here() -> None:
    assert {family.name for family in families()} <= {name.split("-")[0] for name in QUICK}


@pytest.mark.parametrize("name", ALL)
def test_a_fresh_model_with_our_weights_gives_the_live_models_logits(name: str) -> None:
    live = live_model(name)
    other = written(name, live, interp.load(live))
    wanted, _ = pair_of_logits(name, live, interp.load(live))
    got, _ = pair_of_logits(name, other, interp.load(live))
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ALL)
def test_an_edit_of_any_weight_is_written_back_too(name: str) -> None:
    live = live_model(name)
    model = interp.load(live)
    before, _ = pair_of_logits(name, live, model)
    generator = torch.Generator().manual_seed(3)
    seen: set[int] = set()
    for parameter in model.parameters():
        if parameter.data_ptr() not in seen:
            seen.add(parameter.data_ptr())
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    theirs, ours = pair_of_logits(name, written(name, live, model), model)
    assert float((theirs - before).abs().max()) > 100 * TOLERANCE
    assert float((theirs - ours).abs().max()) <= TOLERANCE * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("name", ["gpt2-0", "bloom-0", "falcon-1", "phi3-0", "opt-0", "roberta", "bart"])
def test_what_is_written_equals_what_was_stored_but_for_padding(name: str) -> None:
    live = live_model(name)
    stored, ours = live.state_dict(), interp.load(live).to_hf_state_dict()
    assert set(ours) == set(stored)
    for key, tensor in ours.items():
        if "position" in key and name in ("opt-0", "roberta", "bart"):
            assert not tensor[:2].any() and torch.equal(tensor[2:], stored[key][2:]), key
        else:
            assert torch.equal(tensor, stored[key]), key


def test_tied_names_hold_one_tensor_and_plain_ones_share_memory_with_the_model() -> None:
    model = interp.load(live_model("llama-0"))
    tensors = model.to_hf_state_dict()
    assert tensors["model.norm.weight"].data_ptr() == model.decoder.ln_final.w.data_ptr()
    tied = interp.load(live_model("gpt2-0")).to_hf_state_dict()
    assert tied["lm_head.weight"].data_ptr() == tied["transformer.wte.weight"].data_ptr()
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_a_gguf_file_is_written_back_under_the_hubs_names(tiny_llama: Any, write_gguf: Any) -> None:
    reference = tiny_llama()
    written_back = interp.load(write_gguf(reference)).to_hf_state_dict()
    assert all(torch.equal(written_back[name], tensor) for name, tensor in reference.state_dict().items())


def test_a_model_built_by_hand_has_no_names_on_the_hub() -> None:
    model = HookedTransformer(ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=11, n_ctx=4))
    with pytest.raises(InputError, match=r"family 'custom'.*state_dict\(\)"):
        model.to_hf_state_dict()


def test_layers_that_share_a_tensor_and_came_to_differ_are_refused() -> None:
    model = interp.load(live_model("albert"))
    query = model.encoder.blocks[1].attn.q
    query.weight = torch.nn.Parameter(torch.zeros_like(query.weight))
    with pytest.raises(InputError, match=r"blocks\.0\.attn\.q\.weight and encoder\.blocks\.1\.attn\.q\.weight differ"):
        model.to_hf_state_dict()


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_embedding_that_serves_both_stacks_stays_one_tensor_or_is_refused(name: str) -> None:
    model = interp.load(live_model(name))
    assert model.encoder.embed.weight.data_ptr() == model.decoder.embed.weight.data_ptr()
    model.decoder.embed.weight = torch.nn.Parameter(torch.zeros_like(model.decoder.embed.weight))
    with pytest.raises(InputError, match=r"decoder\.embed\.weight differ, but .*shared\.weight holds them as one"):
        model.to_hf_state_dict()


def test_a_weight_without_a_name_is_refused_by_ours() -> None:
    config = ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=11, n_ctx=4, family="bert")
    with pytest.raises(InputError, match=r"no place for decoder\.blocks\.0\.attn\.k\.weight"):
        HookedTransformer(config).to_hf_state_dict()


def test_a_copy_with_folded_norms_is_written_back_where_no_bias_was_added() -> None:
    live = live_model("llama-1")
    folded = interp.fold_norms(interp.load(live))
    other = written("llama-1", live, folded)
    wanted, _ = pair_of_logits("llama-1", live, folded)
    got, _ = pair_of_logits("llama-1", other, folded)
    assert not torch.equal(got, wanted) and float((got - wanted).abs().max()) <= TOLERANCE
