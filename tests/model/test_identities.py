"""Promise 1: what the papers' equations say holds between the tensors of one pass, for every layout."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from einops import einsum, repeat
from torch import Tensor
from torch.testing import assert_close

from interp.model.config import ModelConfig, RotaryConfig, RotaryScaling
from interp.model.positions import Rows, rotary_frequencies, rotate
from interp.model.transformer import HookedTransformer
from interp.sites import Site


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    """Within tolerance × max(1, |x|); infinities must stand at the same places."""
    assert a.shape == b.shape and a.dtype == b.dtype
    assert_close(a, b, rtol=tolerance, atol=tolerance)


def _attentions(model: HookedTransformer) -> list[tuple[str, Any]]:
    """(address, module) of every attention, e.g. `decoder.blocks.0.cross_attn.`"""
    return [(module.address, module) for module in model.modules() if type(module).__name__ == "Attention"]


def _stack_of(case: Any, name: str) -> Any:
    """The module of a stack by its name in sites, where the only one has none."""
    return getattr(case.model, name) if name else case.model.only


def _everything_read(case: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """All sites as the pass itself makes them, none derived: a hook that edits nothing asks for each."""
    seen: dict[str, Tensor] = {}
    return case.hooked((None, lambda x, hook: _keep(seen, x, hook))), seen


def _keep(seen: dict[str, Tensor], x: Tensor, hook: Any) -> None:
    seen[hook.name] = x


# ---- attention ----


@torch.no_grad()
def test_the_pattern_times_the_values_is_what_heads_make(case: Any) -> None:
    _, cache = case.cached()
    for address, attn in _attentions(case.model):
        pattern, v = cache[address + "hook_pattern"], cache[address + "hook_v"]
        group = attn.config.n_heads // attn.config.n_key_value_heads
        v = repeat(v, "b k kv d -> b k (kv g) d", g=group)
        _close(einsum(pattern, v, "b h q k, b k h d -> b q h d"), cache[address + "hook_z"])


@torch.no_grad()
def test_head_results_and_bias_sum_to_what_attention_adds(case: Any) -> None:
    _, cache = case.cached()
    for address, attn in _attentions(case.model):
        result, z = cache[address + "hook_result"], cache[address + "hook_z"]
        made, factor = case.own_sum(address)
        _close((result.sum(dim=2) + attn.b_O) * factor, cache[made], 2e-5)
        _close(result, einsum(z, attn.W_O, "b q h d, h d m -> b q h m"))


@torch.no_grad()
def test_queries_keys_and_values_are_the_normed_residual_times_the_papers_weights(case: Any) -> None:
    _, cache = case.cached()
    for address, attn in _attentions(case.model):
        if not address.endswith("blocks.0.attn."):
            continue
        x = cache[f"{address[:-5]}hook_resid_pre"]
        if case.block(address + "hook_q").norms in ("pre", "both") and f"{address[:-5]}ln1.hook_normalized" in cache:
            norm = case.model.get_submodule(_module_of(case, address[:-5] + "ln1"))
            x = cache[f"{address[:-5]}ln1.hook_normalized"] * norm.gain
            x = x if norm.b is None else x + norm.b
        _close(einsum(x, attn.W_Q, "b p m, h m d -> b p h d") + attn.b_Q, cache[address + "hook_q"])
        _close(einsum(x, attn.W_K, "b p m, h m d -> b p h d") + attn.b_K, cache[address + "hook_k"])
        _close(einsum(x, attn.W_V, "b p m, h m d -> b p h d") + attn.b_V, cache[address + "hook_v"])


def _module_of(case: Any, name: str) -> str:
    """A site's address as a module's name: the only stack is called decoder or encoder there."""
    if name.startswith(("encoder.", "decoder.")):
        return name
    return ("decoder." if case.model.decoder is not None else "encoder.") + name


@torch.no_grad()
def test_scores_are_what_their_formula_makes_of_queries_and_the_keys_of_their_group(case: Any) -> None:
    _, cache = case.cached()
    for address, attn in _attentions(case.model):
        config = attn.config
        rot = "hook_rot_" if config.rotary else "hook_"
        q, k, scores = cache[f"{address}{rot}q"], cache[f"{address}{rot}k"], cache[f"{address}hook_attn_scores"]
        seen, bias = torch.isfinite(scores), _bias_by_hand(case, address, scores.shape[2])
        for head in range(config.n_heads):
            shared = head // (config.n_heads // config.n_key_value_heads)  # neighbours share, as in Llama
            if config.scoring == "dot":
                by_hand = torch.stack([a @ b.T for a, b in zip(q[:, :, head], k[:, :, shared], strict=True)])
            else:
                met = [
                    [[(a + b).tanh() for b in keys] for a in rows]
                    for rows, keys in zip(q[:, :, head], k[:, :, shared], strict=True)
                ]
                by_hand = torch.stack([torch.stack([torch.stack(row) for row in one]) for one in met]) @ attn.v_a[head]
            by_hand = by_hand * config.scale
            if config.softcap is not None:
                by_hand = config.softcap * torch.tanh(by_hand / config.softcap)
            by_hand = by_hand if bias is None else by_hand + bias[head]
            mine = seen[:, head]
            _close(scores[:, head][mine], by_hand[mine])


def _bias_by_hand(case: Any, address: str, n_pos: int) -> Tensor | None:
    """`[head q_pos k_pos]`: ALiBi for a power of two of heads, or the table at the transformers library's buckets."""
    from transformers.models.t5.modeling_t5 import T5Attention

    attn, stack = case.block(address + "hook_q").attn, _stack_of(case, Site.parse(address + "hook_q").stack)
    distance = torch.arange(n_pos)[None, :] - torch.arange(n_pos)[:, None]
    if attn.alibi is not None:
        slopes = 2.0 ** (-8 / attn.n_heads * torch.arange(1, attn.n_heads + 1))
        return attn.alibi * slopes[:, None, None] * distance
    if stack.relative is None or "cross_attn" in address:
        return None
    sizes = (stack.config.relative.n_buckets, stack.config.relative.max_distance)
    buckets = T5Attention._relative_position_bucket(distance, attn.mask == "bidirectional", *sizes)
    return stack.relative.weight[buckets].permute(2, 0, 1)


