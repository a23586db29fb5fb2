"""Strict reading of a checkpoint's configuration: a field that nobody understood is refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from interp.errors import CheckpointError, UnsupportedModelError
from interp.model.activations import ACTIVATIONS
from interp.model.config import RotaryConfig, RotaryScaling

__all__ = [
    "BOOKKEEPING",
    "REQUIRED",
    "Fields",
    "read_activation",
    "read_d_head",
    "read_rotary",
    "read_rotary_parameters",
]

REQUIRED: Any = object()
T = TypeVar("T")
_WIDEST, _DEEPEST, _LONGEST = 1 << 24, 1 << 12, 1 << 40  # of widths and vocabularies, layers, contexts

# Fields of the transformers library's configs that do not touch the logits of a trained model: names and versions,
# what a call returns, defaults of text generation, initialisation, dropout (which is off when a model is read).
_BOOKKEEPING = """
_name_or_path name_or_path architectures auto_map model_type transformers_version tokenizer_class dtype torch_dtype
_attn_implementation _attn_implementation_autoset _attn_implementation_internal attn_implementation
_experts_implementation _commit_hash is_llama_config transformers.js_config unsloth_fixed unsloth_version
return_dict use_return_dict output_hidden_states output_attentions output_scores return_dict_in_generate
torchscript tf_legacy_loss use_cache is_decoder chunk_size_feed_forward tie_last_hidden_states
id2label label2id num_labels problem_type finetuning_task task_specific_params
bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
prefix max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k
top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens
begin_suppress_tokens exponential_decay_length_penalty
initializer_range init_std attention_dropout hidden_dropout resid_dropout classifier_dropout
resid_pdrop embd_pdrop attn_pdrop embed_dropout embedding_dropout residual_dropout gradient_checkpointing
summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout cache_implementation
"""
BOOKKEEPING = frozenset(_BOOKKEEPING.split())

# Generic fields that may stand there, but only with a value that leaves the mathematics as it is.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "pruned_heads": ({},),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "use_bfloat16": (False,),
    "per_layer_config": ({},),
}


class Fields:
    """A configuration that is used up by reading it; `finish` refuses what is left.

    A field that is null counts as absent, as does one named in `ignore` (`"rope_scaling.beta_fast"` for a nested one).
    """

    def __init__(
        self, values: Mapping[str, Any], source: str, family: str, *, ignore: Iterable[str] = (), inside: str = ""
    ):
        self.source, self.family, self._ignore, self._inside = source, family, tuple(ignore), inside
        self._left = {
            name: value for name, value in values.items() if value is not None and str(name) not in self._ignore
        }
        self._nulls = frozenset(name for name, value in values.items() if value is None)

    def __contains__(self, name: str) -> bool:
        """Whether the field is there and has not been read yet."""
        return name in self._left

    def is_null(self, name: str) -> bool:
        """Whether the field is there as null: where its default is no null, that switches something off."""
        return name in self._nulls

    def first(self, *names: str) -> str:
        """The one of a field's several spellings that is there; the first of them if none is."""
        return next((name for name in names if name in self), names[0])

    def given(self, name: str) -> Any:
        """The value as it stands, for its family to check; None where the field is absent."""
        return self._take(name, None)

    def words(self, name: str, default: T = REQUIRED) -> list[str] | T:
        """A list of strings."""
        value = self._take(name, default)
        if value is default:
            return value
        if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
            return [str(word) for word in value]
        raise self._bad(name, value, "a list of strings")

    def size(self, name: str, default: T = REQUIRED, *, limit: int = _WIDEST) -> int | T:
        """A positive whole number, no larger than any real model's: a damaged one must not exhaust the memory."""
        value = self._take(name, default)
        if value is default or (isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit):
            return value
        if isinstance(value, list):
            raise self.refuse(name, value, "sizes that differ between layers are not implemented")
        raise self._bad(name, value, f"a whole number from 1 to {limit:,}")

    def index(self, name: str, default: T = REQUIRED) -> int | T:
        """A whole number from 0: the id of a token, a place in a table."""
        value = self._take(name, default)
        if value is default or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _WIDEST):
            return value
        raise self._bad(name, value, f"a whole number from 0 to {_WIDEST:,}")

    def layers(self, name: str) -> int:
        return self.size(name, limit=_DEEPEST)

    def context(self, name: str, default: T = REQUIRED) -> int | T:
        return self.size(name, default, limit=_LONGEST)

    def number(self, name: str, default: T = REQUIRED) -> float | T:
        """A finite number above zero. Null is none, where the default is one."""
        if self.is_null(name) and default is not None:
            raise self._bad(name, None, "a finite number above zero")
        value = self._take(name, default)
        if value is default:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            return float(value)
        raise self._bad(name, value, "a finite number above zero")

    def flag(self, name: str, default: T = REQUIRED) -> bool | T:
        value = self._take(name, default)
        if value is default or isinstance(value, bool):
            return value
        raise self._bad(name, value, "true or false")

    def text(self, name: str, default: T = REQUIRED) -> str | T:
        value = self._take(name, default)
        if value is default or isinstance(value, str):
            return value
        raise self._bad(name, value, "a string")

    def nested(self, name: str) -> Fields | None:
        """The fields inside a field, to be read and finished on their own; None where it is absent."""
        value = self._take(name, None)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._bad(name, value, "an object")
        inner = [entry[len(name) + 1 :] for entry in self._ignore if entry.startswith(name + ".")]
        return Fields(value, f"{self.source}: {name}", self.family, ignore=inner, inside=f"{self._inside}{name}.")

    def must_be(self, name: str, *neutral: Any) -> None:
        """Refuse the field unless it is absent or has one of these values."""
        value = self._left.get(name, neutral[0])
        if not any(value == allowed and isinstance(value, type(allowed)) for allowed in neutral):
            raise self.refuse(name, value, f"only {' or '.join(map(repr, neutral))} is implemented")
        self._left.pop(name, None)

    def harmless(self, names: Iterable[str]) -> None:
        """Pass over fields that do not touch the mathematics."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Refuse the first field that was neither read nor passed over."""
        for name, value in self._left.items():
            raise self.refuse(name, value, "which this version does not understand", unknown=True)

    def finish_hf(self) -> None:
        """`finish`, after what every config of the transformers library may hold."""
        self.harmless(BOOKKEEPING)
        if "quantization_config" in self:
            method = self._left["quantization_config"]
            method = method.get("quant_method", method) if isinstance(method, Mapping) else method
            raise self.refuse("quantization_config", method, "quantised weights are read from GGUF files only")
        for name, neutral in _NEUTRAL.items():
            self.must_be(name, *neutral)
        self.finish()

    def refuse(self, name: str, value: Any, why: str, *, unknown: bool = False) -> UnsupportedModelError:
        """The error for a field whose value changes the mathematics in a way that is not implemented, or that is
        `unknown`, and so may change nothing."""
        ignored = f"If you know that it changes nothing, load with ignore=({self._inside + name!r},)."
        changing = "Such a model is not supported: without it the results would be another model's."
        return UnsupportedModelError(
            f"{self.source} has {name}={_shortened(value)}: {why} (family {self.family}). "
            f"{ignored if unknown else changing}"
        )

    def _take(self, name: str, default: Any) -> Any:
        if name in self._left:
            return self._left.pop(name)
        if default is REQUIRED:
            raise CheckpointError(f"{self.source} has no {name}, which family {self.family} needs. Get a whole copy.")
        return default

    def _bad(self, name: str, value: Any, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.source} has {name}={_shortened(value)}; expected {expected}. Get a sound copy.")


