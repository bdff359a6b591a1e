"""Groups into which a run is publishing: until it is done, others can neither write there nor read an
incomplete group. Used by the files API and by the object proxy. Space in the box is reserved for a
publication from its first file to its last, under a name that contains group and run. A reservation that a
dead daemon has left counts as long as its run is not over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from controller.domain.localizable import Localizable
from controller.domain.storage.box import BoxRecord
from controller.ports import Store
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

RETRY_AFTER: Final = 2  # seconds, told to those who are refused


def being_published(store: Store, record: BoxRecord, now: float) -> dict[str, str]:
    """Map the prefix of each group to the run that publishes into it."""
    found = {}
    for each in store.boxes.publishing(record.bucket, now):
        run = store.runs.get(record.app, each.run)
        if run and not run.state.terminal:
            found[each.prefix] = each.run
    return found


def require_settled(store: Store, record: BoxRecord, key: str, now: float, around: bool = False) -> None:
    """Raise RequestRefused while a run publishes into a group that contains `key`, or, with `around`, into
    one below it."""
    require_all_settled(store, record, [key], now, around)


def require_all_settled(
    store: Store, record: BoxRecord, keys: Iterable[str], now: float, around: bool = False
) -> None:
    """Call `require_settled` for each of them."""
    found = being_published(store, record, now)
    for key in keys if found else ():
        for prefix, run in found.items():
            if key.startswith(prefix) or (around and prefix.startswith(key)):
                detail = Localizable(
                    "Run {run} is publishing into this group; wait until it is done, then try again.", run=run
                )
                raise RequestRefused(
                    HttpProblem(ProblemKind.PUBLISHING, detail, retry_after=RETRY_AFTER, extra={"run": run})
                )