@torch.no_grad()
def test_a_query_sees_exactly_the_keys_that_its_mask_allows(case: Any) -> None:
    _, cache = case.cached()
    for address, attn in _attentions(case.model):
        config, pattern = attn.config, cache[address + "hook_pattern"]
        for q in range(pattern.shape[2]):
            for k in range(pattern.shape[3]):
                allowed = config.mask == "bidirectional" or k <= q
                if config.window is not None:
                    allowed = allowed and abs(q - k) < config.window
                assert bool((pattern[:, :, q, k] > 0).all()) == allowed, (address, q, k)
                assert bool((pattern[:, :, q, k] == 0).all()) != allowed
        scores = cache[address + "hook_attn_scores"]
        assert torch.equal(torch.isneginf(scores), pattern == 0)


@torch.no_grad()
def test_pattern_rows_sum_to_one_and_are_the_softmax_of_the_scores(case: Any) -> None:
    _, cache = case.cached()
    for address, _ in _attentions(case.model):
        pattern, scores = cache[address + "hook_pattern"], cache[address + "hook_attn_scores"]
        _close(pattern.sum(-1), torch.ones(pattern.shape[:-1], dtype=pattern.dtype))
        exp = torch.exp(scores - scores.amax(-1, keepdim=True))
        _close(pattern, exp / exp.sum(-1, keepdim=True))


@torch.no_grad()
def test_the_patterns_of_these_models_are_neither_flat_nor_one_hot(case: Any) -> None:
    """Otherwise the identities here would hold for wrong attention too."""
    _, cache = case.cached()
    for address, _ in _attentions(case.model):
        last = cache[address + "hook_pattern"][:, :, -1]
        assert 0.2 < float(last.amax(-1).mean()) < 0.97, address
        assert float((last[:, 0] - last[:, 1]).abs().mean()) > 0.02, "heads differ"


@torch.no_grad()
def test_the_fused_road_gives_what_scores_and_pattern_give(case: Any) -> None:
    logits = case()
    for names in ("hook_pattern", "hook_attn_scores"):
        eager, _ = case.cached(lambda name, names=names: name.endswith(names))
        _close(eager, logits)
    everything, _ = _everything_read(case)
    _close(everything, logits, 2e-5)


