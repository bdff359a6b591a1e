"""Webhooks against a real gunicorn, and pushers who wait for what becomes of them."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from controller.domain.apps.branch_previews import BranchPreview, BranchPreviews, OpenPull, preview_name
from controller.domain.apps.requests import Outcome, RequestState, Trigger
from controller.domain.apps.status import Event, EventType, PreviewWatch, RepositoryRecord
from controller.domain.names import AppName, previews_key
from controller.domain.reasons import Reason
from controller.kept_logs import BUILDS
from controller.web.api.platform.signatures import sign
from tests.support.gateway import APP
from tests.support.serve_web import settings_of
from tests.support.waiting import wait_for
from tests.support.webhooks import CAPTURED, SECRET, Captured, hmac_hex

from .conftest import Reply, Web

LATER = 1e6  # seconds: a webhook behind another one is due, too
FAR = {"X_Forwarded_For": "192.0.2.1"}  # not from this host, as far as the admin rule knows


@pytest.fixture(autouse=True)
def repositories(web: Web) -> None:
    web.store.repositories.replace(
        RepositoryRecord(
            hook.name, (AppName(f"app-{hook.name}"),), _followed(hook), 60.0, hook.provider.value, hook.secret
        )
        for hook in CAPTURED
    )


def _followed(hook: Captured) -> str:
    kind, _, name = hook.ref.removeprefix("refs/").partition("/")
    return f"{'branch' if kind == 'heads' else 'tag'}:{name}"


def generic(web: Web, body: bytes, **headers: str) -> Reply:
    named = {"content_type": "application/json", "x_signature": "sha256=" + hmac_hex(body), **headers}
    return web.ask("POST", "/-/hooks/generic", body, **named)


def finish(web: Web, app: str, outcome: str) -> None:
    """What the daemon would do."""
    while (request := web.store.requests.claim(time.time() + LATER)) is not None:
        web.store.requests.finish(
            request.id, Outcome(outcome if request.app == app else "Ready"), "because", "c0ffee"
        )


def progress(web: Web, link: str, after: int = 0, wait: int = 0) -> Reply:
    path = f"{link}?after={after}&wait={wait}"
    return web.ask("GET", path, x_signature=sign(SECRET, path.encode()), **FAR)


@pytest.mark.parametrize(
    "hook", [h for h in CAPTURED if "webhook-timestamp" not in h.headers], ids=lambda hook: hook.name
)
def test_every_forge(web: Web, hook: Captured) -> None:
    reply = web.ask("POST", f"/-/hooks/{hook.name}", hook.body, **hook.headers)
    assert reply.status == 202
    assert reply.json["id"] == hook.delivery
    assert reply.headers["location"] == reply.json["links"]["self"]
    queued = web.store.requests.queued(AppName(f"app-{hook.name}"))
    assert queued is not None
    assert [queued.id] == reply.json["requests"]
    replay = web.ask("POST", f"/-/hooks/{hook.name}", hook.body, **hook.headers)
    assert (replay.status, replay.json["status"]) == (200, "replay")
    forged = web.ask(
        "POST", f"/-/hooks/{hook.name}", hook.body + b" ", **{**hook.headers, hook.signature_header: "x"}
    )
    assert (forged.status, forged.headers["content-type"]) == (401, "application/problem+json")


def test_copies_of_one_delivery_at_once(web: Web) -> None:
    body = b'{"ref": "refs/heads/main"}'
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: generic(web, body, x_delivery="twelve"), range(12)))
    assert sorted(reply.status for reply in replies) == [200] * 11 + [202]


def test_a_body_over_25_megabytes(web: Web) -> None:
    body = b" " * (25 * 2**20)
    reply = generic(web, body)
    assert (reply.status, reply.json["type"]) == (413, "urn:prichal:problem:body-too-large")


def test_a_body_over_25_megabytes_is_refused_before_it_is_sent(web: Web) -> None:
    with socket.create_connection(web.address, timeout=30) as sock:
        sock.sendall(
            b"POST /-/hooks/generic HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 26214400\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_chunked_body(web: Web) -> None:
    body = b'{"ref": "refs/heads/main"}'
    head = (
        "POST /-/hooks/generic HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Signature: sha256={hmac_hex(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert web.raw(head.encode() + chunks).startswith(b"HTTP/1.1 202")


def test_a_large_body_within_the_limit(web: Web) -> None:
    body = json.dumps({"ref": "refs/heads/main", "padding": "x" * (24 * 2**20)}).encode()
    assert generic(web, body).status == 202


# --- waiting for what becomes of it -------------------------------------------------------------------------------


def test_the_pusher_sees_the_progress(web: Web) -> None:
    app = AppName("app-generic")
    finish(web, app, "Ready")
    link = generic(web, b'{"ref": "refs/heads/main"}', x_prichal_push="1").json["links"]["self"]
    assert progress(web, link).json["state"] == "queued"

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(progress, web, link, 0, 30)
        web.store.events.add([Event(app, EventType.NORMAL, Reason.BUILDING, "step 1 of 2")])
        first = waiting.result().json
        assert [event["message"] for event in first["events"]] == ["step 1 of 2"]

        last = first["events"][-1]["id"]
        waiting = threads.submit(progress, web, link, last, 30)
        request = web.store.requests.claim(time.time() + LATER)
        assert request is not None
        web.store.requests.finish(request.id, Outcome.DEGRADED, "not ready in time", "c0ffee")
        done = waiting.result().json
    assert (done["state"], done["outcome"], done["message"]) == ("done", "Degraded", "not ready in time")
    assert done["events"] == []


def test_what_polling_has_begun_before_the_hook_is_told_too(web: Web) -> None:
    app, commit = AppName("app-generic"), "c0ffee" + "0" * 34
    finish(web, app, "Ready")
    long_ago = Event(app, EventType.NORMAL, Reason.NEW_REVISION, "an hour ago", revision=commit)
    web.store.events.add([replace(long_ago, at=time.time() - 3600)])
    web.store.events.add([Event(app, EventType.NORMAL, Reason.NEW_REVISION, "Two", revision=commit)])
    body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
    link = generic(web, body, x_prichal_push="1").json["links"]["self"]
    told = progress(web, link).json["events"]
    assert [event["message"] for event in told if event["revision"] == commit] == ["Two"]


def test_lines_of_builds_are_told_to_those_who_ask_for_them(web: Web) -> None:
    finish(web, "app-generic", "Ready")
    link = generic(web, b'{"ref": "refs/heads/main"}').json["links"]["self"]
    folder = (
        settings_of(web.state).kept_logs / "app-generic" / BUILDS / f"{int(time.time() * 1000) + 1:014d}-0123"
    )

    def ask(place: str, wait: int = 30) -> dict[str, str]:
        path = f"{link}?after=999999&build={place}&wait={wait}"
        answer = web.ask("GET", path, x_signature=sign(SECRET, path.encode()), **FAR).json
        assert answer["state"] == "queued"
        return dict(answer["build"])

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, "")
        folder.mkdir(parents=True)
        (folder / f"{0:016d}.log").write_text("Step 1\n")
        first = waiting.result()
    assert first["text"] == "Step 1\n"
    assert ask(first["next"], 0) == {"text": "", "next": first["next"]}
    assert "build" not in progress(web, link, 10**6).json


def test_a_long_poll_without_news_ends_by_itself(web: Web) -> None:
    finish(web, "app-generic", "Ready")
    link = generic(web, b'{"ref": "refs/heads/main"}').json["links"]["self"]
    answer = progress(web, link, 10**9, 1).json
    assert (answer["state"], answer["events"]) == (RequestState.QUEUED.value, [])


@pytest.mark.parametrize("signature", ["", "sha256=00", sign(SECRET, b"/another/path"), sign("wrong", b"x")])
def test_progress_is_for_those_who_know_the_secret(web: Web, signature: str) -> None:
    link = generic(web, b'{"ref": "refs/heads/main"}').json["links"]["self"]
    assert web.ask("GET", link, x_signature=signature, **FAR).status == 401
    assert web.ask("GET", link).status == 200, "the administrator may look"


def test_an_unknown_delivery(web: Web) -> None:
    assert progress(web, "/-/hooks/generic/never").status == 404
    assert web.ask("GET", "/-/hooks/nobody/never", **FAR).status == 401


@pytest.mark.parametrize("query", ["after=x", "wait=-1", "after=1e9", "wait=" + "9" * 40])
def test_a_wrong_number(web: Web, query: str) -> None:
    assert web.ask("GET", f"/-/hooks/generic/x?{query}").status in (400, 404)


def test_those_who_wait_do_not_keep_others_waiting(web: Web) -> None:
    finish(web, "app-generic", "Ready")
    link = generic(web, b'{"ref": "refs/heads/main"}').json["links"]["self"]
    with ThreadPoolExecutor(100) as threads:
        polls = [threads.submit(progress, web, link, 10**9, 50) for _ in range(100)]
        for _ in range(20):
            assert web.ask("GET", "/-/status").status == 200
        assert not any(poll.done() for poll in polls)
        finish(web, "app-generic", "Ready")
        assert {poll.result().json["outcome"] for poll in polls} == {"Ready"}


def test_events_as_they_happen(web: Web) -> None:
    web.store.apps.save(web.store.apps.status(APP), [Event(APP, EventType.NORMAL, Reason("One"), "first")])
    with socket.create_connection(web.address, timeout=30) as sock:
        sock.sendall(b"GET /-/apps/demo/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""

        def read_until(text: bytes) -> None:
            nonlocal received
            while text not in received:
                part = sock.recv(65536)
                assert part, received
                received += part

        read_until(b"first")
        web.store.events.add([Event(APP, EventType.WARNING, Reason("Two"), "second")])
        read_until(b"second")
    assert b"content-type: text/event-stream" in received
    ids = [int(line.split(b": ")[1]) for line in received.splitlines() if line.startswith(b"id: ")]
    with socket.create_connection(web.address, timeout=30) as sock:
        head = (
            f"GET /-/apps/demo/events?follow=1 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {ids[0]}\r\n\r\n"
        )
        sock.sendall(head.encode())
        received = b""
        read_until(b"second")
        assert b"first" not in received


def test_the_event_stream_is_the_administrator_s(web: Web) -> None:
    assert web.ask("GET", "/-/apps/demo/events?follow=1", **FAR).status == 401
    assert web.ask("GET", "/-/apps/nobody/events?follow=1").status == 404


def test_every_answer_has_a_request_id(web: Web) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/-/healthz", {}),
        ("GET", "/-/nothing", {}),
        ("PUT", "/-/healthz", {}),
        ("GET", "/-/apps", FAR),
        ("POST", "/-/hooks/generic", {}),
        ("GET", "/-/hooks/generic/x", {}),
        ("GET", "/demo/open/x", {}),
        ("GET", "/nobody", {}),
    ]
    for method, path, headers in asked:
        reply = web.ask(method, path, x_request_id="mine-7", **headers)
        assert reply.headers["x-request-id"] == "mine-7", path
        assert len(web.ask(method, path, x_request_id="not safe\t", **headers).headers["x-request-id"]) == 32


def test_the_page(web: Web) -> None:
    assert b"prichal</title>" in web.ask("GET", "/-/").body
    wait_for(lambda: web.ask("GET", "/").status == 307)


# --- previews ---------------------------------------------------------------------------------------------------


def _with_previews(web: Web, pulls: bool) -> None:
    watch = PreviewWatch(AppName("app"), ("feature/*",), pulls)
    record = RepositoryRecord(
        "demo", (AppName("app"),), "branch:main", 60.0, "github", SECRET, path="team/demo", previews=(watch,)
    )
    web.store.repositories.replace([record])
    web.store.branches.close_pull("demo", 3)  # of a test before


def _github(web: Web, event: str, payload: object, **more: str) -> Reply:
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac_hex(body)
    named = {"content_type": "application/json", "x_hub_signature_256": signature, "x_github_event": event}
    return web.ask("POST", "/-/hooks/demo", body, **named, **more)


def _pull(state: str, source: int = 7, project: str = "team/demo") -> dict[str, object]:
    head = {"ref": "feature/x", "repo": {"id": source}}
    pull = {"number": 3, "state": state, "head": head, "base": {"repo": {"id": 7}}}
    return {"pull_request": pull, **({"repository": {"full_name": project}} if project else {})}


def test_a_pull_request_is_remembered_while_it_is_open(web: Web) -> None:
    _with_previews(web, pulls=True)
    reply = _github(web, "pull_request", _pull("open"))
    assert (reply.status, reply.json["status"]) == (202, "accepted")
    assert web.store.branches.pulls("demo") == (OpenPull(3, "feature/x"),)
    assert web.store.requests.queued(previews_key(AppName("app"))) is not None
    _github(web, "pull_request", _pull("open", source=8))
    assert web.store.branches.pulls("demo") == (OpenPull(3, "feature/x", is_fork=True),)
    _github(web, "pull_request", _pull("closed"))
    assert web.store.branches.pulls("demo") == ()


@pytest.mark.parametrize("project", ["team/other", "otherteam/demo", ""])
def test_a_request_of_another_project_neither_opens_nor_closes_one(web: Web, project: str) -> None:
    """A hook of an organisation reports all of its projects, which number their requests alike."""
    _with_previews(web, pulls=True)
    reply = _github(web, "pull_request", _pull("open", project=project))
    assert (reply.status, reply.json["status"]) == (202, "skipped")
    assert reply.json["reason"] == f"this event is about {project or 'no project'}, not about team/demo"
    assert web.store.branches.pulls("demo") == ()
    _github(web, "pull_request", _pull("open"))
    _github(web, "pull_request", _pull("closed", project=project))
    assert web.store.branches.pulls("demo") == (OpenPull(3, "feature/x"),)


def test_a_delivery_that_is_repeated_opens_no_request_again(web: Web) -> None:
    _with_previews(web, pulls=True)
    _github(web, "pull_request", _pull("open"), x_github_delivery="first")
    _github(web, "pull_request", _pull("closed"), x_github_delivery="second")
    reply = _github(web, "pull_request", _pull("open"), x_github_delivery="first")
    assert (reply.status, reply.json["status"]) == (200, "replay")
    assert web.store.branches.pulls("demo") == ()


def test_without_previews_of_pull_requests_nothing_is_remembered(web: Web) -> None:
    _with_previews(web, pulls=False)
    reply = _github(web, "pull_request", _pull("open"))
    assert (reply.status, reply.json["reason"]) == (202, "no app has previews of pull requests")
    assert web.store.branches.pulls("demo") == ()


def test_a_pusher_hears_of_the_preview_of_the_branch(web: Web) -> None:
    _with_previews(web, pulls=False)
    ref, key = "refs/heads/feature/x", previews_key(AppName("app"))
    reply = _github(web, "push", {"ref": ref})
    assert reply.status == 202
    link, name = reply.json["links"]["self"], preview_name(AppName("app"), ref)

    def ask() -> Reply:
        path = f"{link}?after=0&wait=0&ref=refs%2Fheads%2Ffeature%2Fx"
        return web.ask("GET", path, x_signature=sign(SECRET, path.encode()), **FAR)

    assert ask().json["state"] == "queued"
    request = web.store.requests.claim(time.time() + LATER)
    assert request is not None
    assert request.app == key
    preview = BranchPreview(name, AppName("app"), ref, "a" * 40, time.time(), time.time() + 60)
    web.store.branches.record(BranchPreviews((preview,)), (), time.time())
    web.store.requests.enqueue(name, Trigger.PLATFORM)
    web.store.requests.finish(request.id, Outcome.READY, "1 preview", "")
    assert ask().json["state"] != "done"  # the request of the preview is queued
    finish(web, name, "Ready")
    assert (ask().json["state"], ask().json["outcome"]) == ("done", "Ready")