def read_d_head(fields: Fields, name: str, d_model: int, n_heads: int) -> int:
    """The size of a head: its own field, or d_model shared out evenly."""
    own = fields.size(name, None)
    if own is None and d_model % n_heads:
        raise CheckpointError(
            f"{fields.source} declares {n_heads} heads, which cannot share {d_model} dimensions evenly, and no {name}."
        )
    return own or d_model // n_heads


def read_activation(fields: Fields, name: str, default: Any = REQUIRED) -> str:
    """The name of an activation function that the model knows."""
    value = fields.text(name, default)
    if value not in ACTIVATIONS:
        raise fields.refuse(name, value, f"known activation functions are {', '.join(ACTIVATIONS)}")
    return value


def read_rotary(
    fields: Fields,
    d_head: int,
    n_ctx: int,
    *,
    default_base: float = 10_000.0,
    default_part: float | None = None,
    old_names: tuple[str, str] = ("rope_theta", "partial_rotary_factor"),
) -> RotaryConfig:
    """Rotary positions as transformers 5 writes them (`rope_parameters`) or 4 (`rope_theta`, `rope_scaling`).

    With a `default_part` a family may turn only a part of each head; without, any part but the whole is refused.
    """
    base, part = fields.number(old_names[0], None), _read_part(fields, old_names[1], default_part)
    fields.must_be("rope_interleaved", False)
    name = "rope_parameters" if "rope_parameters" in fields else "rope_scaling"
    inner = fields.nested(name)
    if inner is None:
        return RotaryConfig(_turned(fields, d_head, part or default_part), base or default_base)
    if "rope_scaling" in fields:
        raise CheckpointError(f"{fields.source} has both rope_parameters and rope_scaling. Keep the one that is meant.")
    inner_base = inner.number("rope_theta", base or default_base)  # checked against the old spelling
    if base is not None and inner_base != base:
        raise CheckpointError(
            f"{fields.source} says rope_theta={base} and, in {name}, {inner_base}. Keep the one that is meant."
        )
    return read_rotary_parameters(inner, d_head, n_ctx, default_base=inner_base, default_part=part or default_part)


