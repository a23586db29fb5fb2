"""Ablation replaces exactly what it says, by exactly the values it says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.model.tokens import Batch
from interp.pairs import PromptPairs
from interp.results import Effects
from interp.sites import Head
from tests.causal.methods.plain import agree, cached, is_double, judge, model_named, pairs_for, put, rows, run, text_of

Z = "blocks.{}.attn.hook_z"
# What is asked, and what that means: (site, head or None).
TARGETS = {
    "0.1": [(Z.format(0), 1)],
    "1.3": [(Z.format(1), 3)],
    ("attn_out", 0): [("blocks.0.hook_attn_out", None)],
    "resid_pre.1": [("blocks.1.hook_resid_pre", None)],
    "k.1": [("blocks.1.attn.hook_k", None)],
    "resid_post.1": [("blocks.1.hook_resid_post", None)],
    ("0.0", "0.2", "1.1"): [(Z.format(0), 0), (Z.format(0), 2), (Z.format(1), 1)],
}


def targets_for(model):
    """With an MLP where there is one, and with a set of a head and a tensor."""
    found = dict(TARGETS)
    if model.main.config.blocks[1].mlp is not None:
        found["mlp_out.1"] = [("blocks.1.hook_mlp_out", None)]
        found["0.3", "mlp_out.0"] = [(Z.format(0), 3), ("blocks.0.hook_mlp_out", None)]
    return list(found), list(found.values())


def oracle(model, pairs, meanings, value, side="clean", metric="logit_diff", only=None):
    """Metric `[pair target]` with each target's sites overwritten; `value(pair, site)` is what is written there."""
    patched, base = np.zeros((len(pairs), len(meanings))), np.zeros(len(pairs))
    for pair in only or range(len(pairs)):
        text = text_of(pairs, side, pair)
        base[pair] = judge(pairs, pair, run(model, text), metric)
        for number, parts in enumerate(meanings):
            hooks = []
            for site, head in parts:
                new = value(pair, site)
                index = () if head is None else (slice(None), head)
                hooks.append((site, put(new, *index)))
            patched[pair, number] = judge(pairs, pair, run(model, text, hooks), metric)
    return (patched, base) if only is None else (patched[only], base[only])


def some(got, only):
    """Some prompts of the effects."""
    return Effects(got.values[only], base=got.base[only])


def mean_of(model, texts, site, axes):
    """The mean of a site over prompts of one length, or over all their positions."""
    values = [cached(model, text, [site])[site].double() for text in texts]
    if axes == ("prompt",):
        return torch.stack(values).mean(0).to(model.dtype)
    return torch.cat(values).mean(0).to(model.dtype)


def filled(model, value, n_pos, axes):
    return value if axes == ("prompt",) else value.expand(n_pos, *value.shape)


def test_zeroed_targets_are_those_of_a_hook_that_writes_zeros(model):
    pairs, (asked, meanings) = pairs_for(model), targets_for(model)
    patched, base = oracle(model, pairs, meanings, lambda pair, site: 0.0, only=[0, 2, 4])
    got = interp.ablate(model, pairs, asked)
    agree(some(got, [0, 2, 4]), patched, base, double=is_double(model))
    assert got.about["exact"] is True and got.about["seed"] is None and got.about["reference"] == "none"
    there = [judge(pairs, i, run(model, text_of(pairs, "corrupt", i))) for i in range(len(pairs))]
    np.testing.assert_allclose(got.source, there, atol=2e-5)


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("at", [-1, [0, 2], ["place", "read"]])
def test_at_some_positions_the_others_keep_what_they_wrote(model_of, how, at):
    model = model_of("llama")
    pairs = pairs_for(model)
    pairs = replace(pairs, positions={"place": tuple((1, 2) for _ in range(len(pairs)))})
    asked, meanings = targets_for(model)
    groups = {0: [0, 1], 2: [2], 3: [3, 4]}

    def places(pair):
        named = {"place": [1, 2], "read": [pairs.read[pair]]}
        wanted = at if isinstance(at, list) else [at]
        found = [pos for one in wanted for pos in (named[one] if isinstance(one, str) else [one])]
        return [pos % len(pairs.clean[pair]) for pos in found]

    @cache
    def value(pair, site):
        own = cached(model, text_of(pairs, "clean", pair), [site])[site]
        texts = [text_of(pairs, "corrupt", other) for other in groups[pair]]
        new = torch.zeros_like(own) if how == "zero" else mean_of(model, texts, site, ("prompt",))
        mixed = own.clone()
        mixed[places(pair)] = new[places(pair)]
        return mixed

    # Only targets that no earlier part of the same set changes: what they "keep" is then what the clean run wrote.
    chosen = [i for i, parts in enumerate(meanings) if len({site for site, _ in parts}) == 1]
    asked, meanings = [asked[i] for i in chosen], [meanings[i] for i in chosen]
    patched, base = oracle(model, pairs, meanings, lambda pair, site: value(pair, site), only=[0, 2, 3])
    got = interp.ablate(model, pairs, asked, how, at={"pos": at})
    agree(some(got, [0, 2, 3]), patched, base)
    assert got.about["at"] == {"pos": str(at)}


