"""Previews of branches as JSON documents. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from controller.domain.apps.branch_previews import BranchPreview, LeftOut, shown_ref
from controller.domain.apps.conditions import is_ready
from controller.domain.apps.status import AppStatus, state_word
from controller.domain.names import AppName
from controller.domain.units import rfc3339


def preview_document(preview: BranchPreview) -> dict[str, object]:
    """Return what an app says about itself that is a preview. `ends` is null for one that stays."""
    return {
        "app": preview.of,
        "branch": shown_ref(preview.ref),
        "commit": preview.head,
        "begun": rfc3339(preview.begun),
        "since": rfc3339(preview.since),
        "ends": None if math.isinf(preview.ends) else rfc3339(preview.ends),
    }


def entry_document(preview: BranchPreview, status: AppStatus | None, opened: str) -> dict[str, object]:
    """Return an entry of the list of an app's previews. `opened`: the first thing that can be opened, or "". A preview
    that has just been found has no status yet."""
    return {
        "name": preview.app,
        **preview_document(preview),
        "state": state_word(status) if status else "Reconciling",
        "ready": status is not None and is_ready(status.conditions),
        "open": opened or None,
    }


def left_out_document(left: LeftOut) -> dict[str, object]:
    return {"name": left.app, "app": left.of, "branch": shown_ref(left.ref), "why": left.why}


def opened_by(links: Iterable[Mapping[str, object]]) -> str:
    """Return the first thing that a person can open, or ""."""
    return next((str(link["open"]) for link in links), "")


def in_order(apps: Iterable[AppStatus], previews: Mapping[AppName, BranchPreview]) -> list[AppStatus]:
    """Return apps by name, each followed by its previews, the newest first."""

    def place(status: AppStatus) -> tuple[str, bool, float, str]:
        preview = previews.get(status.app)
        if preview is None:
            return status.app, False, 0.0, ""
        return preview.of, True, -preview.since, status.app

    return sorted(apps, key=place)
