"""Groups of callers: whose they are when several runs publish into them, that nobody reads half of one, what becomes of
what lay there before, and that nothing which was made is lost because it could not be published."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from controller.domain.apps.spec import PipelineVar, Retries
from controller.domain.runs.file_index import FILE_INDEX, MARK
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import Run, RunInput, RunOutput, RunState, retry_of
from controller.domain.storage.keys import DEVELOPER_AREA, user_area
from controller.ports import Job
from controller.runner.group_locks import GroupLocks
from controller.runner.signals import Canceled
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import BOX, BUCKET, Command, Harness, pipeline, stage
from tests.unit.runner.test_release import Gate, box_of, break_off, stored_bytes, watch

FIT = pipeline(stage("fit", outputs=("model",)))
READ = pipeline(stage("read", inputs=("data",)), name="read")


def to(group: str) -> tuple[RunOutput, ...]:
    return (RunOutput("model", group),)


def publish(harness: Harness, group: str, *names: str, content: str = "") -> Run:
    harness.commands["fit"] = Command(files={f"model/{name}": content or name for name in names})
    run = harness.finish(FIT, outputs=to(group))
    assert run.state is RunState.SUCCEEDED, run.message
    return run


def agrees(harness: Harness, group: str) -> bool:
    """Whether what lies there is what the manifest says."""
    found = harness.stored(group)
    return all(
        sha256(found[each["name"]]).hexdigest() == each["sha256"]
        for each in json.loads(found[FILE_INDEX])["files"]
    )


def again(harness: Harness, run: Run, number: int = 1) -> Run:
    return harness.until(harness.store.runs.submit(retry_of(run, f"{number:019x}", harness.clock.now())).id)


# --- turns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "together"),
    [
        (("g/", "g/"), False),
        (("g/", "g/x/"), False),
        (("g/x/y/", "g/"), False),
        (("g/", "gg/"), True),
        (("g/x/", "g/y/"), True),
    ],
)
def test_overlapping_groups_take_turns(harness: Harness, groups: tuple[str, str], together: bool) -> None:
    gate = Gate()
    begun: set[str] = set()

    def note(what: str, key: str) -> None:
        if key.endswith(MARK) and what == "put":
            begun.add(key)
            gate.stop_here()

    watch(harness, note)
    harness.commands["fit"] = Command(files={f"model/{n}": str(n) for n in range(20)})
    ids = [harness.submit(FIT, outputs=to(group)) for group in groups]
    assert gate.reached.wait(30)
    if together:
        wait_for(lambda: len(begun) == 2)
    else:
        waits = lambda id: harness.run(id).stage("fit").reason == "WaitingForGroup"  # noqa: E731
        wait_for(lambda: any(map(waits, ids)))
        assert len(begun) == 1
    gate.open.set()
    for id in ids:
        run = harness.until(id)
        assert (run.state, run.stage("fit").reason) == (RunState.SUCCEEDED, "")
    assert all(agrees(harness, group) for group in groups)


def test_many_runs_into_one_group_leave_the_output_of_one(harness: Harness) -> None:
    harness.commands["fit"] = Command(act=lambda job: _write_own(harness, job))
    ids = [harness.submit(FIT, outputs=to("g/")) for _ in range(6)]
    assert {harness.until(id).state for id in ids} == {RunState.SUCCEEDED}
    found = harness.stored("g/")
    last = json.loads(found.pop(FILE_INDEX))["run"]
    assert set(found) == {*map(str, range(20)), last}
    assert set(found.values()) == {last.encode()}


def _write_own(harness: Harness, job: Job) -> None:
    for name in (*map(str, range(20)), job.run):
        harness.output(job, f"model/{name}").write_text(job.run)


def test_turns_are_given_in_order_and_readers_read_together() -> None:
    turns = GroupLocks()
    order: list[str] = []

    def take(name: str, prefix: str, shared: bool, hold: threading.Event) -> threading.Thread:
        entered = threading.Event()

        def work() -> None:
            with turns.acquire("b", prefix, lambda: None, entered.set, shared):
                order.append(name)
                entered.set()
                assert hold.wait(30)

        thread = threading.Thread(target=work)
        thread.start()
        assert entered.wait(30), "it is its turn, or it has begun to wait"
        return thread

    first, rest = threading.Event(), threading.Event()
    threads = [
        take("reader", "g/", True, first),
        take("other reader", "g/x/", True, first),
        take("writer", "g/", False, rest),
        take("late reader", "g/x/", True, rest),
        take("elsewhere", "h/", False, rest),
    ]
    wait_for(lambda: sorted(order) == ["elsewhere", "other reader", "reader"])
    first.set()
    rest.set()
    for thread in threads:
        thread.join()
    assert order[-2:] == ["writer", "late reader"], "no reader passes a writer who waits"


def test_who_gives_up_waiting_leaves_the_line() -> None:
    turns = GroupLocks()

    def give_up() -> None:
        raise Canceled

    with turns.acquire("b", "g/", lambda: None), pytest.raises(Canceled), turns.acquire("b", "g/", give_up):
        raise AssertionError("two at once")
    with turns.acquire("b", "g/", give_up):
        pass


# --- readers ----------------------------------------------------------------------------------------------------


def reading(harness: Harness) -> list[dict[str, str]]:
    """What stages were given, one after the other."""
    seen: list[dict[str, str]] = []

    def look(job: Job) -> None:
        (data,) = (harness.path(mount) for mount in job.mounts if mount.target == "/unip/data")
        files = (path for path in sorted(data.rglob("*")) if path.is_file())
        seen.append({str(path.relative_to(data)): path.read_text() for path in files})

    harness.commands["read"] = Command(act=look)
    return seen


def read(harness: Harness, group: str) -> str:
    return harness.submit(READ, inputs=[RunInput("data", data=group)])


@pytest.mark.parametrize("group", ["g/x/", "g/", "g/x/deep/"])
def test_a_reader_waits_until_the_group_is_whole(harness: Harness, group: str) -> None:
    seen, gate = reading(harness), Gate()
    publish(harness, "g/x", "deep/a", "deep/b", content="old")

    def hold(what: str, key: str) -> None:
        if key.endswith("deep/a"):
            gate.stop_here()

    watch(harness, hold)
    harness.commands["fit"] = Command(files={"model/deep/a": "new", "model/deep/b": "new"})
    writer = harness.submit(FIT, outputs=to("g/x"))
    assert gate.reached.wait(30)
    reader = read(harness, group)
    wait_for(lambda: harness.run(reader).stage("read").reason == "WaitingForGroup")
    gate.open.set()
    assert harness.until(reader).state is RunState.SUCCEEDED
    assert harness.until(writer).state is RunState.SUCCEEDED
    assert [set(files.values()) for files in seen if FILE_INDEX not in str(files)] in ([{"new"}], [])
    (files,) = seen
    assert {v for name, v in files.items() if not name.endswith(FILE_INDEX)} == {"new"}


@pytest.mark.parametrize("group", ["g/x/", "g/", "g/x/deep/"])
def test_what_was_broken_off_is_not_read(harness: Harness, group: str) -> None:
    """Until it was repeated."""
    seen = reading(harness)
    publish(harness, "g/x", "deep/a", "deep/b", content="old")
    harness.commands["fit"] = Command(files={"model/deep/a": "new", "model/deep/b": "new"})
    break_off(harness, 4, calls=10**6)
    broken = harness.finish(FIT, outputs=to("g/x"))
    assert (broken.state, broken.reason) == (RunState.ERROR, "StorageUnreachable")
    del harness.storage.objects
    id = read(harness, group)
    run = wait_for(lambda: harness.let_pass(5.0).run(id), lambda run: run.state.terminal)
    assert (run.state, run.reason, seen) == (RunState.ERROR, "InputChanged", [])
    assert broken.id in run.message
    assert again(harness, broken).state is RunState.SUCCEEDED
    assert harness.until(read(harness, group)).state is RunState.SUCCEEDED
    (files,) = seen
    assert {v for name, v in files.items() if not name.endswith(FILE_INDEX)} == {"new"}


def test_groups_beside_a_broken_one_are_read(harness: Harness) -> None:
    seen = reading(harness)
    harness.put("g/mine/a", "mine")
    break_off(harness, 3, calls=10**6)
    harness.commands["fit"] = Command(files={"model/deep/a": "new", "model/deep/b": "new"})
    assert harness.finish(FIT, outputs=to("g")).state is RunState.ERROR
    del harness.storage.objects
    assert harness.until(read(harness, "g/mine/")).state is RunState.SUCCEEDED
    assert seen == [{"a": "mine"}]


# --- what lay there before --------------------------------------------------------------------------------------


def test_what_an_older_output_had_more_is_removed_when_the_new_one_is_there(harness: Harness) -> None:
    publish(harness, "g", "a", "b", "deep/c")
    harness.put("g/mine", "mine")
    harness.put("g/b", "mine, too")
    removed: list[tuple[str, bool]] = []

    def note(what: str, key: str) -> None:
        if what == "remove" and not key.endswith((MARK, FILE_INDEX)):
            removed.append((key.rpartition("file_groups/")[2], harness.stored("g/")["z"] == b"new"))

    watch(harness, note)
    publish(harness, "g", "a", "z", content="new")
    assert removed == [("g/deep/c", True)], "all of the new one was there by then"
    found = harness.stored("g/")
    assert found.keys() == {"a", "z", "mine", "b", FILE_INDEX}
    assert (found["mine"], found["b"]) == (b"mine", b"mine, too")


def test_the_same_size_is_not_the_same_file(harness: Harness) -> None:
    publish(harness, "g", "a", "b")
    harness.put("g/a", "A")
    publish(harness, "g", "c")
    assert harness.stored("g/").keys() == {"a", "c", FILE_INDEX}
    assert harness.stored("g/")["a"] == b"A"


def test_what_a_broken_publication_has_left_is_removed_by_the_next(harness: Harness) -> None:
    publish(harness, "g", "a", "old")
    harness.commands["fit"] = Command(files={f"model/{n}": "part" for n in ("a", "b", "c", "d")})
    break_off(harness, 6, calls=10**6)
    assert harness.finish(FIT, outputs=to("g")).state is RunState.ERROR
    del harness.storage.objects
    assert "b" in harness.stored("g/") or "c" in harness.stored("g/") or "a" in harness.stored("g/")
    publish(harness, "g", "last")
    assert harness.stored("g/").keys() == {"last", FILE_INDEX}


def test_a_folder_for_a_file_and_a_file_for_a_folder(harness: Harness) -> None:
    publish(harness, "g", "a", "b/x")
    harness.put("g/mine", "mine")
    publish(harness, "g", "a/y", "b")
    assert harness.stored("g/").keys() == {"a/y", "b", "mine", FILE_INDEX}


def test_of_what_goes_only_that_goes_first_which_is_in_the_way(harness: Harness) -> None:
    publish(harness, "g", "a", "b", "c/d")
    there: list[set[str]] = []
    watch(harness, lambda what, key: there.append(set(harness.stored("g/"))) if key.endswith("a/y") else None)
    publish(harness, "g", "a/y")
    assert there == [{"a/y", "b", "c/d", MARK}]
    assert harness.stored("g/").keys() == {"a/y", FILE_INDEX}


@pytest.mark.parametrize(
    ("own", "words"), [("g/a", "'g/a'"), ("g/b/c/d", "'g/b/c/d'")], ids=["file above", "file below"]
)
def test_what_is_not_ours_is_not_replaced_by_something_else(harness: Harness, own: str, words: str) -> None:
    harness.put(own, "mine")
    harness.commands["fit"] = Command(files={"model/a/x": "x", "model/b": "b"})
    run = harness.finish(FIT, outputs=to("g"))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert words in run.message
    assert harness.stored("g/") == {own[2:]: b"mine"}


def test_what_is_replaced_gives_its_room(harness: Harness) -> None:
    publish(harness, "g", "a", "b", content="x" * 600)
    used = stored_bytes(harness)
    box_of(harness, capacity=used + 100, used=used)
    publish(harness, "g", "a", content="y" * 1200)
    assert harness.stored("g/").keys() == {"a", FILE_INDEX}


# --- before the work --------------------------------------------------------------------------------------------


def _full(harness: Harness) -> None:
    box_of(harness, capacity=1000, used=1000)


def _file_above(harness: Harness) -> None:
    harness.put("g", "a file")


def _no_box(harness: Harness) -> None:
    harness.store.boxes.forget(BUCKET)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [(_full, "StorageFull"), (_file_above, "OutputInvalid"), (_no_box, "OutputInvalid")],
)
@pytest.mark.parametrize("released", [False, True], ids=["callers", "developer"])
def test_what_is_known_beforehand_is_told_before_the_work(
    harness: Harness, prepare: Callable[[Harness], None], reason: str, released: bool
) -> None:
    prepare(harness)
    harness.put("g", "a file", area=DEVELOPER_AREA) if prepare is _file_above else None
    first = stage("first", outputs=("rest",), retries=make(Retries, limit=3))
    of = pipeline(first, stage("fit", inputs=("rest",), outputs=("model",)))
    if released:
        of = replace(of, vars=(PipelineVar("model", publish_to=(BOX, "g/x/")),))
    run = harness.finish(of, outputs=() if released else to("g/x"))
    assert (run.state, run.reason) == (RunState.FAILED, reason), run.message
    assert harness.jobs.starts == [], "not even the stage before"
    assert len(run.stage("first").attempts) == 1


@pytest.mark.parametrize("over", [0, 200])
def test_a_full_box_takes_what_replaces_something_and_is_no_larger(harness: Harness, over: int) -> None:
    publish(harness, "g", "a", content="x" * 600)
    used = stored_bytes(harness)
    box_of(harness, capacity=used - over, used=used)
    publish(harness, "g", "a", content="y" * 500)
    assert harness.stored("g/")["a"] == b"y" * 500


def test_a_storage_that_is_away_for_a_moment_keeps_nobody_from_beginning(harness: Harness) -> None:
    harness.storage.down = True

    def repair(job: Job) -> None:
        harness.storage.down = False

    harness.commands["fit"] = Command(files={"model/x": "x"}, act=repair)
    assert harness.finish(FIT, outputs=to("g")).state is RunState.SUCCEEDED


# --- what has been made is kept ---------------------------------------------------------------------------------


def _no_room(harness: Harness) -> Callable[[], None]:
    box_of(harness, capacity=1000)
    return lambda: box_of(harness, capacity=10_000)


def _in_the_way(harness: Harness) -> Callable[[], None]:
    harness.put("g/x/y", "mine")
    return lambda: harness.objects.remove(BUCKET, ["users/anna/file_groups/g/x/y"])


def _away(harness: Harness) -> Callable[[], None]:
    broken = break_off(harness, 1, calls=10**6)
    broken.requests = 0
    return lambda: harness.storage.__dict__.pop("objects")


def _refusing(harness: Harness) -> Callable[[], None]:
    harness.storage.full = True
    return lambda: setattr(harness.storage, "full", False)


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (_no_room, "StorageFull"),
        (_in_the_way, "OutputInvalid"),
        (_away, "StorageUnreachable"),
        (_refusing, "StorageFull"),
    ],
)
def test_publishing_that_failed_is_repeated_without_the_work(
    harness: Harness, breaks: Callable[[Harness], Callable[[], None]], reason: str
) -> None:
    """As often as it takes."""
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000, "model/z": "z"})
    repair = breaks(harness)
    of = pipeline(stage("fit", outputs=("model",)), stage("use", inputs=("model",)))
    first = harness.finish(of, outputs=to("g"))
    assert (first.reason, first.stage("fit").attempts[0].exit_code) == (reason, 0)
    assert "`retry` publishes them" in first.message
    second = again(harness, first)
    assert (second.state, second.reason) == (first.state, reason)
    repair()
    third = again(harness, second, 2)
    assert third.state is RunState.SUCCEEDED, third.message
    assert [job.stage for job in harness.jobs.made] == ["fit", "use"]
    found = harness.stored("g/")
    assert found["x"] == b"x" * 2000
    assert json.loads(found[FILE_INDEX])["run"] == first.id
    assert (third.stage("fit").reason, third.stage("fit").reused_from) == ("Reused", first.id)


def test_who_cancels_while_it_is_published_can_repeat_that(harness: Harness) -> None:
    passed = threading.Event()

    def go_on(what: str, key: str) -> None:
        """Slowly, until the runner has seen it."""
        passed.set()
        wait_for(lambda: harness.store.runs.active()[0].state is not RunState.RUNNING)

    watch(harness, go_on)
    harness.commands["fit"] = Command(files={f"model/{number}": "x" for number in range(500)})
    id = harness.submit(FIT, outputs=to("g"))
    assert passed.wait(30)
    harness.cancel(id)
    run = harness.until(id)
    assert run.state is RunState.CANCELED, "500 files later it was too late"
    del harness.storage.objects
    assert again(harness, run).state is RunState.SUCCEEDED
    assert [job.stage for job in harness.jobs.made] == ["fit"]


def test_who_is_canceled_before_that_begins_again(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(FIT, outputs=to("g"))
    harness.container()
    harness.cancel(id)
    run = harness.until(id)
    harness.commands["fit"] = Command(files={"model/x": "x"})
    assert again(harness, run).state is RunState.SUCCEEDED
    assert [job.stage for job in harness.jobs.made] == ["fit", "fit"]


def test_an_output_that_is_missing_is_made_again(harness: Harness) -> None:
    harness.commands["fit"] = Command()
    run = harness.finish(FIT, outputs=to("g"))
    assert run.reason == "OutputMissing"
    publishing = Command(files={"model/x": "x"})
    harness.commands["fit"] = publishing
    assert again(harness, run).state is RunState.SUCCEEDED
    assert len(harness.jobs.made) == 2


def test_a_repetition_whose_origin_is_gone_says_so(harness: Harness) -> None:
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000})
    box_of(harness, capacity=1000)
    run = harness.finish(FIT, outputs=to("g"))
    harness.store.runs.forget([run])
    found = again(harness, run)
    assert (found.state, found.reason) == (RunState.FAILED, "InputMissing")
    assert "has been deleted" in found.message


def test_outputs_without_any_box_are_told_before_the_work(harness: Harness) -> None:
    """However the run was begun: by the clock, after another, or from a commit of before this was refused."""
    run = harness.finish(pipeline(stage(outputs=("model",)), boxes=()))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert "no connected box" in run.message
    assert harness.jobs.starts == []


# --- who is kept from the group meanwhile -----------------------------------------------------------------------


def guards(harness: Harness) -> list[tuple[str, str]]:
    """Prefixes and runs."""
    return [
        (found.prefix, found.run) for found in harness.store.boxes.publishing(BUCKET, harness.clock.now())
    ]


def released(harness: Harness) -> tuple[Pipeline, tuple[RunOutput, ...], str]:
    of = pipeline(stage("fit", outputs=("model",)), vars=(PipelineVar("model", publish_to=(BOX, "g/")),))
    return of, (), f"{DEVELOPER_AREA}g/"


def given_out(harness: Harness) -> tuple[Pipeline, tuple[RunOutput, ...], str]:
    return FIT, to("g"), f"{user_area('anna')}g/"


@pytest.mark.parametrize("kind", [given_out, released])
def test_a_group_is_guarded_while_it_is_published(
    harness: Harness, kind: Callable[[Harness], tuple[Pipeline, tuple[RunOutput, ...], str]]
) -> None:
    of, outputs, prefix = kind(harness)
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here())
    id = harness.submit(of, outputs=outputs)
    assert gate.reached.wait(30)
    assert guards(harness) == [(prefix, id)]
    gate.open.set()
    assert harness.until(id).state is RunState.SUCCEEDED
    assert guards(harness) == []


@pytest.mark.parametrize("kind", [given_out, released])
@pytest.mark.parametrize("change", range(1, 5))
def test_and_between_the_attempts(
    harness: Harness, kind: Callable[[Harness], tuple[Pipeline, tuple[RunOutput, ...], str]], change: int
) -> None:
    """Until it is given up."""
    of, outputs, prefix = kind(harness)
    seen: list[list[tuple[str, str]]] = []
    sleep = harness.clock.sleep

    def look(seconds: float) -> None:
        if any("StorageUnreachable" in (run.reason, *(s.reason for s in run.stages)) for run in active()):
            seen.append(guards(harness))
        sleep(seconds)

    active = harness.store.runs.active
    harness.clock.sleep = look  # type: ignore[method-assign]
    break_off(harness, change, calls=10**6)
    harness.commands["fit"] = Command(files={f"model/{n}": n for n in "abcd"})
    run = harness.finish(of, outputs=outputs)
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")
    assert len(seen) > 10, "the pauses have slices"
    assert [found for found in seen if found != [(prefix, run.id)]] == []
    assert guards(harness) == []
    assert harness.store.boxes.pending(BUCKET) == (), "nor is room kept"


def test_and_while_it_is_repeated(harness: Harness) -> None:
    """By the run that repeats: the first one is over."""
    harness.commands["fit"] = Command(files={"model/x": "x" * 2000})
    box_of(harness, capacity=1000)
    first = harness.finish(FIT, outputs=to("g"))
    assert first.reason == "StorageFull"
    box_of(harness, capacity=10_000)
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here())
    id = harness.store.runs.submit(retry_of(first, "f" * 19, harness.clock.now())).id
    assert gate.reached.wait(30)
    assert guards(harness) == [(f"{user_area('anna')}g/", id)]
    gate.open.set()
    assert harness.until(id).state is RunState.SUCCEEDED
    assert guards(harness) == []


def test_and_until_the_next_daemon_has_done_it(harness: Harness) -> None:
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here())
    harness.commands["fit"] = Command(files={f"model/{n}": str(n) for n in range(200)})
    id = harness.submit(FIT, outputs=to("g"))
    assert gate.reached.wait(30)
    stopper = threading.Thread(target=harness.stop)
    stopper.start()
    wait_for(harness.stopping)
    gate.open.set()
    stopper.join()
    assert harness.run(id).state is RunState.RUNNING
    assert guards(harness) == [(f"{user_area('anna')}g/", id)]
    del harness.storage.objects
    harness.start()
    assert harness.until(id).state is RunState.SUCCEEDED
    assert guards(harness) == []


@pytest.mark.parametrize("path", ["g/x/deep/a", "g/x/b"])
def test_a_file_of_a_group_is_read_when_the_group_is_whole(harness: Harness, path: str) -> None:
    seen: list[str] = []

    def look(job: Job) -> None:
        (data,) = (harness.path(mount) for mount in job.mounts if mount.target == "/unip/data")
        seen.append(data.read_text())

    publish(harness, "g/x", "deep/a", "b", content="old")
    gate = Gate()
    watch(harness, lambda what, key: gate.stop_here() if key.endswith(MARK) else None)
    harness.commands["read"] = Command(act=look)
    harness.commands["fit"] = Command(files={"model/deep/a": "new", "model/b": "new"})
    writer = harness.submit(FIT, outputs=to("g/x"))
    assert gate.reached.wait(30)
    reader = read(harness, path)
    wait_for(lambda: harness.run(reader).stage("read").reason == "WaitingForGroup")
    gate.open.set()
    assert harness.until(writer).state is RunState.SUCCEEDED
    assert harness.until(reader).state is RunState.SUCCEEDED
    assert seen == ["new"]


@pytest.mark.parametrize(("path", "refused"), [("g/deep/a", True), ("g/mine", False), ("g/dee", False)])
def test_of_a_broken_group_only_files_of_the_callers_are_read(
    harness: Harness, path: str, refused: bool
) -> None:
    harness.put("g/mine", "mine")
    harness.put("g/dee", "mine, too")
    harness.commands["fit"] = Command(files={"model/deep/a": "new", "model/deep/b": "new"})
    break_off(harness, 3, calls=10**6)
    assert harness.finish(FIT, outputs=to("g")).state is RunState.ERROR
    del harness.storage.objects
    id = read(harness, path)
    run = wait_for(lambda: harness.let_pass(5.0).run(id), lambda run: run.state.terminal)
    assert run.reason == ("InputChanged" if refused else "")
