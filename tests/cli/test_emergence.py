"""`interp emergence`: what `interp.emergence` finds, printed, kept and as JSON; several folders are seeds."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import interp
from interp import dynamics
from interp.cli.emergence import emergence
from interp.errors import InputError

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
