"""`ServerPlatform` asks a platform elsewhere over HTTP, with a person's token. What it sends is not trusted: see
`ServerClient`; a document of another shape ends with the error `NotAPlatform`.

Requests that only read are retried for a while. Those that change something are sent once: a second one would be a
second act in the audit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

from controller.client.platform.api import (
    IMAGES_TIMEOUT,
    PLAN_TIMEOUT,
    AppRequest,
    Document,
    LogQuery,
    PlanState,
    finished_images,
    finished_plan,
    names_of,
    unknown_app,
)
from controller.client.platform.errors import VERSION, platform_meanings
from controller.client.retry import RetryPolicy
from controller.client.runs.events import read_events
from controller.client.server import Authorization, ServerClient, new_pool
from controller.domain.apps.age_keys import KeyAction
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.units import rfc3339

T = TypeVar("T")

#: Interruptions without a line between them: before the first answer, and later, when they last some two minutes.
FIRST_FAILURES, FAILURES = 5, 14
LOOK: Final = 1.0  # seconds between two looks for changes
_LISTING: Final = "cannot list the images"
PAUSE: Final = 0.2  # seconds between two requests when a server does not wait although it was asked to
WAIT: Final = 20.0  # seconds that a server is asked to wait for news, so that proxies do not give up
#: What a browser's page cannot send along: servers that trust callers of their own host ask for it.
_DELIBERATE: Final = {"X-Prichal": "1"}


class ServerPlatform:
    """`url` is that of the platform; with `dry_run` it is asked to roll back what it changes. Must be closed; shared
    by no threads."""

    def __init__(
        self,
        url: str,
        authorization: Authorization,
        ca_file: str = "",
        retry_policy: RetryPolicy | None = None,
        dry_run: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        # A path of its own, so that a server of an earlier version refuses it in place of doing it.
        self._changing = f"{self.url}/-/dry-run" if dry_run else f"{self.url}/-"
        self.version = ""  # of the server, "" before it has answered
        self._pool = new_pool(ca_file)
        self._server = ServerClient(self._pool, authorization, platform_meanings(), self._note)
        self._retry_policy = retry_policy or RetryPolicy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._retry_policy.stop()
        self._pool.clear()

    def _note(self, headers: Mapping[str, str]) -> None:
        self.version = headers.get(VERSION, self.version)[:40]

    # --- the Protocol -------------------------------------------------------------------------------------------

    def apps(self) -> Document:
        doing = f"cannot list the apps at {self.url}"

        def told(document: Any) -> Document:
            list(names_of(document))
            return {"daemon": None, "platform": None, **document}

        return self.read("/-/apps", doing, told)

    def app(self, name: str) -> Document:
        return self._of_app(name, "", f"cannot see {name}", _object("app", "conditions"))

    def events(self, app: str | None, after: int = 0, limit: int = 100, wait: float = 0.0) -> list[Document]:
        query = {"after": str(after), "limit": str(limit), **_waiting(wait)}
        began = time.monotonic()

        def told(document: Any) -> list[Document]:
            return [_object("id", "at", "reason", "message", "type")(event) for event in document["events"]]

        if app is None:
            found = self.read("/-/events", "cannot list events", told, query)
        else:
            found = self._of_app(app, "/events", f"cannot list events of {app}", told, query)
        return found or self._rest(found, wait, began)

    def request(self, app: str, what: AppRequest) -> Document:
        doing = f"cannot {what} {app}"
        with self._knowing(app):
            answer = self.change(f"/-/apps/{quote(app, safe='')}/{what}", doing)
        with self._server.meaning.understood(doing):
            return _object("id", "app", "state")(answer)

    def roll_back(self, app: str, revision: str | None = None) -> Document:
        doing, content = f"cannot roll {app} back", {} if revision is None else {"revision": revision}
        with self._knowing(app):
            answer = self.change(f"/-/apps/{quote(app, safe='')}/rollback", doing, content)
        with self._server.meaning.understood(doing):
            return _object("id", "app", "state", "rollback")(answer)

    def progress(self, app: str, request: int, after: int, wait: float) -> Document:
        query = {"after": str(after), **_waiting(wait)}
        began = time.monotonic()
        doing = f"cannot see request {request}"
        told = _object("request", "events", "daemon")
        found = self._of_app(app, f"/requests/{request}", doing, told, query)
        if found["events"] or _object("state")(found["request"])["state"] == "done":
            return found
        return self._rest(found, wait, began)

    def secrets(self, app: str) -> Document:
        doing = f"cannot list the Secrets of {app}"
        return self._of_app(app, "/secrets", doing, _object("app", "secrets", "changes"))

    def notifications(self, app: str) -> Document:
        doing = f"cannot list the Notifications of {app}"
        return self._of_app(app, "/notifications", doing, _object("app", "notifications"))

    def test_notification(self, app: str, name: str) -> Document:
        doing = f"cannot test the Notification {name} of {app}"
        with self._knowing(app):
            answer = self.change(
                f"/-/apps/{quote(app, safe='')}/notifications/{quote(name, safe='')}/test", doing
            )
        with self._server.meaning.understood(doing):
            return _object("message")(answer)

    def branch_previews(self, app: str | None) -> Document:
        told = _object("app", "previews", "leftOut")
        if app is None:
            return self.read("/-/previews", "cannot list previews", told)
        return self._of_app(app, "/previews", f"cannot list the previews of {app}", told)

    def keep_preview(self, app: str, preview: str, forever: bool = False) -> Document:
        return self._decide(app, preview, "keep", {"forever": forever})

    def remove_preview(self, app: str, preview: str) -> Document:
        return self._decide(app, preview, "remove")

    def _decide(self, app: str, preview: str, what: str, content: Any = None) -> Document:
        doing = f"cannot {what} the preview {preview}"
        path = f"/-/apps/{quote(app, safe='')}/previews/{quote(preview, safe='')}/{what}"
        with self._knowing(app):
            answer = self.change(path, doing, content)
        with self._server.meaning.understood(doing):
            return _object("name", "app", "branch")(answer)

    def set_secret(self, app: str, secret: str, values: Mapping[str, Secret]) -> Document:
        content = {"values": {key: value.reveal() for key, value in values.items()}}
        return self._change_secret("PUT", app, secret, "", content)

    def remove_secret(self, app: str, secret: str, keys: Sequence[str]) -> Document:
        query = urlencode([("key", key) for key in keys])
        return self._change_secret("DELETE", app, secret, f"?{query}" if query else "")

    def _change_secret(self, method: str, app: str, secret: str, query: str, content: Any = None) -> Document:
        doing = f"cannot change the Secret {secret} of {app}"
        path = f"/-/apps/{quote(app, safe='')}/secrets/{quote(secret, safe='')}{query}"
        return self._ask_for_change(method, app, path, doing, content)

    def change_age_key(self, app: str, action: KeyAction, force: bool = False) -> Document:
        path, doing = f"/-/apps/{quote(app, safe='')}/age-keys", f"cannot change the age key of {app}"
        content = {"action": action.value, **({"force": True} if force else {})}
        return self._ask_for_change("POST", app, path, doing, content)

    def _ask_for_change(self, method: str, app: str, path: str, doing: str, content: Any) -> Document:
        """Sent once, like what `change` sends."""
        with self._knowing(app):
            answer = self._server.ask(method, self._place(path), doing, None, _DELIBERATE, content)
        with self._server.meaning.understood(doing):
            return _object("id", "state", "message", "request")(answer.document["change"])

    def templates(self) -> Document:
        return self.read("/-/templates", "cannot list the templates", _object("templates", "you"))

    def create_app(self, wanted: Document) -> Document:
        doing = "cannot make the app"
        return self._order(self.change("/-/apps", doing, wanted), doing)

    def delete_app(self, name: str) -> Document:
        doing, place = f"cannot delete {name}", self._place(f"/-/apps/{quote(name, safe='')}")
        with self._knowing(name):
            answer = self._server.ask("DELETE", place, doing, {"confirm": name}, _DELIBERATE)
        return self._order(answer.document, doing)

    def order(self, id: str) -> Document:
        told = _object("id", "app", "state", "message")
        return self.read(f"/-/orders/{quote(id, safe='')}", "cannot see the order", told)

    def _order(self, document: Any, doing: str) -> Document:
        with self._server.meaning.understood(doing):
            return _object("id", "app", "state")(document)

    def logs(self, app: str, query: LogQuery) -> Iterator[bytes]:
        asked = _log_query(query)
        url = f"{self.url}/-/apps/{quote(app, safe='')}/logs"
        doing = f"cannot read the log of {query.component or app}"
        with self._knowing(app):
            if query.follow:
                yield from self._followed(url, doing, asked)
                return
            with self._server.stream(url, doing, asked) as pieces:
                yield from pieces

    def _followed(self, url: str, doing: str, query: dict[str, str]) -> Iterator[bytes]:
        """Follow a log over interruptions: no line is lost or repeated."""
        last, failures, most = "", 0, FIRST_FAILURES
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
            try:
                with (
                    self._server.stream(url, doing, query, headers) as pieces,
                    self._server.meaning.understood(doing),
                ):
                    most = FAILURES
                    for event in read_events(pieces):
                        piece = event.data.encode()
                        yield piece if _is_within_line(last, event.id, len(piece)) else piece + b"\n"
                        last, failures = event.id or last, 0
                        self._retry_policy.recovered()
            except Transient as error:
                failures += 1
                if failures > most:
                    raise
                self._retry_policy.tell(error, failures)
            time.sleep(min(LOOK * 2**failures, 10.0))

    def history(self, app: str, limit: int = 20) -> Document:
        def told(document: Any) -> Document:
            entries = [_ENTRY(each) for each in document["history"]]
            return {**document, "history": entries}

        return self._of_app(app, "/history", f"cannot see the history of {app}", told, {"limit": str(limit)})

    def diff(self, app: str, begin: str | None = None, end: str | None = None) -> Document:
        asked = (("from", begin), ("to", end))
        query = {name: value for name, value in asked if value is not None}
        told = _object("from", "to", "manifests", "plan")
        return self._of_app(app, "/diff", f"cannot compare revisions of {app}", told, query)

    def plan(self, app: str, timeout: float = PLAN_TIMEOUT) -> Document:
        began = time.monotonic()
        known: dict[str, str] = {}
        while True:
            asked = time.monotonic()
            query = {**known, **_waiting(timeout - (asked - began))}
            found = self._of_app(app, "/plan", f"cannot plan {app}", _plan, query)
            if done := finished_plan(found, time.monotonic() - began, timeout):
                return done
            known = {"id": str(found["id"])}
            self._rest(found, WAIT, asked)

    def images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        query = {"app": app} if app is not None else {}
        return self._image_list(self.read("/-/images", _LISTING, _images, query), timeout)

    def prune_images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        doing = "cannot remove images"
        asked = self.change("/-/images/prune", doing, {"app": app} if app is not None else {})
        with self._server.meaning.understood(doing):
            begun = _images(asked)
        return self._image_list(begun, timeout)

    def _image_list(self, found: Document, timeout: float) -> Document:
        """Wait for a list that was asked for."""
        began = time.monotonic()
        while True:
            if done := finished_images(found, time.monotonic() - began, timeout):
                return done
            time.sleep(PAUSE)
            found = self.read(f"/-/images/{quote(str(found['id']), safe='')}", _LISTING, _images)

    def wait_for_change(self, timeout: float) -> None:
        time.sleep(min(LOOK, timeout))

    # --- the caller ---------------------------------------------------------------------------------------------

    def me(self) -> Document:
        """Return who the server takes the caller for."""
        told = _object("user", "via", "scope", "appDomain")
        return self.read("/-/me", f"cannot log in to {self.url}", told)

    def end_token(self) -> None:
        """Revoke the token of this caller."""
        self.change("/-/me/logout", f"cannot log out of {self.url}")

    def begin_login(self, label: str, scope: str) -> Document:
        """Ask for a token: the person has to confirm `code` in a browser, at `path` of this server."""
        doing = f"cannot log in to {self.url}"
        found = self.change("/-/device", doing, form={"label": label, "scope": scope})
        with self._server.meaning.understood(doing):
            begun = _object("secret", "code", "path")(found)
            return {**begun, "expiresIn": float(begun["expiresIn"]), "interval": float(begun["interval"])}

    def take_login(self, secret: str) -> Document:
        """Return the `token` once the person has agreed, before that the `state`. Stalled `LoginRefused`."""
        doing = f"cannot log in to {self.url}"
        return _object()(self.change("/-/device/token", doing, form={"secret": secret}))

    # --- for further capabilities -------------------------------------------------------------------------------

    def read(
        self, path: str, doing: str, told: Callable[[Any], T], query: Mapping[str, str] | None = None
    ) -> T:
        """Return what `told` makes of the document at a path below the platform's URL. Retried."""

        def ask() -> T:
            answer = self._server.ask("GET", f"{self.url}{path}", doing, query)
            with self._server.meaning.understood(doing):
                return told(answer.document)

        return self._retry_policy.retry(ask)

    def change(
        self,
        path: str,
        doing: str,
        content: Any = None,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Any:
        """POST `content` as JSON, or a form; return the document of the response. Sent once."""
        url = self._place(path)
        return self._server.ask("POST", url, doing, query, _DELIBERATE, content, form=form).document

    def _place(self, path: str) -> str:
        """Return the URL of what changes something."""
        return f"{self._changing}{path.removeprefix('/-')}"

    def _of_app(
        self,
        app: str,
        path: str,
        doing: str,
        told: Callable[[Any], T],
        query: Mapping[str, str] | None = None,
    ) -> T:
        with self._knowing(app):
            return self.read(f"/-/apps/{quote(app, safe='')}{path}", doing, told, query)

    def _knowing(self, app: str) -> _KnownApps:
        return _KnownApps(self, app)

    def _rest(self, found: T, wait: float, began: float) -> T:
        """Pause after an answer without news that came too soon, so that no server makes this program spin."""
        if wait and time.monotonic() - began < PAUSE:
            time.sleep(min(PAUSE, wait))
        return found


class _KnownApps:
    """Gives the error for an unknown app the most similar name of those that the caller may see."""

    def __init__(self, platform: ServerPlatform, app: str) -> None:
        self._platform = platform
        self._app = app

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Stalled) and error.reason == Reason.UNKNOWN_APP:
            raise unknown_app(self._app, names_of(self._platform.apps())) from error


