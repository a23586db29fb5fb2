"""Path patching is two hooked passes (Wang 2022): in one only the senders change, the other gets what they sent."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import interp
from interp.errors import InputError
from tests.causal.methods.plain import LAYOUTS, agree, cached, is_double, judge, pairs_for, put, run, text_of

RULES = list(product(["recompute", "freeze"], repeat=2))
H = "blocks.{}.attn.hook_{}"


def first_pass(model, base, sender, source, mlps, norms):
    """Hooks that freeze everything between and set the senders: {(site, head or None)}."""
    hooks = []
    whole = {site for site, head in sender if head is None}
    for name in base:
        is_mlp, is_norm = name.endswith("hook_mlp_out"), name.endswith("hook_scale")
        frozen = name.endswith("hook_z") or (is_mlp and mlps == "freeze") or (is_norm and norms == "freeze")
        if frozen and name not in whole:
            new = base[name].clone()
            for site, head in sender:
                if site == name:
                    new[:, head] = source[name][:, head]
            hooks.append((name, put(new)))
    return hooks + [(site, put(source[site])) for site in whole]


def oracle(model, pairs, senders, receivers, mlps="recompute", norms="recompute", direction="noise"):
    """Metric `[pair sender]`; receivers None for the logits."""
    into, out_of = ("clean", "corrupt") if direction == "noise" else ("corrupt", "clean")
    names = [name for name in model.sites.names if name.endswith(("hook_z", "hook_mlp_out", "hook_scale"))]
    names += [site for sender in senders for site, _ in sender]
    names += [site for site, _ in receivers or ()]
    patched, metric = np.zeros((len(pairs), len(senders))), np.zeros(len(pairs))
    for pair in range(len(pairs)):
        text = text_of(pairs, into, pair)
        base, source = cached(model, text, names), cached(model, text_of(pairs, out_of, pair), names)
        metric[pair] = judge(pairs, pair, run(model, text))
        for i, sender in enumerate(senders):
            hooks = first_pass(model, base, sender, source, mlps, norms)
            if receivers is not None:
                ends = [site for site, _ in receivers]
                got = cached(model, text, ends, hooks)
                hooks = [
                    (site, put(got[site], *(() if head is None else (slice(None), head)))) for site, head in receivers
                ]
            patched[pair, i] = judge(pairs, pair, run(model, text, hooks))
    return patched, metric


def senders_for(model):
    z = [[(H.format(layer, "z"), head)] for layer in range(2) for head in (0, 3)]
    asked: list = ["0.0", "0.3", "1.0", "1.3", ["0.1", "0.2"], ["0.1", "1.1"]]
    z += [[(H.format(0, "z"), 1), (H.format(0, "z"), 2)], [(H.format(0, "z"), 1), (H.format(1, "z"), 1)]]
    if model.main.config.blocks[0].mlp is not None:
        asked += ["mlp_out.0", ["mlp_out.0", "1.2"]]
        z += [[("blocks.0.hook_mlp_out", None)], [("blocks.0.hook_mlp_out", None), (H.format(1, "z"), 2)]]
    return asked, z


MIXED = [(name, *rules) for name in ("llama", "gpt2") for rules in RULES[1:3]]


@pytest.mark.parametrize(
    ("name", "mlps", "norms"), [*((name, *rules) for name in LAYOUTS for rules in (RULES[0], RULES[3])), *MIXED]
)
def test_paths_to_the_logits_are_those_of_frozen_runs(model_of, name, mlps, norms):
    model = model_of(name)
    pairs, (asked, meaning) = pairs_for(model)[[0, 4]], senders_for(model)
    got = interp.path_patch(model, pairs, asked, mlps=mlps, norms=norms)
    agree(got, *oracle(model, pairs, meaning, None, mlps, norms), double=is_double(model))
    assert (got.values[1] == 0).all()  # both sides alike
    assert got.about["mlps"] == mlps and got.about["norms"] == norms and got.about["receivers"] == "logits"


RECEIVERS = {
    "1.1.q": [(H.format(1, "q"), 1)],
    ("1.0.k", "1.1.v"): [(H.format(1, "k"), 0), (H.format(1, "v"), 1)],
    ("1.0.q", "1.2.q", "1.1.k"): [(H.format(1, "q"), 0), (H.format(1, "q"), 2), (H.format(1, "k"), 1)],
    "mlp_pre.1": [("blocks.1.mlp.hook_pre", None)],
    "resid_post.1": [("blocks.1.hook_resid_post", None)],
}


@pytest.mark.parametrize("receivers", list(RECEIVERS), ids=str)
@pytest.mark.parametrize("name", ["gpt2", "neox", "attention_only", "encoder"])
def test_paths_to_inputs_of_later_heads_are_those_of_two_passes(model_of, name, receivers):
    model = model_of(name)
    mlps, norms = RULES[0] if name in ("gpt2", "encoder") else RULES[3]
    if "mlp_pre.1" in receivers and model.main.config.blocks[1].mlp is None:
        return
    pairs, (asked, meaning) = pairs_for(model)[[0, 3]], senders_for(model)
    asked_for = receivers if isinstance(receivers, str) else list(receivers)
    got = interp.path_patch(model, pairs, asked, asked_for, mlps=mlps, norms=norms)
    agree(got, *oracle(model, pairs, meaning, RECEIVERS[receivers], mlps, norms), double=is_double(model))


@pytest.mark.parametrize(("mlps", "norms"), RULES)
def test_the_rules_and_directions_hold_over_several_layers(llama, mlps, norms):
    pairs, asked = pairs_for(llama)[[0, 3]], ["0.0", "0.3", "1.1", "2.2"]
    senders = [[(H.format(int(one[0]), "z"), int(one[2]))] for one in asked]
    ends = {
        "2.1.q": [(H.format(2, "q"), 1)],
        ("1.0.q", "2.1.k", "2.3.q"): [(H.format(1, "q"), 0), (H.format(2, "k"), 1), (H.format(2, "q"), 3)],
        ("mlp_pre.1", "2.0.v"): [("blocks.1.mlp.hook_pre", None), (H.format(2, "v"), 0)],
    }
    direction = "noise" if mlps == norms else "denoise"
    for names, receivers in ends.items():
        to = names if isinstance(names, str) else list(names)
        got = interp.path_patch(llama, pairs, asked, to, direction=direction, mlps=mlps, norms=norms)
        agree(got, *oracle(llama, pairs, senders, receivers, mlps, norms, direction))
        assert got.about["direction"] == direction


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_both_directions_give_the_metric_of_the_run_copied_from(llama, direction):
    pairs = pairs_for(llama)
    got = interp.path_patch(llama, pairs, ["0.1"], direction=direction)
    to_a_head = interp.path_patch(llama, pairs, ["0.1"], "2.1.q", direction=direction)
    agree(to_a_head, *oracle(llama, pairs, [[(H.format(0, "z"), 1)]], [(H.format(2, "q"), 1)], direction=direction))
    base, source = ("clean", "corrupt") if direction == "noise" else ("corrupt", "clean")
    for side, values in ((base, got.base), (source, got.source)):
        expected = [judge(pairs, i, run(llama, text_of(pairs, side, i))) for i in range(len(pairs))]
        np.testing.assert_allclose(values, expected, atol=2e-5)
    agree(got, *oracle(llama, pairs, [[(H.format(0, "z"), 1)]], None, direction=direction))


@pytest.mark.parametrize("name", ["llama", "gpt2", "attention_only", "neox", "softcap"])
def test_with_everything_frozen_the_direct_effect_has_a_closed_form(model_of, name):
    """Δz W_O ⊙ gain / scale · (W_U[:, answer] − W_U[:, foil]); a LayerNorm takes its mean away."""
    model = model_of(name, double=True)
    pairs = pairs_for(model)
    got = interp.path_patch(model, pairs, mlps="freeze", norms="freeze")
    n_layers = model.main.config.n_layers
    sites = [H.format(layer, "z") for layer in range(n_layers)]
    norm = model.main.ln_final
    direct = np.zeros((len(pairs), n_layers * 4))
    for pair, (answer, foil, read) in enumerate(zip(pairs.answer, pairs.foil, pairs.read, strict=True)):
        clean = cached(model, text_of(pairs, "clean", pair), [*sites, "ln_final.hook_scale"])
        corrupt = cached(model, text_of(pairs, "corrupt", pair), sites)
        way = (model.unembed.weight[answer[0][0]] - model.unembed.weight[foil[0][0]]).detach()
        for layer, site in enumerate(sites):
            for head in range(4):
                change = (corrupt[site] - clean[site])[read, head] @ model.main.block(layer).attn.W_O[head].detach()
                if norm.config.kind == "layer":
                    change = change - change.mean()
                out = change * norm.gain.detach() / clean["ln_final.hook_scale"][read]
                direct[pair, layer * 4 + head] = out @ way
    np.testing.assert_allclose(got.values, direct, atol=1e-10)


def test_everything_sent_to_everything_is_the_whole_change_of_an_attention_layer(model_of):
    """In one layer's queries, keys and values all heads of the layer before are all that differs but the residual."""
    model = model_of("attention_only")
    pairs = pairs_for(model)
    senders = [["z.0", "resid_pre.0"]]
    receivers = [f"1.{head}.q" for head in range(4)] + [f"1.{head}.{one}" for head in range(2) for one in "kv"]
    got = interp.path_patch(model, pairs, senders, receivers)
    whole = interp.patch(model, pairs, "z", ("layer",), direction="noise", at={"layer": [1]})
    np.testing.assert_allclose(got.values, whole.values, atol=2e-5)


