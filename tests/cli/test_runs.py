"""`interp runs`: whole ids, no markup, no traps for scripts, and nothing deleted without a yes."""

from __future__ import annotations

import json
import os
import zipfile

import pandas as pd
import pytest

from interp.runs.store import RunStore
from tests.runs.sample import make_scores


@pytest.fixture
def two(tmp_path) -> list[str]:
    """The ids of two stored runs, newest first."""
    store = RunStore(tmp_path / "runs")
    for seed in (1, 2):
        store.save(make_scores(seed), spec={"model": "tiny", "seed": seed}, title="heads of tiny: induction")
    return [info.id for info in store.list()]


def test_the_list_shows_whole_ids_newest_first(run, two):
    text = run("runs", "list").out
    assert text.index(two[0]) < text.index(two[1]) and "heads of tiny: induction" in text
    assert [one["id"] for one in json.loads(run("runs", "list", "--json").out)] == two


def test_an_empty_store_says_how_to_fill_it(run):
    done = run("runs", "list")
    assert done.code == 0 and done.out == "" and "heads smollm2-135m --store runs" in done.err
    assert run("runs", "list", "--json").out == "[]\n"


def test_damaged_runs_are_listed_with_the_reason(run, two, tmp_path):
    (tmp_path / "runs" / two[0] / "manifest.json").write_text('{"schema": 1')
    (tmp_path / "runs" / two[1] / "results" / "heads.parquet").unlink()
    done = run("runs", "list")
    assert done.code == 0 and "damaged: manifest.json" in done.out and "heads.parquet is missing" in done.out
    listed = json.loads(run("runs", "list", "--json").out)
    assert [one["status"] for one in listed] == ["damaged", "damaged"]
    done = run("runs", "show", two[1])
    assert done.code == 2 and "heads.parquet is missing" in done.err and done.out == ""


def test_what_a_manifest_says_cannot_steer_the_terminal(run, two, tmp_path):
    path = tmp_path / "runs" / two[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["title"] = "\x1b[31m[red]x[/red] [/nonsense] \ud800\r\n:smile:"
    path.write_text(json.dumps(manifest))
    for arguments in (["runs", "list"], ["runs", "show", two[0]]):
        done = run(*arguments)
        assert done.code == 0 and "\x1b" not in done.out and "[red]x[/red] [/nonsense]" in done.out, done.err
    assert json.loads(run("runs", "list", "--json").out)[0]["title"] == manifest["title"]


def test_show_takes_the_beginning_of_an_id(run, two):
    done = run("runs", "show", two[0][:-1])
    assert done.code == 0 and two[0] in done.out and "seed 2" in done.out and "torch" in done.out
    data = json.loads(run("runs", "show", two[0], "--json").out)
    assert data["manifest"]["id"] == two[0] and len(data["heads"]) == 12 and data["about"]["seed"] == 2
    done = run("runs", "show", "20")
    assert done.code == 2 and "2 runs in runs begin with '20'" in done.err


def test_check_exits_with_1_and_names_what_changed(run, two, tmp_path):
    assert run("runs", "check").code == 0
    table = tmp_path / "runs" / two[1] / "results" / "about.json"
    table.write_text(table.read_text().replace("tiny", "tina"))
    done = run("runs", "check")
    assert done.code == 1 and done.out.startswith(f"{two[1]}: results/about.json was changed")
    assert list(json.loads(run("runs", "check", "--json").out)) == [two[1]]
    assert run("runs", "check", two[0]).code == 0


def test_export_writes_a_zip_here_or_where_it_is_told(run, two, tmp_path):
    assert run("runs", "export", two[0]).out == f"{two[0]}.zip\n"
    assert zipfile.ZipFile(tmp_path / f"{two[0]}.zip").testzip() is None
    done = run("runs", "export", two[0], "deep/er.zip", "--json")
    assert json.loads(done.out) == {"id": two[0], "path": "deep/er.zip"} and (tmp_path / "deep" / "er.zip").exists()


def test_delete_asks_and_a_no_deletes_nothing(run, two, tmp_path):
    done = run("runs", "delete", two[0], answer="n\n")
    assert done.code == 1 and "nothing was deleted" in done.err and two[0] in done.err
    assert len(os.listdir(tmp_path / "runs")) == 2
    assert run("runs", "delete", two[0], answer="y\n").code == 0
    assert os.listdir(tmp_path / "runs") == [two[1]]


def test_delete_without_anybody_to_ask_deletes_nothing(run, two, tmp_path):
    done = run("runs", "delete", two[0])
    assert done.code == 2 and "Add --yes" in done.err
    assert len(os.listdir(tmp_path / "runs")) == 2


def test_delete_takes_several_and_all_or_none(run, two, tmp_path):
    assert run("runs", "delete", "--yes", two[0], "nonsense").code == 2
    assert len(os.listdir(tmp_path / "runs")) == 2
    done = run("runs", "delete", "--yes", "--json", *two)
    assert json.loads(done.out) == {"deleted": two} and os.listdir(tmp_path / "runs") == []


def test_the_list_is_searched_by_what_is_known_of_a_run(run, two, tmp_path):
    store = RunStore(tmp_path / "runs")
    tagged = store.save(make_scores(3), spec={"model": "tiny"}, tags={"sweep": "first", "task": "ioi"})

    def ids(*options: str) -> list[str]:
        return [one["id"] for one in json.loads(run("runs", "list", "--json", *options).out)]

    assert ids("--tag", "sweep=first") == ids("--task", "ioi") == [tagged.id]
    assert ids("--kind", "heads", "--model", "tin", "--since", "2020-01-01") == [tagged.id, *two]
    assert ids("--since", "2999-01-01") == []
    assert "no such runs in runs" in run("runs", "list", "--kind", "effects").err
    for options, said in ((("--tag", "first"), "is no tag"), (("--since", "soon"), "is no date")):
        done = run("runs", "list", *options)
        assert done.code == 2 and said in done.err


def test_a_table_over_all_runs_is_printed_or_written(run, two, tmp_path):
    query = "SELECT seed, count(*) AS n FROM heads GROUP BY seed ORDER BY seed"
    assert run("runs", "table", query, "--csv", "-").out == "seed,n\n1,12\n2,12\n"
    assert run("runs", "table", "heads", "--csv", "a.csv", "--parquet", "a.parquet").code == 0
    csv, parquet = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")
    assert len(csv) == len(parquet) == 24 and set(parquet["run"]) == set(two)
    (tmp_path / "runs" / two[0] / "manifest.json").write_text("{")
    done = run("runs", "table", query, "--json")
    assert json.loads(done.out) == [{"seed": 1, "n": 12}] and f"left out {two[0]}: manifest.json" in done.err
    done = run("runs", "table", "SELECT * FROM heds")
    assert done.code == 2 and "heads_sets" in done.err and done.out == ""
    assert "seed" in run("runs", "table", query).out


def test_exported_runs_are_imported_elsewhere(run, two):
    assert json.loads(run("runs", "export", *two, "both.zip", "--json").out) == {"ids": two, "path": "both.zip"}
    done = run("runs", "import", "both.zip", "--store", "other")
    assert done.code == 0 and done.out.count("added") == 2
    found = json.loads(run("runs", "import", "both.zip", "--store", "other", "--json").out)
    assert found == dict.fromkeys(sorted(two), "there")
    done = run("runs", "export", two[0], "nonsense")
    assert done.code == 2 and "There is no run 'nonsense'" in done.err, "a typing error is no file name"
