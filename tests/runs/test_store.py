"""A run comes back as it was saved, is listed without its results, and leaves only when it is told to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import interp
from interp.errors import InputError, StorageError
from interp.results import HeadScores
from interp.runs import placing
from interp.runs.kinds import kind_of, known_kinds, register_kind
from interp.runs.manifest import plain
from interp.runs.store import RunStore

SPEC = {"model": "tiny", "kinds": ["induction"], "n": 8, "alpha": 0.05}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_store_is_found_at_the_top_of_the_package():
    assert interp.RunStore is RunStore


def test_a_run_comes_back_as_it_was_saved(store, scores):
    found = scores()
    run = store.save(found, spec=SPEC, model_hash="ab" * 32, seed=7, timings={"find": 1.5}, title="mine")
    opened = RunStore(str(store.path)).open(run.id)
    again = opened.results()
    assert isinstance(again, HeadScores)
    pd.testing.assert_frame_equal(again.frame, found.frame)
    pd.testing.assert_frame_equal(again.sets, found.sets)
    assert dict(again.about) == dict(found.about)
    assert opened.manifest["spec"] == SPEC and opened.manifest["timings"] == {"find": 1.5}
    assert opened.info == run.info and run.id == run.info.id
    assert (opened.info.title, opened.info.seed, opened.info.model, opened.info.kind) == ("mine", 7, "tiny", "heads")
    assert opened.info.model_hash == "ab" * 32 and opened.info.status == "ok" and opened.info.reason is None


def test_a_manifest_says_how_the_numbers_were_made_and_not_on_whose_machine(store, scores):
    run = store.save(scores(), spec=SPEC)
    manifest = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema"] == 1 and manifest["id"] == run.id
    made = manifest["provenance"]
    assert made["python"] == ".".join(map(str, sys.version_info[:3])) and made["threads"] >= 1
    assert {"torch", "numpy", "pandas", "pyarrow"} <= set(made["versions"])
    when = datetime.fromisoformat(manifest["created"])
    assert when.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - when) < timedelta(minutes=1)
    text = json.dumps({name: value for name, value in manifest.items() if name != "files"})
    assert os.uname().nodename not in text or len(os.uname().nodename) < 3
    assert str(Path.home()) not in text and str(store.path) not in text


def test_seed_and_title_come_from_the_results_where_they_are_not_given(store, scores):
    run = store.save(scores(5), spec={})
    assert run.info.seed == 5 and run.info.title == "heads of tiny" and run.info.model_hash is None


def test_a_folder_holds_a_manifest_and_plain_parquet_and_no_pickle(store, scores):
    run = store.save(scores(), spec=SPEC)
    assert set(contents(run.folder)) == {
        "manifest.json",
        "results/heads.parquet",
        "results/items.parquet",
        "results/sets.parquet",
        "results/about.json",
    }
    assert len(pd.read_parquet(run.folder / "results" / "heads.parquet")) == 12
    assert os.listdir(store.path) == [run.id]


def test_ids_are_safe_file_names_that_sort_by_time(store, scores):
    ids = []
    for _ in range(3):
        ids.append(store.save(scores(), spec=SPEC).id)
        time.sleep(0.002)
    assert all(re.fullmatch(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{8}", one) for one in ids)
    assert ids == sorted(ids) and len(set(ids)) == 3


def test_an_id_that_is_taken_is_not_used_again(store, scores, monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=tz)

    drawn = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(placing, "datetime", Stopped)
    monkeypatch.setattr(placing.secrets, "token_hex", lambda n: next(drawn))
    first, second = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    assert (first.id, second.id) == ("20260102-030405-678-aaaaaaaa", "20260102-030405-678-bbbbbbbb")
    pd.testing.assert_frame_equal(first.results().frame, scores(1).frame)


def test_the_list_is_newest_first(store, scores):
    ids = [store.save(scores(i), spec=SPEC).id for i in range(4)]
    assert [info.id for info in store.list()] == ids[::-1]


def test_a_store_that_does_not_exist_yet_is_empty_and_is_not_made_by_looking(store):
    assert store.list() == [] and store.check() == {}
    assert not store.path.exists()


def test_listing_reads_neither_tables_nor_torch(store, scores):
    store.save(scores(), spec=SPEC)
    code = (
        "import builtins, io, json, sys\n"
        "from interp.runs.store import RunStore\n"
        "real, opened = io.open, []\n"
        "def watched(file, *rest, **named):\n"
        "    opened.append(str(file)); return real(file, *rest, **named)\n"
        "io.open = builtins.open = watched\n"
        "found = RunStore(sys.argv[1]).list()\n"
        "heavy = {'torch', 'transformers', 'streamlit', 'plotly', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "print(json.dumps([len(found), opened, sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True, check=True)
    count, opened, heavy = json.loads(done.stdout)
    assert count == 1 and heavy == []
    assert [Path(file).name for file in opened] == ["manifest.json"]


def test_a_run_is_reopened_without_torch(store, scores):
    run = store.save(scores(), spec=SPEC)
    code = (
        "import sys; from interp.runs.store import RunStore\n"
        "found = RunStore(sys.argv[1]).open(sys.argv[2]).results()\n"
        "assert 'torch' not in sys.modules and 'plotly' not in sys.modules\n"
        "print(len(found.frame))"
    )
    command = [sys.executable, "-c", code, store.path, run.id]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "12\n"


def test_a_thousand_runs_are_listed_in_less_than_a_second(store, scores):
    run = store.save(scores(), spec=SPEC)
    manifest = (run.folder / "manifest.json").read_text()
    for i in range(999):
        folder = store.path / f"20200101-000000-{i:03d}-{i:08x}"
        (folder / "results").mkdir(parents=True)
        (folder / "manifest.json").write_text(manifest)
        for file in (run.folder / "results").iterdir():
            os.link(file, folder / "results" / file.name)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        found = store.list()
        times.append(time.perf_counter() - start)
    seconds = min(times)  # other work on the machine only adds to it
    assert len(found) == 1000 and {info.status for info in found} == {"ok"}
    assert seconds < 1, f"{seconds:.2f} s"


# ---- finding a run ----


def test_a_beginning_that_only_one_run_has_opens_it(store, scores):
    first, second = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    os.rename(first.folder, store.path / "alpha")  # a folder's name is the run's id, also where the user chose it
    os.rename(second.folder, store.path / "alphabet")
    assert store.open("alphab").id == "alphabet"
    assert store.open("alpha").id == "alpha", "a whole id wins over longer ones"
    assert store.open("alpha").results().about["seed"] == 1


def test_an_ambiguous_beginning_is_refused_with_the_runs_it_could_mean(store, scores):
    ids = [store.save(scores(i), spec=SPEC).id for i in range(2)]
    with pytest.raises(InputError, match=f"2 runs in .* begin with '20': {ids[0]}, {ids[1]}. Give more of the id"):
        store.open("20")


def test_an_unknown_id_is_refused_with_near_ones(store, scores):
    run = store.save(scores(), spec=SPEC)
    wrong = run.id[:-1] + ("0" if run.id[-1] != "0" else "1")
    for method in (store.open, store.info, store.delete, store.check):
        with pytest.raises(InputError, match=f"There is no run '{wrong}' in .*Near it: {run.id}"):
            method(wrong)
    with pytest.raises(InputError, match="It holds no runs"):
        RunStore(store.path / "other").open("2026")


@pytest.mark.parametrize("id", ["", ".", "..", "../outside", "/etc", "a/b", "a\\b", "\0", ".hidden"])
def test_an_id_never_leads_out_of_the_store(store, scores, tmp_path, id):
    store.save(scores(), spec=SPEC)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("{}")
    for method in (store.open, store.info, store.delete, lambda one: store.export(one, tmp_path / "x.zip")):
        with pytest.raises(InputError, match="cannot be a run's id"):
            method(id)
    assert contents(outside) == {"manifest.json": b"{}"}


# ---- leaving ----


def test_delete_removes_one_run_and_leaves_nothing_of_it(store, scores):
    kept, doomed = store.save(scores(1), spec=SPEC), store.save(scores(2), spec=SPEC)
    before = contents(kept.folder)
    store.delete(doomed.id)
    assert os.listdir(store.path) == [kept.id] and contents(kept.folder) == before


def test_delete_takes_no_beginning_of_an_id(store, scores):
    run = store.save(scores(), spec=SPEC)
    with pytest.raises(InputError, match=f"give the whole id: {run.id}"):
        store.delete(run.id[:-1])
    assert store.open(run.id).check() == []


def test_an_exported_run_is_a_run_again_where_it_is_unpacked(store, scores, tmp_path):
    run = store.save(scores(3), spec=SPEC)
    target = store.export(run.id[:-2], tmp_path / "out")
    assert target == tmp_path / "out" and os.listdir(tmp_path) in (["runs", "out"], ["out", "runs"])
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "elsewhere")
    other = RunStore(tmp_path / "elsewhere")
    assert [info.id for info in other.list()] == [run.id] and other.check() == {}
    pd.testing.assert_frame_equal(other.open(run.id).results().frame, scores(3).frame)


def test_export_into_a_folder_names_the_file_by_the_id(store, scores, tmp_path):
    run = store.save(scores(), spec=SPEC)
    assert store.export(run.id, tmp_path) == tmp_path / f"{run.id}.zip"
    assert store.export(run.id, tmp_path).exists(), "a zip file may be overwritten"


def test_export_overwrites_no_file_that_is_no_zip(store, scores, tmp_path):
    run = store.save(scores(), spec=SPEC)
    (tmp_path / "thesis.tex").write_text("two years of work")
    with pytest.raises(StorageError, match="exists and is no zip file"):
        store.export(run.id, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "two years of work"


def test_an_export_that_fails_leaves_the_old_archive(store, scores, tmp_path, monkeypatch):
    run = store.save(scores(), spec=SPEC)
    target = store.export(run.id, tmp_path / "a.zip")
    before = target.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        store.export(run.id, target)
    assert target.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["a.zip", "runs"]


# ---- what may be saved ----


class Arrays:
    """A result of another kind, that keeps an array."""

    about = {"model": "tiny"}  # noqa: RUF012

    def __init__(self, values: np.ndarray):
        self.values = values

    def save(self, path: Path) -> None:
        from safetensors.numpy import save_file

        path.mkdir()
        save_file({"values": self.values}, path / "arrays.safetensors")

    @classmethod
    def load(cls, path: Path) -> Arrays:
        from safetensors.numpy import load_file

        return cls(load_file(path / "arrays.safetensors")["values"])


@pytest.fixture
def arrays_kind(monkeypatch):
    monkeypatch.setattr("interp.runs.kinds._HOMES", {"heads": "interp.results.heads:HeadScores"})
    monkeypatch.setitem(sys.modules, "arrays_of_the_tests", type(sys)("arrays_of_the_tests"))
    sys.modules["arrays_of_the_tests"].Arrays = Arrays
    monkeypatch.setattr(Arrays, "__module__", "arrays_of_the_tests")
    register_kind("arrays", "arrays_of_the_tests:Arrays")


def test_another_class_of_results_registers_itself(store, arrays_kind):
    values = np.arange(12.0).reshape(3, 4)
    run = store.save(Arrays(values), spec={"layers": (1, 2)})
    assert known_kinds() == ("heads", "arrays") and run.info.kind == "arrays"
    assert "results/arrays.safetensors" in run.manifest["files"]
    np.testing.assert_array_equal(RunStore(store.path).open(run.id).results().values, values)


def test_two_classes_cannot_share_a_kind(arrays_kind):
    register_kind("arrays", "arrays_of_the_tests:Arrays")  # the same again is no harm
    with pytest.raises(InputError, match="already arrays_of_the_tests:Arrays"):
        register_kind("arrays", "elsewhere:Arrays")


def test_what_is_no_result_is_refused_before_anything_is_written(store):
    with pytest.raises(
        InputError,
        match=r"cannot hold a dict\. It holds .*interp.results.effects:Effects, .*interp.results",
    ):
        store.save({"a": 1}, spec=SPEC)
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"x": float("nan")}, "spec.x is nan"),
        ({"x": [1, {"y": object()}]}, r"spec.x\[1\].y is a object"),
        (["no", "dict"], "spec is a list"),
    ],
)
def test_a_spec_that_json_cannot_hold_is_refused_by_name(store, scores, spec, message):
    with pytest.raises(InputError, match=message):
        store.save(scores(), spec=spec)
    assert not store.path.exists()


def test_plain_data_keeps_what_json_can_say():
    given = {"path": Path("a/b"), "n": np.int64(3), "x": np.float32(0.5), "t": (1, None, True), 1: "é", "s": "\udcff"}
    copy = plain(given, "spec")
    assert copy == {"path": "a/b", "n": 3, "x": 0.5, "t": [1, None, True], "1": "é", "s": "\\udcff"}
    assert json.loads(json.dumps(copy).encode()) == copy


def test_kinds_are_told_by_class_also_of_a_derived_one(scores):
    class Mine(HeadScores):
        pass

    assert kind_of(scores()) == "heads" and kind_of(Mine(scores().frame, scores().sets)) == "heads"
