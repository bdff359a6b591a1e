"""Previews of branches as the daemon records them."""

from __future__ import annotations

import time
from dataclasses import replace

from controller.domain.apps.branch_previews import (
    BRANCHES,
    BranchPreview,
    BranchPreviews,
    LeftOut,
    SeenBranch,
    preview_name,
)
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.store import SqliteStore
from tests.support import recorded

DAY = 86400.0
HEAD = "c" * 40
MOST = Localizable("there are {most} newer ones already, as many as spec.previews.max allows", most=1)


def preview_of(app: AppName, branch: str, now: float | None = None) -> BranchPreview:
    at, ref = now or time.time(), BRANCHES + branch
    return BranchPreview(preview_name(app, ref), app, ref, HEAD, at - DAY, at + 2 * DAY, at - DAY)


def record_previews(
    store: SqliteStore, app: AppName, *branches: str, left_out: tuple[str, ...] = (), now: float | None = None
) -> tuple[AppName, ...]:
    """Let the app have previews of branches, and others that have none. Returns the names of the previews."""
    previews = tuple(preview_of(app, branch, now) for branch in branches)
    others = tuple(LeftOut(app, BRANCHES + branch, MOST) for branch in left_out)
    seen = [SeenBranch(app, each.ref, HEAD, each.since) for each in previews]
    store.branches.see(app, [*seen, *(SeenBranch(app, each.ref, HEAD, 1.0) for each in others)])
    store.branches.record(BranchPreviews(previews, others), (), previews[0].begun if previews else 1.0)
    for each in previews:
        ready = replace(recorded.colors(now or time.time()), app=each.app)
        store.apps.save(replace(ready, repository="demo"))
    return tuple(each.app for each in previews)
