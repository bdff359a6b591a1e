"""A person signs in with a real browser at an issuer of OpenID Connect that others operate, too (Django OAuth Toolkit):
from the button to the page and out again, over plain HTTP on loopback and over HTTPS behind a proxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.store.people import PeopleStore
from tests.support.browser import DrivenBrowser, browser
from tests.support.issuer import make_certificate
from tests.support.serve_web import settings_of, with_web
from tests.support.stores import open_store
from tests.support.tls_proxy import tls_proxy
from tests.support.waiting import wait_for

from .conftest import ROOT, Web, demo_route, echo

CLIENTS = ROOT / "tests" / "clients"
PASSWORD = "a password at the issuer"
GROUPS = [
    {"group": "ops", "role": "admin"},
    {"group": "lab", "role": "developer", "app": "pu-lab-*"},
]

pytestmark = [
    pytest.mark.skipif(browser() is None, reason="needs Chromium: scripts/test-tools"),
    pytest.mark.timeout(900),  # the first test makes an environment
]


@dataclass
class RunningIssuer:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/o"

    def set_groups(self, name: str, *groups: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = " ".join([name, *groups])
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == line


@contextmanager
def issuer(folder: Path, base: str) -> Iterator[RunningIssuer]:
    environment = ROOT / "build" / "openid-issuer"
    subprocess.run([ROOT / "scripts" / "python-env", environment, CLIENTS / "openid_issuer.txt"], check=True)
    folder.mkdir()
    addresses = (f"{base}/-/login/oidc/lab/callback", f"{base}/-/login")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [environment / "bin" / "python", CLIENTS / "openid_issuer.py", folder, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield RunningIssuer(process, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


@dataclass
class Place:
    """A platform with the address that people know it by, and the issuer beside it."""

    base: str
    web: Web
    people: PeopleStore
    issuer: RunningIssuer
    options: tuple[str, ...]


@pytest.fixture(scope="module", params=["http", "https"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    state: Path = tmp_path_factory.mktemp("state")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        listen = "{}:{}".format(*listener.getsockname())
        options: tuple[str, ...] = ()
        base = f"http://{listen}"
        if request.param == "https":
            proxy = stack.enter_context(tls_proxy(make_certificate(state / "proxy.pem")))
            proxy.behind = listener.getsockname()
            base, options = proxy.url, ("--ignore-certificate-errors",)
        running = stack.enter_context(issuer(state / "issuer", base))
        (state / "secret").write_text("s3cret-of-the-client\n")
        lab = {"name": "lab", "title": "The lab", "issuer": running.url, "clientId": "prichal"}
        more = {"clientSecretFile": "secret", "groups": GROUPS}
        behind = {"public_url": base, "trusted_proxies": ["127.0.0.1"]}
        web: dict[str, Any] = behind if options else {"listen": listen}
        with_web(state, trust_loopback=False, oidc=[{**lab, **more}], **web)
        store = stack.enter_context(closing(open_store(settings_of(state).database)))
        component = stack.enter_context(echo("first"))
        store.routes.switch(demo_route(component.endpoint))
        served = Web(state, store, listener, component)
        served.start()
        stack.callback(_end, served)
        wait_for(lambda: served.ask("GET", "/-/healthz").status == 200)
        yield Place(base, served, PeopleStore(settings_of(state).people), running, options)


def _end(served: Web) -> None:
    assert served.process is not None
    os.kill(served.process.pid, signal.SIGQUIT)
    served.process.wait(timeout=30)


def go_to_the_issuer(window: DrivenBrowser, place: Place, page: str = "/-/audit") -> None:
    window.open(f"{place.base}{page}")
    wait_for(lambda: "Sign in with The lab" in window.text())
    window.press_enter('a[href^="/-/login/oidc/lab"]')


def sign_in(window: DrivenBrowser, place: Place) -> None:
    go_to_the_issuer(window, place)
    wait_for(lambda: 'id="name"' in window.text())
    assert window.url().startswith(f"http://127.0.0.1:{place.issuer.port}/login?next=/o/authorize/")
    window.fill("#name", "ann")
    window.fill("#password", PASSWORD)
    window.press_enter("#password")


def roles(place: Place) -> list[tuple[str, str]]:
    return [(grant.role, grant.app) for grant in place.people.grants(time.time(), "ann")]


def test_from_the_button_to_the_page_and_out_again(place: Place, tmp_path: Path) -> None:
    place.issuer.set_groups("ann", "ops", "lab")
    with closing(DrivenBrowser(tmp_path / "profile", *place.options)) as window:
        sign_in(window, place)
        wait_for(lambda: window.url() == f"{place.base}/-/audit" and "login" in window.text())
        assert roles(place) == [("developer", "pu-lab-*"), ("admin", "")]
        cookies = {each["name"]: each for each in window.call("Network.getCookies")["cookies"]}
        session = cookies["__Host-prichal-session" if place.options else "prichal-session"]
        assert (session["httpOnly"], session["sameSite"], session["secure"]) == (
            True,
            "Lax",
            bool(place.options),
        )
        history = window.call("Page.getNavigationHistory")["entries"]
        assert all("code=" not in entry["url"] for entry in history)
        place.issuer.set_groups("ann", "lab")
        window.press_enter('form[action="/-/logout"] button')
        wait_for(lambda: "Sign out at The lab, too" in window.text())
        go_to_the_issuer(window, place)  # who is signed in there comes back at once, with the groups of now
        wait_for(lambda: window.url() == f"{place.base}/-/audit")
        assert roles(place) == [("developer", "pu-lab-*")]
        window.open(f"{place.base}/-/sessions")
        wait_for(lambda: "this one" in window.text())
        window.press_enter('form[action="/-/logout"] button')
        wait_for(lambda: "Sign out at The lab, too" in window.text())
        window.press_enter("a.button")
        wait_for(lambda: window.url() == f"{place.base}/-/login")
        go_to_the_issuer(window, place)
        wait_for(lambda: 'id="name"' in window.text())  # the session there has ended, too
    told = [each.act for each in reversed(place.people.acts(who="ann"))]
    assert told == ["user add", "roles by groups", "login", "logout", "roles by groups", "login", "logout"]


def test_an_issuer_that_is_gone(place: Place, tmp_path: Path) -> None:
    """The last test of this platform: the issuer does not come back."""
    place.issuer.process.kill()
    place.issuer.process.wait(30)
    with closing(DrivenBrowser(tmp_path / "profile", *place.options)) as window:
        window.open(f"{place.base}/-/login")
        wait_for(lambda: "Sign in with The lab" in window.text())
        window.open(f"{place.base}/-/login/oidc/lab/callback?code=x&state=y")
        wait_for(lambda: "did not begin in this browser" in window.text())
        assert 'id="password"' in window.text()
