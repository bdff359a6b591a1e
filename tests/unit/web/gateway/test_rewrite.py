"""Redirects, links and cookies of a component, as its callers see them."""

from __future__ import annotations

import http.cookiejar
import re
import time
import urllib.request
from email.message import Message
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.gateway.headers import lines_for
from controller.web.gateway.rewrite import REWRITTEN, PublicSite, cookies, location, set_cookie

HEX = "0123456789abcdef"
CALLER = "models.example.org:8107"


def site(path: str = "/items", host: str = CALLER, *endpoints: str, prefix: str = "/demo/own") -> PublicSite:
    return PublicSite(
        prefix.encode(), path.encode(), host.encode(), endpoints or ("172.23.0.2:8002",), "demo.counter"
    )


OWN = [
    "172.23.0.2:8002",
    "172.23.0.2",
    "172.23.0.2:80",
    "172.23.0.3:8002",
    "user@172.23.0.2:8002",
    "user:pass@172.23.0.2:8002",
    "user:p@ss@172.23.0.2:8002",
    "[::ffff:172.23.0.2]:8002",
    "[fd00::2]:8002",
    "[FD00:0:0::2]:8002",
    "localhost:8002",
    "LOCALHOST:8002",
    "127.0.0.1:8002",
    "0.0.0.0:8002",
    "[::1]:8002",
    "1f0c9a2e77ab:8002",
    "counter:8002",
    "1f0c9a2e77ab",
    "prichal.demo.counter.1f0c9a2e.0:8002",
    "PRICHAL.demo.counter.1F0C9A2E.12",
    "prichal.demo.counter.1f0c9a2e.0.prichal.demo:8002",
    "models.example.org:8107",
    "Models.Example.ORG:8107",
    "models.example.org.:8107",
    "models.example.org:8002",
    "me@models.example.org:8107",
]
FOREIGN = [
    "example.org",
    "models.example.org",
    "other.example.org:8107",
    "172.23.0.20:8002",
    "172.23.0.4:8002",
    "localhost:3000",
    "intranet",
    "intranet:8080",
    "127.0.0.1",
    "172.23.0.2:8002@evil.example",
    "172.23.0.2.evil.example",
    "demo.counter.example",
    "www.demo.counter.example.au",
    "models.example.org:8107.evil.example",
    "[fd00::3]:8002",
]


@pytest.mark.parametrize("scheme", ["http:", "https:", "HTTP:", ""])
@pytest.mark.parametrize("authority", OWN)
def test_an_own_authority_becomes_the_prefix(authority: str, scheme: str) -> None:
    here = site("/items", CALLER, "172.23.0.2:8002", "172.23.0.3:8002", "[fd00::2]:8002")
    for path, wanted in (
        ("/items/", "/demo/own/items/"),
        ("", "/demo/own/"),
        ("?page=2#end", "/demo/own/?page=2#end"),
        ("/demo/own/items/", "/demo/own/items/"),
        ("/demo/own?x=http://172.23.0.2:8002/", "/demo/own?x=http://172.23.0.2:8002/"),
        ("/demo/ownership", "/demo/own/demo/ownership"),
    ):
        assert location(f"{scheme}//{authority}{path}".encode(), here).decode() == wanted


@pytest.mark.parametrize("url", [
    "\\\\172.23.0.2:8002/items/", "/\\172.23.0.2:8002/items/", "///172.23.0.2:8002/items/",
    "http:\\\\172.23.0.2:8002\\items/",
    "http:///172.23.0.2:8002/items/", "http:/172.23.0.2:8002/items/", "https:172.23.0.2:8002/items/",
    "http://172.23.0.2:8002\\items/", "//172.23.0.2:8002\\items/", "\\items/",
])  # fmt: skip
def test_an_own_authority_is_found_as_browsers_find_it(url: str) -> None:
    assert location(url.encode(), site()) == b"/demo/own/items/"


@pytest.mark.parametrize("url", ["/\\evil.example/", "///evil.example/", "/\\/evil.example/"])
@pytest.mark.parametrize("path", ["/items", "/"])
def test_what_looks_like_a_path_leads_to_no_other_host(path: str, url: str) -> None:
    assert location(url.encode(), site(path)) == b"/demo/own" + url.encode()


@pytest.mark.parametrize("authority", OWN)
def test_a_backslash_ends_an_authority(authority: str) -> None:
    here = site("/items", CALLER, "172.23.0.2:8002", "172.23.0.3:8002", "[fd00::2]:8002")
    assert location(f"http://{authority}\\@evil.example/".encode(), here) == b"/demo/own/@evil.example/"


@pytest.mark.parametrize("scheme", ["http:", "https:", ""])
@pytest.mark.parametrize("authority", FOREIGN)
def test_a_foreign_authority_stays(authority: str, scheme: str) -> None:
    url = f"{scheme}//{authority}/items/?x#y".encode()
    assert location(url, site()) == url


