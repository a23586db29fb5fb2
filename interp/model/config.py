"""What an architecture is, as plain data. The forward pass reads these values and asks for no model by name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from interp.errors import InputError
from interp.model.checked import ActName, Checked, Count, Finite, Positive, Size, build

__all__ = [
    "AttentionConfig",
    "BlockConfig",
    "MLPConfig",
    "ModelConfig",
    "NormConfig",
    "RelativeConfig",
    "RotaryConfig",
    "RotaryScaling",
    "StackConfig",
    "TransformConfig",
]


@dataclass(frozen=True)
class NormConfig(Checked):
    """`rms`: x / sqrt(mean x² + eps). `layer`: the same of x − mean x. `none`: x itself. Then a gain and a bias."""

    kind: Literal["rms", "layer", "none"] = "rms"
    eps: Positive = 1e-5
    bias: bool = False
    gain_offset: Finite = 0.0  # Gemma stores its gains minus one


@dataclass(frozen=True)
class RotaryScaling(Checked):
    """A change of the rotary frequencies for long contexts. `linear`: f / factor. `llama3`: only the slow ones,
    blended between the two wavelengths (Llama 3.1)."""

    kind: Literal["linear", "llama3"]
    factor: Positive
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_n_ctx: Size = 8192

    def __post_init__(self) -> None:
        if self.low_freq_factor >= self.high_freq_factor:
            raise InputError(
                f"RotaryScaling has low_freq_factor={self.low_freq_factor:g} and "
                f"high_freq_factor={self.high_freq_factor:g}. The low one must be below the high one."
            )


@dataclass(frozen=True)
class RotaryConfig(Checked):
    """Rotary positions on the first `dim` coordinates of each head (Su 2021, §3.4)."""

    dim: Size
    base: Positive = 10_000.0
    interleaved: bool = False  # pairs (0,1)(2,3)… as GPT-J has them, else (0,half)(1,half+1)…
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        if self.dim % 2:
            raise InputError(f"RotaryConfig has dim={self.dim}. Coordinates turn in pairs: give an even number.")


@dataclass(frozen=True)
class RelativeConfig(Checked):
    """A learned bias on the scores for each head and bucket of distances, shared by all layers of a stack (Raffel
    2020, §2.1): exact for short distances, logarithmic up to `max_distance`."""

    n_buckets: Size = 32
    max_distance: Size = 128

    def __post_init__(self) -> None:
        if self.n_buckets < 4 or self.max_distance <= self.n_buckets // 2:
            raise InputError(
                f"RelativeConfig has n_buckets={self.n_buckets} and max_distance={self.max_distance}. Give 4 buckets "
                "or more, and a distance above half their number: the first half is exact."
            )


@dataclass(frozen=True)
class AttentionConfig(Checked):
    """One attention: how many heads, which keys a query may see, and how its scores are made."""

    n_heads: Size
    d_head: Size
    n_key_value_heads: Size
    scale: Positive  # scores are q·k × scale
    mask: Literal["causal", "bidirectional"] = "causal"
    window: Size | None = None  # a query sees this many keys back, itself included
    rotary: RotaryConfig | None = None
    bias_qkv: bool = False
    bias_out: bool = False
    softcap: Positive | None = None  # scores become softcap × tanh(scores / softcap), before the mask
    alibi: Positive | None = None  # this × slope of the head × distance is added to the scores (Press 2022)
    qk_norm: NormConfig | None = None  # of queries and keys, before they are rotated
    qk_norm_over: Literal["head", "all"] = "head"  # each head by itself, or all heads' coordinates together
    scoring: Literal["dot", "additive"] = "dot"  # additive: v·tanh(q + k) × scale (Bahdanau 2015, §A.1.2)

    def __post_init__(self) -> None:
        if self.rotary is not None and self.rotary.dim > self.d_head:
            raise InputError(
                f"AttentionConfig has rotary dim {self.rotary.dim} and d_head={self.d_head}. "
                "No more coordinates than a head has can turn: give RotaryConfig a dim up to d_head."
            )
        if self.n_heads % self.n_key_value_heads:
            raise InputError(
                f"{self.n_heads} query heads cannot share {self.n_key_value_heads} key/value heads evenly. "
                "Make n_heads a multiple of n_key_value_heads."
            )
        if self.scoring == "additive" and self.rotary is not None:
            raise InputError(
                "Additive scores know no rotary positions: turning makes products depend on distances, and no sums. "
                "Give rotary=None, and positions as learned_positions=, relative= or alibi=."
            )


@dataclass(frozen=True)
class MLPConfig(Checked):
    """`gated`: act(x W_gate) ⊙ (x W_in) before W_out; else act(x W_in)."""

    d_mlp: Size
    act_fn: ActName = "silu"
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class BlockConfig(Checked):
    """`sequential`: attention, then (cross-attention, then) MLP, each on the residual so far. `parallel`: attention
    and MLP side by side on the same residual.

    `norms` says where they stand. `pre`: on what a sublayer reads. `output`: on what it adds. `both`: on either.
    `post`: on the residual after adding, as in the first transformers (Vaswani 2017).
    """

    attn: AttentionConfig
    mlp: MLPConfig | None
    norm: NormConfig = NormConfig()
    cross_attn: AttentionConfig | None = None
    residual: Literal["sequential", "parallel"] = "sequential"
    shared_norm: bool = False  # parallel blocks whose MLP reads ln1 too
    norms: Literal["pre", "post", "output", "both"] = "pre"
    residual_scale: Positive = 1.0  # of what each sublayer adds

    def __post_init__(self) -> None:
        cross = self.cross_attn
        if cross is not None and (cross.mask != "bidirectional" or cross.rotary is not None or self.mlp is None):
            raise InputError(
                "A block with cross-attention needs an MLP, and its cross_attn mask='bidirectional' and rotary=None: "
                "queries and keys stand in different texts."
            )
        if self.residual == "parallel" and (self.mlp is None or cross is not None):
            raise InputError("A parallel block needs an MLP and has no cross-attention. Choose residual='sequential'.")
        if self.residual == "parallel" and self.norms != "pre":
            raise InputError("A parallel block has its norms in front. Choose norms='pre'.")
        if self.shared_norm and self.residual != "parallel":
            raise InputError("Only parallel blocks share a norm. Choose residual='parallel', or shared_norm=False.")


@dataclass(frozen=True)
class StackConfig(Checked):
    """Blocks over one text: an encoder or a decoder."""

    blocks: tuple[BlockConfig, ...]
    final_norm: NormConfig | None = NormConfig()
    learned_positions: Size | None = None  # rows of a learned position table
    embed_scale: Positive = 1.0
    embed_scale_rounded: bool = False  # to the weights' dtype, before it multiplies (Gemma)
    embed_norm: NormConfig | None = None  # of the first residual
    embed_width: Size | None = None  # of the embedding, where a projection leads from it to d_model
    token_types: Size | None = None  # rows of a table of token types, of which type 0 is added everywhere
    relative: RelativeConfig | None = None
    padding_positions: Count = 0  # rows of the checkpoint's table before those of learned_positions; written back only

    def __post_init__(self) -> None:
        if not self.blocks:
            raise InputError("StackConfig has no blocks. It takes at least one BlockConfig.")

    @property
    def n_layers(self) -> int:
        return len(self.blocks)


@dataclass(frozen=True)
class TransformConfig(Checked):
    """What stands before the unembedding of a masked-token head: a linear map, an activation, a norm."""

    width: Size
    act_fn: ActName
    norm: NormConfig


@dataclass(frozen=True)
class ModelConfig(Checked):
    """A whole model. `decoder` alone, `encoder` alone, or both; sizes of a model with one kind of block can be read
    by their TransformerLens names (`cfg.n_heads`, `cfg.d_mlp`, `cfg.rotary_base`, …)."""

    d_model: Size
    d_vocab: Size
    n_ctx: Size
    decoder: StackConfig | None = None
    encoder: StackConfig | None = None
    has_unembed: bool = True  # False: a checkpoint without a head that predicts tokens, so there are no logits
    tie_word_embeddings: bool = False
    bias_unembed: bool = False
    transform: TransformConfig | None = None
    logit_scale: Positive = 1.0
    logit_softcap: Positive | None = None  # logits become softcap × tanh(logits / softcap)
    default_prepend_bos: bool = False
    model_name: str = "custom"
    family: str = "custom"  # a label for people and manifests, and whose names to_hf_state_dict gives
    about_fields = (
        "Sizes of layers stand in its decoder= or encoder= (a StackConfig); ModelConfig.decoder_only and .encoder_only "
        "take them flat. docs/architectures.md builds some by hand."
    )

    def __post_init__(self) -> None:
        if self.decoder is None and self.encoder is None:
            raise InputError("A model needs a decoder, an encoder, or both. Give ModelConfig at least one StackConfig.")
        for name, stack in (("decoder", self.decoder), ("encoder", self.encoder)):
            if stack is not None:
                self._check_stack(name, stack)
        if not self.has_unembed and (self.tie_word_embeddings or self.bias_unembed or self.transform):
            raise InputError("A model without unembedding has none to tie, bias or transform for. Use headless().")

    def _check_stack(self, name: str, stack: StackConfig) -> None:
        crosses = [block.cross_attn is not None for block in stack.blocks]
        if any(crosses) and (name == "encoder" or self.encoder is None):
            raise InputError("Only a decoder over an encoder has cross-attention. Give both, or cross_attn=None.")
        if name == "decoder" and self.encoder is not None and not any(crosses):
            raise InputError(
                "This decoder has no cross-attention, so it would never read the encoder. Give its blocks a "
                "cross_attn=AttentionConfig(…, mask='bidirectional'), or leave the encoder out."
            )
        if name == "decoder" and any(block.attn.mask != "causal" for block in stack.blocks):
            raise InputError(
                "A decoder that sees the tokens it predicts is none. Give its blocks mask='causal', or make it the "
                "encoder."
            )
        if stack.learned_positions is not None and stack.learned_positions < self.n_ctx:
            raise InputError(
                f"The {name} has learned_positions={stack.learned_positions}, fewer than n_ctx={self.n_ctx}. "
                "Every position needs a row."
            )

    def headless(self) -> ModelConfig:
        """The same stacks without the head that predicts tokens."""
        return dataclasses.replace(
            self, has_unembed=False, tie_word_embeddings=False, bias_unembed=False, transform=None
        )

    @classmethod
    def decoder_only(
        cls,
        *,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_vocab: int,
        n_ctx: int,
        d_head: int | None = None,
        n_key_value_heads: int | None = None,
        d_mlp: int | None = None,
        act_fn: str = "silu",
        gated_mlp: bool = True,
        rotary: RotaryConfig | Literal["default"] | None = "default",
        window_size: int | None = None,
        norm: NormConfig = NormConfig(),
        **model: Any,
    ) -> ModelConfig:
        """A causal decoder of equal blocks, Llama's layout by default. `d_mlp=0` leaves the MLPs out; `rotary=None`
        gives learned positions."""
        _check_sizes(n_layers=n_layers, d_model=d_model, n_heads=n_heads)
        d_head = d_head or _head_size(d_model, n_heads)
        if rotary == "default":
            rotary = RotaryConfig(dim=d_head)
        attn = AttentionConfig(
            n_heads, d_head, n_key_value_heads or n_heads, d_head**-0.5, window=window_size, rotary=rotary
        )
        mlp = None if d_mlp == 0 else MLPConfig(d_mlp or 4 * d_model, act_fn, gated_mlp)
        stack = StackConfig((BlockConfig(attn, mlp, norm),) * n_layers, norm, None if rotary else n_ctx)
        return cls(d_model, d_vocab, n_ctx, decoder=stack, **model)

    @classmethod
    def encoder_only(
        cls,
        *,
        n_layers: int,
        d_model: int,
        n_heads: int,
        d_vocab: int,
        n_ctx: int,
        d_mlp: int | None = None,
        act_fn: str = "gelu",
        rotary: RotaryConfig | None = None,
        learned_positions: bool = True,
        norm: NormConfig = NormConfig("layer", 1e-12, bias=True),
        norms: Literal["pre", "post"] = "post",
        **model: Any,
    ) -> ModelConfig:
        """A bidirectional encoder of equal blocks, BERT's layout by default. `d_mlp=0` leaves the MLPs out; without
        rotary and learned positions it does not know the order of its tokens."""
        _check_sizes(n_layers=n_layers, d_model=d_model, n_heads=n_heads)
        d_head = _head_size(d_model, n_heads)
        attn = AttentionConfig(
            n_heads, d_head, n_heads, d_head**-0.5, "bidirectional", rotary=rotary, bias_qkv=True, bias_out=True
        )
        mlp = None if d_mlp == 0 else MLPConfig(d_mlp or 4 * d_model, act_fn, gated=False, bias=True)
        post = norms == "post"
        stack = StackConfig(
            (BlockConfig(attn, mlp, norm, norms=norms),) * n_layers,
            final_norm=None if post else norm,
            embed_norm=norm if post else None,
            learned_positions=n_ctx if learned_positions else None,
        )
        return cls(d_model, d_vocab, n_ctx, encoder=stack, **model)

    def __repr__(self) -> str:
        from interp.model.describe import config_name

        return config_name(self)

    def __str__(self) -> str:
        from interp.model.describe import config_text

        return config_text(self)

    def _repr_html_(self) -> str:
        from interp.model.describe import config_html

        return config_html(self)

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """Stack name -> its config. The name is "" in a model with one stack, as in its sites."""
        if self.encoder is not None and self.decoder is not None:
            return {"encoder": self.encoder, "decoder": self.decoder}
        return {"": self.decoder or typing.cast(StackConfig, self.encoder)}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain data, ready for JSON. `scoring` stands in it only where it is not "dot": hashes of models and
        trainings from before there was a choice stay what they were."""
        return dataclasses.asdict(self, dict_factory=_without_dot)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; a field that this version does not know raises `CheckpointError` by name."""
        return build(cls, data)

    # The names TransformerLens gives to sizes of a model whose blocks are alike.

    @property
    def n_layers(self) -> int:
        return self._only_stack.n_layers

    @property
    def n_heads(self) -> int:
        return self._common("n_heads", lambda block: block.attn.n_heads)

    @property
    def n_key_value_heads(self) -> int:
        return self._common("n_key_value_heads", lambda block: block.attn.n_key_value_heads)

    @property
    def d_head(self) -> int:
        return self._common("d_head", lambda block: block.attn.d_head)

    @property
    def attn_scale(self) -> float:
        """What scores are divided by (TransformerLens' meaning), 1 / `AttentionConfig.scale`."""
        return 1 / self._common("attn_scale", lambda block: block.attn.scale)

    @property
    def window_size(self) -> int | None:
        return self._common("window_size", lambda block: block.attn.window)

    @property
    def d_mlp(self) -> int | None:
        return self._common("d_mlp", lambda block: block.mlp and block.mlp.d_mlp)

    @property
    def act_fn(self) -> str | None:
        return self._common("act_fn", lambda block: block.mlp and block.mlp.act_fn)

    @property
    def gated_mlp(self) -> bool:
        return bool(self._common("gated_mlp", lambda block: block.mlp and block.mlp.gated))

    @property
    def attn_only(self) -> bool:
        return all(block.mlp is None for block in self._only_stack.blocks)

    @property
    def parallel_attn_mlp(self) -> bool:
        return self._common("parallel_attn_mlp", lambda block: block.residual == "parallel")

    @property
    def eps(self) -> float:
        return self._common("eps", lambda block: block.norm.eps)

    @property
    def normalization_type(self) -> str | None:
        kind = self._common("normalization_type", lambda block: block.norm.kind)
        return {"rms": "RMS", "layer": "LN", "none": None}[kind]

    @property
    def positional_embedding_type(self) -> str:
        stack = self._only_stack
        if any(block.attn.rotary for block in stack.blocks):
            return "rotary"
        if any(block.attn.alibi for block in stack.blocks):
            return "alibi"
        return "standard" if stack.learned_positions else "relative_positional_bias" if stack.relative else "none"

    @property
    def rotary_base(self) -> float | None:
        return self._rotary and self._rotary.base

    @property
    def rotary_dim(self) -> int | None:
        return self._rotary and self._rotary.dim

    @property
    def _rotary(self) -> RotaryConfig | None:
        return self._common("rotary_base", lambda block: block.attn.rotary)

    @property
    def _only_stack(self) -> StackConfig:
        if len(self.stacks) > 1:
            raise InputError("This model has two stacks. Ask cfg.encoder or cfg.decoder, e.g. cfg.decoder.n_layers.")
        return next(iter(self.stacks.values()))

    def _common(self, name: str, read: Callable[[BlockConfig], Any]) -> Any:
        values = {read(block) for block in self._only_stack.blocks}
        if len(values) != 1:
            raise InputError(f"{name} differs between the layers of this model. Ask cfg.decoder.blocks[layer].")
        return values.pop()


def _without_dot(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if (name, value) != ("scoring", "dot")}


def _check_sizes(**sizes: Any) -> None:
    """Refuse what is no size before anything is computed from it."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}. It takes a whole number from 1.")


def _head_size(d_model: int, n_heads: int) -> int:
    """The width of a head where the heads share d_model among them."""
    if d_model % n_heads:
        raise InputError(f"d_model={d_model} is no multiple of n_heads={n_heads}. Give d_head, or other sizes.")
    return d_model // n_heads
