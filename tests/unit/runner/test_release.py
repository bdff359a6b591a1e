"""Outputs that become the module's own data: when they are published, that nobody ever sees half of them, whose it is
when several publish to one place, and what becomes of it when something goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import BinaryIO

import pytest

from controller.domain.apps.spec import PipelineVar
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.domain.runs.file_index import FILE_INDEX
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import AreaKind, Run, RunFilter, RunOutput, RunState, retry_of
from controller.domain.runs.steps import PLATFORM_PAUSES
from controller.domain.storage.box import StoredObject
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.ports import Job
from tests.support.fake_objects import FakeObjects
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, BOX, BUCKET, Command, Harness, pipeline, stage

GROUP = "digits/"
MODEL = PipelineVar("model", publish_to=(BOX, GROUP))
FIT = stage("fit", outputs=("model",))


def training(*stages: Stage) -> Pipeline:
    """The model is internal, and goes to the box."""
    return pipeline(*(stages or (FIT, stage("judge", inputs=("model",)))), vars=(MODEL,))


def published(harness: Harness) -> dict[str, bytes]:
    """The group: names and content."""
    prefix = DEVELOPER_AREA + GROUP
    found = harness.objects.server.buckets[BUCKET]
    return {key.removeprefix(prefix): body for key, (_, body) in found.items() if key.startswith(prefix)}


def fits(harness: Harness, *files: str, content: str = "") -> None:
    """The next model has these files."""
    made = {f"model/{name}": content or name for name in files}
    harness.commands["fit"] = Command(files=made)


def put(harness: Harness, name: str, content: str = "x") -> None:
    harness.put(GROUP + name, content, area=DEVELOPER_AREA)


class Watched(FakeObjects):
    """Tells after everything that has changed something."""

    on_change: Callable[[str, str], object] = staticmethod(lambda what, key: None)

    def put(
        self, bucket: str, key: str, content: BinaryIO, size: int, content_type: str = ""
    ) -> StoredObject:
        stored = super().put(bucket, key, content, size, content_type)
        self.on_change("put", key)
        return stored

    def remove(self, bucket: str, keys: Iterable[str]) -> None:
        for key in keys:
            super().remove(bucket, [key])
            self.on_change("remove", key)


def watch(harness: Harness, on_change: Callable[[str, str], object]) -> None:
    watched = Watched(harness.objects.server)
    watched.on_change = on_change
    harness.storage.objects = lambda: watched  # type: ignore[method-assign]


# --- when and where ---------------------------------------------------------------------------------------------


def test_it_is_published_once_all_stages_have_succeeded(harness: Harness) -> None:
    seen: list[dict[str, bytes]] = []
    fits(harness, "a/weights", "labels")
    harness.commands["judge"] = Command(act=lambda job: seen.append(published(harness)))
    run = harness.finish(training())
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen == [{}]
    found = published(harness)
    manifest = json.loads(found.pop(FILE_INDEX))
    assert found == {"a/weights": b"a/weights", "labels": b"labels"}
    assert (manifest["run"], manifest["stage"], manifest["attempt"]) == (run.id, "fit", 1)
    assert {f["name"]: f["sha256"] for f in manifest["files"]} == {
        name: sha256(body).hexdigest() for name, body in found.items()
    }
    assert run.published == (RunOutput("model", GROUP, BOX, AreaKind.DEVELOPER),)
    assert harness.stored() == {}, "nothing of it is the caller's"
    request = harness.store.requests.queued(APP)
    assert request is not None
    assert request.reasons == ("box",), "components may follow it"


def test_it_needs_no_connected_box(harness: Harness) -> None:
    run = harness.finish(replace(training(), boxes=()))
    assert run.state is RunState.SUCCEEDED
    assert set(published(harness)) == {"made.txt", FILE_INDEX}


def test_a_failing_stage_leaves_the_old_one(harness: Harness) -> None:
    fits(harness, "old")
    harness.finish(training())
    before = published(harness)
    fits(harness, "new")
    harness.commands["judge"] = Command(code=1)
    assert harness.finish(training()).state is RunState.FAILED
    assert published(harness) == before


def test_a_repetition_publishes_what_it_takes_over(harness: Harness) -> None:
    fits(harness, "new")
    harness.commands["judge"] = Command(code=1)
    failed = harness.finish(training())
    del harness.commands["judge"]
    again = harness.until(harness.store.runs.submit(retry_of(failed, "f" * 19, harness.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert published(harness)["new"] == b"new"
    manifest = json.loads(published(harness)[FILE_INDEX])
    assert (manifest["run"], manifest["attempt"]) == (failed.id, 1), "who has made it"


def test_all_of_the_group_is_replaced(harness: Harness) -> None:
    """Also a file by a folder of its name and a folder by a file, and what can be no file."""
    for name in ("gone", "deep/gone", "both", "folder/x", "../evil"):
        put(harness, name)
    harness.put("neighbour", area=DEVELOPER_AREA)
    fits(harness, "both/x", "folder", "new")
    assert harness.finish(training()).state is RunState.SUCCEEDED
    assert set(published(harness)) == {"both/x", "folder", "new", FILE_INDEX}
    pin = harness.deps.models.pin(BUCKET, GROUP)
    assert {found.key.removeprefix(pin.key) for found in pin.objects} == {"both/x", "folder", "new"}


def test_a_link_is_published_as_the_file_that_it_leads_to(harness: Harness) -> None:
    put(harness, "latest", "old")

    def link(job: Job) -> None:
        harness.output(job, "model/latest").symlink_to("weights")

    harness.commands["fit"] = Command(files={"model/weights": "new"}, act=link)
    assert harness.finish(training()).state is RunState.SUCCEEDED
    assert published(harness)["latest"] == b"new"
    assert harness.deps.models.pin(BUCKET, GROUP).size == 6


# --- half of it is never taken for the whole --------------------------------------------------------------------


def test_whoever_looks_sees_the_old_one_the_new_one_or_that_it_is_being_replaced(harness: Harness) -> None:
    """After every single change to the storage. Names that are listed before the manifest's are the hard ones."""
    models: list[str] = []

    def look(what: str, key: str) -> None:
        try:
            pin = harness.deps.models.pin(BUCKET, GROUP)
        except Transient as error:
            assert error.reason == "ModelIncomplete"
            models.append("incomplete")
        else:
            models.append(",".join(sorted(f.key.removeprefix(pin.key) for f in pin.objects)))

    fits(harness, "!first", "a", "b")
    harness.finish(training())
    watch(harness, look)
    fits(harness, "!first", "b", "c", "d/e", content="two")
    assert harness.finish(training()).state is RunState.SUCCEEDED
    *during, end = models
    assert len(during) >= 6, "the mark, what goes, what comes"
    assert set(during) == {"incomplete"}
    assert end == "!first,b,c,d/e"


