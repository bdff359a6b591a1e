"""Runs that start by the clock: which tick is due, and what becomes of it. Pure; asked by `runner.cron_scheduler`.

A tick is a moment that a schedule names. How far its ticks have been dealt with is written down in a Mark, never
remembered: so a daemon that was away finds what it has missed, and makes up for it with one run.
"""

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
    """A pipeline that can be run and has a schedule. `mark` None: nobody has looked at it yet."""

    app: AppName
    pipeline: ComponentName
    schedule: CronSchedule
    mark: Checkpoint | None = None

    @property
    def followed(self) -> Checkpoint | None:
        """The mark, unless it is of what the schedule was before."""
        mark = self.mark
        same = mark and (mark.cron, mark.timezone) == (self.schedule.cron, self.schedule.timezone)
        return mark if same else None


def look(scheduled: ScheduleState, now: float, after: After) -> tuple[Checkpoint, float | None]:
    """The mark as it is to be, and the tick that is due, if one is.

    A schedule that is new, or another one than before, begins now. So does one whose last tick lies in the future:
    the clock was set back. The code that starts runs makes sure that no tick that occurs again starts a second
    run."""
    mark = scheduled.followed
    if mark is None or now < mark.at:
        return Checkpoint(scheduled.schedule.cron, scheduled.schedule.timezone, now, after(now)), None
    if now < mark.next:
        return mark, None
    tick = _newest(mark.next, now, after)
    return Checkpoint(mark.cron, mark.timezone, tick, after(tick), mark.skipping), tick


def _newest(tick: float, now: float, after: After) -> float:
    """The last tick that is not after `now`, beginning with one that is not. By halves: a minutely schedule that
    nobody looked at for a year has half a million."""
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
    """A run, in place of those that are not over."""

    replaced: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Skip:
    """No run: that one is not over."""

    behind: Run


def decide(overlap: Overlap, unfinished: Iterable[Run]) -> Start | Skip:
    """Decide what a due tick does. `unfinished` are the runs that the schedule has started and that are queued or
    under way."""
    earlier = tuple(unfinished)
    if earlier and overlap is Overlap.FORBID:
        return Skip(earlier[0])
    return Start(earlier if overlap is Overlap.REPLACE else ())
