"""Runs carry tags, may have an id of their own that is given once, and are found by what is known of them."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest

from interp.errors import InputError
from interp.runs.store import RunStore

TAGS = {"sweep": "first", "job": "ab" * 32, "task": "capitals"}


def test_tags_are_in_the_manifest_and_the_list(store, scores):
    run = store.save(scores(), spec={}, tags=TAGS)
    assert run.manifest["tags"] == TAGS and run.info.tags == TAGS and run.info.task == "capitals"
    assert store.list()[0] == run.info and run.info.to_dict()["tags"] == TAGS
    assert len({run.info, store.info(run.id)}) == 1, "what a list shows stays hashable"
    assert store.save(scores(), spec={"task": "ioi"}).info.task == "ioi"


@pytest.mark.parametrize("tags", [{"Sweep": "x"}, {"": "x"}, {"a-b": "x"}, {"a": "x" * 501}, {"1a": "x"}])
def test_a_tag_that_cannot_be_one_is_refused_before_anything_is_written(store, scores, tags):
    with pytest.raises(InputError, match=r"cannot be a tag|Give a text"):
        store.save(scores(), spec={}, tags=tags)
    assert not store.path.exists()


def test_an_id_of_ones_own_is_given_once(store, scores):
    run = store.save(scores(1), spec={}, id="job-1")
    assert run.id == "job-1" and store.open("job-1").results().about["seed"] == 1
    with pytest.raises(InputError, match="holds a run 'job-1' already"):
        store.save(scores(2), spec={}, id="job-1")
    assert store.open("job-1").results().about["seed"] == 1 and os.listdir(store.path) == ["job-1"]
    for bad in ("", "a/b", "..", ".hidden", "a b", "x" * 101, "é"):
        with pytest.raises(InputError, match="cannot be a run's id"):
            store.save(scores(), spec={}, id=bad)


def test_of_many_writers_of_one_id_one_wins_whole(store, scores):
    def work(i: int) -> int | None:
        try:
            return store.save(scores(i), spec={}, id="same").info.seed
        except InputError as error:
            assert re.search("already", str(error))
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [seed for seed in pool.map(work, range(16)) if seed is not None]
    assert len(won) == 1 and store.open("same").results().about["seed"] == won[0]
    assert os.listdir(store.path) == ["same"] and store.check() == {}


def test_runs_are_found_by_kind_model_task_time_and_tag(store, scores):
    first = store.save(scores(1), spec={"task": "IOI"}, tags={"sweep": "a"})
    second = store.save(scores(2), spec={}, tags={"sweep": "b", "task": "capitals"})

    def ids(**asked) -> list[str]:
        return [info.id for info in store.list(**asked)]

    both = [second.id, first.id]
    assert ids(kind="heads") == both and ids(kind="effects") == [] and ids(model="TIN") == both
    assert ids(model="large") == [] and ids(task="ioi") == [first.id] and ids(task="capital") == [second.id]
    assert ids(tags={"sweep": "b"}) == [second.id] and ids(tags={"sweep": "b", "task": "x"}) == []
    now = datetime.now(UTC)
    assert ids(since=now - timedelta(hours=1)) == both and ids(since=now + timedelta(hours=1)) == []
    assert ids(since=date(2020, 1, 1)) == both and ids(since="2999-01-01T00:00") == []
    assert ids(since=first.info.created) == both and ids(since=second.info.created) == [second.id]
    with pytest.raises(InputError, match="'soon' is no date"):
        store.list(since="soon")


def test_what_a_killed_writer_of_a_chosen_id_left_is_removed_in_time(store, scores):
    store.save(scores(), spec={}, id="one")
    left = store.path / ".run-two.abcdefgh.part"
    left.mkdir()
    os.utime(left, (0, 0))
    assert len(RunStore(store.path).list()) == 1
    store.save(scores(), spec={}, id="two")
    assert sorted(os.listdir(store.path)) == ["one", "two"]