def test_everywhere_is_every_position(llama):
    pairs = pairs_for(llama)
    texts = [row for row in pairs.clean if len(row) == len(pairs.clean[0])]
    for data in (pairs.select([0, 1]), texts):
        every = interp.ablate(llama, data, ["0.1"], "mean", at={"pos": list(range(len(texts[0])))})
        np.testing.assert_array_equal(every.values, interp.ablate(llama, data, ["0.1"], "mean").values)


@pytest.mark.parametrize("name", ["llama", "gpt2", "encoder", "double"])
@pytest.mark.parametrize("axes", [("prompt",), ("pos",), ("prompt", "pos")])
def test_means_are_those_of_corrupt_prompts_of_the_same_template_and_length(model_of, name, axes):
    model = model_of(name)
    pairs, (asked, meanings) = pairs_for(model), targets_for(model)
    # With positions averaged, prompts of one template count together, whatever their length.
    alike = {
        ("prompt",): [[0, 1], [2], [3, 4]],
        ("prompt", "pos"): [[0, 1, 3, 4], [2]],
        ("pos",): [[i] for i in range(5)],
    }
    group = {pair: some for some in alike[axes] for pair in some}

    @cache
    def value(pair, site):
        texts = [text_of(pairs, "corrupt", other) for other in group[pair]]
        return filled(model, mean_of(model, texts, site, axes), len(pairs.clean[pair]), axes)

    asked, meanings = asked[::2], meanings[::2]
    patched, base = oracle(model, pairs, meanings, value, only=[0, 2, 3])
    got = interp.ablate(model, pairs, asked, "mean", mean_axes=axes)
    agree(some(got, [0, 2, 3]), patched, base, double=is_double(model))
    assert got.about["reference"] == "corrupt prompts" and got.about["mean_axes"] == list(axes)


def test_references_that_are_given_take_the_place_of_the_corrupt_prompts(llama):
    pairs = pairs_for(llama)
    asked, meanings = targets_for(llama)
    others = rows([6, 6, 4, 6, 5], 7)
    by_length = {6: [others[0], others[1], others[3]], 4: [others[2]]}

    @cache
    def value(pair, site):
        return mean_of(llama, by_length[len(pairs.clean[pair])], site, ("prompt",))

    asked, meanings = asked[1::2], meanings[1::2]
    patched, base = oracle(llama, pairs, meanings, value)
    agree(interp.ablate(llama, pairs, asked, "mean", reference=others), patched, base)
    # Clean prompts of other pairs; what they answer does not matter, not even in how many tokens.
    as_pairs = PromptPairs.from_tokens(others, others, answer=[(3, 4)] * 5)
    agree(interp.ablate(llama, pairs, asked, "mean", reference=as_pairs), patched, base)


def test_references_may_be_texts(talker):
    pairs = PromptPairs.from_tokens([[7, 8, 9]], [[7, 9, 9]], 3, 4)
    texts, ids = ["w1 w2 w3", "w4 w5 w6"], [[6, 7, 8], [9, 10, 11]]
    got = interp.ablate(talker, pairs, ["0.1"], "mean", reference=texts)
    np.testing.assert_array_equal(got.values, interp.ablate(talker, pairs, ["0.1"], "mean", reference=ids).values)
    patched, base = oracle(
        talker, pairs, [[(Z.format(0), 1)]], lambda pair, site: mean_of(talker, ids, site, ("prompt",))
    )
    agree(got, patched, base)