def test_senders_behind_the_receivers_send_nothing(llama):
    pairs = pairs_for(llama)
    got = interp.path_patch(llama, pairs, ["1.0", "2.1", "mlp_out.1", ["1.1", "2.2"]], ["1.0.q", "1.1.k", "0.1.v"])
    assert (got.values == 0).all()
    got = interp.path_patch(llama, pairs, ["mlp_out.1"], ["mlp_pre.1"])
    assert (got.values == 0).all()
    assert (interp.path_patch(llama, pairs[[0]], ["mlp_out.1"], ["resid_post.1"]).values != 0).all()


def test_receivers_in_front_of_the_sender_do_not_disturb_those_behind_it(llama):
    pairs = pairs_for(llama)
    got = interp.path_patch(llama, pairs, ["1.0", "0.2"], ["0.0.q", "2.1.k"])
    receivers = [(H.format(0, "q"), 0), (H.format(2, "k"), 1)]
    agree(got, *oracle(llama, pairs, [[(H.format(1, "z"), 0)], [(H.format(0, "z"), 2)]], receivers))


def test_a_sender_inside_a_frozen_mlp_is_not_frozen_with_it(llama):
    pairs = pairs_for(llama)
    inner = interp.path_patch(llama, pairs, ["mlp_post.0"], mlps="freeze", norms="freeze")
    outer = interp.path_patch(llama, pairs, ["mlp_out.0"], mlps="freeze", norms="freeze")
    np.testing.assert_allclose(inner.values, outer.values, atol=2e-5)
    assert (np.abs(outer.values[:4]) > 1e-4).all()


