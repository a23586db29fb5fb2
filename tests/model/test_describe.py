"""A printed config shows every value that the mathematics depends on, and equal layers once."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.errors import InputError
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

SIZES: dict[str, Any] = {"n_layers": 3, "d_model": 32, "n_heads": 4, "d_vocab": 19, "n_ctx": 12}
SAMPLES = {  # for a part that is absent, one that could be there
    NormConfig: NormConfig("layer", 1e-3),
    RotaryConfig: RotaryConfig(4),
    RotaryScaling: RotaryScaling("linear", 2.0),
    RelativeConfig: RelativeConfig(8, 16),
    TransformConfig: TransformConfig(7, "relu", NormConfig()),
    MLPConfig: MLPConfig(5),
    int: 3,
    float: 1.75,
}
HAS_NO_MEANING = {  # field -> where it is not read
    "eps": lambda owner: owner.kind == "none",
    "bias": lambda owner: getattr(owner, "kind", "") == "none",
    "gain_offset": lambda owner: owner.kind == "none",
    "low_freq_factor": lambda owner: owner.kind == "linear",
    "high_freq_factor": lambda owner: owner.kind == "linear",
    "original_n_ctx": lambda owner: owner.kind == "linear",
    "qk_norm_over": lambda owner: owner.qk_norm is None,
    "tie_word_embeddings": lambda owner: not owner.has_unembed,
    "logit_scale": lambda owner: not owner.has_unembed,
    "logit_softcap": lambda owner: not owner.has_unembed,
}


def changes(value: Any, kind: Any) -> Iterator[Any]:
    """Other values of one field."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = next(arg for arg in typing.get_args(kind) if arg is not type(None))
        if value is None:
            yield from [SAMPLES[inner]] if inner in SAMPLES else []
            return
        yield None
        kind = inner
    if typing.get_origin(kind) is typing.Literal:
        yield from (other for other in typing.get_args(kind) if other != value)
    elif typing.get_origin(kind) is tuple:
        yield value[:-1]
        yield from ((*value[:-1], other) for other in changes(value[-1], typing.get_args(kind)[0]))
    elif dataclasses.is_dataclass(value):
        yield from changed(value)
    elif kind is str:
        yield from (value + "_", "relu2")  # a label, or the name of an activation function
    else:
        others = [not value] if kind is bool else [value * 2 or kind(1), value // 2]
        yield from (other for other in others if other != value)


SEEN: set[tuple[str, str]] = set()


def changed(owner: Any) -> Iterator[Any]:
    """A config with one value changed, for each value anywhere in it."""
    for name, kind in typing.get_type_hints(type(owner)).items():
        if not HAS_NO_MEANING.get(name, lambda owner: False)(owner):
            for other in changes(getattr(owner, name), kind):
                try:
                    yield replace(owner, **{name: other})
                except InputError:
                    continue
                SEEN.add((type(owner).__name__, name))


def test_any_other_value_anywhere_is_seen_in_the_printed_config(configs: dict[str, ModelConfig]) -> None:
    for name, config in configs.items():
        printed = str(config)
        for other in changed(config):
            assert str(other) != printed, (name, other.to_dict())
    kinds = [
        ModelConfig,
        StackConfig,
        BlockConfig,
        AttentionConfig,
        *(kind for kind in SAMPLES if dataclasses.is_dataclass(kind)),
    ]
    missed = {(kind.__name__, field.name) for kind in kinds for field in dataclasses.fields(kind)} - SEEN
    assert missed == set()


def test_equal_layers_stand_in_one_group_wherever_they_are() -> None:
    config = ModelConfig.decoder_only(**{**SIZES, "n_layers": 12})
    assert config.decoder is not None
    block = config.decoder.blocks[0]
    local = replace(block, attn=replace(block.attn, window=5))

    def groups(*blocks: BlockConfig) -> list[str]:
        text = str(replace(config, decoder=StackConfig(blocks)))
        return [line.strip() for line in text.splitlines() if line.startswith("  layer")]

    assert groups(*[block] * 12) == ["layers 0–11"]
    assert groups(*[local, block] * 6) == ["layers 0, 2, … 10", "layers 1, 3, … 11"]
    assert groups(*[*[local] * 5, block] * 2) == ["layers 0–4, 6–10", "layers 5, 11"]
    assert groups(block, local, local) == ["layer 0", "layers 1–2"]
    assert str(replace(config, decoder=StackConfig((local, block) * 6))).count("window 5") == 1


def test_in_an_error_message_a_config_is_one_short_line_and_equality_is_still_by_value() -> None:
    config = ModelConfig.decoder_only(**{**SIZES, "n_layers": 80}, model_name="big")
    assert repr(config) == "ModelConfig('big', decoder of 80 layers, d_model=32, d_vocab=19)"
    other = replace(config, n_ctx=13)
    assert repr(other) == repr(config) and other != config


def test_a_notebook_shows_the_same_rows_and_no_name_becomes_markup(configs: dict[str, ModelConfig]) -> None:
    config = replace(configs["two_stacks"], model_name="<script>")
    page = config._repr_html_()
    assert page.count("<tr>") == len(str(config).splitlines())
    assert "<script>" not in page and "&lt;script&gt;" in page and "cross-attention" in page


def test_an_encoder_made_by_hand_reads_both_ways_and_has_the_parts_that_were_asked_for() -> None:
    model = HookedTransformer(ModelConfig.encoder_only(**SIZES))
    tokens = torch.arange(5)[None]
    other = torch.cat([tokens[:, :-1], tokens[:, -1:] + 1], dim=1)
    assert model.cfg.decoder is None and not torch.allclose(model(tokens)[:, 0], model(other)[:, 0])
    plain = ModelConfig.encoder_only(**SIZES, d_mlp=0, learned_positions=False, norms="pre", rotary=RotaryConfig(8))
    assert plain.attn_only and plain.positional_embedding_type == "rotary"
    assert plain.encoder is not None and plain.encoder.final_norm is not None and plain.encoder.embed_norm is None
    assert HookedTransformer(plain)(tokens).shape == (1, 5, 19)
    assert ModelConfig.from_dict(plain.to_dict()) == plain


@pytest.mark.parametrize("make", [ModelConfig.decoder_only, ModelConfig.encoder_only])
def test_a_config_that_contradicts_itself_is_refused(make: Any) -> None:
    with pytest.raises(InputError, match="none to tie"):
        make(**SIZES, has_unembed=False, tie_word_embeddings=True)
