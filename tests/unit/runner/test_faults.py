"""What goes wrong, whose fault it is, and what follows: one test for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.clock import SystemClock
from controller.domain.apps.spec import PipelineVar, Retries
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunInput, RunState
from controller.domain.runs.steps import PLATFORM_PAUSES
from controller.ports import Job, JobState, ObservedJob
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.runner.harness import BUCKET, IMAGE, Command, Harness, pipeline, stage
from tests.unit.runner.scenarios import Outage

pytestmark = pytest.mark.slow

DATA = (RunInput("data", data="g/in.csv"),)


def ends(run: Run, name: str = "fit") -> list[tuple[str, bool]]:
    """Of each attempt: its reason, and whether it was the platform's fault."""
    return [(attempt.reason, attempt.platform) for attempt in run.stage(name).attempts]


def repeat(harness: Harness, id: str) -> Run:
    """Until the end, with the time passing that lies between repetitions."""

    def look() -> Run:
        run = harness.run(id)
        if any(s.state is RunState.QUEUED and s.not_before > harness.clock.now() for s in run.stages):
            harness.clock.advance(1.0)
        assert not harness.died
        return run

    return wait_for(look, lambda run: run.state.terminal)


# --- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exit code 1;"),
        (137, "exit code 137 (killed by SIGKILL)"),
        (139, "exit code 139 (killed by SIGSEGV)"),
        (127, "exit code 127 (command not found)"),
        (255, "exit code 255;"),
    ],
)
def test_a_command_that_fails(harness: Harness, code: int, words: str) -> None:
    harness.commands["fit"] = Command(code=code)
    run = harness.finish()
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert words in run.message
    attempt = run.stage("fit").attempt
    assert attempt is not None
    assert attempt.exit_code == code
    wait_for(lambda: not harness.jobs.names())


def test_out_of_memory(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.jobs.exit(harness.container().id, 137, oom_killed=True)
    run = harness.until(id)
    assert (run.state, run.reason) == (RunState.FAILED, "OOMKilled")
    assert "more than 1Gi; raise `resources.memory`" in run.message


def test_an_engine_that_takes_its_containers_with_it(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.jobs.exit(harness.container().id, 137, interrupted=True)
    harness.commands["fit"] = Command()
    run = repeat(harness, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("EngineRestarted", True), ("", False)]
    assert run.stage("fit").attempts[0].exit_code == 137


def test_it_is_repeated_as_often_as_the_manifest_says(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=1)
    fit = stage(retries=Retries(limit=2, backoff=10.0, factor=3.0, cap=20.0))
    id = harness.submit(pipeline(fit))
    began = harness.clock.now()
    run = repeat(harness, id)
    assert run.state is RunState.FAILED
    assert ends(run) == [("ExitCode", False)] * 3
    assert 30.0 <= harness.clock.now() - began < 33.0, "10 s, then 20 s, which is the cap"
    assert [job.attempt for job in harness.jobs.made] == [1, 2, 3]


def test_a_repetition_begins_with_empty_outputs(harness: Harness) -> None:
    seen: list[list[str]] = []

    def look(job: Job) -> None:
        (folder,) = harness.outputs_of(job)
        seen.append(os.listdir(folder))
        (folder / "x").write_text("x")
        if job.attempt == 2:
            harness.commands["fit"] = Command()

    harness.commands["fit"] = Command(code=1, act=look)
    run = harness.finish(pipeline(stage(outputs=("model",), retries=make(Retries, limit=1, backoff=0.0))))
    assert run.state is RunState.FAILED
    assert seen == [[], []]


def test_too_slow(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(timeout=60.0)))
    job = harness.container()
    run = wait_for(lambda: harness.let_pass().run(id), lambda run: run.state.terminal)
    assert (run.state, run.reason) == (RunState.FAILED, "Timeout")
    attempt = run.stage("fit").attempt
    assert attempt is not None
    assert attempt.ended - attempt.started >= 60.0
    assert "stopped after 1m; raise `timeout`" in run.message
    assert harness.jobs.stops == [job.name]


def test_a_clock_that_jumps_ends_nothing(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(timeout=60.0)))
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    harness.clock.jump(86400.0)
    harness.clock.advance(1.0)
    harness.clock.jump(-2 * 86400.0)
    harness.clock.advance(1.0)
    harness.jobs.exit(job.id)
    assert harness.until(id).state is RunState.SUCCEEDED


