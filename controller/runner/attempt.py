"""One attempt of a stage, from its present state to its end. Called by `run_worker`, in a separate thread.

What is about to be done is recorded first, so that a daemon that restarts knows what it finds:

    recorded                        found               then
    STARTING                        anything            inputs, container (created or adopted), RUNNING is recorded
    RUNNING                         no container        it was removed from outside: ContainerLost
    RUNNING                         created             it is started
    RUNNING                         pending             it is waited for until it runs, is refused or is too late
    RUNNING                         running             it is awaited, and its log is read on
    RUNNING                         ended               its exit code is the result
    RUNNING                         refused, lost       the attempt has failed, which is not the user's doing
    RUNNING, reason Timeout         running             it is stopped; whatever its exit code, it was too slow
    CANCELING                       running             it is stopped; whatever its exit code, it was canceled
    RUNNING, attempt ended well     anything            outputs are published, again if necessary
    reused_from, not SUCCEEDED      no container        outputs of that run are published, nothing is executed
    no attempt under way            a container         it is removed

The container is removed after its result was recorded, and another attempt begins only after that: two
attempts never run at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from controller.domain.errors import ControllerError, MountMismatch, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage, mount_path
from controller.domain.runs.run import Run, RunState, StageRun
from controller.domain.runs.steps import after_failure
from controller.ports import JobState, ObservedJob
from controller.runner.attempt_context import AttemptContext, StageWork
from controller.runner.attempt_job import JobBuilder
from controller.runner.engine_calls import STOPPING, EngineCalls
from controller.runner.failures import (
    BUG,
    LOST,
    STORAGE_FULL,
    TIMEOUT,
    StageFailed,
    StageFailure,
    failure_of_disk,
    failure_of_error,
    failure_of_job,
    not_started,
    too_much,
    too_slow,
)
from controller.runner.logs import follow
from controller.runner.record import RunEnded
from controller.runner.signals import Canceled, ShuttingDown
from controller.runner.stage_images import StageImages
from controller.runner.stage_outputs import StageOutputs
from controller.runner.traces import record_attempt

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_KEPT = Localizable(
    "; the outputs of the stage are kept, and `retry` publishes them without running the stage again"
)
_DRAIN = 60.0  # seconds that the rest of an ended container's log may take
_SETTLE = 2.0  # seconds after which people see that the rest of the log is still being read
_LOOK = 1.0  # seconds between looks at a container that the engine has accepted and does not run yet
_NOT_BEGUN = (JobState.CREATED, JobState.PENDING)
_WATCH = 60.0  # seconds after which waiting starts again


class AttemptWork:
    """The attempt `number` of a stage, its newest one."""

    def __init__(self, work: StageWork, stage: Stage, number: int) -> None:
        self._context = AttemptContext(work, stage, number)
        self._work = work
        self._deps = work.deps
        self._signals = work.signals
        self._engine = EngineCalls(self._context)
        self._images = StageImages(self._context)
        self._builder = JobBuilder(self._context)
        self._outputs = StageOutputs(self._context)
        self._stuck = ""  # why the container could not be stopped, as a text

    def carry_out(self) -> None:
        """Carry out the attempt to its end, which is then recorded, or until the daemon ends. Raises no
        expected exception.
        """
        with suppress(ShuttingDown, RunEnded):
            try:
                self._execute()
                self._outputs.deliver()
            except (ShuttingDown, RunEnded):
                raise
            except Canceled:
                self._cancel()
            except Exception as error:  # noqa: BLE001 - whatever it is, the attempt comes to an end
                self._fail(self._failure_of(error))
            self._record_span()
            self._work.wake()
            self._remove()

    def _record_span(self) -> None:
        if self._deps.tracer.is_on:
            with suppress(RunEnded):
                record_attempt(
                    self._deps.tracer,
                    self._context.run(),
                    self._context.stage.name,
                    self._context.number,
                )

    def _failure_of(self, error: Exception) -> StageFailure:
        match error:
            case StageFailed():
                return error.failure
            case ControllerError():
                return failure_of_error(error)
            case OSError():
                return failure_of_disk(error)
        log.error("bug in an attempt", exc_info=error, extra=self._context.fields)
        return BUG

    # --- until its result is written down ----------------------------------------------------------------------

    def _execute(self) -> None:
        """Run the command. Raises StageFailed, Canceled."""
        stage = self._context.stage_run()
        if stage.attempts[-1].ended:
            return
        self._work.folders.prepare()
        if stage.reused_from:
            if stage.state is RunState.STARTING:
                self._context.update(self._running)
            return
        job = self._create() if stage.state is RunState.STARTING else self._engine.find()
        if job is None:
            raise StageFailed(LOST)
        fresh = job.state in _NOT_BEGUN
        if fresh and stage.state is RunState.CANCELING:
            raise Canceled
        self._write_result(self._watch(self._started(job), fresh))

    def _create(self) -> ObservedJob:
        run = self._context.run()
        self._check_before(run)
        job = self._builder.job(self._context.run())
        created = self._engine.before_start(lambda: self._images.create(job))
        self._context.update(self._running)
        return created

    def _check_before(self, run: Run) -> None:
        """Report known obstacles to the end of the run before the work starts. Raises StageFailed."""
        self._outputs.require_box(run)
        left = [stage for stage in run.pipeline.stages if not run.stage(stage.name).is_kept]
        try:
            for stage in {stage.image: stage for stage in reversed(left)}.values():
                self._images.require(stage)
            self._outputs.require_places(run)
        except Stalled as error:
            raise StageFailed(replace(failure_of_error(error), final=True)) from error

    def _running(self, run: Run) -> Run:
        if run.state is RunState.CANCELING:
            raise Canceled
        if run.state is RunState.STARTING:
            run = run.to(RunState.RUNNING, self._context.now())
        return run.with_stage(run.stage(self._context.stage.name).to(RunState.RUNNING, self._context.now()))

    def _started(self, job: ObservedJob) -> ObservedJob:
        begun = self._engine.before_start(lambda: self._start(job)) if job.state is JobState.CREATED else job
        return self._admitted(begun) if begun.state is JobState.PENDING else begun

    def _admitted(self, job: ObservedJob) -> ObservedJob:
        """Wait until the engine runs or refuses the container that it has accepted. Raises StageFailed, Canceled."""
        clock, limit = self._deps.clock, self._deps.settings.runs.start_deadline
        begun = clock.monotonic()
        while job.state is JobState.PENDING:
            if clock.monotonic() - begun >= limit:
                raise StageFailed(not_started(job, limit))
            self._context.show_reason(
                Reason.START_PENDING, Localizable("the engine does not run it yet: {job}", job=job.detail)
            )
            self._signals.pause(_LOOK)
            found = self._engine.find()
            if found is None:
                raise StageFailed(LOST)
            job = found
        self._context.show_reason(Reason.NONE, "")
        return job

    def _start(self, job: ObservedJob) -> ObservedJob:
        """Start the container. An engine that did not answer may have started it nevertheless."""
        try:
            return self._deps.jobs.start(job.id)
        except MountMismatch as error:
            raise StageFailed(self._misplaced(error)) from error
        except Transient as error:
            found = self._deps.jobs.find(self._context.name)
            if found is None:
                raise StageFailed(LOST) from error
            if found.state is JobState.CREATED:
                raise
            return found

    def _misplaced(self, error: MountMismatch) -> StageFailure:
        """Return the failure of a mount: only a variable of a file can be mounted onto a file, and only one
        of a folder onto a folder.
        """
        run = self._context.run()
        names = (*self._context.stage.inputs, *self._context.stage.outputs)
        name = next((n for n in names if mount_path(run.pipeline.var(n)) == error.target), None)
        place = name and self._builder.place(run, name)
        if not place:
            return failure_of_error(error)
        reason = Reason.INPUT_INVALID if name in self._context.stage.inputs else Reason.OUTPUT_INVALID
        what = "folder" if place.is_dir() else "file"
        message = Localizable(
            "{found}, but {name!r} is a {what}: give it another `mountTo`",
            found=error.found,
            name=name,
            what=what,
        )
        return StageFailure(reason, message, final=True)

    def _watch(self, job: ObservedJob, fresh: bool) -> ObservedJob | None:
        """Return the ended container, or None if it is gone."""
        with self._followed(job):
            stage = self._context.stage_run()
            if stage.state is RunState.CANCELING or stage.attempts[-1].reason in (TIMEOUT, STORAGE_FULL):
                return self._silence()  # a daemon died while it stopped the container
            overdue = self._overdue(job, fresh)
            while not (ended := self._wait(job, overdue)):
                if self._signals.canceled():
                    self._context.write(_to_canceling(self._context.now()))
                    return self._silence()
                if why := self._work.overfull():
                    self._context.write(partial(StageRun.note, reason=STORAGE_FULL, message=why))
                    return self._silence(grace=0.0)  # each second of it costs all apps of the host
                if overdue():
                    self._context.write(lambda stage: stage.note(reason=TIMEOUT))
                    return self._silence()
            return ended

    def _wait(self, job: ObservedJob, overdue: Callable[[], bool]) -> ObservedJob | None:
        """Return the ended container, or None if it may still run and there is something else to do."""

        clock = self._deps.clock

        def interrupted() -> bool:
            signals = self._signals
            return signals.stopping() or signals.canceled() or overdue() or bool(self._work.overfull())

        def wait() -> ObservedJob | None:
            begun = clock.monotonic()

            def stop() -> bool:  # otherwise errors of hours ago would count
                return interrupted() or clock.monotonic() - begun >= _WATCH

            return None if interrupted() else self._deps.jobs.wait(job.id, stop)

        waited = self._engine.while_running(wait, self._deps.settings.runs.lost_after, interrupted)
        self._signals.check_halted()
        if waited or not interrupted():
            return waited
        with suppress(Transient):  # it may have ended at this moment, which was too late
            found = self._deps.jobs.find(self._context.name)
            return found if found and found.state.is_over else None
        return None

    def _overdue(self, job: ObservedJob, fresh: bool) -> Callable[[], bool]:
        """Return whether the timeout has passed. Clocks may be set, so time is measured while we watch; for
        the time before that, the engine's start time counts.
        """
        clock, limit = self._deps.clock, self._context.stage.timeout
        if limit is None:
            return lambda: False
        gone = 0.0 if fresh or not job.started else max(0.0, clock.now() - job.started)
        end = clock.monotonic() + limit - gone
        return lambda: clock.monotonic() >= end

    @contextmanager
    def _followed(self, job: ObservedJob) -> Iterator[None]:
        """Write the log meanwhile. Everything that an ended container has written is in the log before its
        end is recorded.
        """
        enough = ended = False
        path = self._work.folders.log(self._context.stage.name, self._context.number)
        limit = self._deps.settings.runs.log_max

        def stop() -> bool:
            return enough or self._signals.stopping()

        following = self._work.background.submit(
            follow,
            self._deps.jobs,
            job.id,
            path,
            limit,
            self._deps.clock,
            stop,
            lambda: ended,
        )
        try:
            yield
            ended = not self._stuck
            if ended and wait([following], timeout=_SETTLE).not_done:
                self._context.show_reason(
                    Reason.READING_LOG, Localizable("the command has ended; reading the rest of its log")
                )
                wait([following], timeout=_DRAIN)
        finally:
            enough = True
            following.result()

    def _write_result(self, job: ObservedJob | None) -> None:
        """Record the result. Raises StageFailed or Canceled if it is not a success."""
        stage = self._context.stage_run()
        if stage.state is RunState.CANCELING:
            raise Canceled
        if stage.attempts[-1].reason == STORAGE_FULL:
            full = too_much(stage.attempts[-1].message)
            raise StageFailed(replace(full, exit_code=job.exit_code if job else None))
        if stage.attempts[-1].reason == TIMEOUT:
            raise StageFailed(
                replace(too_slow(self._context.stage), exit_code=job.exit_code if job else None)
            )
        if job is None:
            raise StageFailed(LOST)
        if failure := failure_of_job(job, self._context.stage):
            raise StageFailed(replace(failure, exit_code=job.exit_code))
        self._context.write(lambda stage: stage.end_attempt(self._context.now(), exit_code=job.exit_code))

    # --- its end -----------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        self._context.write(_to_canceling(self._context.now()))
        job = self._silence()
        code = job.exit_code if job else None
        run = self._context.run()  # it has the reason of the cancellation
        message = run.message + self._stuck

        def over(stage: StageRun) -> StageRun:
            how = {"exit_code": code, "reason": run.reason, "message": message}
            ended = stage.end_attempt(self._context.now(), unpublished=stage.has_made_it, **how)
            return ended.to(RunState.CANCELED, self._context.now(), run.reason, message)

        self._context.write(over)

    def _fail(self, failure: StageFailure) -> None:
        """Record the failure. Nothing of the attempt may run any more, since another attempt may follow at
        once. If that is not certain, none follows.
        """
        written = self._context.stage_run()
        if written.state is RunState.CANCELING:
            self._cancel()
            return
        if written.state is not RunState.STARTING:  # otherwise it was never started
            self._silence()
        reason, message = failure.reason, failure.message + self._stuck
        final = failure.final or bool(self._stuck)
        known = {} if failure.exit_code is None else {"exit_code": failure.exit_code}

        def over(stage: StageRun) -> StageRun:
            made = stage.has_made_it and reason != Reason.OUTPUT_MISSING
            ended = stage.end_attempt(
                self._context.now(),
                reason=reason,
                message=message,
                platform=failure.platform,
                unpublished=made,
                **known,
            )
            platform, at = failure.platform, self._context.now()
            last = final or (bool(stage.reused_from) and not platform)
            after = after_failure(
                ended, self._context.stage, at, reason, message, platform=platform, final=last
            )
            if not made or after.state is RunState.QUEUED:
                return after
            return ended.to(after.state, at, reason, message + _KEPT)

        self._context.write(over)
        log.info("attempt failed", extra={**self._context.fields, "reason": reason})

    def _silence(self, grace: float = GRACE) -> ObservedJob | None:
        """Stop the container and return it; None if there is none, or if the engine could not stop it. In
        that case `_stuck` says why, and the sweep keeps trying. Raises ShuttingDown.
        """
        if self._stuck:
            return None
        try:
            return self._engine.while_running(lambda: self._stopped(grace), STOPPING)
        except (ShuttingDown, RunEnded):
            raise
        except Exception as error:  # noqa: BLE001 - the attempt has to come to an end
            why = self._failure_of(error).message
            self._stuck = Localizable(
                "; its container could not be stopped, and will be removed as soon as possible: {why}",
                why=why,
            )
            return None

    def _stopped(self, grace: float) -> ObservedJob | None:
        job = self._deps.jobs.find(self._context.name)
        if job and job.state in (JobState.RUNNING, JobState.PENDING):
            self._deps.jobs.stop(job.id, grace)
            job = self._deps.jobs.find(self._context.name)
        if job and job.state is JobState.RUNNING:
            raise Transient(
                Reason.ENGINE_FAILED, Localizable("the container still runs although it was stopped")
            )
        return job

    def _remove(self) -> None:
        """Remove the container. If that fails, the sweep removes it."""
        with suppress(ControllerError):
            if job := self._deps.jobs.find(self._context.name):
                self._deps.jobs.remove(job.id)


def _to_canceling(at: float) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        return stage if stage.state is RunState.CANCELING else stage.to(RunState.CANCELING, at)

    return change
