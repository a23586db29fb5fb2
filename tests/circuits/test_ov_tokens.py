"""The tokens that a head promotes, suppresses and reads, against a slow way over whole matrices and edited passes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import interp
from interp.model.transformer import HookedTransformer
from tests.circuits.layouts import double, rows
from tests.model.conftest import _one_thread

__all__ = ["_one_thread"]

NAMES = ["llama", "gpt2", "gemma2", "granite", "bloom", "gptj", "softcap"]
TOKENS = torch.tensor(rows([6], 1))


def normed(model: HookedTransformer, resid: Tensor) -> Tensor:
    """What heads of layer 1 read, by the block's own norm."""
    found: dict[str, Tensor] = {}
    block = model.main.block(1)
    if block.config.norms not in ("pre", "both"):
        return resid
    gain, bias = block.ln1.gain, block.ln1.b
    centred = resid - resid.mean(-1, keepdim=True) if block.ln1.config.kind == "layer" else resid
    found["x"] = centred / (centred.pow(2).mean(-1, keepdim=True) + block.ln1.config.eps).sqrt() * gain
    return found["x"] if bias is None else found["x"] + bias


def unembedded(model: HookedTransformer, written: Tensor) -> Tensor:
    """Direct logits less their mean, through the output norm's gain and the final norm's, all scales 1."""
    block, final = model.main.block(1), model.main.ln_final
    if block.config.norms in ("output", "both"):
        written = written * block.ln1_post.gain
    written = written * block.config.residual_scale
    written = written - written.mean(-1, keepdim=True) if final.config.kind == "layer" else written
    logits = (written * final.gain) @ model.W_U * model.cfg.logit_scale
    return logits - logits.mean(-1, keepdim=True)


def by_hand(model: HookedTransformer, resid: Tensor, head: int) -> Tensor:
    attn = model.main.block(1).attn
    kv = head // (attn.config.n_heads // attn.config.n_key_value_heads)
    return unembedded(model, normed(model, resid) @ attn.W_V[kv] @ attn.W_O[head])


def shown(table: pd.DataFrame, logits: Tensor) -> None:
    """Both sides of a table are the largest and the smallest logits, in order."""
    for side, largest in (("promoted", True), ("suppressed", False)):
        rows = table.loc[table["side"] == side]
        best = logits.topk(len(rows), largest=largest)
        assert rows["id"].tolist() == best.indices.tolist() and rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert rows["logit"].to_numpy() == pytest.approx(best.values.numpy(), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_tokens_of_a_real_residual(name: str) -> None:
    model = double(name)
    _, cache = model.run_with_cache(TOKENS)
    for head in (0, 3):
        logits = by_hand(model, cache["resid_pre", 1][0, 2], head)
        shown(interp.ov(model, f"1.{head}").tokens(TOKENS, 2, k=5).frame, logits)


def context_free(model: HookedTransformer, token: int) -> Tensor:
    """The residual behind layer 0 of a pass where attention and learned positions add nothing."""

    def nothing(x: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(x)

    sites = [one for one in ("blocks.0.hook_attn_out", "hook_pos_embed") if one in model.sites.names]
    found: dict[str, Tensor] = {}

    def take(x: Tensor, hook: Any) -> None:
        found["x"] = x[0, 0].clone()

    hooks: list[Any] = [(one, nothing) for one in sites]
    model.run_with_hooks(torch.tensor([[token]]), fwd_hooks=[*hooks, ("blocks.1.hook_resid_pre", take)])
    return found["x"]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_tokens_of_an_input_token_and_of_the_mean_one(name: str) -> None:
    model = double(name)
    every = torch.stack([by_hand(model, context_free(model, token), 2) for token in range(model.cfg.d_vocab)])
    head = interp.ov(model, "1.2")
    shown(head.token(7, k=5).frame, every[7])
    shown(head.whole(k=5, n=None).frame, every.mean(0))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@torch.no_grad()
def test_singular_directions_read_tokens_behind_the_norms_gain_and_centring(name: str) -> None:
    model = double(name)
    attn, norm = model.main.block(1).attn, model.main.block(1).ln1
    embed = model.main.embed.weight * model.main.config.embed_scale
    assert model.main.embed_norm is None
    embed = embed - embed.mean(-1, keepdim=True) if norm.config.kind == "layer" else embed
    group = attn.config.n_heads // attn.config.n_key_value_heads
    u, s, vh = torch.linalg.svd(attn.W_V[2 // group] @ attn.W_O[2])
    table = interp.ov(model, "1.2").svd(n=2, k=4).frame
    for i in range(2):
        mine = table.loc[table["direction"] == i]
        assert mine["singular_value"].tolist() == pytest.approx([float(s[i])] * 2)
        for column, along in (("reads", (embed * norm.gain) @ u[:, i]), ("writes", unembedded(model, vh[i]))):
            either = {tuple(f"'{one}'" for one in (sign * along).topk(4).indices.tolist()) for sign in (1, -1)}
            assert {tuple(one.split(" ")) for one in mine[column]} == either, column


def test_eigenvalues_that_turn_count_for_less() -> None:
    from interp.circuits.copying import eigenvalue_score

    turning = torch.tensor([2 + 1j, 2 - 1j])
    assert float(eigenvalue_score(turning)) == pytest.approx(2 / 5**0.5)
    assert float(eigenvalue_score(torch.tensor([3 + 0j, -1 + 0j]))) == pytest.approx(0.5)