def test_little_memory_changes_no_number(llama):
    pairs = pairs_for(llama)
    for ends in ("logits", ["2.1.q", "1.0.k"]):
        whole = interp.path_patch(llama, pairs, receivers=ends)
        np.testing.assert_allclose(
            interp.path_patch(llama, pairs, receivers=ends, max_bytes=150_000).values, whole.values, atol=2e-5
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"receivers": ["logits", "1.0.q"]}, "Logits receive by themselves"),
        ({"receivers": []}, "There are no receivers"),
        ({"receivers": 5}, "receivers is 5"),
        ({"receivers": "1.4.q"}, r"1.4.q is not there: layer 1 has 4 heads"),
        ({"receivers": "1.2.k"}, r"1.2.k is not there: layer 1 has 2 key/value heads"),
        ({"receivers": "9.0.q"}, "It has layers 0 to 2"),
        ({"receivers": "pattern.1"}, "'pattern.1' cannot receive"),
        ({"receivers": "z.1"}, "'z.1' cannot receive"),
        ({"receivers": "attn_out.1"}, "'attn_out.1' cannot receive"),
        ({"receivers": "embed"}, "'embed' cannot receive"),
        ({"receivers": "mlp_out.1", "mlps": "freeze"}, r'mlp_out.1 cannot receive with mlps="freeze"'),
        ({"senders": "q.0"}, "q.0 cannot send"),
        ({"senders": ["0.0", "pattern.1"]}, "pattern.1 cannot send"),
        ({"senders": "0.9"}, "There is no head 0.9"),
    ],
)
def test_what_no_path_can_connect_is_refused(llama, options, message):
    with pytest.raises(interp.InterpError, match=message):
        interp.path_patch(llama, pairs_for(llama), **options)


def test_unknown_rules_are_refused(llama, unchecked):
    for options, message in (
        ({"mlps": "no"}, "mlps is 'no'"),
        ({"norms": "both"}, "norms is 'both'"),
        ({"direction": "up"}, "direction is 'up'"),
    ):
        with pytest.raises(InputError, match=message):
            interp.path_patch(llama, pairs_for(llama), **options)
