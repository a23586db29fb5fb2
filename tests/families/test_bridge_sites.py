"""Every name of a bridge that a model knows means the same numbers, in every family; what differs is listed here and in
docs/from_transformer_lens.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

import interp
from interp.errors import UnknownSiteError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peer's own

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BOTH = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "BertConfig", SIZES),
    "bart": ("BartForConditionalGeneration", "BartConfig", BOTH),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 50,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 8}),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gptj": (
        "GPTJForCausalLM",
        "GPTJConfig",
        {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": 50,
            "hidden_size": 32,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "num_heads": 4,
        },
    ),
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 50,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "ffn_dim": 48,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", SIZES),
    "falcon": (
        "FalconForCausalLM",
        "FalconConfig",
        {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 8}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, "head_dim": 8}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    "granite": (
        "GraniteForCausalLM",
        "GraniteConfig",
        {**GROUPED, "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_multiplier": 0.3},
    ),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", GROUPED),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", GROUPED),
    "mistral": ("MistralForCausalLM", "MistralConfig", GROUPED),
    "phi": ("PhiForCausalLM", "PhiConfig", SIZES),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", GROUPED),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", {**SIZES, "max_position_embeddings": 66}),
    "marian": ("MarianMTModel", "MarianConfig", BOTH),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", BOTH),
}
QUICK = ("bert", "bart", "t5", "gemma2", "bloom")
# Canonical names that mean another tensor in the bridge: the page's table "Tensors that carry another value".
_SCORES = r"attn\.hook_attn_scores"
_NORMED_STREAM = r"^hook_embed$|hook_resid_mid$"
DIFFER: dict[str, str] = {
    "bert": rf"{_SCORES}|{_NORMED_STREAM}|hook_attn_out$",
    "roberta": rf"{_SCORES}|{_NORMED_STREAM}|hook_attn_out$",
    "bart": rf"{_SCORES}|{_NORMED_STREAM}",
    "marian": rf"{_SCORES}|{_NORMED_STREAM}",
    "pegasus": _SCORES,
    "t5": r"ln\w+\.hook_scale|ln\w+\.hook_normalized",
    "gemma2": r"^hook_unembed$",
    "bloom": rf"{_SCORES}|^hook_embed$",
    "gptj": _SCORES,
    "gpt_neo": _SCORES,
    "opt": _SCORES,
    "granite": r"^hook_unembed$",
}
# Inputs and outputs of single modules, and tables: the page's list of names without a counterpart.
NO_SITE = re.compile(
    r"rotary_emb|hook_(cos|sin|hidden_states|mlp_in)$|_norm(ed)?\b|token_type_embed|mlm_head|embed(_ln)?\.hook|_ln\.hook"
    r"|attn\.hook_in$|(\.|^)([qkv]|mlp|in|gate|unembed)\.hook_in$|ln\w+\.hook_(in|out)$|pos_embed$|^hook_embed$"
    r"|attn\.(\w\.)?hook_out$|mlp\.(out\.)?hook_out$|^ln_final\.|^unembed\.hook_out$"
)
TOKENS = torch.randint(5, 50, (2, 9), generator=torch.Generator().manual_seed(1))


def _bridge(kind: str) -> Any:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    head, config, sizes = KINDS[kind]
    torch.manual_seed(0)
    live = getattr(transformers, head)(getattr(transformers, config)(**sizes)).eval()
    for parameter in live.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3 + (1.0 if parameter.ndim == 1 else 0.0)
    live.tie_weights()
    live.config.architectures = [head]
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(50)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="w1", eos_token="w2", pad_token="w3", unk_token="w0"
    )
    tokenizer.init_kwargs.update(name_or_path="tiny", add_bos_token=True)
    return TransformerBridge.boot_transformers(kind, hf_model=live, tokenizer=tokenizer)


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    if theirs.numel() == ours.numel():
        theirs = theirs.reshape(ours.shape)
    seen = torch.isfinite(ours) & (ours > -1e9) & torch.isfinite(theirs)  # each marks what is masked in its own way
    return torch.allclose(ours[seen], theirs.expand(ours.shape)[seen], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.parity_all) for kind in KINDS]
)
@torch.no_grad()
def test_every_name_of_a_bridge_means_the_same_numbers_or_is_listed(kind: str) -> None:
    bridge = _bridge(kind)
    model = interp.load(bridge)
    decoder = {"decoder_input": TOKENS[:, :4]} if len(model.cfg.stacks) > 1 else {}
    theirs_out, theirs = bridge.run_with_cache(TOKENS, **decoder)
    ours_out, ours = model.run_with_cache(TOKENS, **decoder)
    torch.testing.assert_close(ours_out, theirs_out, atol=1e-4, rtol=1e-4)
    unknown, differing = set(), set()
    for name in theirs:
        if not isinstance(theirs[name], Tensor):
            continue
        try:
            mine = ours[name]
        except UnknownSiteError:
            unknown.add(name)
            continue
        if not _equal(mine, theirs[name]):
            differing.add(name)
    listed = re.compile(DIFFER.get(kind, r"(?!)"))
    assert {name for name in differing if not listed.search(name)} == set()
    assert {name for name in unknown if not NO_SITE.search(name) and not listed.search(name)} == set()
    for pattern in DIFFER.get(kind, "").split("|"):  # nothing is listed that does not differ any more
        assert not pattern or any(re.search(pattern, name) for name in differing | unknown), pattern


@torch.no_grad()
def test_a_freshly_initialised_masked_model_keeps_its_bias_of_zeros() -> None:
    bridge = _bridge("bert")
    head = bridge.original_model.cls.predictions
    for tensor in (head.bias, bridge.unembed.original_component.bias):
        tensor.data.zero_()
    model = interp.load(bridge)
    torch.testing.assert_close(model(TOKENS), bridge(TOKENS), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_names_whose_tensor_has_no_site_lead_to_the_page() -> None:
    model = interp.load(_bridge("bert"))
    _, cache = model.run_with_cache(TOKENS)
    with pytest.raises(UnknownSiteError, match=r"blocks\.1\.ln1\.hook_in.*no site.*from_transformer_lens\.md"):
        cache["blocks.1.ln1.hook_in"]
    assert torch.equal(cache["blocks.-1.ln1.hook_out"], cache["resid_mid.1"])
