"""The history of an app in the cabinet: what was applied, when, why and by whom, how to go back, and the page on which
two revisions are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from flask import Response

from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, is_suspended
from controller.web.pages.rendering import page
from controller.web.pages.words import OUTCOMES, TRIGGERS

ENTRIES: Final = 20  # newest ones on the page of an app


@dataclass(frozen=True)
class EntryShown:
    """`revision` can be gone back to from here if `leads_back`; `before` is the number of the entry that was applied
    before it, or 0."""

    applied: AppliedRevision
    outcome: str
    tone: str
    why: tuple[str, ...]
    leads_back: bool
    before: int


def shown_history(status: AppStatus, entries: Iterable[AppliedRevision]) -> list[EntryShown]:
    """`entries` are newest first. The newest good entry of each revision leads back to it, but for the present one and
    the newest commit."""
    entries = tuple(entries)
    seen = {status.attempted, status.rollback.revision if status.rollback else ""}
    found = []
    for each, earlier in zip_longest(entries, entries[1:]):
        leads_back = each.outcome == Outcome.READY and each.release not in seen and not is_suspended(status)
        seen |= {each.release} if leads_back else set()
        word, tone = OUTCOMES.get(Outcome(each.outcome), (each.outcome, "calm"))
        why = tuple(TRIGGERS.get(Trigger(trigger), trigger) for trigger in each.triggers)
        found.append(EntryShown(each, word, tone, why, leads_back, earlier.id if earlier else 0))
    return found


def difference_page(name: str, found: dict[str, Any], entries: Iterable[AppliedRevision]) -> Response:
    """`found` is the document of the difference; any two of the entries can be chosen."""
    manifests = found["manifests"]
    lines = [(_kind(line), line) for line in manifests.split("\n")] if manifests else []
    return page("app/difference.html", name=name, found=found, lines=lines, entries=tuple(entries))


def _kind(line: str) -> str:
    """Return how a line of a unified difference is shown."""
    if line.startswith(("+++", "---", "@@")):
        return "where"
    return {"+": "added", "-": "removed"}.get(line[:1], "same")