# ---- the residual stream ----


@torch.no_grad()
def test_the_residual_stream_is_a_running_sum(case: Any) -> None:
    _, cache = case.cached()
    for name, stack in case.model.cfg.stacks.items():
        prefix = f"{name}." if name else ""
        first = cache[prefix + "hook_embed"]
        if stack.learned_positions:
            first = first + cache[prefix + "hook_pos_embed"]
        assert torch.equal(_entering(_stack_of(case, name), first), cache[prefix + "blocks.0.hook_resid_pre"])
        for layer, block in enumerate(stack.blocks):
            at = f"{prefix}blocks.{layer}."
            pre, attn_out, post = (cache[at + x] for x in ("hook_resid_pre", "hook_attn_out", "hook_resid_post"))
            if block.mlp is None:
                assert torch.equal(pre + attn_out, post)
                continue
            mlp_out = cache[at + "hook_mlp_out"]
            if block.residual == "parallel":
                _close(pre + attn_out + mlp_out, post)
                assert at + "hook_resid_mid" not in case.model.sites
            else:
                mid = cache[at + "hook_resid_mid"]
                assert torch.equal(_settled(case, at + "ln1", pre + attn_out), mid)
                if block.cross_attn is not None:
                    total = mid + cache[at + "hook_cross_attn_out"]
                    mid = cache[at + "hook_resid_mid_cross"]
                    assert torch.equal(_settled(case, at + "ln2", total), mid)
                assert torch.equal(_settled(case, at + f"ln{3 if block.cross_attn else 2}", mid + mlp_out), post)
            if layer + 1 < stack.n_layers:
                assert torch.equal(post, cache[f"{prefix}blocks.{layer + 1}.hook_resid_pre"])


def _settled(case: Any, norm: str, total: Tensor) -> Tensor:
    """The sum, through the norm that stands behind it in a post-norm block."""
    if case.block(norm + ".hook_scale").norms != "post":
        return total
    module = case.model.get_submodule(_module_of(case, norm))
    return torch.nn.functional.layer_norm(total, total.shape[-1:], module.w, module.b, module.config.eps)


def _entering(stack: Any, x: Tensor) -> Tensor:
    """What stands between the embeddings and the first layer: token type 0, a norm, a projection."""
    x = x if stack.type_embed is None else x + stack.type_embed.weight[0]
    norm = stack.embed_norm
    x = x if norm is None else torch.nn.functional.layer_norm(x, x.shape[-1:], norm.w, norm.b, norm.config.eps)
    project = stack.embed_project
    return x if project is None else torch.nn.functional.linear(x, project.weight, project.bias)


@torch.no_grad()
def test_the_first_residual_is_the_embedding_of_the_tokens_at_their_positions(case: Any) -> None:
    _, cache = case.cached()
    for name, stack in case.model.cfg.stacks.items():
        module = case.model.get_submodule(name or ("decoder" if case.model.decoder is not None else "encoder"))
        tokens = case.options["decoder_input"] if name == "decoder" else case.tokens
        prefix = f"{name}." if name else ""
        assert torch.equal(cache[prefix + "hook_embed"], module.embed.weight[tokens] * stack.embed_scale)
        if stack.learned_positions:
            rows = module.pos_embed.weight[: tokens.shape[1]].expand(len(tokens), -1, -1)
            assert torch.equal(cache[prefix + "hook_pos_embed"], rows)


