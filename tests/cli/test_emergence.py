"""`interp emergence`: what `interp.emergence` finds, printed, kept and as JSON; several folders are seeds."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import interp
from interp import dynamics
from interp.cli.emergence import emergence
from interp.dynamics.rows import repeated_rows
from interp.errors import InputError, InterpError
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("trainings")
    small = dataclasses.replace(dynamics.recipe("copy"), steps=1)
    return [dynamics.train(small, out=root / f"s{seed}", seed=seed).folder for seed in (0, 1)]


def test_the_defaults_are_those_of_emergence() -> None:
    ours, theirs = inspect.signature(emergence).parameters, inspect.signature(interp.emergence).parameters
    assert all(ours[name].default == theirs[name].default for name in ("top", "n", "seed"))


def test_one_training_is_told_kept_and_drawn(run, folders, tmp_path) -> None:
    arguments = ["--kinds", "induction", "-n", "8", "--ablate-at", "1", "--html", "page.html", "--store", "runs"]
    done = run("emergence", folders[0], *arguments, "--out", "kept")
    assert done.code == 0, done.err
    assert "copy seed 0: Emergence(" in done.out and "set to their mean together" in done.out
    assert "stored as run" in done.err and (tmp_path / "page.html").stat().st_size > 10_000
    found = interp.emergence(folders[0], kinds="induction", n=8, ablate_at=[1])
    kept = dynamics.Emergence.load(tmp_path / "kept")
    assert kept.summary().equals(found.summary()) and len(kept.ablations) == 1


def test_several_folders_are_seeds_whose_order_is_told(run, folders) -> None:
    done = run("emergence", *folders, "--kinds", "induction", "-n", "8", "--no-patch", "--json", "--store", "runs")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert len(told["trainings"]) == 2 and len(told["runs"]) == 5  # each training measured and played, and their order
    assert told["about"]["trainings"] == ["seed 0", "seed 1"]
    assert {row["verdict"].split(":")[0] for row in told["pairs"]} == {"cannot tell"}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two checkpoints of a small Llama in the hub's layout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    root = tmp_path_factory.mktemp("foreign")
    for step in (10, 200):
        torch.manual_seed(step)
        LlamaForCausalLM(config).save_pretrained(root / f"step{step}")
    return [str(root / f"step{step}") for step in (10, 200)]


def test_folders_of_another_model_are_checkpoints_of_one_training(foreign, tmp_path, capsys) -> None:
    emergence(foreign, kinds="induction", n=8, length=24, as_json=True, store=tmp_path / "runs")
    told = json.loads(capsys.readouterr().out)
    assert told["about"]["steps"] == [10, 200] and "trainings" not in told
    assert {run.kind for run in interp.RunStore(tmp_path / "runs").list()} == {"emergence", "playback"}
    model = interp.load(foreign[0])
    rows = repeated_rows(model, 8, length=24)
    assert rows.shape == (8, 24) and all((row[1:].unfold(0, 5, 1)[:, :1] == row[-1]).sum() >= 2 for row in rows)
    found = interp.emergence(foreign, kinds="induction", tokens=rows)
    values = [row["value"] for row in told["scores"] if row["series"] == "all"]
    assert values == pytest.approx(found.series("loss", "all").tolist())


def test_revisions_are_asked_of_one_hub_id(foreign, monkeypatch, capsys) -> None:
    asked = []

    def load(name, revision=None):
        asked.append((name, revision))
        return real(str(Path(foreign[0]).parent / revision))

    from interp.families import load as home

    real = home.load
    monkeypatch.setattr(home, "load", load)
    emergence(["someone/grown"], revision=["step10", "step200"], kinds="induction", n=8, length=24, as_json=True)
    assert json.loads(capsys.readouterr().out)["about"]["model"] == "someone/grown"
    assert set(asked) == {("someone/grown", "step10"), ("someone/grown", "step200")}


def test_a_conflict_is_a_measure_that_can_be_asked_for(tmp_path, capsys) -> None:
    small = dataclasses.replace(dynamics.recipe("facts-in-context"), steps=1)
    folder = str(dynamics.train(small, out=tmp_path / "facts").folder)
    emergence([folder], kinds="previous_token", measure=["conflict"], n=8, patch=False, as_json=True)
    series = {(row["measure"], row["series"]) for row in json.loads(capsys.readouterr().out)["changes"]}
    assert {("conflict", "weights"), ("conflict", "context"), ("conflict, logits", "head 1.3")} <= series


def test_what_models_without_a_recipe_cannot_be_asked_is_refused(foreign, folders, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three")
    one = str(folders[0])
    for asked, options, words in (
        ([one, foreign[0]], {}, "step10 holds no training, the others do"),
        ([one], {"text": text}, "--text is for models without a recipe"),
        (foreign, {"text": text}, "has no tokenizer to read a text with"),
        (foreign, {"text": tmp_path / "no.txt"}, "Cannot read --text"),
        (foreign, {"length": 8}, "length is 8"),
        (foreign, {"revision": ["step10"]}, "--revision goes with one hub id"),
        ([one], {"revision": ["step10", "step20"]}, "--revision goes with one hub id"),
        (["someone/grown"], {"revision": ["step10"]}, "at least two checkpoints; these are 1"),
        (["someone/grown"], {"revision": ["step10", "step10"]}, "tell the same step"),
        ([*foreign, "nowhere"], {}, "nowhere is no folder"),
        (foreign, {"measure": ["conflict"], "length": 16}, "conflict is measured of checkpoints of"),
        (foreign[:1], {}, "holds no training"),
    ):
        with pytest.raises(InterpError, match=words):
            emergence(asked, **options)


def test_a_model_that_sees_what_it_predicts_is_no_decoder() -> None:
    from interp.dynamics.rows import must_predict, text_rows

    with pytest.raises(InputError, match="Give checkpoints of a decoder"):
        must_predict(HookedTransformer(dynamics.recipe("reversal").config, seed=0))
    model = HookedTransformer(dynamics.recipe("induction").config, seed=0)
    with pytest.raises(InputError, match="no tokenizer"):
        text_rows(model, "a")
    model.tokenizer = SimpleNamespace(bos_id=7, encode=lambda text, prepend_bos: [int(one) for one in text.split()])
    text = " ".join(map(str, range(100)))
    rows = text_rows(model, text, 5, length=16)  # type: ignore[arg-type]
    assert rows.shape == (5, 16) and rows[:, 0].tolist() == [7] * 5 and rows[:, 1:].flatten().tolist() == [*range(75)]
    with pytest.raises(InputError, match="has 100 tokens: fewer than four rows of 64"):
        text_rows(model, text, 5)


def test_mistakes_are_one_sentence(run, folders, tmp_path) -> None:
    other = dynamics.train(dataclasses.replace(dynamics.recipe("reversal"), steps=1), out=tmp_path / "other")
    done = run("emergence", "nowhere")
    assert done.code == 2 and "nowhere holds no training" in done.err and "Traceback" not in done.err
    one, two = (str(folder) for folder in folders)
    for asked, options, words in (
        ([one, one], {}, "Seed 0 is given twice"),
        ([one, str(other.folder)], {}, "trainings of copy and reversal"),
        ([one, two], {"kinds": "inducer"}, "no kind of head called 'inducer'"),
        ([one], {"ablate_at": [7]}, "ablate_at names step 7"),
    ):
        with pytest.raises(InputError, match=words):
            emergence(asked, **options)
