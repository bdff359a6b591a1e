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

from controller.domain.errors import Transient
from controller.domain.groups import MANIFEST
from controller.domain.keys import DEVELOPER_AREA
from controller.domain.pipelines import Pipeline, Stage
from controller.domain.runs import Area, Run, RunOutput, RunState, retry_of
from controller.domain.spec import PipelineVar
from controller.domain.steps import PLATFORM_PAUSES
from controller.domain.storage import StoredObject
from controller.ports import Job
from tests.support.fake_objects import FakeObjects
from tests.support.waiting import wait_for
from tests.unit.runner.scene import APP, BOX, BUCKET, Command, Scene, pipeline, stage

GROUP = "digits/"
MODEL = PipelineVar("model", publish_to=(BOX, GROUP))
FIT = stage("fit", outputs=("model",))


def training(*stages: Stage) -> Pipeline:
    """The model is internal, and goes to the box."""
    return pipeline(*(stages or (FIT, stage("judge", inputs=("model",)))), vars=(MODEL,))


def published(scene: Scene) -> dict[str, bytes]:
    """The group: names and content."""
    prefix = DEVELOPER_AREA + GROUP
    found = scene.objects.server.buckets[BUCKET]
    return {key.removeprefix(prefix): body for key, (_, body) in found.items() if key.startswith(prefix)}


def fits(scene: Scene, *files: str, content: str = "") -> None:
    """The next model has these files."""
    made = {f"model/{name}": content or name for name in files}
    scene.commands["fit"] = Command(files=made)


def put(scene: Scene, name: str, content: str = "x") -> None:
    scene.put(GROUP + name, content, area=DEVELOPER_AREA)


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


def watch(scene: Scene, on_change: Callable[[str, str], object]) -> None:
    watched = Watched(scene.objects.server)
    watched.on_change = on_change
    scene.storage.objects = lambda: watched  # type: ignore[method-assign]


# --- when and where ---------------------------------------------------------------------------------------------


def test_it_is_published_once_all_stages_have_succeeded(scene: Scene) -> None:
    seen: list[dict[str, bytes]] = []
    fits(scene, "a/weights", "labels")
    scene.commands["judge"] = Command(act=lambda job: seen.append(published(scene)))
    run = scene.finish(training())
    assert run.state is RunState.SUCCEEDED, run.message
    assert seen == [{}]
    found = published(scene)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == {"a/weights": b"a/weights", "labels": b"labels"}
    assert (manifest["run"], manifest["stage"], manifest["attempt"]) == (run.id, "fit", 1)
    assert {f["name"]: f["sha256"] for f in manifest["files"]} == {
        name: sha256(body).hexdigest() for name, body in found.items()
    }
    assert run.published == (RunOutput("model", GROUP, BOX, Area.DEVELOPER),)
    assert scene.stored() == {}, "nothing of it is the caller's"
    request = scene.store.requests.queued(APP)
    assert request is not None
    assert request.reasons == ("box",), "components may follow it"


def test_it_needs_no_connected_box(scene: Scene) -> None:
    run = scene.finish(replace(training(), boxes=()))
    assert run.state is RunState.SUCCEEDED
    assert set(published(scene)) == {"made.txt", MANIFEST}


def test_a_failing_stage_leaves_the_old_one(scene: Scene) -> None:
    fits(scene, "old")
    scene.finish(training())
    before = published(scene)
    fits(scene, "new")
    scene.commands["judge"] = Command(code=1)
    assert scene.finish(training()).state is RunState.FAILED
    assert published(scene) == before


