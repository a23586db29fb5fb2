"""Encoder-decoders: every method is what plain hooked passes say, in the encoder, the decoder and between them."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from tests.causal.methods.plain import agree, cached, is_double, judge, model_named, pairs_for, put, run, text_of
from tests.causal.methods.test_path_patch import oracle as paths

E, D = "encoder.blocks.{}.{}", "decoder.blocks.{}.{}"
pytestmark = pytest.mark.usefixtures("unchecked")


def two(model_of, name):
    """A model with two stacks; BART's layout adds its roundings up, so it is held to float64's bound."""
    return model_of(name, double=name == "bart")


@pytest.fixture(params=["two_stacks", "t5", "bart"])
def model(request, model_of):
    return two(model_of, request.param)


# ---- causal tracing ----


@pytest.mark.parametrize("site", ["encoder.resid_post", "decoder.resid_post", "decoder.cross_attn.z"])
def test_noise_is_on_the_encoders_subject_and_either_stack_is_restored(model, site):
    pairs = pairs_for(model)[[0, 3]]
    generator = torch.Generator().manual_seed(3)
    sigma = 3.0 * float(model.encoder.embed.weight.detach().float().std()) * model.encoder.config.embed_scale
    stack, in_encoder = site.partition(".")[0], site.startswith("encoder")
    n_layers = model.cfg.stacks[stack].n_layers
    names = [str(model.sites.resolve(f"{site}.{layer}")) for layer in range(n_layers)]
    n_pos = max(len(row) for row in (pairs.clean if in_encoder else pairs.clean_decoder))
    patched, base = np.full((2, n_layers, n_pos), np.nan), np.zeros(2)
    for pair, span in enumerate([[2, 3], [1, 2]]):
        text = text_of(pairs, "clean", pair)
        clean = cached(model, text, names)
        added = torch.zeros(len(pairs.clean[pair]), model.cfg.d_model)
        added[span] = torch.randn(2, model.cfg.d_model, generator=generator) * sigma
        start = [("encoder.blocks.0.hook_resid_pre", lambda x, hook, added=added: x + added.to(x))]
        base[pair] = judge(pairs, pair, run(model, text, start))
        for layer, name in enumerate(names):
            for pos in range(len((pairs.clean if in_encoder else pairs.clean_decoder)[pair])):
                hooks = [*start, (name, put(clean[name], pos))]
                patched[pair, layer, pos] = judge(pairs, pair, run(model, text, hooks))
    got = interp.causal_trace(model, pairs, draws=1, seed=3, site=site, metric="logit_diff")
    agree(got, patched, base, double=is_double(model))
    assert (np.abs(got.base - got.source) > 1e-3).all(), "the noise is felt"
    assert np.nanmax(np.abs(got.values)) > 1e-6, "restoring is felt"


# ---- knockouts ----


def blocked(queries, keys, heads):
    def write(x, hook):
        for head in heads:
            for query in queries:
                x[0, head, query, keys] = -torch.inf

    return write


SUBJECT = [[2, 3], [1], [3, 4], [1, 2], [2]]


def knocked(model, pairs, sites, queries, keys, cells):
    """Metric `[pair cell]`; a cell is {layer: heads}."""
    patched, base = np.zeros((len(pairs), len(cells))), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, "clean", pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for i, cell in enumerate(cells):
            hooks = [(sites.format(at), blocked(queries[pair], keys[pair], heads)) for at, heads in cell.items()]
            patched[pair, i] = judge(pairs, pair, run(model, text, hooks))
    return patched, base


CROSS = "decoder.blocks.{}.cross_attn.hook_attn_scores"


def test_what_the_decoder_reads_of_the_source_can_be_taken_from_it(model):
    pairs = pairs_for(model)
    reads = [[one] for one in pairs.read]
    layers = [{layer: range(4)} for layer in range(2)]
    expected = knocked(model, pairs, CROSS, reads, SUBJECT, layers)
    for queries in ("read", -1):
        got = interp.knockout(model, pairs, queries, "subject", sublayer="cross_attn")
        agree(got, *expected, double=is_double(model))
    assert got.about["site"] == "decoder.cross_attn.attn_scores" and (np.abs(got.values) > 1e-7).all()
    heads = ["decoder.cross_attn.0.1", "decoder.cross_attn.1.3"]
    some = interp.knockout(model, pairs, "read", ["subject", -1], heads=heads, over=())
    keys = [[*span, len(row) - 1] for span, row in zip(SUBJECT, pairs.clean, strict=True)]
    patched, base = knocked(model, pairs, CROSS, reads, keys, [{0: [1], 1: [3]}])
    agree(some, patched[:, 0], base, double=is_double(model))


def test_the_encoders_own_attention_can_be_cut(model):
    pairs = pairs_for(model)
    n_layers = model.encoder.config.n_layers
    got = interp.knockout(model, pairs, 0, "subject", stack="encoder", over=("layer", "head"))
    cells = [{layer: [head]} for layer in range(n_layers) for head in range(4)]
    scores = "encoder.blocks.{}.attn.hook_attn_scores"
    patched, base = knocked(model, pairs, scores, [[0]] * 5, SUBJECT, cells)
    agree(got, patched.reshape(5, n_layers, 4), base, double=is_double(model))
    assert np.abs(got.values).max() > 1e-6


def test_an_encoder_is_asked_at_its_mask(model_of):
    model = model_of("encoder")
    pairs = pairs_for(model)
    got = interp.knockout(model, pairs, "read", 1)
    scores = "blocks.{}.attn.hook_attn_scores"
    reads = [[one] for one in pairs.read]
    agree(got, *knocked(model, pairs, scores, reads, [[1]] * 5, [{0: range(4)}, {1: range(4)}]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "read", "sublayer": "cross_attn"}, "'read' is a position in the decoder's text"),
        ({"queries": "subject", "sublayer": "cross_attn"}, "'subject' is a position in the encoder's text"),
        ({"stack": "encoder", "sublayer": "cross_attn", "queries": 0}, "There is no cross-attention here"),
        ({"stack": "middle"}, "There is no stack 'middle'. Give 'encoder', 'decoder'"),
        ({"sublayer": "mlp"}, "sublayer is 'mlp'"),
        ({"heads": ["decoder.attn.0.1", "decoder.cross_attn.0.1"]}, "those of decoder.attn and decoder.cross_attn"),
        ({"heads": ["decoder.attn.0.1"], "sublayer": "cross_attn"}, "those of decoder.attn"),
        ({"sublayer": "cross_attn", "keys": [0, 1, 2, 3, 4, 5]}, "left with no key"),
    ],
)
def test_edges_that_are_not_there_are_refused(model_of, options, message):
    model = model_of("two_stacks")
    with pytest.raises(InputError, match=message):
        interp.knockout(model, pairs_for(model)[[0]], **{"queries": -1, "keys": 0, **options})


# ---- heads of both stacks ----


def ablated(model, pairs, meant):
    patched, base = np.zeros((len(pairs), len(meant))), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, "clean", pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for i, parts in enumerate(meant):
            hooks = [(site, put(0.0, slice(None), *(() if head is None else (head,)))) for site, head in parts]
            patched[pair, i] = judge(pairs, pair, run(model, text, hooks))
    return patched, base


def z_of(model, stack, sublayer):
    form = f"{stack}.blocks.{{}}.{sublayer}.hook_z"
    return [[(form.format(layer), head)] for layer in range(model.cfg.stacks[stack].n_layers) for head in range(4)]


def test_every_head_is_every_head_of_the_model(model):
    pairs = pairs_for(model)[[0, 3]]
    kinds = {
        "encoder.heads": z_of(model, "encoder", "attn"),
        "decoder.heads": z_of(model, "decoder", "attn"),
        "decoder.cross_attn.heads": z_of(model, "decoder", "cross_attn"),
    }
    every = interp.ablate(model, pairs, "heads")
    agree(every, *ablated(model, pairs, list(chain(*kinds.values()))), double=is_double(model))
    names = every.values["target"].values.tolist()
    assert names[0] == "encoder.attn.0.0" and names[-1] == "decoder.cross_attn.1.3"
    parts = [interp.ablate(model, pairs, kind) for kind in kinds]
    assert list(chain(*(one.values["target"].values.tolist() for one in parts))) == names
    np.testing.assert_array_equal(np.concatenate([one.values for one in parts], axis=1), every.values)
    listed = interp.ablate(model, pairs, ["decoder.cross_attn.heads", "encoder.mlp_out.0"])
    assert listed.values.shape == (2, 9)


def test_a_set_may_be_in_both_stacks(model):
    pairs = pairs_for(model)[[0, 3]]
    asked = ["decoder.cross_attn.1.2", "encoder.attn.1.0", "decoder.mlp_out.0"]
    meant = [
        (D.format(1, "cross_attn.hook_z"), 2),
        (E.format(1, "attn.hook_z"), 0),
        (D.format(0, "hook_mlp_out"), None),
    ]
    patched, base = ablated(model, pairs, [meant])
    agree(interp.ablate(model, pairs, [asked]), patched, base, double=is_double(model))
    agree(interp.ablate(model, pairs, asked, joint=True), patched, base, double=is_double(model))
    keys = ["decoder.cross_attn.k.0", "encoder.attn.0.1"]
    meant = [(D.format(0, "cross_attn.hook_k"), None), (E.format(0, "attn.hook_z"), 1)]
    agree(interp.ablate(model, pairs, [keys]), *ablated(model, pairs, [meant]), double=is_double(model))


def test_targets_of_both_stacks_are_patched(model):
    pairs = pairs_for(model)[[0, 3]]
    asked = ["encoder.attn.0.1", "decoder.cross_attn.0.2", ["decoder.mlp_out.1", "encoder.mlp_out.0"]]
    meant = [
        [(E.format(0, "attn.hook_z"), 1)],
        [(D.format(0, "cross_attn.hook_z"), 2)],
        [(D.format(1, "hook_mlp_out"), None), (E.format(0, "hook_mlp_out"), None)],
    ]
    patched, base = np.zeros((2, 3)), np.zeros(2)
    for pair in range(2):
        text = text_of(pairs, "corrupt", pair)
        base[pair] = judge(pairs, pair, run(model, text))
        for i, parts in enumerate(meant):
            new = cached(model, text_of(pairs, "clean", pair), [site for site, _ in parts])
            hooks = [(s, put(new[s], slice(None), *(() if head is None else (head,)))) for s, head in parts]
            patched[pair, i] = judge(pairs, pair, run(model, text, hooks))
    agree(interp.patch(model, pairs, asked, over="target"), patched, base, double=is_double(model))


def test_a_head_without_its_stack_is_told_all_there_are(model_of):
    model = model_of("two_stacks")
    ways = "Write encoder.attn.1.0 or decoder.attn.1.0 or decoder.cross_attn.1.0"
    with pytest.raises(InputError, match=ways):
        interp.ablate(model, pairs_for(model), ["1.0"])
    with pytest.raises(InputError, match=r"no heads called 'cross.heads'. Choose from heads, encoder.heads"):
        interp.ablate(model, pairs_for(model), "cross.heads")


# ---- paths ----

SENT = {
    "decoder.attn.0.1": [(D.format(0, "attn.hook_z"), 1)],
    "decoder.cross_attn.0.2": [(D.format(0, "cross_attn.hook_z"), 2)],
    "decoder.mlp_out.0": [(D.format(0, "hook_mlp_out"), None)],
}
RULES = [("recompute", "recompute"), ("freeze", "freeze")]


@pytest.mark.parametrize(("mlps", "norms"), RULES)
@pytest.mark.parametrize("receivers", [None, "decoder.cross_attn.1.1.q", "decoder.attn.1.0.k", "decoder.mlp_pre.1"])
def test_paths_inside_the_decoder_leave_the_encoder_as_it_is(model, receivers, mlps, norms):
    pairs = pairs_for(model)[[0, 3]]
    ends = {
        None: None,
        "decoder.cross_attn.1.1.q": [(D.format(1, "cross_attn.hook_q"), 1)],
        "decoder.attn.1.0.k": [(D.format(1, "attn.hook_k"), 0)],
        "decoder.mlp_pre.1": [(D.format(1, "mlp.hook_pre"), None)],
    }[receivers]
    got = interp.path_patch(model, pairs, list(SENT), receivers or "logits", mlps=mlps, norms=norms)
    agree(got, *paths(model, pairs, list(SENT.values()), ends, mlps, norms), double=is_double(model))
    assert np.abs(got.values).max() > 1e-6


ENCODED = {
    "encoder.attn.0.1": [(E.format(0, "attn.hook_z"), 1)],
    "encoder.attn.1.3": [(E.format(1, "attn.hook_z"), 3)],
    "encoder.mlp_out.0": [(E.format(0, "hook_mlp_out"), None)],
}


@pytest.mark.parametrize(("mlps", "norms"), RULES)
def test_paths_lead_from_the_encoder_to_what_cross_attention_reads(model, mlps, norms):
    pairs = pairs_for(model)[[0, 3]]
    for direction, names, ends in (
        ("noise", ["decoder.cross_attn.1.0.k"], [(D.format(1, "cross_attn.hook_k"), 0)]),
        (
            "denoise",
            ["decoder.cross_attn.0.1.v", "decoder.cross_attn.k.1"],
            [(D.format(0, "cross_attn.hook_v"), 1), (D.format(1, "cross_attn.hook_k"), None)],
        ),
    ):
        got = interp.path_patch(model, pairs, list(ENCODED), names, mlps=mlps, norms=norms, direction=direction)
        expected = paths(model, pairs, list(ENCODED.values()), ends, mlps, norms, direction)
        agree(got, *expected, double=is_double(model))
        assert np.abs(got.values).max() > 1e-7


def test_paths_inside_the_encoder_end_in_what_the_decoder_says(model):
    pairs = pairs_for(model)[[0, 3]]
    ends = [(E.format(1, "attn.hook_q"), 2)]
    got = interp.path_patch(model, pairs, ["encoder.attn.0.1", "encoder.attn.1.3"], "encoder.attn.1.2.q")
    meant = [ENCODED["encoder.attn.0.1"], ENCODED["encoder.attn.1.3"]]
    agree(got, *paths(model, pairs, meant, ends), double=is_double(model))
    assert np.abs(got.values[:, 0]).max() > 1e-7 and (got.values[:, 1] == 0).all()


def test_all_heads_that_can_send_do(model_of):
    model = model_of("two_stacks")
    pairs = pairs_for(model)[[0]]
    senders = {
        "logits": ["decoder.attn.0.0", "decoder.cross_attn.1.3"],
        "decoder.cross_attn.0.0.k": ["encoder.attn.0.0", "encoder.attn.2.3"],
        "encoder.attn.1.0.q": ["encoder.attn.0.0", "encoder.attn.2.3"],
    }
    for receivers, ends in senders.items():
        names = interp.path_patch(model, pairs, receivers=receivers).values["sender"].values
        assert [names[0], names[-1]] == ends


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        ("encoder.attn.0.0", "logits", "which only cross-attention's keys and values read. Let them receive"),
        ("encoder.attn.0.0", "decoder.attn.1.0.q", "which only cross-attention's keys and values read"),
        ("decoder.attn.0.0", "encoder.attn.1.0.q", "no path leads from it into the encoder"),
        ("decoder.attn.0.0", "decoder.cross_attn.1.0.k", "no path leads from it into the encoder or what is made"),
        ("heads", ["decoder.cross_attn.1.0.k", "decoder.cross_attn.1.0.q"], "receivers are of several kinds"),
        ("decoder.attn.0.0", "1.0.q", "names no stack"),
        ("decoder.attn.0.0", "decoder.cross_attn_out.1", "cannot receive"),
    ],
)
def test_paths_that_there_are_not_are_refused(model_of, senders, receivers, message):
    model = model_of("two_stacks")
    with pytest.raises(InputError, match=message):
        interp.path_patch.plan(model, pairs_for(model), senders, receivers)


def test_both_kinds_of_run_share_one_sweep_in_little_memory():
    model = model_named("two_stacks")
    pairs = pairs_for(model)
    whole = interp.ablate(model, pairs, "heads")
    small = interp.ablate(model, pairs, "heads", max_bytes=150_000)
    np.testing.assert_allclose(small.values, whole.values, atol=2e-5)
