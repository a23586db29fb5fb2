"""Edits are plain data that do what the same hook does."""

from __future__ import annotations

import json

import pytest
import torch

import interp
from interp import Edit
from interp.errors import HookError, InputError, StorageError

TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# An edit, and what it means as an operation on its own copy of the tensor.
def cases():
    def set_(index, value):
        return lambda x: x.__setitem__(index, value)

    def add(index, value):
        return lambda x: x.__setitem__(index, x[index] + value)

    def scale(index, value):
        return lambda x: x.__setitem__(index, x[index] * value)

    every, d, head, two = slice(None), numbers(32), numbers(8), numbers(2, 32)
    each = numbers(2, 2, 8)
    return [
        (Edit("resid_post.1"), "blocks.1.hook_resid_post", set_(every, 0.0)),
        (Edit("resid_mid.0", d, "add"), "blocks.0.hook_resid_mid", add(every, d)),
        (Edit("mlp_out.2", 0.5, "scale", pos=(-1,)), "blocks.2.hook_mlp_out", scale((every, -1), 0.5)),
        (Edit("attn_out.1", two, "add", pos=(1, 3)), "blocks.1.hook_attn_out", add((every, [1, 3]), two)),
        (Edit("mlp_out.0", d, rows=(0, 2), pos=(2,)), "blocks.0.hook_mlp_out", set_(([0, 2], 2), d)),
        (Edit("z.1", 0.0, units=(1, 3)), "blocks.1.attn.hook_z", set_((every, every, [1, 3]), 0.0)),
        (Edit("z.0", head, "add", units=(2,), rows=(1,)), "blocks.0.attn.hook_z", add((1, every, 2), head)),
        (
            Edit("q.1", each, "set", pos=(0, -1), units=(0, 3)),
            "blocks.1.attn.hook_q",
            set_((every, torch.tensor([[0], [4]]), torch.tensor([[0, 3]])), each),
        ),
        (Edit("k.2", 2.0, "scale", units=(1,)), "blocks.2.attn.hook_k", scale((every, every, 1), 2.0)),
        (Edit("v.0", head, pos=(-2,), units=(0,)), "blocks.0.attn.hook_v", set_((every, 3, 0), head)),
        (Edit("mlp_post.1", 3.0, "add", units=(5, 47)), "blocks.1.mlp.hook_post", add((every, every, [5, 47]), 3.0)),
        (
            Edit("attn_scores.1", torch.tensor([0.0, -torch.inf, 0.0, 0.0, 0.0]), "add", pos=(3, 4), units=(1,)),
            "blocks.1.attn.hook_attn_scores",
            set_((every, 1, [3, 4], 1), -torch.inf),
        ),
        (Edit("pattern.0", 0.0, pos=(4,), units=(0, 2)), "blocks.0.attn.hook_pattern", set_((every, [0, 2], 4), 0.0)),
        (
            Edit("pattern.2", torch.tensor([1.0, 0, 0, 0, 0]), units=(3,)),
            "blocks.2.attn.hook_pattern",
            set_((every, 3), torch.tensor([1.0, 0, 0, 0, 0])),
        ),
        (Edit("embed", d, "add", pos=(1,)), "hook_embed", add((every, 1), d)),
        (Edit("scale.1.ln1", 2.0, "scale"), "blocks.1.ln1.hook_scale", scale(every, 2.0)),
        (Edit("unembed", -100.0, "add", pos=(0,)), "hook_unembed", add((every, 0), -100.0)),
    ]


@pytest.mark.parametrize(("edit", "name", "change"), cases(), ids=[f"{one.kind} {one.site}" for one, *_ in cases()])
def test_an_edit_does_what_a_hook_does(llama, edit, name, change):
    def hook(x, hook):
        change(x)

    with torch.no_grad():
        expected = llama.run_with_hooks(TOKENS, fwd_hooks=[(name, hook)])
        got = interp.run_with_edits(llama, TOKENS, edit)
        plain = llama(TOKENS)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert not torch.equal(got, plain)


def test_several_edits_apply_in_their_order(llama):
    once = interp.run_with_edits(llama, TOKENS, [Edit("z.1", 1.0), Edit("z.1", 3.0, "scale"), Edit("mlp_out.0")])

    def three(x, hook):
        return torch.full_like(x, 3.0)

    def zero(x, hook):
        return torch.zeros_like(x)

    hooks = [("blocks.1.attn.hook_z", three), ("blocks.0.hook_mlp_out", zero)]
    torch.testing.assert_close(once, llama.run_with_hooks(TOKENS, fwd_hooks=hooks), rtol=0, atol=0)
    other = interp.run_with_edits(llama, TOKENS, [Edit("z.1", 3.0, "scale"), Edit("z.1", 1.0), Edit("mlp_out.0")])
    assert not torch.equal(once, other)


