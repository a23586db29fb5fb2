"""The cache: what was there after the hooks, from any spelling, stored or derived; sliced, moved, saved."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp.model.cache as cache_module
from interp.errors import HookError, InputError, InterpError, StorageError, UnknownSiteError
from interp.model.cache import ActivationCache
from interp.model.config import ModelConfig
from interp.model.transformer import HookedTransformer

LEFT = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [0] * 8 + [1]]).bool()


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    a, b = a.detach(), b.detach()
    assert a.shape == b.shape
    finite = torch.isfinite(b)
    assert torch.equal(torch.isfinite(a), finite)
    if finite.any():
        assert float((a[finite] - b[finite]).abs().max()) <= tolerance * max(1.0, float(b[finite].abs().max()))


def _same(a: Any, b: Any) -> None:
    assert list(a) == list(b)
    for name in b:
        _close(a[name], b[name])


# ---- which sites ----


@torch.no_grad()
def test_names_filter_takes_every_form(llama: Any) -> None:
    one = ["blocks.1.attn.hook_q"]
    for wanted in ("q.1", "q1", ("q", 1), ("q", -2), "blocks.1.attn.q.hook_out", ["q.1"], lambda name: name == one[0]):
        assert list(llama.cached(wanted)[1]) == one
    assert list(llama.cached(["z.2", ("q", 0), "embed"])[1]) == [
        "hook_embed", "blocks.0.attn.hook_q", "blocks.2.attn.hook_z",
    ]  # fmt: skip
    assert list(llama.cached(None)[1]) == llama.model.sites.names
    assert len(llama.cached(lambda name: "resid" in name)[1]) == 9


@torch.no_grad()
def test_every_spelling_reads_the_same_entry(llama: Any) -> None:
    _, cache = llama.cached()
    expected = cache["blocks.1.attn.hook_pattern"]
    for spelling in ("pattern.1", "pattern1", ("pattern", 1), ("attn", 1), ("pattern", -2), "attn.1"):
        assert torch.equal(cache[spelling], expected)
        assert spelling in cache
    assert torch.equal(cache["blocks.1.attn.q.hook_out"], cache["q", 1])


@torch.no_grad()
def test_a_filter_of_unknown_or_unreached_sites_is_refused(llama: Any) -> None:
    with pytest.raises(UnknownSiteError, match=r"qq\.1"):
        llama.cached(["q.1", "qq.1"])
    with pytest.raises(UnknownSiteError, match="picked none"):
        llama.cached(lambda name: False)
    with pytest.raises(UnknownSiteError, match=r"blocks\.2\.attn\.hook_q is not computed in this call"):
        llama.cached(["q.0", "q.2"], stop_at_layer=2)
    with pytest.raises(UnknownSiteError, match="not computed in this call"):
        llama.cached(lambda name: name.endswith("hook_unembed"), stop_at_layer=2)


@torch.no_grad()
def test_stopping_early_keeps_what_was_reached(llama: Any) -> None:
    whole = llama.cached()[1]
    resid, cache = llama.cached(stop_at_layer=2)
    assert torch.equal(resid, whole["resid_pre.2"])
    assert list(cache) == [
        name for name in whole if name.startswith(("blocks.0.", "blocks.1.")) or name == "hook_embed"
    ]
    for name in cache:
        _close(cache[name], whole[name])
    assert "blocks.2.hook_resid_pre" not in cache


# ---- a mapping that cannot be written ----


@torch.no_grad()
def test_the_cache_is_a_read_only_mapping(llama: Any) -> None:
    _, cache = llama.cached(["q.0", "k.0"])
    assert len(cache) == 2 and dict(cache).keys() == {"blocks.0.attn.hook_q", "blocks.0.attn.hook_k"}
    assert [name for name, _ in cache.items()] == list(cache.keys())
    assert all(torch.equal(a, b) for a, b in zip(cache.values(), (cache[name] for name in cache), strict=True))
    with pytest.raises(TypeError):
        cache["q.0"] = torch.zeros(1)
    with pytest.raises(TypeError):
        del cache["q.0"]
    for name in ("pop", "update", "clear", "setdefault", "popitem"):
        assert not hasattr(cache, name)
    assert "ActivationCache(2 sites, 2 stored" in repr(cache)


@torch.no_grad()
def test_a_miss_says_what_the_cache_holds(llama: Any) -> None:
    _, cache = llama.cached(["pattern.0", "q.2"])
    with pytest.raises(UnknownSiteError) as caught:
        cache["pattern", 2]
    assert str(caught.value) == (
        "blocks.2.attn.hook_pattern was not read; this cache holds 2 sites, e.g. blocks.0.attn.hook_pattern. "
        "Add it to names_filter."
    )
    with pytest.raises(UnknownSiteError, match=r"z\.0|hook_z was not read; this cache holds 2 sites"):
        cache["z.0"]
    with pytest.raises(UnknownSiteError, match="Near it"):
        cache["patern.0"]
    assert "z.0" not in cache and "nonsense" not in cache
    assert cache.get("nonsense") is None and cache.get("z.0", 5) == 5


@torch.no_grad()
def test_derived_entries_are_not_offered_where_they_were_not_asked_for(llama: Any) -> None:
    _, cache = llama.cached(["q.0", "k.0"])
    for name in ("rot_q.0", "attn_scores.0", "pattern.0"):
        assert name not in cache


@torch.no_grad()
def test_the_entries_belong_to_the_cache_and_not_to_later_calls(llama: Any) -> None:
    _, cache = llama.cached()
    before = {name: cache[name].clone() for name in cache.stored}
    llama.other()
    llama.other.cached(fwd_hooks=[(lambda name: True, lambda x, hook: x.mul_(0))])
    for name, x in before.items():
        assert torch.equal(cache[name], x)


# ---- after the hooks ----

FACTORS = {"hook_pattern": 0.5, "hook_scale": 2.0}


@torch.no_grad()
def test_a_cache_of_an_edited_run_holds_what_was_there_after_the_edit(layout: Any) -> None:
    """Each site edited in turn: what is derived must equal the same run read explicitly."""
    for place, site in enumerate(layout.model.sites):
        if site.layer not in (None, 0):
            continue
        mask = LEFT if place % 2 else None
        factor = FACTORS.get(site.name, 1.5)
        edit = (str(site), lambda x, hook, factor=factor: x * factor)
        _, cache = layout.cached(fwd_hooks=[edit], attention_mask=mask)
        assert str(site) in cache.stored, "an edited site no longer follows from what stands before it"
        seen: dict[str, Tensor] = {}
        layout.hooked(
            edit, (None, lambda x, hook, seen=seen: seen.__setitem__(hook.name, x.clone())), attention_mask=mask
        )
        assert seen.keys() == set(cache)
        for name, value in seen.items():
            if layout.model.sites[name].layer in (None, 0, layout.n_layers - 1):
                _close(cache[name], value, 3e-5)


@torch.no_grad()
def test_edits_of_queries_reach_rotation_scores_and_pattern(llama: Any) -> None:
    _, clean = llama.cached()
    _, cache = llama.cached(fwd_hooks=[("q.1", lambda x, hook: 3 * x)])
    _close(cache["rot_q.1"], 3 * clean["rot_q.1"])
    _close(cache["attn_scores.1"], 3 * clean["attn_scores.1"])
    _close(cache["pattern.1"], (3 * clean["attn_scores.1"]).softmax(-1))
    assert torch.equal(cache["k.1"], clean["k.1"])


@torch.no_grad()
def test_edits_of_rotated_queries_leave_queries_and_reach_scores(llama: Any) -> None:
    _, clean = llama.cached()
    _, cache = llama.cached(fwd_hooks=[("rot_q.1", lambda x, hook: 3 * x)])
    assert torch.equal(cache["q.1"], clean["q.1"])
    _close(cache["rot_q.1"], 3 * clean["rot_q.1"])
    _close(cache["attn_scores.1"], 3 * clean["attn_scores.1"])


@torch.no_grad()
def test_edits_of_pattern_scale_and_post_are_stored_and_what_made_them_stays(llama: Any) -> None:
    _, clean = llama.cached()
    for name, source, follows in (
        ("pattern.1", "attn_scores.1", "z.1"),
        (("scale", 1, "ln2"), "resid_mid.1", ("normalized", 1, "ln2")),
        ("post.1", "pre.1", "mlp_out.1"),
    ):
        _, cache = llama.cached(fwd_hooks=[(name, lambda x, hook: 2 * x)])
        _close(cache[name], 2 * clean[name])
        _close(cache[source], clean[source])
        _close(cache[follows], clean[follows] * (0.5 if "normalized" in follows else 2.0))


@torch.no_grad()
def test_standing_hooks_count_as_edits(llama: Any) -> None:
    with llama.model.hooks([("pattern.0", lambda x, hook: x * 0)]):
        _, cache = llama.cached()
    assert not cache["pattern.0"].any() and not cache["z.0"].any()
    assert cache["attn_scores.0"].any()


@torch.no_grad()
def test_results_follow_edits_of_z_and_the_models_weights(llama: Any) -> None:
    _, clean = llama.cached("result.1")
    _, cache = llama.cached(["z.1", "result.1"], fwd_hooks=[("z.1", lambda x, hook: 2 * x)])
    assert "blocks.1.attn.hook_result" not in cache.stored
    _close(cache["result.1"], 2 * clean["result.1"])


# ---- positions ----

SLICES: list[Any] = [-1, slice(2, 5), slice(None, None, 2), [-1, 0, 0]]


def _cut(x: Tensor, axes: tuple[str, ...], pos: Any) -> Tensor:
    index = [pos] if isinstance(pos, int) else pos
    for axis, name in enumerate(axes):
        if name in ("pos", "q_pos"):
            return x[(slice(None),) * axis + (index,)]
    return x


@torch.no_grad()
@pytest.mark.parametrize("pos", SLICES, ids=str)
def test_chosen_positions_of_each_site_are_slices_of_the_whole(case: Any, pos: Any) -> None:
    mask = None if pos == -1 else LEFT
    whole = case.cached(attention_mask=mask)[1]
    read = case.cached(pos_slice=pos, attention_mask=mask)[1]
    cut = whole.slice(pos=pos)
    assert set(read) == set(cut) == set(whole)
    for site in case.model.sites:
        sliced = not case.options or site.stack == "decoder" or site.name == "hook_unembed"
        expected = _cut(whole[site], site.axes, pos) if sliced else whole[site]
        _close(read[site], expected)
        _close(cut[site], expected)


@torch.no_grad()
def test_each_site_read_alone_at_chosen_positions_is_a_slice_of_the_whole(layout: Any) -> None:
    whole = layout.cached()[1]
    for site in layout.model.sites:
        sliced = not layout.options or site.stack == "decoder" or site.name == "hook_unembed"
        expected = _cut(whole[site], site.axes, [3, 1]) if sliced else whole[site]
        _close(layout.cached(str(site), pos_slice=[3, 1])[1][site], expected)


@torch.no_grad()
def test_slices_of_slices_count_from_what_is_left(llama: Any) -> None:
    whole = llama.cached(attention_mask=LEFT)[1]
    twice = whole.slice(pos=slice(2, 8)).slice(pos=[0, -1])
    for site in llama.model.sites:
        _close(twice[site], _cut(whole[site], site.axes, [2, 7]))


@torch.no_grad()
def test_keys_are_kept_whole_so_that_patterns_of_few_positions_see_all_keys(llama: Any) -> None:
    _, cache = llama.cached(["q.0", "k.0", "rot_q.0", "rot_k.0", "attn_scores.0", "pattern.0"], pos_slice=-1)
    assert cache["pattern.0"].shape == (3, 4, 1, 9)
    assert cache["k.0"].shape == (3, 1, 2, 8)
    _close(cache["pattern.0"].sum(-1), torch.ones(3, 4, 1))


@torch.no_grad()
def test_a_sliced_cache_does_not_hold_the_whole(llama: Any) -> None:
    _, cache = llama.cached(lambda name: "resid" in name or "mlp" in name, pos_slice=-1)
    for name in cache.stored:
        assert cache[name].untyped_storage().nbytes() == cache[name].numel() * 4, name


@torch.no_grad()
@pytest.mark.parametrize("pos", [9, -10, [0, 9], [], slice(5, 5), slice(20, 30)], ids=str)
def test_positions_that_are_not_there_are_refused(llama: Any, pos: Any) -> None:
    with pytest.raises(InputError, match=r"position.*(outside 0 to 8|Choose at least one)|leaves no position"):
        llama.cached(["q.0", "resid_post.2"], pos_slice=pos)
    with pytest.raises(InputError, match=r"outside 0 to 8|leaves no position"):
        llama.cached("q.0")[1].slice(pos=pos)


# ---- rows, devices, the batch axis ----


@torch.no_grad()
@pytest.mark.parametrize("batch", [-1, slice(1, 3), [2, 0, 0]], ids=str)
def test_chosen_rows_of_each_site_are_rows_of_the_whole(case: Any, batch: Any) -> None:
    whole = case.cached(attention_mask=None if batch == -1 else LEFT)[1]
    cut = whole.slice(batch=batch)
    index = [batch] if isinstance(batch, int) else batch
    for site in case.model.sites:
        _close(cut[site], whole[site][index])


@torch.no_grad()
def test_rows_that_are_not_there_are_refused(llama: Any) -> None:
    cache = llama.cached("q.0")[1]
    for batch in (3, -4, [0, 7], []):
        with pytest.raises(InputError, match="row"):
            cache.slice(batch=batch)


@torch.no_grad()
def test_rows_and_positions_may_be_cut_together(llama: Any) -> None:
    whole = llama.cached(attention_mask=LEFT)[1]
    both = whole.slice(batch=1, pos=[-1, 4])
    for site in llama.model.sites:
        _close(both[site], _cut(whole[site][[1]], site.axes, [-1, 4]))
    assert both["q.0"].untyped_storage().nbytes() == both["q.0"].numel() * 4, "copies, so the rest can be freed"


@torch.no_grad()
def test_one_row_can_lose_its_axis_and_several_cannot(llama: Any) -> None:
    whole = llama.cached()[1]
    one = whole.slice(batch=1).remove_batch_dim()
    for site in llama.model.sites:
        _close(one[site], whole[site][1])
    _, straight = llama.model.run_with_cache(llama.tokens[1], remove_batch_dim=True)
    _same(straight, one)
    with pytest.raises(InputError, match="this cache has 3 rows"):
        whole.remove_batch_dim()


@torch.no_grad()
def test_moving_a_cache_moves_all_of_it_and_changes_no_number(llama: Any) -> None:
    whole = llama.cached(attention_mask=LEFT)[1]
    _same(whole.to("cpu"), whole)
    away = whole.to("meta")
    for name in away:
        if not name.endswith("hook_result"):
            assert away[name].device.type == "meta", name
    assert whole["q.0"].device.type == "cpu"
    shared = [cache["resid_post.0"] is cache["resid_pre.1"] for cache in (whole, away)]
    assert shared == [True, True], "neighbours in the stream stay one tensor"


@torch.no_grad()
def test_device_moves_what_is_kept_as_it_is_read(llama: Any) -> None:
    _, cache = llama.cached(["q.0", "resid_post.0", "resid_pre.1", "pattern.2"], device="meta")
    assert {x.device.type for x in cache.values()} == {"meta"}
    _, same = llama.cached(device="cpu")
    _same(same, llama.cached()[1])


# ---- gradients ----


def test_gradients_at_every_site_are_those_of_autograd(llama: Any) -> None:
    """By hand: put a leaf in the site's place and differentiate the loss."""
    loss, cache = llama.cached(incl_bwd=True, return_type="loss")
    assert torch.allclose(loss, llama(return_type="loss"), rtol=1e-5)
    assert list(cache) == cache.stored == llama.model.sites.names
    for name in cache:
        leaf: list[Tensor] = []

        def plant(x: Tensor, hook: Any, leaf: list[Tensor] = leaf) -> Tensor:
            leaf.append(x.detach().requires_grad_())
            return leaf[0]

        (by_hand,) = torch.autograd.grad(llama.hooked((name, plant), return_type="loss"), leaf)
        _close(cache.grad(name), by_hand, 1e-5)
        assert cache.grad(name).abs().amax() > 1e-7, name


