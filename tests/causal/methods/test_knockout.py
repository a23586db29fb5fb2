"""A knocked-out score is −∞ and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from tests.causal.methods.plain import agree, is_double, judge, pairs_for, run, text_of

SCORES = "blocks.{}.attn.hook_attn_scores"


def blocked(queries, keys, heads):
    """A hook that sets the scores of some heads at queries × keys to −∞."""

    def write(x, hook):
        for head in heads:
            for query in queries:
                for key in keys:
                    x[0, head, query, key] = -torch.inf

    return write


def oracle(model, pairs, queries, keys, cells):
    """Metric `[pair cell]`; a cell is {layer: heads}; queries and keys are one list for each pair."""
    patched, base = np.full((len(pairs), len(cells)), np.nan), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, "clean", pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for i, cell in enumerate(cells):
            hooks = [(SCORES.format(layer), blocked(queries[pair], keys[pair], some)) for layer, some in cell.items()]
            if hooks:
                patched[pair, i] = judge(pairs, pair, run(model, text, hooks))
    return patched, base


def windows(n_layers, width, heads):
    """`width` layers around each: one more before it than behind where the width is even."""
    return [
        {near: heads for near in range(n_layers) if layer - width // 2 <= near <= layer + (width - 1) // 2}
        for layer in range(n_layers)
    ]


READ = {"last": [[5], [5], [5], [3], [3]]}
SUBJECT = [[2, 3], [1], [3, 4], [1, 2], [2]]


@pytest.mark.parametrize("width", [1, 2])
def test_layers_lose_what_the_hook_takes(model, width):
    pairs = pairs_for(model, read=None if model.encoder is None else [5, 5, 5, 3, 3])
    got = interp.knockout(model, pairs, -1, "subject", window=width)
    n_layers = model.main.config.n_layers
    patched, base = oracle(model, pairs, READ["last"], SUBJECT, windows(n_layers, width, range(4)))
    agree(got, patched, base, double=is_double(model))
    assert got.values["layer"].values.tolist() == list(range(n_layers)) and got.about["exact"] is True
    there = [judge(pairs, i, run(model, text_of(pairs, "corrupt", i))) for i in range(len(pairs))]
    np.testing.assert_allclose(got.source, there, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "encoder"])
def test_every_grid_of_layers_and_heads_is_that_of_the_hook(model_of, name):
    model = model_of(name)
    pairs = pairs_for(model)[[0, 3]]
    n_layers = model.main.config.n_layers
    reads = [[one] for one in pairs.read]
    queries, keys = [[2, *reads[0]], [2, *reads[1]]], [[1], [1]]
    asked = [2, "read"]
    pairs = type(pairs)(
        **{
            **{field: getattr(pairs, field) for field in pairs.__dataclass_fields__},
            "positions": {**pairs.positions, "read": tuple(map(tuple, reads))},
        }
    )
    grids = {
        (): [{layer: range(4) for layer in range(n_layers)}],
        ("head",): [{layer: [head] for layer in range(n_layers)} for head in range(4)],
        ("layer", "head"): [{layer: [head]} for layer in range(n_layers) for head in range(4)],
        ("head", "layer"): [{layer: [head]} for head in range(4) for layer in range(n_layers)],
    }
    for over, cells in grids.items():
        got = interp.knockout(model, pairs, asked, 1, over=over)
        patched, base = oracle(model, pairs, queries, keys, cells)
        agree(got, patched.reshape(2, *got.values.shape[1:]), base)
        assert got.grid == over


def test_chosen_heads_are_blocked_each_in_its_own_layer(llama):
    pairs = pairs_for(llama)
    heads = {0: [1], 2: [0, 3]}
    got = interp.knockout(llama, pairs, -1, "subject:first", heads=["0.1", "2.0", "2.3"], over=())
    first = [some[:1] for some in SUBJECT]
    patched, base = oracle(llama, pairs, READ["last"], first, [heads])
    agree(got, patched[:, 0], base)
    by_layer = interp.knockout(llama, pairs, -1, "subject:first", heads=["0.1", "2.0", "2.3"])
    agree(by_layer, oracle(llama, pairs, READ["last"], first, [{0: [1]}, {}, {2: [0, 3]}])[0], base)
    windowed = interp.knockout(llama, pairs, -1, "subject:first", heads=["0.1", "2.0", "2.3"], window=3)
    cells = [{0: [1]}, heads, {2: [0, 3]}]
    agree(windowed, oracle(llama, pairs, READ["last"], first, cells)[0], base)


def test_queries_in_front_of_their_keys_lose_nothing(llama):
    pairs = pairs_for(llama)
    assert (interp.knockout(llama, pairs, 1, [2, 3], window=3).values == 0).all()
    # Behind the query that is read, too: nothing that is read feels them.
    early = pairs_for(llama, read=[2, 2, 2, 2, 2])
    assert (interp.knockout(llama, early, 3, 1).values == 0).all()


def test_the_last_layer_feels_only_what_is_read(llama):
    got = interp.knockout(llama, pairs_for(llama), 2, 1)
    assert (got.values[:, 2] == 0).all() and (got.values[:, :2] != 0).all()


def test_negative_indices_count_from_the_end_of_each_prompt(llama):
    pairs = pairs_for(llama)
    got = interp.knockout(llama, pairs, -1, [-3, -2])
    keys = [[3, 4], [3, 4], [3, 4], [1, 2], [1, 2]]
    agree(got, *oracle(llama, pairs, READ["last"], keys, windows(3, 1, range(4))))


def test_a_query_left_with_no_key_is_refused_by_name(model_of):
    llama = model_of("llama")
    pairs = pairs_for(llama)
    with pytest.raises(InputError, match="In prompt 0 the query at position 0 would be left with no key in layer 0"):
        interp.knockout(llama, pairs, 0, 0)
    with pytest.raises(InputError, match=r"the query at position 2 .* Leave it some"):
        interp.knockout(llama, pairs, 2, [0, 1, 2])
    # A window of three keys: the last of six tokens sees the last three only, in layer 0.
    window = model_of("window")
    with pytest.raises(InputError, match="position 5 would be left with no key in layer 0"):
        interp.knockout(window, pairs_for(window), -1, [-3, -2, -1])
    both = model_of("encoder_window")
    with pytest.raises(InputError, match="position 0 would be left with no key in layer 0"):
        interp.knockout(both, pairs_for(both), 0, [0, 1, 2])


def test_keys_outside_the_window_are_not_there_to_be_lost(model_of):
    for name in ("window", "encoder_window"):
        model = model_of(name)
        pairs = pairs_for(model)[[0, 1]]
        keys = [[0, 1, 2], [0, 1, 2]]
        got = interp.knockout(model, pairs, 4, [0, 1, 2])
        agree(got, *oracle(model, pairs, [[4], [4]], keys, windows(2, 1, range(4))))
        outside = interp.knockout(model, pairs, 4, [0, 1])
        assert (outside.values[:, 0] == 0).all()


def test_encoders_lose_later_keys_too(model_of):
    model = model_of("encoder")
    pairs = pairs_for(model)
    got = interp.knockout(model, pairs, 0, -1)
    agree(got, *oracle(model, pairs, [[0]] * 5, READ["last"], windows(2, 1, range(4))))
    assert (got.values[:, 0] != 0).all()


def test_decoders_over_an_encoder_are_asked_by_their_own_tokens(model_of):
    model = model_of("two_stacks")
    pairs = pairs_for(model)
    got = interp.knockout(model, pairs, -1, 1)
    queries = [[len(row) - 1] for row in pairs.clean_decoder]
    patched, base = np.zeros((5, 2)), np.zeros(5)
    for pair in range(5):
        text = text_of(pairs, "clean", pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for layer in range(2):
            hook = ("decoder." + SCORES.format(layer), blocked(queries[pair], [1], range(4)))
            patched[pair, layer] = judge(pairs, pair, run(model, text, [hook]))
    agree(got, patched, base)
    with pytest.raises(InputError, match="'subject' is a position in the encoder's text"):
        interp.knockout(model, pairs, -1, "subject")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 9}, "queries holds 9. Give a named position, or an index of the 6 tokens"),
        ({"keys": -7}, "keys holds -7"),
        ({"keys": 4}, "keys holds 4. Give a named position, or an index of the 4 tokens"),  # of the shorter prompts
        ({"keys": True}, "keys holds True"),
        ({"keys": []}, "keys is empty"),
        ({"queries": 2.5}, "queries is 2.5"),
        ({"keys": "object"}, "There is no position named 'object'"),
        ({"heads": ["mlp_out.1"]}, "heads holds mlp_out.1"),
        ({"heads": ["0.7"]}, "There is no head 0.7"),
        ({"window": 0}, "window is 0"),
        ({"over": ("pos",)}, "over is"),
        ({"over": ("layer", "layer")}, "over is"),
        ({"metric": "f1"}, "There is no metric 'f1'"),
    ],
)
def test_what_cannot_be_knocked_out_is_refused(llama, options, message):
    asked = {"queries": -1, "keys": "subject", **options}
    with pytest.raises(InputError, match=message):
        interp.knockout(llama, pairs_for(llama), **asked)
