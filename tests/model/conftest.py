"""A zoo of tiny random models, one of each layout the config can describe, with weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jaxtyping
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from torch import Tensor

from interp.model.config import (
    AttentionConfig,
    BlockConfig,
    MLPConfig,
    ModelConfig,
    NormConfig,
    RelativeConfig,
    RotaryConfig,
    RotaryScaling,
    StackConfig,
    TransformConfig,
)
from interp.model.transformer import HookedTransformer
from interp.sites import Site
from interp.text import Tokenizer

D_MODEL, D_HEAD, N_HEADS, D_VOCAB, N_CTX = 32, 8, 4, 50, 64
RMS, LAYER = NormConfig("rms", 1e-5), NormConfig("layer", 1e-5, bias=True)
ATTN = AttentionConfig(N_HEADS, D_HEAD, N_HEADS, D_HEAD**-0.5)
GROUPED = replace(ATTN, n_key_value_heads=2)
ROTARY = RotaryConfig(D_HEAD)
BOTH_WAYS = replace(ATTN, mask="bidirectional", bias_qkv=True, bias_out=True)
GATED, PLAIN = MLPConfig(48), MLPConfig(40, "gelu_new", gated=False, bias=True)
BIASED = replace(ATTN, bias_qkv=True, bias_out=True)


def _stack(*blocks: BlockConfig, norm: NormConfig | None = RMS, **stack: Any) -> StackConfig:
    return StackConfig(blocks, norm, **stack)


def _model(decoder: StackConfig | None = None, **model: Any) -> ModelConfig:
    return ModelConfig(D_MODEL, D_VOCAB, N_CTX, decoder=decoder, **model)


def _rotary(**changes: Any) -> AttentionConfig:
    return replace(GROUPED, rotary=replace(ROTARY, **changes))


LLAMA = BlockConfig(_rotary(), GATED, RMS)
NEOX = BlockConfig(replace(BIASED, rotary=replace(ROTARY, dim=4)), PLAIN, LAYER, residual="parallel")
GPTJ = replace(NEOX, attn=replace(ATTN, rotary=RotaryConfig(4, interleaved=True)), shared_norm=True)
CROSS = BlockConfig(BIASED, PLAIN, LAYER, cross_attn=replace(BOTH_WAYS, n_key_value_heads=2))
ENCODER = BlockConfig(BOTH_WAYS, PLAIN, LAYER)
POST = replace(ENCODER, norms="post")
HEAD = TransformConfig(24, "gelu", LAYER)
RELATIVE = RelativeConfig(8, 6)
T5_ATTN, T5_CROSS = replace(ATTN, scale=1.0), replace(ATTN, scale=1.0, mask="bidirectional")
T5_ENCODER, T5_DECODER = BlockConfig(T5_CROSS, GATED, RMS), BlockConfig(T5_ATTN, GATED, RMS, cross_attn=T5_CROSS)
BART = replace(CROSS, norms="post")
NORMED = BlockConfig(_rotary(), GATED, RMS)
OLMO2 = replace(NORMED, attn=replace(_rotary(), qk_norm=RMS, qk_norm_over="all"), norms="output")
QWEN3 = replace(NORMED, attn=replace(_rotary(), qk_norm=RMS))
GEMMA2 = replace(NORMED, attn=replace(_rotary(), softcap=1.5), norms="both", residual_scale=0.7)
ADDITIVE = replace(ATTN, n_key_value_heads=2, scale=1.0, scoring="additive")
SOFTCAPPED = BlockConfig(replace(_rotary(), softcap=1.5), GATED, replace(RMS, gain_offset=1.0))
ZOO: dict[str, ModelConfig] = {
    "llama": _model(_stack(*[LLAMA] * 3)),
    "gpt2": _model(
        _stack(*[BlockConfig(BIASED, PLAIN, LAYER)] * 2, norm=LAYER, learned_positions=N_CTX), tie_word_embeddings=True
    ),
    "neox": _model(_stack(*[NEOX] * 2, norm=LAYER)),
    "gptj": _model(_stack(*[GPTJ] * 2, norm=LAYER), bias_unembed=True),
    "attention_only": _model(_stack(*[BlockConfig(_rotary(), None, RMS)] * 2)),
    "bare": _model(
        _stack(*[BlockConfig(ATTN, None, NormConfig("none"))] * 2, norm=None, learned_positions=N_CTX),
    ),
    "window": _model(_stack(replace(LLAMA, attn=replace(_rotary(), window=3)), LLAMA)),
    "softcap": _model(_stack(*[SOFTCAPPED] * 2, norm=replace(RMS, gain_offset=1.0), embed_scale=2.0)),
    "interleaved": _model(_stack(*[replace(LLAMA, attn=_rotary(interleaved=True))] * 2)),
    "linear": _model(_stack(*[replace(LLAMA, attn=_rotary(scaling=RotaryScaling("linear", 4.0)))] * 2)),
    "llama3": _model(
        _stack(*[replace(LLAMA, attn=_rotary(scaling=RotaryScaling("llama3", 8.0, original_n_ctx=32)))] * 2)
    ),
    "encoder": _model(encoder=_stack(*[ENCODER] * 2, norm=LAYER, learned_positions=N_CTX)),
    "encoder_window": _model(
        encoder=_stack(replace(ENCODER, attn=replace(BOTH_WAYS, window=3)), ENCODER, norm=LAYER, learned_positions=64)
    ),
    "two_stacks": _model(
        _stack(*[CROSS] * 2, norm=LAYER, learned_positions=N_CTX),
        encoder=_stack(*[ENCODER] * 3, norm=LAYER, learned_positions=N_CTX),
    ),
    "bert": _model(
        encoder=_stack(*[POST] * 2, norm=None, learned_positions=N_CTX, embed_norm=LAYER, token_types=2),
        transform=HEAD,
        bias_unembed=True,
    ),
    "electra": _model(
        encoder=_stack(*[POST] * 2, norm=None, learned_positions=N_CTX, embed_norm=LAYER, embed_width=12)
    ),
    "t5": _model(
        _stack(*[T5_DECODER] * 2, relative=RELATIVE),
        encoder=_stack(*[T5_ENCODER] * 2, relative=RELATIVE),
        logit_scale=0.3,
    ),
    "bart": _model(
        _stack(*[BART] * 2, norm=None, learned_positions=N_CTX, embed_norm=LAYER, embed_scale=2.0),
        encoder=_stack(*[POST] * 2, norm=None, learned_positions=N_CTX, embed_norm=LAYER),
        bias_unembed=True,
    ),
    "mpnet": _model(encoder=_stack(*[POST] * 2, norm=None, learned_positions=N_CTX, relative=RELATIVE)),
    "granite": _model(
        _stack(*[replace(LLAMA, residual_scale=0.6)] * 2, embed_scale=1.5), tie_word_embeddings=True, logit_scale=0.4
    ),
    "olmo2": _model(_stack(*[OLMO2] * 2)),
    "qwen3": _model(_stack(*[QWEN3] * 2)),
    "gemma2": _model(
        _stack(replace(GEMMA2, attn=replace(GEMMA2.attn, window=3)), GEMMA2), logit_softcap=5.0, logit_scale=0.5
    ),
    "bloom": _model(_stack(*[BlockConfig(replace(BIASED, alibi=1.0), PLAIN, LAYER)] * 2, norm=LAYER, embed_norm=LAYER)),
    "additive": _model(
        _stack(
            BlockConfig(replace(ADDITIVE, window=3), PLAIN, LAYER),
            BlockConfig(ADDITIVE, PLAIN, LAYER),
            norm=LAYER,
            learned_positions=N_CTX,
        )
    ),
    "additive_cross": _model(
        _stack(
            *[replace(CROSS, cross_attn=replace(ADDITIVE, mask="bidirectional", scale=3.0))] * 2,
            norm=LAYER,
            learned_positions=64,
        ),
        encoder=_stack(
            *[replace(ENCODER, attn=replace(BOTH_WAYS, scoring="additive", scale=2.0))] * 2,
            norm=LAYER,
            learned_positions=64,
        ),
    ),
    "double": _model(_stack(*[LLAMA] * 2)),
}
DERIVED = ("hook_scale", "hook_normalized", "hook_rot_q", "hook_rot_k", "hook_attn_scores", "hook_pattern")
DERIVED += ("hook_result", "hook_post", "hook_resid_mid", "hook_resid_mid_cross")
DECODERS = [name for name, config in ZOO.items() if config.encoder is None]


def randomize(model: HookedTransformer, seed: int = 1) -> HookedTransformer:
    """Every parameter random: gains that are not 1, biases that are not 0, patterns that are neither flat nor sharp."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if parameter.ndim > 1:
                sharper = 1.8 if ".q.weight" in name or ".k.weight" in name else 0.8
                wide = 1.0 if "embed" in name and "project" not in name else sharper / parameter.shape[1] ** 0.5
                parameter.copy_(noise * wide)
            else:
                parameter.copy_(0.3 * noise + (1.0 if name.endswith(".w") else 0.0))
    return model


