"""Runs of pipelines: the queue with its limits, states, and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import EVERY_RUN, Run, RunCause, RunCount, RunFilter
from controller.domain.runs.schedules import Checkpoint, ScheduleState


@dataclass(frozen=True)
class QueueLimits:
    """The limits of one app's queue: `runs` that wait, and their `bytes` in the state, inputs included. A user has
    half of it at most."""

    runs: int
    bytes: int


@dataclass(frozen=True)
class RunLimits:
    """The number of runs at once, on this host and of one app. Each pipeline has a limit of its own."""

    host: int
    app: int


class Runs(Protocol):
    """Runs of pipelines, and the pipelines that can be run. Every change of a run is a compare-and-set."""

    def pipelines(self, app: AppName) -> tuple[Pipeline, ...]: ...

    def pipeline(self, app: AppName, name: ComponentName) -> Pipeline | None: ...

    def publish(self, app: AppName, pipelines: tuple[Pipeline, ...]) -> None:
        """Make exactly these runnable."""

    def submit(self, run: Run, key: str = "", digest: str = "", most: QueueLimits | None = None) -> Run:
        """Store the run and return it, or the earlier one of the same caller with that `key`. Raises Stalled
        `IdempotencyConflict` if the key was used with another `digest`, and Transient `QueueFull` if the
        queue of the app or of the caller is full."""

    def submitted(self, run: Run, key: str, digest: str) -> Run | None:
        """Return the earlier run with that key, unless the key is ""; errors as `submit`."""

    def get(self, app: AppName, id: str) -> Run | None: ...

    def brief(self, app: AppName, id: str) -> Run | None:
        """Return the run without the data of long inputs (`is_brief`), for those who follow it."""

    def versions(self, ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of the given runs that still exist."""

    def queued_size(self) -> Mapping[AppName, int]:
        """Return the bytes that waiting runs of each app take."""

    def owners(self, ids: Iterable[str]) -> Mapping[str, AppName]:
        """Return the apps of the runs that exist."""

    def is_gone(self, app: AppName, id: str, user: str | None = None) -> bool:
        """Return True if the run existed and has expired. `user` limits it to runs visible to them ("": callers
        without a name)."""

    def list(self, app: AppName, wanted: RunFilter = EVERY_RUN, limit: int = 100) -> tuple[Run, ...]:
        """Return a page of runs in brief, newest first. The next page begins `after` the last one of this page."""

    def active(self) -> tuple[Run, ...]:
        """Return the runs that have started and are not over."""

    def unfinished(self, app: AppName, limit: int | None = None) -> tuple[Run, ...]:
        """Return the queued and active runs, the oldest first."""

    def images(self, app: AppName) -> frozenset[str]:
        """Return the images of all stages of the queued and active runs."""

    def counts(self, app: AppName | None = None) -> tuple[RunCount, ...]:
        """Return the number of runs of each pipeline in each state, in that order, of one app or of all."""

    def ended_badly(self, app: AppName, limit: int) -> tuple[Run, ...]:
        """Return runs that can be repeated: FAILED, ERROR or CANCELED; newest first."""

    def last_ended(self, app: AppName) -> Run | None:
        """Return the finished run that was submitted last."""

    def claim(self, limits: RunLimits, now: float) -> Run | None:
        """Claim the next queued run within the limits, by priority, then age, and set it to STARTING."""

    def cancel(self, app: AppName, id: str, at: float) -> Run | None:
        """Cancel a run and return its new state; None if there is none. A run that is over or being canceled
        does not change."""

    def save(self, run: Run) -> Run | None:
        """Save the run if it was not changed since, and return it with its new version; else None."""

    def unfinished_of(self, app: AppName, pipeline: ComponentName, cause: RunCause) -> tuple[Run, ...]:
        """Return the runs with that `cause` that are not over, oldest first."""

    def expired(self, now: float) -> tuple[Run, ...]:
        """Return some of the runs that have expired (`Run.expires`), the oldest first."""

    def forget(self, runs: Iterable[Run]) -> None: ...


class Schedules(Protocol):
    """The progress of the schedules of runnable pipelines. It is deleted when a pipeline can no longer be run, or
    has no schedule any more."""

    def all(self, app: AppName | None = None) -> tuple[ScheduleState, ...]:
        """Sorted by app and pipeline."""

    def advance(self, scheduled: ScheduleState, to: Checkpoint) -> bool:
        """Save the checkpoint and return True, if the stored one is that of `scheduled` and the pipeline
        still has this schedule; else return False."""

    def take(self, app: AppName, pipeline: ComponentName, tick: float) -> bool:
        """Return False if this tick of the pipeline has been taken before. Ticks are remembered for 35 days."""
