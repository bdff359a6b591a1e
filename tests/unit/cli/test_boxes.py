"""`prichal box ls`: what is stored, and what becomes of data whose box is gone."""

from __future__ import annotations

import json

import pytest

from controller.cli.exits import Exit
from controller.domain.names import AppName, ComponentName
from controller.domain.storage.box import BoxRecord, BoxState
from controller.store import SqliteStore
from tests.unit.cli.conftest import Machine

DEMO = AppName("demo")
DATA = BoxRecord(DEMO, ComponentName("data"), "prichal.demo.data", 10**9)
KEPT = BoxRecord(DEMO, ComponentName("old"), "prichal.demo.old", 2 * 10**9, state=BoxState.KEPT)

COPYING = BoxRecord(
    AppName("demo-x"), ComponentName("data"), "prichal.demo-x.data", 10**9, state=BoxState.COPYING
)


@pytest.fixture
def boxes(store: SqliteStore) -> SqliteStore:
    for record in (DATA, KEPT):
        store.boxes.save(record)
    store.boxes.measured(KEPT.bucket, 4000, 3, at=1.0, settled=())
    return store


def test_all_of_them(machine: Machine, boxes: SqliteStore) -> None:
    found = machine.run("box", "ls")
    assert [line.split() for line in found.stdout.splitlines()] == [
        ["APP", "BOX", "STATE", "USED", "CAPACITY", "FILES", "BUCKET"],
        ["demo", "data", "bound", "0", "bytes", "1", "GB", "0", "prichal.demo.data"],
        ["demo", "old", "kept", "4", "kB", "2", "GB", "3", "prichal.demo.old"],
    ]
    (kept,) = json.loads(machine.run("box", "ls", "--kept", "-o", "json").stdout)
    assert (kept["bucket"], kept["used"], kept["state"]) == ("prichal.demo.old", 4000, "kept")


def test_none(machine: Machine, store: SqliteStore) -> None:
    assert "no boxes" in machine.run("box", "ls").stderr
    assert "No data is kept" in machine.run("box", "ls", "--kept").stderr


def test_a_declared_box_takes_over_kept_data(machine: Machine, boxes: SqliteStore) -> None:
    assert machine.run("box", "adopt", "prichal.demo.old", "demo/data").code == Exit.OK
    data, old = boxes.boxes.of(DEMO)
    assert (data.box, data.bucket, data.state, data.used) == (
        "data",
        "prichal.demo.old",
        BoxState.BOUND,
        4000,
    )
    assert (old.box, old.bucket, old.state, old.used) == ("old", "prichal.demo.data", BoxState.KEPT, 0)
    assert boxes.requests.queued(DEMO) is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("adopt", "prichal.demo.old", "demo/nothing"), "UnknownBox"),
        (("adopt", "prichal.demo.old", "demo"), "UnknownBox"),
        (("adopt", "prichal.demo.old", "demo/old"), "UnknownBox"),
        (("adopt", "nothing", "demo/data"), "UnknownBucket"),
        (("adopt", "prichal.demo.data", "demo/data"), "BucketInUse"),
        (("delete", "prichal.demo.data", "--yes"), "BucketInUse"),
        (("adopt", "prichal.demo-x.data", "demo/data"), "BucketInUse"),
        (("delete", "prichal.demo-x.data", "--yes"), "BucketInUse"),
        (("delete", "nothing", "--yes"), "UnknownBucket"),
    ],
)
def test_what_cannot_be_done(
    machine: Machine, boxes: SqliteStore, arguments: tuple[str, ...], reason: str
) -> None:
    boxes.boxes.save(COPYING)
    before = boxes.boxes.all()
    refused = machine.run("box", *arguments)
    assert refused.code == (Exit.FAILED if reason == "BucketInUse" else Exit.NOT_FOUND)
    assert reason in refused.stderr
    assert boxes.boxes.all() == before


def test_deletion_is_asked_about(machine: Machine, boxes: SqliteStore) -> None:
    assert machine.run("box", "delete", KEPT.bucket, stdin="n\n").code == Exit.INTERRUPTED
    assert boxes.boxes.of(DEMO)[1].state is BoxState.KEPT
    asked = machine.run("box", "delete", KEPT.bucket, stdin="y\n")
    assert "4 kB in 3 files of demo/old" in asked.stdout + asked.stderr
    assert boxes.boxes.of(DEMO)[1].state is BoxState.DELETING
    assert boxes.requests.queued(DEMO) is not None