def test_gradients_agree_with_finite_differences(configs: dict[str, ModelConfig]) -> None:
    model = HookedTransformer(configs["double"], dtype=torch.float64)
    tokens = torch.arange(8)[None] * 5
    _, cache = model.run_with_cache(tokens, incl_bwd=True, return_type="loss")
    step = 1e-5
    for name in ("resid_pre.0", "q.1", "rot_k.0", "pattern.1", "result.0", "post.1", ("scale", 1, "ln2"), "logits"):
        flat = int(cache.grad(name).abs().argmax())

        with torch.no_grad():
            up, down = (
                model.run_with_hooks(
                    tokens,
                    fwd_hooks=[(name, lambda x, hook, by=by, flat=flat: _nudged(x, flat, by))],
                    return_type="loss",
                )
                for by in (step, -step)
            )
        expected = float(up - down) / (2 * step)
        assert float(cache.grad(name).flatten()[flat]) == pytest.approx(expected, rel=1e-5), name


def _nudged(x: Tensor, flat: int, by: float) -> Tensor:
    x = x.clone().contiguous()
    x.view(-1)[flat] += by
    return x


def test_gradients_leave_the_parameters_own_gradients_alone(llama: Any, fresh: Callable) -> None:
    llama.cached(incl_bwd=True, return_type="loss")
    assert all(parameter.grad is None for parameter in llama.model.parameters())
    model = fresh()
    model(llama.tokens, return_type="loss").backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    model.run_with_cache(llama.tokens, incl_bwd=True, return_type="loss")
    assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), before, strict=True))


