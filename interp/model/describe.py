"""A `ModelConfig` as rows for people: sizes, positions, norms, and the kinds of layers, equal layers in one group.

What stands at its default meaning (no window, no softcap, no bias, factor 1) is left out; any other value is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from interp.model import config as c

__all__ = ["config_html", "config_name", "config_rows", "config_text"]

Rows = list[tuple[int, str, str]]  # depth, name, value


def config_rows(config: c.ModelConfig) -> Rows:
    """Depth, name and value of each row: the model, then each stack, then each group of equal layers."""
    family = "" if config.family == config.model_name else f" ({config.family})"
    sizes = f"d_model {config.d_model}, d_vocab {config.d_vocab}, n_ctx {config.n_ctx}"
    rows = [(0, "model", config.model_name + family), (0, "sizes", sizes)]
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack is not None:
            rows += _stack(name, stack)
    rows.append((0, "unembedding", _unembedding(config)))
    if config.default_prepend_bos:
        rows.append((0, "tokens", "a BOS in front of text"))
    return rows


def config_text(config: c.ModelConfig) -> str:
    rows = [("  " * depth + name, value) for depth, name, value in config_rows(config)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}".rstrip() for name, value in rows)


def config_html(config: c.ModelConfig) -> str:
    cells = (
        f'<tr><th style="text-align:left;padding-left:{depth + 0.5}em">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for depth, name, value in config_rows(config)
    )
    return f"<table>{''.join(cells)}</table>"


def config_name(config: c.ModelConfig) -> str:
    """One short line, for error messages."""
    stacks = (("encoder", config.encoder), ("decoder", config.decoder))
    layers = ", ".join(f"{name} of {stack.n_layers} layers" for name, stack in stacks if stack is not None)
    return f"ModelConfig({config.model_name!r}, {layers}, d_model={config.d_model}, d_vocab={config.d_vocab})"


def _unembedding(config: c.ModelConfig) -> str:
    if not config.has_unembed:
        return "none: no head that predicts tokens"
    found = ["tied to the embedding" if config.tie_word_embeddings else "its own"]
    if config.transform is not None:
        head = config.transform
        found.append(f"behind a linear map to {head.width}, {head.act_fn} and a norm ({_norm(head.norm)})")
    found += ["bias"] if config.bias_unembed else []
    found += [f"logits × {config.logit_scale:g}"] if config.logit_scale != 1.0 else []
    found += [f"logits softcapped at {config.logit_softcap:g}"] if config.logit_softcap is not None else []
    return ", ".join(found)


def _stack(name: str, stack: c.StackConfig) -> Rows:
    rows: Rows = [(0, name, f"{stack.n_layers} layers"), (1, "embedding", _embedding(stack))]
    groups: dict[c.BlockConfig, list[int]] = {}
    for layer, block in enumerate(stack.blocks):
        groups.setdefault(block, []).append(layer)
    for block, layers in groups.items():
        rows += [(1, _layers(layers), ""), *((2, part, value) for part, value in _block(block))]
    return [*rows, (1, "final norm", "none" if stack.final_norm is None else _norm(stack.final_norm))]


def _embedding(stack: c.StackConfig) -> str:
    found = [f"{stack.learned_positions or 'no'} learned positions"]
    found += [f"{stack.padding_positions} rows of the checkpoint's before them"] if stack.padding_positions else []
    if stack.relative is not None:
        relative = stack.relative
        found.append(f"relative positions in {relative.n_buckets} buckets up to {relative.max_distance}")
    found += [f"{stack.token_types} token types"] if stack.token_types is not None else []
    found += [f"width {stack.embed_width}"] if stack.embed_width is not None else []
    rounded = " rounded to the weights' dtype" if stack.embed_scale_rounded else ""
    found += [f"× {stack.embed_scale:g}{rounded}"] if stack.embed_scale != 1.0 or rounded else []
    found += [f"normed ({_norm(stack.embed_norm)})"] if stack.embed_norm is not None else []
    return ", ".join(found)


def _block(block: c.BlockConfig) -> list[tuple[str, str]]:
    rows = [("attention", _attention(block.attn))]
    if block.cross_attn is not None:
        rows.append(("cross-attention", _attention(block.cross_attn)))
    rows.append(("MLP", "none" if block.mlp is None else _mlp(block.mlp)))
    place = {"pre": "in front", "post": "on the residual after adding", "output": "on what is added"}
    rows.append(("norms", f"{_norm(block.norm)}, {place.get(block.norms, 'in front and on what is added')}"))
    residual = [block.residual]
    residual += ["MLP reads the norm of attention"] if block.shared_norm else []
    residual += [f"what is added × {block.residual_scale:g}"] if block.residual_scale != 1.0 else []
    return [*rows, ("residual", ", ".join(residual))]


def _attention(attn: c.AttentionConfig) -> str:
    found = [f"{attn.n_heads} heads of {attn.d_head}"]
    if attn.n_key_value_heads != attn.n_heads:
        found.append(f"{attn.n_key_value_heads} key/value heads")
    score = "q·k" if attn.scoring == "dot" else "additive scores v·tanh(q + k)"
    found += [attn.mask, *([f"window {attn.window}"] if attn.window is not None else []), f"{score} × {attn.scale:.5g}"]
    found += [_rotary(attn.rotary)] if attn.rotary is not None else []
    found += [f"ALiBi × {attn.alibi:g}"] if attn.alibi is not None else []
    found += [f"softcap {attn.softcap:g}"] if attn.softcap is not None else []
    if attn.qk_norm is not None:
        over = "each head" if attn.qk_norm_over == "head" else "all heads together"
        found.append(f"q and k normed over {over} ({_norm(attn.qk_norm)})")
    biases = [name for name, has in (("q, k and v", attn.bias_qkv), ("output", attn.bias_out)) if has]
    return ", ".join([*found, *(f"bias of {name}" for name in biases)])


def _rotary(rotary: c.RotaryConfig) -> str:
    found = f"rotary {rotary.dim} of base {rotary.base:g}{', interleaved' if rotary.interleaved else ''}"
    if rotary.scaling is None:
        return found
    scaling = rotary.scaling
    found = f"{found}, {scaling.kind} scaling ÷ {scaling.factor:g}"
    if scaling.kind == "linear":
        return found
    between = f"{scaling.low_freq_factor:g} to {scaling.high_freq_factor:g}"
    return f"{found} ({between} turns in {scaling.original_n_ctx})"


def _mlp(mlp: c.MLPConfig) -> str:
    return f"{'gated ' if mlp.gated else ''}{mlp.act_fn}, d_mlp {mlp.d_mlp}{', biases' if mlp.bias else ''}"


def _norm(norm: c.NormConfig) -> str:
    offset = f", gain + {norm.gain_offset:g}" if norm.gain_offset else ""
    return f"{norm.kind}, eps {norm.eps:g}{', bias' if norm.bias else ''}{offset}" if norm.kind != "none" else "none"


def _layers(layers: Sequence[int]) -> str:
    """`layers 0–4, 6, 8–12`; many of equal distance as `layers 0, 2, … 24`."""
    steps = {after - before for before, after in pairwise(layers)}
    if len(layers) > 3 and len(steps) == 1 and steps != {1}:
        return f"layers {layers[0]}, {layers[1]}, … {layers[-1]}"
    ranges: list[list[int]] = []
    for layer in layers:
        if ranges and ranges[-1][1] == layer - 1:
            ranges[-1][1] = layer
        else:
            ranges.append([layer, layer])
    spelled = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in ranges)
    return f"layer {spelled}" if len(layers) == 1 else f"layers {spelled}"
