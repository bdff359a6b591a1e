"""Which host name serves what, with `web.appDomain`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import AppName
from controller.domain.routing.routes import Route
from controller.web.gateway.hosts import HostNames, HostRedirect
from controller.web.gateway.router import LOCAL, ForwardCall, Router, find_route
from controller.web.problems import HttpProblem
from tests.support.gateway import make_api, make_route


def route(app: str) -> Route:
    return make_route(make_api("s"), app=AppName(app), any_path=True, upstreams=("127.0.0.1:1",))


TABLE = Router.build(1, [route("demo"), route("other")])
HOSTS = HostNames(b"apps.example.org")


def judged(host: str, path: str) -> str:
    raw = path.encode()
    match HOSTS.judge(host.encode("latin-1"), raw, find_route(TABLE, "GET", raw)):
        case ForwardCall(target):
            return target.label
        case HostRedirect(authority):
            return f"to {authority.decode()}"
        case HttpProblem() as problem:
            return str(problem.code)
        case found:
            return "platform" if found is LOCAL else repr(found)


@pytest.mark.parametrize(
    ("host", "path", "what"),
    [
        ("demo.apps.example.org", "/demo/s/x", "demo/s"),
        ("DEMO.Apps.Example.ORG", "/demo/s/x", "demo/s"),
        ("demo.apps.example.org.", "/demo/s/x", "demo/s"),
        ("demo.apps.example.org:8443", "/demo/s/x", "demo/s"),
        ("demo.apps.example.org.:8443", "/demo/s/x", "demo/s"),
        (" demo.apps.example.org , proxy.example.org", "/demo/s/x", "demo/s"),
        # another app, and the platform, are not there
        ("demo.apps.example.org", "/other/s/x", "404"),
        ("demo.apps.example.org", "/demo", "404"),
        ("demo.apps.example.org", "/demox/s", "404"),
        ("demo.apps.example.org", "/", "404"),
        ("demo.apps.example.org", "/-/", "404"),
        ("demo.apps.example.org", "/-/hooks/demo", "404"),
        ("demo.apps.example.org", "/-", "404"),
        # names that no app has
        ("nobody.apps.example.org", "/demo/s/x", "404"),
        ("nobody.apps.example.org", "/-/", "404"),
        ("x.demo.apps.example.org", "/demo/s/x", "404"),
        ("x.demo.apps.example.org", "/-/", "404"),
        (".apps.example.org", "/-/", "404"),
        ("..apps.example.org", "/-/", "404"),
        # every other name is the platform's
        ("example.org", "/-/", "platform"),
        ("apps.example.org", "/-/", "platform"),
        ("demoapps.example.org", "/-/", "platform"),
        ("127.0.0.1:8000", "/-/", "platform"),
        ("[::1]:8000", "/-/", "platform"),
        ("", "/-/", "platform"),
        ("demo.apps.example.org.evil.example", "/-/", "platform"),
        ("example.org", "/nobody/x", "404"),
        # and sends calls of apps where they belong
        ("example.org", "/demo/s/x", "to demo.apps.example.org"),
        ("example.org:8443", "/demo/s/x", "to demo.apps.example.org:8443"),
        ("127.0.0.1:8000", "/other/s", "to other.apps.example.org:8000"),
        ("apps.example.org.", "/other/s", "to other.apps.example.org"),
        ("evil.example:80\r\nx: y", "/other/s", "to other.apps.example.org"),
        ("", "/demo/s", "to demo.apps.example.org"),
    ],
)
def test_who_serves(host: str, path: str, what: str) -> None:
    assert judged(host, path) == what


@given(
    host=st.one_of(
        st.text(max_size=30), st.from_regex(r"[-a-zA-Z0-9.]{0,20}\.apps\.example\.org\.?(:\d{0,6})?")
    ),
    path=st.sampled_from(["/-/", "/", "/-/apps", "/demo/s/x", "/other/s/x"]),
)
def test_no_name_serves_both_an_app_and_the_platform(host: str, path: str) -> None:
    try:
        sent = host.encode("latin-1").decode("latin-1")
    except UnicodeEncodeError:
        return
    answers = {where: judged(sent, where) for where in ("/-/", "/demo/s/x", "/other/s/x")}
    serving = [where for where, what in answers.items() if what in ("platform", "demo/s", "other/s")]
    assert len(serving) <= 1, answers
    assert judged(sent, path).startswith(("to ", "404", "platform", "demo/s", "other/s"))