def test_gradients_need_no_trainable_weights_and_work_under_no_grad(llama: Any, fresh: Callable) -> None:
    model = fresh()
    model.requires_grad_(False)
    _, cache = model.run_with_cache(llama.tokens, incl_bwd=True, return_type="loss")
    with torch.no_grad():
        _, same = llama.cached(incl_bwd=True, return_type="loss")
    for name in cache:
        _close(cache.grad(name), same.grad(name))


def test_gradients_are_found_by_any_spelling_and_a_miss_is_explained(llama: Any) -> None:
    _, cache = llama.cached(["z.0", "q.1"], incl_bwd=True, return_type="loss")
    assert torch.equal(cache.grad(("z", 0)), cache["blocks.0.attn.hook_z_grad"])
    with pytest.raises(UnknownSiteError, match=r"no gradient of blocks\.2\.attn\.hook_z\. Add it to names_filter"):
        cache.grad("z.2")
    with pytest.raises(UnknownSiteError, match="incl_bwd=True"):
        llama.cached("z.0")[1].grad("z.0")


def test_gradients_of_an_edited_run_are_of_the_edited_run(llama: Any) -> None:
    hooks = [("z.1", lambda x, hook: 0 * x)]
    _, cache = llama.cached(["z.1", "z.0", "v.1"], incl_bwd=True, return_type="loss", fwd_hooks=hooks)
    assert not cache["z.1"].any() and cache.grad("z.1").any()
    assert not cache.grad("v.1").any(), "nothing flows through a zeroed head"


