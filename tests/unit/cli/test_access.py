"""Who may give which command against a server: one table of commands and acts, walked by people of every role. A new
command with `--server` takes a row here, or stands in `OF_MODULES` because it asks an API of a module."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.cli.main import prichal
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import OF_APP, Act
from tests.support.branch_previews import record_previews
from tests.support.commands import every_command
from tests.support.platform_server import PlatformServer, platform_server
from tests.unit.cli.conftest import Outcome, run_here
from tests.unit.web.auth.test_rules import OTHER, OWN, PEOPLE, REFUSED

#: The act of each command, and what follows its name; APP stands for an app, FILE for a file.
COMMANDS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "app ls": (Act.LIST, ()),
    "app status": (Act.SEE, ("APP",)),
    "app events": (Act.SEE, ("APP",)),
    "app logs": (Act.SEE, ("APP",)),
    "app history": (Act.SEE, ("APP",)),
    "app diff": (Act.SEE, ("APP", "1f0c9a2e")),
    "app plan": (Act.SEE, ("APP", "--timeout", "0.1")),
    "app reconcile": (Act.STEER, ("APP",)),
    "app suspend": (Act.STEER, ("APP",)),
    "app resume": (Act.STEER, ("APP",)),
    "app rollback": (Act.STEER, ("APP",)),
    "app approve": (Act.STEER, ("APP",)),
    "app templates": (Act.LIST, ()),
    "app create": (Act.CREATE, ("pu-new-pa-app", "--template", "function")),
    "app delete": (Act.DELETE, ("APP", "--yes")),
    "preview ls": (Act.SEE, ("APP",)),
    "preview keep": (Act.STEER, ("APP/feature/x",)),
    "preview rm": (Act.STEER, ("APP/feature/x",)),
    "notify ls": (Act.SEE, ("APP",)),
    "notify test": (Act.STEER, ("APP", "team", "--timeout", "0.1")),
    "image ls": (Act.ADMINISTER, ("--timeout", "0.1")),
    "image prune": (Act.ADMINISTER, ("--yes", "--timeout", "0.1")),
    "secret ls": (Act.STEER, ("APP",)),
    "secret key": (Act.STEER, ("APP", "--rotate", "--timeout", "0.1")),
    "secret set": (Act.STEER, ("APP", "credentials", "password=FILE", "--timeout", "0.1")),
    "secret rm": (Act.STEER, ("APP", "credentials", "--timeout", "0.1")),
}
#: Commands that call APIs of modules, as the users of these: tests/integration/web tries them.
OF_MODULES = (
    *(f"file {verb}" for verb in ("cp", "get", "ls", "mv", "put", "rm")),
    *(f"run {verb}" for verb in ("cancel", "logs", "ls", "retry", "start", "status")),
)


def commands_with_servers() -> list[str]:
    """The path of each command that takes `--server`, the longest one of those with several names."""
    found = {
        id(command): " ".join(path)
        for path, command in sorted(every_command(prichal), key=lambda each: len(each[0]))
        if any("--server" in option.opts for option in command.params)
    }
    return sorted(found.values())


@cache
def token_of(server: PlatformServer, name: str, scope: Scope = Scope.ADMIN, days: int = 1) -> str:
    """Return the one token of its kind: a person has fifty at most, and there are more tests."""
    return server.token(name, scope, days)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as running:
        for name in (OWN, OTHER):
            running.store.apps.save(AppStatus(AppName(name)))
            record_previews(running.store, AppName(name), "feature/x")
        for name, grants in PEOPLE.items():
            running.add(name, *grants)
        yield running


@pytest.fixture(autouse=True)
def machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PRICHAL_SERVER", "PRICHAL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def words_of(command: str, app: str, file: Path) -> list[str]:
    _, arguments = COMMANDS[command]
    return [
        *command.split(),
        *(word.replace("APP", app).replace("FILE", str(file)) for word in arguments),
    ]


def give(server: PlatformServer, folder: Path, command: str, app: str, token: str) -> Outcome:
    file = folder / "token"
    file.write_text(token)
    return run_here(*words_of(command, app, file), "--server", server.url, "--token-file", str(file))


def test_every_command_has_a_row() -> None:
    assert commands_with_servers() == sorted((*COMMANDS, *OF_MODULES))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_role_with_every_command(server: PlatformServer, tmp_path: Path, command: str) -> None:
    act, arguments = COMMANDS[command]
    for app in (OWN, OTHER) if arguments else ("",):
        refused = REFUSED[(act, app) if act in OF_APP else act]
        for name in PEOPLE:
            found = give(server, tmp_path, command, app, token_of(server, name))
            match refused.get(name):
                case 404:
                    assert (found.code, "UnknownApp" in found.stderr) == (Exit.NOT_FOUND, True), (name, app)
                case 403:
                    assert (found.code, "AccessDenied" in found.stderr) == (Exit.FAILED, True), (name, app)
                case _:
                    assert "AccessDenied" not in found.stderr, (name, app)
                    assert "UnknownApp" not in found.stderr, (name, app)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_tokens_that_are_no_good(server: PlatformServer, tmp_path: Path, command: str) -> None:
    expired = token_of(server, "boss", days=-1)
    for token in ("prichal_nothing", expired):
        found = give(server, tmp_path, command, OWN, token)
        assert (found.code, "CredentialsRefused" in found.stderr) == (Exit.FAILED, True)
    act, _ = COMMANDS[command]
    reading = give(server, tmp_path, command, OWN, token_of(server, "boss", Scope.READ))
    assert ("AccessDenied" in reading.stderr) == (act in (Act.STEER, Act.CREATE, Act.DELETE, Act.ADMINISTER))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_who_has_logged_in_needs_no_options(server: PlatformServer, tmp_path: Path, command: str) -> None:
    """The same two answers as above, without `--server` and a token."""
    file = tmp_path / "token"
    for name in ("boss", "nobody"):
        file.write_text(token_of(server, name))
        assert run_here("login", server.url, "--token-file", str(file)).code == Exit.OK
        by_login = run_here(*words_of(command, OWN, file))
        given = give(server, tmp_path, command, OWN, token_of(server, name))
        assert by_login.code == given.code, (name, by_login.stderr, given.stderr)
