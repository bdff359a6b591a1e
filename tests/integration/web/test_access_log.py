"""The access log of a real gunicorn of two workers."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store

from .conftest import Web, demo_route, echo, serving


def test_both_workers_write_one_file(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "access.log"
    with_web(state, access={"access_log": "json", "access_file": str(path)})
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as web:
            before = len(path.read_text().splitlines()) if path.exists() else 0
            size = len(web.ask("POST", "/demo/open/a?token=5ecret", b"{}", x_request_id="r1").body)
            web.ask(
                "POST",
                "/demo/closed/b",
                b"{}",
                authorization="Bearer t0ken",
                user_agent='x"\\y',
                referer="/z?5ecret",
            )
            web.ask("POST", "/demo/closed/c", b"{}")
            web.ask("GET", "/nobody/at/all")
            web.ask("GET", "/-/healthz")
            assert web.stop() == 0
    text = path.read_text()
    assert "5ecret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) >= before + 5
    found = {line["path"]: line for line in lines}
    opened = found["/demo/open/a"]
    assert (opened["requestId"], opened["status"], opened["bytes"]) == ("r1", 200, size)
    assert (opened["api"], opened["user"], opened["address"]) == ("demo/open", "", "127.0.0.1")
    known = found["/demo/closed/b"]
    assert (known["user"], known["userAgent"], known["referrer"]) == ("ci", 'x"\\y', "/z")
    assert [found[path]["status"] for path in ("/demo/closed/c", "/nobody/at/all", "/-/healthz")] == [
        401,
        404,
        200,
    ]


#: Method, path, and a field beside the usual ones.
REQUESTS = (
    ("POST", "/demo/open/predict?x=1", "X-A: 1"),
    ("HEAD", "/demo/open/predict", "X-A: 1"),
    ("POST", "/demo/closed/predict", "Authorization: Bearer t0ken"),
    ("POST", "/demo/closed/predict", "Authorization: Bearer t0ke"),
    ("POST", "/demo/none/predict", "X-A: 1"),
    ("GET", "/-/healthz", "X-A: 1"),
)
BODY = b'{"inputs": []}'
UNUSUAL = "TE: trailers\r\n"  # gunicorn's own parser reads it then, and no component sees this


def sent(request: tuple[str, str, str], identity: str, more: str = "") -> bytes:
    method, path, field = request
    head = f"{method} {path} HTTP/1.1\r\nHost: here\r\n{field}\r\nX-Request-ID: {identity}\r\n{more}"
    return f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


def ways_of(request: tuple[str, str, str], identity: str) -> list[list[bytes]]:
    """Return the pieces of connections by which the same request comes to the gateway."""
    data = sent(request, identity)
    return [
        [data],
        [data, data],
        [data[:20], data[20:]],
        [data[:-9], data[-9:]],
        [sent(request, identity, UNUSUAL)],
    ]


def last_answer(web: Web, method: str, pieces: list[bytes]) -> tuple[Any, ...]:
    """Send the pieces, and read an answer when a whole request has been sent. Return the last one, without what differs
    from answer to answer."""
    answer: tuple[int, list[tuple[str, str]], bytes] = (0, [], b"")
    with socket.create_connection(web.address, timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            if not piece.endswith(BODY[-9:]):
                continue
            with HTTPResponse(connection, method=method) as reply:
                reply.begin()
                answer = reply.status, reply.getheaders(), reply.read()
    status, headers, body = answer
    return status, [header for header in headers if header[0].lower() != "date"], body


def test_a_request_is_answered_and_logged_alike_however_it_comes(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "access.log"
    with_web(state, access={"access_log": "json", "access_file": str(path)})
    answers: dict[str, list[tuple[Any, ...]]] = {}
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as web:
            for number, request in enumerate(REQUESTS):
                identity = f"r{number}"
                ways = ways_of(request, identity)
                answers[identity] = [last_answer(web, request[0], pieces) for pieces in ways]
            assert web.stop() == 0
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        identity, _, _ = line.pop("requestId"), line.pop("time"), line.pop("seconds")
        lines.setdefault(identity, []).append(line)
    for identity, given in answers.items():
        assert given == given[:1] * len(given)
        assert lines[identity] == lines[identity][:1] * (len(given) + 1), "one came twice"
    assert [given[0][0] for given in answers.values()] == [200, 501, 200, 401, 404, 200]