@pytest.mark.parametrize(
    ("host", "url", "wanted"),
    [
        ("models.example.org", "http://models.example.org:80/a", "/demo/own/a"),
        ("models.example.org", "https://models.example.org/a", "/demo/own/a"),
        ("models.example.org:443", "https://models.example.org/a", "/demo/own/a"),
        ("[2001:db8::1]:8000", "http://[2001:DB8:0::1]:8000/a", "/demo/own/a"),
        ("[2001:db8::1]", "http://[2001:db8::1]/a", "/demo/own/a"),
        ("[2001:db8::1]", "http://[2001:db8::2]/a", "http://[2001:db8::2]/a"),
        ("", "http://models.example.org/a", "http://models.example.org/a"),
    ],
)
def test_the_host_that_the_caller_asked(host: str, url: str, wanted: str) -> None:
    assert location(url.encode(), site(host=host)).decode() == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("/items/", "/demo/own/items/"),
        ("/", "/demo/own/"),
        ("/demo/own", "/demo/own"),
        ("/demo/own/", "/demo/own/"),
        ("/demo/own#top", "/demo/own#top"),
        ("/demo/owner", "/demo/own/demo/owner"),
        ("", ""),
        ("items/", "items/"),
        ("../items", "../items"),
        ("?page=2", "?page=2"),
        ("#top", "#top"),
        ("mailto:ann@example.org", "mailto:ann@example.org"),
        ("ftp://172.23.0.2:8002/a", "ftp://172.23.0.2:8002/a"),
        ("///items", "/demo/own///items"),
    ],
)
def test_paths(value: str, wanted: str) -> None:
    assert location(value.encode(), site("/folder/x")).decode() == wanted


def test_a_relative_redirect_of_the_root_stays_below_the_prefix() -> None:
    """The caller may have asked for `/demo/own`, beside which `items/` would lie."""
    for asked in ("/demo/own", "/demo/own/"):
        assert urljoin(asked, location(b"items/", site("/?x")).decode()) == "/demo/own/items/"
    assert location(b"mailto:ann@example.org", site("/")) == b"mailto:ann@example.org"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("5", "5"),
        ("5; url=http://172.23.0.2:8002/a", "5; url=/demo/own/a"),
        ("0;URL=/a", "0;URL=/demo/own/a"),
        ("0; Url = '/a' x", "0; Url = '/demo/own/a' x"),
        ('1.5, "//172.23.0.2:8002/a"', '1.5, "/demo/own/a"'),
        ("5; /a", "5; /demo/own/a"),
        ("5; url=https://example.org/", "5; url=https://example.org/"),
    ],
)
def test_refresh(value: str, wanted: str) -> None:
    assert site().rewrite(b"refresh", value.encode()).decode() == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (
            '<http://172.23.0.2:8002/items?page=2>; rel="next", </items>;rel=first',
            '</demo/own/items?page=2>; rel="next", </demo/own/items>;rel=first',
        ),
        ("<https://cdn.example.org/a.css>; rel=preload", "<https://cdn.example.org/a.css>; rel=preload"),
        ('</a>; title="</b> \\" </c>", </d>', '</demo/own/a>; title="</b> \\" </c>", </demo/own/d>'),
        ("</a", "</a"),
        ('"</a>', '"</a>'),
    ],
)
def test_links(value: str, wanted: str) -> None:
    assert site().rewrite(b"link", value.encode()).decode() == wanted


@given(st.text(max_size=40), st.sampled_from(sorted(REWRITTEN)))
def test_whatever_a_component_sends_has_a_value(text: str, name: bytes) -> None:
    site().rewrite(name, text.encode())


@given(
    st.sampled_from(["http", "https", "HtTp"]),
    st.sampled_from(["", "ann@", "ann:secret@"]),
    st.from_regex(r"(/[a-z0-9%._~-]{0,8}){0,4}", fullmatch=True),
    st.from_regex(r"(\?[a-z=/:&]{0,12})?(#[a-z]{0,5})?", fullmatch=True),
)
def test_no_address_of_a_container_leaves(scheme: str, user: str, path: str, rest: str) -> None:
    for url in (f"{scheme}://{user}172.23.0.2:8002{path}{rest}", f"//172.23.0.2:8002{path}{rest}"):
        made = location(url.encode(), site()).decode()
        assert made.partition("?")[0].partition("#")[0].startswith("/demo/own")
        assert location(made.encode(), site()).decode() == made, "what is right is left alone"


@pytest.mark.parametrize(
    "value",
    [b'"' * 60_000, b'"\\' * 30_000, b"<" * 60_000, b"5;" + b" " * 60_000, b";" * 60_000, b"@:" * 30_000],
)
def test_long_values_take_no_time(value: bytes) -> None:
    began = time.process_time()
    for name in REWRITTEN:
        site().rewrite(name, value)
        site().rewrite(name, b"http://" + value)
    assert time.process_time() - began < 1.0, "linear: some milliseconds"


