"""The access log of a real gunicorn of two workers."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store

from .conftest import demo_route, echo, serving


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
