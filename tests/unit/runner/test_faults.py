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
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName
from controller.domain.runs import Run, RunInput, RunState
from controller.domain.spec import PipelineVar, Retries
from controller.domain.steps import PLATFORM_PAUSES
from controller.ports import Job, JobState, ObservedJob
from tests.support.waiting import wait_for
from tests.unit.runner.plays import Outage
from tests.unit.runner.scene import BUCKET, IMAGE, Command, Scene, pipeline, stage

pytestmark = pytest.mark.slow

DATA = (RunInput("data", data="g/in.csv"),)


def ends(run: Run, name: str = "fit") -> list[tuple[str, bool]]:
    """Of each attempt: its reason, and whether it was the platform's fault."""
    return [(attempt.reason, attempt.platform) for attempt in run.stage(name).attempts]


def repeat(scene: Scene, id: str) -> Run:
    """Until the end, with the time passing that lies between repetitions."""

    def look() -> Run:
        run = scene.run(id)
        if any(s.state is RunState.QUEUED and s.not_before > scene.clock.now() for s in run.stages):
            scene.clock.advance(1.0)
        assert not scene.died
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
def test_a_command_that_fails(scene: Scene, code: int, words: str) -> None:
    scene.commands["fit"] = Command(code=code)
    run = scene.finish()
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert words in run.message
    attempt = run.stage("fit").attempt
    assert attempt is not None
    assert attempt.exit_code == code
    wait_for(lambda: not scene.jobs.names())


