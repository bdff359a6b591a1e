"""`StoredPlatform`: the platform as the store has it, for commands on the host and for the views of the web process,
which answer with its documents. So a command shows the same on the host and elsewhere.
"""

from __future__ import annotations

import math
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Final

from controller.client.platform.api import (
    IMAGES_TIMEOUT,
    PLAN_TIMEOUT,
    AppRequest,
    Document,
    LogQuery,
    PlanState,
    finished_images,
    finished_plan,
    unknown_app,
)
from controller.config import Settings
from controller.domain.apps.age_keys import KeyAction
from controller.domain.apps.branch_previews import BranchPreview, LeftOut, shown_ref
from controller.domain.apps.history import AppliedRevision, difference, find_revision
from controller.domain.apps.orders import AppOrder
from controller.domain.apps.owned_secrets import MAX_AUTHOR, ChangeRecord, ChangeState, SecretChange
from controller.domain.apps.releases import commit_of
from controller.domain.apps.requests import ReconcileRequest, RequestState, Trigger
from controller.domain.apps.rollback import decide_rollback, ends_rollback, unknown_revision
from controller.domain.apps.secret_documents import change_document, secrets_document
from controller.domain.apps.status import AppStatus, Event
from controller.domain.errors import ControllerError, Stalled
from controller.domain.gpu_devices import GpuState
from controller.domain.localizable import Localizable
from controller.domain.names import PLATFORM, AppName, is_dns_label
from controller.domain.notifications.records import check_id
from controller.domain.people.roles import Principal, administrator
from controller.domain.reasons import Reason
from controller.domain.routing.app_links import PublicAddress, link_documents
from controller.domain.runs.run import RunFilter
from controller.domain.secret import Secret
from controller.domain.text import printable
from controller.kept_logs import BUILDS, KeptLogs, LogCursor
from controller.ports import Store
from controller.store.owners import as_owner_of
from controller.store.people import PeopleStore
from controller.web.api.platform.branch_preview_documents import (
    entry_document,
    in_order,
    left_out_document,
    opened_by,
    preview_document,
)
from controller.web.api.platform.deliveries import event_document
from controller.web.api.platform.documents import (
    app_document,
    applied_document,
    plan_document,
    request_document,
    rollback_document,
    runs_document,
    summary_document,
)
from controller.web.api.platform.image_documents import image_list_document
from controller.web.api.platform.notification_documents import notification_document
from controller.web.api.platform.order_documents import order_document, template_document
from controller.web.gpus import gpu_document, read_gpus

HEARTBEAT_LIMIT: Final = 15.0  # seconds; the daemon beats every second
MOST_EVENTS: Final = 1000
MOST_LEFT_OUT: Final = 200  # branches without a preview, the newest
#: Seconds between two looks at the database's change counter: while a request is awaited, and for people who watch.
LOOK, PAUSE = 0.05, 0.2


