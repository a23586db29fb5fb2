"""A patched cell is what a whole forward pass under a hook gives: for every layout, site, direction and kind of grid;
what cannot matter is 0 bit for bit; interruption, memory and threads change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp.causal import wave
from interp.causal.bundles import Bundle, Op
from interp.causal.texts import Text, run_texts
from interp.causal.wave import Wave
from interp.errors import HookError
from interp.model.transformer import HookedTransformer
from interp.pairs import PromptPairs
from interp.sites import Site
from tests.causal.conftest import LAYOUTS, agree, asked, changed, compare, model_named, pairs_for, rows
from tests.causal.oracle import site_names
from tests.model.conftest import ZOO, randomize

SITES = [(name, site) for name in LAYOUTS for site in site_names(model_named(name))]
ModelOf = Callable[[str], HookedTransformer]
# Checks of shapes take two thirds of the time of tiny models: a test of their own keeps them on.
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(("name", "site"), SITES)
def test_every_site_of_every_layout_denoises_as_a_hook_does(model_of: ModelOf, name: str, site: str) -> None:
    model = model_of(name)
    compare(model, pairs_for(model), site, ("layer", "pos"))


@pytest.mark.parametrize(("name", "site"), SITES)
def test_every_site_of_every_layout_noises_as_a_hook_does(model_of: ModelOf, name: str, site: str) -> None:
    """By head, key/value head or a few neurons where the site has them, and with windows of two layers."""
    model = model_of(name)
    over, at = _spread(model, site)
    compare(model, pairs_for(model), site, over, at=at, direction="noise", window=2)


@pytest.mark.parametrize("name", ["llama", "gptj", "encoder", "two_grouped"])
def test_every_shape_inside_is_as_declared(model_of: ModelOf, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of different lengths pass through the checked signatures; the numbers stay."""
    model = model_of(name)
    for site in site_names(model):
        unchecked = interp.patch(model, pairs_for(model), site)
        with monkeypatch.context() as checked:
            checked.setattr(jaxtyping.config, "jaxtyping_disable", False)
            same = interp.patch(model, pairs_for(model), site)
        np.testing.assert_array_equal(same.values.values, unchecked.values.values)


def _spread(model: HookedTransformer, site: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    axes = next(one for one in map(lambda n: _site(model, site, n), range(3)) if one is not None).axes
    if "d_mlp" in axes:
        return ("layer", "neuron"), {"neuron": [0, 7, 23]}
    unit = next((axis for axis in ("head", "kv_head") if axis in axes), None)
    return (("layer", unit) if unit else ("layer",)), {}


def _site(model: HookedTransformer, site: str, layer: int) -> Site | None:
    return next((one for one in model.sites if one.layer == layer and _is(model, site, one)), None)


def _is(model: HookedTransformer, short: str, site: Site) -> bool:
    try:
        return model.sites.resolve(f"{short}.{site.layer}") == site
    except interp.InterpError:
        return False


GRIDS: list[tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]]] = [
    ("resid_pre", ("pos",), {}, {}),
    ("resid_post", ("pos", "layer"), {}, {}),
    ("resid_pre", ("layer",), {"pos": -1}, {}),
    ("resid_pre", ("layer",), {"pos": ["subject:first", -1]}, {}),
    ("resid_pre", ("layer",), {"position": "subject"}, {}),
    ("resid_pre", ("layer", "pos"), {"pos": [5, 2], "layer": [1, 0]}, {}),
    ("attn_out", ("layer", "position"), {}, {}),
    ("mlp_out", ("position", "layer"), {"position": ["verb:last", "subject"]}, {"window": 2}),
    ("attn_out", ("layer", "pos"), {}, {"window": 2}),
    ("mlp_out", ("layer", "pos"), {"layer": [1]}, {"window": 3}),
    ("mlp_out", ("pos",), {"layer": [0, 1]}, {}),
    ("z", ("layer", "head", "pos"), {}, {}),
    ("result", ("head", "pos"), {"layer": 1}, {}),
    ("z", ("layer",), {"head": [3, 0]}, {"window": 2}),
    ("q", ("layer", "head"), {"pos": [3, -1]}, {}),
    ("q", ("layer", "head"), {}, {"ungroup": True}),
    ("z", ("layer", "head"), {}, {"ungroup": True}),
    ("pattern", ("layer", "head", "pos"), {}, {}),
    ("attn_scores", ("layer", "head"), {"pos": "verb"}, {"window": 3}),
    ("k", ("layer", "kv_head", "pos"), {}, {}),
    ("v", ("kv_head", "layer"), {"pos": "subject"}, {"window": 2}),
    ("mlp_post", ("layer", "neuron", "pos"), {"neuron": [0, 5, 23], "layer": [0, 1]}, {}),
    ("mlp_pre", ("neuron",), {"neuron": [1, 2]}, {}),
]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("name", ["llama", "uneven", "double", "encoder_grouped"])
def test_grids_windows_and_restrictions_agree_with_hooks(model_of: ModelOf, name: str, direction: str) -> None:
    model = model_of(name)
    pairs = pairs_for(model)
    for site, over, at, options in GRIDS:
        compare(model, pairs, site, over, at=at, direction=direction, **options)


