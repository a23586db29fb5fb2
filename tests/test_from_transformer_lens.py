"""The page for TransformerLens users says what runs; old names that are not to be had say what to type instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import interp

PAGE = Path(__file__).parents[1] / "docs" / "from_transformer_lens.md"


@pytest.mark.slow
def test_every_code_block_of_the_page_runs(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.setattr(interp, "load", lambda name: smollm2)
    before, space = torch.is_grad_enabled(), {}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), space)
    finally:
        torch.set_grad_enabled(before)
    assert all(torch.equal(one, space["same"][0]) for one in space["same"])


def test_methods_that_leave_hooks_name_the_way() -> None:
    model = interp.HookedTransformer(
        interp.ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8)
    )
    for name in ("add_hook", "reset_hooks"):
        with pytest.raises(AttributeError, match=rf"no model\.{name}.*with model\.hooks"):
            getattr(model, name)
    with pytest.raises(AttributeError, match="fold_norms"):
        model.enable_compatibility_mode()
    assert not hasattr(model, "nothing_of_the_kind")


@pytest.mark.parametrize(
    "name",
    ["QK", "OV", "hook_dict", "fold_layer_norm", "center_unembed", "input_to_embed", "all_head_labels"]  # noqa: RUF005
    + ["tokens_to_residual_directions", "accumulated_bias", "get_token_position"],
)
def test_methods_that_are_not_there_say_what_to_type_and_stand_on_the_page(name: str) -> None:
    model = interp.HookedTransformer(
        interp.ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8)
    )
    with pytest.raises(AttributeError, match=rf"no model\.{name}: .+\."):
        getattr(model, name)
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    ["stack_neuron_results", "get_neuron_results", "get_full_resid_decomposition", "compute_head_results"]  # noqa: RUF005
    + ["apply_slice_to_batch_dim", "toggle_autodiff"],
)
def test_cache_methods_that_are_not_there_say_what_to_type_and_stand_on_the_page(name: str) -> None:
    model = interp.HookedTransformer(
        interp.ModelConfig.decoder_only(n_layers=1, d_model=8, n_heads=2, d_vocab=9, n_ctx=8)
    )
    cache = model.run_with_cache(torch.tensor([[1, 2]]))[1]
    with pytest.raises(AttributeError, match=rf"no cache\.{name}: .+\."):
        getattr(cache, name)
    assert not hasattr(cache, "nothing_of_the_kind")
    assert f"`{name}" in PAGE.read_text(encoding="utf-8")
