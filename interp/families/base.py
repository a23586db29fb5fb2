"""What a checkpoint family is, and the registry that finds them.

A new architecture is one new file in this folder that ends in `FAMILY = Family(...)`: how its config becomes a
`ModelConfig`, and a table of its weight names. Nothing else has to be told about it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.errors import CheckpointError, InputError, InterpError, UnsupportedModelError
from interp.families.fields import Fields
from interp.model.config import ModelConfig

__all__ = [
    "Checkpoint",
    "Family",
    "GGUFDialect",
    "GGUFTensors",
    "WeightRule",
    "WeightTable",
    "families",
    "family_for_gguf",
    "family_for_hf",
    "family_named",
]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Split = Callable[[Tensor, ModelConfig], Sequence[Tensor]]
Join = Callable[[Sequence[Tensor], ModelConfig], Tensor]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What every road ends in: a config, weights under our names (perhaps memory-mapped), perhaps a tokenizer.

    `afterwards` is called once the model stands; it may start work in the background.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: Any = None
    afterwards: Callable[[], None] | None = None


@dataclass(frozen=True)
class WeightRule:
    """One stored tensor (or one per layer, `{l}`) and the tensors that it becomes.

    Without `split` it is taken as it lies. With it, `split(tensor, config)` gives one tensor per target: the parts of
    a fused q/k/v, a transposed Conv1D, rows in another order. A target `…{every}…` is filled for every layer: they
    share the tensor. A `fallback` serves where no other tensor gives its target, as an embedding does that is stored
    once for several places; with tied embeddings it must not differ from the other.

    `join` undoes `split` where weights are written back. `written` says for which models they are, where several names
    stand for one target.
    """

    source: str
    targets: tuple[str, ...]
    split: Split | None = None
    fallback: bool = False
    join: Join | None = None
    written: Callable[[ModelConfig], bool] = lambda config: True

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return _name_pattern(self.source)

    def back(self, weights: Tensors, config: ModelConfig, layer: int) -> tuple[Tensor, list[str]] | None:
        """The stored tensor that the targets of one layer become, and their names; None where they are not there.

        Raises `InputError` where places that share the stored tensor have come to differ.
        """
        places = [
            [target.format(l=layer, every=every) for every in range(config.n_layers if "{every}" in target else 1)]
            for target in self.targets
        ]
        names = [name for part in places for name in part]
        if not self.written(config) or any(name not in weights for name in names):
            return None
        shared = places if self.join else [names]  # without a join, every target is the stored tensor itself
        assert self.join or self.split is None or len(self.targets) > 1, self.source
        for part in shared:
            differing = next((name for name in part if not _same(weights[part[0]], weights[name])), None)
            if differing is None:
                continue
            if self.fallback and not config.tie_word_embeddings:
                return None  # each has a name of its own
            raise InputError(
                f"{part[0]} and {differing} differ, but {self.source} holds them as one tensor. Change them alike."
            )
        parts = [weights[part[0]] for part in shared]
        return (self.join(parts, config) if self.join else parts[0]), names


@dataclass(frozen=True)
class WeightTable:
    """All tensor names of one naming scheme. `harmless`: buffers that may be there and are not needed.

    `prefix` is left out by checkpoints that hold the bare stack without its head (`model.`, `transformer.`).
    """

    rules: tuple[WeightRule, ...]
    harmless: tuple[str, ...] = ()
    prefix: str = ""

    def refuse_unknown(self, names: Iterable[str], source: str, ignore: Iterable[str] = ()) -> None:
        """Raise `UnsupportedModelError` for a tensor that no rule takes and no list excuses."""
        for name in names:
            if name not in ignore and self._find(name) is None and not self._is_harmless(name):
                raise UnsupportedModelError(
                    f"{source} holds a tensor {name!r} that this family's mathematics has no place for. A head behind "
                    f"the residuals can be left out: ignore=({name!r},). What the layers compute with cannot."
                )

    def knows(self, name: str) -> bool:
        """Whether a rule takes this tensor."""
        return self._find(name) is not None

    def rule_for(self, name: str) -> WeightRule | None:
        found = self._find(name)
        return found and found[0]

    def is_fallback(self, name: str) -> bool:
        found = self._find(name)
        return found is not None and found[0].fallback

    def convert(self, name: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
        """The tensors that one stored tensor becomes, under their new names; nothing for a harmless one."""
        found = self._find(name)
        if found is None:
            return
        rule, indices = found
        try:
            parts = rule.split(tensor, config) if rule.split else (tensor,)
        except InterpError:
            raise
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{name} has shape {tuple(tensor.shape)}, which does not fit the config. Get a sound copy."
            ) from error
        for target, part in zip(rule.targets, parts, strict=True):
            for layer in range(config.n_layers if "{every}" in target else 1):
                yield target.format(**indices, every=layer), part

    def revert(self, weights: Tensors, config: ModelConfig) -> dict[str, Tensor]:
        """The inverse of `convert`, for all tensors at once: every name that a whole live model has, tied ones too."""
        stored: dict[str, Tensor] = {}
        left = set(weights)
        n_layers = max(stack.n_layers for stack in config.stacks.values())
        for rule in self.rules:
            for layer in range(n_layers) if "{l}" in rule.source else (0,):
                if found := rule.back(weights, config, layer):
                    stored[rule.source.format(l=layer)] = found[0]
                    left -= set(found[1])
        if left:
            raise InputError(
                f"The family's checkpoints have no place for {min(left)}, which this model has. "
                "state_dict() gives all weights under our own names."
            )
        return stored

    def _find(self, name: str) -> tuple[WeightRule, dict[str, str]] | None:
        for spelled in (name, self.prefix + name):
            for rule in self._by_shape.get(_shape(spelled), ()):
                if match := rule.pattern.fullmatch(spelled):
                    return rule, match.groupdict()
        return None

    def _is_harmless(self, name: str) -> bool:
        return any(pattern.fullmatch(spelled) for pattern in self._excused for spelled in (name, self.prefix + name))

    @cached_property
    def _by_shape(self) -> dict[str, list[WeightRule]]:
        table: dict[str, list[WeightRule]] = {}
        for rule in self.rules:
            table.setdefault(_shape(re.sub(r"\{\w+\}", "0", rule.source)), []).append(rule)
        return table

    @cached_property
    def _excused(self) -> list[re.Pattern[str]]:
        return [_name_pattern(name) for name in self.harmless]


@runtime_checkable
class GGUFTensors(Protocol):
    """The tensors of a GGUF file as a dialect may look at them before anything large is read."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def tensor(self, name: str) -> Tensor:
        """One tensor in float32."""
        ...


