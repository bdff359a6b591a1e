"""Which component answers a request: tables, and properties of paths."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.keys import KeyInvalid, parse_path
from controller.domain.routes import ServiceKind
from controller.web.gateway.decide import Forward, Local, RouteTable, Serve, decide, is_unambiguous
from controller.web.problems import Kind, Problem
from tests.support.gateway import make_api, make_route, make_service

TABLE = RouteTable.build(
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
        decision = decide(TABLE, method, path)
        assert isinstance(decision, Serve)
        assert decision.path == asked
        assert decision.target.label == b"/".join(path.split(b"/")[1:3]).decode()


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
        ("GET", b"/demo/secret", Kind.NOT_FOUND),
        ("GET", b"/demo/secret/../files", Kind.NOT_FOUND),
        ("GET", b"/nobody/files", Kind.NOT_FOUND),
        ("GET", b"/demo/Files/box", Kind.NOT_FOUND),
        ("GET", b"/demo/file%73/box", Kind.NOT_FOUND),
        ("GET", b"/demo/files/box/a%2Fb", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%2fb", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%5Cb", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a\\b", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/../x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%2e%2E/x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/..", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/./x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box//x", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files//box", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/x//", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%00", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%0d%0ab", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%7F", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%C2%85", Kind.AMBIGUOUS_PATH),  # a control character of C1
        ("GET", b"/demo/files/box/a%", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%4", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/a%zz", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%FF", Kind.AMBIGUOUS_PATH),
        ("GET", b"/demo/files/box/%C0%AF", Kind.AMBIGUOUS_PATH),  # an overlong slash
        ("GET", b"/demo/files/box/%ED%A0%80", Kind.AMBIGUOUS_PATH),  # half of a surrogate pair
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
    assert decide(TABLE, "GET", b"/demo/secret/%00") == decide(TABLE, "GET", b"/never/never/%00")


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
    assert isinstance(decide(TABLE, "GET", b"/demo/files/" + path), Serve | Problem)


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


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_a_name_that_a_box_can_hold_arrives_as_it_is(names: list[str]) -> None:
    """Whatever a caller calls his files: a path that is valid by itself is valid in a URL."""
    text = "/".join(names)
    try:
        parse_path(text)
    except KeyInvalid:
        return
    decision = decide(TABLE, "PUT", b"/demo/files/" + quote(text).encode())
    assert isinstance(decision, Serve)
    assert decision.path == text


@given(
    st.lists(
        st.sampled_from(
            [b"/", b".", b"..", b"%2e", b"%2F", b"%5C", b"\\", b"a", b"%41", b"%", b"%00", b"%25"]
        )
    )
)
def test_what_is_served_leads_nowhere_else(parts: list[bytes]) -> None:
    decision = decide(TABLE, "GET", b"/demo/files/" + b"".join(parts))
    if not isinstance(decision, Serve):
        return
    segments = decision.path.split("/")
    assert not {".", ".."} & set(segments)
    assert "" not in segments[:-1]
    assert "\\" not in decision.path
    assert "\0" not in decision.path


def test_access_rules_of_services_change_with_users_and_paths() -> None:
    def rules(path: str = "files", **fields: Any) -> bytes:
        table = RouteTable.build(1, [], [make_service(path, **fields)])
        return next(iter(table.services.values())).credentials

    assert len({rules(), rules(users=(("a", "x"),)), rules(users=(("a", "y"),)), rules("other")}) == 4
