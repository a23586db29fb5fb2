"""Patched targets equal plain hooked passes, alone and together, at all positions and at some."""

from __future__ import annotations

import numpy as np
import pytest

import interp
from interp.errors import InputError
from tests.causal.methods.plain import agree, cached, is_double, judge, pairs_for, put, run, text_of

Z = "blocks.{}.attn.hook_z"
ASKED = ["0.1", ("attn_out", 0), ["0.0", "0.2", "1.1"], "resid_pre.1", ["0.3", "attn_out.1"]]
MEANT = [
    [(Z.format(0), 1)],
    [("blocks.0.hook_attn_out", None)],
    [(Z.format(0), 0), (Z.format(0), 2), (Z.format(1), 1)],
    [("blocks.1.hook_resid_pre", None)],
    [(Z.format(0), 3), ("blocks.1.hook_attn_out", None)],
]


def oracle(model, pairs, direction, places=None):
    """Metric `[pair target]` with each target's sites copied from the other run, at `places` (None: everywhere)."""
    into, source = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    patched, base = np.zeros((len(pairs), len(MEANT))), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, into, pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for number, parts in enumerate(MEANT):
            hooks = []
            for site, head in parts:
                new = cached(model, text_of(pairs, source, pair), [site])[site]
                pos = slice(None) if places is None else list(places(pair))
                hooks.append((site, put(new, pos, *(() if head is None else (head,)))))
            patched[pair, number] = judge(pairs, pair, run(model, text, hooks))
    return patched, base


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_targets_are_those_of_hooks_that_copy_them(model, direction):
    pairs = pairs_for(model)
    patched, base = oracle(model, pairs, direction)
    got = interp.patch(model, pairs, ASKED, over=("target",), direction=direction)
    agree(got, patched, base, double=is_double(model))
    assert list(got.values["target"].values)[2] == "0.0 + 0.2 + 1.1" and got.about["site"].startswith("z, attn_out")


@pytest.mark.parametrize("at", ["subject", "subject:last", 0, [1, 2]])
def test_targets_may_be_patched_at_some_positions_only(model, at):
    pairs = pairs_for(model)

    def places(pair):
        if isinstance(at, str):
            return pairs.span(at, pair)
        return at if isinstance(at, list) else [at]

    patched, base = oracle(model, pairs, "denoise", places)
    got = interp.patch(model, pairs, ASKED, over="target", at={"pos": at})
    agree(got, patched, base, double=is_double(model))


def test_a_head_as_a_target_is_the_head_of_the_grid(llama):
    pairs = pairs_for(llama)
    grid = interp.patch(llama, pairs, "z", over=("layer", "head"))
    alone = interp.patch(llama, pairs, "heads", over=("target",))
    np.testing.assert_allclose(alone.values.values, grid.values.values.reshape(len(pairs), -1), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": {"layer": 1}}, "only their 'pos' can be restricted"),
        ({"at": {"pos": 9}}, "has position 9"),
        ({"at": {"pos": "verb"}}, "no position named 'verb'"),
        ({"window": 2}, "Leave window="),
        ({"ungroup": True}, "Leave window= and ungroup="),
        ({"site": ["9.9"]}, "There is no head 9.9"),
        ({"site": []}, "There are no targets"),
    ],
)
def test_what_cannot_be_patched_is_refused(llama, options, message):
    with pytest.raises(InputError, match=message):
        interp.patch.plan(llama, pairs_for(llama), **{"site": ["0.1"], "over": ("target",), **options})
