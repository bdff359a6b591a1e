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
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from controller.domain.apps.environment import variables
from controller.domain.apps.mounts import OURS
from controller.domain.errors import ControllerError, MountMismatch, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import is_build, job_name
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage, env_name, mount_path
from controller.domain.runs.run import Run, RunOutput, RunState, StageRun, reused_reason
from controller.domain.runs.steps import PLATFORM_PAUSES, after_failure
from controller.domain.secret import Secret
from controller.domain.units import render_duration
from controller.ports import Job, JobMount, JobState, ObservedJob
from controller.runner.contents import open_up
from controller.runner.deps import RunnerDeps
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
from controller.runner.folders import RunFolders
from controller.runner.group_locks import GroupLocks
from controller.runner.inputs import RunInputs, StagingHooks
from controller.runner.logs import follow
from controller.runner.outputs import (
    Publication,
    guarded,
    publication,
    publish,
    require_place,
    require_space,
)
from controller.runner.record import RunEnded, RunRecord
from controller.runner.signals import Canceled, RunSignals, ShuttingDown
from controller.runner.traces import record_attempt, trace_variables

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
PROGRESS = f"{OURS}/progress"  # a folder in containers
_KEPT = Localizable(
    "; the outputs of the stage are kept, and `retry` publishes them without running the stage again"
)
_DRAIN = 60.0  # seconds that the rest of an ended container's log may take
_SETTLE = 2.0  # seconds after which people see that the rest of the log is still being read
_STAGING = 3600.0  # seconds that the inputs of an attempt may take, whatever its timeout
_LOOK = 1.0  # seconds between looks at a container that the engine has accepted and does not run yet
_NOT_BEGUN = (JobState.CREATED, JobState.PENDING)
_WATCH = 60.0  # seconds after which waiting starts again
_AWAY = Reason.ENGINE_UNREACHABLE  # the only error that says nothing about this attempt
_STOPPING = 300.0  # seconds for which an unreachable engine may delay the record of an attempt's end


@dataclass(frozen=True)
class StageWork:
    """What the attempts of one run need. `background` runs tasks besides them; `wake` signals that an
    attempt's end was recorded.
    """

    deps: RunnerDeps
    record: RunRecord
    folders: RunFolders
    inputs: RunInputs
    turns: GroupLocks
    signals: RunSignals
    background: Executor
    wake: Callable[[], None]
    overfull: Callable[[], str] = str  # why the run takes too much of the disk, "" if it does not


