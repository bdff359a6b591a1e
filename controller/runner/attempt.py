"""One attempt of a stage, from wherever it stands to its end. Called by `driving`, in a thread of its own.

What is about to be done is written down first, so that a daemon that comes back knows what it finds:

    written down                    found               then
    STARTING                        anything            inputs, container (made or adopted), RUNNING is written
    RUNNING                         no container        somebody removed it: ContainerLost
    RUNNING                         made, not started   it is started
    RUNNING                         running             waited for, its log read on
    RUNNING                         ended               its exit code is the result
    RUNNING, reason Timeout         running             stopped; whatever its exit code, it was too slow
    CANCELING                       running             stopped; whatever its exit code, it was canceled
    RUNNING, attempt ended well     anything            outputs are published, again if need be
    no attempt under way            a container         removed

The container is removed after its result was written down, and another attempt begins after that: two never run at
once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import job_name
from controller.domain.pipelines import Stage, env_name, mount_path
from controller.domain.runs import Run, RunOutput, RunState, StageRun
from controller.domain.secret import Secret
from controller.domain.steps import PLATFORM_PAUSES, after_failure
from controller.ports import Job, JobMount, JobState, ObservedJob
from controller.runner.deps import Deps
from controller.runner.folders import Folders
from controller.runner.inputs import Inputs
from controller.runner.logs import follow
from controller.runner.outputs import open_up, publication, publish
from controller.runner.record import Over, Record
from controller.runner.signals import Canceled, Halted, Signals
from controller.runner.verdict import (
    BUG,
    LOST,
    TIMEOUT,
    Failed,
    Failure,
    failure_of_disk,
    failure_of_error,
    failure_of_job,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
PROGRESS = "/opt/prichal/progress"  # a folder of containers
_DRAIN = 60.0  # seconds that the rest of an ended container's log may take
_AWAY = frozenset({"EngineUnreachable", "EngineTimeout"})


@dataclass(frozen=True)
class Work:
    """What attempts of one run are carried out with. `background` runs what goes on beside them; `wake` tells that an
    attempt's end was written down."""

    deps: Deps
    record: Record
    folders: Folders
    inputs: Inputs
    signals: Signals
    background: Executor
    wake: Callable[[], None]


