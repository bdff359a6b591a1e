"""The client of a platform's own interface against servers that fail or lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.client import server as transport
from controller.client.platform import AppRequest, LogQuery, ServerPlatform
from controller.client.platform import server as platform_client
from controller.client.retry import RetryPolicy
from controller.domain.apps.status import AppStatus
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from tests.support.faulty_server import cut, lose_answer, status
from tests.support.platform_server import PlatformServer, platform_server

AT_ONCE = RetryPolicy(Backoff(0.0, 0.0), 2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    folder: Path = tmp_path_factory.mktemp("platform")
    with platform_server(folder) as server:
        yield server


@pytest.fixture
def server(shared: PlatformServer) -> PlatformServer:
    shared.ordered.clear()
    shared.seen.clear()
    return shared


def client(server: PlatformServer, token: str | None = None) -> ServerPlatform:
    authorization = Secret(f"Bearer {token or server.token()}")
    return ServerPlatform(server.url, authorization, retry_policy=RetryPolicy(Backoff(0.0, 0.0), 2))


@pytest.fixture
def platform(server: PlatformServer) -> Iterator[ServerPlatform]:
    with client(server) as platform:
        yield platform


def reason(ask: Callable[[], object]) -> tuple[Reason, str]:
    with pytest.raises(ControllerError) as error:
        ask()
    return error.value.reason, error.value.message


def test_what_only_reads_is_repeated(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "GET", status(503), lose_answer)
    assert platform.apps()["apps"] == []
    assert len(server.requests("api", "GET")) == 3


def test_what_changes_something_is_sent_once(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "POST", lose_answer)
    found, _ = reason(lambda: platform.request("demo", AppRequest.SUSPEND))
    assert found == Reason.SERVER_UNREACHABLE
    assert len(server.requests("api", "POST")) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"<html>",
        b"{}",
        b'{"apps": null}',
        b'{"apps": [1]}',
        b'{"apps": [{}]}',
        b'{"apps": {"app": 1}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"apps": ',
    ],
)
def test_answers_of_other_types(server: PlatformServer, platform: ServerPlatform, body: bytes) -> None:
    server.order("api", "GET", status(200, body))
    assert reason(platform.apps)[0] == Reason.NOT_A_PLATFORM


@pytest.mark.parametrize("document", [{}, {"events": 1}, {"events": [{"id": 1}]}, {"events": [[]]}, []])
def test_events_of_other_types(server: PlatformServer, platform: ServerPlatform, document: Any) -> None:
    server.order("api", "GET", status(200, json.dumps(document).encode()))
    assert reason(lambda: platform.events(None))[0] == Reason.NOT_A_PLATFORM


def test_a_huge_answer(
    server: PlatformServer, platform: ServerPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST", 2**20)
    server.order("api", "GET", status(200, b" " * (2**20 + 1)))
    found, message = reason(platform.apps)
    assert (found, "more than 1048576 bytes" in message) == (Reason.NOT_A_PLATFORM, True)


def test_a_slow_answer(
    server: PlatformServer, platform: ServerPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LONGEST", -1.0)
    found, message = reason(platform.apps)
    assert (found, "was not complete" in message) == (Reason.SERVER_UNREACHABLE, True)


def test_an_answer_that_breaks_off(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "GET", cut(5), cut(5), cut(5))
    assert reason(platform.apps)[0] == Reason.SERVER_UNREACHABLE


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_gets_the_token(
    server: PlatformServer, platform: ServerPlatform, code: int, tmp_path: Path
) -> None:
    with platform_server(tmp_path) as other:
        server.order("api", "GET", status(code, Location=f"{other.url}/-/apps"))
        found, message = reason(platform.apps)
        assert (found, f"redirects to {other.url}" in message) == (Reason.NOT_A_PLATFORM, True)
        assert other.seen == []


def test_a_server_that_is_none(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "GET", status(404, b"<html>nothing here"))
    assert reason(platform.apps)[0] == Reason.NOT_A_PLATFORM


def test_a_server_that_does_not_know_the_request(server: PlatformServer, platform: ServerPlatform) -> None:
    found, message = reason(lambda: platform.read("/-/future", "cannot look ahead", dict))
    assert found == Reason.SERVER_TOO_OLD
    assert f"prichal {server.version}, does not know this request" in message
    assert platform.version == server.version


def test_a_problem_that_lies(server: PlatformServer, platform: ServerPlatform) -> None:
    """A reason or a text that is none of ours ends in an error, and nothing of it reaches a terminal."""
    for body in (
        {"reason": "\x1b[2J", "detail": "\x1b]0;title\x07 told"},
        {"reason": 7, "detail": "told"},
        {"reason": "A" * 500, "detail": "told " * 100_000},
        {"reason": ["UnknownApp"], "detail": {}},
    ):
        server.order("api", "GET", status(409, json.dumps(body).encode()))
        found, message = reason(platform.apps)
        assert (found, "\x1b" in message, len(message) < 10_000) == (Reason.REQUEST_REFUSED, False, True)


def test_tokens_that_are_not_good(server: PlatformServer) -> None:
    revoked = server.token()
    with client(server, revoked) as platform:
        me = platform.me()
        assert (me["user"], me["scope"], me["roles"]) == (
            "anna",
            "admin",
            [{"role": "admin", "app": None, "group": None}],
        )
        platform.end_token()
        found, message = reason(platform.apps)
        assert (found, "prichal login URL" in message) == (Reason.CREDENTIALS_REFUSED, True)
    for token in (server.token(days=-1), "prichal_unknown", "x" * 5000):
        with client(server, token) as platform:
            assert reason(platform.apps)[0] == Reason.CREDENTIALS_REFUSED


def test_a_token_of_any_scope_may_end_itself(server: PlatformServer) -> None:
    server.add("reader", Grant("reader", Role.VIEWER))
    with client(server, server.token("reader", Scope.READ)) as platform:
        assert platform.me()["token"] is not None
        assert reason(lambda: platform.request("demo", AppRequest.SUSPEND))[0] == Reason.ACCESS_DENIED
        platform.end_token()
        assert reason(platform.me)[0] == Reason.CREDENTIALS_REFUSED


def test_fields_that_are_not_known_are_kept(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "GET", status(200, b'{"apps": [{"app": "x", "new": 1}], "daemon": true, "more": {}}'))
    assert platform.apps()["more"] == {}
    server.order("api", "GET", status(200, b'{"apps": []}'))
    assert platform.apps() == {"daemon": None, "platform": None, "apps": []}


def test_a_followed_log_survives_interruptions(
    server: PlatformServer, platform: ServerPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_client, "LOOK", 0.0)
    server.store.apps.save(AppStatus(AppName("demo")))
    place = server.settings.kept_logs / "demo" / "namer" / "00000000000001-a"
    place.mkdir(parents=True)
    text = "".join(f"line {number}\n" for number in range(20_000))
    (place / "0000000000000000.log").write_text(text)
    server.order("api", "GET", cut(70_000), status(503), cut(150_000), lose_answer)
    found, following = b"", platform.logs("demo", LogQuery(tail=None, follow=True))
    while len(found) < len(text):
        found += next(following)
    following.close()  # type: ignore[attr-defined]
    assert found.decode() == text, "nothing is lost or repeated"
    resumed = [headers.get("last-event-id") for headers in server.headers("api", "GET")]
    assert resumed[0] is None
    assert any(id and id.startswith("namer/00000000000001-a:") for id in resumed)


def test_a_line_without_an_end(server: PlatformServer, platform: ServerPlatform) -> None:
    server.order("api", "GET", status(200, b"data: " + b"x" * (2**20 + 1)))
    assert reason(lambda: list(platform.logs("demo", LogQuery(follow=True))))[0] == Reason.NOT_A_PLATFORM
