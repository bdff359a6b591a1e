"""What pages of other origins are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.spec import CorsSpec
from controller.domain.routing.routes import ServiceKind
from controller.web.gateway.cors import CorsPolicy, CorsRequest
from controller.web.gateway.router import Router
from tests.support.gateway import make_api, make_route, make_service
from tests.support.specs import make

LAB, LOCAL = "https://lab.example.org", "http://localhost:4200"
NAMED = CorsPolicy.of(make(CorsSpec, (LAB, LOCAL), expose_headers=("X-Total-Count",)))
WITH_CREDENTIALS = CorsPolicy.of(CorsSpec((LAB,), credentials=True, max_age=5))
ANY = CorsPolicy.of(make(CorsSpec, ("*",)))


def told(cors: CorsPolicy, *headers: tuple[bytes, bytes], preflight: bool = False) -> dict[str, str]:
    asked = CorsRequest.by(headers)
    found: dict[str, str] = {}
    for name, value in cors.preflight(asked) if preflight else cors.headers(asked):
        found[name.decode()] = ", ".join(filter(None, (found.get(name.decode()), value.decode())))
    return found


def origin(text: str) -> tuple[bytes, bytes]:
    return b"origin", text.encode()


ASKS = [
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type"),
]


@pytest.mark.parametrize("text", [LAB, LOCAL])
def test_a_listed_origin(text: str) -> None:
    found = told(NAMED, origin(text))
    assert found["access-control-allow-origin"] == text
    assert found["vary"] == "Origin"
    assert "access-control-allow-credentials" not in found
    exposed = found["access-control-expose-headers"].split(", ")
    assert {"WWW-Authenticate", "Location", "Retry-After", "X-Request-ID", "ETag", "Link"} <= set(exposed)
    assert exposed[-1] == "X-Total-Count"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "https://evil.example",
        "https://lab.example.org.evil.example",
        "https://lab.example.org:8443",
        "https://lab.example.org/",
        "http://lab.example.org",
        "https://LAB.example.org",
        "https://a.lab.example.org",
        "*",
        f"{LAB} {LOCAL}",
        f"{LAB},{LOCAL}",
    ],
)
@pytest.mark.parametrize("preflight", [False, True])
def test_an_origin_that_is_not_listed_is_told_nothing(text: str, preflight: bool) -> None:
    for cors in (NAMED, WITH_CREDENTIALS):
        found = told(cors, origin(text), *ASKS, preflight=preflight)
        assert list(found) == ["vary"], "but caches are told that origins differ"
        assert found["vary"].startswith("Origin")


def test_without_an_origin_caches_are_told_all_the_same() -> None:
    assert told(NAMED) == {"vary": "Origin"}
    assert told(NAMED, origin(LAB), origin(LAB)) == {"vary": "Origin"}, "two origins are none"


def test_all_origins() -> None:
    for headers in ((), (origin("null"),), (origin("https://evil.example"),)):
        found = told(ANY, *headers)
        assert found["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in found
        assert "vary" not in found


def test_credentials_only_for_origins_that_are_named() -> None:
    found = told(WITH_CREDENTIALS, origin(LAB), *ASKS, preflight=True)
    assert found["access-control-allow-credentials"] == "true"
    assert found["access-control-allow-origin"] == LAB
    assert found["access-control-max-age"] == "5"


@pytest.mark.parametrize("cors", [NAMED, ANY])
def test_a_preflight(cors: CorsPolicy) -> None:
    found = told(cors, origin(LAB), *ASKS, preflight=True)
    assert found["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert found["access-control-allow-headers"] == "authorization,content-type"
    assert found["access-control-max-age"] == "600"


def test_names_in_several_lines_are_all_allowed() -> None:
    names = [(b"access-control-request-headers", name) for name in (b"authorization", b"content-type")]
    found = told(NAMED, origin(LAB), ASKS[0], *names, preflight=True)
    assert found["access-control-allow-headers"] == "authorization, content-type"
    twice = told(NAMED, origin(LAB), origin(LAB), *ASKS, preflight=True)
    assert "access-control-allow-origin" not in twice, "a page has one origin"


def test_a_method_of_a_server_of_its_own() -> None:
    asks = [origin(LAB), (b"access-control-request-method", b"PROPFIND")]
    assert told(NAMED, *asks, preflight=True)["access-control-allow-methods"].endswith(", DELETE, PROPFIND")


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_nothing_strange_is_repeated(method: bytes, names: bytes) -> None:
    asks = [origin(LAB), (b"access-control-request-method", method)]
    asks.append((b"access-control-request-headers", names))
    for _, value in NAMED.preflight(CorsRequest.by(asks)):
        assert value.decode("ascii").isprintable()


def test_every_path_of_an_api_has_its_rule() -> None:
    rule = make(CorsSpec, (LAB,))
    route = make_route(
        make_api("shared", cors=rule), make_api("alone"), make_api("hidden", published=False, cors=rule)
    )
    service = make_service("pipelines", ServiceKind.PIPELINES, cors=rule)
    table = Router.build(1, [route], [service])
    for path in (
        "/demo/shared",
        "/demo/shared/",
        "/demo/shared/predict",
        "/demo/shared/no/such",
        "/demo/pipelines/x",
    ):
        assert table.cors_of(path.encode()) is not None
    for path in (
        "/",
        "",
        "*",
        "/demo",
        "/demo/alone/predict",
        "/demo/hidden/predict",
        "/-/apps",
        "/other/shared/x",
    ):
        assert table.cors_of(path.encode()) is None
    assert Router.build(1, [make_route()]).cors_of(b"/demo/image/predict") is None