@dataclass(frozen=True)
class GGUFDialect:
    """How llama.cpp's converter writes a family.

    `to_hf_config` reads the `<architecture>.*` metadata (every key, or it is refused) into the fields of the family's
    own config; `table` leads from GGUF names to the names of the hub, undoing what the converter did to the tensors.
    """

    architectures: tuple[str, ...]
    to_hf_config: Callable[[Fields, GGUFTensors], dict[str, Any]]
    table: WeightTable


@dataclass(frozen=True)
class Family:
    """Checkpoints of one kind: which configs it reads, what its tensors are called, what it refuses."""

    name: str
    hf_model_types: tuple[str, ...]
    read_config: Callable[[Fields], ModelConfig]
    table: WeightTable
    gguf: GGUFDialect | None = None
    fit: Callable[[ModelConfig, Tensors], ModelConfig] = lambda config, tensors: config  # what only tensors tell
    computed: Callable[[ModelConfig], dict[str, Tensor]] = lambda config: {}  # what a checkpoint need not store
    refuses: tuple[str, ...] = field(default=(), compare=False)  # for people: `interp models`

    def config_from_hf(
        self, hf: Mapping[str, Any], *, source: str = "config.json", ignore: Iterable[str] = ()
    ) -> ModelConfig:
        """A `ModelConfig`, or `UnsupportedModelError` naming the field that changes the mathematics."""
        fields = Fields(hf, source, self.name, ignore=ignore)
        try:
            config = self.read_config(fields)
        except InputError as error:  # sizes that contradict each other are the file's fault here
            raise CheckpointError(f"{source}: {error}") from error
        fields.finish_hf()
        return config

    def fitted(self, config: ModelConfig, tensors: Tensors) -> ModelConfig:
        """The config with what only tensors tell: a bare stack (`LlamaModel`), whose names lack the table's prefix and
        which ties no embedding to the logits, has no head."""
        config = self.fit(config, tensors)
        prefix = self.table.prefix
        bare = prefix and not any(name.startswith(prefix) for name in tensors)
        if not bare or not config.has_unembed or config.tie_word_embeddings:
            return config
        heads = ("unembed.weight" in rule.targets for name in tensors if (rule := self.table.rule_for(name)))
        return config if any(heads) else config.headless()

    def weights_from_hf(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, *, source: str, ignore: Iterable[str] = ()
    ) -> dict[str, Tensor]:
        """Tensors under the hub's names -> under ours, not copied where a rule takes them as they lie."""
        ignore = tuple(ignore)
        self.table.refuse_unknown(tensors, source, ignore)
        weights: dict[str, Tensor] = {}
        for name in sorted((name for name in tensors if name not in ignore), key=self.table.is_fallback):
            may_repeat = self.table.is_fallback(name)
            for target, part in self.table.convert(name, tensors[name], config):
                if target not in weights:
                    weights[target] = _checked_kind(part, name, source)
                elif not may_repeat or (config.tie_word_embeddings and not _same(weights[target], part)):
                    raise CheckpointError(f"{source} holds {target} twice, once as {name}. Get a sound copy.")
        for target, tensor in self.computed(config).items():
            weights.setdefault(target, tensor)
        return _tied(weights, config, source) if config.tie_word_embeddings else weights

    def weights_to_hf(self, weights: Tensors, config: ModelConfig) -> dict[str, Tensor]:
        """Tensors under our names -> under the hub's, not copied where a rule takes them as they lie."""
        return self.table.revert(weights, config)