def test_after_a_restart_the_time_before_it_counts(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(timeout=60.0)))
    harness.container()
    harness.until(id, RunState.RUNNING)
    harness.stop()
    harness.clock.advance(61.0)
    harness.start()
    assert harness.until(id).reason == "Timeout"


def test_a_daemon_dies_while_it_stops_what_is_too_slow(harness: Harness) -> None:
    """The next one gives it no more time, even if the clock was set back meanwhile."""

    def refuse(id: str, grace: float) -> None:
        raise Transient(Reason.ENGINE_UNREACHABLE, "the engine does not answer")

    harness.commands["fit"] = Command(code=None)
    id = harness.submit(pipeline(stage(timeout=60.0)))
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    stop = harness.jobs.stop
    harness.jobs.stop = refuse  # type: ignore[method-assign]
    wait_for(lambda: harness.let_pass(61.0).run(id).stage("fit").attempts[0].reason == "Timeout")
    harness.stop()
    harness.jobs.stop = stop  # type: ignore[method-assign]
    assert harness.jobs.stops == []
    harness.clock.jump(-86400.0)
    harness.start()
    assert harness.until(id).reason == "Timeout"
    assert harness.jobs.stops == [job.name]


def test_a_repetition_is_not_kept_waiting_by_a_clock_set_back(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=1)
    id = harness.submit(pipeline(stage(retries=make(Retries, limit=1, backoff=10.0))))
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    harness.clock.jump(-86400.0)
    assert ends(harness.until(id)) == [("ExitCode", False)] * 2


# --- the container and its image --------------------------------------------------------------------------------


