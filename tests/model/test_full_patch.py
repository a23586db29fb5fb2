"""Promise 2: edits do what they say, all of it, and nothing else; nothing outlives the call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interp.errors import HookError, InterpError, UnknownSiteError
from interp.model.taps import HookPoint, Taps, make_writes

Hook = Callable[..., Tensor | None]
CUTS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_mid_cross", "hook_resid_post")


def _returning(value: Tensor) -> Hook:
    return lambda x, hook: value


def _in_place(value: Tensor) -> Hook:
    def write(x: Tensor, hook: HookPoint) -> None:
        x[:] = value

    return write


def _double(x: Tensor, hook: HookPoint) -> Tensor:
    return 2 * x


def _nothing(x: Tensor, hook: HookPoint) -> None:
    return None


def _close(a: Tensor, b: Tensor) -> None:
    """Within 1e-5 × max(1, |b|), infinities at the same places."""
    finite = torch.isfinite(b)
    assert a.shape == b.shape and torch.equal(a[~finite], b[~finite])
    assert float((a[finite] - b[finite]).abs().max()) <= 1e-5 * max(1.0, float(b[finite].abs().max()))


def _cuts(case: Any) -> list[str]:
    """Residual cuts through which everything that reaches the logits must pass."""
    return [str(site) for site in case.model.sites if site.name in CUTS and str(site).startswith(case.main)]


# ---- patching everything ----


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("way", [_returning, _in_place], ids=["returned", "in_place"])
def test_patching_every_position_of_a_residual_cut_with_clean_values_gives_the_clean_logits(
    case: Any, way: Callable[[Tensor], Hook], grad: bool
) -> None:
    with torch.no_grad():
        clean, cache = case.cached(lambda name: name.endswith(CUTS))
    corrupt = case.other
    with nullcontext() if grad else torch.no_grad():
        assert (corrupt() - clean).abs().amax() > 0.05, "the two runs must differ"
        for name in _cuts(case):
            patch = (name, way(cache[name]))
            if case.main:  # the later layers read the encoder as well
                last = f"encoder.blocks.{case.model.cfg.encoder.n_layers - 1}.hook_resid_post"
                patched = corrupt.hooked((last, way(cache[last])), patch)
            else:
                patched = corrupt.hooked(patch)
            if grad and case.model.main.relative is not None:
                _close(patched.detach(), clean)  # a bias that is differentiated goes through another kernel
            else:
                assert torch.equal(patched, clean), name  # the same arithmetic on the same numbers
            assert patched.requires_grad == grad


@torch.no_grad()
def test_patching_a_cut_at_one_position_changes_that_position_and_later_ones_only(decoder: Any) -> None:
    _, cache = decoder.cached(lambda name: name.endswith(CUTS))
    corrupt = decoder.other
    before = corrupt()
    for name in _cuts(decoder):

        def patch(x: Tensor, hook: HookPoint, name: str = name) -> None:
            x[:, 4] = cache[name][:, 4]

        after = corrupt.hooked((name, patch))
        _close(after[:, :4], before[:, :4])
        assert (after[:, 4] - before[:, 4]).abs().amax() > 1e-3, name


@torch.no_grad()
def test_patching_everything_from_another_row_makes_the_rows_equal(llama: Any) -> None:
    def first_row(x: Tensor, hook: HookPoint) -> Tensor:
        return x[:1].expand_as(x)

    logits = llama.hooked(("resid_mid.1", first_row))
    _close(logits[1], logits[0])
    _close(logits[2], logits[0])
    _close(logits[0], llama()[0])


# ---- patching with itself ----


@torch.no_grad()
def test_patching_any_site_with_itself_changes_nothing(case: Any) -> None:
    """Bitwise for sites that both roads make alike; scores, patterns, norms and results take the explicit road."""
    clean = case()
    explicit = ("hook_attn_scores", "hook_pattern", "hook_scale", "hook_normalized", "hook_result")
    for name in case.model.sites.names:
        logits = case.hooked((name, _nothing), (name, lambda x, hook: x), (name, lambda x, hook: x.clone()))
        if name.endswith(explicit):
            _close(logits, clean)
        else:
            assert torch.equal(logits, clean), name


@torch.no_grad()
def test_patching_any_site_with_what_the_cache_held_changes_nothing(layout: Any) -> None:
    clean, cache = layout.cached()
    for name in layout.model.sites.names:
        _close(layout.hooked((name, _returning(cache[name]))), clean)


@torch.no_grad()
def test_every_site_can_be_edited_and_the_edit_is_felt(layout: Any) -> None:
    clean = layout()
    generator = torch.Generator().manual_seed(0)

    def noisy(x: Tensor, hook: HookPoint) -> Tensor:
        return x * (1 + 0.5 * torch.rand(x.shape, generator=generator, dtype=x.dtype))

    for name in layout.model.sites.names:
        assert (layout.hooked((name, noisy)) - clean).abs().amax() > 1e-4, name


@torch.no_grad()
def test_an_edited_head_result_reaches_attn_out(case: Any) -> None:
    def without_head_one(x: Tensor, hook: HookPoint) -> None:
        x[:, :, 1] = 0

    for site in case.model.sites:
        if site.name != "hook_result":
            continue
        out, factor = case.own_sum(site.address)
        _, clean = case.cached([str(site), out])
        _, edited = case.cached([str(site), out], fwd_hooks=[(str(site), without_head_one)])
        _close(clean[out] - factor * clean[str(site)][:, :, 1], edited[out])
        assert torch.equal(edited[str(site)][:, :, 1], torch.zeros_like(clean[out]))


# ---- what one hook may touch ----


@torch.no_grad()
def test_an_in_place_edit_changes_its_own_entry_and_no_earlier_one(layout: Any) -> None:
    """resid_post is the next layer's resid_pre, rot_q comes from q, pattern from scores: all share numbers."""
    _, clean = layout.cached()
    names = layout.model.sites.names
    for place, name in enumerate(names):
        _, edited = layout.cached(fwd_hooks=[(name, lambda x, hook: x.mul_(2))])
        expected = clean[name] * 2
        _close(edited[name], expected)
        for earlier in names[max(0, place - 7) : place]:
            _close(edited[earlier], clean[earlier])


