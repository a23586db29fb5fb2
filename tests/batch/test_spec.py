"""A sweep is plain data that is checked before anything is loaded, and names each job by what decides its numbers."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path

import pytest

from interp import Sweep, dynamics
from interp.batch import RunSpec
from interp.batch.sources import open_model, weights_of
from interp.dynamics import Recipe
from interp.dynamics.base import Optimizer
from interp.dynamics.induction import TiledBlocks, attention_only
from interp.errors import InputError, UnknownModelError

DATA = TiledBlocks(d_vocab=12, length=12, periods=(3, 5))
TINY = Recipe("tiny", attention_only(1, DATA, d_model=8, n_heads=2), DATA, 4, "", Optimizer(batch=4, warm_up=1))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweeps") / "trained"
    dynamics.train(TINY, out=out)
    return out


def test_a_sweep_is_the_product_of_its_lists_and_an_analysis_without_a_task_runs_once() -> None:
    sweep = Sweep(
        models=["planted:ioi", "planted:and"],
        tasks=["planted", {"name": "planted", "corruption": "swap"}],
        analyses=["patch", {"name": "patch", "site": "q"}, "composition"],
        seeds=[0, 1, 2],
    )
    jobs = sweep.jobs()
    assert len(jobs) == 2 * 3 * (2 * 2 + 1) and len({one.key() for one in jobs}) == len(jobs)
    assert [one.model for one in jobs] == sorted((one.model for one in jobs), key=sweep.models.index)
    assert sum(one.task is None for one in jobs) == 2 * 3


def test_a_job_goes_through_json_and_keeps_its_key() -> None:
    for job in Sweep(models=["planted:ioi"], tasks=["planted"], analyses=["patch", "heads"]).jobs():
        again = RunSpec.from_dict(json.loads(json.dumps(job.to_dict())))
        assert again == job and again.key() == job.key()


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ({"analyses": ["pach"]}, "patch"),
        ({"analyses": [{"name": "patch", "sight": "z"}]}, "site"),
        ({"analyses": [{"name": "patch", "site": "zz"}]}, "z"),
        ({"analyses": [{"name": "heads", "kinds": ["inductio"]}]}, "induction"),
        ({"analyses": [{"name": "patch", "metric": "logitdiff"}]}, "logit_diff"),
        ({"analyses": [{"name": "patch", "site": ["z", "q"]}]}, "site of patch .* text"),
        ({"analyses": [{"name": "heads", "kinds": ["induction"], "n": "4"}]}, "n of heads .* whole number"),
        ({"analyses": [{"name": "heads", "kinds": ["induction"], "n": True}]}, "n of heads .* whole number"),
        ({"analyses": [{"name": "heads", "kinds": []}]}, "kinds of heads .* not empty"),
        ({"analyses": [{"name": "heads", "alpha": float("nan")}]}, "alpha of heads .* finite"),
        ({"analyses": [{"name": "composition", "folded": "no"}]}, "folded of composition .* true or false"),
        ({"analyses": [{"name": "patch", "at": date(2020, 1, 1)}]}, "at of patch .* text"),
        ({"tasks": [{"name": "ioi", "bos": "no"}]}, "bos .* true or false"),
        ({"tasks": [{"name": "coreference", "cue": date(2020, 1, 1)}]}, "cue .* text"),
        ({"tasks": ["iou"]}, "ioi"),
        ({"tasks": [{"name": "ioi", "num": 3}]}, "n"),
        ({"tasks": [{"name": "ioi", "corruption": "ABCs"}]}, "corruption"),
        ({"tasks": [{"name": "ioi", "n": 0}]}, "at least 1"),
        ({"tasks": [{"blimb": "x"}]}, "blimp"),
        ({"seeds": [-1]}, "0 or more"),
        ({"seeds": [2**63]}, "below"),
        ({"seeds": []}, "seeds"),
        ({"models": "gpt2"}, "list"),
        ({"models": [" "]}, "text"),
        ({"revisions": [True]}, "revision"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is_near(asked: dict, near: str) -> None:
    with pytest.raises(InputError, match=near):
        Sweep(**{"models": ["planted:ioi"], "tasks": ["planted"], "analyses": ["patch"], **asked})


def test_one_number_has_one_key_however_it_is_written() -> None:
    written = [Sweep(models=["planted:ioi"], analyses=[{"name": "heads", "alpha": one}]) for one in (1, 1.0)]
    assert len({sweep.jobs()[0].key() for sweep in written}) == 1


def test_toml_says_the_same_and_its_unknown_keys_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'models = ["planted:ioi"]\ntasks = [{name = "planted", n = 8}]\nanalyses = ["patch"]\nseeds = [1]\n'
    )
    sweep = Sweep(models=["planted:ioi"], tasks=[{"name": "planted", "n": 8}], analyses=["patch"], seeds=[1])
    assert Sweep.from_toml(file) == sweep
    assert [one.key() for one in Sweep.from_toml(file).jobs()] == [one.key() for one in sweep.jobs()]
    file.write_text('model = ["planted:ioi"]\nanalyses = ["patch"]\n')
    with pytest.raises(InputError, match="models"):
        Sweep.from_toml(file)
    file.write_text("models = [")
    with pytest.raises(InputError, match="no TOML"):
        Sweep.from_toml(file)
    with pytest.raises(InputError, match="Cannot read"):
        Sweep.from_toml(tmp_path / "absent.toml")


def test_models_that_lead_nowhere_and_analyses_without_their_task_are_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownModelError, match="smollm2-135m"):
        Sweep(models=["smollm2-135"], analyses=["composition"]).jobs()
    with pytest.raises(UnknownModelError, match="planted circuit"):
        Sweep(models=["planted:nothing"], analyses=["composition"]).jobs()
    with pytest.raises(InputError, match="patch needs a task"):
        Sweep(models=["planted:ioi"], analyses=["patch"]).jobs()
    with pytest.raises(InputError, match="has no revisions"):
        Sweep(models=["planted:ioi"], revisions=["main"], analyses=["composition"]).jobs()


def test_the_steps_of_a_training_are_its_revisions(training: Path) -> None:
    steps = dynamics.checkpoints(training).steps
    here = {"models": [training.name], "analyses": ["composition"], "root": training.parent}
    assert [one.revision for one in Sweep(**here).jobs()] == [steps[-1]]
    jobs = Sweep(revisions=["all"], **here).jobs()
    assert tuple(one.revision for one in jobs) == steps
    assert len({one.weights for one in jobs}) == len(steps)
    assert open_model(training.name, steps[1], training.parent).cfg.model_name.endswith(f"step {steps[1]}")
    with pytest.raises(InputError, match="The nearest is"):
        Sweep(revisions=[10**6], **here).jobs()


def test_a_key_follows_the_content_of_files_and_not_where_they_lie(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "model" / "model.safetensors").write_bytes(b"weights")
    asked = {"models": ["model"], "analyses": ["composition"]}
    first, second = (Sweep(**asked, root=tmp_path / name).jobs()[0] for name in ("a", "b"))
    assert first.key() == second.key()
    (tmp_path / "b" / "model" / "model.safetensors").write_bytes(b"Weights")
    assert Sweep(**asked, root=tmp_path / "b").jobs()[0].key() != first.key()


def test_a_large_file_is_told_apart_by_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.batch.sources._WHOLE", 1000)
    monkeypatch.setattr("interp.batch.sources._SAMPLE", 1000)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(100_000))
    before = weights_of("model", None, tmp_path)
    shutil.copytree(folder, tmp_path / "other")
    assert weights_of("other", None, tmp_path) == before
    (folder / "model.safetensors").write_bytes(bytes(99_999) + b"1")
    assert weights_of("model", None, tmp_path) != before