class Gate:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def stop_here(self) -> None:
        self.reached.set()
        assert self.open.wait(30)


def test_of_two_at_once_the_later_one_replaces_all_of_the_earlier_one(harness: Harness) -> None:
    changes: list[bytes] = []
    gate = Gate()

    def note(what: str, key: str) -> None:
        changes.append(json.loads(published(harness)[FILE_INDEX])["run"])
        gate.stop_here()

    def write(job: Job) -> None:
        for name in ("a", "b", job.run):
            harness.output(job, f"model/{name}").write_text(job.run)

    watch(harness, note)
    harness.commands["fit"] = Command(act=write)
    ids = [harness.submit(training()) for _ in range(2)]
    assert gate.reached.wait(30)
    for id in ids:
        harness.until_stage(id, "judge", RunState.SUCCEEDED)
    gate.open.set()
    for id in ids:
        assert harness.until(id).state is RunState.SUCCEEDED
    last = changes[-1]
    found = published(harness)
    assert found.keys() == {"a", "b", last, FILE_INDEX}
    assert found["a"] == found["b"] == str(last).encode()
    first = [run for run in changes if run != last]
    assert changes[: len(first)] == first, "one after the other"
    assert harness.deps.models.pin(BUCKET, GROUP).objects


# --- room -------------------------------------------------------------------------------------------------------


def box_of(harness: Harness, capacity: int, used: int = 0) -> None:
    record = harness.store.boxes.get(APP, BOX)
    assert record is not None
    harness.store.boxes.save(replace(record, capacity=capacity))
    harness.store.boxes.measured(
        BUCKET, used, 1, harness.clock.now(), [p.id for p in harness.store.boxes.pending()]
    )