def test_a_container_removed_by_hand(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    harness.jobs.vanish(harness.container().id)
    wait_for(
        lambda: len(harness.run(id).stage("fit").attempts) == 1 and harness.run(id).stage("fit").not_before
    )
    harness.commands["fit"] = Command()
    run = repeat(harness, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("ContainerLost", True), ("", False)]


def test_removed_again_and_again(harness: Harness) -> None:
    def vanish(job: Job) -> None:
        harness.jobs.vanish(next(seen.id for seen in harness.jobs.all() if seen.name == job.name))

    harness.commands["fit"] = Command(code=None, act=vanish)
    run = repeat(harness, harness.submit())
    assert (run.state, run.reason) == (RunState.ERROR, "ContainerLost")
    assert ends(run) == [("ContainerLost", True)] * (1 + len(PLATFORM_PAUSES))


def test_removed_while_nobody_looked(harness: Harness) -> None:
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    job = harness.container()
    harness.until(id, RunState.RUNNING)
    harness.stop()
    harness.jobs.vanish(job.id)
    harness.commands["fit"] = Command()
    harness.start()
    assert ends(repeat(harness, id)) == [("ContainerLost", True), ("", False)]


def test_removed_after_its_end_was_written_down(harness: Harness) -> None:
    """What it has made counts; nobody asks the engine again."""
    harness.stop()
    harness.commands["fit"] = Command(
        files={"model/x": "x"}, act=lambda job: _set(harness.storage, down=True)
    )
    harness.start(replace(harness.deps, clock=SystemClock()))  # the pauses of one that is played are short
    id = harness.submit(pipeline(stage(outputs=("model",))))
    wait_for(lambda: harness.run(id).stage("fit").reason == "StorageUnreachable")
    harness.stop()
    harness.jobs.vanish(harness.jobs.all()[0].id)
    harness.storage.down = False
    harness.start()
    assert ends(harness.until(id)) == [("", False)]


def test_an_image_that_is_gone_is_brought_again(harness: Harness) -> None:
    harness.jobs.images.clear()
    assert harness.finish().state is RunState.SUCCEEDED
    assert harness.pulls == [IMAGE]


@pytest.mark.parametrize(
    ("error", "state", "attempts"),
    [
        (Stalled(Reason.IMAGE_NOT_FOUND, "no such image"), RunState.FAILED, 1),
        (Stalled(Reason.REGISTRY_DENIED, "who are you"), RunState.FAILED, 1),
        (Transient(Reason.REGISTRY_UNREACHABLE, "no answer"), RunState.ERROR, 4),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_an_image_that_cannot_be_brought(
    harness: Harness, error: ControllerError, state: RunState, attempts: int
) -> None:
    def refuse(app: AppName, reference: str) -> None:
        raise error

    object.__setattr__(harness.deps, "pull", refuse)
    harness.jobs.images.clear()
    run = repeat(harness, harness.submit(pipeline(stage(retries=make(Retries, limit=5)))))
    assert (run.state, run.reason) == (state, "ImagePull")
    assert len(run.stage("fit").attempts) == attempts
    assert error.message in run.message


def test_a_command_that_is_not_in_the_image(harness: Harness) -> None:
    harness.jobs.unknown_commands.add("fit.py")
    run = harness.finish(pipeline(stage(command=("fit.py",), retries=make(Retries, limit=5))))
    assert (run.state, run.reason) == (RunState.FAILED, "CommandNotFound")
    assert len(run.stage("fit").attempts) == 1
    wait_for(lambda: not harness.jobs.names())


def test_a_container_that_cannot_be_started_for_now(harness: Harness) -> None:
    harness.jobs.start_failures["fit"] = Transient(Reason.MOUNT_GONE, "the folder is gone")
    id = harness.submit()
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    wait_for(lambda: not harness.jobs.names())
    harness.jobs.start_failures.clear()
    run = repeat(harness, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("MountGone", True), ("", False)]


def test_a_name_that_somebody_else_has(harness: Harness) -> None:
    harness.stop()
    id = harness.submit()
    harness.jobs.take_name(f"prichal.demo.{id}.fit.1")
    harness.start()
    run = harness.until(id)
    assert (run.state, run.reason) == (RunState.ERROR, "NameTaken")


@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_an_engine_that_is_away_is_waited_for(harness: Harness, when: str) -> None:
    harness.commands["fit"] = Command(code=None)
    harness.jobs.down = when == "before"
    id = harness.submit()
    if when == "before":
        harness.until_stage(id, "fit", RunState.STARTING)
    else:
        harness.container()
        harness.until(id, RunState.RUNNING)
        harness.jobs.down = True
        harness.restart()
        began = harness.clock.now()
        wait_for(lambda: harness.clock.now() - began > 100.0)
    harness.jobs.down = False
    harness.jobs.exit(harness.container().id)
    run = harness.until(id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("", False)], "it says nothing about the attempt"


# --- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        ("g/none.csv", "InputMissing", "there is no file 'g/none.csv' in box userdata"),
        ("nothing/", "InputMissing", "there are no files in the group 'nothing/'"),
        ("bad/", "InputInvalid", "'../evil' cannot be the name of a file"),
        ("both/", "InputInvalid", "names that are not allowed for files"),
    ],
)
def test_inputs_that_are_not_there(harness: Harness, data: str, reason: str, words: str) -> None:
    harness.put("bad/../evil")
    harness.put("both/a")
    harness.put("both/a/b")
    given = [RunInput("data", data=data)]
    run = harness.finish(pipeline(stage(inputs=("data",), retries=make(Retries, limit=5))), inputs=given)
    assert (run.state, run.reason) == (RunState.FAILED, reason)
    assert words in run.message
    assert len(run.stage("fit").attempts) == 1
    assert harness.jobs.made == []


def test_nothing_passed_and_boxes_that_are_not_there(harness: Harness) -> None:
    of = pipeline(stage(inputs=("data",)))
    run = harness.finish(of)
    assert (run.reason, run.message) == (
        "InputMissing",
        "stage fit: no value was passed for the input 'data'",
    )
    run = harness.finish(of, inputs=[RunInput("data", data="g/x", box="other")])
    assert (run.reason, run.message) == ("InputMissing", "stage fit: there is no box 'other'")
    weights = PipelineVar("data", mount_from=("userdata", "w/"))
    run = harness.finish(pipeline(stage(inputs=("data",)), vars=(weights,)))
    assert run.reason == "InputMissing"


def test_a_secret_that_is_not_there(harness: Harness) -> None:
    run = harness.finish(pipeline(stage(env_from=("keys",))))
    assert (run.state, run.reason) == (RunState.FAILED, "SecretMissing")


def test_storage_down_at_stage_in(harness: Harness) -> None:
    harness.put("g/in.csv")
    harness.storage.down = True
    id = harness.submit(pipeline(stage(inputs=("data",))), inputs=DATA)
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    harness.storage.down = False
    run = repeat(harness, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("StorageUnreachable", True), ("", False)]


def test_storage_that_stays_down(harness: Harness) -> None:
    harness.storage.down = True
    run = repeat(harness, harness.submit(pipeline(stage(inputs=("data",))), inputs=DATA))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")


# --- outputs ----------------------------------------------------------------------------------------------------


def test_an_output_that_is_missing_counts_as_a_failure(harness: Harness) -> None:
    harness.commands["fit"] = Command()
    fit = stage(outputs=("model",), retries=make(Retries, limit=1, backoff=0.0))
    run = harness.finish(pipeline(fit))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputMissing")
    assert ends(run) == [("OutputMissing", False)] * 2
    assert all(attempt.exit_code == 0 for attempt in run.stage("fit").attempts)


def test_a_file_where_a_folder_was_due(harness: Harness) -> None:
    def replace_folder(job: Job) -> None:
        (folder,) = harness.outputs_of(job)
        folder.rmdir()
        folder.write_text("a file")

    harness.commands["fit"] = Command(act=replace_folder)
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert (run.reason, run.message) == ("OutputMissing", "stage fit: the output 'model' is not a folder")


def _link_out(folder: Path) -> None:
    (folder / "x").symlink_to("/etc/passwd")


def _link_around(folder: Path) -> None:
    (folder / "x").symlink_to(folder.parent.parent / "progress" / "progress")


def _link_to_itself(folder: Path) -> None:
    (folder / "x").symlink_to("x")


def _link_to_folder(folder: Path) -> None:
    (folder / "x").symlink_to(".")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "x")


