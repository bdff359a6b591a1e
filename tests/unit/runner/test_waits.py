"""Whatever the engine or the storage does, at whichever call and for however long: a run comes to its end and leaves
its place to others, and people see meanwhile what is waited for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from controller.domain.apps.spec import PipelineVar, Resources, Retries
from controller.domain.errors import MountMismatch, Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunInput, RunState
from controller.domain.storage.keys import DEVELOPER_AREA
from tests.support.clock import FakeClock
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import Command, Harness, pipeline, stage

pytestmark = pytest.mark.slow

CALLS = ("create", "start", "find", "wait", "logs", "stop", "remove")
ERRORS: dict[str, Exception] = {
    "failed": Transient(Reason.ENGINE_FAILED, "answer 500: no"),
    "away": Transient(Reason.ENGINE_UNREACHABLE, "connection refused"),
    "late": Transient(Reason.ENGINE_TIMEOUT, "no answer within 60 s"),
    "refused": Stalled(Reason.ENGINE_REFUSED, "answer 400: no"),
    "bug": RuntimeError("oops"),
}
#: What the command does: it ends, it goes on beyond its timeout, it goes on until a person cancels.
PLAYS = ("ends", "slow", "canceled")
FAULTS = [f"{call}-{error}-{play}" for call, error, play in itertools.product(CALLS, ERRORS, PLAYS)]


def break_calls(harness: Harness, once: bool = False) -> None:
    """Each stage has the fault that its name says: once at that call, or from then on at each."""
    done: set[str] = set()

    def on_call(call: str, name: str) -> None:
        if name not in FAULTS or name in done:
            return
        broken, error, _ = name.split("-")
        if call == broken:
            if once:
                done.add(name)
            raise ERRORS[error]

    harness.jobs.on_call = on_call


def play_all(harness: Harness, faults: list[str]) -> dict[str, Run]:
    """A run for each, all at once; at their ends."""
    ids = {}
    for fault in faults:
        play = fault.rpartition("-")[2]
        harness.commands[fault] = Command(code=0 if play == "ends" else None, log=b"hello\n")
        timeout = {"ends": None, "slow": 30.0, "canceled": None}[play]
        ids[fault] = harness.submit(pipeline(stage(fault, timeout=timeout), name=fault))
    for fault, id in ids.items():
        if fault.endswith("canceled"):
            wait_for(lambda id=id: harness.run(id).state is not RunState.QUEUED)  # type: ignore[misc]
            harness.cancel(id)

    def look() -> dict[str, Run]:
        assert not harness.died, harness.died
        return {fault: harness.let_pass(5.0).run(id) for fault, id in ids.items()}

    return wait_for(look, lambda runs: all(run.state.terminal for run in runs.values()), limit=240.0)


class Paced(FakeClock):
    """Sleeping lasts until the test has let so much time pass: of many who sleep at once, each sleeps for itself."""

    def __init__(self) -> None:
        super().__init__()
        self._passing = threading.Condition()

    def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        with self._passing:
            while self.monotonic() < until:
                self._passing.wait(1.0)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        with self._passing:
            self._passing.notify_all()


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "state")
    made.clock = Paced()
    limits = made.with_settings(
        concurrent=1000, per_app=1000, stages=1000, stages_per_app=1000, lost_after=600.0
    )
    made.start(replace(limits, clock=made.clock))
    yield made
    made.let_pass(1e6).close()


def test_a_fault_that_stays_at_any_call_ends_the_run(roomy: Harness) -> None:
    break_calls(roomy)
    for fault, run in play_all(roomy, FAULTS).items():
        call, _, play = fault.split("-")
        assert run.message or run.state is RunState.SUCCEEDED, fault
        if play == "canceled":
            assert run.state in (RunState.CANCELED, RunState.FAILED, RunState.ERROR), fault
        if call in ("logs", "remove"):
            expected = {"ends": RunState.SUCCEEDED, "slow": RunState.FAILED, "canceled": RunState.CANCELED}
            assert run.state is expected[play], fault
        if (call, play) == ("stop", "slow"):
            assert run.reason == "Timeout", fault
            assert "could not be stopped" in run.message, fault
    assert roomy.store.runs.active() == (), "all places are free"
    roomy.jobs.on_call = lambda call, stage: None
    assert roomy.finish().state is RunState.SUCCEEDED
    wait_for(lambda: roomy.let_pass(70.0).jobs.names() == [], limit=60.0)


def test_a_fault_that_comes_once_costs_no_run(roomy: Harness) -> None:
    break_calls(roomy, once=True)
    faults = [fault for fault in FAULTS if fault.endswith("ends") and "refused" not in fault]
    for fault, run in play_all(roomy, faults).items():
        assert run.state is RunState.SUCCEEDED, (fault, run)
        assert run.stages[0].message == "", fault


def test_people_see_what_is_waited_for(harness: Harness) -> None:
    harness.stop()
    harness.start(harness.with_settings(lost_after=1e9))
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.container()
    harness.until(id, RunState.RUNNING)
    harness.jobs.down = True
    run = wait_for(lambda: harness.run(id), lambda run: run.stage("fit").reason != "")
    assert run.stage("fit").state is RunState.RUNNING
    assert run.stage("fit").reason == "EngineUnreachable"
    assert run.stage("fit").message == "trying again: the engine does not answer"
    harness.jobs.down = False
    wait_for(lambda: harness.let_pass(61.0).run(id).stage("fit").message == "")
    harness.jobs.exit(harness.container().id)
    assert harness.until(id).state is RunState.SUCCEEDED


def test_an_engine_that_stays_away_is_waited_for_as_long_as_the_operator_says(harness: Harness) -> None:
    harness.stop()
    harness.start(harness.with_settings(lost_after=100.0))
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(retries=make(Retries, limit=3))))
    harness.container()
    harness.until(id, RunState.RUNNING)
    harness.jobs.down = True
    began = harness.clock.now()
    run = harness.until(id)
    assert harness.clock.now() - began >= 100.0
    assert (run.state, run.reason) == (RunState.ERROR, "EngineUnreachable")
    assert "its container could not be stopped" in run.message
    assert len(run.stage("fit").attempts) == 1, "the first may still run"
    harness.jobs.down = False
    wait_for(lambda: harness.let_pass(70.0).jobs.names() == [])


def test_errors_long_ago_do_not_count(harness: Harness) -> None:
    """Of a stage that runs for days: what counts is one outage, not the first and the last."""
    gate = threading.Semaphore(0)
    failed: list[int] = []  # by the number of calls that had gone well until then
    went_well = 0

    def on_call(call: str, stage: str) -> None:
        nonlocal went_well
        if call != "wait":
            return
        if gate.acquire(blocking=False):
            failed.append(went_well)
            raise Transient(Reason.ENGINE_FAILED, "no")
        went_well += 1

    def recovered(times: int) -> bool:
        harness.let_pass(61.0)
        return len(failed) == times and went_well > failed[-1]

    harness.jobs.on_call = on_call
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.container()
    for number in range(1, 13):
        gate.release()
        wait_for(partial(recovered, number))
    harness.jobs.exit(harness.container().id)
    assert harness.until(id).state is RunState.SUCCEEDED


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        (
            "table",
            "/data is a folder in the image",
            "/data is a folder in the image, but 'table' is a file: give it another `mountTo`",
        ),
        (
            "report",
            "/work/report is a file in the image",
            "/work/report is a file in the image, but 'report' is a folder: give it another `mountTo`",
        ),
    ],
)
def test_a_variable_that_fits_no_mount_point(harness: Harness, name: str, found: str, message: str) -> None:
    """The code cannot be at fault: it never ran. Nobody tries again."""
    target = found.partition(" ")[0]
    harness.put("g/in.csv")
    harness.jobs.start_failures["fit"] = MountMismatch(target, found)
    fit = stage(inputs=("table",), outputs=("report",), retries=make(Retries, limit=5))
    run = harness.finish(
        pipeline(fit, vars=(PipelineVar(name, mount_to=target),)), inputs=[RunInput("table", data="g/in.csv")]
    )
    reason = "InputInvalid" if name == "table" else "OutputInvalid"
    assert (run.state, run.reason, run.message) == (RunState.FAILED, reason, f"stage fit: {message}")
    assert len(run.stage("fit").attempts) == 1


# --- inputs -----------------------------------------------------------------------------------------------------


def endless(harness: Harness) -> threading.Event:
    """A storage that never comes to the end of an object; set once it has begun to send."""
    sent = threading.Event()

    def pieces(content: bytes) -> Iterator[bytes]:
        while True:
            yield content
            sent.set()

    harness.objects._pieces = pieces  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize("end", ["time", "person"])
@pytest.mark.parametrize("source", ["caller", "developer"])
def test_inputs_that_never_come_to_an_end(harness: Harness, source: str, end: str) -> None:
    """Two stages ask for the same one: the second waits for the first."""
    harness.put("g/in.csv", b"x")
    harness.put("g/in.csv", b"x", area=DEVELOPER_AREA)
    sent = endless(harness)
    fits = [stage(name, inputs=("data",), timeout=60.0) for name in ("left", "right")]
    held = (PipelineVar("data", mount_from=("userdata", "g/in.csv")),) if source == "developer" else ()
    given = [RunInput("data", data="g/in.csv")] if source == "caller" else []
    id = harness.submit(pipeline(*fits, vars=held), inputs=given)
    assert sent.wait(30)
    if end == "person":
        harness.cancel(id)
        assert harness.until(id).state is RunState.CANCELED
    else:
        run = wait_for(lambda: harness.let_pass(60.0).run(id), lambda run: run.state.terminal)
        assert (run.state, run.reason) == (RunState.FAILED, "Timeout")
        assert "its inputs did not arrive within 1h" in run.message
    assert harness.jobs.made == []


# --- an engine without networks -----------------------------------------------------------------------------------


def test_a_stage_waits_until_the_engine_has_a_network_for_its_app(harness: Harness) -> None:
    harness.jobs.networks = 0
    id = harness.submit(pipeline(stage("fit", outputs=("model",)), stage("tell", inputs=("model",))))
    waiting = wait_for(lambda: harness.run(id).stage("fit"), lambda fit: fit.reason == "AddressesExhausted")
    assert (waiting.state, waiting.attempts) == (RunState.QUEUED, ())
    assert "no subnet" in waiting.message
    for _ in range(20):
        looked = harness.run(id).stage("fit").not_before
        wait_for(lambda looked=looked: harness.let_pass(5.0).run(id).stage("fit").not_before > looked)  # type: ignore[misc]
    assert harness.run(id).state is RunState.STARTING
    assert len(harness.run(id).stage("fit").history) == 1, "no attempt is counted, however long it takes"
    harness.jobs.networks = 1
    run = wait_for(lambda: harness.let_pass(5.0).run(id), lambda run: run.state.terminal)
    assert run.state is RunState.SUCCEEDED
    assert [len(found.attempts) for found in run.stages] == [1, 1]
    assert run.stage("fit").reason == ""


def test_one_that_waits_for_a_network_can_be_canceled(harness: Harness) -> None:
    harness.jobs.networks = 0
    id = harness.submit(pipeline(stage("fit")))
    wait_for(lambda: harness.run(id).stage("fit").reason == "AddressesExhausted")
    harness.cancel(id)
    assert harness.until(id).state is RunState.CANCELED
    assert harness.jobs.made == []


def test_an_engine_that_is_away_is_found_out_by_the_attempt(harness: Harness) -> None:
    harness.jobs.down = True
    id = harness.submit(pipeline(stage("fit")))
    harness.until_stage(id, "fit", RunState.STARTING)
    harness.jobs.down = False
    assert harness.until(id).state is RunState.SUCCEEDED


STORAGE_ERRORS = {
    "away": Transient(Reason.STORAGE_UNREACHABLE, "no answer"),
    "denied": Stalled(Reason.STORAGE_DENIED, "no"),
    "bug": RuntimeError("oops"),
}


@pytest.mark.parametrize("error", STORAGE_ERRORS)
@pytest.mark.parametrize("call", ["stat", "page", "open", "put", "remove"])
def test_a_fault_of_the_storage_that_stays(harness: Harness, call: str, error: str) -> None:
    def broken(*arguments: object, **rest: object) -> None:
        raise STORAGE_ERRORS[error]

    harness.put("g/in.csv")
    setattr(harness.objects, call, broken)
    fit = stage(inputs=("file", "group"), outputs=("model",))
    given = [RunInput("file", data="g/in.csv"), RunInput("group", data="g/")]
    id = harness.submit(pipeline(fit), inputs=given)
    run = wait_for(lambda: harness.let_pass(5.0).run(id), lambda run: run.state.terminal)
    assert run.state is RunState.ERROR
    assert run.message
    assert harness.store.runs.active() == ()


# --- ourselves --------------------------------------------------------------------------------------------------


def test_a_bug_in_what_comes_next_ends_the_run(harness: Harness) -> None:
    """And no other: it would be driven into the same bug for ever."""
    harness.stop()
    harness.start(harness.with_settings(gpus=None))  # what nobody's config gives
    broken = harness.submit(pipeline(stage("fit", resources=make(Resources, gpus=1))))
    sound = harness.submit(pipeline(stage("fit")))
    assert harness.until(sound).state is RunState.SUCCEEDED
    run = wait_for(lambda: harness.let_pass(6.0).run(broken), lambda run: run.state.terminal)
    assert (run.state, run.reason) == (RunState.ERROR, "InternalError")