def stored_bytes(harness: Harness) -> int:
    return sum(len(body) for _, body in harness.objects.server.buckets[BUCKET].values())


def test_what_is_replaced_gives_its_room(harness: Harness) -> None:
    fits(harness, "a", content="x" * 600)
    harness.finish(training())
    used = stored_bytes(harness)
    box_of(harness, capacity=used + 500, used=used)
    fits(harness, "b", content="y" * 1000)
    run = harness.finish(training())
    assert run.state is RunState.SUCCEEDED, run.message
    room = harness.store.boxes.usage(BUCKET, harness.clock.now())
    assert room.used + room.pending >= 1000, "until it is measured"
    assert room.used + room.pending <= room.capacity


def test_what_was_published_and_not_yet_measured_is_counted(harness: Harness) -> None:
    fits(harness, "a", content="x" * 600)
    harness.finish(training())
    fits(harness, "a", content="y" * 1000)
    harness.finish(training())
    room = harness.store.boxes.usage(BUCKET, harness.clock.now())
    assert (room.used, room.pending >= 1000) == (0, True)
    (pending,) = harness.store.boxes.pending(BUCKET)
    assert pending.key == DEVELOPER_AREA + GROUP + FILE_INDEX, "its arrival ends the reservation"


def test_a_box_without_room_keeps_what_it_has(harness: Harness) -> None:
    fits(harness, "a", content="x" * 600)
    harness.finish(training())
    before, used = published(harness), stored_bytes(harness)
    box_of(harness, capacity=used + 100, used=used)
    fits(harness, "a", content="y" * 2000)
    run = harness.finish(training())
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
    assert "needs 1.4 kB more than what it replaces" in run.message
    assert {found.state for found in run.stages} == {RunState.SUCCEEDED}
    assert published(harness) == before
    assert harness.store.boxes.pending(BUCKET) == ()
    box_of(harness, capacity=10_000, used=used)
    again = harness.until(harness.store.runs.submit(retry_of(run, "f" * 19, harness.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert published(harness)["a"] == b"y" * 2000


# --- faults -----------------------------------------------------------------------------------------------------


class Broken(Watched):
    """From the given change on the storage is away, for so many calls."""

    def __init__(self, harness: Harness, change: int, calls: int) -> None:
        super().__init__(harness.objects.server)
        self._left, self._calls = change, calls

    @contextmanager
    def _request(
        self, bucket: str = "", write: bool = False
    ) -> Iterator[dict[str, tuple[StoredObject, bytes]]]:
        self._left -= write
        if self._left <= 0 and self._calls > 0:
            self._calls -= 1
            raise Transient(Reason.STORAGE_UNREACHABLE, "the storage is down")
        with super()._request(bucket, write) as found:
            yield found


def break_off(harness: Harness, change: int, calls: int) -> Broken:
    broken = Broken(harness, change, calls)
    harness.storage.objects = lambda: broken  # type: ignore[method-assign]
    return broken


@pytest.mark.parametrize("change", range(1, 9))
def test_a_storage_that_goes_away_is_waited_for(harness: Harness, change: int) -> None:
    put(harness, "old")
    fits(harness, "a", "b")
    break_off(harness, change, calls=3)
    began = harness.clock.now()
    run = harness.finish(training())
    assert (run.state, run.reason, run.message) == (RunState.SUCCEEDED, "", "")
    assert harness.clock.now() > began
    assert set(published(harness)) == {"a", "b", FILE_INDEX}
    assert [job.stage for job in harness.jobs.made] == ["fit", "judge"], "no stage runs again for that"


def test_a_storage_that_stays_away_ends_the_run_and_a_repetition_mends_it(harness: Harness) -> None:
    fits(harness, "old")
    harness.finish(training())
    fits(harness, "a", "b")
    break_off(harness, 3, calls=10**6)
    began = harness.clock.now()
    run = harness.finish(training())
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")
    assert run.message == "output model: the storage is down"
    assert harness.clock.now() - began >= sum(PLATFORM_PAUSES)
    del harness.storage.objects
    with pytest.raises(Transient) as refused:
        harness.deps.models.pin(BUCKET, GROUP)
    assert refused.value.reason == "ModelIncomplete"
    again = harness.until(harness.store.runs.submit(retry_of(run, "f" * 19, harness.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert harness.deps.models.pin(BUCKET, GROUP).size == 2
    assert [job.stage for job in harness.jobs.made] == ["fit", "judge"] * 2


def test_while_it_waits_for_the_storage_the_run_says_so(harness: Harness) -> None:
    told: list[tuple[str, str]] = []
    broken = break_off(harness, 1, calls=2)
    broken.on_change = lambda what, key: told.extend(
        (r.reason, r.message) for r in harness.store.runs.active()
    )
    assert harness.finish(training()).reason == ""
    assert told[0] == ("StorageUnreachable", "could not publish yet, trying again: the storage is down")


def test_a_daemon_that_stops_in_the_middle_leaves_it_to_the_next_one(harness: Harness) -> None:
    put(harness, "old")
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here())
    id = harness.submit(training())
    assert gate.reached.wait(30)
    stopping = threading.Thread(target=harness.stop)
    stopping.start()
    wait_for(harness.stopping)
    gate.open.set()
    stopping.join()
    assert harness.run(id).state is RunState.RUNNING
    assert json.loads(published(harness)[FILE_INDEX])["complete"] is False
    harness.start()
    assert harness.until(id).state is RunState.SUCCEEDED
    assert set(published(harness)) == {"made.txt", FILE_INDEX}


def test_it_is_too_late_to_cancel(harness: Harness) -> None:
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here())
    id = harness.submit(training())
    assert gate.reached.wait(30)
    assert harness.cancel(id).state is RunState.CANCELING
    gate.open.set()
    run = harness.until(id)
    assert (run.state, run.reason) == (RunState.SUCCEEDED, "")
    assert set(published(harness)) == {"made.txt", FILE_INDEX}


def test_a_box_that_is_not_there(harness: Harness) -> None:
    nowhere = PipelineVar("model", publish_to=("nowhere", GROUP))
    run = harness.finish(replace(training(), vars=(nowhere,)))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert "there is no box 'nowhere'" in run.message


def test_a_bug_ends_the_run(harness: Harness) -> None:
    def explode(what: str, key: str) -> None:
        raise ZeroDivisionError

    watch(harness, explode)
    run = harness.finish(training())
    assert (run.state, run.reason) == (RunState.ERROR, "InternalError")


# --- who takes it -----------------------------------------------------------------------------------------------


def test_the_next_pipeline_takes_it_from_the_box(harness: Harness) -> None:
    seen: list[set[str]] = []

    def look(job: Job) -> None:
        (model,) = (harness.path(mount) for mount in job.mounts if mount.target == "/unip/model")
        seen.append({path.name for path in model.iterdir()})

    follower = pipeline(
        stage("use", inputs=("model",)),
        name="follower",
        vars=(PipelineVar("model", mount_from=(BOX, GROUP)),),
    )
    harness.store.runs.publish(APP, (follower,))
    harness.commands["use"] = Command(act=look)
    harness.finish(replace(training(), continue_with=follower.name))
    (second,) = harness.store.runs.list(APP, RunFilter(follower.name))
    assert harness.until(second.id).state is RunState.SUCCEEDED
    assert seen == [{"made.txt"}], "without the manifest"


def test_whoever_mounts_it_waits_until_it_is_whole(harness: Harness) -> None:
    put(harness, FILE_INDEX, '{"run": "r", "stage": "fit", "attempt": 1, "complete": false}')
    of = pipeline(stage("use", inputs=("model",)), vars=(PipelineVar("model", mount_from=(BOX, GROUP)),))
    id = harness.submit(of)

    def refused(run: Run) -> bool:
        return [attempt.reason for attempt in run.stage("use").attempts if attempt.ended] == ["InputChanged"]

    wait_for(lambda: harness.run(id), refused)
    harness.finish(training())
    harness.let_pass(10.0)
    assert harness.until(id).state is RunState.SUCCEEDED


def test_errors_of_models_are_told_as_those_of_inputs(harness: Harness) -> None:
    of = pipeline(stage("use", inputs=("model",)), vars=(PipelineVar("model", mount_from=(BOX, GROUP)),))
    run = harness.finish(of)
    assert (run.state, run.reason) == (RunState.FAILED, "InputMissing")
