"""The page with all apps that the reader may see: how each one stands, searched and filtered, some at a time, and live.

The rows are made of the statuses in the store; a thousand apps cost no more to show than the fifty of a page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, current_app
from flask.typing import ResponseReturnValue

from controller.domain.apps.branch_previews import BranchPreview, shown_ref
from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.status import AppStatus
from controller.domain.localizable import first_line, shortened
from controller.domain.names import AppName
from controller.domain.people.roles import ALL, Principal, is_in_sight
from controller.ports import Store
from controller.web.api.platform.branch_preview_documents import in_order
from controller.web.context import context, principal, query
from controller.web.pages.branch_previews import branch_of, lasts, opened_page
from controller.web.pages.languages import Language
from controller.web.pages.live import live_page
from controller.web.pages.rendering import render
from controller.web.pages.words import STATES, AppState, Told, state_of, told_of
from controller.web.query import QueryParameters

apps_pages = Blueprint("apps_pages", __name__)

PLACE: Final = "/-/"
ROWS: Final = 50  # on one page
MESSAGE: Final = 300  # characters
LONGEST_SEARCH: Final = 100


@dataclass(frozen=True)
class AppLine:
    name: str
    state: AppState
    told: Told
    revision: str
    since: float
    text: str  # that is searched
    preview: BranchPreview | None = None
    opened: str = ""  # what can be opened of a preview


@dataclass(frozen=True)
class AppList:
    """One page of the list. `counts` are those of all apps that the search finds, by state."""

    lines: tuple[AppLine, ...]
    counts: tuple[tuple[AppState, int], ...]
    number: int
    pages: int
    total: int  # apps that the reader may see


@dataclass(frozen=True)
class AppsLive:
    """`sight`: the names and patterns of the apps that the reader may see; None for all."""

    sight: frozenset[str] | None
    search: str
    state: AppState | None
    number: int

    @classmethod
    def of(cls, store: Store, who: Principal, names: Mapping[str, str], asked: QueryParameters) -> AppsLive:
        state = asked.choice("state", {"": None, **{str(each): each for each in AppState}})
        search = (asked.text("q") or "").strip()[:LONGEST_SEARCH].lower()
        return cls(None if who.sees(ALL) else who.sight, search, state, asked.number("page", 1, 1, 10**6))

    def read(self, store: Store) -> AppList:
        previews = {each.app: each for each in store.branches.previews()}
        apps = in_order((app for app in store.apps.all() if self._shows(app.app, previews)), previews)
        seen = [_with_preview(line_of(app), previews.get(app.app)) for app in apps]
        found = [line for line in seen if self.search in line.text] if self.search else seen
        count = Counter(line.state for line in found)
        shown = found if self.state is None else [line for line in found if line.state is self.state]
        pages = max(1, -(-len(shown) // ROWS))
        number = min(self.number, pages)
        lines = tuple(_opened(store, line) for line in shown[(number - 1) * ROWS : number * ROWS])
        return AppList(lines, tuple((each, count[each]) for each in AppState), number, pages, len(seen))

    def _shows(self, app: AppName, previews: Mapping[AppName, BranchPreview]) -> bool:
        """The roles in a preview are those in its app."""
        whose = previews[app].of if app in previews else app
        return self.sight is None or is_in_sight(whose, self.sight)

    def fragments(self, found: Any, language: Language) -> Mapping[str, str]:
        values = {
            "list": found,
            "states": STATES,
            "chosen": self.state,
            "search": self.search,
            "to": self.address,
            "branch_of": branch_of,
            "lasts": lasts,
        }
        return {
            "counts": render("apps/counts.html", language, values),
            "apps": render("apps/list.html", language, values),
        }

    def address(self, state: AppState | None, number: int = 1) -> str:
        """Return where this list is with another filter or page."""
        asked = {"q": self.search, "state": state or "", "page": number if number > 1 else ""}
        text = urlencode({name: value for name, value in asked.items() if value})
        return f"{PLACE}?{text}" if text else PLACE


@apps_pages.get(PLACE)
def apps_page() -> ResponseReturnValue:
    """Also what a person sees at `/-/apps`, where programs get a document."""
    asked = query()
    live = AppsLive.of(context(current_app).store, principal(), {}, asked)
    search = asked.text("q") or ""
    return live_page("apps/page.html", live, scope=PLACE, path=PLACE, search=search, state=live.state or "")


def _with_preview(line: AppLine, preview: BranchPreview | None) -> AppLine:
    if preview is None:
        return line
    text = f"{line.text} {preview.of} {shown_ref(preview.ref)}".lower()
    return replace(line, preview=preview, text=text)


def _opened(store: Store, line: AppLine) -> AppLine:
    app = AppName(line.name)
    return replace(line, opened=opened_page(store, app)) if line.preview else line


#: The line of each status that was read last. The store gives the same object as long as its text is the same.
_KNOWN: Final[dict[AppName, tuple[AppStatus, AppLine]]] = {}
_MOST_KNOWN: Final = 4096


def line_of(app: AppStatus) -> AppLine:
    known = _KNOWN.get(app.app)
    if known is not None and known[0] is app:
        return known[1]
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    line = _line(app)
    _KNOWN[app.app] = (app, line)
    return line


def _line(app: AppStatus) -> AppLine:
    ready = find(app.conditions, ConditionType.READY)
    said = told_of(app.conditions)
    told = replace(said, message=shortened(first_line(said.message), MESSAGE))
    revision = app.applied_revision or app.attempted_revision
    text = f"{app.app} {app.repository}".lower()
    return AppLine(app.app, state_of(app), told, revision, ready.since if ready else 0.0, text)
