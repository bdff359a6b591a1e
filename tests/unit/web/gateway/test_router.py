"""Which component answers a request: tables, and properties of paths."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.routing.routes import ServiceKind
from controller.domain.storage.keys import FileKeyInvalid, parse_path
from controller.web.gateway.router import (
    ForwardCall,
    PlatformEndpoint,
    Router,
    ServeService,
    dialect_of,
    find_route,
    is_unambiguous,
)
from controller.web.problems import HttpProblem, ProblemDialect, ProblemKind
from tests.support.gateway import make_api, make_route, make_service

TABLE = Router.build(
    7,
    [
        make_route(make_api(), make_api("hidden", published=False)),
        make_route(make_api("own"), component="server", any_path=True, upstreams=("10.0.0.3:80",)),
    ],
    [
        make_service(),
        make_service("train", kind=ServiceKind.PIPELINE),
        make_service("secret", published=False),
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
        ("POST", b"/demo/image/v1/chat/completions", b"/v1/chat/completions"),
        ("GET", b"/demo/image/v1/models", b"/v1/models"),
        ("GET", b"/demo/image/v1/models/classify", b"/v1/models/classify"),
        ("GET", b"/demo/own", b"/"),
        ("GET", b"/demo/own/", b"/"),
        ("DELETE", b"/demo/own/items/7", b"/items/7"),
        ("GET", b"/demo/own/items/", b"/items/"),
        ("GET", b"/demo/own/with%20space", b"/with%20space"),
        ("GET", b"/demo/own/a.b/..c/%C3%A9", b"/a.b/..c/%C3%A9"),
    ],
)
def test_forwarded(method: str, path: bytes, asked: bytes) -> None:
    decision = find_route(TABLE, method, path)
    assert isinstance(decision, ForwardCall)
    assert decision.path == asked


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (b"/demo/files", ""),
        (b"/demo/files/", ""),
        (b"/demo/files/box", "box"),
        (b"/demo/files/box/", "box/"),
        (b"/demo/files/box/group/a.txt", "box/group/a.txt"),
        (b"/demo/files/box/g/two%20words", "box/g/two words"),
        (b"/demo/files/box/g/%D1%84%D0%B0%D0%B9%D0%BB", "box/g/файл"),
        ("/demo/files/box/g/файл".encode(), "box/g/файл"),
        (b"/demo/files/box/g/a+b%2Bc", "box/g/a+b+c"),
        (b"/demo/files/box/g/%23%3F%25%26", "box/g/#?%&"),
        (b"/demo/files/box/g/100%25%20%2541", "box/g/100% %41"),
        (b"/demo/files/box/g/a%2Etxt", "box/g/a.txt"),
        (b"/demo/files/box/g/..a/...", "box/g/..a/..."),
        (b"/demo/files/-/docs", "-/docs"),
        (b"/demo/train/runs", "runs"),
    ],
)
def test_services_are_the_platform_s_to_answer(path: bytes, asked: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
        decision = find_route(TABLE, method, path)
        assert isinstance(decision, ServeService)
        assert decision.path == asked
        assert decision.target.label == b"/".join(path.split(b"/")[1:3]).decode()


@pytest.mark.parametrize("path", [b"/", b"/-", b"/-/", b"/-/healthz", b"/-/hooks/demo"])
def test_the_platform_answers_for_itself(path: bytes) -> None:
    assert isinstance(find_route(TABLE, "GET", path), PlatformEndpoint)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", b"/nobody/image/predict", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/nothing/predict", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/hidden/predict", ProblemKind.NOT_FOUND),
        ("POST", b"/demo", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/image", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/image/predict/", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/image//predict", ProblemKind.NOT_FOUND),
        ("POST", b"//demo/image/predict", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/image/%70redict", ProblemKind.NOT_FOUND),
        ("POST", b"/dem%6F/image/predict", ProblemKind.NOT_FOUND),
        ("POST", b"/demo/image/x/../predict", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/image/health/ready", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/image/metrics", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/image/v2/models/../health/live", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/own/../image/docs", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/./x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/..", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own//x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%2Fb", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/%2e%2e/x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/%252e%252e/x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a\\b", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%5cb", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%00b", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%0d%0ab", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%zz", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/own/a%2", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/secret", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/secret/../files", ProblemKind.NOT_FOUND),
        ("GET", b"/nobody/files", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/Files/box", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/file%73/box", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/files%2Fbox/a", ProblemKind.NOT_FOUND),
        ("GET", b"/demo%2Ffiles/box/a", ProblemKind.NOT_FOUND),
        ("GET", b"/demo/files/box%2F%2Fa", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%2F..%2Fb", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%2f%2E%2e", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%5Cb", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a\\b", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/../x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%2e%2E/x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/..", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/./x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box//x", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files//box", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/x//", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%00", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%0d%0ab", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%7F", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%C2%85", ProblemKind.AMBIGUOUS_PATH),  # a control character of C1
        ("GET", b"/demo/files/box/a%", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%4", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%zz", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%FF", ProblemKind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%C0%AF", ProblemKind.AMBIGUOUS_PATH),  # an overlong slash
        ("GET", b"/demo/files/box/%ED%A0%80", ProblemKind.AMBIGUOUS_PATH),  # half of a surrogate pair
        ("GET", b"http://demo/own/x", ProblemKind.BAD_REQUEST),
        ("OPTIONS", b"*", ProblemKind.BAD_REQUEST),
        ("GET", b"", ProblemKind.BAD_REQUEST),
    ],
)
def test_refused(method: str, path: bytes, kind: ProblemKind) -> None:
    decision = find_route(TABLE, method, path)
    assert isinstance(decision, HttpProblem)
    assert decision.kind is kind


def test_an_unpublished_api_cannot_be_told_from_none() -> None:
    assert find_route(TABLE, "POST", b"/demo/hidden/predict") == find_route(
        TABLE, "POST", b"/demo/never/predict"
    )
    assert find_route(TABLE, "GET", b"/demo/hidden/predict") == find_route(
        TABLE, "GET", b"/never/never/predict"
    )
    assert find_route(TABLE, "GET", b"/demo/secret/%00") == find_route(TABLE, "GET", b"/never/never/%00")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", b"/demo/image/predict", "POST, OPTIONS"),
        ("OPTIONS", b"/demo/image/predict", "POST, OPTIONS"),
        ("POST", b"/demo/image/docs", "GET, HEAD, OPTIONS"),
        ("DELETE", b"/demo/image/v2/models/classify/infer", "POST, OPTIONS"),
    ],
)
def test_wrong_method_names_the_right_ones(method: str, path: bytes, allow: str) -> None:
    decision = find_route(TABLE, method, path)
    assert isinstance(decision, HttpProblem)
    assert (decision.kind, decision.allow) == (ProblemKind.METHOD, allow)
    assert ("allow", allow) in decision.headers()


def test_access_rules_change_with_users_and_paths() -> None:
    def rules(**fields: Any) -> bytes:
        table = Router.build(1, [make_route(make_api(**fields))])
        return next(iter(table.targets.values())).credentials

    assert rules() == rules(pass_identity=True)
    assert len({rules(), rules(users=(("a", "x"),)), rules(users=(("a", "y"),)), rules(path="other")}) == 4


@given(st.binary(max_size=60))
def test_any_bytes_get_a_decision(path: bytes) -> None:
    assert isinstance(find_route(TABLE, "GET", path), ForwardCall | PlatformEndpoint | HttpProblem)
    assert isinstance(find_route(TABLE, "GET", b"/demo/files/" + path), ServeService | HttpProblem)


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"%2e", b"%2F", b"%5C", b"\\", b"a", b"%41", b"%", b"%00"]))
)
def test_what_is_forwarded_reads_the_same_decoded(parts: list[bytes]) -> None:
    decision = find_route(TABLE, "GET", b"/demo/own/" + b"".join(parts))
    if not isinstance(decision, ForwardCall):
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


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_a_name_that_a_box_can_hold_arrives_as_it_is(names: list[str]) -> None:
    """Whatever names callers give their files: a path that is valid by itself is valid in a URL."""
    text = "/".join(names)
    try:
        parse_path(text)
    except FileKeyInvalid:
        return
    decision = find_route(TABLE, "PUT", b"/demo/files/" + quote(text).encode())
    assert isinstance(decision, ServeService)
    assert decision.path == text


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4),
    st.lists(st.sampled_from(["/", "%2F", "%2f"]), min_size=3, max_size=3),
)
def test_an_escaped_slash_separates_like_any_other(names: list[str], slashes: list[str]) -> None:
    """Generated clients escape the slashes of a path parameter, and only those."""
    text = "/".join(names)
    try:
        parse_path(text)
    except FileKeyInvalid:
        return
    first, *rest = (quote(name, safe="") for name in names)
    raw = first + "".join(slash + name for slash, name in zip(slashes, rest, strict=False))
    decision = find_route(TABLE, "PUT", b"/demo/files/" + raw.encode())
    assert isinstance(decision, ServeService)
    assert decision.path == text


@given(
    st.lists(
        st.sampled_from(
            [b"/", b".", b"..", b"%2e", b"%2F", b"%5C", b"\\", b"a", b"%41", b"%", b"%00", b"%25"]
        )
    )
)
def test_what_is_served_leads_nowhere_else(parts: list[bytes]) -> None:
    decision = find_route(TABLE, "GET", b"/demo/files/" + b"".join(parts))
    if not isinstance(decision, ServeService):
        return
    segments = decision.path.split("/")
    assert not {".", ".."} & set(segments)
    assert "" not in segments[:-1]
    assert "\\" not in decision.path
    assert "\0" not in decision.path


def test_access_rules_of_services_change_with_users_and_paths() -> None:
    def rules(path: str = "files", **fields: Any) -> bytes:
        table = Router.build(1, [], [make_service(path, **fields)])
        return next(iter(table.services.values())).credentials

    assert len({rules(), rules(users=(("a", "x"),)), rules(users=(("a", "y"),)), rules("other")}) == 4


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        (b"/demo/net/v2", ProblemDialect.OPEN_INFERENCE),
        (b"/demo/net/v2/", ProblemDialect.OPEN_INFERENCE),
        (b"/demo/net/v2/models/net/infer", ProblemDialect.OPEN_INFERENCE),
        (b"/demo/net/v2/%0a\n", ProblemDialect.OPEN_INFERENCE),
        (b"/demo/net/v1", ProblemDialect.OPENAI),
        (b"/demo/net/v1/chat/completions", ProblemDialect.OPENAI),
        (b"/demo/net/v3", ProblemDialect.OURS),
        (b"/demo/net/v22", ProblemDialect.OURS),
        (b"/demo/net/v11", ProblemDialect.OURS),
        (b"/demo/net/predict", ProblemDialect.OURS),
        (b"/demo/v2", ProblemDialect.OURS),
        (b"/demo/v1", ProblemDialect.OURS),
        (b"/-/hooks/v2", ProblemDialect.OURS),
        (b"/-/hooks/v1/x", ProblemDialect.OURS),
        (b"/", ProblemDialect.OURS),
        (b"*", ProblemDialect.OURS),
    ],
)
def test_paths_of_other_protocols(path: bytes, dialect: ProblemDialect) -> None:
    assert dialect_of(path) is dialect