class AttemptWork:
    """The attempt `number` of a stage, the newest."""

    def __init__(self, work: Work, stage: Stage, number: int) -> None:
        self._work = work
        self._deps = work.deps
        self._signals = work.signals
        self._stage = stage
        self._number = number
        record = work.record
        self._name = job_name(work.deps.settings.instance, record.app, record.id, stage.name, number)

    def carry_out(self) -> None:
        """To its end, which is then written down; or until the daemon ends. Raises nothing that is expected."""
        with suppress(Halted, Over):
            try:
                self._execute()
                self._deliver()
            except Canceled:
                self._cancel()
            except Failed as error:
                self._fail(error.failure)
            except ControllerError as error:
                self._fail(failure_of_error(error))
            except OSError as error:
                self._fail(failure_of_disk(error))
            except (Halted, Over):
                raise
            except Exception:
                log.exception("bug in an attempt", extra=self._fields)
                self._fail(BUG)
            self._work.wake()
            self._remove()

    # --- until its result is written down ----------------------------------------------------------------------

    def _execute(self) -> None:
        """Raises Failed, Canceled."""
        stage = self._written()
        if stage.attempts[-1].ended:
            return
        self._work.folders.prepare()
        job = self._create() if stage.state is RunState.STARTING else self._find()
        fresh = job is not None and job.state is JobState.CREATED
        self._write_result(self._watch(self._started(job, stage), fresh))

    def _create(self) -> ObservedJob:
        job = self._job(self._work.record.load())
        self._signals.check()
        created = self._when_there(lambda: self._created(job))
        self._work.record.update(self._running)
        return created

    def _created(self, job: Job) -> ObservedJob:
        """Images may be cleaned up by hand at any time: what a registry has is brought again."""
        try:
            return self._deps.jobs.create(job)
        except ControllerError as error:
            if error.reason != "ImageGone":
                raise
        self._deps.pull(job.app, job.image)
        return self._deps.jobs.create(job)

    def _running(self, run: Run) -> Run:
        if run.state is RunState.CANCELING:
            raise Canceled
        if run.state is RunState.STARTING:
            run = run.to(RunState.RUNNING, self._now())
        return run.with_stage(run.stage(self._stage.name).to(RunState.RUNNING, self._now()))

    def _started(self, job: ObservedJob | None, stage: StageRun) -> ObservedJob:
        """An engine that did not answer may have started it all the same."""
        while job and job.state is JobState.CREATED:
            self._signals.check()
            if stage.state is RunState.CANCELING:
                raise Canceled
            try:
                self._deps.jobs.start(job.id)
                return job
            except Transient as error:
                job = self._find()
                if job and job.state is JobState.CREATED and error.reason not in _AWAY:
                    raise
        if job is None:
            raise Failed(LOST)
        return job

    def _watch(self, job: ObservedJob, fresh: bool) -> ObservedJob | None:
        """The ended container; None if it is gone."""
        with self._followed(job):
            stage = self._written()
            if stage.state is RunState.CANCELING or stage.attempts[-1].reason == TIMEOUT:
                return self._silence()  # a daemon died while it did so
            overdue = self._overdue(job, fresh)
            while not (ended := self._wait(job, overdue)):
                if self._signals.canceled():
                    self._write(_to_canceling(self._now()))
                    return self._silence()
                if overdue():
                    self._write(lambda stage: stage.note(reason=TIMEOUT))
                    return self._silence()
            return ended

    def _wait(self, job: ObservedJob, overdue: Callable[[], bool]) -> ObservedJob | None:
        """None if it still runs, and there is something else to do."""

        def stop() -> bool:
            return self._signals.stopping() or self._signals.canceled() or overdue()

        waited = self._sure(lambda: self._deps.jobs.wait(job.id, stop))
        if waited:
            return waited
        self._signals.check_halted()
        found = self._find()  # it may have ended in this moment: then it was too late
        return found if found and found.state is JobState.ENDED else None

    def _overdue(self, job: ObservedJob, fresh: bool) -> Callable[[], bool]:
        """Clocks are set; what counts is the time that passes while somebody watches, and for the time before that the
        engine's word."""
        clock, limit = self._deps.clock, self._stage.timeout
        if limit is None:
            return lambda: False
        gone = 0.0 if fresh or not job.started else max(0.0, clock.now() - job.started)
        end = clock.monotonic() + limit - gone
        return lambda: clock.monotonic() >= end

    @contextmanager
    def _followed(self, job: ObservedJob) -> Iterator[None]:
        """With its log being written. All that an ended container has said is there before its end is written down."""
        enough = False
        path = self._work.folders.log(self._stage.name, self._number)
        limit = self._deps.settings.runs.log_max

        def stop() -> bool:
            return enough or self._signals.stopping()

        following = self._work.background.submit(
            follow, self._deps.jobs, job.id, path, limit, self._deps.clock, stop
        )
        try:
            yield
            wait([following], timeout=_DRAIN)
        finally:
            enough = True
            following.result()

    def _write_result(self, job: ObservedJob | None) -> None:
        """Good or bad. Raises Failed, Canceled."""
        stage = self._written()
        if stage.state is RunState.CANCELING:
            raise Canceled
        if job is None:
            raise Failed(LOST)
        if failure := failure_of_job(job, stage.attempts[-1], self._stage):
            raise Failed(replace(failure, exit_code=job.exit_code))
        self._write(lambda stage: stage.end_attempt(self._now(), exit_code=job.exit_code))

    # --- what the container is made of -------------------------------------------------------------------------

    def _job(self, run: Run) -> Job:
        self._work.folders.prepare_attempt(self._stage.name, self._number, self._stage.outputs)
        env, mounts = self._env(run), [self._mount(PROGRESS, self._progress_folder, read_only=False)]
        for name in (*self._stage.inputs, *self._stage.outputs):
            place = self._place(run, name)
            if place:
                target = mount_path(run.pipeline.var(name))
                mounts.append(self._mount(target, place, read_only=name in self._stage.inputs))
                env[env_name(name)] = Secret(target)
        return Job(
            name=self._name,
            app=run.app,
            run=run.id,
            stage=self._stage.name,
            attempt=self._number,
            image=self._stage.image,
            command=self._stage.command,
            env=tuple(env.items()),
            mounts=tuple(mounts),
            resources=self._stage.resources,
            gpus=run.stage(self._stage.name).attempts[-1].gpus,
        )

    def _place(self, run: Run, name: str) -> Path | None:
        if name in self._stage.inputs:
            return self._work.inputs.bring(run, name)
        return self._work.folders.output(self._stage.name, self._number, name)

    def _mount(self, target: str, source: Path, read_only: bool) -> JobMount:
        return JobMount(source.absolute(), target, read_only)

    @property
    def _progress_folder(self) -> Path:
        return self._work.folders.progress(self._stage.name, self._number)

    def _env(self, run: Run) -> dict[str, Secret]:
        """The module's variables, then the platform's, which win."""
        env: dict[str, Secret] = {}
        for name in self._stage.env_from:
            found = self._deps.secret(run.app, name, run.pipeline.revision)
            if found is None:
                raise Stalled("SecretMissing", f"the Secret {name!r} is not there")
            env |= dict(found.values)
        env |= {variable.name: Secret(variable.value) for variable in self._stage.env}
        env |= self._deps.storage_env(run.pipeline)
        ours = {
            "UNIP_APP": run.app,
            "UNIP_PIPELINE": run.name,
            "UNIP_RUN": run.id,
            "UNIP_STAGE": self._stage.name,
            "UNIP_ATTEMPT": str(self._number),
            "UNIP_PROGRESS": f"{PROGRESS}/progress",
        }
        if run.pass_identity and run.user:
            ours["UNIP_USER"] = run.user
        return env | {name: Secret(value) for name, value in ours.items()}

    # --- what it has made --------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        for name in self._stage.outputs:
            open_up(self._output(name))
        run = self._work.record.load()
        for output in run.handed_out if run.pipeline.boxes else ():
            if output.name in self._stage.outputs:
                self._publish(run, output)
        progress = self._work.folders.read_progress(self._stage.name, self._number)
        self._write(lambda stage: replace(stage.to(RunState.SUCCEEDED, self._now()), progress=progress))

    def _publish(self, run: Run, output: RunOutput) -> None:
        """A storage that is away is waited for here: no repetition of the stage would make a better output."""
        target = publication(
            self._deps, run, self._stage.name, self._number, output, self._output(output.name)
        )
        for pause in PLATFORM_PAUSES:
            self._signals.check()
            try:
                return publish(self._deps, self._signals, target)
            except Transient as error:
                note = {"reason": error.reason, "message": f"not published yet: {error.message}"}
                self._write(lambda stage, note=note: replace(stage, **note))  # type: ignore[misc]
            self._signals.pause(pause)
        try:
            return publish(self._deps, self._signals, target)
        except Transient as error:
            raise Failed(replace(failure_of_error(error), final=True)) from error

    def _output(self, name: str) -> Path:
        return self._work.folders.output(self._stage.name, self._number, name)

    # --- its end -----------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        self._write(_to_canceling(self._now()))
        job = self._silence()
        code = job.exit_code if job else None
        run = self._work.record.load()  # it says who wants it so

        def over(stage: StageRun) -> StageRun:
            ended = stage.end_attempt(self._now(), exit_code=code, reason=run.reason, message=run.message)
            return ended.to(RunState.CANCELED, self._now(), run.reason, run.message)

        self._write(over)

    def _fail(self, failure: Failure) -> None:
        """Nothing of it runs any more when its end is written down: another attempt may follow at once."""
        if self._written().state is not RunState.STARTING:  # then it was never started
            self._silence()
        reason, message = failure.reason, failure.message
        known = {} if failure.exit_code is None else {"exit_code": failure.exit_code}

        def over(stage: StageRun) -> StageRun:
            ended = stage.end_attempt(
                self._now(), reason=reason, message=message, platform=failure.platform, **known
            )
            return after_failure(
                ended,
                self._stage,
                self._now(),
                reason,
                message,
                platform=failure.platform,
                final=failure.final,
            )

        self._write(over)
        log.info("attempt failed", extra={**self._fields, "reason": reason})

    def _silence(self) -> ObservedJob | None:
        """The container, which does not run any more; None if there is none."""
        while (job := self._find()) and job.state is JobState.RUNNING:
            found = job
            self._sure(lambda found=found: self._deps.jobs.stop(found.id, GRACE))  # type: ignore[misc]
        return job

    def _remove(self) -> None:
        """Should it fail, the sweeping does it."""
        with suppress(ControllerError):
            if job := self._deps.jobs.find(self._name):
                self._deps.jobs.remove(job.id)

    # --- what it rests on --------------------------------------------------------------------------------------

    @property
    def _fields(self) -> dict[str, object]:
        return {"run": self._work.record.id, "stage": self._stage.name, "attempt": self._number}

    def _now(self) -> float:
        return self._deps.clock.now()

    def _written(self) -> StageRun:
        return self._work.record.load().stage(self._stage.name)

    def _write(self, change: Callable[[StageRun], StageRun]) -> None:
        self._work.record.update_stage(self._stage.name, change)

    def _find(self) -> ObservedJob | None:
        return self._sure(lambda: self._deps.jobs.find(self._name))

    def _sure(self, call: Callable[[], T]) -> T:
        """The container may be running, and only the engine can tell: it is asked until it answers. Raises Halted."""
        while True:
            try:
                return call()
            except Transient as error:
                if error.reason == LOST.reason:
                    raise
                log.warning("the engine does not tell: %s", error.message, extra=self._fields)
            self._signals.rest()

    def _when_there(self, call: Callable[[], T]) -> T:
        """An engine that is away counts as no attempt. Raises Halted, Canceled."""
        while True:
            try:
                return call()
            except Transient as error:
                if error.reason not in _AWAY:
                    raise
            self._signals.pause(1.0)


def _to_canceling(at: float) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        return stage if stage.state is RunState.CANCELING else stage.to(RunState.CANCELING, at)

    return change