@torch.no_grad()
def test_normalized_is_the_centred_residual_over_its_scale(case: Any) -> None:
    """Each norm's input by hand, from the definition and not from the package's own table."""
    _, cache = case.cached()
    reads = {"ln1": "hook_resid_pre", "ln2": "hook_resid_mid", "ln3": "hook_resid_mid_cross"}
    for site in case.model.sites:
        if site.name != "hook_normalized":
            continue
        stack = case.model.cfg.stacks[site.stack]
        prefix = f"{site.stack}." if site.stack else ""
        if site.layer is None:
            norm, x = stack.final_norm, cache[f"{prefix}blocks.{stack.n_layers - 1}.hook_resid_post"]
        else:
            block = stack.blocks[site.layer]
            norm = block.norm
            at = f"{prefix}blocks.{site.layer}."
            if site.part.endswith("_post"):
                x = cache[f"{at}{site.part}.hook_in"]
            elif block.norms == "post":
                kinds = ["attn", "cross_attn", "mlp"] if block.cross_attn else ["attn", "mlp"]
                x = cache[at + reads[site.part]] + cache[f"{at}hook_{kinds[int(site.part[-1]) - 1]}_out"]
            else:
                x = cache[at + ("hook_resid_pre" if block.residual == "parallel" else reads[site.part])]
        wide = x.double()
        if norm.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        scale = (wide.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        _close(cache[site.address + "hook_scale"], scale.to(x.dtype))
        _close(cache[str(site)], (wide / scale).to(x.dtype))


@torch.no_grad()
def test_the_mlp_is_what_its_sites_say(case: Any) -> None:
    functions = {"silu": torch.nn.functional.silu, "gelu_new": _tanh_gelu}
    _, cache = case.cached()
    for module in case.model.modules():
        if type(module).__name__ not in ("GatedMLP", "PlainMLP"):
            continue
        act, at = functions[module.config.act_fn], module.address
        post = act(cache[at + "hook_pre"])
        post = post * cache[at + "hook_pre_linear"] if module.config.gated else post
        _close(cache[at + "hook_post"], post)
        made, factor = case.own_sum(at)
        _close(cache[made], (post @ module.W_out + module.b_out) * factor)
        assert (at + "hook_pre_linear" in case.model.sites) == module.config.gated


def _tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@torch.no_grad()
def test_logits_are_the_final_norm_times_the_unembedding(case: Any) -> None:
    logits, cache = case.cached()
    model, main = case.model, case.model.main
    if main.config.final_norm is None:
        x = cache[f"{case.main}blocks.{case.n_layers - 1}.hook_resid_post"]
    else:
        x = cache[f"{case.main}ln_final.hook_normalized"] * main.ln_final.gain
        x = x if main.ln_final.b is None else x + main.ln_final.b
    if (transform := model.transform) is not None:
        x = torch.nn.functional.gelu(x @ transform.dense.weight.T + transform.dense.bias)
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], transform.norm.w, transform.norm.b, 1e-5)
    expected = (x @ model.W_U + model.b_U) * model.cfg.logit_scale
    if (cap := model.cfg.logit_softcap) is not None:
        expected = cap * torch.tanh(expected / cap)
    _close(expected, logits, 2e-5)
    assert torch.equal(cache["hook_unembed"], logits)


# ---- reading ----


@torch.no_grad()
def test_what_is_derived_equals_what_the_pass_itself_makes(case: Any) -> None:
    _, cache = case.cached()
    _, seen = _everything_read(case)
    assert list(seen) == case.model.sites.names == list(cache), "and in the order of the book"
    assert {name for name in cache if name not in cache.stored} == {name for name in cache if case.is_derived(name)}, (
        "the rest is stored"
    )
    for name, value in seen.items():
        _close(cache[name], value, 3e-5)


@torch.no_grad()
def test_each_site_read_alone_equals_the_same_site_among_all(layout: Any) -> None:
    _, everything = layout.cached()
    for name in layout.model.sites.names:
        _, cache = layout.cached(name)
        assert list(cache) == cache.stored == [name]
        _close(cache[name], everything[name], 3e-5)


@torch.no_grad()
def test_the_shape_of_each_site_is_what_its_axes_say(case: Any) -> None:
    _, cache = case.cached()
    model = case.model
    for site in model.sites:
        x, stack = cache[site], model.cfg.stacks.get(site.stack) or next(iter(model.cfg.stacks.values()))
        text = case.options.get("decoder_input", case.tokens) if site.stack != "encoder" else case.tokens
        n_pos = n_keys = text.shape[1]
        if site.part == "cross_attn":
            n_keys = case.tokens.shape[1]
        block = stack.blocks[site.layer or 0]
        attn = block.cross_attn if site.part == "cross_attn" else block.attn
        sizes = {"batch": len(text), "pos": n_pos, "q_pos": n_pos, "k_pos": n_keys, "one": 1}
        sizes |= {"d_model": model.cfg.d_model, "d_vocab": model.cfg.d_vocab, "d_mlp": block.mlp and block.mlp.d_mlp}
        if site.name in ("hook_embed", "hook_pos_embed") and stack.embed_width:
            sizes["d_model"] = stack.embed_width  # before it is projected
        sizes |= {"head": attn.n_heads, "kv_head": attn.n_key_value_heads, "d_head": attn.d_head}
        assert x.shape == tuple(sizes[axis] for axis in site.axes), site
        assert x.dtype == model.dtype
        assert torch.isfinite(x).all() or site.name == "hook_attn_scores", site