def _object(*members: str) -> Callable[[Any], Document]:
    """Return a reader of objects that have these members, and maybe others."""

    def told(value: Any) -> Document:
        if not isinstance(value, dict):
            raise TypeError("not an object")
        for member in members:
            value[member]
        return value

    return told


def _plan(value: Any) -> Document:
    done = _object("revision", "actions", "holds", "warnings", "text", "from", "manifests")
    return _asked(_object("app", "id", "state")(value), done)


def _images(value: Any) -> Document:
    return _asked(_object("id", "state")(value), _image_document)


def _image_document(value: Any) -> Document:
    found = _object("images", "leftOut", "removed", "removedSize")(value)
    told = _object("app", "kind", "id", "name", "size", "created", "containers", "due", "removed", "removal")
    return {**found, "images": [told(each) for each in found["images"]]}


def _asked(value: Document, done: Callable[[Any], Document]) -> Document:
    """Read what the daemon was asked for, as far as it is; `done` reads it once it is there."""
    match PlanState(value["state"]):
        case PlanState.DONE:
            return done(value)
        case PlanState.FAILED:
            return _object("reason", "message", "transient")(value)
        case PlanState.PENDING:
            return _object("daemon")(value)


_ENTRY = _object("id", "revision", "begun", "seconds", "outcome", "triggers", "author", "subject")


def _log_query(query: LogQuery) -> dict[str, str]:
    found = {"follow": "1"} if query.follow else {}
    if query.component is not None:
        found["component"] = query.component
    if query.previous:
        found["previous"] = "1"
    if query.build:
        found["build"] = "1"
    if query.since is not None:
        found["since"] = rfc3339(query.since) or ""
    if query.tail is not None:
        found["tail"] = str(query.tail)
    return found


def _is_within_line(before: str, after: str, size: int) -> bool:
    """Return True if a piece of a log ends within a line: ids are those of containers with offsets, and such a piece
    is as long as its bytes, without a line end."""
    (log, _, begin), (same, _, end) = before.rpartition(":"), after.rpartition(":")
    return log == same and begin.isdecimal() and end.isdecimal() and int(end) - int(begin) == size


def _waiting(wait: float) -> dict[str, str]:
    return {"wait": str(int(min(wait, WAIT)))} if wait >= 1 else {}
