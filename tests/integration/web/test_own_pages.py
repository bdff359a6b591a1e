"""What browsers are told about all that the platform itself answers, from each part of it: Flask, the event loop, or an
error on the way; and how an app's own host name looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store

from .conftest import Web, demo_route, echo, serving

TOKEN = "Bearer letmein-token"


@pytest.mark.parametrize("authorization", [TOKEN, ""])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/-",
        "/-/",
        "/-/healthz",
        "/-/readyz",
        "/-/status",
        "/-/metrics",
        "/-/apps",
        "/-/apps/@platform",
        "/-/apps/nobody",
        "/-/apps/nobody/events?follow=1",
        "/-/apps/@platform/events?limit=x",
        "/-/hooks/nobody",
        "/-/hooks/nobody/1",
        "/-/nothing%0a",
        "/-/../-/apps",
    ],
)
def test_all_of_it_is_out_of_reach_for_pages(web: Web, path: str, method: str, authorization: str) -> None:
    reply = web.ask(method, path, authorization=authorization)
    fields = reply.headers
    assert fields["cache-control"] == "no-store"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["x-frame-options"] == "DENY"
    assert fields["referrer-policy"] == "no-referrer"
    assert fields["cross-origin-resource-policy"] == "same-origin"
    policy = [part.strip() for part in fields["content-security-policy"].split(";")]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    (sandbox,) = (part for part in policy if part.startswith("sandbox"))
    assert "allow-same-origin" not in sandbox


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """With a host name for each app."""
    state: Path = tmp_path_factory.mktemp("state")
    with_web(state, app_domain="apps.example.org")
    with closing(open_store(settings_of(state).database)) as store, echo("first") as component:
        store.routes.switch(demo_route(component.endpoint))
        with serving(state, store, component) as running:
            yield running


def test_an_app_is_served_at_its_own_host(apart: Web) -> None:
    reply = apart.ask("POST", "/demo/open/predict?x=1", b"{}", host="Demo.apps.example.org.:8443")
    assert reply.status == 200
    assert reply.json["line"] == "POST /predict?x=1 HTTP/1.1"
    for path in ("/-/healthz", "/-/apps", "/", "/other/open/x"):
        reply = apart.ask("GET", path, host="demo.apps.example.org", authorization=TOKEN)
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


def test_the_platform_s_host_sends_calls_on(apart: Web) -> None:
    reply = apart.ask("POST", "/demo/open/predict?x=1", b"{}", host="example.org:8443")
    assert (reply.status, reply.body) == (308, b"")
    assert reply.headers["location"] == "http://demo.apps.example.org:8443/demo/open/predict?x=1"
    assert apart.ask("GET", "/demo/nothing/x", host="example.org").status == 404
    assert apart.ask("GET", "/-/apps", host="example.org", authorization=TOKEN).status == 200
    options = apart.ask("OPTIONS", "/demo/open/predict", host="example.org", origin="https://x.example")
    assert "access-control-allow-origin" not in options.headers
