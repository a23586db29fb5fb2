"""What `interp.patch` refuses, before anything runs, each with a sentence that says what to do instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.causal.questions import pose
from interp.errors import InputError, InterpError
from interp.pairs import PromptPairs
from tests.causal.conftest import changed, model_named, pairs_for, rows

pytestmark = pytest.mark.usefixtures("unchecked")  # our own messages, not beartype's


def _refused(message: str, *args: Any, name: str = "llama", pairs: Any = None, **options: Any) -> None:
    model = model_named(name)
    with pytest.raises(InterpError, match=message):
        interp.patch.plan(model, pairs if pairs is not None else pairs_for(model), *args, **options)


@pytest.mark.parametrize(
    ("message", "args", "options"),
    [
        (r"There is no axis 'layers'\. Choose from layer, pos, position, head", ("z", ("layers",)), {}),
        (r"There is no axis 'heads'", ("z",), {"at": {"heads": 3}}),
        (r"resid_pre has no axis 'head': it is one vector; its heads are at site 'z'", ("resid_pre", ("head",)), {}),
        (r"z has no axis 'neuron': it has the axis 'head'", ("z", ("layer", "neuron")), {}),
        (r"z has no axis 'kv_head'", ("z",), {"at": {"kv_head": 0}}),
        (r"mlp_post has no axis 'head': it has the axis 'neuron'", ("mlp_post", ("head",)), {}),
        (r"k has 2 key/value heads, shared .* Use 'kv_head', or ungroup=True", ("k", ("layer", "head")), {}),
        (r"k has no axis 'kv_head': it has the axis 'head'", ("k", ("layer", "kv_head")), {"ungroup": True}),
        (r"ungroup=True edits one layer at a time", ("k", ("layer", "head")), {"ungroup": True, "window": 2}),
        (r"ungroup=True edits one layer at a time", ("v", ("head",)), {"ungroup": True}),
        (r"over is empty\. Name at least one axis", ("z", ()), {}),
        (r"name the same axis twice", ("z", ("layer", "layer")), {}),
        (r"name the same axis twice", ("z", ("pos", "position")), {}),
        (r"name the same axis twice", ("z", ("layer", "position")), {"at": {"pos": 1}}),
        (r"give axes, as in over=", ("z", 3), {}),
        (r"give axes, as in over=", ("z",), {"at": [1, 2]}),
        (r"window is 0\. Give the number of layers", ("z",), {"window": 0}),
        (r"window is 1\.5", ("z",), {"window": 1.5}),
        (r"window is '2'", ("z",), {"window": "2"}),
        (r'direction is \'both\'\. Choose "denoise"', ("z",), {"direction": "both"}),
        (r"This model has no tensor 'zz\.0'\. Near it", ("zz",), {}),
        (r"no tensor", ("embed",), {}),
        (r"no tensor", ("cross_attn.z",), {}),
        (r"one stack, so 'encoder.z' names none of its. Drop the prefix: 'z'", ("encoder.z",), {}),
        (r"'z.1' names its layer, and so does the axis 'layer'. Drop the layer, e.g. 'z'", ("z.1",), {}),
        (r"'blocks.1.attn.hook_z' names its layer", ("blocks.1.attn.hook_z", ("head",)), {"at": {"layer": 1}}),
        (r"z has no axis 'key_pos': only pattern and attn_scores", ("z", ("key_pos",)), {}),
        (r"at\['key_pos'\] holds 9", ("pattern", ("key_pos",)), {"at": {"key_pos": 9}}),
        (r"at\['key_pos'\] is \[\]", ("pattern", ("layer",)), {"at": {"key_pos": []}}),
        (r"no position named 'object'", ("pattern", ("layer",)), {"at": {"key_pos": "object"}}),
        (r"no tensor", ("z.3",), {}),
        (r"site is 3\. Give a name such as 'resid_pre'", (3,), {}),
        (r"at\['layer'\] holds 3\. Give whole numbers from 0 to 2", ("z",), {"at": {"layer": 3}}),
        (r"at\['layer'\] holds 1\.0", ("z",), {"at": {"layer": 1.0}}),
        (r"at\['layer'\] holds '1'", ("z",), {"at": {"layer": "1"}}),
        (r"at\['layer'\] holds True", ("z",), {"at": {"layer": True}}),
        (r"at\['layer'\] is \[\]\. Give at least one number", ("z",), {"at": {"layer": []}}),
        (r"at\['layer'\] is \[1, -2\]\. Give at least one number, each once", ("z",), {"at": {"layer": [1, -2]}}),
        (r"at\['head'\] holds 4\. Give whole numbers from 0 to 3", ("z", ("layer",)), {"at": {"head": [0, 4]}}),
        (r"at\['neuron'\] holds 48", ("mlp_post", ("layer",)), {"at": {"neuron": 48}}),
        (r"at\['pos'\] holds 7\. Give whole numbers from 0 to 6", ("z",), {"at": {"pos": 7}}),
        (r"at\['pos'\] holds 'subject'", ("z",), {"at": {"pos": "subject"}}),
        (r"at has position 4; the text of pair 1 has 4 tokens", ("z", ("layer",)), {"at": {"pos": 4}}),
        (r"at\['pos'\] is \[\]", ("z", ("layer",)), {"at": {"pos": []}}),
        (r"at\['pos'\] is 1\.5", ("z", ("layer",)), {"at": {"pos": 1.5}}),
        (r"at\['pos'\] is None", ("z", ("layer",)), {"at": {"pos": None}}),
        (r"no position named 'object'\. These pairs have subject, verb", ("z", ("layer",)), {"at": {"pos": "object"}}),
        (r"no position named 'object'", ("z", ("position",)), {"at": {"position": ["object"]}}),
        (r"no position named 'object'", ("z", ("layer",)), {"at": {"position": "object"}}),
        (r"asks for part 'end'", ("z", ("position",)), {"at": {"position": "verb:end"}}),
        (r"Give each name once", ("z", ("position",)), {"at": {"position": ["verb", "verb"]}}),
        (r"There is no metric 'accuracy'\. Choose logit_diff", ("z",), {"metric": "accuracy"}),
        (r"metric is 3", ("z",), {"metric": 3}),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    message: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    _refused(message, *args, **options)


def test_pairs_without_names_have_no_axis_of_positions() -> None:
    pairs = PromptPairs.from_tokens([[1, 2]], [[3, 2]], 4, 5)
    _refused(r"name no positions\. Give them as PromptPairs\.from_text", "z", ("position",), pairs=pairs)


def test_a_layer_without_the_tensor_is_refused() -> None:
    """The third layer of `uneven` has no MLP."""
    _refused(r"at\['layer'\] holds 2", "mlp_out", name="uneven", at={"layer": 2})
    _refused("no tensor", "resid_mid", name="gptj")


def test_a_tensor_of_two_stacks_is_not_guessed() -> None:
    """The encoder has one layer more, so that `z.2` alone would mean something."""
    for site in ("z", "resid_pre", "mlp_out"):
        _refused(rf"'{site}' could mean encoder\.{site} or decoder\.{site}\. Say which", site, name="two_stacks")
    model = model_named("two_stacks")
    assert interp.patch.plan(model, pairs_for(model), "cross_attn.z").about["site"] == "cross_attn.z"


def test_named_positions_are_not_taken_for_the_decoders() -> None:
    for over, at in ((("position",), {}), (("layer",), {"pos": "subject"}), (("layer",), {"position": "verb"})):
        _refused("Named positions count in the encoder's text", "decoder.z", over, at=at, name="two_stacks")


def test_a_model_of_two_stacks_needs_what_its_decoder_has_read_and_no_other_takes_it() -> None:
    plain, both = pairs_for(model_named("llama")), pairs_for(model_named("two_stacks"))
    _refused(r"needs pairs that say what its decoder has read: decoder=", "encoder.z", name="two_stacks", pairs=plain)
    _refused(r"has one stack; leave decoder= out", "z", pairs=both)


def test_what_is_no_model_or_no_pairs_is_refused() -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match=r"takes a loaded model, not 'smollm2'\. Load it first"):
        interp.patch.plan("smollm2", pairs_for(model), "z")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"takes PromptPairs, not list\. Make them"):
        interp.patch.plan(model, [[1, 2]], "z")  # type: ignore[arg-type]


def test_tokens_that_the_model_does_not_have_are_refused_on_either_side_and_in_either_stack() -> None:
    two = model_named("two_stacks")
    for side in ("clean", "corrupt"):
        sides = {"clean": [[1, 2]], "corrupt": [[3, 2]], side: [[50, 2]]}
        _refused(r"token id 50 is outside this model's vocabulary, 0 to 49", "z", pairs=_pairs(**sides))
        decoders = {"clean_decoder": [[1]], "corrupt_decoder": [[1]], f"{side}_decoder": [[60]]}
        pairs = PromptPairs.from_tokens([[1, 2]], [[3, 2]], 4, 5, **decoders)
        with pytest.raises(InputError, match="token id 60 is outside"):
            interp.patch.plan(two, pairs, "encoder.z")
    pairs = PromptPairs.from_tokens([[1, 2]], [[3, 2]], 50, 5)
    _refused(r"(token id|An answer is token) 50", "z", pairs=pairs)


def _pairs(clean: Any, corrupt: Any) -> PromptPairs:
    return PromptPairs.from_tokens(clean, corrupt, 4, 5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_text_longer_than_the_model_reads_is_refused_with_its_answer_behind_it(name: str) -> None:
    long = rows([65], 0)[0]
    _refused("65", "z", name=name, pairs=_pairs([long], [changed(long, 3)]))
    row = long[:64]
    pairs = PromptPairs.from_tokens([row], [changed(row, 3)], [(4, 5, 6)])
    _refused("with its answer behind it", "z", name=name, pairs=pairs, metric="log_prob")


def test_an_encoder_is_not_asked_for_answers_of_several_tokens() -> None:
    pairs = PromptPairs.from_tokens([[1, 2, 3]], [[4, 2, 3]], [(4, 5)])
    _refused("an encoder fills one position", "z", name="encoder", pairs=pairs, metric="log_prob")


def test_metrics_that_the_pairs_cannot_answer_are_refused() -> None:
    alone = PromptPairs.from_tokens([[1, 2]], [[3, 2]], 4)
    _refused("these pairs have none", "z", pairs=alone)
    several = PromptPairs.from_tokens([[1, 2]], [[3, 2]], [(4, 5)], 6)
    _refused("compares single tokens", "z", pairs=several)


def test_a_function_that_returns_another_shape_is_refused() -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match="Return a tensor of shape"):
        interp.patch(model, pairs_for(model), "z", metric=lambda logits, pair: logits)


def test_too_little_memory_is_said_with_what_is_enough() -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match=r"max_bytes=100 is too little for one cell of 4 tokens\. Give [\d,]+ or more"):
        interp.patch(model, pairs_for(model), "z", max_bytes=100)


def test_standing_hooks_are_not_ignored_in_silence() -> None:
    model, other = model_named("llama"), model_named("gpt2")
    with model.hooks([("z.0", lambda z, hook: z * 0)]):
        with pytest.raises(InputError, match=r"without the hooks of .*Call it outside"):
            interp.patch(model, pairs_for(model), "z")
        interp.patch(other, pairs_for(other), "z", ("layer",))  # another model's hooks do not matter
        model(torch.tensor([[1, 2]]))
    assert pose(model, pairs_for(model), "logit_diff").model is model


def test_numbers_of_any_library_are_taken() -> None:
    model = model_named("llama")
    expected = interp.patch(model, pairs_for(model), "z", ("layer", "head"), at={"layer": [1], "head": [2, 0]})
    for one, two in ((np.int64(1), np.array([2, 0])), (np.array([1]), torch.tensor([2, 0])), (1, (np.int32(2), 0))):
        got = interp.patch(model, pairs_for(model), "z", ("layer", "head"), at={"layer": one, "head": two})
        np.testing.assert_array_equal(got.values.values, expected.values.values)
    got = interp.patch(model, pairs_for(model), "z", ["layer"], at={"layer": range(2), "pos": torch.tensor(-1)})
    assert got.values.layer.values.tolist() == [0, 1]
    assert interp.patch(model, pairs_for(model), "z", "layer").grid == ("layer",)


def test_a_window_needs_layers_to_be_around() -> None:
    _refused(r"window=2 is around each layer, and over=\('head',\) has no layer axis", "z", over=("head",), window=2)


def test_positions_from_the_end_are_no_axis_of_prompts_that_differ_in_length() -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match="differ in length, so a negative position"):
        interp.patch(model, pairs_for(model), "z", ("layer", "pos"), at={"pos": [-1]})


@pytest.mark.parametrize("max_bytes", [0, -5])
def test_a_bound_of_memory_is_a_number_of_bytes(max_bytes: int) -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match=rf"max_bytes is {max_bytes}\. Give bytes"):
        interp.patch.plan(model, pairs_for(model), "z", max_bytes=max_bytes)


def test_too_little_memory_is_said_before_anything_runs() -> None:
    model = model_named("llama")
    with pytest.raises(InputError, match="too little for one cell"):
        interp.patch.plan(model, pairs_for(model), "z", max_bytes=100)


def test_a_plan_is_not_run_under_standing_hooks() -> None:
    model = model_named("llama")
    plan = interp.patch.plan(model, pairs_for(model), "z", ("layer",))
    with model.hooks([("z.0", lambda z, hook: z)]):
        with pytest.raises(InputError, match=r"without the hooks of .*Call it outside"):
            plan.run()
        model(torch.tensor([[1, 2]]))


def test_keys_of_a_model_without_grouping_go_by_head_or_by_kv_head() -> None:
    model = model_named("gpt2")
    by_head = interp.patch(model, pairs_for(model), "k", ("layer", "head"))
    by_kv_head = interp.patch(model, pairs_for(model), "k", ("layer", "kv_head"))
    np.testing.assert_array_equal(by_head.values.values, by_kv_head.values.values)


def test_a_metric_that_is_not_a_number_is_no_absent_cell() -> None:
    model = model_named("llama")

    def broken(logits: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
        return torch.where(pair == 0, torch.nan, logits[:, 3])

    with pytest.raises(InputError, match="The metric broken is not a number"):
        interp.patch(model, pairs_for(model), "z", ("layer",), metric=broken)


@pytest.mark.parametrize("max_bytes", [1e9, "1G", True, float("nan")])
def test_a_bound_of_another_kind_is_refused_in_words(max_bytes: Any) -> None:
    _refused("max_bytes is .*Give bytes", "z", max_bytes=max_bytes)


def test_a_named_position_on_the_axis_pos_is_told_where_it_goes() -> None:
    _refused("into over as the axis 'position'", "z", at={"pos": "subject:last"})


def test_gradients_that_cannot_be_taken_are_said() -> None:
    model = model_named("llama")
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        interp.attribute(model, pairs_for(model), "z", ("layer",))
    with pytest.raises(InputError, match="has no gradient"):
        interp.attribute(model, pairs_for(model), "z", ("layer",), metric=lambda x, pair: x.argmax(-1).to(x.dtype))


@pytest.mark.parametrize(("model", "pairs"), [(None, 1), ("gpt2", 1), (1, None)])
def test_tracing_needs_a_model_and_pairs(model: Any, pairs: Any) -> None:
    own = model_named("llama")
    with pytest.raises(InputError, match="This takes"):
        interp.causal_trace(own if model == 1 else model, pairs_for(own) if pairs == 1 else pairs)