def test_gradients_are_sliced_like_the_sites(llama: Any) -> None:
    _, whole = llama.cached(incl_bwd=True, return_type="loss")
    for sliced in (llama.cached(incl_bwd=True, return_type="loss", pos_slice=[2, -1])[1], whole.slice(pos=[2, -1])):
        for site in llama.model.sites:
            _close(sliced[site], _cut(whole[site], site.axes, [2, -1]))
            _close(sliced.grad(site), _cut(whole.grad(site), site.axes, [2, -1]))
    rows = whole.slice(batch=[2])
    for site in llama.model.sites:
        _close(rows.grad(site), whole.grad(site)[[2]])


def test_gradients_need_a_scalar_loss(llama: Any) -> None:
    for return_type in ("logits", "both", None):
        with pytest.raises(InputError, match='Pass return_type="loss"'):
            llama.cached(incl_bwd=True, return_type=return_type)
    with pytest.raises(InputError, match='Pass return_type="loss"'):
        llama.cached(incl_bwd=True)
    with pytest.raises(HookError, match="differentiates a scalar"):
        llama.cached("q.0", incl_bwd=True, return_type="loss", loss_per_token=True)
    with pytest.raises(InterpError):
        llama.cached("q.0", incl_bwd=True, return_type="loss", stop_at_layer=1)