class StoredPlatform:
    """`who` sees only what their roles allow; who may ask for what is decided before (web/auth/rules.py). `url` is that
    by which the caller has reached the platform, for links if the configuration names none. With `dry_run`, the caller
    rolls back what is written to the store."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        who: Principal | None = None,
        url: str = "",
        dry_run: bool = False,
    ) -> None:
        self._store = store
        self._dry_run = dry_run
        self._settings = settings
        web = settings.web
        self._address = PublicAddress(web.public_url.rstrip("/") or url or web.local_url, web.app_domain)
        self._who = who or administrator("this host")

    # --- apps ---------------------------------------------------------------------------------------------------

    def apps(self) -> Document:
        previews = self._previews()
        seen = in_order((a for a in self._store.apps.all() if self._who.sees(a.app)), previews)
        platform = [summary_document(status) for status in seen if status.app == PLATFORM]
        apps = [
            {**summary_document(status), "preview": _preview(previews.get(status.app))}
            for status in seen
            if status.app != PLATFORM
        ]
        return {
            "daemon": self.is_running(),
            "platform": platform[0] if platform else None,
            "apps": apps,
            "gpus": [gpu_document(gpu, self._who.sees) for gpu in self._gpus()],
        }

    def app(self, name: str) -> Document:
        store, found = self._store, self.known(name)
        routes, services = store.routes.of(found.app), store.routes.services(found.app)
        runs = runs_document(store.runs.counts(found.app), store.runs.last_ended(found.app))
        queued, uses = store.requests.queued(found.app), store.usage(found.app)
        followed = store.images.of(found.app)
        document = app_document(found, routes, services, queued, runs, uses, followed)
        more = {
            "cloneUrl": self._clone_url(found),
            "links": self.links(found.app),
            "preview": _preview(store.branches.preview(found.app)),
            "previews": self._preview_entries(found.app),
            "leftOut": self._left_out(found.app),
            "daemon": self.is_running(),
            "gpus": [
                gpu_document(gpu, self._who.sees)
                for gpu in self._gpus()
                if any(holder.app == found.app for holder in gpu.holders)
            ],
        }
        return {**document, **more}

    def _gpus(self) -> tuple[GpuState, ...]:
        return read_gpus(self._store, self._settings, time.time())

    def links(self, app: AppName) -> list[dict[str, object]]:
        """Return what can be opened and called."""
        routes, services = self._store.routes.of(app), self._store.routes.services(app)
        names = [service.pipeline for service in services if service.pipeline]
        runs = {name: self._store.runs.list(app, RunFilter(name), limit=1) for name in names}
        last = {name: found[0] for name, found in runs.items() if found}
        return link_documents(self._address, routes, services, last)

    # --- previews of branches -----------------------------------------------------------------------------------

    def branch_previews(self, app: str | None) -> Document:
        """Return the previews of an app, or of all that the caller sees, and the branches that have none."""
        of = self.known(app).app if app is not None else None
        return {"app": of, "previews": self._preview_entries(of), "leftOut": self._left_out(of)}

    def keep_preview(self, app: str, preview: str, forever: bool = False) -> Document:
        of, found = self._found_preview(app, preview)
        self._store.branches.keep(found.app, math.inf if forever else time.time())
        return {**_decided(of, found), "kept": True, "forever": forever}

    def remove_preview(self, app: str, preview: str) -> Document:
        of, found = self._found_preview(app, preview)
        if isinstance(found, LeftOut):
            told = Localizable(
                "{app} has no preview of {branch}: {why}", app=of, branch=shown_ref(found.ref), why=found.why
            )
            raise Stalled(Reason.UNKNOWN_PREVIEW, told)
        self._store.branches.remove(found.app, found.head)
        return {**_decided(of, found), "kept": False, "forever": False}

    def _found_preview(self, app: str, preview: str) -> tuple[AppName, BranchPreview | LeftOut]:
        """Return a preview by its own name, or a branch that has none. Stalled `UnknownPreview`."""
        of, branches = self.known(app).app, self._store.branches
        candidates: list[BranchPreview | LeftOut] = [*branches.previews(), *branches.left_out()]
        known = {each.app: each for each in candidates if each.of == of}
        if preview not in known:
            near = get_close_matches(preview, list(known), n=1)
            hint = Localizable(" Did you mean {near}?", near=near[0]) if near else ""
            message = Localizable(
                "{app} has no preview {name!r}.{hint}", app=app, name=preview[:80], hint=hint
            )
            raise Stalled(Reason.UNKNOWN_PREVIEW, message)
        return of, known[AppName(preview)]

    def _previews(self) -> dict[AppName, BranchPreview]:
        return {each.app: each for each in self._store.branches.previews()}

    def _preview_entries(self, of: AppName | None) -> list[dict[str, object]]:
        store, found = self._store, self._previews().values()
        there = {status.app: status for status in store.apps.all()} if found else {}
        return [
            entry_document(each, there.get(each.app), opened_by(self.links(each.app)))
            for each in found
            if each.of == (of or each.of) and self._who.sees(each.of)
        ]

    def _left_out(self, of: AppName | None) -> list[dict[str, object]]:
        found = self._store.branches.left_out()
        return [
            left_out_document(each)
            for each in found
            if each.of == (of or each.of) and self._who.sees(each.of)
        ][:MOST_LEFT_OUT]

    def _clone_url(self, app: AppStatus) -> str | None:
        """Return where people clone and push, if the repository is hosted here."""
        record = self._store.repositories.get(app.repository) if app.repository else None
        return self._settings.clone_url(record.hosted) or None if record and record.hosted else None

    def known(self, name: str) -> AppStatus:
        """Return the status of an app. Raises Stalled `UnknownApp` with the most similar name."""
        if name == PLATFORM and self._who.sees(PLATFORM):
            return self._store.apps.status(PLATFORM)
        seen = {status.app: status for status in self._store.apps.all() if self._who.sees(status.app)}
        if name not in seen:
            raise unknown_app(name, (app for app in seen if app != PLATFORM))
        return seen[AppName(name)]

    def is_running(self) -> bool:
        beat = self._store.last_heartbeat()
        return beat is not None and time.time() - beat < HEARTBEAT_LIMIT

    # --- notifications ------------------------------------------------------------------------------------------

    def notifications(self, app: str) -> Document:
        found = self._store.notifications.all(self.known(app).app)
        ids = [delivery.message for each in found for delivery in each.record.deliveries]
        tries = self._store.webhooks.next_tries(ids) if ids else {}
        return {"app": app, "notifications": [notification_document(each, tries) for each in found]}

    def test_notification(self, app: str, name: str) -> Document:
        whose = self.known(app).app
        stored = {str(each.spec.name): each for each in self._store.notifications.all(whose)}
        if name not in stored:
            near = get_close_matches(name, list(stored), n=1)
            hint = Localizable(" Did you mean {near}?", near=near[0]) if near else ""
            message = Localizable("{app} has no Notification {name!r}.{hint}", app=app, name=name, hint=hint)
            raise Stalled(Reason.UNKNOWN_NOTIFICATION, message)
        asked = self._store.notifications.ask_test(whose, stored[name].spec.name)
        return {"app": app, "name": name, "message": check_id(asked)}

    # --- events -------------------------------------------------------------------------------------------------

    def events(self, app: str | None, after: int = 0, limit: int = 100, wait: float = 0.0) -> list[Document]:
        """An app that was disconnected still has its events."""
        chosen = self.app_of_events(app) if app is not None else None
        deadline = time.monotonic() + wait
        while not (found := self._events(chosen, after, limit)) and time.monotonic() < deadline:
            time.sleep(LOOK)
        return [event_document(event) for event in found]

    def app_of_events(self, name: str) -> AppName:
        app = AppName(name)
        is_there = self._who.sees(app) and self._store.events.list(app, limit=1)
        return app if is_there else self.known(name).app

    def _events(self, app: AppName | None, after: int, limit: int) -> tuple[Event, ...]:
        if limit < 1:
            return ()
        limit = min(limit, MOST_EVENTS)
        if app is not None or self._who.sees_all:
            return self._store.events.list(app, after, limit)
        apps = [status.app for status in self._store.apps.all() if self._who.sees(status.app)]
        found = sorted(
            (event for each in apps for event in self._store.events.list(each, after, limit)),
            key=lambda event: event.id,
        )
        return tuple(found[:limit] if after else found[-limit:])

    # --- logs ---------------------------------------------------------------------------------------------------

    def log(self, app: str, query: LogQuery) -> LogCursor:
        """Return a cursor where the wanted lines begin. Stalled `UnknownComponent`, `NoContainer`, `NoBuild`."""
        found = self.known(app)
        kept = KeptLogs(self._settings.kept_logs)
        names = {part.name for part in found.components}
        if query.component is not None and query.component not in names:
            told = f"{app} has no component {query.component!r}; it has {', '.join(sorted(names)) or 'none'}"
            raise Stalled(Reason.UNKNOWN_COMPONENT, told)
        part = BUILDS if query.build else query.component
        chosen = kept.chosen(found.app, part, query.previous)
        if chosen is None and query.build:
            which = "no earlier build" if query.previous else "no build"
            raise Stalled(Reason.NO_BUILD, f"there is {which} of {app} with a log; see: prichal events {app}")
        if chosen is None:
            what = f"{query.component or app}"
            which = "no earlier container" if query.previous else "no container"
            raise Stalled(
                Reason.NO_CONTAINER, f"there is {which} of {what} with a log; see: prichal status {app}"
            )
        starts = [chosen.begin]
        if query.since is not None:
            starts.append(chosen.since(query.since))
        if query.tail is not None:
            starts.append(chosen.tail(query.tail))
        return LogCursor(kept, found.app, part, chosen, max(starts), query.previous)

    def logs(self, app: str, query: LogQuery) -> Iterator[bytes]:
        cursor = self.log(app, query)
        while True:
            while piece := cursor.take():
                yield piece
            if not query.follow:
                return
            if not cursor.go_on():
                time.sleep(PAUSE)

    # --- history ------------------------------------------------------------------------------------------------

    def history(self, app: str, limit: int = 20) -> Document:
        found = self._store.history.list(self.known(app).app, min(limit, MOST_EVENTS))
        return {"app": app, "history": [applied_document(each) for each in found]}

    def diff(self, app: str, begin: str | None = None, end: str | None = None) -> Document:
        history = self._store.history
        name = self.known(app).app
        entries = history.list(name)
        after = _entry(app, entries, end)
        earlier = tuple(each for each in entries if each.id < after.id)
        others = tuple(each for each in earlier if each.revision != after.revision) or earlier
        before = _entry(app, entries, begin) if begin is not None or not others else others[0]
        texts = [history.manifests(name, each.id) for each in (before, after)]
        old, new = texts
        return {
            "app": app,
            "from": applied_document(before),
            "to": applied_document(after),
            "manifests": difference(old, new) if old is not None and new is not None else None,
            "plan": after.plan,
        }

    # --- plans --------------------------------------------------------------------------------------------------

    def plan(self, app: str, timeout: float = PLAN_TIMEOUT) -> Document:
        id, began = self.ask_plan(app), time.monotonic()
        while True:
            found = self.plan_now(app, id)
            if done := finished_plan(found, time.monotonic() - began, timeout):
                return done
            time.sleep(LOOK)

    def ask_plan(self, app: str) -> str:
        """Ask the daemon to compute the plan of an app; return its id."""
        return self._store.previews.ask(self.known(app).app)

    def plan_now(self, app: str, id: str) -> Document:
        """Return the plan as far as it is."""
        name, previews = self.known(app).app, self._store.previews
        found = previews.get(id)
        if found is None or found.app != name:
            return {"app": name, "id": id, "state": PlanState.PENDING, "daemon": self.is_running()}
        before = next(iter(self._store.history.list(name, 1)), None)
        old = self._store.history.manifests(name, before.id) if before else ()
        new = previews.manifests(id)
        manifests = difference(old, new) if old is not None and new is not None else None
        return plan_document(found, before, manifests)

    # --- images -------------------------------------------------------------------------------------------------

    def images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        return self._image_list(self.ask_images(app), timeout)

    def prune_images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        return self._image_list(self.ask_images(app, removes=True), timeout)

    def _image_list(self, found: Document, timeout: float) -> Document:
        began = time.monotonic()
        while True:
            if done := finished_images(found, time.monotonic() - began, timeout):
                return done
            time.sleep(LOOK)
            found = self.images_now(found["id"])

    def ask_images(self, app: str | None = None, removes: bool = False) -> Document:
        """Ask the daemon for a list of the images on the engine, of all apps or of one, which may be gone; with
        `removes` it removes what nothing needs before. Stalled `NameInvalid`, Transient `QueueFull`."""
        if app is not None and not is_dns_label(app):
            raise Stalled(Reason.NAME_INVALID, Localizable("{app!r} is not the name of an app", app=app[:80]))
        return self.images_now(self._store.image_lists.ask(app or "", removes))

    def images_now(self, id: str) -> Document:
        """Return the list as far as it is."""
        found = self._store.image_lists.get(id)
        if found is None:
            return {"id": id, "state": PlanState.PENDING, "daemon": self.is_running()}
        return image_list_document(found)

    # --- requests -----------------------------------------------------------------------------------------------

    def request(self, app: str, what: AppRequest) -> Document:
        if what is AppRequest.RETRY:  # also of an app that has no status yet
            return self.enqueue(AppName(app), Trigger.RETRY)
        found = self.known(app)
        with self._store.transaction():
            match what:
                case AppRequest.SUSPEND:
                    self._store.apps.set_suspended(found.app, True)
                case AppRequest.RESUME:
                    self._store.apps.set_suspended(found.app, False)
                    if found.rollback and ends_rollback(found):
                        self._store.apps.end_rollback(found.app, found.rollback)
                case AppRequest.APPROVE:
                    self._store.apps.approve(found.app, approved_revision(found))
                case _:
                    pass
            request = self._store.requests.enqueue(found.app, Trigger.MANUAL)
        return request_document(self._request(request))

    def roll_back(self, app: str, revision: str | None = None) -> Document:
        name, by = self.known(app).app, printable(self._who.name or self._who.via)[:MAX_AUTHOR]
        with self._store.transaction():
            status, history = self._store.apps.status(name), self._store.history.releases(name)
            rollback = decide_rollback(status, history, revision, by, time.time())
            self._store.apps.roll_back(name, rollback)
            request = self._store.requests.enqueue(name, Trigger.ROLLBACK)
        return {**request_document(self._request(request)), "rollback": rollback_document(rollback)}

    def enqueue(self, app: AppName, trigger: Trigger) -> Document:
        return request_document(self._request(self._store.requests.enqueue(app, trigger)))

    def approve(self, app: str, revision: str) -> Document:
        """Approve a revision by name."""
        found = self.known(app)
        self._store.apps.approve(found.app, revision)
        return self.request(app, AppRequest.RECONCILE)

    def progress(self, app: str, request: int, after: int, wait: float) -> Document:
        name = self.known_or_gone(app, request)
        deadline = time.monotonic() + wait
        while True:
            document = self.progress_now(name, request, after)
            if is_news(document) or time.monotonic() >= deadline:
                return document
            time.sleep(LOOK)

    def progress_now(self, app: AppName, request: int, after: int) -> Document:
        """The request is read first: an event of it that is missing in `events` comes with the next answer, before
        the request is done."""
        found = self._request(request)
        if found.app != app:
            raise _no_request(request)
        events = self._store.events.list(app, after, MOST_EVENTS) if after else self._after_begin(found)
        documents = [event_document(event) for event in events]
        return {"request": request_document(found), "events": documents, "daemon": self.is_running()}

    def known_or_gone(self, app: str, request: int) -> AppName:
        """Return the name of an app that is there, or was there when the request was made."""
        found = self._store.requests.get(request)
        is_of_app = found is not None and found.app == app and self._who.sees(AppName(app))
        return AppName(app) if is_of_app else self.known(app).app

    # --- Secrets ------------------------------------------------------------------------------------------------

    def secrets(self, app: str) -> Document:
        status, store = self.known(app), self._store.secrets
        owned, changes = store.listed(status.app), store.changes(status.app)
        age_keys = self._store.age_keys.listed(status.app)
        return secrets_document(status.app, owned, changes, status.secrets, age_keys)

    def set_secret(self, app: str, secret: str, values: Mapping[str, Secret]) -> Document:
        return self._change_secret(app, secret, tuple(values.items()))

    def remove_secret(self, app: str, secret: str, keys: Sequence[str]) -> Document:
        return self._change_secret(app, secret, tuple((key, None) for key in keys))

    def change_age_key(self, app: str, action: KeyAction, force: bool = False) -> Document:
        """The daemon decides again when it applies the change: another commit may be in force then."""
        retires = action is KeyAction.RETIRE and not force
        if retires and (refusal := self._store.age_keys.retire_refusal(self.known(app).app)):
            raise Stalled(Reason.SECRET_REFUSED, refusal)
        return self._change_secret(app, "", (), action, force)

    def _change_secret(
        self,
        app: str,
        secret: str,
        values: tuple[tuple[str, Secret | None], ...],
        action: KeyAction | None = None,
        force: bool = False,
    ) -> Document:
        now, by = time.time(), printable(self._who.name or self._who.via)[:MAX_AUTHOR]
        change = SecretChange(uuid.uuid4().hex, self.known(app).app, secret, values, by, now, action, force)
        self._store.secrets.ask(change)
        return change_document(ChangeRecord(change.id, change.app, ChangeState.WAITING, now, secret, by))

    # --- new apps: on the host, by its operators -----------------------------------------------------------------

    def templates(self) -> Document:
        from controller.templates.asking import (
            templates,  # here: other commands need neither YAML nor schemas
        )

        found = templates(self._store, self._settings)
        you = {"mayCreate": not self._settings.platform.url, "prefix": "", "quota": None, "used": None}
        return {"templates": [template_document(each, is_admin=True) for each in found], "you": you}

    def create_app(self, wanted: Document) -> Document:
        from controller.templates.asking import NewApp, creation

        asked = NewApp(wanted["name"], wanted["template"], wanted["values"], wanted["limits"])
        return self._place(creation(self._store, self._settings, asked, secrets.token_hex(16)))

    def delete_app(self, name: str) -> Document:
        from controller.templates.asking import deletion

        app = self.known(name).app
        return self._place(deletion(self._store, self._settings, app, app, secrets.token_hex(16)))

    def order(self, id: str) -> Document:
        record = self._store.orders.get(id)
        if record is None:
            raise Stalled(Reason.UNKNOWN_ORDER, f"there is no order {id[:40]}")
        return order_document(record, self._settings)

    def _place(self, order: AppOrder) -> Document:
        """Roles in an earlier app of this name end with the order, if this user may write that down."""
        if self._dry_run:
            return order_document(self._store.orders.ask(order), self._settings)
        folder = self._settings.people.parent
        with suppress(ControllerError, OSError), as_owner_of(folder):
            PeopleStore(self._settings.people).promise(order.id, "", order.app, time.time())
        return order_document(self._store.orders.ask(order), self._settings)

    # --- news ---------------------------------------------------------------------------------------------------

    def wait_for_change(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._store.changed() and time.monotonic() < deadline:
            time.sleep(PAUSE)

    def _after_begin(self, request: ReconcileRequest) -> tuple[Event, ...]:
        """Events since the request, of an app that had none before."""
        found = self._store.events.list(request.app, limit=MOST_EVENTS)
        return tuple(event for event in found if event.at >= request.created)

    def _request(self, request: int) -> ReconcileRequest:
        found = self._store.requests.get(request)
        if found is None:
            raise _no_request(request)
        return found


def _preview(found: BranchPreview | None) -> dict[str, object] | None:
    return preview_document(found) if found else None


def _decided(of: AppName, found: BranchPreview | LeftOut) -> Document:
    return {"name": found.app, "app": of, "branch": shown_ref(found.ref)}


def _entry(app: str, entries: tuple[AppliedRevision, ...], wanted: str | None) -> AppliedRevision:
    """Return the entry that is wanted, or the newest one. Stalled `UnknownRevision`."""
    found = find_revision(entries, wanted) if wanted is not None else next(iter(entries), None)
    if found is None:
        nothing = Localizable("the history of {app} has nothing yet; see: prichal history {app}", app=app)
        told = unknown_revision(app, wanted) if wanted is not None else nothing
        raise Stalled(Reason.UNKNOWN_REVISION, told)
    return found


def is_news(progress: Document) -> bool:
    return bool(progress["events"]) or progress["request"]["state"] == RequestState.DONE


def approved_revision(status: AppStatus) -> str:
    """Return the revision that an approval is for. Raises Stalled `NothingPending`."""
    # A platform folder that is not a Git repository has no revision. Any word approves it, once.
    wanted = commit_of(status.rollback.revision) if status.rollback else status.attempted
    revision = wanted or ("confirmed" if status.app == PLATFORM else "")
    if not revision:
        told = Localizable("{app} has no revision to approve yet; see: prichal status {app}", app=status.app)
        raise Stalled(Reason.NOTHING_PENDING, told)
    return revision


def _no_request(request: int) -> Stalled:
    return Stalled(Reason.UNKNOWN_REQUEST, f"request {request} does not exist, or is over and was deleted")
