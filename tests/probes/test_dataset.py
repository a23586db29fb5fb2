"""One pass reads every site, and reads what a pass over each text alone does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import InputError, UnknownSiteError
from interp.model.block import Block
from interp.model.transformer import HookedTransformer
from interp.report.null import random_twin
from interp.sites import Site
from probes.data import Place, ProbeDataset
from probes.gather import dataset
from probes.reading import GROUPS, plan_of
from tests.heads.conftest import PARTS, VOCAB
from tests.model.conftest import D_VOCAB, ZOO, randomize

LAYOUTS = [
    "llama",
    "gpt2",
    "gptj",
    "attention_only",
    "window",
    "encoder",
    "bert",
    "t5",
    "two_stacks",
    "gemma2",
    "bloom",
]


def model_of(name: str, **options: Any) -> HookedTransformer:
    return randomize(HookedTransformer(ZOO[name], **options))


def ragged(lengths: tuple[int, ...] = (6, 3, 9, 3, 6, 1), seed: int = 3) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, D_VOCAB, (n,), generator=generator).tolist() for n in lengths]


def odd(rows: list[list[int]]) -> dict[str, list[list[str]]]:
    return {"odd": [["odd" if token % 2 else "even" for token in row] for row in rows]}


def alone(model: HookedTransformer, row: list[int], names: list[str]) -> dict[str, np.ndarray]:
    """What a pass over one text caches."""
    options = {"decoder_input": torch.tensor([[1, 2]])} if len(model.cfg.stacks) > 1 else {}
    _, cache = model.run_with_cache(torch.tensor([row]), names, **options)
    return {name: cache[name][0].detach().numpy() for name in names}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Which blocks run, each over how many tokens."""
    seen: list[tuple[str, int]] = []
    with monkeypatch.context() as patch:
        for kind in Block.__subclasses__():
            before = kind.forward

            def forward(self: Any, resid: Any, *args: Any, before: Callable = before, **options: Any) -> Any:
                seen.append((self.address, resid.shape[0] * resid.shape[1]))
                return before(self, resid, *args, **options)

            patch.setattr(kind, "forward", forward)
        yield seen


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_site_reads_as_in_a_pass_over_each_text_alone(layout: str) -> None:
    model, rows = model_of(layout), ragged()
    found = dataset(model, rows, odd(rows), sites="all")
    names = list(found.activations)
    assert {Site.parse(name).name for name in names} >= {"hook_resid_pre", "hook_resid_post", "hook_q", "hook_z"}
    assert {Site.parse(name).stack for name in names} == {"encoder" if len(model.cfg.stacks) > 1 else ""}
    expected = [alone(model, row, names) for row in rows]
    for name in names:
        together = np.concatenate([one[name] for one in expected])
        np.testing.assert_allclose(found.activations[name], together, rtol=1e-4, atol=1e-5, err_msg=name)
    assert found.table["text"].tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert found.table["token"].tolist() == [str(token) for row in rows for token in row]