def test_positions_of_cross_attention_keys_count_in_the_encoders_text(model_of):
    model = model_of("two_stacks")
    decoder = torch.tensor([[3, 4], [5, 6], [7, 8]])

    def hook(x, hook):
        x[:, 3, 1] = 0.0

    expected = model.run_with_hooks(
        TOKENS, fwd_hooks=[("decoder.blocks.0.cross_attn.hook_k", hook)], decoder_input=decoder
    )
    got = interp.run_with_edits(
        model, TOKENS, Edit("decoder.cross_attn.k.0", 0.0, pos=(3,), units=(1,)), decoder_input=decoder
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_gradients_flow_through_edits_and_into_their_values(llama):
    for kind in ("set", "add", "scale"):
        value = numbers(32).requires_grad_()
        output = interp.run_with_edits(llama, TOKENS, Edit("resid_post.0", value, kind, pos=(2,), rows=(1,)))
        (grad,) = torch.autograd.grad(output[1, 4, 7], value)
        step, i = 1e-2, 3
        ends = []
        for sign in (1, -1):
            moved = value.detach().clone()
            moved[i] += sign * step
            with torch.no_grad():
                moved_out = interp.run_with_edits(llama, TOKENS, Edit("resid_post.0", moved, kind, pos=(2,), rows=(1,)))
            ends.append(float(moved_out[1, 4, 7]))
        assert float(grad[i]) == pytest.approx((ends[0] - ends[1]) / 2 / step, rel=0.05, abs=1e-3)
        assert grad.abs().sum() > 0
    residual = numbers(1, 5, 32).requires_grad_()
    output = interp.run_with_edits(llama, residual, Edit("mlp_out.1", 0.0, units=None), start_at_layer=1)
    assert torch.autograd.grad(output[0, 4, 7], residual)[0].abs().sum() > 0


def test_steering_adds_a_scaled_direction(llama):
    direction = numbers(32)
    got = interp.steer(llama, TOKENS, "resid_post.1", direction, 2.5, pos=(-1,))
    torch.testing.assert_close(
        got, interp.run_with_edits(llama, TOKENS, Edit("resid_post.1", direction * 2.5, "add", pos=(-1,)))
    )

    def hook(x, hook):
        return x + 2.5 * direction

    everywhere = interp.steer(llama, TOKENS, ("resid_post", 1), direction, 2.5)
    torch.testing.assert_close(everywhere, llama.run_with_hooks(TOKENS, fwd_hooks=[("resid_post.1", hook)]))
    some = interp.steer(llama, TOKENS, "resid_post.1", direction, 2.5, pos=[0, 1, 2, 3, 4], return_type="loss")
    assert float(some.detach()) == pytest.approx(
        float(llama.run_with_hooks(TOKENS, fwd_hooks=[("resid_post.1", hook)], return_type="loss").detach()), abs=1e-6
    )
    torch.testing.assert_close(
        interp.steer(llama, TOKENS, "resid_post.1", direction, 0.0), llama(TOKENS), rtol=1e-5, atol=1e-5
    )
    for wrong, message in ((torch.ones(3, dtype=torch.long), "Give a tensor of floats"), (direction / 0, "not finite")):
        with pytest.raises(InputError, match=message):
            interp.steer(llama, TOKENS, "resid_post.1", wrong)


def test_edits_come_back_from_a_folder_bit_for_bit(llama, tmp_path):
    values = [numbers(2, 32), numbers(8).to(torch.bfloat16), numbers(8).double(), torch.tensor(1 / 3)]
    edits = [
        Edit("resid_post.0", values[0], "add", pos=(0, -1), rows=(1,)),
        Edit("z.1", values[1], units=(3,)),
        Edit("q.2", values[2].expand(4, 8), "scale"),
        Edit("z.0", values[3]),
        Edit("mlp_out.0", 0.1 + 0.2, "scale"),
        Edit("attn_scores.1", -float("inf"), pos=(4,)),
        Edit("z.2"),
    ]
    back = interp.load_edits(interp.save_edits(tmp_path / "edits", edits))
    assert [(one.site, one.kind, one.pos, one.units, one.rows) for one in back] == [
        (one.site, one.kind, one.pos, one.units, one.rows) for one in edits
    ]
    for one, other in zip(back, edits, strict=True):
        if isinstance(other.value, torch.Tensor):
            assert one.value.dtype == other.value.dtype and torch.equal(one.value, other.value)
        else:
            assert type(one.value) is float and one.value == other.value
    before, after = (interp.run_with_edits(llama, TOKENS, some[:5]) for some in (edits, back))
    assert torch.equal(before, after)
    plain = interp.load_edits(interp.save_edits(tmp_path / "plain", [Edit("z.0", 2.0)]))
    assert plain[0].value == 2.0


def test_a_value_that_requires_gradients_can_be_saved(tmp_path):
    value = numbers(32).requires_grad_()
    back = interp.load_edits(interp.save_edits(tmp_path / "one", [Edit("resid_post.0", value)]))
    assert torch.equal(back[0].value, value.detach()) and not back[0].value.requires_grad


def test_damaged_folders_are_refused(tmp_path):
    folder = interp.save_edits(tmp_path / "edits", [Edit("z.0", numbers(8)), Edit("z.1", 2.0)])
    good, tensors = (folder / "edits.json").read_text(), (folder / "values.safetensors").read_bytes()
    document = json.loads(good)
    wrong = [
        good[: len(good) // 2],
        json.dumps({**document, "format": 99}),
        json.dumps([1, 2]),
        json.dumps({"format": document["format"]}),
        json.dumps({**document, "edits": 5}),
        json.dumps({**document, "edits": ["z.0"]}),
        json.dumps({**document, "edits": [{"site": "z.0"}]}),
        json.dumps({**document, "edits": [{**document["edits"][1], "kind": "swap"}]}),
        json.dumps({**document, "edits": [{**document["edits"][1], "value": "much"}]}),
        json.dumps({**document, "edits": [{**document["edits"][1], "pos": []}]}),
        json.dumps({**document, "edits": [document["edits"][1], document["edits"][0]]}),  # tensor 1 is not there
    ]
    for text in wrong:
        (folder / "edits.json").write_text(text)
        with pytest.raises(StorageError, match="edits"):
            interp.load_edits(folder)
    (folder / "edits.json").write_text(good)
    for data in (b"", tensors[:-5], tensors[:4], b"\xff" * 64):
        (folder / "values.safetensors").write_bytes(data)
        with pytest.raises(StorageError, match="Cannot read the edits"):
            interp.load_edits(folder)
    (folder / "values.safetensors").unlink()
    with pytest.raises(StorageError, match="Cannot read the edits"):
        interp.load_edits(folder)
    with pytest.raises(StorageError):
        interp.load_edits(tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("a month of work")
    with pytest.raises(StorageError, match="other files"):
        interp.save_edits(tmp_path / "mine", [Edit("z.0")])


def test_an_edit_of_a_site_that_is_not_computed_raises(llama):
    for options in ({"stop_at_layer": 1}, {"start_at_layer": 2}):
        given = TOKENS if "stop_at_layer" in options else numbers(1, 5, 32)
        with pytest.raises(HookError, match=r"blocks.1.attn.hook_z never fired"):
            interp.run_with_edits(llama, given, Edit("z.1"), **options)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("z.1", units=(4,)), "names units 4; there are 4"),
        (Edit("k.1", units=(2,)), "names units 2; there are 2"),
        (Edit("z.1", pos=(-6,)), "names pos -6; there are 5"),
        (Edit("z.1", rows=(0, 3)), "names rows 3; there are 3"),
        (Edit("resid_post.1", units=(0,)), "has no axis for units="),
        (Edit("z.1", numbers(7)), r"has shape \(7,\); the chosen places are \(3, 5, 4, 8\)"),
        (Edit("z.1", numbers(3, 8), pos=(0, 1)), r"has shape \(3, 8\); the chosen places are \(3, 2, 4, 8\)"),
        (Edit("nothing.1"), "This model has no tensor 'nothing.1'"),
        (Edit("z.9"), "It has layers 0 to 2"),
    ],
)
def test_places_that_are_not_there_are_refused(llama, edit, message):
    with pytest.raises(interp.InterpError, match=message):
        interp.run_with_edits(llama, TOKENS, edit)


