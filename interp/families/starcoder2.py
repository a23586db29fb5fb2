"""StarCoder2: grouped queries, LayerNorms, an MLP without a gate, biases everywhere, perhaps a window."""

from __future__ import annotations

from interp.families.base import Family
from interp.families.decoders import blocks_with_windows, decoder_model, read_bias, read_sizes
from interp.families.fields import Fields, read_activation, read_rotary
from interp.families.layouts import LLAMA_LINEARS, decoder_table
from interp.model.config import BlockConfig, ModelConfig, NormConfig

__all__ = ["FAMILY"]

_ATTENTION = {hub: part for hub, part in LLAMA_LINEARS.items() if part.startswith("attn")}


# Of another model's code, in published configs: the library reads hidden_act and norm_epsilon instead.
_UNREAD = ("activation_function", "layer_norm_epsilon", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")


def _read_config(fields: Fields) -> ModelConfig:
    sizes = read_sizes(fields, n_kv=2, n_ctx=4096)
    for name, only in (("mlp_type", "default"), ("norm_type", "layer_norm"), ("scale_attn_weights", True)):
        fields.must_be(name, only)
    fields.harmless(_UNREAD)
    bias, norm = (
        read_bias(fields, "use_bias", True),
        NormConfig("layer", fields.number("norm_epsilon", 1e-5), bias=True),
    )
    act = read_activation(fields, "hidden_act", "gelu_pytorch_tanh")
    attn = sizes.attention(read_rotary(fields, sizes.d_head, sizes.n_ctx), bias=bias)
    block = BlockConfig(attn, sizes.plain(act, fields.size("intermediate_size"), bias=bias), norm)
    blocks = blocks_with_windows(block, [fields.size("sliding_window", None)] * sizes.n_layers)
    return decoder_model(fields, sizes, blocks, norm, family="starcoder2", tied=True)


FAMILY = Family(
    name="starcoder2",
    hf_model_types=("starcoder2",),
    read_config=_read_config,
    table=decoder_table(linears=_ATTENTION | {"mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}),
    refuses=("rotary scaling other than linear and llama3",),
)
