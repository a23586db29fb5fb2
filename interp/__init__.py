"""Mechanistic interpretability: open a transformer, see every head, and find out which heads do what, causally.

Names are imported when first used, so `import interp` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import interp.batch as batch
    import interp.dynamics as dynamics
    import interp.planted as planted
    import interp.readers as readers
    import interp.tasks as tasks
    from interp.atlas.make import atlas as atlas
    from interp.batch.spec import Sweep as Sweep
    from interp.causal.ablation import ablate as ablate
    from interp.causal.attribution import attribute as attribute
    from interp.causal.edits import Edit as Edit
    from interp.causal.edits import load_edits as load_edits
    from interp.causal.edits import run_with_edits as run_with_edits
    from interp.causal.edits import save_edits as save_edits
    from interp.causal.edits import steer as steer
    from interp.causal.knockout import knockout as knockout
    from interp.causal.patching import patch as patch
    from interp.causal.paths import path_patch as path_patch
    from interp.causal.tracing import causal_trace as causal_trace
    from interp.circuits.composition import composition as composition
    from interp.circuits.cues import cue_competition as cue_competition
    from interp.circuits.explain import explain_attention as explain_attention
    from interp.circuits.factored import FactoredMatrix as FactoredMatrix
    from interp.circuits.faithfulness import graph_faithfulness as graph_faithfulness
    from interp.circuits.graph import attention_graph as attention_graph
    from interp.circuits.heads_ov import ov as ov
    from interp.circuits.lens import lens as lens
    from interp.circuits.logit_attribution import logit_attribution as logit_attribution
    from interp.circuits.mlp_memory import mlp_memory as mlp_memory
    from interp.circuits.qk import qk as qk
    from interp.circuits.tuned import TunedLens as TunedLens
    from interp.dynamics.emerge import emergence as emergence
    from interp.errors import InterpError as InterpError
    from interp.families.load import load as load
    from interp.heads.find import find_heads as find_heads
    from interp.model.cache import ActivationCache as ActivationCache
    from interp.model.config import ModelConfig as ModelConfig
    from interp.model.fold import fold_norms as fold_norms
    from interp.model.transformer import HookedTransformer as HookedTransformer
    from interp.pairs import PromptPairs as PromptPairs
    from interp.readers.evaluate import evaluate as evaluate
    from interp.report.make import report as report
    from interp.results import Effects as Effects
    from interp.results import HeadScores as HeadScores
    from interp.runs.store import RunStore as RunStore
    from interp.sites import Head as Head
    from interp.sites import Site as Site
    from interp.sites import get_act_name as get_act_name
    from interp.walk.through import walkthrough as walkthrough

_HOMES = {
    "ActivationCache": "interp.model.cache",
    "Edit": "interp.causal.edits",
    "Effects": "interp.results",
    "FactoredMatrix": "interp.circuits.factored",
    "Head": "interp.sites",
    "HeadScores": "interp.results",
    "HookedTransformer": "interp.model.transformer",
    "InterpError": "interp.errors",
    "ModelConfig": "interp.model.config",
    "PromptPairs": "interp.pairs",
    "RunStore": "interp.runs.store",
    "Site": "interp.sites",
    "Sweep": "interp.batch.spec",
    "TunedLens": "interp.circuits.tuned",
    "ablate": "interp.causal.ablation",
    "attention_graph": "interp.circuits.graph",
    "attribute": "interp.causal.attribution",
    "causal_trace": "interp.causal.tracing",
    "composition": "interp.circuits.composition",
    "cue_competition": "interp.circuits.cues",
    "emergence": "interp.dynamics.emerge",
    "evaluate": "interp.readers.evaluate",
    "explain_attention": "interp.circuits.explain",
    "find_heads": "interp.heads.find",
    "fold_norms": "interp.model.fold",
    "get_act_name": "interp.sites",
    "graph_faithfulness": "interp.circuits.faithfulness",
    "knockout": "interp.causal.knockout",
    "lens": "interp.circuits.lens",
    "load": "interp.families.load",
    "load_edits": "interp.causal.edits",
    "logit_attribution": "interp.circuits.logit_attribution",
    "mlp_memory": "interp.circuits.mlp_memory",
    "ov": "interp.circuits.heads_ov",
    "patch": "interp.causal.patching",
    "path_patch": "interp.causal.paths",
    "qk": "interp.circuits.qk",
    "run_with_edits": "interp.causal.edits",
    "save_edits": "interp.causal.edits",
    "steer": "interp.causal.edits",
    "walkthrough": "interp.walk.through",
}
_ROOMS = {
    "atlas",
    "batch",
    "dynamics",
    "metrics",
    "planted",
    "readers",
    "report",
    "tasks",
}  # whole rooms that are reached as interp.NAME; `atlas` and `report` are called, too
__all__ = [
    "ActivationCache",
    "Edit",
    "Effects",
    "FactoredMatrix",
    "Head",
    "HeadScores",
    "HookedTransformer",
    "InterpError",
    "ModelConfig",
    "PromptPairs",
    "RunStore",
    "Site",
    "Sweep",
    "TunedLens",
    "ablate",
    "atlas",
    "attention_graph",
    "attribute",
    "batch",
    "causal_trace",
    "composition",
    "cue_competition",
    "dynamics",
    "emergence",
    "evaluate",
    "explain_attention",
    "find_heads",
    "fold_norms",
    "get_act_name",
    "graph_faithfulness",
    "knockout",
    "lens",
    "load",
    "load_edits",
    "logit_attribution",
    "mlp_memory",
    "ov",
    "patch",
    "path_patch",
    "planted",
    "qk",
    "readers",
    "report",
    "run_with_edits",
    "save_edits",
    "steer",
    "tasks",
    "walkthrough",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"interp.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