def ids(batch: int, pos: int, seed: int = 0, d_vocab: int = D_VOCAB) -> Tensor:
    return torch.randint(0, d_vocab, (batch, pos), generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Case:
    """A model with an input for it: what differs between one stack and two is in `options`."""

    name: str
    model: HookedTransformer
    tokens: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The stack that start_at_layer and stop_at_layer count in, as a prefix of names."""
        return "decoder." if "decoder_input" in self.options else ""

    @property
    def n_layers(self) -> int:
        return self.model.main.config.n_layers

    @property
    def other(self) -> Case:
        """The same model on other text of the same shape."""
        options = {name: (x + 7) % D_VOCAB for name, x in self.options.items()}
        return replace(self, tokens=(self.tokens + 7) % D_VOCAB, options=options)

    def block(self, name: str) -> BlockConfig:
        """The layer that a site stands in."""
        site = Site.parse(name)
        assert site.layer is not None
        return self.model.cfg.stacks[site.stack].blocks[site.layer]

    def own_sum(self, address: str) -> tuple[str, float]:
        """Where the sum that a sublayer makes can be read, and what it is multiplied by there: what is added to the
        residual, unless a norm stands between."""
        start, _, part = address.removesuffix(".").rpartition(".")
        block = self.block(f"{start}.hook_resid_pre")
        if block.norms in ("output", "both"):
            n = {"attn": 1, "cross_attn": 2, "mlp": 3 if block.cross_attn else 2}[part]
            return f"{start}.ln{n}_post.hook_in", 1.0
        return f"{start}.hook_{part}_out", block.residual_scale

    def is_derived(self, name: str) -> bool:
        """Whether a site follows from others: not the residual behind a norm, nor queries and keys normed before they
        are rotated, nor additive scores."""
        if not name.endswith(DERIVED):
            return False
        if name.endswith("hook_attn_scores"):
            block = self.block(name)
            attn = block.cross_attn if "cross_attn" in name else block.attn
            return attn is not None and attn.scoring == "dot"
        if name.endswith(("hook_resid_mid", "hook_resid_mid_cross")):
            return self.block(name).norms != "post"
        return not (name.endswith(("hook_rot_q", "hook_rot_k")) and self.block(name).attn.qk_norm is not None)

    def __call__(self, **options: Any) -> Any:
        return self.model(self.tokens, **self.options, **options)

    def cached(self, names_filter: Any = None, **options: Any) -> Any:
        return self.model.run_with_cache(self.tokens, names_filter, **self.options, **options)

    def hooked(self, *fwd_hooks: Any, **options: Any) -> Any:
        return self.model.run_with_hooks(self.tokens, fwd_hooks=list(fwd_hooks), **self.options, **options)


def _case(name: str) -> Case:
    dtype = torch.float64 if name == "double" else torch.float32
    model = randomize(HookedTransformer(ZOO[name], dtype=dtype))
    options = {"decoder_input": ids(3, 5, seed=5)} if ZOO[name].decoder and ZOO[name].encoder else {}
    return Case(name, model, ids(3, 9), options)


_MADE: dict[str, Case] = {}


def case_named(name: str) -> Case:
    return _MADE.setdefault(name, _MADE.get(name) or _case(name))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors are quickest on one thread, and on a busy machine all are: threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=list(ZOO))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Every layout in turn; a test that leaves something on the model fails."""
    yield from _untouched(case_named(request.param))


@pytest.fixture(params=["llama", "gpt2", "gptj", "attention_only", "softcap", "two_stacks"])
def layout(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Layouts whose sites differ, for tests that run the model once or more for each site."""
    yield from _untouched(case_named(request.param))


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Every layout of one causal stack."""
    yield from _untouched(case_named(request.param))


@pytest.fixture
def named() -> Callable[[str], Case]:
    """Gives any layout by its name, for tests that read and change nothing."""
    return case_named


@pytest.fixture
def llama() -> Iterator[Case]:
    yield from _untouched(case_named("llama"))


@pytest.fixture
def gpt2() -> Iterator[Case]:
    yield from _untouched(case_named("gpt2"))


@pytest.fixture
def encoder() -> Iterator[Case]:
    yield from _untouched(case_named("encoder"))


@pytest.fixture
def two_stacks() -> Iterator[Case]:
    yield from _untouched(case_named("two_stacks"))


@pytest.fixture
def fresh() -> Callable[..., HookedTransformer]:
    """A model of the zoo that the test may change."""

    def make(name: str = "llama", *, seed: int = 1, **options: Any) -> HookedTransformer:
        return randomize(HookedTransformer(ZOO[name], **options), seed)

    return make


@pytest.fixture(scope="session")
def configs() -> dict[str, ModelConfig]:
    return ZOO


def _untouched(one: Case) -> Iterator[Case]:
    before, grads = traces(one.model), [parameter.grad for parameter in one.model.parameters()]
    yield one
    assert traces(one.model) == before, "the test left something on the model"
    assert all(a is b for a, b in zip(grads, (p.grad for p in one.model.parameters()), strict=True))


def traces(model: HookedTransformer) -> dict[str, Any]:
    """What a call could leave behind: hooks, attributes, changed weights, buffers, modes."""
    hook_tables = [name for name in vars(torch.nn.Module()) if name.endswith("hooks")]
    return {
        "hooks": sum(len(getattr(module, table)) for module in model.modules() for table in hook_tables),
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "weights": {name: (x.data_ptr(), x.double().sum().item()) for name, x in model.state_dict().items()},
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "training": model.training,
        "tensor_hooks": sum(bool(parameter._backward_hooks) for parameter in model.parameters()),
    }


@pytest.fixture
def left_behind() -> Callable[[HookedTransformer], dict[str, Any]]:
    return traces


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside the tests: no beartype in front of the package, so its own checks meet the bad input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


TEMPLATE = "{% for m in messages %}<s> {{ m.content }} {% endfor %}{% if add_generation_prompt %}bot{% endif %}"
WORDS = ["<pad>", "<s>", "</s>", "[UNK]", "bot", *(f"w{i}" for i in range(D_VOCAB - 5))]


@pytest.fixture(scope="session")
def words() -> Callable[..., Tokenizer]:
    """A tokenizer whose ids are WORDS' places: 0 <pad>, 1 <s>, 2 </s>, 3 [UNK], 4 bot, 5 w0, 6 w1 …"""

    def make(**options: Any) -> Tokenizer:
        backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.add_special_tokens(WORDS[:3])
        settings = {"add_bos": False, "bos_id": 1, "eos_id": 2, "pad_id": 0, "unk_id": 3, "chat_template": TEMPLATE}
        return Tokenizer(backend, **{**settings, **options})

    return make


@pytest.fixture
def talker(words: Callable[..., Tokenizer]) -> HookedTransformer:
    """A tiny model that reads text."""
    return randomize(HookedTransformer(ZOO["llama"], words()))
