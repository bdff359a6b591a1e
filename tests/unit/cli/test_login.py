"""`prichal login` and `logout`, and which platform other commands use after them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.store import SqliteStore
from tests.support.faulty_server import FaultyHandler, status
from tests.support.people import Browser, add_person, hidden
from tests.support.platform_server import PlatformServer, platform_server
from tests.unit.cli.conftest import Machine, Outcome, run_here

#: Together they take seconds.
pytestmark = pytest.mark.slow

AT = "2026-01-31T12:00:00.123Z"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as server:
        server.store.apps.save(AppStatus(AppName("there")))
        server.add("dev", Grant("dev", Role.DEVELOPER, AppName("there")))
        server.add("eve", Grant("eve", Role.VIEWER, AppName("there")))
        yield server


@pytest.fixture
def server(shared: PlatformServer) -> PlatformServer:
    shared.ordered.clear()
    shared.seen.clear()
    return shared


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's configuration; the machine has none of its own."""
    for name in ("PRICHAL_SERVER", "PRICHAL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PRICHAL_CONFIG", str(tmp_path / "none.yaml"))
    (tmp_path / "none.yaml").write_text(f"state: {tmp_path / 'state'}\n")
    return tmp_path / "xdg" / "prichal"


def log_in(server: PlatformServer, user: str = "anna", scope: Scope = Scope.ADMIN) -> Outcome:
    return run_here("login", server.url, "--token-file", "-", stdin=f"{server.token(user, scope)}\n")


def test_a_login_is_used(server: PlatformServer, home: Path) -> None:
    assert run_here("status").code == Exit.UNREACHABLE, "nothing runs here"
    found = log_in(server)
    assert (found.code, found.stdout) == (Exit.OK, f"logged in to {server.url} as anna\n")
    shown = run_here("status", "-o", "name")
    assert (shown.code, shown.stdout) == (Exit.OK, "there\n")
    document = json.loads(run_here("login", "-o", "json").stdout)
    assert document == [
        {"server": server.url, "user": "anna", "scope": "admin", "current": True, "caFile": ""}
    ]
    assert "prichal_" not in found.stdout + found.stderr + run_here("login").stdout


def test_a_logout_revokes_the_token(server: PlatformServer, home: Path) -> None:
    log_in(server)
    token = json.loads((home / "logins.json").read_text())["servers"][server.url]["token"]
    assert run_here("logout").code == Exit.OK
    assert run_here("status").code == Exit.UNREACHABLE
    (home / "token").write_text(token)
    found = run_here("status", "--server", server.url, "--token-file", str(home / "token"))
    assert (found.code, "CredentialsRefused" in found.stderr) == (Exit.FAILED, True)
    again = run_here("logout")
    assert (again.code, "NotLoggedIn" in again.stderr) == (Exit.NOT_FOUND, True)


def test_a_logout_without_the_server(server: PlatformServer, home: Path) -> None:
    log_in(server)
    server.order("api", "POST", status(503))
    found = run_here("logout", server.url)
    assert (found.code, "could not be revoked" in found.stderr) == (Exit.OK, True)
    assert json.loads((home / "logins.json").read_text())["servers"] == {}


def test_a_token_that_is_refused_is_not_kept(server: PlatformServer, home: Path) -> None:
    found = run_here("login", server.url, "--token-file", "-", stdin="prichal_wrong\n")
    assert (found.code, "CredentialsRefused" in found.stderr) == (Exit.FAILED, True)
    assert not home.exists()


@pytest.mark.parametrize("text", ["\n", "a b\x07\n", "é\n"])
def test_what_is_no_token(server: PlatformServer, text: str) -> None:
    assert run_here("login", server.url, "--token-file", "-", stdin=text).code == Exit.USAGE


def test_no_option_takes_a_token(server: PlatformServer) -> None:
    assert run_here("login", server.url, "--token", "prichal_x").code == Exit.USAGE


def test_which_platform_a_command_uses(
    server: PlatformServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    store: SqliteStore,
) -> None:
    """`--server`, then `--config`, then PRICHAL_SERVER, then the login."""
    store.apps.save(AppStatus(AppName("here")))
    with platform_server(tmp_path / "second") as second:
        second.store.apps.save(AppStatus(AppName("second")))
        log_in(second)
        log_in(server)

        def shown(*more: str) -> str:
            return run_here("app", "ls", "-o", "name", *more).stdout.strip()

        assert shown() == "there"
        assert run_here("login", second.url, "--use").code == Exit.OK
        assert shown() == "second"
        assert shown("--config", str(machine.config)) == "here"
        assert shown("--server", server.url) == "there", "with the token of that login"
        monkeypatch.setenv("PRICHAL_SERVER", server.url)
        assert shown() == "there"
        assert shown("--config", str(machine.config)) == "here"
        assert shown("--config", str(machine.config), "--server", second.url) == "second"
    assert run_here("login", "https://unknown.example.org", "--use").code == Exit.NOT_FOUND


