"""The scripts in `examples/` run as they stand, and print what the library computes."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.batch import SweepFolder

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["'](?:https?:)?//""", re.IGNORECASE)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, smollm2: object) -> Any:
    """Runs a script with arguments in a folder of its own; SmolLM2 is the one that the tests share."""
    loaded = interp.load
    monkeypatch.setattr(
        interp, "load", lambda name, **options: smollm2 if name == "smollm2-135m" else loaded(name, **options)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))  # for the processes that a script starts

    def script(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        was = torch.is_grad_enabled()
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        finally:
            torch.set_grad_enabled(was)
        return capsys.readouterr().out

    return script


def page(path: str) -> str:
    """A page that a script wrote, which asks nothing of the network."""
    text = Path(path).read_text(encoding="utf-8")
    assert "<html" in text.lower() and not OUTSIDE.search(text)
    return text


@pytest.mark.slow
def test_find_heads_names_the_previous_token_head_of_smollm2(run: Any) -> None:
    said = run("find_heads.py", "--quick", "--html", "heads.html")
    found = re.search(r"previous_token: (.*) \((\d+) of 270", said)
    assert found and "16.0" in found[1].split(", ") and int(found[2]) == len(found[1].split(", "))
    assert "16.0" in page("heads.html")


def test_compare_checkpoints_shows_what_was_learned(run: Any) -> None:
    said = run("compare_checkpoints.py", "--quick", "--out", "training")
    grown = re.search(r"induction +sum +([\d.]+) +([\d.]+)", said)
    assert grown and float(grown[2]) > 2 * float(grown[1])
    found = interp.dynamics.checkpoints("training")
    held_out = found.held_out()
    accuracy = held_out[held_out["step"] == 128]["accuracy"].item()
    assert accuracy > 0.9 and re.search(rf"128 +copy +[\d.]+ +{accuracy:.6f}", said)


@pytest.mark.slow
def test_patch_your_pairs_reports_heads_on_pairs_that_did_not_choose_them(run: Any, smollm2: Any) -> None:
    said = run("patch_your_pairs.py", "--quick", "--html", "patching.html")
    pairs = interp.PromptPairs.from_csv(EXAMPLES / "pairs.csv", smollm2)[:6]
    with torch.no_grad():
        chosen = interp.patch(smollm2, pairs[:3], "z", over=("layer", "head")).top(1).iloc[0]
        effects = interp.patch(smollm2, pairs[3:], "z", over=("layer", "head")).to_frame(normalize="pooled")
    layer, head = int(chosen["layer"]), int(chosen["head"])
    row = effects[(effects["layer"] == layer) & (effects["head"] == head)].iloc[0]
    assert re.search(rf"^{layer} +{head} +{row['effect']:.3f} ", said, re.MULTILINE)
    assert "the answer beats the foil in 6 of 6" in said
    means = re.search(r"of the chosen (-?[\d.]+), of random heads (-?[\d.]+)", said)
    assert means and float(means[1]) > float(means[2])
    page("patching.html")


def test_patch_your_pairs_names_the_row_that_does_not_align(run: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("clean,corrupt,answer,foil\nIt is hot,It is very cold,a,b\n")
    with pytest.raises(interp.InterpError, match="Row 1 of"):
        run("patch_your_pairs.py", "--csv", "mine.csv")


def test_probe_your_labels_reads_the_tense_where_no_word_tells_it(run: Any) -> None:
    said = run("probe_your_labels.py", "--quick", "--html", "probes.html")
    table = pd.read_csv(EXAMPLES / "labels.csv")
    assert f"{len(table)} labels" in said
    assert table.groupby("pos")["label"].nunique().eq(2).all()  # the labelled words do not tell the tense themselves
    scores = {place: float(score) for place, score in re.findall(r"label +(resid_pre\.\d+) +([\d.]+) \(", said)}
    assert scores["resid_pre.0"] == 0.5 and max(scores.values()) > 0.8
    page("probes.html")


@pytest.mark.slow
def test_a_sweep_in_jobs_of_a_cluster_stores_what_the_library_computes(run: Any) -> None:
    said = run("sweep_on_slurm.py", "--quick", "--folder", "sweep")
    assert "2 jobs, 2 to do" in said and "2 of 2 jobs done" in said
    jobs = dict(reversed(pair) for pair in re.findall(r"^(\w+) (planted:\w+) composition ok$", said, re.MULTILINE))
    assert set(jobs) == {"planted:induction", "planted:ioi"}
    stored = SweepFolder.open("sweep").store.open(jobs["planted:ioi"]).results()
    computed = interp.composition(interp.planted.make("ioi").model, "Q")
    np.testing.assert_allclose(stored.values, computed.values, atol=1e-6)
    assert "2 jobs, 0 to do" in run("sweep_on_slurm.py", "--quick", "--folder", "sweep")


def test_every_script_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{script.name}"' in tests for script in EXAMPLES.glob("*.py"))
