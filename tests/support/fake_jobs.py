"""`FakeJobs`: the port `Jobs` in memory, for tests of the runner. Held to `tests/contract/jobs_contract.py` like the
real one. Scripted through its public attributes and the methods under "script"; no call takes any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.volumes import Volume
from controller.ports import Job, JobState, ObservedJob

#: Seconds between looks at `stop()`.
PAUSE = 0.02


@dataclass
class FakeJob:
    """`job` is None for a foreign container."""

    job: Job | None
    seen: ObservedJob
    log: bytearray = field(default_factory=bytearray)


class FakeJobs:
    """Thread-safe. `images` are those on the host; a place in a log is the number of bytes before it."""

    def __init__(
        self, instance: str = "prichal", images: Iterable[str] = (), now: Callable[[], float] = lambda: 1.0
    ) -> None:
        self.instance = instance
        self.images = set(images)
        self.unknown_commands: set[str] = set()
        self.create_failures: dict[str, ControllerError] = {}  # stage -> what `create` raises
        self.networks: int | None = None  # how many apps may have one; None: all
        self.start_failures: dict[str, ControllerError] = {}  # stage -> what `start` raises
        self.exits_at_start: dict[str, int] = {}  # stage -> exit code right after its start
        self.pends: dict[str, str] = {}  # stage -> why its container does not run at once
        self.on_call: Callable[[str, str], None] = lambda call, stage: None  # before each call; may raise
        self.on_start: Callable[[Job, str], None] = lambda job, id: None  # what the command does at once
        self.scratch: dict[
            str, int
        ] = {}  # stage -> bytes that its containers have written beside their outputs
        self.volumes: set[Volume] = set()  # what is there to be mounted
        self.look: Callable[[Volume], object] = self._look  # looks one up; may raise
        self.made: list[Job] = []
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.removals: list[str] = []
        self.closed = False
        self._down = False
        self._now = now
        self._numbers = count(1)
        self._jobs: dict[str, FakeJob] = {}
        self._changed = threading.Condition(threading.RLock())

    # --- script ------------------------------------------------------------------------------------------------

    def exit(self, id: str, code: int = 0, oom_killed: bool = False, interrupted: bool = False) -> None:
        """The command ends by itself, or is killed."""
        with self._changed:
            found = self._jobs[id]
            found.seen = replace(
                found.seen,
                state=JobState.ENDED,
                ended=self._now(),
                exit_code=code,
                oom_killed=oom_killed,
                interrupted=interrupted,
            )
            self._changed.notify_all()

    def vanish(self, id: str) -> None:
        """A person removes the container."""
        with self._changed:
            del self._jobs[id]
            self._changed.notify_all()

    def admit(self, id: str) -> None:
        """The engine runs what it had accepted."""
        self._turn(id, JobState.PENDING, state=JobState.RUNNING, detail="", started=self._now())
        job = self._jobs[id].job
        assert job
        self.on_start(job, id)

    def refuse(self, id: str, detail: str) -> None:
        """The engine will not run what it had accepted."""
        self._turn(id, JobState.PENDING, state=JobState.REFUSED, detail=detail)

    def lose(self, id: str, detail: str = "") -> None:
        """The node does not answer any more."""
        self._turn(id, JobState.RUNNING, state=JobState.LOST, detail=detail)

    def find_again(self, id: str) -> None:
        """The node of a lost one answers again."""
        self._turn(id, JobState.LOST, state=JobState.RUNNING, detail="")

    def _turn(self, id: str, before: JobState, **now: object) -> None:
        with self._changed:
            found = self._jobs[id]
            assert found.seen.state is before
            found.seen = replace(found.seen, **now)  # type: ignore[arg-type]
            self._changed.notify_all()

    def say(self, id: str, content: bytes) -> None:
        """The command writes to stdout or stderr."""
        with self._changed:
            self._jobs[id].log += content.decode("utf-8", "replace").encode()  # as the engine keeps it
            self._changed.notify_all()

    def take_name(self, name: str) -> str:
        """A container that is not ours has the name."""
        with self._changed:
            id = f"{next(self._numbers):064x}"
            seen = ObservedJob(id, name, AppName(""), "", "", 0, JobState.RUNNING)
            self._jobs[id] = FakeJob(None, seen)
            return id

    @property
    def down(self) -> bool:
        """The engine is away; containers go on."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        with self._changed:
            self._down = down
            self._changed.notify_all()

    def names(self) -> list[str]:
        """Of all containers, foreign ones too."""
        with self._changed:
            return sorted(found.seen.name for found in self._jobs.values())

    # --- the port ----------------------------------------------------------------------------------------------

    def create(self, job: Job) -> ObservedJob:
        self._require_up("create", job.stage)
        with self._changed:
            if job.stage in self.create_failures:
                raise self.create_failures[job.stage]
            found = self._named(job.name)
            if found is None:
                return self._add(job)
            mine = (job.app, job.run, job.stage, job.attempt)
            if (
                found.job is None
                or (found.job.app, found.job.run, found.job.stage, found.job.attempt) != mine
            ):
                raise Stalled(Reason.NAME_TAKEN, f"cannot create {job.name}: another container has that name")
            return found.seen

    def prepare(self, app: AppName) -> None:
        self._require_up("prepare")
        with self._changed:
            others = {found.job.app for found in self._jobs.values() if found.job} - {app}
            if self.networks is not None and len(others) >= self.networks:
                raise Transient(Reason.ADDRESSES_EXHAUSTED, "no subnet is left for another network")

    def written(self) -> Iterable[tuple[ObservedJob, int]]:
        with self._changed:
            found = [each.seen for each in self._jobs.values() if each.job]
        running = (seen for seen in found if seen.state is JobState.RUNNING)
        return tuple((seen, self.scratch.get(seen.stage, 0)) for seen in running)

    def has_image(self, reference: str) -> bool:
        self._require_up("has_image")
        with self._changed:
            return reference in self.images

    def start(self, id: str) -> ObservedJob:
        self._require_up("start", self._stage_of(id))
        with self._changed:
            found = self._present(id)
            assert found.job
            if found.seen.state is not JobState.CREATED:
                return found.seen
            stage = found.job.stage
            if stage in self.start_failures:
                raise self.start_failures[stage]
            if found.job.command and found.job.command[0] in self.unknown_commands:
                text = f"cannot start container {id[:12]}: {found.job.image} has no {found.job.command[0]}"
                raise Stalled(Reason.COMMAND_NOT_FOUND, text)
            self.starts.append(found.seen.name)
            if stage in self.pends:
                found.seen = replace(found.seen, state=JobState.PENDING, detail=self.pends[stage])
                self._changed.notify_all()
                return found.seen
            found.seen = replace(found.seen, state=JobState.RUNNING, started=self._now())
            if stage in self.exits_at_start:
                self.exit(id, self.exits_at_start[stage])
            self._changed.notify_all()
        self.on_start(found.job, id)
        return found.seen

    def find(self, name: str) -> ObservedJob | None:
        self._require_up("find", name.split(".")[-2])
        with self._changed:
            found = self._named(name)
            return found.seen if found and found.job else None

    def all(self) -> tuple[ObservedJob, ...]:
        self._require_up("all")
        with self._changed:
            return tuple(sorted((f.seen for f in self._jobs.values() if f.job), key=lambda seen: seen.name))

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        while not stop():
            self._require_up("wait", self._stage_of(id))
            with self._changed:
                seen = self._present(id).seen
                if seen.state.is_over:
                    return seen
                self._changed.wait(PAUSE)
        return None

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        at = int(after or 0)
        while not stop():
            self.on_call("logs", self._stage_of(id))
            with self._changed:
                found = None if self._down else self._present(id)
                new = bytes(found.log[at:]) if found else b""
                ended = found is not None and found.seen.state.is_over
                if not ended:
                    new = new[: new.rfind(b"\n") + 1]  # the engine keeps lines
                if ended and not new:
                    return
                if not new:
                    self._changed.wait(PAUSE)
            if new:
                at += len(new)
                yield str(at), new

    def stop(self, id: str, grace: float) -> None:
        self._require_up("stop", self._stage_of(id))
        with self._changed:
            found = self._owned(id, "stop")
            if found is None:
                return
            self.stops.append(found.seen.name)
            if found.seen.state is JobState.RUNNING:
                self.exit(id, 143)
            if found.seen.state is JobState.PENDING:
                found.seen = replace(found.seen, state=JobState.ENDED, detail="", ended=self._now())
                self._changed.notify_all()

    def remove(self, id: str) -> None:
        self._require_up("remove", self._stage_of(id))
        with self._changed:
            found = self._owned(id, "remove")
            if found is None:
                return
            self.removals.append(found.seen.name)
            self.vanish(id)

    def close(self) -> None:
        self.closed = True

    # --- inside ------------------------------------------------------------------------------------------------

    def _require_up(self, call: str, stage: str = "") -> None:
        self.on_call(call, stage)
        if self._down:
            raise Transient(Reason.ENGINE_UNREACHABLE, "the engine does not answer")

    def _look(self, volume: Volume) -> None:
        if volume not in self.volumes:
            raise Transient(Reason.MOUNT_GONE, f"{volume} does not exist")

    def _stage_of(self, id: str) -> str:
        with self._changed:
            found = self._jobs.get(id)
            return found.job.stage if found and found.job else ""

    def _named(self, name: str) -> FakeJob | None:
        return next((found for found in self._jobs.values() if found.seen.name == name), None)

    def _add(self, job: Job) -> ObservedJob:
        if job.image not in self.images:
            raise Transient(Reason.IMAGE_GONE, f"cannot create {job.name}: no such image: {job.image}")
        for mount in job.mounts:
            self.look(mount.volume)
        id = f"{next(self._numbers):064x}"
        seen = ObservedJob(id, job.name, job.app, job.run, job.stage, job.attempt, JobState.CREATED)
        self._jobs[id] = FakeJob(job, seen)
        self.made.append(job)
        return seen

    def _owned(self, id: str, verb: str) -> FakeJob | None:
        found = self._jobs.get(id)
        if found and found.job is None:
            raise Stalled(Reason.NOT_OURS, f"cannot {verb} container {id[:12]}: it is not ours")
        return found

    def _present(self, id: str) -> FakeJob:
        found = self._owned(id, "use")
        if found is None:
            raise Transient(Reason.CONTAINER_LOST, f"container {id[:12]} was removed while it was waited for")
        return found