def test_padding_on_the_left_reads_the_same(reader: HookedTransformer) -> None:
    texts = ["The keys near the cabinet", "Rain", "A long day in the old harbour of the town"]
    found = dataset(reader, texts, {"n": ["a", "b", "c"]}, positions="last")
    batch = reader.tokenize(texts, padding_side="left")
    _, cache = reader.run_with_cache(batch.tokens, list(found.activations), attention_mask=batch.mask)
    for name, x in found.activations.items():
        np.testing.assert_allclose(x, cache[name][:, -1].detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_text_reads_the_same_alone_and_among_many_that_fill_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = model_of("llama"), ragged((5, 17, 8, 8, 30, 2, 8) * 20)
    monkeypatch.setattr("probes.reading._TOKENS", 97)
    many = dataset(model, rows, odd(rows), sites=["resid", "z"])
    for i in (0, 4, 77, 139):
        one = dataset(model, [rows[i]], odd([rows[i]]), sites=["resid", "z"])
        mine = (many.table["text"] == i).to_numpy()
        for name, x in one.activations.items():
            np.testing.assert_allclose(many.activations[name][mine], x, rtol=1e-4, atol=1e-5)


def test_half_precision_becomes_float32_and_double_stays() -> None:
    rows = ragged()
    half = dataset(model_of("llama", dtype=torch.bfloat16), rows, odd(rows), sites="all")
    assert {x.dtype for x in half.activations.values()} == {np.dtype(np.float32)}
    _, cache = model_of("llama", dtype=torch.bfloat16).run_with_cache(torch.tensor([rows[2]]))
    mine = (half.table["text"] == 2).to_numpy()
    theirs = cache["blocks.2.hook_resid_post"][0].detach().float().numpy()
    np.testing.assert_allclose(half.activations["blocks.2.hook_resid_post"][mine], theirs, rtol=0.05, atol=0.05)
    double = dataset(model_of("double", dtype=torch.float64), rows, odd(rows))
    assert {x.dtype for x in double.activations.values()} == {np.dtype(np.float64)}


def test_one_pass_over_each_text_serves_all_sites_and_makes_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = model_of("llama"), ragged()
    n_tokens = sum(map(len, rows))
    monkeypatch.setattr(HookedTransformer, "logits", lambda *args, **options: pytest.fail("logits were made"))
    with counted(monkeypatch) as seen:
        dataset(model, rows, odd(rows), sites="all")
    assert seen == [(f"blocks.{layer}.", n_tokens) for layer in range(3)]


@pytest.mark.parametrize(
    ("sites", "layers"),
    [("resid_pre.2", 2), ("z.0", 1), ("resid_pre.0", 0), (["q.1", "resid_pre.1"], 2), ("resid_post.2", 3)],
)
def test_nothing_runs_behind_the_last_layer_that_is_read(
    sites: Any, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ragged()
    with counted(monkeypatch) as seen:
        found = dataset(model_of("llama"), rows, odd(rows), sites=sites)
    assert [address for address, _ in seen] == [f"blocks.{layer}." for layer in range(layers)]
    expected = alone(model_of("llama"), rows[2], list(found.activations))
    mine = (found.table["text"] == 2).to_numpy()
    for name, x in expected.items():
        np.testing.assert_allclose(found.activations[name][mine], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layout", "n_tokens"), [("llama", 2 + 1 + 5 + 3 + 2 + 1), ("encoder", 28)])
def test_only_where_attention_is_causal_a_text_is_cut_behind_its_last_row(
    layout: str, n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ragged()
    with counted(monkeypatch) as seen:
        found = dataset(model_of(layout), rows, {"x": list("abcdef")}, positions=[1, 0, 4, 2, 1, 0])
    assert {n for _, n in seen} == {n_tokens}
    last = list(found.activations)[-1]
    expected = [alone(model_of(layout), row, [last])[last] for row in rows]
    picked = [x[pos] for x, pos in zip(expected, [1, 0, 4, 2, 1, 0], strict=True)]
    np.testing.assert_allclose(found.activations[last], picked, rtol=1e-4, atol=1e-5)


def test_the_encoder_of_two_stacks_is_read_without_running_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ragged()
    with counted(monkeypatch) as seen:
        found = dataset(model_of("two_stacks"), rows, odd(rows))
    assert [address for address, _ in seen] == [f"encoder.blocks.{layer}." for layer in range(3)]
    assert found.about["stack"] == "encoder" and str(found.places[0]) == "encoder.resid_pre.0"


def test_residual_sites_are_one_more_than_layers_and_the_first_is_the_embedding_layer() -> None:
    rows = ragged()
    found = dataset(model_of("llama"), rows, odd(rows))
    assert [str(place) for place in found.places] == ["resid_pre.0", "resid_pre.1", "resid_pre.2", "resid_post.2"]
    assert found.embedding == "blocks.0.hook_resid_pre" and found.asked == found.places


def test_the_embedding_layer_is_read_as_a_baseline_where_it_was_not_asked_for() -> None:
    rows = ragged()
    found = dataset(model_of("llama"), rows, odd(rows), sites="z.1")
    assert found.about["baseline_only"] == ["blocks.0.hook_resid_pre"] and found.embedding is not None
    assert found.asked == tuple(Place("blocks.1.attn.hook_z", head) for head in range(4))


def test_keys_and_values_have_their_own_number_of_heads() -> None:
    rows = ragged()
    found = dataset(model_of("llama"), rows, odd(rows), sites=["q", "k", "v"])
    heads = {name: sum(place.site == f"blocks.0.attn.hook_{name}" for place in found.places) for name in "qkv"}
    assert heads == {"q": 4, "k": 2, "v": 2}


@pytest.mark.parametrize(
    "sites",
    ["resid_pre.1", ("resid_pre", 1), Site("hook_resid_pre", "", 1), ["blocks.1.hook_resid_pre"], "resid_pre.-2"],
)
def test_a_site_is_found_by_any_spelling(sites: Any) -> None:
    assert "blocks.1.hook_resid_pre" in plan_of(model_of("llama"), sites).names


def test_sites_outside_the_groups_are_read_too() -> None:
    rows = ragged()
    wanted = ["ln_final.hook_normalized", "result.1", "resid_mid.0", "embed", "ln1.hook_normalized.1"]
    wanted[-1] = "blocks.1.ln1.hook_normalized"
    found = dataset(model_of("llama"), rows, odd(rows), sites=wanted)
    expected = [alone(model_of("llama"), row, list(found.activations)) for row in rows]
    for name, x in found.activations.items():
        together = np.concatenate([one[name] for one in expected])
        np.testing.assert_allclose(x, together, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("layout", "sites", "message"),
    [
        ("llama", "pattern.0", "no vector for each token"),
        ("llama", "unembed", "no vector for each token"),
        ("llama", [], "nothing to read"),
        ("llama", 3, "is no site"),
        ("attention_only", "neurons", "no such tensor"),
        ("two_stacks", "decoder.resid_pre.0", "its encoder reads"),
        ("two_stacks", "decoder.attn.q.0", "its encoder reads"),
    ],
)
def test_sites_that_cannot_be_read_are_refused(layout: str, sites: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(model_of(layout), sites)


def test_an_unknown_site_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownSiteError, match="resid_prae"):
        plan_of(model_of("llama"), "resid_prae.0")


def test_every_group_has_sites_in_a_model_that_has_all_parts() -> None:
    model = model_of("two_stacks")
    assert all(plan_of(model, name).names for name in GROUPS)
    assert plan_of(model, "encoder.z").names == plan_of(model, "z").names


def test_the_random_twin_reads_the_same_rows_and_another_seed_is_another_twin() -> None:
    model, rows = model_of("llama"), ragged()
    found = dataset(model, rows, odd(rows), random_init=True, random_seed=4)
    assert found.random_init is not None and found.random_init.table.equals(found.table)
    expected = dataset(random_twin(model, 4), rows, odd(rows))
    other = dataset(model, rows, odd(rows), random_init=True, random_seed=5).random_init
    assert other is not None
    for name, x in found.random_init.activations.items():
        np.testing.assert_array_equal(x, expected.activations[name])
        assert not np.allclose(x, found.activations[name]) and not np.allclose(x, other.activations[name])


def test_activations_that_are_not_finite_are_named_with_site_and_row() -> None:
    model, rows = model_of("llama"), [[1, 2, 3], [4, 5, 6, 7]]
    with torch.no_grad():
        model.W_E[6] = math.inf
    with pytest.raises(InputError, match=r"blocks\.0\.hook_resid_pre are not finite in row 5 \(text 1, position 2"):
        dataset(model, rows, odd(rows))


def test_a_dataset_leaves_nothing_on_the_model() -> None:
    from tests.model.conftest import traces

    model, rows = model_of("llama"), ragged()
    before = traces(model)
    dataset(model, rows, odd(rows), sites="all")
    assert traces(model) == before


def test_standing_hooks_are_refused_rather_than_left_out() -> None:
    model, rows = model_of("llama"), ragged()
    with model.hooks([("resid_pre.1", lambda x, hook: x)]):
        with pytest.raises(InputError, match=r"outside of model\.hooks"):
            dataset(model, rows, odd(rows))
        model(torch.tensor([rows[0]]))


def test_progress_is_told_of_both_models() -> None:
    rows, told = ragged(), []
    dataset(model_of("llama"), rows, odd(rows), random_init=True, progress=lambda *one: told.append(one))
    n = sum(map(len, rows))
    assert told == [("own", n, n), ("random model", n, n)]


def test_what_a_planted_head_copies_is_read_at_that_head_and_behind_it(planted: HookedTransformer) -> None:
    """Head 0.1 moves the previous token into `prev`; head 0.2 attends to nothing."""
    rows = torch.randint(5, VOCAB, (8, 20), generator=torch.Generator().manual_seed(0)).tolist()
    labels = {"before": [[-1.0, *row[:-1]] for row in rows]}
    found = dataset(planted, rows, labels, sites=["z.0", "resid_pre.1"])
    z, behind = found.activations["blocks.0.attn.hook_z"], found.activations["blocks.1.hook_resid_pre"]
    known = (found.table["pos"] > 0).to_numpy()
    before = found.labels["before"].to_numpy()[known]
    first = PARTS["tok"] + PARTS["pos"]
    assert (z[known, 1, :VOCAB].argmax(axis=1) == before).all()
    assert (behind[known, first : first + VOCAB].argmax(axis=1) == before).all()
    assert not z[:, 2].any() and not found.activations["blocks.0.hook_resid_pre"][:, first : first + VOCAB].any()


@pytest.mark.slow
def test_smollm2_reads_the_agreement_labels_as_its_own_cache_does(smollm2: HookedTransformer) -> None:
    found = dataset(smollm2, "agreement", n=2, sites=["resid", "z.5", "mlp_out.29"])
    assert isinstance(found, ProbeDataset) and len(found.activations) == 33
    tokens = smollm2.to_tokens(f"The {found.table['subject'][0]}", prepend_bos=True)
    _, cache = smollm2.run_with_cache(tokens, ["blocks.29.hook_resid_post", "blocks.5.attn.hook_z"])
    assert found.table["pos"][0] == 2 and found.table["where"][0] == "subject"
    for name in ("blocks.29.hook_resid_post", "blocks.5.attn.hook_z"):
        np.testing.assert_allclose(found.activations[name][0], cache[name][0, 2].detach().numpy(), rtol=1e-3, atol=1e-3)
