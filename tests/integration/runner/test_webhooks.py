"""Webhooks from a process of their own to a real receiver: killed between sending and writing down, and stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.domain.apps.spec import Webhook
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import cancel, new_run
from controller.store import SqliteStore
from tests.support.receivers import receiver
from tests.support.serve_runner import settings_of
from tests.support.serving_processes import serving
from tests.support.specs import make
from tests.support.stores import open_store
from tests.support.waiting import wait_for


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(settings_of(tmp_path, "webhooks").database)) as opened:
        yield opened


def end_a_run(store: SqliteStore, url: str) -> None:
    names = (AppName("demo"), ComponentName("train"), "c0ffee")
    pipeline = make(Pipeline, *names, (make(Stage, "fit", "sha256:1"),), webhook=Webhook("hooks", url))
    assert store.runs.save(cancel(store.runs.submit(new_run("a1", pipeline, 1.0)), 2.0))


def test_killed_between_sending_and_writing_down(tmp_path: Path, store: SqliteStore) -> None:
    with receiver() as there:
        end_a_run(store, there.url)
        with serving("webhooks", tmp_path, "delivered") as process:
            assert process.wait(timeout=60) == -signal.SIGKILL
        assert len(there.received) == 1
        assert len(store.webhooks.of("a1")) == 1
        with serving("webhooks", tmp_path):
            wait_for(lambda: not store.webhooks.of("a1"))
    one, again = there.received
    assert (one.id, one.body) == (again.id, again.body)
    assert one.genuine
    assert again.genuine


def test_killed_before_a_failure_is_written_down(tmp_path: Path, store: SqliteStore) -> None:
    with receiver() as there:
        there.answer = lambda _: (503, {}) if len(there.received) == 1 else (204, {})
        end_a_run(store, there.url)
        with serving("webhooks", tmp_path, "failed") as process:
            assert process.wait(timeout=60) == -signal.SIGKILL
        with serving("webhooks", tmp_path):
            wait_for(lambda: not store.webhooks.of("a1"))
    assert len(set(there.ids)) == 1


def test_stopped_while_a_receiver_takes_its_time(tmp_path: Path, store: SqliteStore) -> None:
    free = threading.Event()
    with receiver() as there:
        there.answer = lambda _: (free.wait(60), (204, {}))[1]
        end_a_run(store, there.url)
        with serving("webhooks", tmp_path) as process:
            wait_for(lambda: there.received)
            process.terminate()
            assert process.wait(timeout=10) == 0
        free.set()
        assert [message.attempts for message in store.webhooks.of("a1")] == [0]
