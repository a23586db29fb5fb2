"""A training is the same after a kill, refuses what is not its own, and stops where numbers end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import interp.dynamics.training as training
from interp.dynamics import Recipe, checkpoints, train
from interp.dynamics.base import Optimizer
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.dynamics.reversal import RECIPES as REVERSAL
from interp.errors import CheckpointError, InputError, StorageError, TrainingError
from interp.model.loss import next_token_loss
from interp.model.transformer import HookedTransformer

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = TiledBlocks(d_vocab=12, length=12, periods=(3, 5))
TINY = Recipe("tiny", attention_only(2, DATA, d_model=8, n_heads=2), DATA, 20, "", Optimizer(batch=4, warm_up=5))


class Killed(BaseException):
    """What a kill looks like from inside."""


def killed_at(step: int) -> Any:
    def report(stage: str, done: int, total: int) -> None:
        if done == step:
            raise Killed

    return report


def weights(model: HookedTransformer) -> dict[str, torch.Tensor]:
    return {name: one.detach() for name, one in model.named_parameters()}


def same(one: HookedTransformer, two: HookedTransformer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(two).values(), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "whole"
    train(TINY, out=out)
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.parametrize("step", [1, 7, 16, 19])
def test_a_killed_training_goes_on_and_gives_the_same_numbers(whole: Path, tmp_path: Path, step: int) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(TINY, out=out, progress=killed_at(step))
    part = checkpoints(out)
    assert not part.finished and max(part.steps) <= step
    did: list[int] = []
    done = train(TINY, out=out, progress=lambda stage, now, total: did.append(now))
    expected = checkpoints(whole)
    assert done.finished and done.steps == expected.steps
    assert 0 < len(did) < 20 or step == 1
    assert all(same(a.load(), b.load()) for a, b in zip(done, expected, strict=True))
    pd.testing.assert_frame_equal(done.losses(), expected.losses())
    pd.testing.assert_frame_equal(done.held_out(), expected.held_out())


def test_a_kill_between_a_checkpoint_and_its_state_loses_nothing(whole: Path, tmp_path: Path, monkeypatch) -> None:
    out, real = tmp_path / "killed", training.save_state

    def save(root, state, run):
        if state.step == 8:
            raise Killed
        real(root, state, run)

    monkeypatch.setattr(training, "save_state", save)
    with pytest.raises(Killed):
        train(TINY, out=out)
    assert max(checkpoints(out).steps) == 8
    monkeypatch.setattr(training, "save_state", real)
    done = train(TINY, out=out)
    assert same(done.load(20), checkpoints(whole).load(20))
    pd.testing.assert_frame_equal(done.losses(), checkpoints(whole).losses())


def test_training_is_plain_adamw_on_the_mean_loss_of_scored_tokens(whole: Path) -> None:
    model = HookedTransformer(TINY.config, seed=0)
    start = checkpoints(whole).load(0)
    assert same(model, start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    generator = training.stream(0, "batches")
    losses = []
    for step in range(20):
        examples = DATA.draw(4, generator)
        logits = model(examples.tokens[:, :-1])
        padded = torch.cat([logits, logits[:, -1:]], dim=1)  # the last one predicts nothing
        losses_of = next_token_loss(padded, examples.tokens, per_token=True)
        either = examples.scored["first"] | examples.scored["repeat"]
        loss = losses_of[either[:, 1:]].mean()
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 5)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert checkpoints(whole).losses()["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    for name, one in weights(checkpoints(whole).load(20)).items():
        torch.testing.assert_close(one, weights(model)[name], rtol=1e-3, atol=1e-4)


def test_a_finished_training_is_returned_as_it_is(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    did: list[int] = []
    assert train(TINY, out=folder, progress=lambda stage, now, total: did.append(now)).finished
    assert did == [] and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_progress_counts_every_update(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    train(TINY, out=tmp_path / "a", steps=3, progress=lambda *call: calls.append(call))
    assert calls == [("training tiny", i, 3) for i in (1, 2, 3)]


def test_seeds_differ_in_first_weights_and_batches(whole: Path, tmp_path: Path) -> None:
    other = train(TINY, out=tmp_path / "other", seed=1, steps=2)
    assert not same(other.load(0), checkpoints(whole).load(0))
    assert other.losses()["loss"][0] != checkpoints(whole).losses()["loss"][0]


def test_checkpoints_are_listed_sliced_and_measured(whole: Path) -> None:
    found = checkpoints(whole)
    assert found.steps == tuple(found.asked["schedule"]) and found[-1].step == 20 and len(found[:3]) == 3
    assert "tiny, seed 0" in repr(found) and "steps 0 to 20 of 20" in repr(found)
    table = found.held_out()
    assert set(table["group"]) == {"first", "repeat"} and len(table) == 2 * len(found)
    examples = DATA.draw(training.HELD_OUT_ROWS, training.stream(0, "held out"), held_out=True)
    model = found.load(8)
    assert model.cfg.model_name == "tiny seed 0 step 8"
    got = training.measure(model, examples)
    assert got["repeat"]["loss"] == pytest.approx(found.at(8).held_out["repeat"]["loss"], rel=1e-5)
    assert found.recipe == dataclasses.replace(TINY, about="") and found.data == DATA
    with pytest.raises(InputError, match=r"no checkpoint of step 9\. The nearest is 8"):
        found.load(9)


def test_an_encoder_decoder_is_trained_too(tmp_path: Path) -> None:
    done = train(REVERSAL[0], out=tmp_path / "a", steps=3)
    assert done.load(3).encoder is not None and list(done.held_out()["group"].unique()) == ["reversed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"steps": 21}, "steps is 20 there and 21 here"),
        ({"lr": 0.1}, "recipe.optimizer.lr is 0.003 there and 0.1 here"),
        ({"per_octave": 2}, "schedule is"),
    ],
)
def test_a_folder_of_another_training_is_refused_with_what_differs(folder: Path, change: dict, words: str) -> None:
    with pytest.raises(InputError, match="holds another training") as said:
        train(TINY, out=folder, **change)
    assert words in str(said.value)


def test_changed_data_and_sizes_are_refused_by_name(folder: Path) -> None:
    data = dataclasses.replace(DATA, periods=(3, 4))
    with pytest.raises(InputError, match=r"recipe.data.periods.1 is 5 there and 4 here"):
        train(dataclasses.replace(TINY, data=data), out=folder)
    with pytest.raises(InputError, match=r"recipe.config.d_model is 8 there and 16 here.*and \d+ more"):
        train(dataclasses.replace(TINY, config=attention_only(2, DATA, d_model=16, n_heads=2)), out=folder)


def test_another_trainings_checkpoint_among_ours_is_refused(folder: Path, tmp_path: Path) -> None:
    other = train(TINY, out=tmp_path / "other", seed=1, steps=4)
    shutil.rmtree(folder / "checkpoints" / "000004")
    shutil.copytree(other.at(4).folder, folder / "checkpoints" / "000004")
    for call in (lambda: checkpoints(folder), lambda: train(TINY, out=folder)):
        with pytest.raises(CheckpointError, match="000004 is of another training"):
            call()


def test_a_missing_checkpoint_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints" / "000008")
    with pytest.raises(CheckpointError, match="lacks the checkpoint of step 8"):
        checkpoints(folder)


@pytest.mark.parametrize(
    ("file", "words"),
    [("checkpoint.json", "cannot be read"), ("model.safetensors", "not as it was written")],
)
def test_a_damaged_checkpoint_is_refused(folder: Path, file: str, words: str) -> None:
    path = folder / "checkpoints" / "000008" / file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=words):
        checkpoints(folder).load(8)


def test_a_checkpoint_without_weights_or_without_its_words_is_refused(folder: Path) -> None:
    (folder / "checkpoints" / "000004" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        checkpoints(folder)
    (folder / "checkpoints" / "000000" / "checkpoint.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not say step, training"):
        checkpoints(folder)


@pytest.mark.parametrize("text", ["[]", json.dumps({"schema": 99, "asked": {}})])
def test_a_training_of_another_format_is_refused(folder: Path, text: str) -> None:
    (folder / "training.json").write_text(text)
    with pytest.raises(CheckpointError, match="this version reads 1"):
        checkpoints(folder)


def test_a_folder_without_a_training_is_refused_and_other_files_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no training"):
        checkpoints(tmp_path / "nowhere")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds other files"):
        train(TINY, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_foreign_or_short_state_is_refused(folder: Path, tmp_path: Path) -> None:
    train(TINY, out=tmp_path / "other", seed=1)
    shutil.copy(folder / "loss.parquet", tmp_path / "loss.parquet")
    pd.read_parquet(folder / "loss.parquet").head(3).to_parquet(folder / "loss.parquet")
    with pytest.raises(CheckpointError, match="has 3 updates of 20"):
        train(TINY, out=folder)
    shutil.rmtree(folder / "resume")
    shutil.copytree(tmp_path / "other" / "resume", folder / "resume")
    with pytest.raises(CheckpointError, match=r"state in .* is of another training"):
        train(TINY, out=folder)


def test_a_training_that_explodes_says_where_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "nan"
    with pytest.raises(TrainingError) as said:
        train(TINY, out=out, lr=1e37)
    words = str(said.value)
    assert "tiny stopped: after" in words and "nan" in words and "smaller learning rate than 1e+37" in words
    found = checkpoints(out)
    assert f"last good checkpoint is step {found.steps[-1]} in {out}" in words
    assert all(one.isfinite().all() for one in weights(found[-1].load()).values())
    assert found.losses()["loss"].notna().all()
    with pytest.raises(TrainingError):  # and goes on to say so
        train(TINY, out=out, lr=1e37)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"steps": 0}, "steps is 0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"per_octave": 0}, "0 checkpoints an octave"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(TINY, out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