# ---- saving ----


@torch.no_grad()
@pytest.mark.parametrize("mask", [None, LEFT], ids=["whole", "padded"])
def test_a_saved_cache_comes_back_as_it_was(case: Any, tmp_path: Path, mask: Tensor | None) -> None:
    _, cache = case.cached(attention_mask=mask)
    cache.save(tmp_path / "c")
    back = ActivationCache.load(tmp_path / "c").bind(case.model)
    assert list(back) == list(cache) and sorted(back.stored) == sorted(cache.stored)
    for name in cache:
        assert torch.equal(back[name], cache[name]), name
    assert back["resid_pre" if not case.main else "decoder.resid_pre", 1].dtype == case.model.dtype


@torch.no_grad()
def test_saved_slices_gradients_and_single_rows_come_back_too(llama: Any, tmp_path: Path) -> None:
    whole = llama.cached(attention_mask=LEFT)[1]
    with torch.enable_grad():
        _, graded = llama.cached(incl_bwd=True, return_type="loss")
    variants = {
        "pos": whole.slice(pos=[3, 5]),
        "read": llama.cached(pos_slice=[3, 5])[1],
        "rows": whole.slice(batch=[2, 0]),
        "single": whole.slice(batch=1).remove_batch_dim(),
        "graded": graded,
    }
    for name, cache in variants.items():
        cache.save(tmp_path / name)
        back = ActivationCache.load(tmp_path / name).bind(llama.model)
        _same(back, cache)
        assert back.has_batch_dim == cache.has_batch_dim
        if name == "graded":
            assert all(torch.equal(back.grad(site), cache.grad(site)) for site in cache)
    again = ActivationCache.load(tmp_path / "pos").slice(pos=[1])
    _close(again["pattern.0"], whole["pattern.0"][:, :, [5]])


