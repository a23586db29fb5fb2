"""What users of TransformerLens and transformers type that is not to be had here, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterable

from interp.errors import InputError

__all__ = ["PEER_CACHE_METHODS", "PEER_METHODS", "refuse_keywords"]

# What TransformerLens users type that is not to be had here, and what to type instead.
_NO_STANDING = "hooks belong to a call or a block of calls. Use with model.hooks(fwd_hooks=[(name, fn)]):"
_NO_SWITCH = "every site can always be read and edited, so there is nothing to switch on."
_NO_FOLDING = "weights stay as the checkpoint has them. interp.fold_norms(model) returns a folded copy."
PEER_METHODS = {
    **dict.fromkeys(("add_hook", "add_perma_hook", "add_caching_hooks", "cache_some", "cache_all"), _NO_STANDING),
    **dict.fromkeys(("reset_hooks", "remove_all_hook_fns"), f"nothing is left on a model; {_NO_STANDING}"),
    **dict.fromkeys(
        ("set_use_attn_result", "set_use_split_qkv_input", "set_use_hook_mlp_in", "set_use_attn_in"), _NO_SWITCH
    ),
    **dict.fromkeys(
        ("fold_layer_norm", "center_unembed", "center_writing_weights", "fold_value_biases", "process_weights_"),
        _NO_FOLDING,
    ),
    "load_and_process_state_dict": _NO_FOLDING,
    **dict.fromkeys(("hook_dict", "mod_dict", "hook_points"), "model.sites lists every tensor, and print() its axes."),
    **dict.fromkeys(
        ("QK", "OV"),
        "take one head: interp.FactoredMatrix(model.W_V[layer, kv_head], model.W_O[layer, head]), or W_Q and W_K's .T.",
    ),
    "tokens_to_residual_directions": "they are columns of the unembedding: model.W_U[:, ids].T.",
    **dict.fromkeys(
        ("all_head_labels", "attn_head_labels"),
        "stack_head_results(return_labels=True) gives them; interp.Head spells one.",
    ),
    "all_composition_scores": "interp.composition(model, kind) scores all pairs of heads.",
    "accumulated_bias": "biases are in attn_out and mlp_out; by themselves they are model.b_O and model.b_out.",
    "get_token_position": "ask (model.to_tokens(text)[0] == model.to_single_token(word)).nonzero().",
    "input_to_embed": "model(text, stop_at_layer=0) is the first residual.",
    "enable_compatibility_mode": "names are TransformerLens' own already. interp.fold_norms(model) folds a copy.",
}

_PASS_OPTIONS = frozenset(
    ("prepend_bos", "padding_side", "attention_mask", "decoder_input", "start_at_layer", "stop_at_layer", "past_kv")
)
_KEYWORDS = f"Its keywords are return_type, {', '.join(sorted(_PASS_OPTIONS))}, and those of help(model.forward)."
# Keywords of the transformers library's calls, and what does the same here.
_PEER_KEYWORDS = {
    "input_ids": "Give the ids first: model(ids).",
    "token_type_ids": "Every token is of type 0 here; leave them out.",
    "decoder_input_ids": "Give them as decoder_input=.",
    "decoder_attention_mask": "Give decoder_input= as a list of texts, which brings its own mask, or without padding.",
    "position_ids": "Positions count the real tokens of attention_mask.",
    "inputs_embeds": "Give a residual with start_at_layer=0.",
    "past_key_values": "Go on after stored keys with model.extend(tokens, past=…), or past_kv=.",
    "labels": 'Ask for return_type="loss"; tokens= are other targets.',
    "output_attentions": "Patterns are in the cache: model.run_with_cache(…).",
    "output_hidden_states": "Residuals are in the cache: model.run_with_cache(…).",
}
_NEURONS = "neurons are cache['mlp.post', layer] times the rows of model.blocks[layer].mlp.W_out."
PEER_CACHE_METHODS = {
    **dict.fromkeys(("stack_neuron_results", "get_neuron_results", "get_full_resid_decomposition"), _NEURONS),
    "compute_head_results": "head results are computed when asked for: cache['result', layer].",
    **dict.fromkeys(
        ("apply_slice_to_batch_dim", "apply_slice_to_batch_dims"),
        "cache.slice(batch=…) returns a cache of some rows; axes stay.",
    ),
    "stack_activation": "torch.stack([cache[name, layer] for layer in range(n)]) stacks a site over the layers.",
    "logit_lens": "interp.lens(model, text) is the logit lens; accumulated_resid(apply_ln=True) its residuals.",
    "toggle_autodiff": "torch.set_grad_enabled(False), or with torch.no_grad():, does it for all of torch.",
}


def refuse_keywords(given: Iterable[str]) -> None:
    """Raise `InputError` for keywords that a call does not take; another library's lead to what does the same."""
    if unknown := [name for name in given if name not in _PASS_OPTIONS]:
        instead = [_PEER_KEYWORDS[name] for name in unknown if name in _PEER_KEYWORDS]
        raise InputError(f"A call takes no {', '.join(unknown)}. {' '.join(instead) or _KEYWORDS}")