@torch.no_grad()
def test_logits_of_a_causal_model_do_not_know_later_tokens(decoder: Any) -> None:
    changed = decoder.tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 3) % 50
    a, b = decoder(), decoder.model(changed)
    _close(a[:, :5], b[:, :5])
    assert (a[:, 5:] - b[:, 5:]).abs().amax() > 0.01


@torch.no_grad()
def test_positions_matter(case: Any) -> None:
    """A model that forgot its positions would pass most identities."""
    turned = case.tokens.clone()
    turned[:, [0, 1]] = turned[:, [1, 0]]
    last, last_turned = case()[:, -1], case.model(turned, **case.options)[:, -1]
    if "window" not in case.name:
        assert (last - last_turned).abs().amax() > 1e-3


# ---- rotary ----

ROTARIES = {
    "plain": RotaryConfig(8),
    "partial": RotaryConfig(4),
    "base": RotaryConfig(8, base=500.0),
    "interleaved": RotaryConfig(8, interleaved=True),
    "interleaved partial": RotaryConfig(4, interleaved=True),
    "linear": RotaryConfig(8, scaling=RotaryScaling("linear", 4.0)),
    "llama3": RotaryConfig(8, base=500_000.0, scaling=RotaryScaling("llama3", 8.0, 1.0, 4.0, 64)),
}


def _slow_rotation(x: Tensor, positions: Tensor, config: RotaryConfig) -> Tensor:
    """Each pair as one complex number times e^(i·position·frequency), one at a time, in double precision."""
    out, half = x.double().clone(), config.dim // 2
    for pair in range(half):
        i, j = (2 * pair, 2 * pair + 1) if config.interleaved else (pair, pair + half)
        frequency = _slow_frequency(pair, config)
        for row in range(x.shape[0]):
            for pos in range(x.shape[1]):
                turn = complex(math.cos(a := float(positions[row % len(positions), pos]) * frequency), math.sin(a))
                for head in range(x.shape[2]):
                    number = complex(float(x[row, pos, head, i]), float(x[row, pos, head, j])) * turn
                    out[row, pos, head, i], out[row, pos, head, j] = number.real, number.imag
    return out