def _socket(folder: Path) -> None:
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(folder)
        try:
            made.bind("x")
        finally:
            os.chdir(here)


def _control_character(folder: Path) -> None:
    (folder / "a\nb").write_text("x")


def _no_text(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff")).write_text("x")


HOSTILE = (
    _link_out,
    _link_around,
    _link_to_itself,
    _link_to_folder,
    _pipe,
    _socket,
    _control_character,
    _no_text,
)


@pytest.mark.parametrize("evil", HOSTILE, ids=lambda evil: evil.__name__)
def test_outputs_that_are_no_files_are_refused(harness: Harness, evil: Callable[[Path], None]) -> None:
    harness.commands["fit"] = Command(
        files={"model/good": "good"}, act=lambda job: evil(harness.outputs_of(job)[0])
    )
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert harness.stored() == {}, "nothing was published"
    assert harness.store.boxes.pending(BUCKET) == ()


def test_a_link_to_a_file_of_the_same_output_is_that_file(harness: Harness) -> None:
    def link(job: Job) -> None:
        (harness.outputs_of(job)[0] / "latest").symlink_to("checkpoints/10")

    harness.commands["fit"] = Command(files={"model/checkpoints/10": "weights"}, act=link)
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert harness.stored(f"runs/{run.id}/model/")["latest"] == b"weights"


def test_links_within_internal_variables_are_left_to_the_containers(harness: Harness) -> None:
    harness.commands["fit"] = Command(act=lambda job: _link_out(harness.outputs_of(job)[0]))
    run = harness.finish(pipeline(stage(outputs=("model",)), stage("report", inputs=("model",))))
    assert run.state is RunState.SUCCEEDED


@pytest.mark.parametrize("content", ["1/0x10", "x" * 1000, "\0", ""])
def test_progress_that_is_none(harness: Harness, content: str) -> None:
    def write(job: Job) -> None:
        folder = next(harness.path(m) for m in job.mounts if m.target == "/opt/prichal/progress")
        (folder / "progress").write_text(content)

    harness.commands["fit"] = Command(act=write)
    assert harness.finish().stage("fit").progress == ""


def test_progress_that_leads_elsewhere_is_not_read(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("7/7")

    def link(job: Job) -> None:
        folder = next(harness.path(m) for m in job.mounts if m.target == "/opt/prichal/progress")
        (folder / "progress").symlink_to(tmp_path / "secret")

    harness.commands["fit"] = Command(act=link)
    assert harness.finish().stage("fit").progress == ""


def test_storage_down_at_stage_out(harness: Harness) -> None:
    """Nobody runs the command again for that: what it has made is there."""
    outage = Outage(refusals=3)
    harness.commands["fit"] = Command(
        files={"model/x": "x"}, act=lambda job: _set(harness.storage, down=outage)
    )
    began = harness.clock.now()
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.stage("fit").reason) == (RunState.SUCCEEDED, "")
    assert harness.clock.now() - began >= sum(PLATFORM_PAUSES)
    assert len(harness.jobs.starts) == 1
    assert harness.stored(f"runs/{run.id}/model/")["x"] == b"x"


def test_storage_that_stays_down_at_stage_out(harness: Harness) -> None:
    harness.commands["fit"] = Command(
        files={"model/x": "x"}, act=lambda job: _set(harness.storage, down=True)
    )
    began = harness.clock.now()
    run = harness.finish(pipeline(stage(outputs=("model",), retries=make(Retries, limit=3))))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")
    assert harness.clock.now() - began >= sum(PLATFORM_PAUSES)
    assert len(harness.jobs.starts) == 1
    assert harness.store.boxes.pending(BUCKET) == ()


def test_a_storage_whose_disk_is_full(harness: Harness) -> None:
    harness.commands["fit"] = Command(
        files={"model/x": "x"}, act=lambda job: _set(harness.storage, full=True)
    )
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageFull")


def test_a_box_that_is_full(harness: Harness) -> None:
    box = harness.store.boxes.all()[0]
    harness.store.boxes.save(type(box)(**{**vars(box), "capacity": 1000}))
    harness.commands["fit"] = Command(files={"model/x": b"x" * 1001})
    run = harness.finish(pipeline(stage(outputs=("model",), retries=make(Retries, limit=3))))
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
    assert "1 kB of 1 kB are free" in run.message
    assert len(run.stage("fit").attempts) == 1, "another attempt would make no room"
    assert harness.stored() == {}


def test_an_output_that_has_no_place_to_go_to(harness: Harness) -> None:
    of = pipeline(stage(outputs=("model",)), boxes=("gone",))
    assert harness.finish(of).reason == "OutputInvalid"


def _set(target: Any, **values: object) -> None:
    for name, value in values.items():
        setattr(target, name, value)


# --- ourselves --------------------------------------------------------------------------------------------------


def test_a_bug_is_a_fault_of_the_platform(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.jobs.create_failures["fit"] = RuntimeError("oops")  # type: ignore[assignment]
    run = repeat(harness, harness.submit())
    assert (run.state, run.reason) == (RunState.ERROR, "InternalError")
    assert len(run.stage("fit").attempts) == 4
    assert "oops" in caplog.text


def test_a_bug_while_a_stage_runs_lets_no_two_run_at_once(harness: Harness) -> None:
    wait, failures = harness.jobs.wait, iter([RuntimeError("oops")])

    def fail_once(id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        for error in failures:
            raise error
        return wait(id, stop)

    harness.jobs.wait = fail_once  # type: ignore[method-assign]
    harness.commands["fit"] = Command(code=None)
    id = harness.submit()
    wait_for(lambda: harness.run(id).stage("fit").not_before)
    assert [job.state for job in harness.jobs.all() if job.attempt == 1] in ([], [JobState.ENDED])
    assert len(harness.jobs.stops) == 1
    harness.commands["fit"] = Command()
    assert ends(repeat(harness, id)) == [("InternalError", True), ("", False)]
