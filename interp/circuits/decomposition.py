"""The residual stream as stacks of what was added to it, and what each part adds to the logits directly.

Names, arguments and labels are those of TransformerLens' ActivationCache, whose methods of these names lead here. Parts
sum to the residual exactly: weights are the checkpoint's own, so biases are in `attn_out` and `mlp_out` (for heads, in
the remainder), and gains of norms are applied where a norm is. Stacks have a leading `part` axis.

`layer` counts what enters that layer; None, -1 and n_layers mean what the final norm reads. `pos_slice` keeps some
positions; an int takes its axis away. In a model with two stacks all of this is about the decoder, unless
`stack="encoder"` is said.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.direct import effective_unembedding, final_scale
from interp.errors import InputError
from interp.model.cache import ActivationCache, PosSlice
from interp.model.config import BlockConfig, NormConfig
from interp.model.norms import Norm, norm_scale
from interp.model.stack import Stack
from interp.model.transformer import HookedTransformer

__all__ = ["accumulated_resid", "apply_ln_to_stack", "decompose_resid", "logit_attrs", "logit_bias"]
__all__ += ["stack_head_results"]

Parts = Float[Tensor, "part *batch_pos d_model"]
Labelled = Parts | tuple[Parts, list[str]]
Tokens = str | int | Int[Tensor, "..."]  # one, one per prompt, or one per prompt and position


def accumulated_resid(
    cache: ActivationCache,
    layer: int | None = None,
    *,
    incl_mid: bool = False,
    apply_ln: bool = False,
    pos_slice: PosSlice = None,
    mlp_input: bool = False,
    return_labels: bool = False,
    stack: str | None = None,
) -> Labelled:
    """The residual stream entering each layer up to `layer`, and after the last one (labels `0_pre`, …, `final_post`).

    `incl_mid` adds the cuts inside the layers that have any. `apply_ln` norms each: up to the unembedding by the real
    final norm of each, so that `@ model.W_U + model.b_U` is the logit lens (nostalgebraist 2020); else as
    `apply_ln_to_stack` does.
    """
    of = _stack(cache, stack)
    last = _layer(of, layer, mlp_input)
    parts, labels = [], []
    for at in range(last + 1):
        if at == of.config.n_layers:
            parts, labels = [*parts, _read(cache, of, at - 1, "hook_resid_post", pos_slice)], [*labels, "final_post"]
            continue
        cuts = {"pre": "hook_resid_pre"}
        if (incl_mid and at < last) or (mlp_input and at == last):
            cuts |= _middles(of.config.blocks[at])
        parts += [_read(cache, of, at, name, pos_slice) for name in cuts.values()]
        labels += [f"{at}_{cut}" for cut in cuts]
    stacked = torch.stack(parts)
    if apply_ln and last == of.config.n_layers:
        stacked = _normed_afresh(of.ln_final, stacked)
    elif apply_ln:
        stacked = apply_ln_to_stack(cache, stacked, last, mlp_input=mlp_input, pos_slice=pos_slice, stack=stack)
    return (stacked, labels) if return_labels else stacked


def decompose_resid(
    cache: ActivationCache,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    mode: str = "all",
    apply_ln: bool = False,
    pos_slice: PosSlice = None,
    incl_embeds: bool = True,
    return_labels: bool = False,
    stack: str | None = None,
) -> Labelled:
    """What was added to the residual stream before `layer`: embeddings, then each sublayer's output. They sum to it.

    Labels are `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, …; where the embeddings are normed or projected
    together, `embed` is the first residual. Raises `InputError` for models that norm the residual stream itself (BERT,
    BART): theirs is no sum.
    """
    if mode not in ("all", "mlp", "attn"):
        raise InputError(f'mode is {mode!r}. Choose "all", "mlp" or "attn".')
    of = _stack(cache, stack)
    last = _layer(of, layer, mlp_input)
    _must_be_a_sum(of)
    parts: list[Tensor] = []
    labels: list[str] = []
    for label, read in _embeddings(of).items() if incl_embeds else ():
        parts, labels = [*parts, _at(cache[read], pos_slice, -2)], [*labels, label]
    for at in range(last + 1 if mlp_input else last):
        for sublayer in _sublayers(of.config.blocks[at]):
            before_mlp = at < last or sublayer != "mlp"
            if before_mlp and mode in ("all", sublayer.removeprefix("cross_")):
                parts.append(_read(cache, of, at, f"hook_{sublayer}_out", pos_slice))
                labels.append(f"{at}_{sublayer}_out")
    stacked = torch.stack(parts) if parts else _no_parts(cache, of, pos_slice)
    if apply_ln:
        stacked = apply_ln_to_stack(cache, stacked, last, mlp_input=mlp_input, pos_slice=pos_slice, stack=stack)
    return (stacked, labels) if return_labels else stacked


def stack_head_results(
    cache: ActivationCache,
    layer: int | None = None,
    *,
    return_labels: bool = False,
    incl_remainder: bool = False,
    pos_slice: PosSlice = None,
    apply_ln: bool = False,
    stack: str | None = None,
) -> Labelled:
    """What each head of self-attention in the layers before `layer` added to the residual stream (labels `L0H0`, …).

    Behind a sublayer's output norm (Gemma 2, OLMo 2), its scale is frozen, so heads still sum to what attention adds,
    but for the biases. `incl_remainder` adds the rest of the residual as a last part. Where the residual stream itself
    is normed (BERT, BART) these are what heads added before it was; there is no remainder and no `apply_ln`.
    """
    of = _stack(cache, stack)
    last = _layer(of, layer, False)
    parts, labels = [], []
    for at in range(last):
        results = _written(cache, of, at)
        parts += [_at(head, pos_slice, -2) for head in results.unbind(-2)]
        labels += [f"L{at}H{head}" for head in range(results.shape[-2])]
    stacked = torch.stack(parts) if parts else _no_parts(cache, of, pos_slice)
    if incl_remainder:
        _must_be_a_sum(of)
        whole = _entering(cache, of, last, pos_slice)
        stacked, labels = torch.cat([stacked, (whole - stacked.sum(0))[None]]), [*labels, "remainder"]
    if apply_ln:
        _must_be_a_sum(of)
        stacked = apply_ln_to_stack(cache, stacked, last, pos_slice=pos_slice, stack=stack)
    return (stacked, labels) if return_labels else stacked


def apply_ln_to_stack(
    cache: ActivationCache,
    residual_stack: Parts,
    layer: int | None = None,
    *,
    mlp_input: bool = False,
    pos_slice: PosSlice = None,
    stack: str | None = None,
) -> Parts:
    """Each part as the norm in front of `layer` passes it on: over the scale of the whole residual, times the gain.

    With the norm's bias, the parts of a whole residual sum to what the norm gave. `pos_slice` says which positions the
    stack has. A layer without a norm in front leaves parts as they are.
    """
    of = _stack(cache, stack)
    last = _layer(of, layer, mlp_input)
    if last == of.config.n_layers:
        return _through(of.ln_final, residual_stack, _at(_final_scale(cache, of), pos_slice, -2))
    block = of.config.blocks[last]
    if block.norms not in ("pre", "both"):
        return residual_stack
    name = f"ln{len(_sublayers(block))}" if mlp_input else "ln1"
    norm = getattr(of.block(last), name)
    if norm.config.kind == "none":
        return residual_stack
    return _through(norm, residual_stack, _read(cache, of, last, f"{name}.hook_scale", pos_slice))


def logit_attrs(
    cache: ActivationCache,
    residual_stack: Parts,
    tokens: Tokens,
    incorrect_tokens: Tokens | None = None,
    *,
    pos_slice: PosSlice = None,
) -> Float[Tensor, "part *batch_pos"]:
    """What each part adds to the logit of `tokens`, or to its difference from that of `incorrect_tokens`.

    A token is a string, an id, or a tensor `[batch]` or `[batch pos]`. The final norm's scale is frozen and its gain
    applied, so the parts of a whole residual and `logit_bias` sum to the logit (before a softcap, where the model has
    one). Direct effects only: later layers may undo or repeat them. `pos_slice` says which positions the stack has.
    """
    model = _model(cache)
    if model.transform is not None:
        raise InputError(
            f"{model.cfg.model_name} has a nonlinear head before its unembedding, so parts of the residual have no "
            "logits of their own. Patch them instead: interp.patch."
        )
    scale = _at(_final_scale(cache, model.main), pos_slice, -2)
    parts = _centred(residual_stack, model.main.ln_final.config)
    directions = _directions(cache, tokens, incorrect_tokens)
    while 1 < directions.ndim < scale.ndim:
        directions = directions.unsqueeze(-2)  # one token per prompt, at every position
    _must_fit(directions, residual_stack)
    return (parts / scale * directions).sum(-1)


def logit_bias(cache: ActivationCache, tokens: Tokens, incorrect_tokens: Tokens | None = None) -> Float[Tensor, "..."]:
    """What no part of the residual accounts for: the biases of the final norm and of the unembedding."""
    model = _model(cache)
    norm_bias = getattr(model.main.ln_final, "b", None)
    bias = model.b_U.detach() if norm_bias is None else (norm_bias @ model.W_U + model.b_U).detach()
    bias = bias * model.cfg.logit_scale
    value = bias[_ids(model, tokens)]
    return value if incorrect_tokens is None else value - bias[_ids(model, incorrect_tokens)]


def _model(cache: ActivationCache) -> HookedTransformer:
    return cache.model


def _stack(cache: ActivationCache, name: str | None = None) -> Stack:
    """The stack of this name; None is the one whose text is predicted."""
    model = _model(cache)
    if name is None:
        return model.main
    found = {"encoder": model.encoder, "decoder": model.decoder}.get(name)
    if found is None:
        held = [one for one in ("encoder", "decoder") if getattr(model, one) is not None]
        raise InputError(f"stack is {name!r}; this model has {' and '.join(held)}. None is the {held[-1]}.")
    return found


def _layer(stack: Stack, layer: int | None, mlp_input: bool) -> int:
    """The layer meant, from 0 to n_layers; with `mlp_input` it must have an MLP that reads its own residual."""
    blocks = stack.config.blocks
    found = len(blocks) if layer is None or layer == -1 else layer
    if not 0 <= found <= len(blocks):
        raise InputError(f"layer is {layer}. Give 0 to {len(blocks)}; None is {len(blocks)}, the end.")
    if mlp_input and (found == len(blocks) or not _middles(blocks[found])):
        raise InputError(f"Layer {found} has no MLP on a residual of its own. Leave mlp_input out.")
    return found


def _middles(block: BlockConfig) -> dict[str, str]:
    """The cuts inside a layer: none in parallel blocks and without an MLP."""
    if block.mlp is None or block.residual == "parallel":
        return {}
    cross = {"mid_cross": "hook_resid_mid_cross"} if block.cross_attn is not None else {}
    return {"mid": "hook_resid_mid", **cross}


def _sublayers(block: BlockConfig) -> tuple[str, ...]:
    cross = ("cross_attn",) if block.cross_attn is not None else ()
    return ("attn", *cross, *(("mlp",) if block.mlp is not None else ()))


def _must_be_a_sum(stack: Stack) -> None:
    if any(block.norms == "post" for block in stack.config.blocks):
        raise InputError(
            "This model norms the residual stream itself after each sublayer, so it is no sum of their outputs. "
            "accumulated_resid still reads it; interp.patch measures what a sublayer does."
        )


def _embeddings(stack: Stack) -> dict[str, str]:
    """Label -> address of what the first residual is the sum of."""
    config = stack.config
    if config.embed_norm is not None or config.embed_width is not None or config.token_types:
        return {"embed": f"{stack.address}blocks.0.hook_resid_pre"}
    learned = {"pos_embed": f"{stack.address}hook_pos_embed"} if config.learned_positions else {}
    return {"embed": f"{stack.address}hook_embed", **learned}


def _entering(cache: ActivationCache, stack: Stack, layer: int, pos_slice: PosSlice) -> Tensor:
    if layer == stack.config.n_layers:
        return _read(cache, stack, layer - 1, "hook_resid_post", pos_slice)
    return _read(cache, stack, layer, "hook_resid_pre", pos_slice)


def _read(cache: ActivationCache, stack: Stack, layer: int, path: str, pos_slice: PosSlice) -> Tensor:
    return _at(cache[f"{stack.address}blocks.{layer}.{path}"], pos_slice, -2)


def _at(x: Tensor, pos_slice: PosSlice, axis: int) -> Tensor:
    """Some positions of x; an int takes the axis away."""
    if pos_slice is None:
        return x
    n_pos = x.shape[axis]
    chosen = torch.arange(n_pos, device=x.device)
    if isinstance(pos_slice, slice):
        return x.index_select(axis, chosen[pos_slice])
    asked = [pos_slice] if isinstance(pos_slice, int) else [int(one) for one in pos_slice]
    if any(not -n_pos <= one < n_pos for one in asked):
        raise InputError(f"pos_slice is {pos_slice!r}; there are positions 0 to {n_pos - 1}.")
    kept = x.index_select(axis, chosen[asked])
    return kept.squeeze(axis) if isinstance(pos_slice, int) else kept


def _no_parts(cache: ActivationCache, stack: Stack, pos_slice: PosSlice) -> Tensor:
    return torch.stack([_entering(cache, stack, stack.config.n_layers, pos_slice)])[:0]


def _written(cache: ActivationCache, stack: Stack, layer: int) -> Tensor:
    """What each head adds `[… head d_model]`, through the output norm at its frozen scale where there is one."""
    block, address = stack.config.blocks[layer], f"{stack.address}blocks.{layer}."
    results = cache[f"{address}attn.hook_result"]
    if block.norms in ("output", "both") and block.norm.kind != "none":
        scale = cache[f"{address}ln1_post.hook_scale"]
        results = _through(stack.block(layer).ln1_post, results, scale.unsqueeze(-2))  # type: ignore[arg-type]
    return results if block.residual_scale == 1.0 else results * block.residual_scale


def _through(norm: Any, parts: Tensor, scale: Tensor) -> Tensor:
    """A norm without its bias, over a given scale: linear in the parts."""
    if norm.config.kind == "none":
        return parts
    return (_centred(parts, norm.config) / scale * norm.gain.detach()).to(parts.dtype)


def _centred(parts: Tensor, config: NormConfig) -> Tensor:
    return parts - parts.mean(-1, keepdim=True) if config.kind == "layer" else parts


def _normed_afresh(norm: Norm, parts: Tensor) -> Tensor:
    from interp.model.taps import NO_TAPS

    with torch.no_grad():
        return norm(parts, NO_TAPS)


def _final_scale(cache: ActivationCache, stack: Stack) -> Tensor:
    """What the pass divided its last residual by: as it was read, where an edit may have set it."""
    address = f"{stack.address}ln_final.hook_scale"
    if address in cache:
        return cache[address]
    resid = cache[f"{stack.address}blocks.{stack.config.n_layers - 1}.hook_resid_post"]
    return (
        final_scale(_model(cache), resid) if stack is _model(cache).main else norm_scale(resid, stack.ln_final.config)
    )


def _ids(model: HookedTransformer, tokens: Tokens) -> Tensor:
    ids = model.to_single_token(tokens) if isinstance(tokens, str) else tokens
    found = torch.as_tensor(ids, device=model.device)
    if found.is_floating_point() or bool(((found < 0) | (found >= model.cfg.d_vocab)).any()):
        raise InputError(f"tokens must be ids from 0 to {model.cfg.d_vocab - 1}; got {tokens!r}.")
    return found


def _directions(cache: ActivationCache, tokens: Tokens, incorrect: Tokens | None) -> Tensor:
    """The direction of the normed, centred residual that raises a token's logit, per token given."""
    model = _model(cache)
    right = _ids(model, tokens)
    wrong = None if incorrect is None else _ids(model, incorrect)
    if wrong is not None and wrong.shape != right.shape:
        raise InputError(f"tokens have shape {tuple(right.shape)}, incorrect_tokens {tuple(wrong.shape)}. Match them.")
    found = _unembedded(model, right)
    return found if wrong is None else found - _unembedded(model, wrong)


def _unembedded(model: HookedTransformer, ids: Tensor) -> Tensor:
    return effective_unembedding(model, ids.flatten()).detach().T.reshape(*ids.shape, -1)


def _must_fit(directions: Tensor, parts: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(directions.shape, parts.shape[1:]) == parts.shape[1:]
    except RuntimeError:
        fits = False
    if not fits:
        raise InputError(
            f"tokens of shape {tuple(directions.shape[:-1])} do not fit a stack of {tuple(parts.shape[1:-1])}. "
            "Give one token, one per prompt, or one per prompt and position."
        )
