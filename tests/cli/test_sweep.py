"""`interp sweep` from the file to the page; its exit code says whether a job failed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.cli.sweep import _options
from interp.errors import InputError

FILE = """
models = ["planted:backup", "damaged"]
tasks = [{name = "planted", n = 8}]
analyses = ["evaluate", {name = "composition", kind = "K"}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    (tmp_path / "mine.toml").write_text(FILE)
    return tmp_path / "mine.toml"


def call(*arguments: object, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["sweep", *map(str, arguments)])
    assert found.exit_code == code, found.output
    return found.stdout


def test_a_sweep_is_planned_run_looked_at_and_reported(file: Path) -> None:
    planned = json.loads(call("plan", file, "--json"))
    assert len(planned["jobs"]) == 4 and all(one["seconds"] > 0 and one["bytes"] > 1e8 for one in planned["jobs"])
    assert not Path(planned["folder"]).exists()
    assert "4 jobs, 0 done" in call("plan", file)
    ran = json.loads(call("run", file, "--workers", 1, "--set", "threads=1", "--json", code=1))
    assert (ran["done"], ran["n_failed"], ran["failed_by_kind"]) == (2, 2, {"load": 2})
    assert json.loads(call("status", file, "--json", code=1))["failed"] == ran["failed"]
    said = call("status", file.with_suffix(""), code=1)
    assert "2 of 4 jobs done, 2 failed (2 load)" in said and "sweep retry" in said
    table, page = file.with_name("t.parquet"), file.with_name("page.html")
    call("report", file, "--html", page, "--parquet", table, "--csv", file.with_name("t.csv"))
    frame = pd.read_parquet(table)
    assert set(frame["state"]) == {"done", "failed"} and {"accuracy", "largest score"} <= set(frame["name"].dropna())
    assert len(pd.read_csv(file.with_name("t.csv"))) == len(frame)
    html = page.read_text()
    assert "What failed" in html and "damaged" in html and "http" not in html.split("<body>")[1].split("plotly")[0]


def test_what_cannot_be_planned_is_said(file: Path) -> None:
    for arguments, said in (
        (("run", file, "--executor", "slurmm"), "Near it: slurm"),
        (("run", file, "--set", "worker=2"), "Near it: workers"),
        (("run", file, "--set", "threads"), "NAME=VALUE"),
        (("run", file, "--workers", "0"), "workers is 0"),
        (("run", file, "--executor", "ray", "--set", "share=no"), "share is 'no'"),
        (("retry", file, "--kind", "memor"), "memory"),
        (("status", file.with_name("none.toml")), "no folder of a sweep"),
    ):
        found = CliRunner().invoke(app, ["sweep", *map(str, arguments)])
        assert isinstance(found.exception, InputError) and said in str(found.exception)


def test_numbers_and_truth_are_read_as_such() -> None:
    assert _options(2, 1.5, ["share=false", "chunk=3", "timeout=0.5", "partition=gpu"]) == {
        "workers": 2,
        "memory": 1_500_000_000,
        "share": False,
        "chunk": 3,
        "timeout": 0.5,
        "partition": "gpu",
    }
