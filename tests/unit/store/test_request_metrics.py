"""Counts of workers, living and ended, add up."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.samples import BUCKETS
from controller.store import request_metrics
from controller.store.request_metrics import RequestMetrics, WaitReason


def test_an_ended_worker_s_counts_stay(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    request_metrics.clear(folder)
    for process in (1, 2, 3):
        counts = RequestMetrics()
        counts.observe("demo/image", 200, 0.5)
        counts.flush(request_metrics.worker_file(folder, process))
    request_metrics.retire(folder, 1)
    request_metrics.retire(folder, 2)
    request_metrics.retire(folder, 99)  # one that never counted
    total = request_metrics.read_all(folder)
    assert total.requests == {("demo/image", 200): 3}
    assert total.seconds["demo/image"] == 1_500_000
    assert sum(total.durations["demo/image"]) == 3
    request_metrics.clear(folder)
    assert request_metrics.read_all(folder) == RequestMetrics()


def test_dropped_lines_of_the_access_log_stay(tmp_path: Path) -> None:
    for process in (1, 2):
        counts = RequestMetrics()
        for dropped in (3, 3, 5):
            counts.access_lines_dropped(dropped)
            counts.flush(request_metrics.worker_file(tmp_path, process))
    request_metrics.retire(tmp_path, 1)
    assert request_metrics.read_all(tmp_path).unlogged == 10


def test_sockets_of_ended_workers_are_not_open(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    request_metrics.clear(folder)
    for process in (1, 2):
        counts = RequestMetrics()
        for _ in range(3):
            counts.socket_opened("demo/own")
        counts.socket_bytes("demo/own", 10, 20)
        counts.socket_ended("demo/own", "closed", 1.5)
        counts.flush(request_metrics.worker_file(folder, process))
    assert request_metrics.read_all(folder).sockets == {"demo/own": 4}
    request_metrics.retire(folder, 1)
    total = request_metrics.read_all(folder)
    assert total.sockets == {"demo/own": 2}
    assert total.ended == {("demo/own", "closed"): 2}
    assert total.open_seconds == {"demo/own": 3_000_000}
    assert total.bytes == {("demo/own", "received"): 20, ("demo/own", "sent"): 40}


def test_calls_of_ended_workers_do_not_wait(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    request_metrics.clear(folder)
    for process in (1, 2):
        counts = RequestMetrics()
        for _ in range(3):
            counts.wait_begins("demo/image", WaitReason.ASLEEP)
        counts.wait_ends("demo/image", WaitReason.ASLEEP)
        counts.wait_begins("demo/image", WaitReason.HEALING)
        counts.wait_ends("demo/image", WaitReason.HEALING)
        counts.flush(request_metrics.worker_file(folder, process))
    assert request_metrics.read_all(folder).waiting == {("demo/image", "asleep"): 4}
    request_metrics.retire(folder, 1)
    total = request_metrics.read_all(folder)
    assert total.waiting == {("demo/image", "asleep"): 2}
    assert total.waits == {("demo/image", "asleep"): 6, ("demo/image", "healing"): 2}


def test_dropped_spans_of_workers_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    request_metrics.clear(folder)
    for process in (1, 2):
        counts = RequestMetrics()
        for number in (1, 2, 2):
            counts.spans_dropped({"queue-full": number, "export-failed": 0})
        counts.flush(request_metrics.worker_file(folder, process))
    request_metrics.retire(folder, 1)
    assert request_metrics.read_all(folder).spans == {"queue-full": 4, "export-failed": 0}


def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    path, counts = tmp_path / "worker-1.json", RequestMetrics()
    counts.observe("a/b", 200, 0.1)
    counts.flush(path)
    path.unlink()
    counts.flush(path)
    assert not path.exists()
    counts.observe("a/b", 200, 0.1)
    counts.flush(path)
    assert path.exists()


@given(st.floats(min_value=0, max_value=1000))
def test_a_duration_lies_in_its_bucket(duration: float) -> None:
    counts = RequestMetrics()
    counts.observe("a/b", 200, duration)
    index = counts.durations["a/b"].index(1)
    assert index == len(BUCKETS) or duration <= BUCKETS[index]
    assert index == 0 or duration > BUCKETS[index - 1]
