"""Whatever cannot be meant is refused in one sentence, before anything is computed, and never by another library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.transformer import HookedTransformer
from tests.model.conftest import _one_thread, talker, unchecked, words

__all__ = ["_one_thread", "talker", "unchecked", "words"]

TEXT = "w1 w2 w3 w4 w5"
CALLS: dict[str, Callable[[HookedTransformer, Any], Any]] = {
    "explain": lambda model, text: interp.explain_attention(model, text, "1.1", -1, 0, against=None),
    "lens": lambda model, text: interp.lens(model, text),
    "attribution": lambda model, text: interp.logit_attribution(model, text),
    "graph": lambda model, text: interp.attention_graph(model, text),
    "memory": lambda model, text: interp.mlp_memory(model, 0, text),
    "ov.tokens": lambda model, text: interp.ov(model, "1.1").tokens(text, 0),
    "ov.attribution": lambda model, text: interp.ov(model, "1.1").attribution(text, 3),
}
NO_TEXT = ["", "   ", " ".join(["w1"] * 2000), [], [[]], 5, None, torch.tensor([[1, 2, 99999]]), [1.5, 2], ["w1", 3]]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_text(name: str, unchecked: None, talker: HookedTransformer) -> None:
    for text in NO_TEXT:
        with pytest.raises(InputError):
            CALLS[name](talker, text)
    for text in ([1, 2, 3], torch.tensor([1, 2, 3]), [[1, 2, 3]]):
        CALLS[name](talker, text)


@pytest.mark.parametrize(
    "head", ["", "1", "a.b", "-1.0", "1.-1", "1.99", "99.1", "encoder.attn.1.1", "mlp.1.1", None, 1.1]
)
def test_what_is_no_head(head: Any, unchecked: None, talker: HookedTransformer) -> None:
    for call in (
        lambda: interp.explain_attention(talker, TEXT, head, 4, 2),
        lambda: interp.ov(talker, head),
        lambda: interp.qk(talker, head),
        lambda: interp.attention_graph(talker, TEXT, heads=[head]),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("place", [5, -6, "w9", "", "w1 w3", None, 2.0, True])
def test_what_is_no_place(place: Any, unchecked: None, talker: HookedTransformer) -> None:
    for call in (
        lambda: interp.explain_attention(talker, TEXT, "1.1", place, 0),
        lambda: interp.explain_attention(talker, TEXT, "1.1", 4, place),
        lambda: interp.explain_attention(talker, TEXT, "1.1", 4, 2, against=[place]),
        lambda: interp.ov(talker, "1.1").tokens(TEXT, place),
        lambda: interp.ov(talker, "1.1").attribution(TEXT, 3, query=place),
    ):
        with pytest.raises(InputError):
            call()


def test_places_count_from_the_end_and_may_be_numpys(unchecked: None, talker: HookedTransformer) -> None:
    plain = interp.explain_attention(talker, TEXT, "1.1", 4, 2)
    for query, key in ((-1, -3), (np.int64(4), np.int64(2)), ("w5", "w3")):
        found = interp.explain_attention(talker, TEXT, "1.1", query, key)
        assert (found.about["query"], found.about["key"]) == (4, 2) and found.values.equals(plain.values)


OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("explain", {"against": 5}, "against is 5"),
    ("explain", {"against": []}, "no key to compare"),
    ("explain", {"confirm": 5}, "confirm is 5"),
    ("explain", {"confirm": []}, r"confirm is \[\]"),
    ("explain", {"confirm": ["0_mlp_out", 3]}, "confirm names 3"),
    ("explain", {"confirm": "biases"}, "no source that can be replaced"),
    ("explain", {"confirm": True, "read": 99}, "read is 99"),
    ("explain", {"confirm": True, "read": "mask"}, "stands in the text 0 times"),
    ("explain", {"foil": 3}, "Add confirm=True"),
    ("explain", {"answer": 3}, "Add confirm=True"),
    ("explain", {"read": 3}, "Add confirm=True"),
    ("graph", {"threshold": float("nan")}, "threshold is nan"),
    ("graph", {"threshold": "x"}, "threshold is 'x'"),
    ("graph", {"to": "x"}, "to is 'x'"),
    ("graph", {"to": 1.5}, "to is 1.5"),
    ("graph", {"heads": 5}, "heads is 5"),
    ("graph", {"top_k": 2.5}, "top_k is 2.5"),
    ("lens", {"pins": 5.5}, "The pin is 5.5"),
    ("lens", {"pins": [None]}, "The pin is None"),
    ("lens", {"max_bytes": 0}, "max_bytes is 0"),
    ("lens", {"max_bytes": -5}, "max_bytes is -5"),
    ("memory", {"positions": []}, "There are no positions"),
    ("memory", {"positions": [99]}, "no position 99"),
    ("memory", {"k": 0}, "k is 0"),
    ("token", {"token": None}, "token is None"),
    ("token", {"token": True}, "token is True"),
    ("token", {"k": 1.5}, "k is 1.5"),
    ("svd", {"n": 0}, "n is 0"),
    ("qk", {"n": 0}, "n is 0"),
    ("qk", {"distance": 1.5}, "distance is 1.5"),
    ("examples", {"n": 0}, "n is 0"),
    ("composition", {"n_random": "x"}, "n_random is 'x'"),
    ("faithfulness", {"reference": 5}, "reference is 5"),
    ("flow", {"query": "x"}, "query is 'x'"),
]


@pytest.mark.parametrize(("name", "options", "message"), OPTIONS)
def test_what_no_option_can_be(
    name: str, options: dict[str, Any], message: str, unchecked: None, talker: HookedTransformer
) -> None:
    graph = interp.attention_graph(talker, TEXT)
    head = interp.ov(talker, "1.1")
    calls: dict[str, Callable[..., Any]] = {
        "explain": lambda **given: interp.explain_attention(talker, TEXT, "1.1", 4, 2, **given),
        "graph": lambda **given: interp.attention_graph(talker, TEXT, **given),
        "lens": lambda **given: interp.lens(talker, TEXT, **given),
        "memory": lambda **given: interp.mlp_memory(talker, 0, TEXT, **given),
        "token": lambda **given: head.token(**{"token": "w1", **given}),
        "svd": head.svd,
        "qk": interp.qk(talker, "1.1").svd,
        "examples": head.examples,
        "composition": lambda **given: interp.composition(talker, "K", **given),
        "faithfulness": lambda **given: interp.graph_faithfulness(talker, graph, **given),
        "flow": graph.flow,
    }
    with pytest.raises(InputError, match=message):
        calls[name](**options)


def test_layers_that_there_are_not(unchecked: None, talker: HookedTransformer) -> None:
    for layer, message in (
        (99, "no layer 99"),
        ([], "There are no layers"),
        ("0", "layer is '0'"),
        (True, "layer is True"),
    ):
        with pytest.raises(InputError, match=message):
            interp.mlp_memory(talker, layer, TEXT)
    assert interp.mlp_memory(talker, -1, TEXT, tokens=10**6, k=1, n_random=0).about["layers"] == [2]


def test_a_copying_ratio_of_padded_prompts_is_refused(talker: HookedTransformer) -> None:
    from interp.circuits.ov import copying_ratio

    batch = talker.batch(["w1 w2 w3 w1", "w1 w2"])
    assert batch.mask is not None
    with pytest.raises(InputError, match="without padding"):
        copying_ratio(talker, batch)
    assert copying_ratio(talker, talker.batch(["w1 w2 w3 w1"])).shape == (3, 4)
