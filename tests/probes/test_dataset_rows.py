"""What a dataset is: rows, places, blocks, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.errors import InputError
from probes.data import Place, ProbeDataset

RESID, Z = "blocks.3.hook_resid_pre", "decoder.blocks.2.cross_attn.hook_z"


def made(n: int = 6, **changes: Any) -> ProbeDataset:
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"text": range(n), "pos": 0, "token": "a", "group": list("aabbcc")[:n], "type": "a"})
    table["where"] = ["here", "there"] * (n // 2)
    parts: dict[str, Any] = {
        "activations": {RESID: generator.normal(size=(n, 5)), Z: generator.normal(size=(n, 3, 2))},
        "table": table,
        "labels": pd.DataFrame({"x": ["a", "b", None] * (n // 3), "y": [0.5, np.nan, 1.0] * (n // 3)}),
    }
    return ProbeDataset(**{**parts, **changes})


def test_places_are_tensors_or_their_heads_and_spell_themselves() -> None:
    assert [str(place) for place in made().places] == [
        "resid_pre.3",
        *(f"decoder.cross_attn.z.2.{h}" for h in range(3)),
    ]
    assert [place.layer for place in made().places] == [3, 2, 2, 2] and Place("hook_embed").layer == -1
    assert [made().width(place) for place in made().places] == [5, 2, 2, 2]


def test_rows_of_a_place_are_those_of_its_head() -> None:
    found = made()
    np.testing.assert_array_equal(found.rows(Place(Z, 1), [4, 0]), found.activations[Z][[4, 0], 1])
    np.testing.assert_array_equal(found.rows(Place(RESID)), found.activations[RESID])


def test_blocks_are_all_rows_once() -> None:
    found = made()
    blocks = list(found.blocks(RESID, size=4))
    assert [(part.start, part.stop) for part, _ in blocks] == [(0, 4), (4, 6)]
    np.testing.assert_array_equal(np.concatenate([x for _, x in blocks]), found.activations[RESID])


def test_labels_may_be_missing_and_targets_unknown() -> None:
    assert made().labelled("x").tolist() == [True, True, False] * 2
    assert made().labelled("y").tolist() == [True, False, True] * 2
    with pytest.raises(InputError, match=r"no label 'w'\. There are x, y"):
        made().labelled("w")


def test_selected_rows_take_the_twin_along() -> None:
    found = made(random_init=made()).select([5, 1])
    assert len(found) == 2 and found.table["text"].tolist() == [5, 1] and found.table.index.tolist() == [0, 1]
    assert found.random_init is not None and found.random_init.table["text"].tolist() == [5, 1]


def test_rows_are_chosen_by_columns_of_the_table() -> None:
    assert made().having(where="there").table["text"].tolist() == [1, 3, 5]
    assert made().having(where="here", group=["b", "c"]).table["text"].tolist() == [2, 4]
    assert made().having(text=3).table["text"].tolist() == [3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"place": "here"}, "no column 'place'.*where"),
        ({"where": "nowhere"}, "No row has 'nowhere' as its where. There are 'here', 'there'"),
        ({"where": "here", "text": 1}, "No row has all of"),
    ],
)
def test_columns_that_choose_nothing_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made().having(**columns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": pd.DataFrame({"text": range(6)})}, "no column 'pos'"),
        ({"activations": {}}, "nothing to probe"),
        ({"labels": pd.DataFrame(index=range(6))}, "nothing to probe"),
        ({"labels": pd.DataFrame({"x": ["a"]})}, "6 rows, 1 labels"),
        ({"activations": {RESID: np.zeros((4, 5))}}, r"activations of \[4\] rows"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**changes)


def test_what_was_read_for_the_baseline_alone_was_not_asked_for() -> None:
    found = made(about={"embedding": RESID, "baseline_only": [RESID]})
    assert found.embedding == RESID and {place.site for place in found.asked} == {Z}
    assert made().embedding is None and made().asked == made().places
