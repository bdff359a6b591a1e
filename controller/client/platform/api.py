"""The Protocol of a platform, whichever way it is reached, and what both ways share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final, Protocol

from controller.domain.apps.age_keys import KeyAction
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

#: A JSON object of the HTTP interface. Readers ignore members that they do not know.
Document = dict[str, Any]


#: Seconds until a plan is given up: the repository is fetched for it.
PLAN_TIMEOUT: Final = 120.0
#: Seconds until a list of images is given up: the engine needs some for it, and more for removing many.
IMAGES_TIMEOUT: Final = 120.0


class AppRequest(StrEnum):
    """What a person asks of an app; the last part of the route."""

    RECONCILE = "reconcile"
    RETRY = "retry"  # another pass that lets earlier failures count, unlike `reconcile`
    SUSPEND = "suspend"
    RESUME = "resume"
    APPROVE = "approve"


@dataclass(frozen=True)
class LogQuery:
    """Which lines of a component's log. Without `component`, those of the newest container of the app; `previous`:
    of the container before the newest one. `build`: of the newest build of an image of the app, and with `previous` of
    the one before it. `since` in Unix seconds; `tail` None: all that are kept."""

    component: str | None = None
    previous: bool = False
    since: float | None = None
    tail: int | None = 100
    follow: bool = False
    build: bool = False


class Platform(Protocol):
    """All methods raise Stalled `UnknownApp` for an app that does not exist or that the caller may not see; over
    HTTP also the errors of `ServerClient.ask`."""

    def apps(self) -> Document:
        """Return `daemon` (whether it runs), `platform` (the platform folder, or None) and `apps`."""
        ...

    def app(self, name: str) -> Document: ...

    def events(self, app: str | None, after: int = 0, limit: int = 100, wait: float = 0.0) -> list[Document]:
        """Return events of an app, or of all: those after the event `after`, oldest first, or the newest ones if it
        is 0. Waits up to `wait` seconds for the first one."""
        ...

    def request(self, app: str, what: AppRequest) -> Document:
        """Ask the daemon for a pass; return the document of the request. Stalled `NothingPending`."""
        ...

    def roll_back(self, app: str, revision: str | None = None) -> Document:
        """Ask the daemon to go back to an earlier revision, or without it to the newest good one before the present
        commit. Return the document of the request, with `rollback`. Stalled `UnknownRevision`, `RollbackRefused`."""
        ...

    def progress(self, app: str, request: int, after: int, wait: float) -> Document:
        """Return `request`, the `events` of its app after `after`, and `daemon`. Waits up to `wait` seconds until
        there is an event or the request is done. Stalled `UnknownRequest`."""
        ...

    def secrets(self, app: str) -> Document:
        """Return `secrets`, without values, and `changes`."""
        ...

    def set_secret(self, app: str, secret: str, values: Mapping[str, Secret]) -> Document:
        """Ask for these keys to be set, and others to be left as they are; return the change, which waits for the
        daemon. Stalled `SecretRefused`."""
        ...

    def remove_secret(self, app: str, secret: str, keys: Sequence[str]) -> Document:
        """Ask for these keys to be removed, or without any for the whole Secret. Else as `set_secret`."""
        ...

    def change_age_key(self, app: str, action: KeyAction, force: bool = False) -> Document:
        """Ask for another age key of the app, or for the older ones to be deleted, with `force` also those that a
        commit in force needs. Else as `set_secret`."""
        ...

    def notifications(self, app: str) -> Document:
        """Return the `notifications` of an app, or of the platform."""
        ...

    def test_notification(self, app: str, name: str) -> Document:
        """Ask the daemon for a test message, and return its id as `message`, by which what became of it is found in
        `notifications`. Stalled `UnknownNotification`."""
        ...

    def branch_previews(self, app: str | None) -> Document:
        """Return the `previews` of an app, or of all, and in `leftOut` branches that have none, and why."""
        ...

    def keep_preview(self, app: str, preview: str, forever: bool = False) -> Document:
        """Let the time of a preview of an app begin again, or with `forever` have no end. Stalled `UnknownPreview`."""
        ...

    def remove_preview(self, app: str, preview: str) -> Document:
        """Remove a preview until its branch has another commit. Stalled `UnknownPreview`."""
        ...

    def templates(self) -> Document:
        """Return `templates`, and in `you` what the caller may make of them."""
        ...

    def create_app(self, wanted: Document) -> Document:
        """Place the order for a new app: `name`, `template`, `values` and `limits`; return its document. Stalled with
        what is wrong with it."""
        ...

    def delete_app(self, name: str) -> Document:
        """Place the order to delete an app; return its document. The name has been confirmed."""
        ...

    def order(self, id: str) -> Document:
        """Return an order. Stalled `UnknownOrder`."""
        ...

    def logs(self, app: str, query: LogQuery) -> Iterator[bytes]:
        """Yield pieces of a component's log: UTF-8 text without what a terminal would obey. With `follow`, what is
        added and the logs of later containers follow, until the caller ends. Stalled `UnknownComponent`, `NoContainer`,
        `NoBuild`.
        """
        ...

    def history(self, app: str, limit: int = 20) -> Document:
        """Return what was applied to an app, newest first: `history`."""
        ...

    def diff(self, app: str, begin: str | None = None, end: str | None = None) -> Document:
        """Return the entries `from` and `to`, the difference of their `manifests` (None: not kept) and the `plan` of
        the second one. Without `end` it is the newest one, without `begin` the one before. Stalled `UnknownRevision`.
        """
        ...

    def plan(self, app: str, timeout: float = PLAN_TIMEOUT) -> Document:
        """Return what the next pass would do: `revision`, `actions`, `holds`, `warnings` and the `text` of the plan;
        `from`, the newest entry of the history, and in `manifests` the difference to that (None: not kept). The daemon
        computes it. Raises what prevents a plan; Stalled `NotRunning`, `TimedOut`.
        """
        ...

    def images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        """Return the `images` and caches that are kept on the engine, of an app or all, each with what becomes of it,
        `removed` (whether pruning removes it) and `removal` (why, or when it is removed otherwise). `leftOut`: how many
        the list has not, `removed` and `removedSize`: how many pruning removes, and their bytes. The daemon lists them.
        Raises what prevents it; Stalled `NotRunning`, `TimedOut`.
        """
        ...

    def prune_images(self, app: str | None = None, timeout: float = IMAGES_TIMEOUT) -> Document:
        """Have the daemon remove the images that nothing needs; return the list as `images` with what was removed."""
        ...

    def wait_for_change(self, timeout: float) -> None:
        """Return when the state may have changed, at the latest after `timeout` seconds."""
        ...


class PlanState(StrEnum):
    """How far a plan is that somebody has asked for, or a list of images."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


