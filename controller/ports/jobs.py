"""Jobs: containers that run to their end, for the stages of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Protocol

from controller.domain.apps.spec import Resources
from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.domain.volumes import Volume


@dataclass(frozen=True)
class JobMount:
    """A folder or file in a job's container."""

    volume: Volume
    target: str
    read_only: bool


@dataclass(frozen=True)
class Job:
    """An attempt of a stage as a container. `name` is deterministic, so a container with it is this attempt.
    `env` has secrets, hence no repr."""

    name: str
    app: AppName
    run: str
    stage: str
    attempt: int
    image: str
    _: KW_ONLY
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    mounts: tuple[JobMount, ...] = ()
    resources: Resources
    gpus: tuple[str, ...] = ()  # ids of those that it gets, as many as `resources` say
    read_only_root: bool


class JobState(StrEnum):
    CREATED = "created"  # made, never started
    PENDING = "pending"  # started, and not running yet: the engine has accepted it
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"  # accepted at first; the engine will not run it
    LOST = "lost"  # its node does not answer, so it is unknown whether it runs

    @property
    def is_over(self) -> bool:
        """Return True if there is nothing to wait for."""
        return self in (JobState.ENDED, JobState.REFUSED, JobState.LOST)


@dataclass(frozen=True)
class ObservedJob:
    """`started` and `ended` are Unix seconds by the engine's clock; 0 before that. `detail`: why it
    is PENDING, REFUSED or LOST, in the engine's words."""

    id: str
    name: str
    app: AppName
    run: str
    stage: str
    attempt: int
    state: JobState
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    oom_killed: bool = False
    interrupted: bool = False  # it was killed because the engine was stopped or died
    detail: str = ""


class Jobs(Protocol):
    """Containers that run to their end. It changes only jobs with our instance label. The engine never
    removes a container by itself: an ended container is the result until that is recorded."""

    def create(self, job: Job) -> ObservedJob:
        """Create the container without starting it. One with that name and of this attempt is adopted in any
        state; a foreign one is Stalled `NameTaken`. It creates the app's network if necessary. Raises
        Transient `ImageGone`, `MountGone`, `NameBusy`."""

    def prepare(self, app: AppName) -> None:
        """Create the network that containers of the app share. Raises Transient `AddressesExhausted` if the
        engine has none left for now."""

    def has_image(self, reference: str) -> bool:
        """Return True if a container could be made from it now."""

    def start(self, id: str) -> ObservedJob:
        """Start the container; one that was started already is fine, even if it has ended. Raises Stalled
        `CommandNotFound`, MountMismatch and others if it cannot start, and Transient `ContainerLost`. An
        engine that decides later returns it as PENDING; then it runs, or is REFUSED if only another input can
        help."""

    def find(self, name: str) -> ObservedJob | None: ...

    def all(self) -> tuple[ObservedJob, ...]:
        """Return all jobs of this instance, sorted by name."""

    def written(self) -> Iterable[tuple[ObservedJob, int]]:
        """Return running jobs with the bytes that they have written into their own file systems."""

    def wait(self, id: str, stop: Callable[[], bool]) -> ObservedJob | None:
        """Return the container once it has ended, is refused or lost; None once `stop()` turns true.
        Transient `ContainerLost`: it was removed, and as the engine's errors are: the caller may wait
        again."""

    def logs(self, id: str, after: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """Yield stdout and stderr in pieces, each with the position in the log after it, until the container
        has ended, is refused or lost, or `stop()` turns true. `after` is the position of the last received
        piece, "" for the start: nothing is lost or repeated, even over interruptions. Survives a restart of
        the engine. Transient `ContainerLost`.

        A line comes when it is complete, and what goes back to its start with `\\r` as it comes, if the
        container was started here; one above 1 MiB is cut. A container that writes faster than it is read
        here has to wait: go on with the iteration, or end it. What it writes while nobody reads is kept by
        the engine up to a limit; if more is missing, a line tells so."""

    def stop(self, id: str, grace: float) -> None:
        """Stop the container: SIGTERM, after `grace` seconds SIGKILL. One that has ended or is gone is fine,
        and so is one that is lost; one that is pending ends without exit code. Stalled `NotOurs`."""

    def remove(self, id: str) -> None:
        """Remove it, even while it runs. One that is gone is fine; Stalled `NotOurs`. One that is lost is
        given up: the engine ends it should its node come back."""

    def close(self) -> None: ...
