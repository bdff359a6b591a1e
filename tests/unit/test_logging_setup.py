"""The log of operators."""

from __future__ import annotations

import logging

import pytest

from controller.logging_setup import SparseLog


def test_many_records_of_a_kind_are_one_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = SparseLog(logging.getLogger("test"), lambda: now)
    for _ in range(1000):
        log.warning("full", "refused: %s", "the queue is full", {"path": "/a"})
    log.warning("late", "refused: %s", "too slow", {"path": "/b"})
    now = 1.0
    log.warning("full", "refused: %s", "the queue is full", {"path": "/c"})
    now = 2.5
    log.warning("full", "refused: %s", "the queue is full", {"path": "/d"})
    told = [
        (record.getMessage(), vars(record)["path"], vars(record).get("others")) for record in caplog.records
    ]
    assert told == [
        ("refused: the queue is full", "/a", None),
        ("refused: too slow", "/b", None),
        ("refused: the queue is full", "/c", 999),
        ("refused: the queue is full", "/d", None),
    ]