def finished_plan(found: Document, waited: float, timeout: float) -> Document | None:
    """Return the plan once it is there, None while it is worth waiting. Raises as `Platform.plan`."""
    late = f"the plan of {found['app']} is not there after {timeout:g} s: the daemon may be waiting for the Git server"
    return _finished(found, "computes plans", "" if waited < timeout else late)


def finished_images(found: Document, waited: float, timeout: float) -> Document | None:
    """Return the list of images once it is there, None while it is worth waiting. Raises as `Platform.images`."""
    late = (
        f"the list of images is not there after {timeout:g} s: the daemon may be waiting for the engine, and does "
        "what it was asked for nevertheless"
    )
    return _finished(found, "lists and removes images", "" if waited < timeout else late)


def _finished(found: Document, what: str, late: str) -> Document | None:
    """`what` the daemon does, and what is said if it is late, "" while it is not."""
    match found["state"]:
        case PlanState.DONE:
            return {name: value for name, value in found.items() if name not in ("id", "state", "daemon")}
        case PlanState.FAILED:
            error = Transient if found["transient"] else Stalled
            raise error(Reason(str(found["reason"])), str(found["message"]))
    if found["daemon"] is False:
        told = f"the daemon does not run, which {what}; start it with: prichal daemon"
        raise Stalled(Reason.NOT_RUNNING, told)
    if late:
        raise Stalled(Reason.TIMED_OUT, late)
    return None


def unknown_app(name: str, known: Iterable[str]) -> Stalled:
    """Return the error for an app that is not there, with the most similar name."""
    near = get_close_matches(name, list(known), n=1)
    hint = f" Did you mean {near[0]}?" if near else " List all with: prichal status"
    return Stalled(Reason.UNKNOWN_APP, f"there is no app {name!r}.{hint}")


def names_of(document: Document) -> Iterator[str]:
    """Yield the names of the apps of a list."""
    return (str(app["app"]) for app in document["apps"])
