"""Measures of checkpoints beyond patterns: patched pairs, composition, tasks, two stacks, own ones; and any source."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.dynamics import Emergence, recipe, recipes, train
from interp.dynamics.contrasts import contrast
from interp.dynamics.induction import TiledBlocks
from interp.dynamics.sources import step_of
from interp.dynamics.training import stream
from interp.errors import CheckpointError, InputError
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", sorted(recipes()))
def test_pairs_of_every_recipe_differ_in_what_decides_their_answers(name: str) -> None:
    made = contrast(recipe(name).data, 12, stream(3, "test"))
    assert made is not None, name
    pairs, said = made
    assert len(pairs) == 12 and said
    assert all(one != other for one, other in zip(pairs.answer, pairs.foil, strict=True))
    assert all(one != other for one, other in zip(pairs.clean, pairs.corrupt, strict=True))


def test_an_induction_pair_holds_the_same_tokens_and_asks_for_what_followed() -> None:
    made = contrast(recipe("induction").data, 30, stream(0, "test"))
    assert made is not None
    pairs = made[0]
    for i in range(30):
        clean, corrupt = pairs.clean[i], pairs.corrupt[i]
        assert sorted(clean) == sorted(corrupt) and sum(a != b for a, b in zip(clean, corrupt, strict=True)) == 2
        for row, wanted in ((clean, pairs.answer[i]), (corrupt, pairs.foil[i])):
            first = row.index(row[-1])
            assert first < len(row) - 1 and wanted == ((row[first + 1],),)


def test_a_pair_of_varied_lengths_asks_for_what_is_to_be_said_there() -> None:
    data: Any = recipe("reversal-lengths").data
    made = contrast(data, 40, stream(0, "test"))
    assert made is not None
    pairs = made[0]
    assert pairs.clean_decoder
    for clean, corrupt, (decoder, *_), ((answer,),), ((foil,),) in zip(
        pairs.clean, pairs.corrupt, zip(pairs.clean_decoder, strict=True), pairs.answer, pairs.foil, strict=True
    ):
        count, said = decoder[0] + data.least, len(decoder) - 1
        assert said < count and list(decoder[1:]) == list(clean[:count][::-1][:said])
        assert (clean[count - 1 - said], corrupt[count - 1 - said]) == (answer, foil)
        assert min(answer, foil) >= data.n_starts and sum(a != b for a, b in zip(clean, corrupt, strict=True)) == 1


def test_a_stated_fact_and_its_twin_are_answered_by_the_statement_and_by_the_table() -> None:
    data: Any = recipe("facts-in-context").data
    made = contrast(data, 20, stream(0, "test"))
    assert made is not None
    for clean, corrupt, ((answer,),), ((foil,),) in zip(
        made[0].clean, made[0].corrupt, made[0].answer, made[0].foil, strict=True
    ):
        assert clean[clean.index(clean[-1]) + 1] == answer and clean[-1] not in corrupt[:-1]
        assert foil == data.d_vocab - data.n_values + int(data.table[clean[-1] - 2])


def test_data_without_room_for_a_contrast_have_none() -> None:
    assert contrast(TiledBlocks(d_vocab=4, length=24, periods=(8, 9)), 4, stream(0, "test")) is None
    assert contrast(TiledBlocks(length=24, periods=(3, 4)), 4, stream(0, "test")) is None


@pytest.fixture(scope="module")
def planted():
    return interp.planted.make("induction", n=8)


@pytest.fixture(scope="module")
def patched(planted) -> Emergence:
    start = HookedTransformer(planted.model.cfg, seed=1)
    pairs = planted.pairs[next(iter(planted.pairs))] if isinstance(planted.pairs, dict) else planted.pairs
    return interp.emergence({0: start, 5: start, 9: planted.model}, tokens=planted.tokens, pairs=pairs)


def test_a_planted_path_is_restored_by_its_layers_and_was_not_there_before(patched) -> None:
    effects = patched.changes[patched.changes["measure"] == "patch"].set_index("series")
    assert patched.series("patch gap", "clean − corrupt")[9] > 0.5
    layers = effects[effects.index.str.startswith("attn_out")]
    assert layers["end"].max() > 0.8 and layers["start"].abs().max() < 0.2


def test_composition_is_told_between_the_best_heads(patched, planted) -> None:
    writer, reader = patched.about["best"]["K-composition"].split(" → ")
    assert reader == patched.about["best"]["induction"] and int(writer[0]) < int(reader[0])
    best, others = (patched.series("K-composition", name) for name in ("best", "other pairs"))
    scores = interp.composition(planted.model, "K", n_random=100, seed=0)
    pair = [int(one) for name in (writer, reader) for one in name.split(".")]
    assert best[9] == pytest.approx(float(scores.values.values[*pair]) - scores.random_mean, rel=1e-5)
    assert others.notna().all()
    rows = patched.scores[patched.scores["measure"] == "K-composition"]
    assert rows["low"].isna().all()  # weights have no rows


def test_a_model_that_does_not_tell_the_pairs_apart_has_no_shares(planted) -> None:
    start = HookedTransformer(planted.model.cfg, seed=1)
    pairs = planted.pairs[next(iter(planted.pairs))] if isinstance(planted.pairs, dict) else planted.pairs
    flat = interp.emergence({0: start, 1: start}, tokens=planted.tokens, pairs=pairs, kinds="induction")
    assert "too little for shares" in flat.about["left_out"]["patch"] and "patch" not in set(flat.changes["measure"])
    assert "patch was left out" in flat.describe()


def test_own_measures_are_series_like_others_and_must_keep_their_shape(planted) -> None:
    calls = []

    def ones(model, examples):
        calls.append(model)
        return {"weight": float(model.W_E.detach().sum()), "row": torch.arange(len(examples.tokens))}

    models = {step: HookedTransformer(planted.model.cfg, seed=step) for step in (0, 4)}
    found = interp.emergence(models, tokens=planted.tokens, kinds="induction", measures={"mine": ones})
    assert found.series("mine", "weight")[4] == pytest.approx(float(models[4].W_E.detach().sum())) and len(calls) == 2
    assert np.isnan(found.changes.set_index("series").loc["row", "step"])
    for function, words in (
        (lambda model, examples: [1], "gave list"),
        (lambda model, examples: {"a": np.zeros((2, 2))}, r"a of shape \(2, 2\)"),
        (lambda model, examples: {"a": np.zeros(1 + (model is models[4]))}, "other series or rows"),
    ):
        with pytest.raises(InputError, match=words):
            interp.emergence(models, tokens=planted.tokens, kinds="induction", measures={"mine": function})


def test_measures_of_packages_are_found_by_name(planted, monkeypatch) -> None:
    from types import SimpleNamespace

    entry = SimpleNamespace(name="counted", load=lambda: lambda model, examples: {"rows": len(examples.tokens)})
    monkeypatch.setattr("interp.dynamics.measures.entry_points", lambda group: [entry] * (group == "interp.measures"))
    models = {step: HookedTransformer(planted.model.cfg, seed=step) for step in (0, 4)}
    found = interp.emergence(models, tokens=planted.tokens, kinds="induction", measures="counted")
    assert found.series("counted", "rows")[0] == len(planted.tokens)
    with pytest.raises(InputError, match="Installed packages give: counted"):
        interp.emergence(models, tokens=planted.tokens, measures=["other"])


def test_cross_attention_is_followed_to_the_mirrored_place(tmp_path: Path) -> None:
    small = dataclasses.replace(recipe("reversal"), steps=2)
    found = train(small, out=tmp_path / "a", per_octave=1)
    grown = interp.emergence(found, n=8)
    model, n = found[-1].load(), recipe("reversal").data.length  # type: ignore[attr-defined]
    rows = found.data.draw(8, stream(0, "emergence"), held_out=True)
    assert rows.source is not None
    site = "decoder.cross_attn.pattern.0"
    _, cache = model.run_with_cache(rows.source[1::2], site, decoder_input=rows.tokens[1::2, :-1])
    looks = cache[site].detach()[:, :, range(n), range(n - 1, -1, -1)].mean(2).sum(1).mean()
    assert grown.series("mirror", "sum")[2] == pytest.approx(float(looks), rel=1e-5)
    assert grown.about["uniform"]["mirror"] == pytest.approx(1 / n)
    wider = interp.emergence(found, kinds="source_token", n=8, pairs=None)
    assert wider.series("source_token", "sum")[2] >= grown.series("mirror", "sum")[2]
    for options, words in (
        ({"kinds": "induction"}, "induction heads are of one stack"),
        ({"ablate_at": [2]}, "ablate_at takes a decoder"),
    ):
        with pytest.raises(InputError, match=words):
            interp.emergence(found, n=8, **options)


def test_kinds_of_a_task_are_scored_on_pairs() -> None:
    planted = interp.planted.make("coreference", n=12)
    start = HookedTransformer(planted.model.cfg, seed=1)
    pairs = planted.pairs[next(iter(planted.pairs))] if isinstance(planted.pairs, dict) else planted.pairs
    tokens = torch.tensor([row for row in pairs.clean if len(row) == len(pairs.clean[0])])
    grown = interp.emergence({0: start, 8: planted.model}, kinds="coreference", tokens=tokens, pairs=pairs)
    assert grown.series("coreference", "best")[8] > grown.series("coreference", "best")[0]
    assert grown.about["best"]["coreference"] in {
        str(head) for head in planted.truth.heads["coreference"] | planted.truth.decoys["coreference"]
    }
    with pytest.raises(InputError, match="has no tokenizer"):
        interp.emergence({0: start, 8: start}, kinds="coreference", tokens=tokens, pairs=None)


def test_mixed_checkpoints_and_damaged_ones_are_refused(planted, tmp_path: Path) -> None:
    cfg = planted.model.cfg
    other = dataclasses.replace(cfg, d_vocab=cfg.d_vocab + 1)
    with pytest.raises(InputError, match=r"not checkpoints of one training: .*d_vocab is"):
        interp.emergence(
            {0: planted.model, 1: HookedTransformer(other, seed=0)}, tokens=planted.tokens, kinds="induction"
        )
    broken = HookedTransformer(cfg, seed=0)
    with torch.no_grad():
        broken.W_E.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="losses that are not finite"):
        interp.emergence({0: planted.model, 1: broken}, tokens=planted.tokens, kinds="induction")
    small = dataclasses.replace(recipe("copy"), steps=1)
    one, two = (train(small, out=tmp_path / str(seed), seed=seed) for seed in (0, 1))
    with pytest.raises(InputError, match="of 2 trainings"):
        interp.emergence([one[0], two[1]])


def test_steps_are_read_from_names() -> None:
    names = ("step1000", "step1000-tokens4B", "checkpoint-500", "000256", "main", "v2.1-beta3")
    assert [step_of(name) for name in names] == [1000, 1000, 500, 256, None, None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    """A hub cache that holds two revisions of one model, laid out by hand."""
    from huggingface_hub import constants
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    repository = tmp_path / "hub" / "models--someone--grown"
    (repository / "refs").mkdir(parents=True)
    for i, revision in enumerate(("step10", "step200", "final")):
        torch.manual_seed(i)
        commit = f"{i}" * 40
        LlamaForCausalLM(config).save_pretrained(repository / "snapshots" / commit)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def test_revisions_of_a_hub_repository_are_checkpoints(hub) -> None:
    tokens = torch.randint(0, 20, (8, 6), generator=torch.Generator().manual_seed(0)).repeat(1, 3)
    found = interp.emergence("someone/grown", revisions=["step200", "step10"], tokens=tokens)
    assert found.steps == [10, 200] and found.about["model"] == "someone/grown"
    folders = [hub / "snapshots" / (f"{i}" * 40) for i in range(2)]
    places = [folder.rename(folder.parent / f"step{step}") for folder, step in zip(folders, (10, 200), strict=True)]
    same = interp.emergence(places, tokens=tokens)
    assert same.scores.equals(found.scores)
    ordered = interp.emergence([places[0], places[1].rename(hub / "last")], tokens=tokens)
    assert ordered.steps == [0, 1]


def test_a_revision_that_is_not_there_is_named(hub) -> None:
    tokens = torch.arange(20).repeat(8, 1)
    with pytest.raises(interp.InterpError, match="someone/grown at revision step7"):
        interp.emergence("someone/grown", revisions=["step7", "step10"], tokens=tokens)
    with pytest.raises(InputError, match="tell the same step"):
        interp.emergence("someone/grown", revisions=["step10", "step10-b"], tokens=tokens)