def test_out_of_memory(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.jobs.exit(scene.container().id, 137, oom_killed=True)
    run = scene.until(id)
    assert (run.state, run.reason) == (RunState.FAILED, "OOMKilled")
    assert "more than 1Gi; raise `resources.memory`" in run.message


def test_an_engine_that_takes_its_containers_with_it(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.jobs.exit(scene.container().id, 137, interrupted=True)
    scene.commands["fit"] = Command()
    run = repeat(scene, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("EngineRestarted", True), ("", False)]
    assert run.stage("fit").attempts[0].exit_code == 137


def test_it_is_repeated_as_often_as_the_manifest_says(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=1)
    fit = stage(retries=Retries(limit=2, backoff=10.0, factor=3.0, cap=20.0))
    id = scene.submit(pipeline(fit))
    began = scene.clock.now()
    run = repeat(scene, id)
    assert run.state is RunState.FAILED
    assert ends(run) == [("ExitCode", False)] * 3
    assert 30.0 <= scene.clock.now() - began < 33.0, "10 s, then 20 s, which is the cap"
    assert [job.attempt for job in scene.jobs.made] == [1, 2, 3]


def test_a_repetition_begins_with_empty_outputs(scene: Scene) -> None:
    seen: list[list[str]] = []

    def look(job: Job) -> None:
        (folder,) = scene.outputs_of(job)
        seen.append(os.listdir(folder))
        (folder / "x").write_text("x")
        if job.attempt == 2:
            scene.commands["fit"] = Command()

    scene.commands["fit"] = Command(code=1, act=look)
    run = scene.finish(pipeline(stage(outputs=("model",), retries=Retries(limit=1, backoff=0.0))))
    assert run.state is RunState.FAILED
    assert seen == [[], []]


def test_too_slow(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit(pipeline(stage(timeout=60.0)))
    job = scene.container()
    run = wait_for(lambda: scene.let_pass().run(id), lambda run: run.state.terminal)
    assert (run.state, run.reason) == (RunState.FAILED, "Timeout")
    attempt = run.stage("fit").attempt
    assert attempt is not None
    assert attempt.ended - attempt.started >= 60.0
    assert "stopped after 1m; raise `timeout`" in run.message
    assert scene.jobs.stops == [job.name]


def test_a_clock_that_jumps_ends_nothing(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit(pipeline(stage(timeout=60.0)))
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    scene.clock.jump(86400.0)
    scene.clock.advance(1.0)
    scene.clock.jump(-2 * 86400.0)
    scene.clock.advance(1.0)
    scene.jobs.exit(job.id)
    assert scene.until(id).state is RunState.SUCCEEDED


def test_after_a_restart_the_time_before_it_counts(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit(pipeline(stage(timeout=60.0)))
    scene.container()
    scene.until(id, RunState.RUNNING)
    scene.stop()
    scene.clock.advance(61.0)
    scene.start()
    assert scene.until(id).reason == "Timeout"


def test_a_daemon_dies_while_it_stops_what_is_too_slow(scene: Scene) -> None:
    """The next one gives it no more time, even if the clock was set back meanwhile."""

    def refuse(id: str, grace: float) -> None:
        raise Transient("EngineUnreachable", "the engine does not answer")

    scene.commands["fit"] = Command(code=None)
    id = scene.submit(pipeline(stage(timeout=60.0)))
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    stop = scene.jobs.stop
    scene.jobs.stop = refuse  # type: ignore[method-assign]
    wait_for(lambda: scene.let_pass(61.0).run(id).stage("fit").attempts[0].reason == "Timeout")
    scene.stop()
    scene.jobs.stop = stop  # type: ignore[method-assign]
    assert scene.jobs.stops == []
    scene.clock.jump(-86400.0)
    scene.start()
    assert scene.until(id).reason == "Timeout"
    assert scene.jobs.stops == [job.name]


def test_a_repetition_is_not_kept_waiting_by_a_clock_set_back(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=1)
    id = scene.submit(pipeline(stage(retries=Retries(limit=1, backoff=10.0))))
    wait_for(lambda: scene.run(id).stage("fit").not_before)
    scene.clock.jump(-86400.0)
    assert ends(scene.until(id)) == [("ExitCode", False)] * 2


# --- the container and its image --------------------------------------------------------------------------------


def test_a_container_removed_by_hand(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    scene.jobs.vanish(scene.container().id)
    wait_for(lambda: len(scene.run(id).stage("fit").attempts) == 1 and scene.run(id).stage("fit").not_before)
    scene.commands["fit"] = Command()
    run = repeat(scene, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("ContainerLost", True), ("", False)]


def test_removed_again_and_again(scene: Scene) -> None:
    def vanish(job: Job) -> None:
        scene.jobs.vanish(next(seen.id for seen in scene.jobs.all() if seen.name == job.name))

    scene.commands["fit"] = Command(code=None, act=vanish)
    run = repeat(scene, scene.submit())
    assert (run.state, run.reason) == (RunState.ERROR, "ContainerLost")
    assert ends(run) == [("ContainerLost", True)] * (1 + len(PLATFORM_PAUSES))


def test_removed_while_nobody_looked(scene: Scene) -> None:
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    job = scene.container()
    scene.until(id, RunState.RUNNING)
    scene.stop()
    scene.jobs.vanish(job.id)
    scene.commands["fit"] = Command()
    scene.start()
    assert ends(repeat(scene, id)) == [("ContainerLost", True), ("", False)]


def test_removed_after_its_end_was_written_down(scene: Scene) -> None:
    """What it has made counts; nobody asks the engine again."""
    scene.stop()
    scene.commands["fit"] = Command(files={"model/x": "x"}, act=lambda job: _set(scene.storage, down=True))
    scene.start(replace(scene.deps, clock=SystemClock()))  # the pauses of one that is played are short
    id = scene.submit(pipeline(stage(outputs=("model",))))
    wait_for(lambda: scene.run(id).stage("fit").reason == "StorageUnreachable")
    scene.stop()
    scene.jobs.vanish(scene.jobs.all()[0].id)
    scene.storage.down = False
    scene.start()
    assert ends(scene.until(id)) == [("", False)]


def test_an_image_that_is_gone_is_brought_again(scene: Scene) -> None:
    scene.jobs.images.clear()
    assert scene.finish().state is RunState.SUCCEEDED
    assert scene.pulls == [IMAGE]


@pytest.mark.parametrize(
    ("error", "state", "attempts"),
    [
        (Stalled("ImageNotFound", "no such image"), RunState.FAILED, 1),
        (Stalled("RegistryDenied", "who are you"), RunState.FAILED, 1),
        (Transient("RegistryUnreachable", "no answer"), RunState.ERROR, 4),
    ],
    ids=lambda value: getattr(value, "reason", ""),
)
def test_an_image_that_cannot_be_brought(
    scene: Scene, error: ControllerError, state: RunState, attempts: int
) -> None:
    def refuse(app: AppName, reference: str) -> None:
        raise error

    object.__setattr__(scene.deps, "pull", refuse)
    scene.jobs.images.clear()
    run = repeat(scene, scene.submit(pipeline(stage(retries=Retries(limit=5)))))
    assert (run.state, run.reason) == (state, "ImagePull")
    assert len(run.stage("fit").attempts) == attempts
    assert error.message in run.message


def test_a_command_that_is_not_in_the_image(scene: Scene) -> None:
    scene.jobs.unknown_commands.add("fit.py")
    run = scene.finish(pipeline(stage(command=("fit.py",), retries=Retries(limit=5))))
    assert (run.state, run.reason) == (RunState.FAILED, "CommandNotFound")
    assert len(run.stage("fit").attempts) == 1
    wait_for(lambda: not scene.jobs.names())


def test_a_container_that_cannot_be_started_for_now(scene: Scene) -> None:
    scene.jobs.start_failures["fit"] = Transient("MountGone", "the folder is gone")
    id = scene.submit()
    wait_for(lambda: scene.run(id).stage("fit").not_before)
    wait_for(lambda: not scene.jobs.names())
    scene.jobs.start_failures.clear()
    run = repeat(scene, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("MountGone", True), ("", False)]


def test_a_name_that_somebody_else_has(scene: Scene) -> None:
    scene.stop()
    id = scene.submit()
    scene.jobs.take_name(f"prichal.demo.{id}.fit.1")
    scene.start()
    run = scene.until(id)
    assert (run.state, run.reason) == (RunState.ERROR, "NameTaken")


@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_an_engine_that_is_away_is_waited_for(scene: Scene, when: str) -> None:
    scene.commands["fit"] = Command(code=None)
    scene.jobs.down = when == "before"
    id = scene.submit()
    if when == "before":
        scene.until_stage(id, "fit", RunState.STARTING)
    else:
        scene.container()
        scene.until(id, RunState.RUNNING)
        scene.jobs.down = True
        scene.restart()
        began = scene.clock.now()
        wait_for(lambda: scene.clock.now() - began > 100.0)
    scene.jobs.down = False
    scene.jobs.exit(scene.container().id)
    run = scene.until(id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("", False)], "it says nothing about the attempt"


# --- inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        ("g/none.csv", "InputMissing", "there is no file 'g/none.csv' in box userdata"),
        ("nothing/", "InputMissing", "there are no files in the group 'nothing/'"),
        ("../boris/x", "InputInvalid", "segment '..'"),
        ("bad/", "InputInvalid", "'../evil' cannot be the name of a file"),
        ("both/", "InputInvalid", "names that cannot be those of files"),
    ],
)
def test_inputs_that_are_not_there(scene: Scene, data: str, reason: str, words: str) -> None:
    scene.put("bad/../evil")
    scene.put("both/a")
    scene.put("both/a/b")
    given = [RunInput("data", data=data)]
    run = scene.finish(pipeline(stage(inputs=("data",), retries=Retries(limit=5))), inputs=given)
    assert (run.state, run.reason) == (RunState.FAILED, reason)
    assert words in run.message
    assert len(run.stage("fit").attempts) == 1
    assert scene.jobs.made == []


def test_nothing_passed_and_boxes_that_are_not_there(scene: Scene) -> None:
    of = pipeline(stage(inputs=("data",)))
    run = scene.finish(of)
    assert (run.reason, run.message) == ("InputMissing", "stage fit: nothing was passed for the input 'data'")
    run = scene.finish(of, inputs=[RunInput("data", data="g/x", box="other")])
    assert (run.reason, run.message) == ("InputMissing", "stage fit: there is no box 'other'")
    weights = PipelineVar("data", mount_from=("userdata", "w/"))
    run = scene.finish(pipeline(stage(inputs=("data",)), vars=(weights,)))
    assert run.reason == "InputMissing"


def test_a_secret_that_is_not_there(scene: Scene) -> None:
    run = scene.finish(pipeline(stage(env_from=("keys",))))
    assert (run.state, run.reason) == (RunState.FAILED, "SecretMissing")


def test_storage_down_at_stage_in(scene: Scene) -> None:
    scene.put("g/in.csv")
    scene.storage.down = True
    id = scene.submit(pipeline(stage(inputs=("data",))), inputs=DATA)
    wait_for(lambda: scene.run(id).stage("fit").not_before)
    scene.storage.down = False
    run = repeat(scene, id)
    assert run.state is RunState.SUCCEEDED
    assert ends(run) == [("StorageUnreachable", True), ("", False)]


def test_storage_that_stays_down(scene: Scene) -> None:
    scene.storage.down = True
    run = repeat(scene, scene.submit(pipeline(stage(inputs=("data",))), inputs=DATA))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")


# --- outputs ----------------------------------------------------------------------------------------------------


def test_an_output_that_is_missing_counts_as_a_failure(scene: Scene) -> None:
    scene.commands["fit"] = Command()
    fit = stage(outputs=("model",), retries=Retries(limit=1, backoff=0.0))
    run = scene.finish(pipeline(fit))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputMissing")
    assert ends(run) == [("OutputMissing", False)] * 2
    assert all(attempt.exit_code == 0 for attempt in run.stage("fit").attempts)


def test_a_file_where_a_folder_was_due(scene: Scene) -> None:
    def replace_folder(job: Job) -> None:
        (folder,) = scene.outputs_of(job)
        folder.rmdir()
        folder.write_text("a file")

    scene.commands["fit"] = Command(act=replace_folder)
    run = scene.finish(pipeline(stage(outputs=("model",))))
    assert (run.reason, run.message) == ("OutputMissing", "stage fit: the output 'model' is no folder")


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
def test_outputs_that_are_no_files_are_refused(scene: Scene, evil: Callable[[Path], None]) -> None:
    scene.commands["fit"] = Command(
        files={"model/good": "good"}, act=lambda job: evil(scene.outputs_of(job)[0])
    )
    run = scene.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert scene.stored() == {}, "nothing was published"
    assert scene.store.boxes.pending(BUCKET) == ()


def test_a_link_to_a_file_of_the_same_output_is_that_file(scene: Scene) -> None:
    def link(job: Job) -> None:
        (scene.outputs_of(job)[0] / "latest").symlink_to("checkpoints/10")

    scene.commands["fit"] = Command(files={"model/checkpoints/10": "weights"}, act=link)
    run = scene.finish(pipeline(stage(outputs=("model",))))
    assert scene.stored(f"runs/{run.id}/model/")["latest"] == b"weights"


def test_links_within_internal_variables_are_left_to_the_containers(scene: Scene) -> None:
    scene.commands["fit"] = Command(act=lambda job: _link_out(scene.outputs_of(job)[0]))
    run = scene.finish(pipeline(stage(outputs=("model",)), stage("report", inputs=("model",))))
    assert run.state is RunState.SUCCEEDED


@pytest.mark.parametrize("content", ["1/0x10", "x" * 1000, "\0", ""])
def test_progress_that_is_none(scene: Scene, content: str) -> None:
    def write(job: Job) -> None:
        folder = next(m.source for m in job.mounts if m.target == "/opt/prichal/progress")
        (folder / "progress").write_text(content)

    scene.commands["fit"] = Command(act=write)
    assert scene.finish().stage("fit").progress == ""


def test_progress_that_leads_elsewhere_is_not_read(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("7/7")

    def link(job: Job) -> None:
        folder = next(m.source for m in job.mounts if m.target == "/opt/prichal/progress")
        (folder / "progress").symlink_to(tmp_path / "secret")

    scene.commands["fit"] = Command(act=link)
    assert scene.finish().stage("fit").progress == ""


def test_storage_down_at_stage_out(scene: Scene) -> None:
    """Nobody runs the command again for that: what it has made is there."""
    outage = Outage(refusals=3)
    scene.commands["fit"] = Command(files={"model/x": "x"}, act=lambda job: _set(scene.storage, down=outage))
    began = scene.clock.now()
    run = scene.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.stage("fit").reason) == (RunState.SUCCEEDED, "")
    assert scene.clock.now() - began >= sum(PLATFORM_PAUSES)
    assert len(scene.jobs.starts) == 1
    assert scene.stored(f"runs/{run.id}/model/")["x"] == b"x"


def test_storage_that_stays_down_at_stage_out(scene: Scene) -> None:
    scene.commands["fit"] = Command(files={"model/x": "x"}, act=lambda job: _set(scene.storage, down=True))
    began = scene.clock.now()
    run = scene.finish(pipeline(stage(outputs=("model",), retries=Retries(limit=3))))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageUnreachable")
    assert scene.clock.now() - began >= sum(PLATFORM_PAUSES)
    assert len(scene.jobs.starts) == 1
    assert scene.store.boxes.pending(BUCKET) == ()


def test_a_storage_whose_disk_is_full(scene: Scene) -> None:
    scene.commands["fit"] = Command(files={"model/x": "x"}, act=lambda job: _set(scene.storage, full=True))
    run = scene.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.reason) == (RunState.ERROR, "StorageFull")


def test_a_box_that_is_full(scene: Scene) -> None:
    box = scene.store.boxes.all()[0]
    scene.store.boxes.save(type(box)(**{**vars(box), "capacity": 1000}))
    scene.commands["fit"] = Command(files={"model/x": b"x" * 1001})
    run = scene.finish(pipeline(stage(outputs=("model",), retries=Retries(limit=3))))
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
    assert "has 1 kB, and 1 kB of 1 kB are free" in run.message
    assert len(run.stage("fit").attempts) == 1, "another attempt would make no room"
    assert scene.stored() == {}


def test_an_output_that_has_no_place_to_go_to(scene: Scene) -> None:
    of = pipeline(stage(outputs=("model",)), boxes=("gone",))
    assert scene.finish(of).reason == "OutputInvalid"


def _set(target: Any, **values: object) -> None:
    for name, value in values.items():
        setattr(target, name, value)


# --- ourselves --------------------------------------------------------------------------------------------------


def test_a_bug_is_a_fault_of_the_platform(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.jobs.create_failures["fit"] = RuntimeError("oops")  # type: ignore[assignment]
    run = repeat(scene, scene.submit())
    assert (run.state, run.reason) == (RunState.ERROR, "InternalError")
    assert len(run.stage("fit").attempts) == 4
    assert "oops" in caplog.text


def test_a_bug_while_a_stage_runs_lets_no_two_run_at_once(scene: Scene) -> None:
    wait, failures = scene.jobs.wait, iter([RuntimeError("oops")])

    def fail_once(id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        for error in failures:
            raise error
        return wait(id, stop)

    scene.jobs.wait = fail_once  # type: ignore[method-assign]
    scene.commands["fit"] = Command(code=None)
    id = scene.submit()
    wait_for(lambda: scene.run(id).stage("fit").not_before)
    assert [job.state for job in scene.jobs.all() if job.attempt == 1] in ([], [JobState.ENDED])
    assert len(scene.jobs.stops) == 1
    scene.commands["fit"] = Command()
    assert ends(repeat(scene, id)) == [("InternalError", True), ("", False)]