def read_rotary_parameters(
    inner: Fields, d_head: int, n_ctx: int, *, default_base: float, default_part: float | None = None
) -> RotaryConfig:
    """What stands inside `rope_parameters`, all of it."""
    base = inner.number("rope_theta", default_base)
    part = _read_part(inner, "partial_rotary_factor", default_part) or default_part
    scaling = _read_scaling(inner, n_ctx)
    inner.finish()
    return RotaryConfig(_turned(inner, d_head, part), base, scaling=scaling)


def _read_part(fields: Fields, name: str, default: float | None) -> float | None:
    """The part of each head that is turned, where a family may choose it."""
    if default is None:
        fields.must_be(name, 1.0, 1)
        return None
    part = fields.number(name, None)
    if part is not None and part > 1:
        raise fields.refuse(name, part, "only a part of a head, up to 1, can be turned")
    return part


def _turned(fields: Fields, d_head: int, part: float | None) -> int:
    dim = d_head if part is None else int(d_head * part)
    if dim % 2 or not dim:
        raise CheckpointError(
            f"{fields.source} gives heads of {dim} dimensions to turn; rotary positions need an even number."
        )
    return dim


def _read_scaling(inner: Fields, n_ctx: int) -> RotaryScaling | None:
    legacy = inner.text("type", "default")
    kind = inner.text("rope_type", legacy)
    if kind == "default":
        return None
    if kind == "linear":
        return RotaryScaling("linear", inner.number("factor"))
    if kind == "llama3":
        factor, low, high = (inner.number(name) for name in ("factor", "low_freq_factor", "high_freq_factor"))
        if low >= high:
            raise inner.refuse("low_freq_factor", low, f"it must be below high_freq_factor={high}")
        return RotaryScaling("llama3", factor, low, high, inner.context("original_max_position_embeddings", n_ctx))
    raise inner.refuse("rope_type", kind, "known kinds of rotary scaling are default, linear, llama3")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
