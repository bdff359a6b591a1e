"""The page of one app: how it stands and what to do, what can be opened and called, its components, boxes and
pipelines, the last plan, the history and the newest events, live; and its buttons, for those who may steer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flask import Response, current_app

from controller.domain.apps.branch_previews import BranchPreview, LeftOut
from controller.domain.apps.conditions import Condition, ConditionType, find, is_ready
from controller.domain.apps.followed_images import FollowRecord, rule_of
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.requests import ReconcileRequest
from controller.domain.apps.status import AppStatus, Event
from controller.domain.apps.usage import Usage
from controller.domain.names import AppName
from controller.domain.people.roles import Principal
from controller.domain.runs.run import RunCount
from controller.ports import Store
from controller.web.api.platform.refusals import require_app
from controller.web.context import context, principal, query
from controller.web.pages.app_history import ENTRIES, shown_history
from controller.web.pages.branch_previews import (
    OpenApi,
    PreviewShown,
    apis_of,
    branch_of,
    lasts,
    left_out_of,
    previews_of,
)
from controller.web.pages.flashes import Flash, redirect_saying
from controller.web.pages.languages import Language
from controller.web.pages.live import live_page
from controller.web.pages.names import EVENT_WORDS
from controller.web.pages.rendering import gets_buttons, render
from controller.web.pages.run_words import RUN_STATES
from controller.web.pages.words import (
    CONDITIONS,
    NOT_READY,
    STATES,
    Told,
    state_of,
    told,
    told_about,
)
from controller.web.query import QueryParameters

#: What the buttons say once they have been pressed.
SAID: Final[Mapping[str, Flash]] = {
    "reconcile": Flash.RECONCILING,
    "retry": Flash.RETRYING,
    "suspend": Flash.SUSPENDED,
    "resume": Flash.RESUMED,
    "approve": Flash.APPROVED,
    "rollback": Flash.ROLLED_BACK,
}
EVENTS: Final = 50  # newest ones on the page


@dataclass(frozen=True)
class AppShown:
    """All that the page shows, as it is in the store."""

    status: AppStatus
    apis: tuple[OpenApi, ...]
    queued: ReconcileRequest | None
    pipelines: tuple[str, ...]  # that can be run, or have runs
    runs: tuple[RunCount, ...]
    uses: tuple[Usage, ...]
    events: tuple[Event, ...]  # newest first
    history: tuple[AppliedRevision, ...]  # newest first
    followed: tuple[FollowRecord, ...]
    preview: BranchPreview | None  # what it is, if it is one
    previews: tuple[PreviewShown, ...]  # that it has
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class AppLive:
    """`steers`: the reader gets buttons."""

    app: AppName
    steers: bool

    @classmethod
    def of(cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters) -> AppLive:
        """Raises RequestRefused for an app that does not exist."""
        app = require_app(store, names["name"])
        return cls(app, gets_buttons(who, app))

    def read(self, store: Store) -> AppShown:
        app, counts = self.app, tuple(store.runs.counts(self.app))
        published = {pipeline.name for pipeline in store.runs.pipelines(app)}
        return AppShown(
            store.apps.status(app),
            tuple(apis_of(store.routes.of(app), store.routes.services(app))),
            store.requests.queued(app),
            tuple(sorted(published | {count.pipeline for count in counts})),
            counts,
            tuple(store.usage(app)),
            tuple(reversed(store.events.list(app, 0, EVENTS))),
            store.history.list(app, ENTRIES + 1),
            store.images.of(app),
            store.branches.preview(app),
            previews_of(store, app),
            left_out_of(store, app),
        )

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        shown: AppShown = found
        status = shown.status
        values = {
            "app": status,
            "shown": shown,
            "steers": self.steers,
            "state": STATES[state_of(status)],
            "is_suspended": status.suspended,
            "history": shown_history(status, shown.history)[:ENTRIES],
            "awaits_approval": find(status.conditions, ConditionType.PRUNE_PENDING) is not None,
            "held": find(status.conditions, ConditionType.DEPLOY_PENDING),
            "said": [_said(condition) for condition in status.conditions],
            "word_of": word_of,
            "run_words": RUN_STATES,
            "told_about": told_about,
            "told_by": told_by,
            "event_words": EVENT_WORDS,
            "is_ready": is_ready,
            "rule_of": rule_of,
            "state_words": STATES,
            "branch_of": branch_of,
            "lasts": lasts,
        }
        names = ("head", "conditions", "open", "previews", "parts", "plan", "history", "events")
        return {name: render(f"app/{name}.html", language, values) for name in names}


def app_page(name: str) -> Response:
    """The page for the present request. Its scripts may read all that is below the app's path; buttons are forms."""
    live = AppLive.of(context(current_app).store, principal(), {"name": name}, query())
    return live_page("app/page.html", live, scope=f"/-/apps/{name}", name=name)


def after(act: str, name: str) -> Response:
    """Lead back to the page, which says what was done."""
    return redirect_saying(f"/-/apps/{quote(name)}", SAID[act])


@dataclass(frozen=True)
class ConditionSaid:
    key: str
    word: str
    tone: str
    told: Told
    since: float


def _said(condition: Condition) -> ConditionSaid:
    word, tone = (
        word_of((condition,)) if condition.type is ConditionType.READY else CONDITIONS[condition.type]
    )
    return ConditionSaid(f"condition-{condition.type}", word, tone, told(condition), condition.since)


def word_of(conditions: tuple[Condition, ...]) -> tuple[str, str]:
    """Return word and tone of a component or a box."""
    return CONDITIONS[ConditionType.READY] if is_ready(conditions) else NOT_READY


def told_by(event: Event) -> Told:
    return Told.about(event.reason, event.message)