@torch.no_grad()
def test_a_cache_after_stored_keys_comes_back(llama: Any, tmp_path: Path) -> None:
    _, past = llama.model.extend(llama.tokens[:, :5])
    _, cache = llama.model.run_with_cache(llama.tokens[:, 5:], past_kv=past)
    cache.save(tmp_path / "c")
    _same(ActivationCache.load(tmp_path / "c").bind(llama.model), cache)


@torch.no_grad()
def test_tensors_that_stand_at_two_sites_are_written_once_and_stay_one(llama: Any, tmp_path: Path) -> None:
    _, cache = llama.cached(lambda name: "resid" in name or name == "hook_embed")
    cache.save(tmp_path / "c")
    back = ActivationCache.load(tmp_path / "c")
    assert back["resid_post.0"] is back["resid_pre.1"]
    size = sum(file.stat().st_size for file in (tmp_path / "c").iterdir())
    assert size < 7.5 * 3 * 9 * 32 * 4 + 8000  # embed, which is pre.0, then mid and post of three layers


@torch.no_grad()
def test_what_is_saved_is_safetensors_and_json(llama: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, cache = llama.cached(["q.0", "z.1"])
    cache.save(tmp_path / "c")
    assert sorted(file.name for file in (tmp_path / "c").iterdir()) == ["cache.json", "tensors.safetensors"]
    tensors = load_file(tmp_path / "c" / "tensors.safetensors")
    assert torch.equal(tensors["blocks.0.attn.hook_q"], cache["q.0"])
    assert json.loads((tmp_path / "c" / "cache.json").read_text())["config"]["d_model"] == 32


@torch.no_grad()
def test_head_results_of_a_loaded_cache_need_the_model(llama: Any, tmp_path: Path) -> None:
    _, cache = llama.cached()
    cache.save(tmp_path / "c")
    back = ActivationCache.load(tmp_path / "c")
    assert "result.0" in back
    with pytest.raises(UnknownSiteError, match=r"hook_result is computed with the model's W_O.*bind\(model\)"):
        back["result.0"]
    _close(back["pattern.0"], cache["pattern.0"])
    _close(back.bind(llama.model)["result.0"], cache["result.0"])
    assert torch.equal(back.bind(llama.model).slice(pos=2)["result.0"], cache["result.0"][:, [2]])


@torch.no_grad()
def test_a_cache_does_not_keep_its_model_alive(fresh: Callable, llama: Any) -> None:
    model = fresh()
    _, cache = model.run_with_cache(llama.tokens)
    del model
    gc.collect()
    assert cache["pattern.0"].shape == (3, 4, 9, 9)
    with pytest.raises(UnknownSiteError, match="bind"):
        cache["result.0"]


@torch.no_grad()
def test_a_cache_is_bound_to_no_other_architecture(llama: Any, gpt2: Any, configs: dict, tmp_path: Path) -> None:
    _, cache = llama.cached()
    cache.save(tmp_path / "c")
    back = ActivationCache.load(tmp_path / "c")
    wider = HookedTransformer(replace(configs["llama"], d_model=48))  # the same blocks on another stream
    for other in (gpt2.model, wider, "llama", None):
        with pytest.raises(InputError, match="another architecture"):
            back.bind(other)


@torch.no_grad()
def test_saving_again_replaces_the_old_cache_as_a_whole(llama: Any, tmp_path: Path) -> None:
    llama.cached()[1].save(tmp_path / "c")
    llama.cached("q.0")[1].save(tmp_path / "c")
    assert list(ActivationCache.load(tmp_path / "c")) == ["blocks.0.attn.hook_q"]


@torch.no_grad()
def test_saving_never_deletes_a_folder_that_is_no_cache(llama: Any, tmp_path: Path) -> None:
    """cache.save("results") where results holds a month of work."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.txt").write_text("a month of work")
    with suppress(InterpError):
        llama.cached("q.0")[1].save(tmp_path / "results")
    assert (tmp_path / "results" / "thesis.txt").read_text() == "a month of work"


@torch.no_grad()
def test_a_full_disk_while_saving_is_one_storage_error_and_leaves_the_old_cache(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from safetensors import SafetensorError

    llama.cached("q.0")[1].save(tmp_path / "c")
    for error in (SafetensorError("I/O error: No space left on device"), OSError(errno.ENOSPC, "No space left")):

        def full(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(cache_module, "save_file", full)
        with pytest.raises(StorageError, match="No space left"):
            llama.cached("k.0")[1].save(tmp_path / "c")
        monkeypatch.undo()
    assert list(ActivationCache.load(tmp_path / "c")) == ["blocks.0.attn.hook_q"]
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def _truncated(folder: Path) -> None:
    file = folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-200])


def _headless(folder: Path) -> None:
    (folder / "tensors.safetensors").write_bytes(b"")


def _edited_json(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        about = json.loads((folder / "cache.json").read_text())
        for name, value in changes.items():
            if value is None:
                del about[name]
            else:
                about[name] = value
        (folder / "cache.json").write_text(json.dumps(about))

    return change


def _other_tensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"something": torch.zeros(2)}, folder / "tensors.safetensors")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no folder": lambda folder: [file.unlink() for file in folder.iterdir()] and folder.rmdir(),
    "no json": lambda folder: (folder / "cache.json").unlink(),
    "no tensors": lambda folder: (folder / "tensors.safetensors").unlink(),
    "half the json": lambda folder: (folder / "cache.json").write_text('{"format": 1,'),
    "another json": lambda folder: (folder / "cache.json").write_text("[1, 2]"),
    "a newer format": _edited_json(format=99),
    "a field lost": _edited_json(rows=None),
    "aliases lost": _edited_json(aliases=None),
    "an alias of nothing": _edited_json(aliases={"blocks.0.attn.hook_v": "blocks.0.attn.hook_nothing"}),
    "a config lost": _edited_json(config=None),
    "a config of another kind": _edited_json(config={"d_model": 32}),
    "truncated tensors": _truncated,
    "empty tensors": _headless,
    "tensors of something else": _other_tensors,
}


@torch.no_grad()
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_one_storage_error_that_names_it(
    llama: Any, tmp_path: Path, kind: str, unchecked: None
) -> None:
    llama.cached()[1].save(tmp_path / "c")
    DAMAGE[kind](tmp_path / "c")
    with pytest.raises(StorageError) as caught:
        ActivationCache.load(tmp_path / "c")
    assert str(tmp_path / "c") in str(caught.value)


# ---- size ----


def _bytes(cache: ActivationCache) -> int:
    storages = {(x := cache[name]).untyped_storage().data_ptr(): x.untyped_storage().nbytes() for name in cache.stored}
    return sum(storages.values())


@torch.no_grad()
def test_all_sites_of_smollm2_at_512_tokens_take_at_most_six_hundred_megabytes(smollm2: Any) -> None:
    tokens = torch.arange(512)[None] + 1000
    _, cache = smollm2.run_with_cache(tokens, return_type=None)
    assert list(cache) == smollm2.sites.names
    assert _bytes(cache) <= 0.6e9
    _, patterns = smollm2.run_with_cache(tokens[:, :64], lambda name: name.endswith("hook_pattern"), stop_at_layer=2)
    assert _bytes(patterns) == 2 * 9 * 64 * 64 * 4


@torch.no_grad()
def test_what_follows_from_other_sites_is_not_stored(case: Any) -> None:
    _, cache = case.cached()
    assert not [name for name in cache.stored if case.is_derived(name)]
    streams = [cache[name] for name in cache.stored if "hook_resid" in name]
    posts = [name for name in cache.stored if name.endswith("hook_resid_post")]
    distinct = {x.untyped_storage().data_ptr() for x in streams}
    n_stacks = len(case.model.cfg.stacks)
    assert len(distinct) == len(streams) - (len(posts) - n_stacks), "resid_post is the next resid_pre, not a copy"