class AttemptWork:
    """The attempt `number` of a stage, its newest one."""

    def __init__(self, work: StageWork, stage: Stage, number: int) -> None:
        self._work = work
        self._deps = work.deps
        self._signals = work.signals
        self._stage = stage
        self._number = number
        self._noted = ""  # the reason for waiting
        self._stuck = ""  # why the container could not be stopped, as a text
        record = work.record
        self._name = job_name(work.deps.settings.instance, record.app, record.id, stage.name, number)

    def carry_out(self) -> None:
        """Carry out the attempt to its end, which is then recorded, or until the daemon ends. Raises no
        expected exception.
        """
        with suppress(ShuttingDown, RunEnded):
            try:
                self._execute()
                self._deliver()
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
                record_attempt(self._deps.tracer, self._work.record.load(), self._stage.name, self._number)

    def _failure_of(self, error: Exception) -> StageFailure:
        match error:
            case StageFailed():
                return error.failure
            case ControllerError():
                return failure_of_error(error)
            case OSError():
                return failure_of_disk(error)
        log.error("bug in an attempt", exc_info=error, extra=self._fields)
        return BUG

    # --- until its result is written down ----------------------------------------------------------------------

    def _execute(self) -> None:
        """Run the command. Raises StageFailed, Canceled."""
        stage = self._written()
        if stage.attempts[-1].ended:
            return
        self._work.folders.prepare()
        if stage.reused_from:
            if stage.state is RunState.STARTING:
                self._work.record.update(self._running)
            return
        job = self._create() if stage.state is RunState.STARTING else self._find()
        if job is None:
            raise StageFailed(LOST)
        fresh = job.state in _NOT_BEGUN
        if fresh and stage.state is RunState.CANCELING:
            raise Canceled
        self._write_result(self._watch(self._started(job), fresh))

    def _create(self) -> ObservedJob:
        run = self._work.record.load()
        self._check_before(run)
        job = self._job(self._work.record.load())
        created = self._at_first(lambda: self._created(job))
        self._work.record.update(self._running)
        return created

    def _created(self, job: Job) -> ObservedJob:
        """Create the container. If its image was removed by hand, pull it again from its registry."""
        try:
            return self._deps.jobs.create(job)
        except ControllerError as error:
            if error.reason != Reason.IMAGE_GONE:
                raise
        self._bring_image(self._stage)
        return self._deps.jobs.create(replace(job, image=self._stage.image))

    def _bring_image(self, stage: Stage) -> None:
        """Pull the image; if it was built here, build it again from its commit, whatever commit the app is
        at.
        """
        run = self._work.record.load()
        try:
            self._deps.pull(run.app, stage.image)
        except Stalled as error:
            if error.reason != Reason.IMAGE_NOT_FOUND or not is_build(stage.image, run.app):
                raise
            self._build_image(run, stage)

    def _build_image(self, run: Run, stage: Stage) -> None:
        commit = run.pipeline.revision[:12]
        gone = Localizable(
            "the image of stage {stage!r}, of commit {commit}, is gone from the engine",
            stage=stage.name,
            commit=commit,
        )
        self._show_reason(Reason.BUILDING_IMAGE, Localizable("{gone} and is being built again", gone=gone))
        try:
            image = self._deps.rebuild(run.pipeline, stage.name)
        except Stalled as error:
            message = Localizable(
                "{gone} and cannot be built again ({error}): load it again, or start a new run, "
                "which runs the current commit",
                gone=gone,
                error=error.message,
            )
            raise Stalled(Reason.IMAGE_NOT_FOUND, message) from error
        self._show_reason(Reason.NONE, "")
        if image != stage.image:
            self._work.record.update(
                lambda run: replace(run, pipeline=run.pipeline.with_image(stage.image, image))
            )
        if self._stage.image == stage.image:
            self._stage = replace(self._stage, image=image)

    def _running(self, run: Run) -> Run:
        if run.state is RunState.CANCELING:
            raise Canceled
        if run.state is RunState.STARTING:
            run = run.to(RunState.RUNNING, self._now())
        return run.with_stage(run.stage(self._stage.name).to(RunState.RUNNING, self._now()))

    def _started(self, job: ObservedJob) -> ObservedJob:
        begun = self._at_first(lambda: self._start(job)) if job.state is JobState.CREATED else job
        return self._admitted(begun) if begun.state is JobState.PENDING else begun

    def _admitted(self, job: ObservedJob) -> ObservedJob:
        """Wait until the engine runs or refuses the container that it has accepted. Raises StageFailed, Canceled."""
        clock, limit = self._deps.clock, self._deps.settings.runs.start_deadline
        begun = clock.monotonic()
        while job.state is JobState.PENDING:
            if clock.monotonic() - begun >= limit:
                raise StageFailed(not_started(job, limit))
            self._show_reason(
                Reason.START_PENDING, Localizable("the engine does not run it yet: {job}", job=job.detail)
            )
            self._signals.pause(_LOOK)
            found = self._find()
            if found is None:
                raise StageFailed(LOST)
            job = found
        self._show_reason(Reason.NONE, "")
        return job

    def _start(self, job: ObservedJob) -> ObservedJob:
        """Start the container. An engine that did not answer may have started it nevertheless."""
        try:
            return self._deps.jobs.start(job.id)
        except MountMismatch as error:
            raise StageFailed(self._misplaced(error)) from error
        except Transient as error:
            found = self._deps.jobs.find(self._name)
            if found is None:
                raise StageFailed(LOST) from error
            if found.state is JobState.CREATED:
                raise
            return found

    def _misplaced(self, error: MountMismatch) -> StageFailure:
        """Return the failure of a mount: only a variable of a file can be mounted onto a file, and only one
        of a folder onto a folder.
        """
        run = self._work.record.load()
        names = (*self._stage.inputs, *self._stage.outputs)
        name = next((n for n in names if mount_path(run.pipeline.var(n)) == error.target), None)
        place = name and self._place(run, name)
        if not place:
            return failure_of_error(error)
        reason = Reason.INPUT_INVALID if name in self._stage.inputs else Reason.OUTPUT_INVALID
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
            stage = self._written()
            if stage.state is RunState.CANCELING or stage.attempts[-1].reason in (TIMEOUT, STORAGE_FULL):
                return self._silence()  # a daemon died while it stopped the container
            overdue = self._overdue(job, fresh)
            while not (ended := self._wait(job, overdue)):
                if self._signals.canceled():
                    self._write(_to_canceling(self._now()))
                    return self._silence()
                if why := self._work.overfull():
                    self._write(partial(StageRun.note, reason=STORAGE_FULL, message=why))
                    return self._silence(grace=0.0)  # each second of it costs all apps of the host
                if overdue():
                    self._write(lambda stage: stage.note(reason=TIMEOUT))
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

        waited = self._surely(wait, self._deps.settings.runs.lost_after, interrupted)
        self._signals.check_halted()
        if waited or not interrupted():
            return waited
        with suppress(Transient):  # it may have ended at this moment, which was too late
            found = self._deps.jobs.find(self._name)
            return found if found and found.state.is_over else None
        return None

    def _overdue(self, job: ObservedJob, fresh: bool) -> Callable[[], bool]:
        """Return whether the timeout has passed. Clocks may be set, so time is measured while we watch; for
        the time before that, the engine's start time counts.
        """
        clock, limit = self._deps.clock, self._stage.timeout
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
        path = self._work.folders.log(self._stage.name, self._number)
        limit = self._deps.settings.runs.log_max

        def stop() -> bool:
            return enough or self._signals.stopping()

        following = self._work.background.submit(
            follow, self._deps.jobs, job.id, path, limit, self._deps.clock, stop, lambda: ended
        )
        try:
            yield
            ended = not self._stuck
            if ended and wait([following], timeout=_SETTLE).not_done:
                self._show_reason(
                    Reason.READING_LOG, Localizable("the command has ended; reading the rest of its log")
                )
                wait([following], timeout=_DRAIN)
        finally:
            enough = True
            following.result()

    def _write_result(self, job: ObservedJob | None) -> None:
        """Record the result. Raises StageFailed or Canceled if it is not a success."""
        stage = self._written()
        if stage.state is RunState.CANCELING:
            raise Canceled
        if stage.attempts[-1].reason == STORAGE_FULL:
            full = too_much(stage.attempts[-1].message)
            raise StageFailed(replace(full, exit_code=job.exit_code if job else None))
        if stage.attempts[-1].reason == TIMEOUT:
            raise StageFailed(replace(too_slow(self._stage), exit_code=job.exit_code if job else None))
        if job is None:
            raise StageFailed(LOST)
        if failure := failure_of_job(job, self._stage):
            raise StageFailed(replace(failure, exit_code=job.exit_code))
        self._write(lambda stage: stage.end_attempt(self._now(), exit_code=job.exit_code))

    # --- what the container is made of -------------------------------------------------------------------------

    def _job(self, run: Run) -> Job:
        self._work.folders.prepare_attempt(self._stage.name, self._number, self._stage.outputs)
        check = self._in_time()
        env, mounts = self._env(run), [self._mount(PROGRESS, self._progress_folder, read_only=False)]
        for name in (*self._stage.inputs, *self._stage.outputs):
            place = self._place(run, name, check)
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
            read_only_root=self._stage.read_only_root,
        )

    def _in_time(self) -> Callable[[], None]:
        """Return a function that raises ShuttingDown, Canceled, and StageFailed once the inputs have taken
        too long."""
        clock, timeout = self._deps.clock, self._stage.timeout
        limit = math.inf if timeout is None else max(timeout, _STAGING)
        begun = clock.monotonic()

        def check() -> None:
            self._signals.check()
            if why := self._work.overfull():
                raise StageFailed(too_much(why))
            if clock.monotonic() - begun > limit:
                raise StageFailed(
                    StageFailure(
                        TIMEOUT,
                        Localizable("its inputs did not arrive within {limit}", limit=render_duration(limit)),
                    )
                )

        return check

    def _place(self, run: Run, name: str, check: Callable[[], None] | None = None) -> Path | None:
        if name in self._stage.inputs:
            hooks = StagingHooks(check or self._signals.check, self._note_turn)
            return self._work.inputs.bring(run, name, hooks)
        return self._work.folders.output(self._stage.name, self._number, name)

    def _mount(self, target: str, source: Path, read_only: bool) -> JobMount:
        return JobMount(self._work.folders.volume(source), target, read_only)

    @property
    def _progress_folder(self) -> Path:
        return self._work.folders.progress(self._stage.name, self._number)

    def _env(self, run: Run) -> dict[str, Secret]:
        """Return the module's variables, and those of the platform, which take precedence."""
        env: dict[str, Secret] = {}
        for name in self._stage.env_from:
            found = self._deps.secret(run.app, name, run.pipeline.revision)
            if found is None:
                how = f"prichal secret set {run.app} {name} KEY"
                raise Stalled(
                    Reason.SECRET_MISSING,
                    Localizable("the Secret {name!r} does not exist: set it with: {how}", name=name, how=how),
                )
            env |= variables(found)
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
        ours |= trace_variables(self._deps.tracer, run, self._stage.name, self._number)
        return env | {name: Secret(value) for name, value in ours.items()}

    # --- what it has made --------------------------------------------------------------------------------------

    def _check_before(self, run: Run) -> None:
        """Report known obstacles to the end of the run before the work starts. Raises StageFailed."""
        if not run.pipeline.boxes and not self._deps.keeps_files and run.handed_out:
            raise StageFailed(StageFailure(Reason.OUTPUT_INVALID, _no_box(run), final=True))
        left = [stage for stage in run.pipeline.stages if not run.stage(stage.name).is_kept]
        try:
            for stage in {stage.image: stage for stage in reversed(left)}.values():
                self._require_image(stage)
            for output in run.to_publish:
                self._require_place(run, output)
        except Stalled as error:
            raise StageFailed(replace(failure_of_error(error), final=True)) from error

    def _require_image(self, stage: Stage) -> None:
        """Raise Stalled if the image is missing. One of a registry can still be pulled later."""
        with suppress(Transient):
            if "@" not in stage.image and not self._deps.jobs.has_image(stage.image):
                self._bring_image(stage)

    def _require_place(self, run: Run, output: RunOutput) -> None:
        """Raise Stalled if the output has no place. A storage that does not answer now may do so at the end."""
        target = publication(self._deps, run, output, self._work.folders.root)
        with suppress(Transient):
            objects = self._deps.storage.objects()
            require_place(objects, target)
            require_space(self._deps, objects, target)

    def _deliver(self) -> None:
        run = self._work.record.load()
        folders = {name: self._output(run, name) for name in self._stage.outputs}
        reused = run.stage(self._stage.name).reused_from
        if not reused:
            for folder in folders.values():
                self._open_up(folder)
        for output in run.handed_out if run.pipeline.boxes else ():
            if output.name in folders:
                self._publish(publication(self._deps, run, output, folders[output.name]))
        progress = self._work.folders.read_progress(self._stage.name, self._number)
        why = reused_reason(reused) if reused else ()
        self._write(
            lambda stage: replace(
                stage.end_attempt(self._now()).to(RunState.SUCCEEDED, self._now(), *why), progress=progress
            )
        )

    def _open_up(self, folder: Path) -> None:
        """Make the output readable. If files of root are closed to this process, a container changes them."""
        try:
            open_up(folder)
        except Stalled as error:
            refused = isinstance(error.__cause__, PermissionError)
            if not refused or self._deps.unlock is None:
                raise
            self._deps.unlock(self._work.folders.volume(folder), self._stage.image)
            open_up(folder)

    def _publish(self, target: Publication) -> None:
        """Publish an output. If the storage does not answer, wait: running the stage again would not help."""
        with guarded(self._deps, target):
            for pause in PLATFORM_PAUSES:
                self._signals.check()
                try:
                    return self._publish_in_turn(target)
                except Transient as error:
                    self._show_reason(
                        error.reason,
                        Localizable("could not publish yet, trying again: {error}", error=error.message),
                    )
                self._signals.pause(pause)
            try:
                return self._publish_in_turn(target)
            except Transient as error:
                raise StageFailed(replace(failure_of_error(error), final=True)) from error

    def _publish_in_turn(self, target: Publication) -> None:
        turn = self._work.turns.acquire(
            target.bucket, target.prefix, self._signals.check, lambda: self._note_turn(target.group)
        )
        with turn:
            publish(self._deps, self._signals, target)

    def _output(self, run: Run, name: str) -> Path:
        """Return where this stage, or the run that this one repeats, has put an output."""
        if run.stage(self._stage.name).reused_from:
            return self._work.inputs.bring(run, name) or Path()
        return self._work.folders.output(self._stage.name, self._number, name)

    def _note_turn(self, group: str) -> None:
        self._show_reason(
            Reason.WAITING_FOR_GROUP,
            Localizable("waiting until other runs have finished with the group {group!r}", group=group),
        )

    # --- its end -----------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        self._write(_to_canceling(self._now()))
        job = self._silence()
        code = job.exit_code if job else None
        run = self._work.record.load()  # it has the reason of the cancellation
        message = run.message + self._stuck

        def over(stage: StageRun) -> StageRun:
            how = {"exit_code": code, "reason": run.reason, "message": message}
            ended = stage.end_attempt(self._now(), unpublished=stage.has_made_it, **how)
            return ended.to(RunState.CANCELED, self._now(), run.reason, message)

        self._write(over)

    def _fail(self, failure: StageFailure) -> None:
        """Record the failure. Nothing of the attempt may run any more, since another attempt may follow at
        once. If that is not certain, none follows.
        """
        written = self._written()
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
                self._now(),
                reason=reason,
                message=message,
                platform=failure.platform,
                unpublished=made,
                **known,
            )
            platform, at = failure.platform, self._now()
            last = final or (bool(stage.reused_from) and not platform)
            after = after_failure(ended, self._stage, at, reason, message, platform=platform, final=last)
            if not made or after.state is RunState.QUEUED:
                return after
            return ended.to(after.state, at, reason, message + _KEPT)

        self._write(over)
        log.info("attempt failed", extra={**self._fields, "reason": reason})

    def _silence(self, grace: float = GRACE) -> ObservedJob | None:
        """Stop the container and return it; None if there is none, or if the engine could not stop it. In
        that case `_stuck` says why, and the sweep keeps trying. Raises ShuttingDown.
        """
        if self._stuck:
            return None
        try:
            return self._surely(lambda: self._stopped(grace), _STOPPING)
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
        job = self._deps.jobs.find(self._name)
        if job and job.state in (JobState.RUNNING, JobState.PENDING):
            self._deps.jobs.stop(job.id, grace)
            job = self._deps.jobs.find(self._name)
        if job and job.state is JobState.RUNNING:
            raise Transient(
                Reason.ENGINE_FAILED, Localizable("the container still runs although it was stopped")
            )
        return job

    def _remove(self) -> None:
        """Remove the container. If that fails, the sweep removes it."""
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
        """Return the container in any state. Raises ShuttingDown, Canceled."""
        limit = self._deps.settings.runs.lost_after
        return self._insist(
            lambda: self._deps.jobs.find(self._name), limit, PLATFORM_PAUSES, self._signals.pause
        )

    # --- how long an engine that fails is borne with -----------------------------------------------------------

    def _at_first(self, call: Callable[[], T]) -> T:
        """Make a call before the command runs: wait if the engine is away, without counting an attempt; any
        other error ends the attempt, and nothing is lost. Raises ShuttingDown, Canceled.
        """
        limit = self._deps.settings.runs.lost_after
        if self._stage.timeout is not None:
            limit = min(limit, max(self._stage.timeout, _STOPPING))
        return self._insist(call, limit, (), self._signals.pause)

    def _surely(self, call: Callable[[], T], limit: float, until: Callable[[], bool] = lambda: False) -> T:
        """Make a call while the command may run: only the engine can tell, so a few errors are tolerated.
        Pauses end early once `until()` is true. Raises ShuttingDown.
        """
        return self._insist(call, limit, PLATFORM_PAUSES, lambda seconds: self._signals.rest(seconds, until))

    def _insist(
        self, call: Callable[[], T], limit: float, pauses: Sequence[float], rest: Callable[[float], None]
    ) -> T:
        """Retry for `limit` seconds while the engine is away, and after other errors as often as there are
        `pauses`. The stage shows people what is waited for.
        """
        pauses_left, since = list(pauses), None
        while True:
            try:
                self._signals.check_halted()
                answer = call()
            except Transient as error:
                now = self._deps.clock.monotonic()
                since = now if since is None else since
                if error.reason == _AWAY and now - since < limit:
                    pause = 1.0
                elif error.reason not in (_AWAY, LOST.reason) and pauses_left:
                    pause = pauses_left.pop(0)
                elif error.reason == _AWAY:
                    raise StageFailed(replace(failure_of_error(error), final=True)) from error
                else:
                    raise
                self._show_reason(error.reason, Localizable("trying again: {error}", error=error.message))
            else:
                if since is not None:
                    self._show_reason(Reason.NONE, "")
                return answer
            rest(pause)

    def _show_reason(self, reason: Reason, message: str) -> None:
        """Show people what is waited for. The text of the same reason stays, since it may change with each
        try.
        """

        def noted(stage: StageRun) -> StageRun:
            known = stage.reason == reason or not stage.active
            return stage if known else replace(stage, reason=reason, message=message)

        if reason and reason != self._noted:
            log.warning("%s", message, extra={**self._fields, "reason": reason})
        self._noted = reason
        self._write(noted)


def _no_box(run: Run) -> str:
    names = ", ".join(output.name for output in run.handed_out)
    return Localizable(
        "the pipeline has no connected box for its outputs ({names}): connect one with "
        "`connectedBoxes`, or use `publishTo`",
        names=names,
    )


def _to_canceling(at: float) -> Callable[[StageRun], StageRun]:
    def change(stage: StageRun) -> StageRun:
        return stage if stage.state is RunState.CANCELING else stage.to(RunState.CANCELING, at)

    return change
