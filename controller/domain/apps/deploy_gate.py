"""When a new commit, or a newer image that is followed, may be applied: not while the app is frozen, only in its
windows, and only if a person has approved it, as its PlatformApp says (`spec.deploy`). Pure.

Commits and images alone are held. The commit in force is repaired as always, and Secrets, models and rollbacks count at
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.units import render_duration, rfc3339

#: Returns the first tick of a cron expression in a time zone after a moment; the port `Ticks`.
TickAfter = Callable[[str, str, float], float]

_CHECK: Final = 3600.0  # seconds at most until it is looked again; a clock may be set meanwhile


@dataclass(frozen=True)
class DeployWindow:
    """Opens at each tick of `cron` in `timezone`, for `duration` seconds."""

    cron: str
    timezone: str
    duration: float


@dataclass(frozen=True)
class DeployRules:
    """Without windows every time is right."""

    frozen: bool
    approval: bool
    windows: tuple[DeployWindow, ...] = ()


@dataclass(frozen=True)
class HeldCommit:
    """Why a commit is not applied yet. `retry_after` in seconds; None: until somebody does something."""

    reason: Reason
    message: str
    retry_after: float | None = None

    def condition(self, commit: str) -> Condition:
        return Condition(ConditionType.DEPLOY_PENDING, True, self.reason, self.message, revision=commit)


def hold_commit(
    app: str, commit: str, rules: DeployRules, approved: str, now: float, after: TickAfter, what: str = ""
) -> HeldCommit | None:
    """Return why a new commit has to wait, None if it may be applied. The approval of a person opens a window, too, but
    not what the operator has frozen. `what` is what people call it, if `commit` is a release with new images."""
    what = what or Localizable("commit {commit}", commit=commit[:12])
    if rules.frozen:
        told = Localizable("the app is frozen by its PlatformApp (spec.deploy.frozen)")
        return HeldCommit(Reason.FROZEN, Localizable("{what} waits: {told}", what=what, told=told))
    if approved == commit:
        return None
    if rules.approval:
        told = Localizable(
            "{what} waits for an approval; see prichal plan {app}, then: prichal approve {app}",
            what=what,
            app=app,
        )
        return HeldCommit(Reason.AWAITING_APPROVAL, told)
    if not rules.windows or any(_is_open(window, now, after) for window in rules.windows):
        return None
    opens = min(after(window.cron, window.timezone, now) for window in rules.windows)
    return HeldCommit(
        Reason.OUTSIDE_WINDOW, _until(app, what, opens, now), max(1.0, min(opens - now, _CHECK))
    )


def _is_open(window: DeployWindow, now: float, after: TickAfter) -> bool:
    return after(window.cron, window.timezone, now - window.duration) <= now


def _until(app: str, what: str, opens: float, now: float) -> str:
    if opens == math.inf:
        when = Localizable("no deploy window ever opens again")
    else:
        when = Localizable(
            "its deploy window opens at {opens}, in {pause}",
            opens=rfc3339(opens),
            pause=render_duration(max(1.0, round(opens - now))),
        )
    return Localizable(
        "{what} waits: {when}; to apply it now: prichal approve {app}",
        what=what,
        when=when,
        app=app,
    )