def test_templates_are_told_apart_only_where_both_sides_name_them(llama):
    pairs, others = pairs_for(llama), rows([6, 6, 4], 7)
    got = interp.ablate(llama, pairs, ["0.1"], "mean", reference=others, mean_axes=("prompt", "pos"))
    mean = mean_of(llama, others, Z.format(0), ("prompt", "pos"))
    patched, base = oracle(
        llama, pairs, [[(Z.format(0), 1)]], lambda pair, site: mean.expand(len(pairs.clean[pair]), -1, -1)
    )
    agree(got, patched, base)


@pytest.mark.parametrize("name", ["llama", "gpt2", "encoder"])
def test_resampled_values_are_those_of_one_other_prompt_of_the_template_and_length(model_of, name):
    model = model_of(name)
    pairs, sets = pairs_for(model), ["0.1", ("0.0", "0.2", "1.1"), "resid_pre.1"]
    got = interp.ablate(model, pairs, sets, "resample", seed=3)
    meanings = [TARGETS[one] for one in sets]
    fitting = {0: [0, 1], 1: [0, 1], 2: [2], 3: [3, 4], 4: [3]}  # the last pair's sides are alike
    for pair, donors in fitting.items():
        made = []
        for donor in donors:
            text = text_of(pairs, "corrupt", donor)
            patched, _ = oracle(
                model, pairs[[pair]], meanings, lambda _, site, text=text: cached(model, text, [site])[site]
            )
            made.append(np.abs(got.patched.values[pair] - patched[0]).max())
        assert min(made) < 2e-5, (pair, made)


def test_resampling_depends_on_the_seed_alone_and_never_takes_the_prompt_itself(llama):
    clean = rows([5] * 6, 3)
    draws = {}
    for seed in range(4):
        one, again = (
            interp.ablate(llama, clean, ["0.0", "0.3", "1.2", "mlp_out.2"], "resample", seed=seed) for _ in range(2)
        )
        np.testing.assert_array_equal(one.values, again.values)
        assert one.about["seed"] == seed and (one.values != 0).all()  # its own values would change nothing
        draws[seed] = one.values.values
    assert any(not np.array_equal(draws[0], other) for other in draws.values())
    with pytest.raises(InputError, match="has no other reference prompt"):
        interp.ablate(llama, [[1, 2, 3], [1, 2, 3]], ["0.0"], "resample")


def test_the_answer_and_the_foil_of_a_prompt_are_read_under_the_same_draw(llama):
    clean = rows([5] * 5, 3)
    pairs = PromptPairs.from_tokens(clean, clean, answer=[(3, 4)] * 5, foil=[(5, 6)] * 5)
    for seed in range(3):
        got = interp.ablate(llama, pairs, ["resid_pre.0"], "resample", metric="log_prob_diff", seed=seed)
        # Replaced from the first layer on, a prompt is its donor, with one answer and one foil behind it.
        swaps = [[i for i in range(5) if abs(float(got.patched[pair, 0]) - got.base[i]) < 1e-4] for pair in range(5)]
        assert all(len(one) == 1 and one != [pair] for pair, one in enumerate(swaps)), swaps


def test_every_head_by_itself_is_asked_by_one_word(model):
    pairs = pairs_for(model)
    got = interp.ablate(model, pairs)
    heads = [f"{layer}.{head}" for layer in range(model.main.config.n_layers) for head in range(4)]
    assert got.values["target"].values.tolist() == heads and got.items == pairs.items
    two = interp.ablate(model, pairs, [Head(0, 1), "1.2"])
    np.testing.assert_allclose(got.values[:, [1, 6]], two.values, atol=2e-5)


def test_joint_targets_are_edited_together(llama):
    pairs = pairs_for(llama)
    parts = [(Z.format(0), 1), (Z.format(2), 3), ("blocks.1.hook_mlp_out", None)]
    patched, base = oracle(llama, pairs, [parts], lambda pair, site: 0.0)
    got = interp.ablate(llama, pairs, ["0.1", ["2.3", "mlp_out.1"]], joint=True)
    agree(got, patched, base)
    assert got.values["target"].values.tolist() == ["0.1 + 2.3 + mlp_out.1"]
    whole = interp.ablate(llama, pairs, "heads", joint=True)
    all_z = [[(Z.format(layer), None) for layer in range(3)]]
    agree(whole, *oracle(llama, pairs, all_z, lambda pair, site: 0.0))


def test_a_tensor_and_one_of_its_heads_together_are_the_tensor(llama):
    pairs = pairs_for(llama)
    got = interp.ablate(llama, pairs, [["1.0", "z.1"], ["z.1", "1.0"], "z.1"])
    agree(got, *oracle(llama, pairs, [[("blocks.1.attn.hook_z", None)]] * 3, lambda pair, site: 0.0))


