"""`--dry-run`: every command that changes something has it, or a reason why not; it answers as the command would, and
changes nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click
import pytest

from controller.cli import secrets
from controller.cli.main import SECTIONS
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.people.accounts import Scope, SessionRecord
from controller.domain.people.roles import Grant, Role
from controller.domain.people.tokens import new_token
from controller.domain.routing.caller_names import PASSWORD
from controller.domain.storage.box import BoxRecord, BoxState
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore, SessionLimits
from tests.support.branch_previews import record_previews
from tests.support.commands import COMMANDS
from tests.support.platform_server import PlatformServer, platform_server
from tests.support.specs import make
from tests.unit.cli.conftest import Machine, Outcome, run_here

DEMO = AppName("demo")
#: Commands that only look, and print.
READING = (
    *(
        "app ls",
        "app templates",
        "app status",
        "app events",
        "app logs",
        "app plan",
        "app diff",
        "app history",
    ),
    *(
        "repo ls",
        "run ls",
        "run status",
        "run logs",
        "file ls",
        "box ls",
        "image ls",
        "preview ls",
        "secret ls",
        "notify ls",
        "name ls",
        "backup list",
        "backup verify",
    ),
    *("user ls", "role ls", "session ls", "token ls", "token show", "config show", "password hash", "audit"),
    *("validate", "doctor", "completion"),
)
#: Commands that change something and cannot be tried, and why.
EXEMPT = {
    "run start": "the API of the app decides by what waits and runs at that moment; prichal run-local tries a pipeline",
    "run cancel": "as run start; prichal run status shows what would be canceled",
    "run retry": "as run start",
    "file get": "it writes one file on this machine, which is named",
    "login": "it changes only what this person is logged in to",
    "logout": "it changes only what this person is logged in to",
    "new": "it writes into a new folder",
    "serve-local": "it runs on this machine, apart from any platform",
    "run-local": "it runs on this machine, apart from any platform",
    "up": "it runs a server",
    "daemon": "it runs a server",
    "web": "it runs a server",
    "git-http": "it runs a server",
    "backup run": "it runs a service",
    "backup create": "the backup is all that it makes, and the configuration says which ones are removed after it",
    "backup restore": "the host is empty before; prichal backup verify says whether it would work",
    "backup keygen": "it writes one new file on this machine, which is named",
}
#: Tried where their state is, or below, since they answer in another way.
ELSEWHERE = {
    "image prune": "tests/unit/cli/test_images.py",
    "key rotate": "tests/unit/cli/test_secrets.py",
    "notify test": "tests/unit/cli/test_dry_run.py",
    **dict.fromkeys(("file put", "file cp", "file mv", "file rm"), "tests/unit/cli/test_files.py"),
}
#: The others, with arguments by which they change the state of `prepared`.
TRIED = {
    "app create": ("new", "--template", "function"),
    "app delete": ("demo",),
    "app reconcile": ("demo",),
    "app suspend": ("demo",),
    "app resume": ("demo",),
    "app rollback": ("demo",),
    "app approve": ("demo",),
    "preview keep": ("demo/feature/x",),
    "preview rm": ("demo/feature/x",),
    "secret set": ("demo", "keys", "TOKEN"),
    "secret rm": ("demo", "keys"),
    "secret key": ("demo", "--rotate"),
    "repo create": ("new", "--connect"),
    "repo connect": ("https://git.example.org/team/new.git", "--webhook", "github"),
    "repo disconnect": ("old",),
    "box adopt": ("prichal.demo.old", "demo/data"),
    "box delete": ("prichal.demo.old",),
    "name release": ("demo", "caller"),
    "user add": ("bob", "--admin"),
    "user passwd": ("ann",),
    "user quota": ("ann", "--apps", "3"),
    "user release": ("eve",),
    "user rm": ("ann",),
    "role add": ("ann", "developer", "other"),
    "role rm": ("ann", "developer", "demo"),
    "session revoke": ("SESSION",),
    "token add": ("ann",),
    "token revoke": ("TOKEN",),
}
#: Those that a server can be asked for.
REMOTE = tuple(name for name in TRIED if name.split()[0] in ("app", "secret", "preview"))
#: What ends a question with "yes"; a dry run asks nothing.
YES = ("app delete", "repo disconnect", "box delete")


def test_every_command_has_a_dry_run_or_a_reason_why_not() -> None:
    short = {name for title, names in SECTIONS.items() if "short forms" in title for name in names}
    every = {
        " ".join(path)
        for path, command in COMMANDS.items()
        if not isinstance(command, click.Group) and " ".join(path) not in short
    }
    told = [*READING, *EXEMPT, *TRIED, *ELSEWHERE]
    assert len(told) == len(set(told)), "a command belongs to one of them"
    assert every - set(told) == set(), (
        "a new command that changes something needs @dry_run_option and a row in TRIED"
    )
    assert set(told) - every == set()
    having = {
        " ".join(path)
        for path, command in COMMANDS.items()
        if any("--dry-run" in parameter.opts for parameter in command.params)
    }
    assert having - short == {*TRIED, *ELSEWHERE}


@pytest.fixture
def prepared(machine: Machine, store: SqliteStore) -> dict[str, str]:
    """A state in which each of the commands has something to change. Returns what stands for SESSION and TOKEN."""
    fill(store)
    store.boxes.save(BoxRecord(DEMO, ComponentName("data"), "prichal.demo.data", 10**9))
    kept = BoxRecord(DEMO, ComponentName("old"), "prichal.demo.old", 10**9, state=BoxState.KEPT)
    store.boxes.save(kept)
    (machine.state / "web").mkdir(parents=True, exist_ok=True)
    CallerNameTable(machine.state / "web" / "names.db").claim(DEMO, "caller", PASSWORD, 1.0)
    people, now = PeopleStore(machine.state / "web" / "people.db"), time.time()
    people.add("ann", now)
    people.add("eve", now, "https://id.example.org")
    people.grant(Grant("ann", Role.DEVELOPER, "demo"))
    session = SessionRecord("0123456789ab", "ann", now, now, "192.0.2.1", "Firefox")
    people.begin_session("secret", session, SessionLimits(1e6, 1e6))
    secret, token = new_token("ann", "ci", Scope.READ, 7, now, "random")
    people.add_token(secret, token)
    assert machine.run("connect", "https://git.example.org/team/old.git").code == 0
    return {"SESSION": session.id, "TOKEN": token.id}


def fill(store: SqliteStore) -> None:
    store.secrets.unlock(SecretKeys(b"k" * 32))
    first, second = ("1" * 40, "2" * 40)
    store.apps.save(AppStatus(DEMO, applied_revision=second, attempted_revision=second))
    entry = AppliedRevision(DEMO, first, "One", "Anna", ("push",), 1e9, 1e9 + 1, "Ready", "", "x")
    store.history.add(entry, [])
    store.history.add(replace(entry, revision=second, subject="Two"), [])
    record_previews(store, DEMO, "feature/x")
    store.notifications.declare(DEMO, (make(NotificationSpec, ComponentName("team"), Channel.APPRISE),))


def contents(folder: Path) -> dict[str, str | bytes]:
    """All that is stored: rows of databases, and bytes of other files."""
    found: dict[str, str | bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(("-wal", "-shm")):
            found[str(path.relative_to(folder))] = rows(path) if path.suffix == ".db" else path.read_bytes()
    return found


def rows(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


@pytest.mark.parametrize("name", TRIED)
def test_a_dry_run_changes_nothing_and_answers_as_the_command(
    machine: Machine, prepared: dict[str, str], name: str
) -> None:
    words = [*name.split(), *(prepared.get(word, word) for word in TRIED[name])]
    before = contents(machine.config.parent)
    tried = machine.run(*words, "--dry-run", stdin="value")
    assert tried.code == 0, tried.stderr
    assert "This is a dry run" in tried.stderr
    assert contents(machine.config.parent) == before
    more = ("--yes",) if name in YES else ("--timeout", "0") if name.startswith("secret") else ()
    done = machine.run(*words, *more, stdin="value")
    assert done.code == 0, done.stderr
    assert shape(done) == shape(tried)
    assert contents(machine.config.parent) != before, "the command itself changes something"


def shape(outcome: Outcome) -> list[str]:
    """The first words of each line: codes, ids and numbers differ."""
    return ["".join(line.split()[:1])[:8] for line in outcome.stdout.splitlines()]


@pytest.mark.parametrize(
    "words",
    [
        ("app", "suspend", "dem"),
        ("app", "rollback", "demo", "--to", "9999999"),
        ("app", "create", "Имя", "--template", "function"),
        ("app", "create", "new", "--template", "none"),
        ("secret", "rm", "nobody", "keys"),
        ("connect", "https://git.example.org/team/old.git"),
        ("disconnect", "nobody", "--yes"),
        ("box", "adopt", "prichal.demo.old", "demo/nothing"),
        ("preview", "keep", "demo/nothing"),
        ("preview", "rm", "demo-nothing"),
        ("name", "release", "demo", "nobody"),
        ("user", "add", "ann"),
        ("user", "rm", "nobody"),
        ("role", "add", "nobody", "admin"),
        ("session", "revoke", "nobody"),
        ("token", "revoke", "nobody"),
    ],
    ids=" ".join,
)
def test_a_dry_run_fails_as_the_command(
    machine: Machine, prepared: dict[str, str], words: tuple[str, ...]
) -> None:
    tried, done = machine.run(*words, "--dry-run"), machine.run(*words)
    assert tried.code == done.code != 0
    assert tried.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]


def test_a_dry_run_sends_no_message(machine: Machine, prepared: dict[str, str]) -> None:
    before = contents(machine.state)
    tried = machine.run("notify", "test", "demo", "--dry-run")
    assert (tried.code, tried.stdout) == (0, "team: asked for\n")
    assert contents(machine.state) == before
    unknown = machine.run("notify", "test", "demo", "tea", "--dry-run")
    assert "Did you mean team?" in unknown.stderr


def test_a_dry_run_waits_for_nothing(machine: Machine, prepared: dict[str, str]) -> None:
    tried = machine.run("reconcile", "demo", "--wait", "--dry-run")
    assert (tried.code, tried.stdout.startswith("demo: requested")) == (0, True)
    assert "back to 1111" in machine.run("rollback", "demo", "--dry-run").stdout


def test_a_dry_run_that_waits_for_a_value_locks_nothing(
    machine: Machine, prepared: dict[str, str], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typed(key: str, file: str | None) -> str:
        for path in machine.state.rglob("*.db"):
            with closing(sqlite3.connect(path, timeout=0)) as db:
                db.execute("BEGIN IMMEDIATE")  # as others write meanwhile
        return "value"

    monkeypatch.setattr(secrets, "_value", typed)
    tried = machine.run("secret", "set", "demo", "keys", "TOKEN", "--dry-run")
    assert tried.code == 0, tried.stderr


# --- against a server -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as running:
        fill(running.store)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REMOTE, "notify test"])
def test_a_server_rolls_back_what_it_was_asked_to_try(
    server: PlatformServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    token = tmp_path / "token"
    token.write_text(server.token())
    words = [*name.split(), *TRIED.get(name, ("demo",)), "--server", server.url, "--token-file", str(token)]
    run_here("app", "ls", *words[-4:])  # the first use of a token is written down
    before = contents(server.settings.state)
    tried = run_here(*words, "--dry-run", stdin="value")
    assert tried.code == 0, tried.stderr
    assert contents(server.settings.state) == before