@torch.no_grad()
def test_an_edit_of_resid_post_is_the_next_resid_pre_and_not_the_other_way(llama: Any) -> None:
    _, clean = llama.cached(["resid_post.0", "resid_pre.1"])
    _, after = llama.cached(["resid_post.0", "resid_pre.1"], fwd_hooks=[("resid_post.0", _double)])
    assert torch.equal(after["resid_post.0"], after["resid_pre.1"])
    assert torch.equal(after["resid_pre.1"], 2 * clean["resid_pre.1"])
    _, before = llama.cached(["resid_post.0", "resid_pre.1"], fwd_hooks=[("resid_pre.1", lambda x, hook: x.mul_(2))])
    assert torch.equal(before["resid_post.0"], clean["resid_post.0"])
    assert torch.equal(before["resid_pre.1"], 2 * clean["resid_pre.1"])


@torch.no_grad()
def test_a_returned_tensor_is_not_changed_by_hooks_further_on(llama: Any) -> None:
    _, cache = llama.cached(["resid_post.0"])
    given = cache["resid_post.0"].clone()
    kept = given.clone()
    llama.hooked(("resid_post.0", _returning(given)), ("resid_pre.1", lambda x, hook: x.zero_()))
    assert torch.equal(given, kept)
    assert torch.equal(cache["resid_post.0"], kept)


@torch.no_grad()
def test_hooks_of_one_site_run_in_the_order_given_each_on_what_the_last_left(llama: Any) -> None:
    plus = lambda x, hook: x + 1  # noqa: E731
    _, clean = llama.cached("q.0")
    _, one = llama.cached("q.0", fwd_hooks=[("q.0", plus), ("q.0", _double)])
    _, other = llama.cached("q.0", fwd_hooks=[("q.0", _double), ("q.0", plus)])
    assert torch.equal(one["q.0"], 2 * (clean["q.0"] + 1))
    assert torch.equal(other["q.0"], 2 * clean["q.0"] + 1)


# ---- what a hook is told ----


