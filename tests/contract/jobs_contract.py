"""What every `Jobs` promises, as one suite. A subclass gives the fixtures `jobs`, `script` and `app`; `script` makes
jobs whose command does what it is told, and does to containers what a person or a crash would do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import pytest

from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Job, JobMount, Jobs, JobState, ObservedJob
from tests.support.waiting import wait_for

LIMIT = 60.0  # seconds; only ends what has failed anyway


class Script(Protocol):
    """Faults, done for real."""

    def job(self, app: AppName, stage: str = "train") -> Job:
        """Its command does what the methods below tell it."""

    def say(self, id: str, content: bytes, error: bool = False) -> None:
        """Write to stdout or stderr; in order of the calls, soon."""

    def exit(self, id: str, code: int) -> None: ...

    def exhaust(self, id: str) -> None:
        """Take more memory than there is."""

    def kill(self, id: str) -> None:
        """SIGKILL by hand."""

    def vanish(self, id: str) -> None: ...

    def take_name(self, name: str) -> str:
        """A foreign container of that name; its id."""

    def stage(self, volume: Volume) -> None:
        """Put a folder there."""

    def stranger(self) -> Jobs:
        """The same engine, seen by another instance of the controller."""

    def cut(self) -> None:
        """The engine is away; containers go on."""

    def repair(self) -> None: ...


def never() -> bool:
    return False


def after(calls: int) -> Callable[[], bool]:
    """A `stop` that turns true."""
    left = iter(range(calls))
    return lambda: next(left, None) is None


def in_background(work: Callable[[], object]) -> Future[object]:
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class JobsContract:
    def started(self, jobs: Jobs, script: Script, app: AppName, stage: str = "train") -> ObservedJob:
        made = jobs.create(script.job(app, stage))
        jobs.start(made.id)
        return made

    def ended(self, jobs: Jobs, id: str) -> ObservedJob:
        seen = jobs.wait(id, never)
        assert seen
        return seen

    def text(self, jobs: Jobs, id: str, place: str = "") -> bytes:
        return b"".join(content for _, content in jobs.logs(id, place, never))

    # --- create ------------------------------------------------------------------------------------------------

    def test_what_is_made_is_seen_and_not_started(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = script.job(app)
        made = jobs.create(job)
        expected = (job.name, app, job.run, job.stage, job.attempt)
        assert (made.name, made.app, made.run, made.stage, made.attempt) == expected
        assert (made.state, made.started, made.ended, made.exit_code) == (JobState.CREATED, 0.0, 0.0, None)
        assert jobs.find(job.name) == made
        assert jobs.all() == (made,)

    def test_preparing_is_idempotent_and_no_job(self, jobs: Jobs, script: Script, app: AppName) -> None:
        jobs.prepare(app)
        jobs.prepare(app)
        assert jobs.all() == ()
        jobs.create(script.job(app))
        jobs.prepare(app)

    def test_all_are_sorted_by_name(self, jobs: Jobs, script: Script, app: AppName) -> None:
        for stage in ("train", "report"):
            jobs.create(script.job(app, stage))
        assert [job.stage for job in jobs.all()] == ["report", "train"]

    def test_another_instance_sees_nothing_of_it(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = jobs.create(script.job(app))
        stranger = script.stranger()
        assert stranger.all() == ()
        assert stranger.find(made.name) is None

    def test_what_is_not_there_is_not_found(self, jobs: Jobs) -> None:
        assert jobs.find("prichal.nobody.nothing.none.1") is None

    def test_an_attempt_is_adopted_whatever_its_state(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = script.job(app)
        made = jobs.create(job)
        assert jobs.create(job) == made
        jobs.start(made.id)
        assert (jobs.create(job).id, jobs.create(job).state) == (made.id, JobState.RUNNING)
        script.exit(made.id, 5)
        self.ended(jobs, made.id)
        adopted = jobs.create(job)
        assert (adopted.id, adopted.state, adopted.exit_code) == (made.id, JobState.ENDED, 5)

    def test_a_foreign_container_keeps_its_name(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = script.job(app)
        script.take_name(job.name)
        with pytest.raises(Stalled, match=job.name) as caught:
            jobs.create(job)
        assert caught.value.reason == "NameTaken"
        assert jobs.find(job.name) is None
        assert jobs.all() == ()

    @pytest.mark.parametrize("change", [{"run": "other"}, {"stage": "other"}, {"attempt": 9}])
    def test_another_attempt_under_the_name_is_not_adopted(
        self, jobs: Jobs, script: Script, app: AppName, change: dict[str, object]
    ) -> None:
        job = script.job(app)
        made = jobs.create(job)
        with pytest.raises(Stalled) as caught:
            jobs.create(replace(job, **change))  # type: ignore[arg-type]
        assert caught.value.reason == "NameTaken"
        assert jobs.all() == (made,)

    def test_a_missing_image_leaves_nothing(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = replace(script.job(app), image="nobody.invalid/nothing@sha256:" + 64 * "a")
        with pytest.raises(Transient) as caught:
            jobs.create(job)
        assert caught.value.reason == "ImageGone"
        assert jobs.all() == ()

    def test_a_missing_volume_leaves_nothing(self, jobs: Jobs, script: Script, app: AppName) -> None:
        """And one that is there does not stand in the way."""
        volume = Volume(StagingArea.RUNS, (f"in-{app}", "data"))
        job = script.job(app)
        job = replace(job, mounts=(*job.mounts, JobMount(volume, "/unip/data", read_only=True)))
        with pytest.raises(Transient) as caught:
            jobs.create(job)
        assert caught.value.reason == "MountGone"
        assert jobs.all() == ()
        script.stage(volume)
        made = jobs.create(job)
        jobs.start(made.id)
        script.exit(made.id, 0)
        assert self.ended(jobs, made.id).exit_code == 0

    # --- start -------------------------------------------------------------------------------------------------

    def test_starting_twice_starts_once(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        first = jobs.find(made.name)
        assert first
        assert first.state is JobState.RUNNING
        assert first.started > 0
        jobs.start(made.id)
        assert jobs.find(made.name) == first

    def test_what_has_ended_is_not_run_again(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.exit(made.id, 0)
        seen = self.ended(jobs, made.id)
        jobs.start(made.id)
        assert jobs.find(made.name) == seen

    def test_a_command_that_is_not_there_does_not_start(
        self, jobs: Jobs, script: Script, app: AppName
    ) -> None:
        made = jobs.create(replace(script.job(app), command=("no-such-program", "--now")))
        with pytest.raises(Stalled, match="no-such-program") as caught:
            jobs.start(made.id)
        assert caught.value.reason == "CommandNotFound"
        seen = jobs.find(made.name)
        assert seen
        assert seen.state is JobState.CREATED

    def test_what_was_removed_does_not_start(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = jobs.create(script.job(app))
        script.vanish(made.id)
        with pytest.raises(Transient) as caught:
            jobs.start(made.id)
        assert caught.value.reason == "ContainerLost"

    # --- wait --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("code", [0, 3])
    def test_the_exit_code_is_the_result(self, jobs: Jobs, script: Script, app: AppName, code: int) -> None:
        made = self.started(jobs, script, app)
        waiting = in_background(lambda: jobs.wait(made.id, never))
        script.exit(made.id, code)
        seen = waiting.result(LIMIT)
        assert isinstance(seen, ObservedJob)
        assert (seen.state, seen.exit_code, seen.oom_killed) == (JobState.ENDED, code, False)
        assert seen.ended >= seen.started > 0
        assert self.ended(jobs, made.id) == seen == jobs.find(made.name)

    def test_killed_by_hand(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.kill(made.id)
        seen = self.ended(jobs, made.id)
        assert (seen.exit_code, seen.oom_killed) == (137, False)

    def test_out_of_memory(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.exhaust(made.id)
        seen = self.ended(jobs, made.id)
        assert (seen.exit_code, seen.oom_killed) == (137, True)

    def test_removed_by_hand(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        waiting = in_background(lambda: jobs.wait(made.id, never))
        following = in_background(lambda: self.text(jobs, made.id))
        script.vanish(made.id)
        for future in (waiting, following):
            with pytest.raises(Transient) as caught:
                future.result(LIMIT)
            assert caught.value.reason == "ContainerLost"

    def test_waiting_ends_when_asked(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        assert jobs.wait(made.id, after(3)) is None
        assert list(jobs.logs(made.id, "", after(3))) == []

    def test_what_has_not_begun_is_waited_for(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = jobs.create(script.job(app))
        assert jobs.wait(made.id, after(2)) is None
        waiting = in_background(lambda: jobs.wait(made.id, never))
        following = in_background(lambda: self.text(jobs, made.id))
        jobs.start(made.id)
        script.say(made.id, b"hello\n")
        script.exit(made.id, 4)
        seen = waiting.result(LIMIT)
        assert isinstance(seen, ObservedJob)
        assert seen.exit_code == 4
        assert following.result(LIMIT) == b"hello\n"

    # --- the log -----------------------------------------------------------------------------------------------

    def test_both_streams_are_in_the_log(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.say(made.id, b"to stdout\n")
        script.say(made.id, b"to stderr\n", error=True)
        script.exit(made.id, 0)
        assert sorted(self.text(jobs, made.id).splitlines()) == [b"to stderr", b"to stdout"]

    def test_a_line_comes_while_the_command_runs(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        stream = jobs.logs(made.id, "", never)
        for line in (b"one\n", b"two\n", b"three\n"):
            script.say(made.id, line)
            assert next(stream)[1] == line
        script.exit(made.id, 0)
        assert list(stream) == []

    def test_a_last_line_without_newline_is_not_lost(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.say(made.id, b"one\nlast")
        script.exit(made.id, 0)
        assert self.text(jobs, made.id) == b"one\nlast"

    def test_no_log(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.exit(made.id, 0)
        assert list(jobs.logs(made.id, "", never)) == []

    def test_bytes_that_are_no_text(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.say(made.id, bytes(range(256)) + b"\nend\n")
        script.exit(made.id, 0)
        text = self.text(jobs, made.id)
        assert text.startswith(bytes(range(128)))
        assert text.endswith(b"\nend\n")
        text.decode()  # the engine keeps nothing else

    def test_long_lines(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        line = 900_000 * b"x" + b"\n"
        for content in (line, b"short\n", line):
            script.say(made.id, content)
        script.exit(made.id, 0)
        assert self.text(jobs, made.id) == line + b"short\n" + line

    def test_reading_goes_on_at_every_place(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        for number in range(3):
            script.say(made.id, b"".join(b"%d %d\n" % (number, line) for line in range(9000)))
            script.say(made.id, 200_000 * b"x" + b"\n", error=True)
        script.exit(made.id, 0)
        self.ended(jobs, made.id)
        pieces = list(jobs.logs(made.id, "", never))
        for index, (place, _) in enumerate(pieces):
            rest = b"".join(content for _, content in pieces[index + 1 :])
            assert self.text(jobs, made.id, place) == rest

    def test_a_reader_that_comes_back_while_the_command_runs(
        self, jobs: Jobs, script: Script, app: AppName
    ) -> None:
        made = self.started(jobs, script, app)
        text, place = b"", ""
        for number in range(5):
            script.say(made.id, b"line %d\n" % number)
            stream = jobs.logs(made.id, place, never)
            place, content = next(stream)
            stream.close()  # type: ignore[attr-defined]
            text += content
        assert text == b"".join(b"line %d\n" % number for number in range(5))

    # --- stop and remove ---------------------------------------------------------------------------------------

    def test_stopping(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        jobs.stop(made.id, grace=10)
        seen = self.ended(jobs, made.id)
        assert seen.exit_code in (137, 143)
        jobs.stop(made.id, grace=10)
        assert jobs.find(made.name) == seen
        jobs.remove(made.id)
        jobs.stop(made.id, grace=10)

    @pytest.mark.parametrize("begun", [False, True])
    def test_removing_is_idempotent(self, jobs: Jobs, script: Script, app: AppName, begun: bool) -> None:
        made = self.started(jobs, script, app) if begun else jobs.create(script.job(app))
        jobs.remove(made.id)
        jobs.remove(made.id)
        assert jobs.find(made.name) is None
        assert jobs.create(script.job(app)).id != made.id

    def test_what_is_not_ours_is_not_touched(self, jobs: Jobs, script: Script, app: AppName) -> None:
        foreign = script.take_name(f"{app}-foreign")
        touches: list[Callable[[], object]] = [
            lambda: jobs.start(foreign),
            lambda: jobs.stop(foreign, grace=0),
            lambda: jobs.remove(foreign),
            lambda: jobs.wait(foreign, never),
            lambda: list(jobs.logs(foreign, "", never)),
        ]
        for touch in touches:
            with pytest.raises(Stalled) as caught:
                touch()
            assert caught.value.reason == "NotOurs"

    # --- outages and crowds ------------------------------------------------------------------------------------

    def test_calls_tell_of_an_engine_that_is_away(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = script.job(app)
        made = jobs.create(job)
        script.cut()
        calls: list[Callable[[], object]] = [
            lambda: jobs.create(job),
            lambda: jobs.start(made.id),
            lambda: jobs.find(made.name),
            jobs.all,
            lambda: jobs.stop(made.id, grace=0),
            lambda: jobs.remove(made.id),
            lambda: jobs.wait(made.id, never),
        ]
        for call in calls:
            with pytest.raises(Transient) as caught:
                call()
            assert caught.value.reason == "EngineUnreachable"
        script.repair()
        assert jobs.find(made.name) == made

    def test_a_job_that_ends_while_the_engine_is_away(self, jobs: Jobs, script: Script, app: AppName) -> None:
        made = self.started(jobs, script, app)
        heard = threading.Event()
        pieces: list[bytes] = []

        def follow() -> None:
            for _, content in jobs.logs(made.id, "", never):
                pieces.append(content)
                heard.set()

        following = in_background(follow)
        script.say(made.id, b"before\n")
        assert heard.wait(LIMIT)
        script.cut()
        script.say(made.id, b"meanwhile\n")
        script.exit(made.id, 6)
        script.repair()
        assert self.ended(jobs, made.id).exit_code == 6
        following.result(LIMIT)
        assert b"".join(pieces) == b"before\nmeanwhile\n"

    def test_several_workers_at_once(self, jobs: Jobs, script: Script, app: AppName) -> None:
        prepared = [script.job(app, stage) for stage in ("a", "b", "c")]

        def run(job: Job) -> tuple[str, int | None, bytes]:
            made = jobs.create(job)
            jobs.start(made.id)
            script.say(made.id, job.stage.encode() + b"\n")
            script.exit(made.id, ord(job.stage))
            return job.stage, self.ended(jobs, made.id).exit_code, self.text(jobs, made.id)

        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(run, prepared))
        assert results == [(name, ord(name), name.encode() + b"\n") for name in ("a", "b", "c")]

    def test_one_attempt_is_made_once_by_many(self, jobs: Jobs, script: Script, app: AppName) -> None:
        job = script.job(app)
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(jobs.create, [job] * 4))
        assert len({seen.id for seen in made}) == 1
        wait_for(jobs.all, lambda seen: len(seen) == 1)


class ClusterScript(Script, Protocol):
    """What happens to jobs on an engine that places them on nodes and decides later."""

    def pend(self, stage: str, detail: str) -> None:
        """From now on it is accepted, and does not run."""

    def admit(self, id: str) -> None:
        """A node has room for it."""

    def refuse(self, id: str, detail: str) -> None:
        """The engine will not run what it had accepted."""

    def lose(self, id: str, detail: str) -> None:
        """Its node does not answer any more."""

    def find_again(self, id: str) -> None:
        """The node answers again."""


class ClusterJobsContract(JobsContract):
    """What an engine promises beside that which accepts jobs before it runs them, and whose nodes may be lost."""

    def pending(self, jobs: Jobs, script: ClusterScript, app: AppName) -> ObservedJob:
        script.pend("train", "0/2 nodes have a free GPU")
        made = jobs.create(script.job(app))
        seen = jobs.start(made.id)
        assert (seen.id, seen.state, seen.detail) == (made.id, JobState.PENDING, "0/2 nodes have a free GPU")
        return seen

    def test_what_was_accepted_says_why_it_does_not_run(
        self, jobs: Jobs, script: ClusterScript, app: AppName
    ) -> None:
        seen = self.pending(jobs, script, app)
        assert (seen.started, seen.ended, seen.exit_code) == (0.0, 0.0, None)
        assert jobs.find(seen.name) == seen == jobs.start(seen.id)
        assert jobs.wait(seen.id, after(3)) is None

    def test_what_was_pending_runs(self, jobs: Jobs, script: ClusterScript, app: AppName) -> None:
        made = self.pending(jobs, script, app)
        waiting = in_background(lambda: jobs.wait(made.id, never))
        script.admit(made.id)
        running = wait_for(
            lambda: jobs.find(made.name), lambda job: bool(job and job.state is JobState.RUNNING)
        )
        assert running
        assert running.started > 0
        assert running.detail == ""
        script.exit(made.id, 3)
        seen = waiting.result(LIMIT)
        assert isinstance(seen, ObservedJob)
        assert (seen.state, seen.exit_code) == (JobState.ENDED, 3)

    def test_what_was_accepted_may_be_refused_later(
        self, jobs: Jobs, script: ClusterScript, app: AppName
    ) -> None:
        made = self.pending(jobs, script, app)
        waiting = in_background(lambda: jobs.wait(made.id, never))
        following = in_background(lambda: self.text(jobs, made.id))
        script.refuse(made.id, "the image has no manifest for this architecture")
        seen = waiting.result(LIMIT)
        assert isinstance(seen, ObservedJob)
        assert (seen.state, seen.exit_code) == (JobState.REFUSED, None)
        assert seen.detail == "the image has no manifest for this architecture"
        assert following.result(LIMIT) == b""

    def test_what_is_pending_can_be_stopped(self, jobs: Jobs, script: ClusterScript, app: AppName) -> None:
        made = self.pending(jobs, script, app)
        jobs.stop(made.id, grace=10)
        seen = self.ended(jobs, made.id)
        assert (seen.state, seen.exit_code) == (JobState.ENDED, None)

    def test_a_job_of_a_lost_node_is_lost(self, jobs: Jobs, script: ClusterScript, app: AppName) -> None:
        made = self.started(jobs, script, app)
        script.say(made.id, b"so far\n")
        waiting = in_background(lambda: jobs.wait(made.id, never))
        following = in_background(lambda: self.text(jobs, made.id))
        script.lose(made.id, "node-2 has not been heard of for 40 s")
        seen = waiting.result(LIMIT)
        assert isinstance(seen, ObservedJob)
        assert (seen.state, seen.exit_code) == (JobState.LOST, None)
        assert seen.detail == "node-2 has not been heard of for 40 s"
        assert b"so far\n".startswith(following.result(LIMIT)), "its log ends, wherever that is"  # type: ignore[arg-type]
        jobs.stop(made.id, grace=0)
        jobs.remove(made.id)
        assert jobs.find(made.name) is None

    def test_a_node_that_comes_back_brings_its_jobs(
        self, jobs: Jobs, script: ClusterScript, app: AppName
    ) -> None:
        made = self.started(jobs, script, app)
        script.lose(made.id, "")
        script.find_again(made.id)
        script.exit(made.id, 0)
        assert self.ended(jobs, made.id).exit_code == 0