def test_sets_are_named_the_same_in_every_process(llama):
    got = interp.ablate(llama, pairs_for(llama), [{"1.1", "0.3", "0.0"}])
    assert got.values["target"].values.tolist() == ["0.0 + 0.3 + 1.1"]


def test_patterns_may_be_zeroed_and_resampled(llama):
    pairs = pairs_for(llama)
    name = "blocks.1.attn.hook_pattern"
    agree(interp.ablate(llama, pairs, ["pattern.1"]), *oracle(llama, pairs, [[(name, None)]], lambda pair, site: 0.0))
    one = pairs[[2]]  # the one of its template: its only donor is its corrupt prompt
    patched, base = oracle(
        llama, one, [[(name, None)]], lambda pair, site: cached(llama, text_of(one, "corrupt", 0), [name])[name]
    )
    agree(interp.ablate(llama, one, ["pattern.1"], "resample"), patched, base)


def test_both_stacks_of_a_model_are_ablated(model_of):
    model = model_of("two_stacks")
    pairs = pairs_for(model)
    e, d = "encoder.blocks.{}.{}", "decoder.blocks.{}.{}"
    asked = {
        "encoder.attn.1.2": [(e.format(1, "attn.hook_z"), 2)],
        "encoder.mlp_out.2": [(e.format(2, "hook_mlp_out"), None)],
        ("encoder.attn.2.1", "encoder.attn.0.3"): [
            (e.format(2, "attn.hook_z"), 1),
            (e.format(0, "attn.hook_z"), 3),
        ],
    }
    agree(interp.ablate(model, pairs, list(asked)), *oracle(model, pairs, list(asked.values()), lambda pair, site: 0.0))
    decoder = {
        "decoder.cross_attn.1.1": [(d.format(1, "cross_attn.hook_z"), 1)],
        "decoder.attn.0.3": [(d.format(0, "attn.hook_z"), 3)],
        "decoder.cross_attn.k.0": [(d.format(0, "cross_attn.hook_k"), None)],
    }
    for how, value in (
        ("zero", lambda pair, site: 0.0),
        ("mean", lambda pair, site: cached(model, text_of(pairs, "corrupt", pair), [site])[site]),
    ):
        one_each = {"mean_axes": ("prompt",), "reference": None} if how == "mean" else {}
        got = interp.ablate(model, pairs[[2]], list(decoder), how, **one_each)
        patched, base = oracle(model, pairs, list(decoder.values()), value)
        agree(got, patched[[2]], base[[2]])
    both = ["encoder.attn.1.2", "decoder.cross_attn.1.1"]
    parts = [[(e.format(1, "attn.hook_z"), 2)], [(d.format(1, "cross_attn.hook_z"), 1)]]
    joint = oracle(model, pairs, [parts[0] + parts[1]], lambda pair, site: 0.0)
    agree(interp.ablate(model, pairs, both), *oracle(model, pairs, parts, lambda pair, site: 0.0))
    agree(interp.ablate(model, pairs, both, joint=True), *joint)


@pytest.mark.parametrize("padding", ["left", "right", "none"])
def test_plain_texts_are_judged_by_their_mean_next_token_loss(llama, padding):
    texts = rows([6, 4, 5], 5)
    counted = [[1, 4], [3], [1, 2, 3, 4]]
    data = texts
    if padding != "none":
        width = 6
        blank = [[0] * (width - len(row)) for row in texts]
        data = torch.tensor([b + r if padding == "left" else r + b for r, b in zip(texts, blank, strict=True)])
        mask = torch.tensor(
            [
                [0] * len(b) + [1] * len(r) if padding == "left" else [1] * len(r) + [0] * len(b)
                for r, b in zip(texts, blank, strict=True)
            ]
        )
        data = llama.batch(data, attention_mask=mask.bool())
    for chosen in (None, counted):
        got = interp.ablate(llama, data, ["0.1", "mlp_out.2"], counted=chosen)
        patched, base = np.zeros((3, 2)), np.zeros(3)
        for i, row in enumerate(texts):
            wanted = range(1, len(row)) if chosen is None else chosen[i]

            def loss(logits, row=row, wanted=wanted):
                return -float(np.mean([float(logits[pos - 1].log_softmax(-1)[row[pos]]) for pos in wanted]))

            base[i] = loss(run(llama, row))
            for j, hook in enumerate([(Z.format(0), put(0.0, slice(None), 1)), ("blocks.2.hook_mlp_out", put(0.0))]):
                patched[i, j] = loss(run(llama, row, [hook]))
        agree(got, patched, base)
        assert got.source is None and got.about["unit"] == "nats" and got.about["metric"] == "loss"