def test_a_hook_learns_where_it_is(llama: Any) -> None:
    seen: list[HookPoint] = []
    llama.hooked((["blocks.1.attn.q.hook_out", "embed"], lambda x, hook: seen.append(hook)))
    embed, query = seen
    assert (query.name, query.layer(), str(query.site)) == ("blocks.1.attn.hook_q", 1, "blocks.1.attn.hook_q")
    assert embed.name == "hook_embed"
    with pytest.raises(HookError, match="hook_embed belongs to no layer"):
        embed.layer()


def test_a_hooks_ctx_lives_as_long_as_its_hooks_and_belongs_to_one_site(llama: Any) -> None:
    contexts: list[dict] = []

    def count(x: Tensor, hook: HookPoint) -> None:
        hook.ctx["calls"] = hook.ctx.get("calls", 0) + 1
        contexts.append(hook.ctx)

    llama.hooked((["q.0", "q.1"], count))
    assert [ctx["calls"] for ctx in contexts] == [1, 1] and contexts[0] is not contexts[1]
    contexts.clear()
    with llama.model.hooks([("q.0", count)]):
        llama()
        llama()
    assert contexts[-1]["calls"] == 2
    contexts.clear()
    llama.hooked(("q.0", count))
    assert contexts[-1]["calls"] == 1


def test_hooks_are_found_by_any_spelling_a_list_or_a_test_of_the_name(llama: Any) -> None:
    for wanted in ("q.1", ("q", 1), "blocks.1.attn.hook_q", lambda name: name == "blocks.1.attn.hook_q", ["q.1"]):
        seen: list[str] = []
        llama.hooked((wanted, lambda x, hook, seen=seen: seen.append(hook.name)))
        assert seen == ["blocks.1.attn.hook_q"]


def test_a_hook_called_as_transformer_lens_calls_it_takes_partial_arguments(llama: Any) -> None:
    from functools import partial

    def add(x: Tensor, hook: HookPoint, amount: float) -> Tensor:
        return x + amount

    with torch.no_grad():
        _, cache = llama.cached("z.0", fwd_hooks=[("z.0", partial(add, amount=3.0))])
        _, clean = llama.cached("z.0")
    assert torch.equal(cache["z.0"], clean["z.0"] + 3)


# ---- writes that never fire ----


def test_a_write_that_the_call_does_not_reach_raises(llama: Any) -> None:
    resid = torch.zeros(1, 2, 32)
    message = r"hook on blocks\.\d\.attn\.hook_q never fired.*start_at_layer"
    with pytest.raises(HookError, match=message):
        llama.hooked(("q.2", _nothing), stop_at_layer=2)
    with pytest.raises(HookError, match=message):
        llama.model.run_with_hooks(resid, fwd_hooks=[("q.0", _nothing)], start_at_layer=1)
    with pytest.raises(HookError, match=message):
        llama.cached("q.0", fwd_hooks=[("q.1", _nothing)], stop_at_layer=1)
    with pytest.raises(HookError, match=message):
        llama.model.run_with_cache(resid, "q.1", fwd_hooks=[("q.0", _nothing)], start_at_layer=1)
    with pytest.raises(HookError, match=message), llama.model.hooks([("q.2", _nothing)]):
        llama(stop_at_layer=1)
    with pytest.raises(HookError, match="hook_embed never fired"):
        llama.model.run_with_hooks(resid, fwd_hooks=[("embed", _nothing)], start_at_layer=0)
    with pytest.raises(HookError, match=r"hook_unembed never fired"):
        llama.hooked(("logits", _nothing), stop_at_layer=3)


def test_a_block_of_hooks_in_which_nothing_runs_raises(llama: Any) -> None:
    with pytest.raises(HookError, match="never fired"), llama.model.hooks([("q.0", _nothing)]):
        pass


def test_an_error_inside_the_block_is_not_hidden_by_hooks_that_never_fired(llama: Any) -> None:
    with pytest.raises(ZeroDivisionError), llama.model.hooks([("q.0", _nothing)]):
        raise ZeroDivisionError
    assert torch.equal(llama(), llama())


@torch.no_grad()
def test_a_standing_hook_may_wait_for_a_later_call_of_its_block(llama: Any) -> None:
    """The block promises to raise at its end; a call inside it that does not reach the site is no mistake."""
    with llama.model.hooks([("q.2", lambda x, hook: x * 0)]):
        llama(stop_at_layer=1)
        llama.cached("q.0", stop_at_layer=1)
        llama.hooked(("q.0", _nothing), stop_at_layer=1)
        edited = llama()
    assert not torch.equal(edited, llama())


