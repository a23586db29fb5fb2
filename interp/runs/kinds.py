"""Kinds of results that a store can hold: their name in a manifest, and the class that writes and reads them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from interp.errors import InputError, InterpError, StorageError

__all__ = ["kind_of", "known_kinds", "load_results", "register_kind"]

# Named by "module:class" and imported on use, so that a store is listed without pandas or torch. A class needs
# `save(folder)` and `load(folder)`; its `about` may name the model.
_HOMES = {
    "heads": "interp.results.heads:HeadScores",
    "effects": "interp.results.effects:Effects",
    "logit_attribution": "interp.results.logit_attribution:LogitAttribution",
    "lens": "interp.results.lens:Lens",
    "attention_graph": "interp.results.attention_graph:AttentionGraph",
    "mlp_memory": "interp.results.mlp_memory:MLPMemory",
    "tuned_lens": "interp.circuits.tuned:TunedLens",
    "explanation": "interp.results.explanation:AttentionExplanation",
    "cue_competition": "interp.results.cues:CueCompetition",
    "walkthrough": "interp.results.walkthrough:Walkthrough",
    "composition": "interp.results.composition:CompositionScores",
    "head_table": "interp.results.tables:HeadTable",
    "evaluation": "interp.results.evaluation:Evaluation",
    "report": "interp.report.results:Report",
    "atlas": "interp.atlas.results:Atlas",
    "emergence": "interp.dynamics.results:Emergence",
    "playback": "interp.dynamics.played:Playback",
    "conflict": "interp.dynamics.conflict:ConflictResult",
    "emergence_order": "interp.dynamics.ordering:Order",
    "atlas_comparison": "interp.atlas.comparison:Comparison",
}
# Those of packages that stand above interp, such as probes.
_HOMES.update({one.name: one.value for one in entry_points(group="interp.results") if one.name not in _HOMES})


def register_kind(name: str, home: str) -> None:
    """Let stores hold another class of results. `home` is "module:class"."""
    if _HOMES.setdefault(name, home) != home:
        raise InputError(f"Results of kind {name!r} are already {_HOMES[name]}. Give {home} another name.")


def known_kinds() -> tuple[str, ...]:
    """The kinds this version can read."""
    return tuple(_HOMES)


def kind_of(results: Any) -> str:
    """The kind of a result, by its class or one that it derives from."""
    classes = {f"{one.__module__}:{one.__qualname__}" for one in type(results).__mro__}
    for name, home in _HOMES.items():
        if home in classes:
            return name
    raise InputError(f"A store cannot hold a {type(results).__name__}. It holds {', '.join(sorted(_HOMES.values()))}.")


def load_results(kind: str, folder: Path) -> Any:
    """Read results of a kind from their folder; `StorageError` for whatever stands in the way."""
    if kind not in _HOMES:
        raise StorageError(f"{folder} holds results of kind {kind!r}; this version reads {', '.join(_HOMES)}.")
    module, _, name = _HOMES[kind].partition(":")
    loader = getattr(import_module(module), name)
    try:
        return loader.load(folder)
    except InterpError:
        raise
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        raise StorageError(f"Cannot read the {kind} results in {folder}: {error}") from error
