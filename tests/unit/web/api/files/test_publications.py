"""Links that were handed out before a run began to publish into their group."""

from __future__ import annotations

import time

import pytest

from controller.domain.names import ComponentName
from controller.domain.runs.file_index import UnderWayMark, under_way
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import cancel, new_run
from controller.domain.storage.box import BoxRecord, PendingUpload
from controller.domain.storage.links import ObjectLink
from controller.store import SqliteStore
from controller.web.objects.reservations import Reservations
from controller.web.problems import ProblemKind, RequestRefused
from controller.web.storage import StorageClient
from tests.support.gateway import APP
from tests.support.specs import make

RUN, BUCKET, GROUP = "19c0a7f3e2d5b1f04a6", "prichal.demo.data", "users/ann/file_groups/out/"


@pytest.mark.parametrize("key", ["x", ".publishing.json", "deep/x"])
def test_a_link_takes_nothing_while_a_run_publishes(
    store: SqliteStore, storage: StorageClient, key: str
) -> None:
    now, rooms = time.time(), Reservations(store, storage)
    store.boxes.save(BoxRecord(APP, ComponentName("data"), BUCKET, 10**9))
    pipeline = make(
        Pipeline, APP, ComponentName("train"), "c0ffee", (make(Stage, "fit", "sha256:1", outputs=("model",)),)
    )
    run = store.runs.submit(new_run(RUN, pipeline, 1.0, "ann"))
    link = ObjectLink("PUT", BUCKET, GROUP + key, int(now), 100)
    rooms.admit(link, 5)
    store.boxes.reserve(PendingUpload(0, BUCKET, under_way(GROUP, RUN), 1, now, now + 100), now)
    with pytest.raises(RequestRefused) as caught:
        rooms.admit(link, 5)
    assert caught.value.problem.kind is ProblemKind.PUBLISHING
    store.runs.save(cancel(run, 2.0))
    rooms.admit(link, 5)


@pytest.mark.parametrize("key", ["a/b", "a/.publishing.json/x", "a/.publishingx", "publishing.x", ""])
def test_other_keys_are_no_publication(key: str) -> None:
    assert UnderWayMark.parse(key) is None
    assert UnderWayMark.parse(under_way("a/b/", RUN)) == UnderWayMark("a/b/", RUN)
