"""Scheduled runs: which tick is due, and what to do about it. Pure; called by `runner.cron_scheduler`. A tick
is a time that a schedule names. A Checkpoint stores which ticks have been handled, so that a restarted daemon
finds the ticks that it has missed, and starts one run for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller.domain.apps.spec import CronSchedule, Overlap
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.run import Run

#: The first tick of a schedule after a moment, both Unix seconds; infinity if none will come.
After = Callable[[float], float]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: the ticks of the schedule with this `cron` and `timezone` up to `at` are handled, and `next`
    is the one after. `skipping`: the last one was skipped. Times are Unix seconds."""

    cron: str
    timezone: str
    at: float
    next: float
    skipping: bool = False


@dataclass(frozen=True)
class ScheduleState:
    """A pipeline that can be run and has a schedule. `mark` is None before the first check."""

    app: AppName
    pipeline: ComponentName
    schedule: CronSchedule
    mark: Checkpoint | None = None

    @property
    def followed(self) -> Checkpoint | None:
        """Return the checkpoint, unless it belongs to an earlier version of the schedule."""
        mark = self.mark
        same = mark and (mark.cron, mark.timezone) == (self.schedule.cron, self.schedule.timezone)
        return mark if same else None


def check_ticks(scheduled: ScheduleState, now: float, after: After) -> tuple[Checkpoint, float | None]:
    """Return the new checkpoint, and the tick that is due, if there is one. A schedule that is new or was
    changed begins now. So does one whose last tick lies in the future, because the clock was set back. The
    code that starts runs makes sure that no tick that occurs again starts a second run."""
    mark = scheduled.followed
    if mark is None or now < mark.at:
        return Checkpoint(scheduled.schedule.cron, scheduled.schedule.timezone, now, after(now)), None
    if now < mark.next:
        return mark, None
    tick = _newest(mark.next, now, after)
    return Checkpoint(mark.cron, mark.timezone, tick, after(tick), mark.skipping), tick


def _newest(tick: float, now: float, after: After) -> float:
    """Return the last tick that is not after `now`, beginning with one that is not. Search by bisection: a
    minutely schedule has half a million ticks in a year."""
    end = now
    while (following := after(tick)) <= now:
        tick = following
        middle = (tick + end) / 2
        later = after(middle)
        if later <= now:
            tick = later
        else:
            end = middle
    return tick


@dataclass(frozen=True)
class Start:
    """Start a run, and cancel those that it replaces."""

    replaced: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Skip:
    """Start no run, because that one is not over."""

    behind: Run


def decide(overlap: Overlap, unfinished: Iterable[Run]) -> Start | Skip:
    """Decide what a due tick does. `unfinished` are the runs that the schedule has started and that are queued or
    under way."""
    earlier = tuple(unfinished)
    if earlier and overlap is Overlap.FORBID:
        return Skip(earlier[0])
    return Start(earlier if overlap is Overlap.REPLACE else ())
