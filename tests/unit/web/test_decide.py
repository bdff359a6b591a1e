"""Which component answers a request: tables, and properties of paths."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.decide import Forward, Local, RouteTable, decide, is_unambiguous
from controller.web.problems import Kind, Problem
from tests.support.gateway import make_api, make_route

TABLE = RouteTable.build(
    7,
    [
        make_route(make_api(), make_api("hidden", published=False)),
        make_route(make_api("own"), component="server", any_path=True, upstreams=("10.0.0.3:80",)),
    ],
)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("POST", b"/demo/image/predict", b"/predict"),
        ("GET", b"/demo/image/openapi.json", b"/openapi.json"),
        ("HEAD", b"/demo/image/openapi.json", b"/openapi.json"),
        ("GET", b"/demo/image/docs", b"/docs"),
        ("GET", b"/demo/image/v2", b"/v2"),
        ("GET", b"/demo/image/v2/health/live", b"/v2/health/live"),
        ("GET", b"/demo/image/v2/health/ready", b"/v2/health/ready"),
        ("GET", b"/demo/image/v2/models/classify", b"/v2/models/classify"),
        ("GET", b"/demo/image/v2/models/classify/ready", b"/v2/models/classify/ready"),
        ("POST", b"/demo/image/v2/models/classify/infer", b"/v2/models/classify/infer"),
        ("POST", b"/demo/image/v2/models/classify/versions/1/infer", b"/v2/models/classify/versions/1/infer"),
        ("GET", b"/demo/own", b"/"),
        ("GET", b"/demo/own/", b"/"),
        ("DELETE", b"/demo/own/items/7", b"/items/7"),
        ("GET", b"/demo/own/items/", b"/items/"),
        ("GET", b"/demo/own/with%20space", b"/with%20space"),
        ("GET", b"/demo/own/a.b/..c/%C3%A9", b"/a.b/..c/%C3%A9"),
    ],
)
def test_forwarded(method: str, path: bytes, asked: bytes) -> None:
    decision = decide(TABLE, method, path)
    assert isinstance(decision, Forward)
    assert decision.path == asked


@pytest.mark.parametrize("path", [b"/", b"/-", b"/-/", b"/-/healthz", b"/-/hooks/demo"])
def test_the_platform_answers_for_itself(path: bytes) -> None:
    assert isinstance(decide(TABLE, "GET", path), Local)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", b"/nobody/image/predict", Kind.NOT_FOUND),
        ("POST", b"/demo/nothing/predict", Kind.NOT_FOUND),
        ("POST", b"/demo/hidden/predict", Kind.NOT_FOUND),
        ("POST", b"/demo", Kind.NOT_FOUND),
        ("POST", b"/demo/", Kind.NOT_FOUND),
        ("POST", b"/demo/image", Kind.NOT_FOUND),
        ("POST", b"/demo/image/predict/", Kind.NOT_FOUND),
        ("POST", b"/demo/image//predict", Kind.NOT_FOUND),
        ("POST", b"//demo/image/predict", Kind.NOT_FOUND),
        ("POST", b"/demo/image/%70redict", Kind.NOT_FOUND),
        ("POST", b"/dem%6F/image/predict", Kind.NOT_FOUND),
        ("POST", b"/demo/image/x/../predict", Kind.NOT_FOUND),
        ("GET", b"/demo/image/health/ready", Kind.NOT_FOUND),
        ("GET", b"/demo/image/metrics", Kind.NOT_FOUND),
        ("GET", b"/demo/image/v2/models/../health/live", Kind.NOT_FOUND),
        ("GET", b"/demo/own/../image/docs", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/./x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/..", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own//x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%2Fb", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/%2e%2e/x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/%252e%252e/x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a\\b", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%5cb", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%00b", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%0d%0ab", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%zz", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%2", Kind.AMBIGUOUS_PATH),
        ("GET", b"http://demo/own/x", Kind.BAD_REQUEST),
        ("OPTIONS", b"*", Kind.BAD_REQUEST),
        ("GET", b"", Kind.BAD_REQUEST),
    ],
)
def test_refused(method: str, path: bytes, kind: Kind) -> None:
    decision = decide(TABLE, method, path)
    assert isinstance(decision, Problem)
    assert decision.kind is kind


def test_an_unpublished_api_cannot_be_told_from_none() -> None:
    assert decide(TABLE, "POST", b"/demo/hidden/predict") == decide(TABLE, "POST", b"/demo/never/predict")
    assert decide(TABLE, "GET", b"/demo/hidden/predict") == decide(TABLE, "GET", b"/never/never/predict")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", b"/demo/image/predict", "POST"),
        ("POST", b"/demo/image/docs", "GET, HEAD"),
        ("DELETE", b"/demo/image/v2/models/classify/infer", "POST"),
    ],
)
def test_wrong_method_names_the_right_ones(method: str, path: bytes, allow: str) -> None:
    decision = decide(TABLE, method, path)
    assert isinstance(decision, Problem)
    assert (decision.kind, decision.allow) == (Kind.METHOD, allow)
    assert ("allow", allow) in decision.headers()


def test_access_rules_change_with_users_and_paths() -> None:
    def rules(**fields: Any) -> bytes:
        table = RouteTable.build(1, [make_route(make_api(**fields))])
        return next(iter(table.targets.values())).credentials

    assert rules() == rules(pass_identity=True)
    assert len({rules(), rules(users=(("a", "x"),)), rules(users=(("a", "y"),)), rules(path="other")}) == 4


@given(st.binary(max_size=60))
def test_any_bytes_get_a_decision(path: bytes) -> None:
    assert isinstance(decide(TABLE, "GET", path), Forward | Local | Problem)


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"%2e", b"%2F", b"%5C", b"\\", b"a", b"%41", b"%", b"%00"]))
)
def test_what_is_forwarded_reads_the_same_decoded(parts: list[bytes]) -> None:
    decision = decide(TABLE, "GET", b"/demo/own/" + b"".join(parts))
    if not isinstance(decision, Forward):
        return
    raw, decoded = decision.path.split(b"/"), unquote_to_bytes(decision.path).split(b"/")
    assert [unquote_to_bytes(segment) for segment in raw] == decoded
    assert not {b".", b".."} & set(decoded)
    assert b"" not in decoded[1:-1]
    assert b"\\" not in decision.path
    assert b"\0" not in unquote_to_bytes(decision.path)


@given(st.text(alphabet="abcXYZ019-_~", min_size=1))
def test_ordinary_paths_pass(segment: str) -> None:
    assert is_unambiguous(f"/{segment}/{segment}".encode())