def test_counted_tokens_may_be_a_mask(llama):
    tokens = torch.tensor(rows([5, 5], 4))
    mask = torch.tensor([[False, True, False, True, False], [False, False, False, False, True]])
    got = interp.ablate(llama, tokens, ["0.1"], counted=mask)
    np.testing.assert_array_equal(got.values, interp.ablate(llama, tokens, ["0.1"], counted=[[1, 3], [4]]).values)


def test_means_of_texts_are_their_own(llama):
    texts = rows([5, 5, 4], 6)
    got = interp.ablate(llama, texts, ["1.2"], "mean")
    assert got.about["reference"] == "the texts themselves"
    site = Z.format(1)
    for i, alike in enumerate([texts[:2], texts[:2], texts[2:]]):
        mean = mean_of(llama, alike, site, ("prompt",))
        logits = run(llama, texts[i], [(site, put(mean, slice(None), 2))])
        losses = [-float(logits[p - 1].log_softmax(-1)[texts[i][p]]) for p in range(1, len(texts[i]))]
        assert float(got.patched[i, 0]) == pytest.approx(np.mean(losses), abs=1e-5)


def test_little_memory_changes_no_number(llama):
    pairs = pairs_for(llama)
    for how in ("zero", "mean", "resample"):
        whole = interp.ablate(llama, pairs, "heads", how)
        small = interp.ablate(llama, pairs, "heads", how, max_bytes=120_000)
        np.testing.assert_allclose(small.values, whole.values, atol=2e-5)


