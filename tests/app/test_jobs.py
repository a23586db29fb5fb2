"""Jobs report, end, fail and are cancelled; two askers share one."""

from __future__ import annotations

import threading
import time

import pytest

from app.jobs import MOST_RUNNING, Job, Jobs
from interp.errors import InputError


def finished(job: Job) -> Job:
    until = time.monotonic() + 10
    while job.state == "running" and time.monotonic() < until:
        time.sleep(0.01)
    return job


def test_a_job_reports_and_returns():
    def work(job):
        job.report("half", 1, 2)
        return "result"

    job = finished(Jobs().start("one", work))
    assert (job.state, job.result, job.stage, job.done, job.total) == ("done", "result", "half", 1, 2)


def test_a_cancelled_job_stops_at_its_next_report_and_has_no_result():
    reached = threading.Event()

    def work(job):
        for i in range(1_000):
            job.report("working", i, 1_000)
            reached.set()
            time.sleep(0.01)

    job = Jobs().start("one", work)
    assert reached.wait(5)
    job.cancel()
    started = time.monotonic()
    finished(job)
    assert job.state == "cancelled" and job.result is None and job.done < 900
    assert time.monotonic() - started < 1


def test_a_running_job_is_shared_and_a_finished_one_is_not():
    go = threading.Event()
    jobs = Jobs()
    first = jobs.start("one", lambda job: go.wait(5))
    assert jobs.start("one", lambda job: None) is first and jobs.running("one") is first
    other = jobs.start("other", lambda job: None)
    assert other is not first
    go.set()
    finished(first)
    assert jobs.running("one") is None and jobs.latest("one") is first
    assert jobs.start("one", lambda job: None) is not first


def test_a_users_mistake_is_the_jobs_error():
    def work(job):
        raise InputError("one sentence")

    job = finished(Jobs().start("one", work))
    assert (job.state, job.error) == ("failed", "one sentence")


def test_any_other_error_names_its_type_and_is_logged(caplog):
    job = finished(Jobs().start("one", lambda job: 1 / 0))
    assert job.state == "failed" and job.error.startswith("ZeroDivisionError")
    assert "1 / 0" in caplog.text


def test_time_left_follows_the_rate():
    job = Job("one", 1)
    job.report("stage", 0, 10)
    assert job.seconds_left is None
    job.stage_started -= 4
    job.report("stage", 4, 10)
    assert job.seconds_left == pytest.approx(6, rel=0.1)


def test_a_full_server_says_so_and_takes_work_again_later():
    jobs, go = Jobs(), threading.Event()
    for i in range(MOST_RUNNING):
        jobs.start(f"job {i}", lambda job: go.wait(10))
    with pytest.raises(InputError, match=r"runs 6 jobs already.* the oldest is 'job 0'.*try again"):
        jobs.start("one more", lambda job: None)
    assert jobs.start("job 3", lambda job: None).number == 4  # the one that runs is followed all the same
    go.set()
    until = time.monotonic() + 5
    while any(jobs.running(f"job {i}") for i in range(MOST_RUNNING)) and time.monotonic() < until:
        time.sleep(0.01)
    assert jobs.start("one more", lambda job: None).number == MOST_RUNNING + 1