def _slow_frequency(pair: int, config: RotaryConfig) -> float:
    plain, scaling = config.base ** (-2 * pair / config.dim), config.scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    wavelength = 2 * math.pi / plain
    if wavelength < scaling.original_n_ctx / scaling.high_freq_factor:
        return plain
    if wavelength > scaling.original_n_ctx / scaling.low_freq_factor:
        return plain / scaling.factor
    smooth = (scaling.original_n_ctx / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * plain / scaling.factor + smooth * plain


@pytest.mark.parametrize("kind", ROTARIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_is_multiplication_by_a_complex_number(kind: str, dtype: torch.dtype) -> None:
    config = ROTARIES[kind]
    x = torch.randn(2, 7, 3, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]).bool()
    for rows in (Rows.of(7, None, None, x.device), Rows.of(7, mask, None, x.device)):
        expected = _slow_rotation(x, rows.positions, config)
        assert_close(rotate(x, rows, config).double(), expected, rtol=1e-5, atol=2e-6)
    if config.dim < 8:
        assert torch.equal(rotate(x, rows, config)[..., config.dim :], x[..., config.dim :])


@pytest.mark.parametrize("n_ctx", [64, 8192])
def test_llama3_and_linear_frequencies_equal_the_transformers_librarys(n_ctx: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for kind, extra in (
        ("linear", {}),
        ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": n_ctx}),
    ):
        parameters = {"rope_type": kind, "factor": 8.0, "rope_theta": 500_000.0, **extra}
        theirs = LlamaConfig(
            hidden_size=256, num_attention_heads=4, rope_parameters=parameters, max_position_embeddings=8 * n_ctx
        )
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](theirs, torch.device("cpu"))
        ours = RotaryConfig(64, 500_000.0, scaling=RotaryScaling(kind, 8.0, 1.0, 4.0, n_ctx))  # type: ignore[arg-type]
        assert factor == 1.0
        assert_close(rotary_frequencies(ours), frequencies, rtol=1e-6, atol=0)
        plain = rotary_frequencies(dataclasses.replace(ours, scaling=None))
        changed = (rotary_frequencies(ours) / plain).tolist()
        assert min(changed) == pytest.approx(1 / 8)
        assert (max(changed) == pytest.approx(1)) == (kind == "llama3")


def test_scores_depend_on_the_distance_only() -> None:
    config = ROTARIES["plain"]
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(30)
    rows = Rows(positions[None], n_keys=30)
    turned_q, turned_k = (rotate(x.expand(1, 30, 1, 8), rows, config)[0, :, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in (0, 3, 11):
        along = products.diagonal(-distance)
        assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-4)


# ---- double precision ----


@torch.no_grad()
def test_in_float64_identities_hold_to_twelve_digits(configs: dict[str, ModelConfig]) -> None:
    model = HookedTransformer(configs["double"], dtype=torch.float64)
    tokens = torch.arange(7)[None] % 50
    logits, cache = model.run_with_cache(tokens)
    assert logits.dtype == torch.float64
    for layer in range(2):
        group = model.cfg.n_heads // model.cfg.n_key_value_heads
        v = cache["v", layer].repeat_interleave(group, dim=2)
        z = einsum(cache["pattern", layer], v, "b h q k, b k h d -> b q h d")
        assert_close(z, cache["z", layer], rtol=1e-12, atol=1e-12)
        assert_close(cache["result", layer].sum(2), cache["attn_out", layer], rtol=1e-12, atol=1e-12)
        x = cache["resid_mid", layer]
        scale = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        assert_close(cache["scale", layer, "ln2"], scale, rtol=1e-12, atol=1e-12)


# ---- the real model ----

TEXT = "When Mary and John went to the store, John gave a drink to"


@torch.no_grad()
def test_the_identities_hold_on_smollm2(smollm2: Any) -> None:
    tokens = smollm2.to_tokens(TEXT)
    plain = smollm2(tokens)
    logits, cache = smollm2.run_with_cache(tokens)
    assert_close(logits, plain, rtol=1e-5, atol=1e-4)
    assert smollm2.cfg.n_heads == 9 and smollm2.cfg.n_key_value_heads == 3 and smollm2.cfg.n_layers == 30
    for layer in range(30):
        v = cache["v", layer].repeat_interleave(3, dim=2)
        pattern = cache["pattern", layer]
        z = einsum(pattern, v, "b h q k, b k h d -> b q h d")
        _relative(z, cache["z", layer])
        _relative(cache["result", layer].sum(2), cache["attn_out", layer])
        assert torch.equal(cache["resid_pre", layer] + cache["attn_out", layer], cache["resid_mid", layer])
        assert torch.equal(cache["resid_mid", layer] + cache["mlp_out", layer], cache["resid_post", layer])
        assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
        _relative(cache["normalized", layer, "ln1"] * cache["scale", layer, "ln1"], cache["resid_pre", layer])


@torch.no_grad()
def test_on_smollm2_what_is_derived_equals_what_the_pass_makes(smollm2: Any) -> None:
    tokens, seen = smollm2.to_tokens(TEXT), {}
    _, cache = smollm2.run_with_cache(tokens)
    eager = smollm2.run_with_hooks(tokens, fwd_hooks=[(None, lambda x, hook: _keep(seen, x, hook))])
    _relative(eager, smollm2(tokens), 3e-5)
    assert list(seen) == list(cache)
    for name, value in seen.items():
        finite = torch.isfinite(value)
        assert torch.equal(finite, torch.isfinite(cache[name]))
        _relative(cache[name][finite], value[finite], 1e-4)


def _relative(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    """Within tolerance of the tensor's largest entry (SmolLM2's residual has entries in the hundreds)."""
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))