# --- cookies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "value", "wanted"),
    [
        ("/login", "sid=1", "sid=1; Path=/demo/own"),
        ("/auth/login?x=/y/z", "sid=1; HttpOnly", "sid=1; Path=/demo/own/auth; HttpOnly"),
        ("/login", "sid=1; Path=/; Secure", "sid=1; Path=/demo/own; Secure"),
        ("/login", "sid=1; PATH = /admin", "sid=1; Path=/demo/own/admin"),
        ("/login", 'sid=1; Path="/admin"', "sid=1; Path=/demo/own/admin"),
        ("/login", "sid=1; Path=admin", "sid=1; Path=/demo/own"),
        ("/login", "sid=1; Path=", "sid=1; Path=/demo/own"),
        ("/login", "sid=1; Path=/demo/own", "sid=1; Path=/demo/own"),
        ("/login", "sid=1; Path=/demo/own/x", "sid=1; Path=/demo/own/x"),
        ("/login", "sid=1; Path=/demo", "sid=1; Path=/demo/own/demo"),
        ("/login", "sid=1; Path=/a; Path=/", "sid=1; Path=/demo/own"),
        ("/login", "sid=1; Domain=example.org; domain=.org", "sid=1; Path=/demo/own"),
        ("/login", "sid=1; Max-Age=5; SameSite=None; Partitioned", None),
        ("/login", "__Secure-sid=1; Secure; Path=/", "__Secure-sid=1; Path=/demo/own; Secure"),
        ("/login", "__Host-sid=1; Secure; Path=/", "__Host-demo.own.sid=1; Path=/; Secure"),
        ("/login", "__HOST-sid=1; Secure; Path=/", "__HOST-demo.own.sid=1; Path=/; Secure"),
        ("/login", "__Host-Http-sid=1; Secure", "__Host-demo.own.Http-sid=1; Path=/; Secure"),
    ],
)
def test_set_cookie(asked: str, value: str, wanted: str | None) -> None:
    wanted = wanted or "sid=1; Path=/demo/own; Max-Age=5; SameSite=None; Partitioned"
    assert set_cookie(value.encode(), site(asked)).decode() == wanted


class _Answer:
    """As much of a response as the standard library's jar looks at."""

    def __init__(self, *lines: bytes) -> None:
        self._message = Message()
        for line in lines:
            self._message["Set-Cookie"] = line.decode()

    def info(self) -> Message:
        return self._message


PATHS = [
    "",
    "; Path=/",
    "; Path=/other",
    "; Path=/other/api",
    "; Path=x",
    "; Path=/demo/own/deep",
    "; Path=/..",
]
APIS = ["/demo/own", "/demo/owner", "/demo/own2", "/other/api"]


@given(
    st.lists(
        st.tuples(st.sampled_from(PATHS), st.sampled_from(["", "; Domain=models.example.org"])), max_size=4
    ),
    st.sampled_from(["/", "/login", "/a/b/c"]),
)
def test_a_client_gives_cookies_to_the_api_that_set_them(
    attributes: list[tuple[str, str]], asked: str
) -> None:
    """By a real client's rules, not by ours."""
    base = "http://models.example.org"
    jar = http.cookiejar.CookieJar()
    here = site(asked)
    lines = [
        set_cookie(f"c{n}=1{path}{domain}".encode(), here) for n, (path, domain) in enumerate(attributes)
    ]
    jar.extract_cookies(_Answer(*lines), urllib.request.Request(base + "/demo/own" + asked))  # type: ignore[arg-type]
    assert len(jar) == len(attributes), "a client takes each of them"
    for api in APIS[1:]:
        request = urllib.request.Request(f"{base}{api}/predict")
        jar.add_cookie_header(request)
        assert request.get_header("Cookie") is None


@given(
    st.lists(
        st.sampled_from(["__Host-sid", "__host-a", "sid", "__Secure-b", "__Host-"]), unique=True, max_size=5
    )
)
def test_a_component_gets_its_own_cookies_back_and_no_others(names: list[str]) -> None:
    sent = [set_cookie(f"{name}=1; Secure; Path=/".encode(), site()).split(b";")[0] for name in names]
    field = b"; ".join(sent)
    assert cookies(field, b"/demo/own").decode() == "; ".join(f"{name}=1" for name in names)
    others = cookies(field, b"/other/api")
    assert not re.search(b"__host-", others, re.IGNORECASE)


def test_cookie_lines() -> None:
    lines = [b"accept: */*\r\n", b"cookie: a=1; __Host-other.api.sid=2\r\n", b"cookie: __Host-x=3\r\n"]
    assert lines_for(b"/demo/own", lines) == b"accept: */*\r\ncookie: a=1\r\n"
    assert lines_for(b"/demo/own", lines[:1]) == lines[0]
