"""Parts of an attention score sum to the score that the model has, for every layout and every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.circuits.explain import explain_attention, trace_edge
from interp.families.base import families
from interp.model.transformer import HookedTransformer
from tests.families.parity import sample_tokens
from tests.families.test_parity import ROWS, VOCABULARY
from tests.families.test_parity_encoders import QUICK, words
from tests.model.conftest import ZOO, ids, randomize

RELATIVE, EXACT = 1e-5, 1e-10


def heads_of(model: HookedTransformer) -> list[str]:
    """One head of each kind of attention, in the last layer."""
    if model.encoder is None or model.decoder is None:
        return [f"{model.main.config.n_layers - 1}.1"]
    last = {"encoder": model.encoder.config.n_layers - 1, "decoder": model.decoder.config.n_layers - 1}
    kinds = ("encoder.attn", "decoder.attn", "decoder.cross_attn")
    return [f"{kind}.{last[kind.split('.')[0]]}.1" for kind in kinds]


def apart(model: HookedTransformer, tokens: Tensor, decoder_input: Tensor | None, view: str = "head") -> float:
    """The largest difference between sums of parts and the pass's own scores, over kinds of attention."""
    options: dict[str, Any] = {} if decoder_input is None else {"decoder_input": decoder_input}
    found = [explain_attention(model, tokens, head, 5, 4, view=view, **options) for head in heads_of(model)]
    return max(one.about["sum_apart"] for one in found)


def two_texts(name: str) -> dict[str, Tensor]:
    cfg = ZOO[name]
    return {"decoder_input": ids(1, 7, 3)} if cfg.encoder is not None and cfg.decoder is not None else {}


@pytest.mark.parametrize("name", [name for name in ZOO if not name.startswith("additive")])  # no product: refused
def test_parts_sum_to_the_score_in_every_layout(name: str) -> None:
    texts = two_texts(name).get("decoder_input")
    model = randomize(HookedTransformer(ZOO[name]))
    assert apart(model, ids(1, 9), texts, "layer") <= RELATIVE
    assert apart(model.double(), ids(1, 9), texts, "layer") <= EXACT


@pytest.mark.parametrize("name", ["llama", "gemma2", "bart", "mpnet", "bloom"])
@torch.no_grad()
def test_the_score_that_the_sum_is_compared_with_is_the_models_own(name: str) -> None:
    model = randomize(HookedTransformer(ZOO[name], dtype=torch.float64))
    for head in heads_of(model):
        edge = trace_edge(model, ids(1, 9), head, 5, 4, **two_texts(name))
        found = explain_attention(model, ids(1, 9), head, 5, 4, view="head", **two_texts(name))
        total, cap = torch.tensor(found.total("score"), dtype=torch.float64), edge.place.attn.config.softcap
        total = total if cap is None else cap * torch.tanh(total / cap)
        _, cache = model.run_with_cache(ids(1, 9), return_type=None, **two_texts(name))
        own = cache[f"{edge.place.site}hook_attn_scores"][0, 1, 5, 4]
        assert float(total) == pytest.approx(float(own), rel=EXACT)
        for side, sums in (("query", found.by_query()), ("key", found.by_key())):
            whole = float(sums.sum()) + found.position_bias["contrast"]
            assert whole == pytest.approx(found.total(), abs=1e-9), side
            table = found.marginals()
            assert table.loc[table["side"] == side, "part"].sum() == pytest.approx(found.total(), abs=1e-9)
        assert found.to_frame()["part"].sum() == pytest.approx(found.total(), abs=1e-9)


@pytest.mark.parametrize("family", ROWS)
def test_parts_sum_to_the_score_in_every_decoder_family(family: str) -> None:
    model = interp.load(ROWS[family][0].live())
    tokens = sample_tokens(1, VOCABULARY)
    assert apart(model, tokens, None) <= RELATIVE
    assert apart(model.double(), tokens, None) <= EXACT


@pytest.mark.parametrize("family", QUICK)
def test_parts_sum_to_the_score_in_every_encoder_family(family: str) -> None:
    case = QUICK[family]
    model = interp.load(case.live())
    decoder_input = words(1, 7, seed=1) if case.two_stacks else None
    assert apart(model, words(1, 9), decoder_input) <= RELATIVE
    assert apart(model.double(), words(1, 9), decoder_input) <= EXACT


def test_each_family_of_the_package_is_tried() -> None:
    known = {family.name for family in families()}
    assert len(known) > 20 and known <= {*ROWS, *QUICK, "mt5"}, "a family without a row here (mT5 is T5 by layout)"


FROZEN = ["llama", "gpt2", "granite", "gemma2", "bert", "mpnet", "bloom", "softcap", "encoder"]


@pytest.mark.parametrize("name", FROZEN)
def test_a_querys_part_is_what_the_score_loses_with_the_source_and_frozen_norms(name: str) -> None:
    """Take what layer 0's attention added out of the query's residual, hold all later outputs and scales."""
    model = randomize(HookedTransformer(ZOO[name], dtype=torch.float64))
    tokens, query, key = ids(1, 9), 6, 4
    held = [site for site in model.sites.names if site.startswith("blocks.0") or site.startswith("blocks.1.ln1")]
    held = [site for site in held if site.endswith(("hook_scale", "hook_mlp_out"))]
    _, cache = model.run_with_cache(tokens)
    block = model.main.block(0)
    made = cache["blocks.0.attn.hook_result"][0, query].sum(0).detach()
    found = explain_attention(model, tokens, "1.2", query, key)
    if block.config.norms in ("output", "both"):
        made = made / cache["blocks.0.ln1_post.hook_scale"][0, query] * block.ln1_post.gain.detach()
    made = made * block.config.residual_scale
    hooks: list[Any] = [(site, lambda x, hook: cache[hook.name].clone()) for site in held]

    def less(x: Tensor, hook: Any) -> Tensor:
        x[0, query] -= made
        return x

    hooks.append(("blocks.0.hook_attn_out", less))
    qs: dict[str, Tensor] = {}
    for site in ("hook_q", "hook_rot_q"):
        if f"blocks.1.attn.{site}" in model.sites.names:
            hooks.append((f"blocks.1.attn.{site}", lambda x, hook: qs.__setitem__(hook.name, x.clone())))
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=hooks, return_type=None)
    last = list(qs)[-1]
    config = model.main.config.blocks[1].attn
    keys = cache[last.replace("_q", "_k")][0, key, 2 // (config.n_heads // config.n_key_value_heads)].detach()
    lost = float((cache[last][0, query, 2].detach() - qs[last][0, query, 2]) @ keys) * config.scale
    part = float(found.by_query("score").sel(query_source="0_attn_out"))
    assert part == pytest.approx(lost, rel=1e-9)
    assert abs(part) > 1e-3
