"""A config that says something impossible is refused when it is made: no field may silently mean something else."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Annotated, Any, Literal

import pytest

import interp
from interp.errors import CheckpointError, InputError
from interp.model import config as c
from interp.model.checked import hints

CAUSAL = c.AttentionConfig(4, 8, 2, 0.5, rotary=c.RotaryConfig(8))
CROSS = c.AttentionConfig(4, 8, 4, 0.5, "bidirectional")
BLOCK = c.BlockConfig(CAUSAL, c.MLPConfig(16))
STACK = c.StackConfig((BLOCK,) * 2)
MODEL = c.ModelConfig(8, 9, 10, decoder=STACK)
EXAMPLES: dict[type, Any] = {
    type(example): example
    for example in (
        c.NormConfig(),
        c.RotaryScaling("llama3", 2.0),
        c.RotaryConfig(8),
        c.RelativeConfig(),
        CAUSAL,
        c.MLPConfig(16),
        BLOCK,
        STACK,
        c.TransformConfig(8, "gelu", c.NormConfig("layer")),
        MODEL,
    )
}
FIELDS = [(kind, name, hint) for kind in EXAMPLES for name, hint in hints(kind).items()]
IDS = [f"{kind.__name__}.{name}" for kind, name, _ in FIELDS]


def _parts(hint: Any) -> list[Any]:
    """A hint and what a union is made of."""
    args = typing.get_args(hint)
    return [part for arg in args for part in _parts(arg)] if typing.get_origin(hint) not in (
        None, Annotated, Literal, tuple
    ) else [hint]  # fmt: skip


def _wrong(hint: Any) -> list[Any]:
    """Values that no field with this hint may take."""
    wrong: list[Any] = [object(), math.nan, math.inf, "cuasal", [], {"kind": "rms"}, b"silu"]
    parts = _parts(hint)
    if not any(_base(part) is int for part in parts):
        wrong += [-(10**9)] if not any(_base(part) is float for part in parts) else []
    else:
        wrong += [-1, 1.5, True, "4"]
    if any(_base(part) is float for part in parts):
        wrong += [True, "1.0", 1j]
    if bool in parts:
        wrong += [0, 1, "yes"]
    if type(None) not in parts:
        wrong.append(None)
    return [value for value in wrong if not (isinstance(value, str) and str in parts)]


def _base(part: Any) -> Any:
    if typing.get_origin(part) is not Annotated:
        return part
    return float if (inner := typing.get_args(part)[0]) == float | int else inner


def test_every_config_class_is_among_the_examples() -> None:
    classes = {getattr(c, name) for name in c.__all__}
    assert classes == set(EXAMPLES)


@pytest.mark.parametrize(("kind", "name", "hint"), FIELDS, ids=IDS)
def test_each_field_refuses_what_its_hint_does_not_allow(kind: type, name: str, hint: Any) -> None:
    for value in _wrong(hint):
        with pytest.raises(InputError, match=rf"{kind.__name__} has {name}=.* It takes "):
            dataclasses.replace(EXAMPLES[kind], **{name: value})


@pytest.mark.parametrize(("kind", "name", "hint"), FIELDS, ids=IDS)
def test_each_number_says_its_range_and_each_word_its_set(kind: type, name: str, hint: Any) -> None:
    free_text = {"model_name", "family"}
    assert all(part not in (int, float) and (part is not str or name in free_text) for part in _parts(hint))


@pytest.mark.parametrize(("kind", "name", "hint"), FIELDS, ids=IDS)
def test_each_closed_set_takes_its_own_words_and_their_misspellings_are_refused(
    kind: type, name: str, hint: Any
) -> None:
    for word in typing.get_args(hint) if typing.get_origin(hint) is Literal else ():
        for wrong in (word.upper(), word[:-1], word + " ", f"{word}s"):
            with pytest.raises(InputError, match=f"{name}={wrong!r}.*one of .*{word!r}"):
                dataclasses.replace(EXAMPLES[kind], **{name: wrong})


@pytest.mark.parametrize(
    "bad",
    [
        lambda: dataclasses.replace(CAUSAL, window=0),
        lambda: dataclasses.replace(CAUSAL, softcap=0.0),
        lambda: dataclasses.replace(CAUSAL, scale=0),
        lambda: dataclasses.replace(CAUSAL, n_key_value_heads=0),
        lambda: dataclasses.replace(MODEL, logit_softcap=0.0),
        lambda: dataclasses.replace(MODEL, d_model=-3),
        lambda: c.NormConfig(eps=0.0),
        lambda: c.RotaryScaling("yarn", 2.0),  # type: ignore[arg-type]
    ],
)
def test_the_ends_of_the_ranges_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="It takes"):
        bad()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: c.RotaryConfig(7), "dim=7.*even"),
        (lambda: dataclasses.replace(CAUSAL, rotary=c.RotaryConfig(16)), "rotary dim 16 and d_head=8"),
        (lambda: c.RotaryScaling("llama3", 2.0, 4.0, 1.0), "low one must be below"),
        (lambda: c.RelativeConfig(2), "4 buckets or more"),
        (lambda: c.RelativeConfig(32, 16), "above half"),
        (lambda: dataclasses.replace(BLOCK, shared_norm=True), "Only parallel blocks share"),
        (lambda: dataclasses.replace(MODEL, encoder=STACK), "no cross-attention.*never read"),
        (lambda: dataclasses.replace(MODEL, decoder=c.StackConfig((c.BlockConfig(CROSS, None),))), "mask='causal'"),
        (lambda: dataclasses.replace(MODEL, decoder=dataclasses.replace(STACK, learned_positions=9)), "n_ctx=10"),
        (lambda: c.StackConfig([BLOCK]), "blocks=.*a tuple"),  # type: ignore[arg-type]
    ],
)
def test_fields_that_contradict_each_other_are_refused(bad: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        bad()


def test_flat_sizes_lead_to_the_page_that_builds_models() -> None:
    with pytest.raises(InputError, match=r"no field n_layers, n_heads.*decoder_only.*docs/architectures\.md"):
        interp.ModelConfig(n_layers=2, d_model=8, n_heads=2, d_vocab=9, n_ctx=8)  # type: ignore[call-arg]


def test_a_model_takes_a_config_and_nothing_else() -> None:
    with pytest.raises(InputError, match=r"built from a ModelConfig; this is a dict.*from_dict"):
        interp.HookedTransformer(MODEL.to_dict())


def test_saved_configs_are_checked_as_those_built_by_hand() -> None:
    data = MODEL.to_dict()
    assert interp.ModelConfig.from_dict(data) == MODEL
    data["decoder"]["blocks"][0]["attn"]["mask"] = "cuasal"
    with pytest.raises(InputError, match="mask='cuasal'"):
        interp.ModelConfig.from_dict(data)
    data["decoder"]["blocks"][0]["attn"] = 3
    with pytest.raises(CheckpointError, match="fields of AttentionConfig should stand here, not 3"):
        interp.ModelConfig.from_dict(data)
    with pytest.raises(CheckpointError, match="not all there"):
        interp.ModelConfig.from_dict({"d_model": 8})


def test_an_allowed_number_may_be_whole_where_a_fraction_may_stand() -> None:
    assert c.NormConfig(eps=1).eps == 1 and dataclasses.replace(CAUSAL, window=None, softcap=30).softcap == 30


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_layers": -1}, "n_layers is -1"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"d_model": True}, "d_model is True"),
        ({"n_heads": 3}, "no multiple of n_heads=3"),
        ({"d_model": 2}, "no multiple of n_heads=4"),
    ],
)
@pytest.mark.parametrize("kind", ["decoder_only", "encoder_only"])
def test_the_builders_refuse_sizes_that_cannot_be(kind, sizes, message):
    options = {"n_layers": 1, "d_model": 32, "n_heads": 4, "d_vocab": 20, "n_ctx": 8, **sizes}
    with pytest.raises(InputError, match=message):
        getattr(c.ModelConfig, kind)(**options)


def test_a_stack_without_blocks_is_refused():
    with pytest.raises(InputError, match="at least one BlockConfig"):
        c.StackConfig(())
