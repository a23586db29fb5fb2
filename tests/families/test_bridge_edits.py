"""What was edited on the parts into which a TransformerBridge splits a fused map: it is never lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import UnsupportedModelError
from tests.families.parity import Row, sample_tokens
from tests.families.test_parity import ROWS
from tests.families.test_transformer_lens import _tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peer's own

NAMES = {"gpt2": "gpt2", "gpt_neox": "neox", "bloom": "bloom", "phi3": "phi3"}
TOKENS = sample_tokens(2, 50)


def _bridge(family: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    row: Row = ROWS[family][0]
    values = {**row.values, "n_head": 6, "n_embd": 48} if family == "gpt2" else row.values
    live = Row(row.kind, values, row.head).live()
    return TransformerBridge.boot_transformers(NAMES[family], hf_model=live, tokenizer=_tokenizer())


def _part(bridge: Any, name: str) -> nn.Linear:
    """The linear map that one of the parts of the first layer's q/k/v is computed with."""
    return getattr(bridge.blocks[0].attn, name).original_component


def _swap_heads(bridge: Any) -> None:
    part, d_head = _part(bridge, "v"), bridge.cfg.d_head
    rows = torch.arange(len(part.weight))
    rows[: 2 * d_head] = rows[: 2 * d_head].roll(d_head)
    part.weight = nn.Parameter(part.weight[rows])


def _reverse_rows(bridge: Any) -> None:
    _part(bridge, "q").weight = nn.Parameter(_part(bridge, "q").weight.flip(0))


def _reverse_columns(bridge: Any) -> None:
    _part(bridge, "k").weight = nn.Parameter(_part(bridge, "k").weight.flip(1))


def _swap_rows_between(bridge: Any) -> None:
    k, v = _part(bridge, "k"), _part(bridge, "v")
    k.weight, v.weight = nn.Parameter(v.weight.clone()), nn.Parameter(k.weight.clone())


EDITS = (_swap_heads, _reverse_rows, _reverse_columns, _swap_rows_between)


@torch.no_grad()
@pytest.mark.parametrize("family", NAMES)
def test_an_unedited_bridge_loads_with_the_numbers_it_computes_with(family: str) -> None:
    bridge = _bridge(family)
    theirs: Tensor = bridge(TOKENS)
    torch.testing.assert_close(interp.load(bridge)(TOKENS), theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("family", NAMES)
def test_rearranged_parts_are_refused_though_the_numbers_are_the_same(family: str, edit: Callable[[Any], None]) -> None:
    bridge = _bridge(family)
    before = bridge(TOKENS).clone()
    edit(bridge)
    assert float((bridge(TOKENS) - before).abs().max()) > 1e-2  # the bridge computes with its parts
    with pytest.raises(UnsupportedModelError, match=r"The q, k and v of .*\.0\..*att.* were edited"):
        interp.load(bridge)


@torch.no_grad()
def test_a_bias_given_to_a_part_alone_is_refused() -> None:
    bridge = _bridge("phi3")
    _part(bridge, "v").bias = nn.Parameter(torch.ones(len(_part(bridge, "v").weight)))
    with pytest.raises(UnsupportedModelError, match="were edited"):
        interp.load(bridge)


@torch.no_grad()
def test_an_edited_half_of_a_fused_gate_is_refused() -> None:
    bridge = _bridge("phi3")
    before = bridge(TOKENS).clone()
    gate = bridge.blocks[0].mlp.gate.original_component
    gate.weight = nn.Parameter(gate.weight.flip(0))
    assert float((bridge(TOKENS) - before).abs().max()) > 1e-2
    with pytest.raises(UnsupportedModelError, match=r"The gate and in of .*\.0\.mlp .*were edited"):
        interp.load(bridge)


@torch.no_grad()
def test_an_edit_of_what_is_not_fused_is_taken() -> None:
    bridge = _bridge("gpt2")
    bridge.blocks[0].mlp.out.original_component.weight.mul_(2)
    torch.testing.assert_close(interp.load(bridge)(TOKENS), bridge(TOKENS), atol=1e-4, rtol=1e-4)
