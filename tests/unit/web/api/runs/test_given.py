"""Which files of a run are missing, for any files that there are: exactly those that the stage would not find."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import ComponentName
from controller.domain.runs.file_index import under_way
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import RunInput, new_run
from controller.domain.storage.box import BoxRecord, PendingUpload
from controller.domain.storage.keys import parse_path, user_area
from controller.store import SqliteStore
from controller.web.api.runs.inputs import absent_inputs
from tests.support.fake_objects import FakeObjects
from tests.support.gateway import APP
from tests.support.specs import make

BOX = ComponentName("data")
SEGMENT = st.sampled_from(["a", "ab", "b", "é", "a b", "%2F", "a.b", "+", ".manifest.json"])
FILE = st.lists(SEGMENT, min_size=2, max_size=4).map("/".join)
PATH = st.tuples(st.lists(SEGMENT, min_size=1, max_size=4).map("/".join), st.sampled_from(["", "/"])).map(
    "".join
)
PIPELINE = make(
    Pipeline, APP, ComponentName("train"), "c0ffee", (make(Stage, "fit", "sha256:1", ("x",)),), boxes=(BOX,)
)


def absent(files: list[str], asked: list[str], user: str | None) -> list[str]:
    """Pointers."""
    objects = FakeObjects()
    objects.create_bucket("bucket")
    for name in files:
        objects.put("bucket", user_area(user) + name, io.BytesIO(b"x"), 1)
    objects.put("bucket", user_area("somebody") + "a/ab", io.BytesIO(b"x"), 1)
    record = BoxRecord(APP, BOX, "bucket", 10**9)
    boxes = SimpleNamespace(get=lambda app, box: record, publishing=lambda bucket, now: ())
    store = SimpleNamespace(boxes=boxes)
    storage = SimpleNamespace(objects=lambda: objects, start=lambda ask, about, within: map(ask, about))
    inputs = [RunInput(f"in-{number}", data=parse_path(path).text) for number, path in enumerate(asked)]
    run = new_run("a" * 19, PIPELINE, 1.0, user, [RunInput("rate", "FP64", "1.5"), *inputs])
    places = ["/inputs/0/data", *(f"/inputs/{number + 1}/data" for number in range(len(asked)))]
    return [fault.pointer for fault in absent_inputs(run, places, cast(Any, store), cast(Any, storage))]


@given(
    st.lists(FILE, max_size=6), st.lists(PATH, min_size=1, max_size=4), st.sampled_from([None, "ann", "a/b"])
)
def test_exactly_what_is_not_there_is_missing(files: list[str], asked: list[str], user: str | None) -> None:
    def is_there(path: str) -> bool:
        text = parse_path(path).text
        return any(name.startswith(text) if text.endswith("/") else name == text for name in files)

    expected = [f"/inputs/{number}/data" for number, path in enumerate(asked, 1) if not is_there(path)]
    assert absent(files, asked, user) == expected


@pytest.mark.parametrize(
    ("path", "missing"), [("a/b/x", False), ("a/b/", False), ("a/", False), ("a/x", True), ("b/", True)]
)
def test_what_a_run_is_publishing_is_on_its_way(store: SqliteStore, path: str, missing: bool) -> None:
    """The stage waits for it."""
    objects, now = FakeObjects(), time.time()
    objects.create_bucket("bucket")
    store.boxes.save(BoxRecord(APP, BOX, "bucket", 10**9))
    writer = store.runs.submit(new_run("b" * 19, PIPELINE, 1.0, "ann"))
    key = under_way(f"{user_area('ann')}a/b/", writer.id)
    store.boxes.guard(PendingUpload(0, "bucket", key, 0, now, now + 100))
    storage = SimpleNamespace(objects=lambda: objects, start=lambda ask, about, within: map(ask, about))
    run = new_run("a" * 19, PIPELINE, 1.0, "ann", [RunInput("x", data=path)])
    faults = absent_inputs(run, ["/inputs/x"], store, cast(Any, storage))
    assert bool(faults) is missing