def test_a_repetition_publishes_what_it_takes_over(scene: Scene) -> None:
    fits(scene, "new")
    scene.commands["judge"] = Command(code=1)
    failed = scene.finish(training())
    del scene.commands["judge"]
    again = scene.until(scene.store.runs.submit(retry_of(failed, "f" * 19, scene.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert published(scene)["new"] == b"new"
    manifest = json.loads(published(scene)[MANIFEST])
    assert (manifest["run"], manifest["attempt"]) == (failed.id, 1), "who has made it"


def test_all_of_the_group_is_replaced(scene: Scene) -> None:
    """Also a file by a folder of its name and a folder by a file, and what can be no file."""
    for name in ("gone", "deep/gone", "both", "folder/x", "../evil"):
        put(scene, name)
    scene.put("neighbour", area=DEVELOPER_AREA)
    fits(scene, "both/x", "folder", "new")
    assert scene.finish(training()).state is RunState.SUCCEEDED
    assert set(published(scene)) == {"both/x", "folder", "new", MANIFEST}
    pin = scene.deps.models.pin(BUCKET, GROUP)
    assert {found.key.removeprefix(pin.key) for found in pin.objects} == {"both/x", "folder", "new"}


def test_a_link_is_published_as_the_file_that_it_leads_to(scene: Scene) -> None:
    put(scene, "latest", "old")

    def link(job: Job) -> None:
        scene.output(job, "model/latest").symlink_to("weights")

    scene.commands["fit"] = Command(files={"model/weights": "new"}, act=link)
    assert scene.finish(training()).state is RunState.SUCCEEDED
    assert published(scene)["latest"] == b"new"
    assert scene.deps.models.pin(BUCKET, GROUP).size == 6


# --- half of it is never taken for the whole --------------------------------------------------------------------


def test_whoever_looks_sees_the_old_one_the_new_one_or_that_it_is_being_replaced(scene: Scene) -> None:
    """After every single change to the storage. Names that are listed before the manifest's are the hard ones."""
    models: list[str] = []

    def look(what: str, key: str) -> None:
        try:
            pin = scene.deps.models.pin(BUCKET, GROUP)
        except Transient as error:
            assert error.reason == "ModelIncomplete"
            models.append("incomplete")
        else:
            models.append(",".join(sorted(f.key.removeprefix(pin.key) for f in pin.objects)))

    fits(scene, "!first", "a", "b")
    scene.finish(training())
    watch(scene, look)
    fits(scene, "!first", "b", "c", "d/e", content="two")
    assert scene.finish(training()).state is RunState.SUCCEEDED
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


def test_of_two_at_once_the_later_one_replaces_all_of_the_earlier_one(scene: Scene) -> None:
    changes: list[bytes] = []
    gate = Gate()

    def note(what: str, key: str) -> None:
        changes.append(json.loads(published(scene)[MANIFEST])["run"])
        gate.stop_here()

    def write(job: Job) -> None:
        for name in ("a", "b", job.run):
            scene.output(job, f"model/{name}").write_text(job.run)

    watch(scene, note)
    scene.commands["fit"] = Command(act=write)
    ids = [scene.submit(training()) for _ in range(2)]
    assert gate.reached.wait(30)
    for id in ids:
        scene.until_stage(id, "judge", RunState.SUCCEEDED)
    gate.open.set()
    for id in ids:
        assert scene.until(id).state is RunState.SUCCEEDED
    last = changes[-1]
    found = published(scene)
    assert found.keys() == {"a", "b", last, MANIFEST}
    assert found["a"] == found["b"] == str(last).encode()
    first = [run for run in changes if run != last]
    assert changes[: len(first)] == first, "one after the other"
    assert scene.deps.models.pin(BUCKET, GROUP).objects


# --- room -------------------------------------------------------------------------------------------------------


def box_of(scene: Scene, capacity: int, used: int = 0) -> None:
    record = scene.store.boxes.get(APP, BOX)
    assert record is not None
    scene.store.boxes.save(replace(record, capacity=capacity))
    scene.store.boxes.measured(
        BUCKET, used, 1, scene.clock.now(), [p.id for p in scene.store.boxes.pending()]
    )


def stored_bytes(scene: Scene) -> int:
    return sum(len(body) for _, body in scene.objects.server.buckets[BUCKET].values())


def test_what_is_replaced_gives_its_room(scene: Scene) -> None:
    fits(scene, "a", content="x" * 600)
    scene.finish(training())
    used = stored_bytes(scene)
    box_of(scene, capacity=used + 500, used=used)
    fits(scene, "b", content="y" * 1000)
    run = scene.finish(training())
    assert run.state is RunState.SUCCEEDED, run.message
    room = scene.store.boxes.room(BUCKET, scene.clock.now())
    assert room.used + room.pending >= 1000, "until it is measured"
    assert room.used + room.pending <= room.capacity


def test_what_was_published_and_not_yet_measured_is_counted(scene: Scene) -> None:
    fits(scene, "a", content="x" * 600)
    scene.finish(training())
    fits(scene, "a", content="y" * 1000)
    scene.finish(training())
    room = scene.store.boxes.room(BUCKET, scene.clock.now())
    assert (room.used, room.pending >= 1000) == (0, True)
    (pending,) = scene.store.boxes.pending(BUCKET)
    assert pending.key == DEVELOPER_AREA + GROUP + MANIFEST, "its arrival ends the reservation"


def test_a_box_without_room_keeps_what_it_has(scene: Scene) -> None:
    fits(scene, "a", content="x" * 600)
    scene.finish(training())
    before, used = published(scene), stored_bytes(scene)
    box_of(scene, capacity=used + 100, used=used)
    fits(scene, "a", content="y" * 2000)
    run = scene.finish(training())
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
    assert "output model: it needs" in run.message
    assert {found.state for found in run.stages} == {RunState.SUCCEEDED}
    assert published(scene) == before
    assert scene.store.boxes.pending(BUCKET) == ()
    box_of(scene, capacity=10_000, used=used)
    again = scene.until(scene.store.runs.submit(retry_of(run, "f" * 19, scene.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert published(scene)["a"] == b"y" * 2000


# --- faults -----------------------------------------------------------------------------------------------------


class Broken(Watched):
    """From the given change on the storage is away, for so many calls."""

    def __init__(self, scene: Scene, change: int, calls: int) -> None:
        super().__init__(scene.objects.server)
        self._left, self._calls = change, calls

    @contextmanager
    def _request(
        self, bucket: str = "", write: bool = False
    ) -> Iterator[dict[str, tuple[StoredObject, bytes]]]:
        self._left -= write
        if self._left <= 0 and self._calls > 0:
            self._calls -= 1
            raise Transient("StorageUnreachable", "the storage is down")
        with super()._request(bucket, write) as found:
            yield found


def break_off(scene: Scene, change: int, calls: int) -> Broken:
    broken = Broken(scene, change, calls)
    scene.storage.objects = lambda: broken  # type: ignore[method-assign]
    return broken


@pytest.mark.parametrize("change", range(1, 9))
def test_a_storage_that_goes_away_is_waited_for(scene: Scene, change: int) -> None:
    put(scene, "old")
    fits(scene, "a", "b")
    break_off(scene, change, calls=3)
    began = scene.clock.now()
    run = scene.finish(training())
    assert (run.state, run.reason, run.message) == (RunState.SUCCEEDED, "", "")
    assert scene.clock.now() > began
    assert set(published(scene)) == {"a", "b", MANIFEST}
    assert [job.stage for job in scene.jobs.made] == ["fit", "judge"], "no stage runs again for that"


def test_a_storage_that_stays_away_ends_the_run_and_a_repetition_mends_it(scene: Scene) -> None:
    fits(scene, "old")
    scene.finish(training())
    fits(scene, "a", "b")
    break_off(scene, 3, calls=10**6)
    began = scene.clock.now()
    run = scene.finish(training())
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")
    assert run.message == "output model: the storage is down"
    assert scene.clock.now() - began >= sum(PLATFORM_PAUSES)
    del scene.storage.objects
    with pytest.raises(Transient) as refused:
        scene.deps.models.pin(BUCKET, GROUP)
    assert refused.value.reason == "ModelIncomplete"
    again = scene.until(scene.store.runs.submit(retry_of(run, "f" * 19, scene.clock.now())).id)
    assert again.state is RunState.SUCCEEDED, again.message
    assert scene.deps.models.pin(BUCKET, GROUP).size == 2
    assert [job.stage for job in scene.jobs.made] == ["fit", "judge"] * 2


def test_while_it_waits_for_the_storage_the_run_says_so(scene: Scene) -> None:
    told: list[tuple[str, str]] = []
    broken = break_off(scene, 1, calls=2)
    broken.on_change = lambda what, key: told.extend((r.reason, r.message) for r in scene.store.runs.active())
    assert scene.finish(training()).reason == ""
    assert told[0] == ("StorageUnreachable", "not published yet: the storage is down")


def test_a_daemon_that_stops_in_the_middle_leaves_it_to_the_next_one(scene: Scene) -> None:
    put(scene, "old")
    gate = Gate()
    watch(scene, lambda what, key: gate.stop_here())
    id = scene.submit(training())
    assert gate.reached.wait(30)
    stopping = threading.Thread(target=scene.stop)
    stopping.start()
    wait_for(scene.stopping)
    gate.open.set()
    stopping.join()
    assert scene.run(id).state is RunState.RUNNING
    assert "made.txt" not in published(scene)
    scene.start()
    assert scene.until(id).state is RunState.SUCCEEDED
    assert set(published(scene)) == {"made.txt", MANIFEST}


def test_it_is_too_late_to_cancel(scene: Scene) -> None:
    gate = Gate()
    watch(scene, lambda what, key: gate.stop_here())
    id = scene.submit(training())
    assert gate.reached.wait(30)
    assert scene.cancel(id).state is RunState.CANCELING
    gate.open.set()
    run = scene.until(id)
    assert (run.state, run.reason) == (RunState.SUCCEEDED, "")
    assert set(published(scene)) == {"made.txt", MANIFEST}


def test_a_box_that_is_not_there(scene: Scene) -> None:
    nowhere = PipelineVar("model", publish_to=("nowhere", GROUP))
    run = scene.finish(replace(training(), vars=(nowhere,)))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert "there is no box 'nowhere'" in run.message


def test_a_bug_ends_the_run(scene: Scene) -> None:
    def explode(what: str, key: str) -> None:
        raise ZeroDivisionError

    watch(scene, explode)
    run = scene.finish(training())
    assert (run.state, run.reason) == (RunState.ERROR, "InternalError")


# --- who takes it -----------------------------------------------------------------------------------------------


def test_the_next_pipeline_takes_it_from_the_box(scene: Scene) -> None:
    seen: list[set[str]] = []

    def look(job: Job) -> None:
        (model,) = (mount.source for mount in job.mounts if mount.target == "/unip/model")
        seen.append({path.name for path in model.iterdir()})

    follower = pipeline(
        stage("use", inputs=("model",)),
        name="follower",
        vars=(PipelineVar("model", mount_from=(BOX, GROUP)),),
    )
    scene.store.runs.publish(APP, (follower,))
    scene.commands["use"] = Command(act=look)
    scene.finish(replace(training(), continue_with=follower.name))
    (second,) = scene.store.runs.list(APP, follower.name)
    assert scene.until(second.id).state is RunState.SUCCEEDED
    assert seen == [{"made.txt"}], "without the manifest"


def test_whoever_mounts_it_waits_until_it_is_whole(scene: Scene) -> None:
    put(scene, MANIFEST, '{"run": "r", "stage": "fit", "attempt": 1, "complete": false}')
    of = pipeline(stage("use", inputs=("model",)), vars=(PipelineVar("model", mount_from=(BOX, GROUP)),))
    id = scene.submit(of)

    def refused(run: Run) -> bool:
        return [attempt.reason for attempt in run.stage("use").attempts if attempt.ended] == ["InputChanged"]

    wait_for(lambda: scene.run(id), refused)
    scene.finish(training())
    scene.let_pass(10.0)
    assert scene.until(id).state is RunState.SUCCEEDED


def test_errors_of_models_are_told_as_those_of_inputs(scene: Scene) -> None:
    of = pipeline(stage("use", inputs=("model",)), vars=(PipelineVar("model", mount_from=(BOX, GROUP)),))
    run = scene.finish(of)
    assert (run.state, run.reason) == (RunState.FAILED, "InputMissing")