@cache
def families() -> tuple[Family, ...]:
    """Every `FAMILY` that a module of this folder defines, by name."""
    package = importlib.import_module("interp.families")
    modules = (
        importlib.import_module(f"interp.families.{info.name}") for info in pkgutil.iter_modules(package.__path__)
    )
    found = [module.FAMILY for module in modules if isinstance(getattr(module, "FAMILY", None), Family)]
    return tuple(sorted(found, key=lambda family: family.name))


def family_for_hf(hf: Mapping[str, Any], source: str) -> Family:
    """The family that a hub config belongs to; the model's own code (`auto_map`) is never run."""
    kind = hf.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise CheckpointError(f"{source} has no model_type, so its architecture is unknown. Get a whole copy.")
    for family in families():
        if kind in family.hf_model_types:
            return family
    known = sorted(kind for family in families() for kind in family.hf_model_types)
    own = " It comes with its own code (auto_map), which is never run." if "auto_map" in hf else ""
    raise UnsupportedModelError(
        f"{source} has model_type={kind!r}, which is not supported.{own} Supported are {', '.join(known)}."
    )


def family_named(name: str) -> Family:
    """The family that a config names. Raises `InputError` for a model that was built by hand."""
    for family in families():
        if family.name == name:
            return family
    raise InputError(
        f"This model is of family {name!r}: it was not loaded from a checkpoint, so the hub has no names for its "
        "weights. state_dict() gives them under ours."
    )


def family_for_gguf(architecture: Any, source: str) -> tuple[Family, GGUFDialect]:
    """The family and dialect of a GGUF file's `general.architecture`."""
    for family in families():
        if family.gguf and architecture in family.gguf.architectures:
            return family, family.gguf
    known = sorted(name for family in families() if family.gguf for name in family.gguf.architectures)
    raise UnsupportedModelError(
        f"{source} is of architecture {architecture!r}, which is not supported. Supported are {', '.join(known)}."
    )


def _checked_kind(tensor: Tensor, name: str, source: str) -> Tensor:
    if tensor.dtype not in _FLOATS:
        raise UnsupportedModelError(
            f"{source} stores {name} as {str(tensor.dtype).removeprefix('torch.')}, which is no kind of plain weights. "
            "Give a copy in float32, float16 or bfloat16."
        )
    return tensor


def _tied(weights: dict[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """Without the unembedding, which must be the embedding where both are stored."""
    unembed = weights.pop("unembed.weight", None)
    if unembed is None:
        return weights
    stack = "encoder" if config.decoder is None else "decoder"
    if not _same(weights.setdefault(f"{stack}.embed.weight", unembed), unembed):
        raise CheckpointError(
            f"{source} says tie_word_embeddings=true, yet its unembedding differs from its embedding. "
            "Set tie_word_embeddings to false in the config, or remove the tensor that is not meant."
        )
    return weights


def _same(one: Tensor, other: Tensor) -> bool:
    if one is other or one.shape != other.shape:
        return one is other
    return (one.data_ptr() == other.data_ptr() and one.stride() == other.stride()) or bool((one == other).all())


def _shape(name: str) -> str:
    """A name without its numbers: few rules share one, so a lookup tries few patterns."""
    return re.sub(r"\d+", "#", name)


def _name_pattern(name: str) -> re.Pattern[str]:
    escaped = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(name))
    return re.compile(escaped)
