"""`POST /-/hooks/<repository>`: a forge reports a push. The delivery is verified and recorded, and becomes a
request for every app of the repository; nothing is fetched or deployed here.

The answer comes after the request is stored, so a forge that got 202 need not try again.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Final

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import HookProvider
from controller.domain.apps.status import RepositoryRecord, WebhookDelivery
from controller.domain.names import AppName, previews_key
from controller.ports import Store
from controller.web import isolated_json
from controller.web.api.platform import pushes
from controller.web.api.platform.signatures import (
    Headers,
    bears_signature,
    concerned_previews,
    concerns,
    delivery_id,
    is_about,
    is_genuine,
    is_of_server,
    is_ping,
    is_pull,
    is_push,
    own_push,
    pull_of,
    refs_of,
    server_event,
)
from controller.web.bodies import require_json
from controller.web.context import context
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

log = logging.getLogger(__name__)

JUST: Final = 60.0  # seconds between a push and its hook, at most

hooks = Blueprint("hooks", __name__)

ASK_FOR_JSON = "Set the webhook's content type to application/json."


@hooks.post("/-/hooks/<repository>")
def receive(repository: str) -> ResponseReturnValue:
    store, settings = context(current_app)
    record, provider = _record(store, repository)
    require_json(
        request.mimetype, ASK_FOR_JSON
    )  # first of all, so that a forge shows this error for its first ping
    headers = {name.lower(): value for name, value in request.headers.items()}
    if is_ping(provider, headers) and not bears_signature(provider, headers):
        # Some forges never sign it. It has no effect, and reveals no more than a 401 would: that the hook exists.
        return {"status": "pong", "reason": "this ping is not signed; pushes have to be"}, 200
    request.max_content_length = settings.web.hook_max_body
    body = request.get_data(cache=False)
    if not is_genuine(provider, record.hook_secret, headers, body, time.time()):
        raise RequestRefused(
            HttpProblem(ProblemKind.BAD_SIGNATURE, "The body is not signed with this repository's secret.")
        )
    if is_ping(provider, headers):
        return {"status": "pong"}, 200
    if is_of_server(provider, headers):
        return _of_server(store, record, delivery_id(provider, headers), body)
    if is_pull(provider, headers):
        return _pull(store, record, delivery_id(provider, headers), body)
    if not is_push(provider, headers):
        return _skipped("this event is not about a push")
    return _push(store, record, provider, headers, body)


def _push(
    store: Store, record: RepositoryRecord, provider: HookProvider, headers: Headers, body: bytes
) -> ResponseReturnValue:
    own, commit = provider is HookProvider.GENERIC and headers.get("x-prichal-push") == "1", ""
    if own:
        told, refs = isolated_json.read_here(len(body), own_push, body)
        commit = told.after
        pushes.note(store, record, told)
    else:
        refs = isolated_json.read_here(len(body), refs_of, body)
    trigger = Trigger.PUSH if own else Trigger.WEBHOOK
    return _take(store, record, delivery_id(provider, headers), refs, trigger, commit)


def _take(
    store: Store,
    record: RepositoryRecord,
    identity: str,
    refs: frozenset[str],
    trigger: Trigger = Trigger.WEBHOOK,
    commit: str = "",
) -> ResponseReturnValue:
    """Ask for passes over what follows one of the refs."""
    keys = concerned(record, refs)
    if not keys:
        return _skipped(f"{', '.join(sorted(refs))} is not what is followed, {record.ref}")
    return _accept(store, record, identity or secrets.token_hex(16), trigger, keys, commit)


def _of_server(store: Store, record: RepositoryRecord, identity: str, body: bytes) -> ResponseReturnValue:
    """Take an event of one of all projects of a server. A push to another project only has the server asked."""
    event = isolated_json.read_here(len(body), server_event, body)
    if event.is_pull:
        return _pull(store, record, identity, body)
    if not event.is_push:
        return _skipped("this event is not about a push")
    refs = isolated_json.read_here(len(body), refs_of, body)
    return _take(store, record, identity, refs)


def concerned(record: RepositoryRecord, refs: frozenset[str]) -> tuple[AppName, ...]:
    """Return the keys of the requests that a push leads to: apps, and looks at branches for previews."""
    apps = record.apps if concerns(refs, record.ref) else ()
    return (*apps, *(previews_key(app) for app in concerned_previews(refs, record.previews)))


def _skipped(why: str) -> ResponseReturnValue:
    return {"status": "skipped", "reason": why}, 202


def _pull(store: Store, record: RepositoryRecord, identity: str, body: bytes) -> ResponseReturnValue:
    """Remember whether a pull request is open, and look at the branches. Numbers are those of a project, and hooks of a
    group or a server report all of its projects: a request of another one must not open or close a preview."""
    apps = [watch.app for watch in record.previews if watch.pulls]
    if not apps:
        return _skipped("no app has previews of pull requests")
    event = isolated_json.read_here(len(body), pull_of, body)
    if event is None:
        return _skipped("this event names no pull request")
    if record.path and not is_about(event.project, record.path):
        return _skipped(f"this event is about {event.project or 'no project'}, not about {record.path}")
    identity = identity or secrets.token_hex(16)
    keys = tuple(previews_key(app) for app in apps)
    with store.transaction():
        if store.repositories.delivery(record.name, identity) is not None:
            pass  # a replay: what it says may have changed meanwhile
        elif event.is_open:
            store.branches.open_pull(record.name, event.pull, time.time())
        else:
            store.branches.close_pull(record.name, event.pull.number)
        return _accept(store, record, identity, Trigger.WEBHOOK, keys)


def _record(store: Store, repository: str) -> tuple[RepositoryRecord, HookProvider]:
    record = store.repositories.get(repository)
    if record is None or record.hook_provider is None or not record.hook_secret:
        raise RequestRefused(HttpProblem(ProblemKind.NOT_FOUND, "No repository of this name has a webhook."))
    return record, HookProvider(record.hook_provider)


def _since(store: Store, record: RepositoryRecord, commit: str) -> float:
    """Return when the platform began with a commit that was just pushed: polling may have found it before the hook had
    started."""
    now = time.time()
    if not commit:
        return now
    seen = (event for app in record.apps for event in store.events.list(app))
    return min((e.at for e in seen if e.revision == commit and e.at > now - JUST), default=now)


def _accept(
    store: Store,
    record: RepositoryRecord,
    identity: str,
    trigger: Trigger,
    keys: tuple[AppName, ...],
    commit: str = "",
) -> ResponseReturnValue:
    requests: tuple[int, ...] = ()
    since = _since(store, record, commit)  # before the write lock is taken, for which others wait
    with store.transaction():  # begins with the write lock, so two copies of one delivery cannot both be new
        known = store.repositories.delivery(record.name, identity)
        if known is None:
            requests = tuple(store.requests.enqueue(key, trigger) for key in keys)
            store.repositories.remember(WebhookDelivery(identity, record.name, requests, since))
    self_link = f"/-/hooks/{record.name}/{identity}"
    if known is not None:
        return {
            "status": "replay",
            "id": identity,
            "requests": known.requests,
            "links": {"self": self_link},
        }, 200
    log.info(
        "webhook accepted", extra={"repository": record.name, "delivery": identity, "requests": requests}
    )
    answer = {"status": "accepted", "id": identity, "requests": requests, "links": {"self": self_link}}
    return answer, 202, {"Location": self_link}