def test_a_hook_on_several_sites_has_fired_when_one_of_them_was_reached(llama: Any) -> None:
    llama.hooked((lambda name: name.endswith("hook_q"), _nothing), stop_at_layer=1)


def test_unknown_sites_are_refused_before_anything_runs(llama: Any) -> None:
    ran: list[int] = []
    with pytest.raises(UnknownSiteError, match=r"qq\.0.*Near it"):
        llama.hooked(("embed", lambda x, hook: ran.append(1)), ("qq.0", _nothing))
    with pytest.raises(UnknownSiteError), llama.model.hooks([("q.3", _nothing)]):
        raise AssertionError("the block must not run")
    with pytest.raises(UnknownSiteError):
        llama.cached("qq.0")
    assert not ran


def test_what_is_no_function_is_refused(llama: Any, unchecked: None) -> None:
    with pytest.raises(HookError, match=r"not a function\. Give \(name, function\) pairs"):
        llama.hooked(("q.0", 5))


# ---- hooks that return the wrong thing ----


WRONG = {
    "shape": (lambda x, hook: x[:, :-1], r"returned shape \(3, 8, 4, 8\); the site has \(3, 9, 4, 8\)"),
    "broadcast": (lambda x, hook: x[:1], r"returned shape \(1, 9, 4, 8\)"),
    "dtype": (lambda x, hook: x.double(), r"returned torch\.float64; the site is torch\.float32"),
    "half": (lambda x, hook: x.bfloat16(), r"returned torch\.bfloat16"),
    "device": (lambda x, hook: x.to("meta"), r"returned a tensor on meta; the site is on cpu"),
    "number": (lambda x, hook: 0.0, r"returned float\. Return a tensor, or None"),
    "tuple": (lambda x, hook: (x,), r"returned tuple"),
    "list": (lambda x, hook: x.tolist(), r"returned list"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_hook_that_returns_what_cannot_be_used_is_named(
    llama: Any, kind: str, left_behind: Callable, unchecked: None
) -> None:
    hook, message = WRONG[kind]
    before = left_behind(llama.model)
    calls: list[Callable[[], Any]] = [
        lambda: llama.hooked(("q.1", hook)),
        lambda: llama.cached("q.1", fwd_hooks=[("q.1", hook)]),
        lambda: _inside(llama, hook),
    ]
    for call in calls:
        with pytest.raises(HookError, match=message) as caught:
            call()
        assert "blocks.1.attn.hook_q" in str(caught.value)
        assert isinstance(caught.value, InterpError)
    assert left_behind(llama.model) == before


def _inside(case: Any, hook: Hook) -> None:
    with case.model.hooks([("q.1", hook)]):
        case()


def test_a_backward_hook_that_returns_another_shape_is_named(llama: Any) -> None:
    loss = llama.model.run_with_hooks(
        llama.tokens, bwd_hooks=[("q.1", lambda grad, hook: grad[:1])], return_type="loss"
    )
    with pytest.raises(HookError, match=r"hook_q returned shape"):
        loss.backward()
    llama.model.zero_grad()


# ---- backward hooks ----


def test_backward_hooks_get_the_gradient_of_their_site_and_may_change_it(llama: Any) -> None:
    got: dict[str, Tensor] = {}
    loss = llama.model.run_with_hooks(
        llama.tokens,
        bwd_hooks=[(["z.1", "resid_pre.1"], lambda grad, hook: got.__setitem__(hook.name, grad.clone()))],
        return_type="loss",
    )
    weight = llama.model.blocks[0].attn.q.weight
    (whole,) = torch.autograd.grad(loss, [weight])
    z = torch.zeros(1)

    def watch(x: Tensor, hook: HookPoint) -> Tensor:
        nonlocal z
        z = x.detach().requires_grad_()
        return z

    loss = llama.hooked(("z.1", watch), return_type="loss")
    (expected,) = torch.autograd.grad(loss, [z])
    assert_close(got["blocks.1.attn.hook_z"], expected, rtol=1e-4, atol=1e-7)
    assert float(whole.abs().amax()) > 0
    stopped = llama.model.run_with_hooks(
        llama.tokens, bwd_hooks=[("resid_pre.1", lambda grad, hook: torch.zeros_like(grad))], return_type="loss"
    )
    (nothing,) = torch.autograd.grad(stopped, [weight])
    assert not nothing.any()


@torch.no_grad()
def test_a_backward_hook_without_gradients_is_refused(llama: Any) -> None:
    with pytest.raises(HookError, match=r"can never fire: gradients are off"):
        llama.model.run_with_hooks(llama.tokens, bwd_hooks=[("q.0", _nothing)])


# ---- threads ----


def test_two_threads_that_share_a_model_do_not_meet(llama: Any) -> None:
    """Each thread scales another site by its own number; every answer is what the same call gives alone."""
    jobs = [(f"{name}.{layer}", 1 + i / 4) for i in range(8) for name in ("q", "resid_mid") for layer in (0, 2)]

    def run(job: tuple[str, float]) -> Tensor:
        with torch.no_grad():
            return llama.hooked((job[0], lambda x, hook: x * job[1]))

    alone = [run(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, jobs * 4))
    for expected, got in zip(alone * 4, together, strict=True):
        _close(got, expected)


def test_a_standing_hook_of_one_thread_is_unseen_by_another(llama: Any) -> None:
    with torch.no_grad():
        clean = llama()
    inside, leave = threading.Event(), threading.Event()
    edited: list[Tensor] = []

    def hold() -> None:
        with torch.no_grad(), llama.model.hooks([("resid_pre.0", lambda x, hook: x * 0)]):
            edited.append(llama())
            inside.set()
            leave.wait(20)
            edited.append(llama())

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    with torch.no_grad():
        meanwhile = llama()
        _, cache = llama.cached("resid_pre.0")
    leave.set()
    thread.join()
    assert torch.equal(meanwhile, clean) and cache["resid_pre.0"].any()
    assert not torch.equal(edited[0], clean) and torch.equal(edited[0], edited[1])


@torch.no_grad()
def test_a_standing_hook_belongs_to_its_model(llama: Any, fresh: Callable) -> None:
    other = fresh("llama", seed=9)
    plain = other(llama.tokens)
    with llama.model.hooks([("q.0", lambda x, hook: x * 0)]):
        llama()
        assert torch.equal(other(llama.tokens), plain)


# ---- nothing stays ----


def test_nothing_is_left_on_the_model_after_any_call(case: Any, left_behind: Callable) -> None:
    before = left_behind(case.model)
    causal = case.model.decoder is not None
    case()
    case.cached()
    case.cached("logits", fwd_hooks=[("logits", _double)])
    case.hooked((lambda name: name.endswith("hook_z"), _double))
    case.model.run_with_hooks(
        case.tokens,
        bwd_hooks=[(lambda name: name.endswith("hook_z"), _nothing)],
        return_type="loss" if causal else "logits",
        **case.options,
    ).sum().backward()
    case.model.zero_grad()
    if causal:
        case.cached(incl_bwd=True, return_type="loss")
    with case.model.hooks([(lambda name: name.endswith("hook_z"), _double)]):
        case()
    assert left_behind(case.model) == before


def _raises(x: Tensor, hook: HookPoint) -> Tensor:
    raise ZeroDivisionError("the hook's own mistake")


def test_nothing_is_left_after_an_error_and_the_next_call_is_clean(llama: Any, left_behind: Callable) -> None:
    with torch.no_grad():
        clean, before = llama(), left_behind(llama.model)
    with pytest.raises(ZeroDivisionError):
        llama.hooked(("q.1", _raises))
    with pytest.raises(ZeroDivisionError):
        llama.cached(fwd_hooks=[("q.1", _raises)])
    with pytest.raises(ZeroDivisionError), llama.model.hooks([("q.0", _double), ("q.1", _raises)]):
        llama()
    with pytest.raises(ZeroDivisionError):
        llama.cached(incl_bwd=True, return_type="loss", fwd_hooks=[("q.1", _raises)])
    assert left_behind(llama.model) == before
    with torch.no_grad():
        assert torch.equal(llama(), clean)


@torch.no_grad()
def test_the_block_of_hooks_ends_where_it_ends(llama: Any) -> None:
    clean = llama()
    with llama.model.hooks([("q.0", _double)]) as same:
        assert same is llama.model
        edited, (cached, cache) = llama(), llama.cached("q.0")
        assert torch.equal(llama.hooked(("k.1", _nothing)), edited)
    assert torch.equal(edited, llama.hooked(("q.0", _double)))
    assert torch.equal(cached, edited)
    assert torch.equal(cache["q.0"], 2 * llama.cached("q.0")[1]["q.0"])
    assert torch.equal(llama(), clean)


@torch.no_grad()
def test_nested_blocks_add_up_outer_first(llama: Any) -> None:
    clean = llama.cached("q.0")[1]["q.0"]
    with llama.model.hooks([("q.0", lambda x, hook: x + 1)]):
        with llama.model.hooks([("q.0", _double)]):
            assert torch.equal(llama.cached("q.0")[1]["q.0"], 2 * (clean + 1))
            _, cache = llama.cached("q.0", fwd_hooks=[("q.0", lambda x, hook: x - 3)])
            assert torch.equal(cache["q.0"], 2 * (clean + 1) - 3)
        assert torch.equal(llama.cached("q.0")[1]["q.0"], clean + 1)
    assert torch.equal(llama.cached("q.0")[1]["q.0"], clean)


@torch.no_grad()
def test_standing_hooks_reach_generate_extend_and_encode(llama: Any, two_stacks: Any) -> None:
    with llama.model.hooks([("logits", lambda x, hook: x.index_fill(-1, torch.tensor([7]), 1e4))]):
        assert (llama.model.generate(llama.tokens, 3, stop_at_eos=False)[:, 9:] == 7).all()
        assert (llama.model.extend(llama.tokens)[0].argmax(-1) == 7).all()
    with two_stacks.model.hooks([("encoder.blocks.0.hook_resid_pre", lambda x, hook: x * 0)]):
        memory = two_stacks.model.encode(two_stacks.tokens)
    assert not torch.equal(memory.resid, two_stacks.model.encode(two_stacks.tokens).resid)


@torch.no_grad()
def test_taps_made_by_hand_do_what_the_thin_spellings_do(llama: Any) -> None:
    writes = make_writes(llama.model.sites, [("q.1", _double)])
    taps = Taps(read=["blocks.1.attn.hook_q", "blocks.2.hook_resid_pre"], writes=writes)
    logits = llama(taps=taps)
    expected, cache = llama.cached(["q.1", "resid_pre.2"], fwd_hooks=[("q.1", _double)])
    assert torch.equal(logits, expected)
    assert set(taps.values) == set(cache)
    assert all(torch.equal(taps.values[name], cache[name]) for name in cache)


@torch.no_grad()
def test_the_promise_holds_on_smollm2(smollm2: Any) -> None:
    clean_tokens = smollm2.to_tokens("The capital of France is the city of")
    corrupt_tokens = smollm2.to_tokens("The capital of Japan is the city of")
    assert clean_tokens.shape == corrupt_tokens.shape
    names = [f"blocks.{layer}.{cut}" for layer in (0, 29) for cut in CUTS if "cross" not in cut]
    clean, cache = smollm2.run_with_cache(clean_tokens, names)
    assert (smollm2(corrupt_tokens) - clean).abs().amax() > 1
    for name in names:
        way = _in_place if name.endswith("mid") else _returning
        patched = smollm2.run_with_hooks(corrupt_tokens, fwd_hooks=[(name, way(cache[name]))])
        assert torch.equal(patched, clean)
    for name in ("q.3", "rot_k.29", "z.11", "mlp_post.9"):
        assert torch.equal(smollm2.run_with_hooks(clean_tokens, fwd_hooks=[(name, _nothing)]), clean), name
    for name in ("pattern.3", "attn_scores.29", "result.11", ("scale", 4, "ln1")):
        logits = smollm2.run_with_hooks(clean_tokens, fwd_hooks=[(name, _nothing)])
        assert float((logits - clean).abs().max()) <= 1e-5 * max(1.0, float(clean.abs().max())), name
