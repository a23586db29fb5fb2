"""Mechanistic interpretability: open a transformer, see every head, and find out which heads do what, causally.

Names are imported when first used, so `import interp` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.causal.patching import patch as patch
    from interp.errors import InterpError as InterpError
    from interp.families.load import load as load
    from interp.heads.find import find_heads as find_heads
    from interp.model.cache import ActivationCache as ActivationCache
    from interp.model.config import ModelConfig as ModelConfig
    from interp.model.fold import fold_norms as fold_norms
    from interp.model.transformer import HookedTransformer as HookedTransformer
    from interp.pairs import PromptPairs as PromptPairs
    from interp.results import Effects as Effects
    from interp.results import HeadScores as HeadScores
    from interp.runs.store import RunStore as RunStore
    from interp.sites import Head as Head
    from interp.sites import Site as Site
    from interp.sites import get_act_name as get_act_name

_HOMES = {
    "ActivationCache": "interp.model.cache",
    "Effects": "interp.results",
    "Head": "interp.sites",
    "HeadScores": "interp.results",
    "HookedTransformer": "interp.model.transformer",
    "InterpError": "interp.errors",
    "ModelConfig": "interp.model.config",
    "PromptPairs": "interp.pairs",
    "RunStore": "interp.runs.store",
    "Site": "interp.sites",
    "find_heads": "interp.heads.find",
    "fold_norms": "interp.model.fold",
    "get_act_name": "interp.sites",
    "load": "interp.families.load",
    "patch": "interp.causal.patching",
}
__all__ = [
    "ActivationCache",
    "Effects",
    "Head",
    "HeadScores",
    "HookedTransformer",
    "InterpError",
    "ModelConfig",
    "PromptPairs",
    "RunStore",
    "Site",
    "find_heads",
    "fold_norms",
    "get_act_name",
    "load",
    "patch",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