def test_a_server_for_files_alone_leaves_other_commands_on_the_host(
    server: PlatformServer,
    monkeypatch: pytest.MonkeyPatch,
    machine: Machine,
    store: SqliteStore,
    tmp_path: Path,
) -> None:
    """PRICHAL_SERVER without credentials, on the host of a platform; elsewhere it is asked, and refuses."""
    store.apps.save(AppStatus(AppName("here")))
    monkeypatch.setenv("PRICHAL_SERVER", server.url)
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(f"state: {tmp_path / 'nothing'}\n")
    monkeypatch.setenv("PRICHAL_CONFIG", str(elsewhere))
    assert "CredentialsRefused" in run_here("app", "ls").stderr
    monkeypatch.setenv("PRICHAL_CONFIG", str(machine.config))
    assert run_here("app", "ls", "-o", "name").stdout == "here\n"
    monkeypatch.setenv("PRICHAL_TOKEN", server.token())
    assert run_here("app", "ls", "-o", "name").stdout == "there\n"


def test_another_release_is_told(server: PlatformServer) -> None:
    log_in(server)
    assert run_here("status").stderr.count("note:") == 0
    server.version = "99.1.2"
    try:
        assert "the server runs prichal 99.1.2" in run_here("status").stderr
    finally:
        server.version = ""
    assert "note:" not in run_here("status").stderr


def test_nothing_of_a_server_reaches_the_terminal_as_it_is(server: PlatformServer) -> None:
    log_in(server)
    evil = "\x1b]0;title\x07\x1b[2J\u202e"
    app = {"app": evil, "state": evil, "conditions": [], "daemon": True}
    event = {"id": 1, "app": evil, "at": AT, "type": evil, "reason": evil, "message": evil}
    for arguments, answer in (
        (("status", "there"), app),
        (("status",), {"apps": [app]}),
        (("events",), {"events": [event]}),
    ):
        for more in ((), ("-o", "json"), ("-o", "yaml"), ("-o", "wide")):
            server.order("api", "GET", *(status(200, json.dumps(answer).encode()) for _ in range(2)))
            found = run_here(*arguments, *more)
            assert found.code == Exit.OK, found.stderr
            assert not set("\x1b\x07\u202e") & set(found.stdout + found.stderr), (arguments, more)
            server.ordered.clear()


# --- in a browser


def test_a_person_confirms_in_a_browser(server: PlatformServer, home: Path) -> None:
    """The browser opens what the command prints, on another machine, say."""
    add = [account.name for account in server.people.accounts()]
    if "carl" not in add:
        add_person(server.people, "carl", Grant("carl", Role.VIEWER))

    def confirm(handler: FaultyHandler) -> bool:
        code = server.codes[-1]
        browser = Browser(server.app)
        assert browser.sign_in("carl").status_code == 303
        page = browser.open(f"/-/device?code={code}")
        browser.submit("/-/device/answer", {**hidden(page), "answer": "allow", "scope": "read"})
        return False

    server.order("api", "POST", lambda handler: False, confirm)
    found = run_here("login", server.url)
    assert (found.code, found.stdout) == (Exit.OK, f"logged in to {server.url} as carl\n"), found.stderr
    assert f"confirm the code {server.codes[-1]}" in found.stderr
    assert run_here("app", "ls", "-o", "name").stdout == "there\n"
    assert json.loads(run_here("login", "-o", "json").stdout)[0]["scope"] == "read"


def test_a_person_who_declines(server: PlatformServer) -> None:
    server.order(
        "api", "POST", lambda handler: False, status(403, b'{"reason": "LoginRefused", "detail": "declined"}')
    )
    found = run_here("login", server.url)
    assert (found.code, "LoginRefused" in found.stderr) == (Exit.FAILED, True)


def test_no_browser_over_a_way_on_which_others_read() -> None:
    assert run_here("login", "http://models.example.org").code == Exit.USAGE


@pytest.mark.parametrize(
    "begun",
    [{}, [], {"secret": 1}, {"secret": "s", "code": "c", "path": "/", "expiresIn": "x", "interval": 1}],
)
def test_a_server_that_begins_something_else(server: PlatformServer, begun: object) -> None:
    server.order("api", "POST", status(200, json.dumps(begun).encode()))
    found = run_here("login", server.url)
    assert (found.code, "NotAPlatform" in found.stderr) == (Exit.FAILED, True)