def test_edits_that_mean_nothing_are_refused_when_they_are_made(llama, unchecked):
    for options, message in (
        ({"kind": "swap"}, "kind is 'swap'"),
        ({"pos": ()}, "pos is empty"),
        ({"units": []}, "units is empty"),
        ({"value": "much"}, "value is 'much'"),
        ({"value": None}, "value is None"),
    ):
        with pytest.raises(InputError, match=message):
            Edit("z.0", **options)
    assert Edit("z.0", pos=2, units=[1, 3]).pos == (2,) and Edit("z.0", units=[1, 3]).units == (1, 3)
    for nothing in ([], ["z.0"]):
        with pytest.raises(InputError, match="There is no edit"):
            interp.run_with_edits(llama, TOKENS, nothing)


def test_an_edit_cannot_be_changed_afterwards():
    edit = Edit("z.0", pos=(1, 2), units=(3,))
    assert edit.pos == (1, 2) and edit.units == (3,)
    with pytest.raises(AttributeError):
        edit.pos = (0,)


def test_places_of_an_edit_may_be_one_number_or_a_list():
    assert Edit("z.0", pos=2, units=[1, 3], rows=torch.tensor([0])) is not None
    one = Edit("z.0", pos=2, units=[1, 3], rows=torch.tensor([0]))
    assert (one.pos, one.units, one.rows) == ((2,), (1, 3), (0,))