@pytest.mark.parametrize("name", ["llama", "window", "softcap", "neox", "uneven", "encoder_grouped"])
def test_one_query_heads_keys_and_values_agree_with_attention_by_its_formula(model_of: ModelOf, name: str) -> None:
    """neox has a key/value head for each query head."""
    model = model_of(name)
    pairs = pairs_for(model)
    for site in ("k", "v", "rot_k") if model.main.config.blocks[0].attn.rotary else ("k", "v"):
        compare(model, pairs, site, ("layer", "head"), ungroup=True)
        compare(model, pairs, site, ("layer", "head", "pos"), ungroup=True, direction="noise")
        compare(model, pairs, site, ("layer",), at={"head": [1, 2, 3][: 2 if name == "uneven" else 3]}, ungroup=True)
        compare(model, pairs, site, ("layer",), at={"head": [0, 1]}, ungroup=True)


def test_one_query_heads_keys_and_values_of_two_stacks_agree_with_the_formula(model_of: ModelOf) -> None:
    model = model_of("two_grouped")
    pairs = pairs_for(model)
    for part in ("encoder", "decoder.cross_attn", "decoder"):
        for site in ("k", "v"):
            compare(model, pairs, f"{part}.{site}", ("layer", "head"), ungroup=True)
            compare(model, pairs, f"{part}.{site}", ("layer", "head", "pos"), at={"head": [1, 2]}, ungroup=True)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_earlier_read_is_felt_only_by_what_stands_before_it(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    pairs = pairs_for(model, read=[3, 2, 4])
    for site in ("resid_pre", "k", "z", "pattern", "mlp_out"):
        got = compare(model, pairs, site, ("layer", "pos"))
        assert (got.values.values[0, :, 4:6] == 0).all() and (got.values.values[2, :, 5:] == 0).all()
    if name == "llama":
        compare(model, pairs, "k", ("layer", "head", "pos"), ungroup=True)


@pytest.mark.parametrize("name", ["llama", "attention_only", "encoder", "two_stacks", "double"])
def test_every_metric_agrees_with_its_formula(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    site = "decoder.resid_pre" if name == "two_stacks" else "resid_pre"
    several = [[3, 9], [17], [20, 1, 2]]
    for metric in ("logit_diff", "logit", "prob", "log_prob", "log_prob_diff", "kl", _margin):
        for combine in ("mean", "logsumexp"):
            pairs = pairs_for(model, answer=several, combine=combine)
            for direction in ("denoise", "noise"):
                compare(model, pairs, site, ("layer", "pos"), metric=metric, direction=direction)


@pytest.mark.parametrize("name", ["llama", "gpt2", "two_grouped"])
def test_answers_of_several_tokens_are_read_behind_each_other(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    sites = ("resid_pre", "z", "pattern") if name != "two_grouped" else ("encoder.z", "decoder.resid_mid_cross")
    pairs = pairs_for(model, answer=[(3, 9, 12), 17, (20, 2)], foil=[4, (8, 5), (21, 7, 7, 1)])
    for metric in ("log_prob", "log_prob_diff"):
        for site in sites:
            for over in (("layer", "pos"), ("layer",)):
                compare(model, pairs, site, over, metric=metric)
                compare(model, pairs, site, over, metric=metric, direction="noise")


def _margin(logits: Tensor, pair: Tensor) -> Tensor:
    """Another token for each pair, against the best."""
    return logits.gather(1, pair[:, None] + 5)[:, 0] - logits.amax(1)


def test_the_oracle_says_the_same_with_one_run_for_each_cell(model_of: ModelOf) -> None:
    model = model_of("llama")
    for site, over in (("z", ("layer", "head")), ("resid_pre", ("layer", "pos"))):
        one, many = (asked(model, pairs_for(model), site, over, at_once=n).patched for n in (1, 256))
        np.testing.assert_allclose(one, many, atol=2e-5)


# ---- what must be exactly nothing, or everything ----


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("name", ["llama", "gptj", "attention_only", "window", "softcap"])
def test_shared_prefixes_and_identical_prompts_have_no_effect_bit_for_bit(
    model_of: ModelOf, name: str, direction: str
) -> None:
    model = model_of(name)
    pairs = pairs_for(model)
    for site in ("resid_pre", "z", "k", "pattern"):
        values = interp.patch(model, pairs, site, direction=direction).values.values
        assert (values[0, :, :2] == 0).all() and (values[2, :, :4] == 0).all()
        assert (values[1, :, :4] == 0).all() and np.isnan(values[1, :, 4:]).all()
        assert (values[0, :, 2] != 0).all() or site != "resid_pre"


@pytest.mark.parametrize("name", LAYOUTS)
def test_patching_a_run_with_itself_changes_nothing_bit_for_bit(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    pairs = pairs_for(model)
    sides = {"corrupt": pairs.clean, "corrupt_decoder": pairs.clean_decoder}
    for site in site_names(model)[::4]:
        values = interp.patch(model, replace(pairs, **sides), site).values.values
        assert (values[~np.isnan(values)] == 0).all()


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("name", [name for name in LAYOUTS if "two" not in name])
def test_all_positions_of_a_residual_cut_carry_the_source(model_of: ModelOf, name: str, direction: str) -> None:
    model = model_of(name)
    for cut in ("resid_pre", "resid_mid", "resid_post"):
        if cut in site_names(model) and not (cut == "resid_mid" and name == "uneven"):
            got = interp.patch(model, pairs_for(model), cut, ("layer",), direction=direction)
            assert got.source is not None
            np.testing.assert_allclose(
                got.patched.values, np.repeat(got.source[:, None], len(got.values.layer), 1), atol=2e-5
            )
            np.testing.assert_allclose(got.normalize("pooled").mean().values, 1, atol=1e-4)


def test_the_encoders_output_and_the_decoders_text_carry_the_source(model_of: ModelOf) -> None:
    """The first pair's prompts differ in the encoder alone, the third's in the decoder alone."""
    got = interp.patch(model_of("two_stacks"), pairs_for(model_of("two_stacks")), "encoder.resid_post", ("layer",))
    assert got.source is not None
    np.testing.assert_allclose(got.patched.values[0], got.source[0], atol=2e-5)
    assert (got.values.values[1:] == 0).all()
    got = interp.patch(model_of("two_stacks"), pairs_for(model_of("two_stacks")), "decoder.resid_pre", ("layer",))
    np.testing.assert_allclose(got.patched.values[2], got.source[2], atol=2e-5)


def test_positions_of_cross_attentions_keys_are_the_encoders(model_of: ModelOf) -> None:
    model = model_of("two_stacks")
    for site in ("cross_attn.k", "decoder.cross_attn.k", "decoder.cross_attn.v"):
        got = compare(model, pairs_for(model), site, ("layer", "pos"))
        assert got.values.sizes["pos"] == 7
        compare(model, pairs_for(model), site, ("layer", "position"))
    assert compare(model, pairs_for(model), "cross_attn.q", ("layer", "pos")).values.sizes["pos"] == 5


# ---- an edit that never applies ----


def _wave(model: HookedTransformer) -> Wave:
    texts = [Text((3, 4, 5, 6), (3,)), Text((7, 8, 9), (2,))]
    resid = [("", layer) for layer in range(3)]
    return Wave(model, run_texts(model, texts, resid=resid, keys=True), {})


def test_an_edit_of_a_tensor_that_the_pass_does_not_make_raises(model_of: ModelOf) -> None:
    model = model_of("gptj")
    made = Wave(model, run_texts(model, [Text((3, 4, 5), (2,))], resid=[("", 0), ("", 1)], keys=True), {})
    for site in (Site("hook_resid_mid", "", 0), Site("hook_pre_linear", "mlp", 0), Site("hook_normalized", "ln2", 1)):
        where = 1 if site.layer == 0 else 2
        with pytest.raises(HookError, match="never applied"):
            made.run([Bundle(0, torch.tensor([0]), (Op(site, (where,)),), where)])


def test_an_edit_of_scores_that_the_pass_does_not_make_raises(model_of: ModelOf) -> None:
    made = _wave(model_of("llama"))
    with pytest.raises(HookError, match="never applied"):
        made.run([Bundle(0, torch.tensor([0]), (Op(Site("hook_pattern", "cross_attn", 0), (3,)),), 3)])


@pytest.mark.parametrize(
    "op",
    [
        Op(Site("hook_resid_pre", "", 0), (4,)),  # behind its text: the other text's first token
        Op(Site("hook_resid_pre", "", 0), (1,)),  # before its start: another cell's last token
        Op(Site("hook_resid_pre", "", 0, "encoder"), (3,)),  # in a stack that the model does not have
        Op(Site("hook_resid_pre", "", 7), (3,)),  # in a layer that it does not have
    ],
)
def test_an_edit_outside_its_own_cell_raises(model_of: ModelOf, op: Op) -> None:
    made = _wave(model_of("llama"))
    fine = Op(Site("hook_resid_pre", "", 0), (3,))
    with pytest.raises((AssertionError, HookError, ValueError, KeyError)):
        made.run(
            [
                Bundle(0, torch.tensor([0, 1]), (fine, op), 2),
                Bundle(1, torch.tensor([0]), (replace(fine, pos=(2,)),), 2),
            ]
        )


# ---- memory, interruption, threads ----


@pytest.mark.parametrize("name", ["llama", "encoder", "two_stacks", "softcap"])
def test_little_memory_means_many_groups_and_chunks_and_the_same_numbers(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    sites = ("encoder.z", "decoder.pattern", "decoder.cross_attn.v") if name == "two_stacks" else ("z", "pattern", "k")
    for site in sites:
        for metric in ("logit_diff", "kl"):
            unit = "kv_head" if site.endswith(("k", ".v")) else "head"
            make = partial(interp.patch.plan, model, pairs_for(model), site, ("layer", unit, "pos"), metric=metric)
            whole, little = make().run(), _least(make)
            chunks: list[int] = []
            parts = little.run(lambda done, total, chunks=chunks: chunks.append(done))
            assert len(chunks) > 10 and chunks == sorted(chunks)
            np.testing.assert_allclose(parts.values.values, whole.values.values, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "window", "encoder", "two_grouped"])
@pytest.mark.parametrize("slab", [1, 9, 24])
def test_cells_that_go_through_a_layer_in_slabs_get_the_same_numbers(
    model_of: ModelOf, name: str, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name)
    sites = ("resid_pre", "z", "pattern", "k", "mlp_out")
    if name == "two_grouped":
        sites = ("encoder.z", "decoder.z", "decoder.cross_attn.pattern", "decoder.cross_attn.k", "decoder.cross_attn.q")
    monkeypatch.setattr(wave, "_SLAB", slab)
    for site in sites:
        (over, _), metric = _spread(model, site), "log_prob"
        compare(model, pairs_for(model), site, (*over, "pos"), metric=metric)


def _least(make: Callable[..., Any]) -> Any:
    """A plan with the least memory that it takes."""
    try:
        make(max_bytes=1).run()
    except interp.InterpError as error:
        return make(max_bytes=int(str(error).split("Give ")[1].split(" or")[0].replace(",", "")))
    raise AssertionError("one byte was enough")


def test_the_plan_counts_every_cell_once(model_of: ModelOf) -> None:
    model = model_of("llama")
    plan = interp.patch.plan(model, pairs_for(model), "resid_pre")
    got = plan.run()
    values = got.values.values
    absent = int(np.isnan(values).sum())
    assert absent == 3 * (1 + 3 + 0)
    # 6 − 2 positions of the first pair can matter, none of the second, 7 − 4 of the third; all in every layer
    assert plan.cost.cells == 3 * (4 + 0 + 3)
    assert plan.cost.cells + plan.cost.skipped + absent == values.size
    assert f"{plan.cost.cells:,} to compute, {plan.cost.skipped:,} known to be 0" in str(plan)
    assert (values == 0).sum() >= plan.cost.skipped
    last = interp.patch.plan(model, pairs_for(model), "mlp_out").cost  # of the last layer only the read position
    assert last.cells == 3 * (4 + 3) - 3 - 2
    encoder = interp.patch.plan(model_of("encoder"), pairs_for(model_of("encoder")), "resid_pre").cost
    assert encoder.cells == 2 * (6 + 0 + 7) and encoder.skipped == 2 * 4


def test_an_interrupted_plan_keeps_what_was_finished_and_goes_on_from_there(model_of: ModelOf) -> None:
    model, pairs = model_of("llama"), pairs_for(model_of("llama"))
    whole = interp.patch(model, pairs, "z", ("layer", "head", "pos"))
    plan = _least(partial(interp.patch.plan, model, pairs, "z", ("layer", "head", "pos")))
    reached: list[int] = []

    def stop(done: int, total: int) -> None:
        reached.append(done)
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        plan.run(stop)
    finished = caught.value.partial
    assert finished.about["partial"] is True and "partial" in repr(finished)
    made = ~np.isnan(finished.values.values)
    total = plan.cost.cells
    assert 0 < reached[-1] < total and made.sum() >= reached[-1]
    assert made.sum() < (~np.isnan(whole.values.values)).sum()
    np.testing.assert_allclose(finished.values.values[made], whole.values.values[made], atol=1e-4)
    again: list[int] = []
    done = plan.run(lambda done, total: again.append(done))
    assert 0 < again[0] <= reached[-1] and again[-1] == total
    assert "partial" not in done.about
    np.testing.assert_allclose(done.values.values, whole.values.values, atol=1e-4)
    np.testing.assert_array_equal(plan.partial.values.values, done.values.values)


def test_an_interruption_before_the_first_cell_leaves_only_nan(model_of: ModelOf) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    model = model_of("llama")
    plan = interp.patch.plan(model, pairs_for(model), "resid_pre", progress=stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        plan.run()
    assert np.isnan(caught.value.partial.values.values).all() and caught.value.partial.about["partial"] is True
    plan.progress = None
    np.testing.assert_array_equal(
        plan.run().values.values, interp.patch(model, pairs_for(model), "resid_pre").values.values
    )


def test_threads_may_sweep_one_model_at_once(model_of: ModelOf) -> None:
    model, pairs = model_of("llama"), pairs_for(model_of("llama"))
    jobs = [("z", ("layer", "head", "pos"), "denoise"), ("pattern", ("layer", "pos"), "noise")] * 3
    alone = [interp.patch(model, pairs, *job[:2], direction=job[2]) for job in jobs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda job: interp.patch(model, pairs, *job[:2], direction=job[2]), jobs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.values.values, other.values.values)


def test_a_sweep_makes_no_gradients_and_does_not_mind_their_being_on(model_of: ModelOf) -> None:
    model = model_of("llama")
    with torch.enable_grad():
        interp.patch(model, pairs_for(model), "z", ("layer", "head"))
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- at random ----


@pytest.mark.parametrize("seed", range(40))
def test_random_questions_agree_with_hooks(model_of: ModelOf, seed: int) -> None:
    """Layout, texts, site, axes, restrictions, window, metric and direction drawn at random."""
    rng = random.Random(seed)
    name = rng.choice(list(LAYOUTS))
    model = model_of(name)
    pairs, two = _random_pairs(model, rng), len(model.cfg.stacks) == 2
    site = rng.choice(site_names(model))
    (_, *units), at = _spread(model, site)
    along = [["pos"], ["position"], []][rng.choice([0, 2] if two else [0, 1, 2])]
    over = ["layer"] * rng.randint(0, 1) + along + units * rng.randint(0, 1)
    if not over:
        over = ["layer"]
    rng.shuffle(over)
    at = {axis: value for axis, value in at.items() if axis in over}
    if not along and not two and rng.random() < 0.5:
        at["pos"] = rng.choice([-1, 0, [0, -1], "subject", ["subject:last", 1]])
    metric = rng.choice(["logit_diff", "logit", "prob", "log_prob", "log_prob_diff", "kl"])
    window = rng.randint(1, 3) if "layer" in over else 1
    compare(
        model, pairs, site, tuple(over), at=at, window=window, metric=metric, direction=rng.choice(["denoise", "noise"])
    )


def _random_pairs(model: HookedTransformer, rng: random.Random) -> PromptPairs:
    lengths = [rng.randint(1, 8) for _ in range(rng.randint(1, 4))]
    clean = rows(lengths, rng.randint(0, 99))
    corrupt = [changed(row, *rng.sample(range(len(row)), rng.randint(0, len(row)))) for row in clean]
    given: dict[str, Any] = {"positions": {"subject": [sorted({rng.randrange(n), rng.randrange(n)}) for n in lengths]}}
    read_lengths = lengths
    if len(model.cfg.stacks) == 2:
        read_lengths = [rng.randint(1, 5) for _ in lengths]
        given["clean_decoder"] = rows(read_lengths, rng.randint(0, 99))
        given["corrupt_decoder"] = [changed(row, *rng.sample(range(len(row)), 1)) for row in given["clean_decoder"]]
    if rng.random() < 0.5:
        given["read"] = [rng.randrange(n) for n in read_lengths]
    elif model.cfg.decoder is None:
        given["read"] = -1  # an encoder has to be told
    answers = rng.sample(range(50), 2 * len(lengths))
    return PromptPairs.from_tokens(clean, corrupt, answers[::2], answers[1::2], **given)


# ---- elsewhere ----


def test_in_bfloat16_the_numbers_are_those_of_hooks_but_for_rounding() -> None:
    model = randomize(HookedTransformer(ZOO["llama"], dtype=torch.bfloat16))
    pairs = pairs_for(model)
    for site in ("resid_pre", "z", "pattern", "k", "mlp_post"):
        got = interp.patch(model, pairs, site)
        agree(got, asked(model, pairs, site), tolerance=0.06)
        wide = interp.patch(model_named("llama"), pairs, site)
        assert np.nanmax(np.abs(got.values.values - wide.values.values)) < 0.25


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["llama", "softcap", "encoder", "two_stacks"])
def test_on_a_gpu_the_numbers_are_the_same(name: str) -> None:
    model = randomize(HookedTransformer(LAYOUTS[name])).to("cuda")
    for site in site_names(model):
        agree(interp.patch(model, pairs_for(model), site), asked(model, pairs_for(model), site), tolerance=1e-3)


@pytest.mark.slow
def test_smollm2_is_patched_as_hooks_would(smollm2: Any) -> None:
    texts = [f"When Mary and John went to the store, {name} gave a drink to" for name in ("John", "Mary")]
    pairs = PromptPairs.from_text(smollm2, *texts, " Mary", " John")
    at = {"layer": [0, 12, 29]}
    for direction in ("denoise", "noise"):
        got = interp.patch(smollm2, pairs, "resid_pre", at=at, direction=direction)
        agree(got, asked(smollm2, pairs, "resid_pre", at=at, direction=direction, at_once=7), tolerance=2e-5)
        at_heads = {"layer": [23]}
        got = interp.patch(smollm2, pairs, "z", ("layer", "head"), at=at_heads, direction=direction)
        expected = asked(smollm2, pairs, "z", ("layer", "head"), at=at_heads, direction=direction, at_once=3)
        agree(got, expected, tolerance=2e-5)