REFUSED = [
    ({"targets": "0.9"}, "There is no head 0.9: this model has layers 0 to 2 with heads 0 to 3"),
    ({"targets": "7.0"}, "There is no head 7.0"),
    ({"targets": "decoder.attn.0.0"}, "names no stack of this model"),
    ({"targets": []}, "There are no targets"),
    ({"targets": [[]]}, "A set of targets is empty"),
    ({"targets": 5}, "targets is 5"),
    ({"targets": [5]}, "5 is no target"),
    ({"targets": "embed"}, "cannot be a target"),
    ({"targets": [("scale", 1, "ln1")]}, "cannot be a target"),
    ({"how": "mean", "targets": "pattern.1"}, "has no mean over prompts. Choose how='zero' or 'resample'"),
    ({"how": "mean", "targets": "attn_scores.1"}, "has no mean over prompts"),
    ({"targets": "attn_scores.1"}, "would let queries see keys that are masked"),
    ({"how": "mean", "mean_axes": ()}, r"mean_axes is \(\)"),
    ({"how": "mean", "mean_axes": ("layer",)}, r"mean_axes is \('layer',\)"),
    ({"how": "mean", "reference": [[1, 2, 3]]}, r"template and length \(6 tokens\) of prompt 0"),
    ({"how": "resample", "reference": [[1, 2, 3]]}, r"Prompt 0 \(6 tokens\) has no other reference prompt"),
    ({"how": "mean", "mean_axes": ("pos",), "reference": [[1, 2, 3]]}, "5 prompts, and a reference of 1"),
    ({"at": "END"}, "at is 'END'. Give positions"),
    ({"at": {"layer": 1}}, "Give positions"),
    ({"at": {"pos": []}}, "at least one"),
    ({"at": {"pos": 9}}, "the text of pair 0 has 6 tokens"),
    ({"at": {"pos": "nowhere"}}, "nowhere"),
    ({"counted": [[1]] * 5}, "pairs are judged by metric="),
    ({"metric": "accuracy"}, "There is no metric 'accuracy'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_ablated_is_refused_before_anything_runs(llama, options, message, monkeypatch):
    monkeypatch.setattr(type(llama.main), "embed_tokens", lambda *_: pytest.fail("it ran"))
    with pytest.raises(InputError, match=message):
        interp.ablate(llama, pairs_for(llama), **options)


def test_a_template_without_a_reference_is_named(llama):
    pairs = pairs_for(llama)
    others = pairs_for(llama, templates=["a"] * 5)
    with pytest.raises(InputError, match="the template 'b' of prompt 2"):
        interp.ablate(llama, pairs, ["0.1"], "mean", reference=others, mean_axes=("prompt", "pos"))


def test_unknown_ways_and_wrong_data_are_refused(llama, model_of, unchecked):
    for options, message in (({"how": "median"}, "how is 'median'"), ({"metric": "prob"}, "judged by their loss")):
        with pytest.raises(InputError, match=message):
            interp.ablate(llama, [[1, 2, 3]], ["0.0"], **options)
    with pytest.raises(InputError, match="takes a loaded model"):
        interp.ablate("gpt2", [[1, 2, 3]])
    with pytest.raises(InputError, match="Only a decoder by itself"):
        interp.ablate(model_of("encoder"), [[1, 2, 3]])
    with pytest.raises(InputError, match="no token is counted"):
        interp.ablate(llama, [[1, 2, 3]], counted=[[]])
    with pytest.raises(InputError, match="counted has shape"):
        interp.ablate(llama, [[1, 2, 3]], counted=torch.ones(2, 3, dtype=torch.bool))


def test_a_mask_of_counted_tokens_is_over_the_columns_of_a_padded_batch(llama):
    tokens = torch.tensor([[0, 0, 7, 8, 9], [4, 5, 6, 7, 8]])
    real = torch.tensor([[False, False, True, True, True], [True] * 5])
    counted = torch.zeros(2, 5, dtype=torch.bool)
    counted[0, [3, 4]], counted[1, [1, 4]] = True, True
    got = interp.ablate(llama, Batch(tokens, real), ["0.1"], counted=counted)
    expected = interp.ablate(llama, [[7, 8, 9], [4, 5, 6, 7, 8]], ["0.1"], counted=[[1, 2], [1, 4]])
    np.testing.assert_array_equal(got.values, expected.values)
    counted[0, 0] = True
    with pytest.raises(InputError, match="counted marks padding"):
        interp.ablate(llama, Batch(tokens, real), ["0.1"], counted=counted)


def test_means_of_cross_attentions_keys_are_of_the_encoders_text():
    model = model_named("two_stacks")
    same = PromptPairs.from_tokens([[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6]], [3], [4], clean_decoder=[[1]])
    for target in ("decoder.cross_attn.k.0", "decoder.cross_attn.v.1"):
        assert abs(float(interp.ablate(model, same, [target], "mean").values[0, 0])) < 1e-5
    every = pairs_for(model)
    lengths = [(len(a), len(b)) for a, b in zip(every.clean, every.clean_decoder, strict=True)]
    pairs = every[[0, next(i for i, one in enumerate(lengths) if one != lengths[0])]]  # two classes of one pair each
    got = interp.ablate(model, pairs, ["decoder.cross_attn.v.1"], "mean")
    alone = [interp.ablate(model, pairs[[i]], ["decoder.cross_attn.v.1"], "mean") for i in range(2)]
    np.testing.assert_allclose(got.values[:, 0], [float(one.values[0, 0]) for one in alone], atol=1e-5)


def test_a_reference_of_pairs_is_read_on_behind_its_prompts_too(llama):
    four = PromptPairs.from_tokens([[1, 2, 3, 4]], [[1, 5, 3, 4]], [(5, 6)], model=llama)
    own = interp.ablate(llama, four, ["0.1"], "mean", metric="log_prob")
    given = interp.ablate(llama, four, ["0.1"], "mean", metric="log_prob", reference=four.swapped())
    np.testing.assert_allclose(given.values, own.values, atol=1e-6)
    five = PromptPairs.from_tokens([[1, 2, 3, 4, 9]], [[1, 5, 3, 4, 9]], [(5, 6)], model=llama)
    with pytest.raises(InputError, match="No reference prompt has the template and length"):
        interp.ablate(llama, four, ["0.1"], "mean", metric="log_prob", reference=five)


@pytest.mark.parametrize("counted", [[[True, False, True, True]], torch.tensor([[0, 1, 1, 1]])])
def test_counted_tokens_that_could_be_a_mask_or_positions_are_refused(llama, counted):
    with pytest.raises(InputError, match="boolean"):
        interp.ablate(llama, [[1, 2, 3, 4]], ["0.0"], counted=counted)
    mask = np.array([[False, True, True, True]])
    got = interp.ablate(llama, [[1, 2, 3, 4]], ["0.0"], counted=mask)
    np.testing.assert_allclose(got.base, interp.ablate(llama, [[1, 2, 3, 4]], ["0.0"]).base)
