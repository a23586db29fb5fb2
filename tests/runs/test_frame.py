"""One table over all runs: every row once, from sound runs only, and a query that can do nothing but ask."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.errors import InputError
from interp.results.tables import HeadTable
from interp.runs import compacted, index
from interp.runs.store import RunStore

SPEC = {"model": "tiny"}


@pytest.fixture
def eager(monkeypatch):
    """An index and segments for a few runs, at once."""
    monkeypatch.setattr(index, "_WORTH", 2)
    monkeypatch.setattr(index, "_SETTLING", 0)
    monkeypatch.setattr(compacted, "_WORTH", 2)


@pytest.fixture(scope="module")
def small_store(scores, tmp_path_factory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("small") / "runs")
    store.save(scores(), spec=SPEC)
    return store


def table(**columns) -> HeadTable:
    frame = pd.DataFrame(columns)
    return HeadTable(frame, "t", frame.columns[0], (), "nothing", {"model": "tiny"})


def segments(store: RunStore) -> list[Path]:
    return sorted((store.path / ".index").glob("*.parquet"))


def fill(store, scores, n: int = 6):
    runs = [store.save(scores(i), spec=SPEC, tags={"sweep": "first", "job": f"j{i}"}) for i in range(n)]
    time.sleep(0.01)
    return runs


def by_hand(runs, scores) -> pd.DataFrame:
    rows = [scores(i).frame.assign(run=run.id) for i, run in enumerate(runs)]
    return pd.concat(rows, ignore_index=True)[["run", "layer", "head", "score"]]


def asked(store) -> pd.DataFrame:
    return store.frame("SELECT run, layer, head, score FROM heads ORDER BY created, run, layer, head")


def test_rows_of_all_runs_come_with_what_is_known_of_their_run(store, scores):
    runs = fill(store, scores)
    frame = store.frame(kind="heads")
    assert list(frame.columns[:10]) == [
        "run", "run_kind", "title", "model", "model_hash", "seed", "created", "task", "tag_job", "tag_sweep",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(frame[["run", "layer", "head", "score"]], by_hand(runs, scores), check_dtype=False)
    assert set(frame["run_kind"]) == {"heads"} and set(frame["kind"]) == {"induction"}, "the table's own name stays"
    assert frame.groupby("run")["seed"].first().tolist() == list(range(6)) and frame.attrs["left_out"] == {}
    pd.testing.assert_frame_equal(store.frame(), frame)


def test_a_query_joins_tables_and_runs_and_knows_tags(store, scores):
    runs = fill(store, scores, 3)
    found = store.frame(
        "SELECT r.tag_job, count(*) AS n, max(s.effect) AS effect FROM heads h JOIN heads_sets s USING (run) "
        "JOIN runs r USING (run) WHERE h.tag_sweep = 'first' GROUP BY ALL ORDER BY 1"
    )
    assert found.values.tolist() == [["j0", 12, 1.0], ["j1", 12, 1.0], ["j2", 12, 1.0]]
    assert store.frame("SELECT run FROM runs ORDER BY run")["run"].tolist() == sorted(run.id for run in runs)


def test_compacted_rows_are_the_runs_own_and_what_is_new_or_gone_is_seen(store, scores, eager):
    runs = fill(store, scores)
    first = asked(store)
    assert segments(store), "the second question is answered from segments"
    pd.testing.assert_frame_equal(first, by_hand(runs, scores), check_dtype=False)
    pd.testing.assert_frame_equal(asked(store), first)
    runs.append(store.save(scores(6), spec=SPEC))
    pd.testing.assert_frame_equal(asked(store), by_hand(runs, scores), check_dtype=False)
    store.delete(runs[0].id)
    assert set(asked(store)["run"]) == {run.id for run in runs[1:]}
    for path in (store.path / ".index").iterdir():
        path.unlink()
    assert set(asked(store)["run"]) == {run.id for run in runs[1:]}, "the index may be deleted at any time"


def test_many_segments_become_one_and_every_row_stays_once(store, scores, eager, monkeypatch):
    monkeypatch.setattr(compacted, "_MOST", 2)
    runs, seen = [], 0
    for i in range(10):
        runs.append(store.save(scores(i), spec=SPEC))
        if i % 2:
            time.sleep(0.01)
            pd.testing.assert_frame_equal(asked(store), by_hand(runs, scores), check_dtype=False)
            seen = max(seen, len(compacted._catalog(store.path)))
    assert seen <= 3 and len(compacted._catalog(store.path)) < 5
    pd.testing.assert_frame_equal(asked(store), by_hand(runs, scores), check_dtype=False)


def test_a_table_that_changes_after_it_was_compacted_is_left_out_with_the_reason(store, scores, eager):
    runs = fill(store, scores)
    asked(store)
    path = runs[2].folder / "results" / "heads.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (runs[3].folder / "manifest.json").write_text("{")
    found = asked(store)
    assert set(found["run"]) == {run.id for i, run in enumerate(runs) if i not in (2, 3)}
    assert set(found.attrs["left_out"]) == {runs[2].id, runs[3].id}
    assert (
        "was changed" in found.attrs["left_out"][runs[2].id] and "cannot be read" in found.attrs["left_out"][runs[3].id]
    )


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "catalog"])
def test_a_damaged_segment_is_found_by_check_and_never_answers(store, scores, eager, harm):
    runs = fill(store, scores)
    first = asked(store)
    assert store.check() == {}
    path = next(one for one in segments(store) if one.name.startswith("heads.heads."))
    data = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(data[:-9])
    elif harm == "flip":
        for i in range(4, len(data) - 8, 7):  # wherever the values are
            data[i] ^= 0x55
        path.write_bytes(data)
    elif harm == "gone":
        path.unlink()
    else:
        (store.path / ".index" / "tables.json").write_text("{}")
    assert list(store.check()) == [".index"]
    pd.testing.assert_frame_equal(asked(store), first)
    assert store.check() == {} and len(runs) == 6, "it was made anew"


def test_the_index_of_the_list_is_checked_against_the_manifests(store, scores, eager):
    fill(store, scores)
    listed = store.list()
    path = store.path / ".index" / "runs.json"
    saved = index.read_checked(path)
    assert store.list() == listed and store.check() == {} and len(saved["runs"]) == 6
    saved["runs"][listed[0].id][1]["title"] = "another"
    index.write_checked(path, saved)
    assert "says something else" in store.check()[".index"][0]
    path.write_bytes(path.read_bytes()[:-3])
    assert "not as it was written" in store.check()[".index"][0]
    assert store.list() == listed and store.check() == {}, "it was made anew"


@pytest.mark.parametrize("harm", ["manifest", "cut", "gone", "kind"])
def test_damage_is_listed_as_without_an_index(store, scores, eager, harm):
    runs = fill(store, scores)
    store.list()
    table, manifest = runs[0].folder / "results" / "heads.parquet", runs[0].folder / "manifest.json"
    if harm == "manifest":
        manifest.write_text(manifest.read_text().replace('"kind"', '"kinb"'))  # the size stays
    elif harm == "cut":
        table.write_bytes(table.read_bytes()[:-1])
    elif harm == "gone":
        table.unlink()
    else:
        table.unlink()
        table.mkdir()
    (info,) = [one for one in store.list() if one.status != "ok"]
    assert info.id == runs[0].id and info.status == "damaged" and info == store.info(info.id)


def test_what_was_written_a_moment_ago_is_not_remembered(store, scores, eager, monkeypatch):
    monkeypatch.setattr(index, "_SETTLING", 3_600_000_000_000)
    fill(store, scores)
    asked(store)
    assert index.read_checked(store.path / ".index" / "runs.json")["runs"] == {} and segments(store) == []


def test_a_full_disk_costs_the_index_and_not_the_answer(store, scores, eager, monkeypatch):
    runs = fill(store, scores)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    pd.testing.assert_frame_equal(asked(store), by_hand(runs, scores), check_dtype=False)
    assert len(store.list()) == 6 and os.listdir(store.path / ".index") == []


def test_tables_of_other_columns_and_types_are_united_by_name(store, eager):
    store.save(table(layer=[1, 2], score=[1, 2]), spec=SPEC)
    store.save(table(layer=[3], score=[0.5], more=["x"]), spec=SPEC)
    store.save(table(layer=["four"], note=pd.Categorical(["c"]), score=[None]), spec=SPEC)
    time.sleep(0.01)
    for _ in range(2):
        found = store.frame("SELECT layer, score, more, note FROM head_table ORDER BY layer")
        assert found["layer"].tolist() == ["1", "2", "3", "four"] and found["note"].tolist()[-1] == "c"
        assert found["score"].tolist()[:3] == [1.0, 2.0, 0.5] and np.isnan(found["score"].iloc[3])
        assert found["more"].dropna().tolist() == ["x"]


def test_several_kinds_ask_for_one(store, scores):
    store.save(table(layer=[1]), spec=SPEC)
    store.save(scores(), spec=SPEC)
    with pytest.raises(InputError, match=r"runs of 2 kinds: head_table, heads. Give one as `kind`"):
        store.frame()
    with pytest.raises(InputError, match="no sound runs of kind 'dreams'"):
        store.frame(kind="dreams")
    assert len(store.frame(kind="head_table")) == 1


def test_effects_come_with_their_axes(store):
    import xarray as xr

    from interp.results import Effects

    values = xr.DataArray(
        np.arange(6.0).reshape(2, 3), dims=("prompt", "layer"), coords={"prompt": [0, 1], "layer": [0, 1, 2]}
    )
    store.save(Effects(values, about={"model": "tiny"}), spec=SPEC)
    frame = store.frame(kind="effects")
    assert len(frame) and "layer" in frame.columns


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE runs",
        "DELETE FROM runs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM scores",
        "",
        "nonsense",
    ],
)
def test_a_query_reads_nothing_else_and_writes_nothing(small_store, tmp_path, query):
    (tmp_path / "secret.csv").write_text("password\n1\n")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=r"(?s)Tables and their columns:\n  runs: run, run_kind.*heads: run, run_kind"):
        small_store.frame(query.format(secret=tmp_path / "secret.csv", folder=tmp_path))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_mistake_in_a_query_is_duckdbs_message_and_the_tables(store, scores):
    store.save(scores(), spec=SPEC)
    with pytest.raises(InputError, match=r"(?s)The query failed: .*heds.*heads: run.*heads_sets: run"):
        store.frame("SELECT * FROM heds")
    with pytest.raises(InputError, match=r"(?s)layr.*heads: .*layer, head"):
        store.frame("SELECT layr FROM heads")


def test_an_empty_store_has_runs_and_no_rows(store):
    assert len(store.frame("SELECT * FROM runs")) == 0 and not store.path.exists()
    with pytest.raises(InputError, match="no sound runs here"):
        store.frame()
