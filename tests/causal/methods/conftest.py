"""Models of several layouts for the tests of the causal methods; each test must leave them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from interp.model.transformer import HookedTransformer
from tests.causal.methods.plain import LAYOUTS, model_named
from tests.model.conftest import _one_thread, talker, traces, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]  # fixtures of tests/model that hold here too


@pytest.fixture(params=LAYOUTS)
def model(request: pytest.FixtureRequest) -> Iterator[HookedTransformer]:
    """Every layout in turn."""
    made = model_named(request.param)
    before = traces(made)
    yield made
    _same(made, before)


@pytest.fixture
def model_of() -> Iterator[Callable[..., HookedTransformer]]:
    """Models by name."""
    asked: dict[int, tuple[HookedTransformer, Any]] = {}

    def get(name: str, **options: Any) -> HookedTransformer:
        made = model_named(name, **options)
        asked.setdefault(id(made), (made, traces(made)))
        return made

    yield get
    for made, before in asked.values():
        _same(made, before)


@pytest.fixture
def llama(model_of: Callable[..., HookedTransformer]) -> HookedTransformer:
    return model_of("llama")


def _same(model: HookedTransformer, before: Any) -> None:
    assert traces(model) == before, "the test left something on the model"
    assert all(parameter.grad is None for parameter in model.parameters()), "the test left gradients"
