"""Commands about Secrets: values come from files, standard input or a hidden prompt, and never come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.daemon.instance_key import instance_key
from controller.domain.apps.age_keys import EncryptedFiles
from controller.domain.apps.environment import MAX_VALUE
from controller.domain.apps.status import AppStatus
from controller.domain.names import PLATFORM, AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.yaml_documents import parse
from tests.support.platform_server import platform_server
from tests.unit.cli.conftest import Machine, Outcome

#: Together they take seconds.
pytestmark = pytest.mark.slow

DEMO = AppName("demo")


@pytest.fixture
def store(store: SqliteStore) -> SqliteStore:
    store.apps.save(AppStatus(DEMO))
    store.secrets.unlock(SecretKeys(b"k" * 32))
    return store


@contextmanager
def daemon(store: SqliteStore) -> Iterator[None]:
    """A thread that takes in what others ask for."""
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(0.005):
            with store.transaction():
                pass

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def values(store: SqliteStore) -> dict[str, dict[str, str]]:
    return {s.name: {key: value.reveal() for key, value in s.values} for s in store.secrets.of(DEMO).readable}


def test_values_come_from_files_and_standard_input(
    machine: Machine, store: SqliteStore, tmp_path: Path
) -> None:
    pem = "-----BEGIN KEY-----\nключ\r\n-----END KEY-----\n"
    (tmp_path / "key.pem").write_bytes(pem.encode())
    (tmp_path / "user").write_text("ann\r\n")
    given = (f"KEY={tmp_path / 'key.pem'}", f"USER={tmp_path / 'user'}", "TOKEN")
    with daemon(store):
        ran = machine.run("secret", "set", "demo", "keys", *given, stdin="hunter2-horse\n")
        assert ran.code == Exit.OK
        assert ran.stdout.startswith("demo: the Secret 'keys': set KEY, USER, TOKEN (by host:")
        assert "rolled out" in ran.stderr
        assert values(store) == {"keys": {"KEY": pem, "TOKEN": "hunter2-horse", "USER": "ann"}}
        again = machine.run("secret", "set", "demo", "keys", "TOKEN=-", stdin="hunter2-horse")
        assert "has these values already" in again.stdout
    shown = machine.run("secret", "ls", "demo")
    assert [line.split()[:2] for line in shown.stdout.splitlines()][1:] == [
        ["keys", "KEY"],
        ["keys", "TOKEN"],
        ["keys", "USER"],
    ]
    document = machine.run("secret", "ls", "demo", "-o", "json").stdout
    assert json.loads(document)["secrets"][0]["keys"][1]["by"].startswith("host:")
    assert machine.run("secret", "ls", "demo", "-o", "name").stdout == "keys\n"
    assert "hunter2" not in ran.stdout + ran.stderr + again.stdout + shown.stdout + document


def test_keys_and_secrets_are_removed(machine: Machine, store: SqliteStore) -> None:
    with daemon(store):
        for key in ("A", "B"):
            assert machine.run("secret", "set", "demo", "keys", key, stdin=f"value of {key}").code == Exit.OK
        assert machine.run("secret", "rm", "demo", "keys", "A").code == Exit.OK
        assert values(store) == {"keys": {"B": "value of B"}}
        assert machine.run("secret", "rm", "demo", "keys").code == Exit.OK
        assert values(store) == {}
        gone = machine.run("secret", "rm", "demo", "keys")
    assert (gone.code, "SecretRefused" in gone.stderr) == (Exit.FAILED, True)
    assert "Nobody has set a Secret of demo" in machine.run("secret", "ls", "demo").stderr


def test_a_value_on_the_command_line_is_not_repeated(machine: Machine, store: SqliteStore) -> None:
    ran = machine.run("secret", "set", "demo", "keys", "TOKEN=hunter2-horse")
    assert ran.code == Exit.USAGE
    assert "a value is never an argument" in ran.stderr
    assert "hunter2" not in ran.stderr
    assert store.secrets.changes(DEMO) == ()


@pytest.mark.parametrize(
    ("given", "stdin", "code", "told"),
    [
        (("A", "B"), "x", Exit.USAGE, "only one value can come from standard input"),
        (("A=-", "B=-"), "x", Exit.USAGE, "only one value"),
        (("A", "A=-"), "x", Exit.USAGE, "given twice"),
        (("A",), "", Exit.FAILED, "is empty"),
        (("A",), "\n", Exit.FAILED, "is empty"),
        (("A",), "x" * (MAX_VALUE + 2), Exit.USAGE, "more than 100000 bytes"),
        (("A B",), "x", Exit.FAILED, "cannot be a key"),
        (("A=/",), "", Exit.USAGE, "cannot be read"),
        ((), "", Exit.USAGE, "Missing argument"),
    ],
)
def test_what_cannot_be_set(
    machine: Machine, store: SqliteStore, given: tuple[str, ...], stdin: str, code: Exit, told: str
) -> None:
    ran = machine.run("secret", "set", "demo", "keys", *given, stdin=stdin)
    assert (ran.code, told in " ".join(ran.stderr.split())) == (code, True), ran.stderr
    assert store.secrets.changes(DEMO) == ()


def test_a_binary_file_is_refused(machine: Machine, store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    ran = machine.run("secret", "set", "demo", "keys", f"A={tmp_path / 'binary'}")
    assert (ran.code, "store a binary file in Base64" in ran.stderr) == (Exit.USAGE, True)


def test_unknown_apps(machine: Machine, store: SqliteStore) -> None:
    assert machine.run("secret", "set", "dem", "keys", "A", stdin="x").code == Exit.NOT_FOUND
    assert machine.run("secret", "ls", "dem").code == Exit.NOT_FOUND
    assert "is not an app" in machine.run("secret", "set", "@platform", "keys", "A", stdin="x").stderr


def test_against_a_server_it_is_the_same(tmp_path: Path, machine: Machine) -> None:
    """As on the host, with the name of the person whose token it is."""
    with platform_server(tmp_path) as server:
        server.store.apps.save(AppStatus(DEMO))
        server.store.secrets.unlock(SecretKeys(b"k" * 32))
        server.add("bob", Grant("bob", Role.DEVELOPER, "demo"))
        (tmp_path / "token").write_text(server.token("bob", Scope.DEPLOY))
        there = ("--server", server.url, "--token-file", str(tmp_path / "token"))
        with daemon(server.store):
            ran = machine.run("secret", "set", "demo", "keys", "TOKEN", *there, stdin="hunter2-horse\n")
            assert ran.stdout == "demo: the Secret 'keys': set TOKEN (by bob)\n", ran.stderr
            assert values(server.store) == {"keys": {"TOKEN": "hunter2-horse"}}
            shown = machine.run("secret", "ls", "demo", *there)
            refused = machine.run("secret", "rm", "demo", "keys", "OTHER", *there)
            unknown = machine.run("secret", "set", "dem", "keys", "A", *there, stdin="x")
            assert machine.run("secret", "rm", "demo", "keys", *there).code == Exit.OK
        assert (refused.code, "has no key 'OTHER'" in refused.stderr) == (Exit.FAILED, True)
        assert unknown.code == Exit.NOT_FOUND
        assert "hunter2" not in ran.stdout + ran.stderr + shown.stdout
        assert values(server.store) == {}


def test_without_a_daemon_the_change_waits(machine: Machine, store: SqliteStore) -> None:
    store.heartbeat(1.0)
    ran = machine.run("secret", "set", "demo", "keys", "A", stdin="hunter2")
    assert (ran.code, ran.stdout) == (Exit.OK, "demo: asked for\n")
    assert "It does when it runs" in ran.stderr
    assert "1 changes wait" in machine.run("secret", "ls", "demo").stderr


def test_the_key_is_replaced_while_no_daemon_runs(machine: Machine, store: SqliteStore) -> None:
    private = machine.state / "private"
    private.mkdir()
    key = instance_key(private)
    store.secrets.unlock(SecretKeys(key))
    machine.run("secret", "set", "demo", "keys", "A", "--timeout", "0", stdin="hunter2")
    with store.transaction():
        pass
    tried = machine.run("key", "rotate", "--dry-run")
    assert (tried.code, tried.stdout.split(", and ")[1]) == (0, "1 values of Secrets are encrypted again\n")
    assert instance_key(private) == key
    assert values(store) == {"keys": {"A": "hunter2"}}
    ran = machine.run("key", "rotate")
    assert (ran.code, ran.stdout) == (
        Exit.OK,
        "the key is replaced, and 1 values of Secrets are encrypted again\n",
    )
    assert instance_key(private) != key
    store.secrets.unlock(SecretKeys(instance_key(private)))
    assert values(store) == {"keys": {"A": "hunter2"}}


# --- age keys ------------------------------------------------------------------------------------------------------


def test_the_age_key_is_printed_as_a_configuration_of_sops(machine: Machine, store: SqliteStore) -> None:
    none = machine.run("secret", "key", "demo")
    assert none.code != Exit.OK
    assert "has no age key yet" in none.stderr
    store.age_keys.ensure(DEMO)
    [key] = store.age_keys.listed(DEMO)
    mine = "age1" + "q" * 58
    shown = (
        parse("x", machine.run("secret", "key", "demo", "--also", mine).stdout.encode()).documents[0].value
    )
    assert isinstance(shown, dict)
    rules = shown["creation_rules"]
    assert isinstance(rules, list)
    assert [rule["age"] for rule in rules if isinstance(rule, dict)] == [f"{key.recipient},{mine}"] * 2
    assert machine.run("secret", "key", "demo", "-o", "name").stdout == f"{key.recipient}\n"
    document = json.loads(machine.run("secret", "key", "demo", "-o", "json").stdout)
    assert document["ageKeys"] == [
        {"recipient": key.recipient, "by": None, "at": document["ageKeys"][0]["at"]}
    ]


def test_the_age_key_is_replaced(machine: Machine, store: SqliteStore) -> None:
    store.age_keys.ensure(DEMO)
    [first] = store.age_keys.listed(DEMO)
    with daemon(store):
        rotated = machine.run("secret", "key", "demo", "--rotate")
        assert rotated.code == Exit.OK
        assert "demo: the new age key is age1" in rotated.stdout
        assert "Older keys still decrypt" in machine.run("secret", "key", "demo").stderr
        asked = machine.run("secret", "key", "demo", "--retire", stdin="n\n")
        assert asked.code != Exit.OK
        assert len(store.age_keys.listed(DEMO)) == 2
        assert machine.run("secret", "key", "demo", "--retire", "--yes").code == Exit.OK
    [second] = store.age_keys.listed(DEMO)
    assert second.recipient != first.recipient
    assert "--force stands beside --retire" in machine.run("secret", "key", "demo", "--force").stderr
    assert second.by.startswith("host:")


def needing(store: SqliteStore) -> None:
    """A commit in force has a file for the older key alone."""
    _, old = (key.recipient for key in store.age_keys.listed(DEMO))
    store.apps.save(AppStatus(DEMO, encrypted=(EncryptedFiles((old,), ("secrets/a.env",), 1),)))


def retired(store: SqliteStore, run: Callable[..., Outcome]) -> None:
    with daemon(store):
        assert run("--rotate").code == Exit.OK
        needing(store)
        for more in ((), ("--dry-run",)):
            refused = run("--retire", "--yes", *more)
            assert refused.code == Exit.FAILED
            assert "the commit of demo in force needs the age key age1" in refused.stderr
            assert "secrets/a.env" in refused.stderr
        assert len(store.age_keys.listed(DEMO)) == 2
        assert run("--retire", "--yes", "--force").code == Exit.OK
    assert len(store.age_keys.listed(DEMO)) == 1


def test_a_key_that_is_needed_is_deleted_by_force_alone(machine: Machine, store: SqliteStore) -> None:
    store.age_keys.ensure(DEMO)
    retired(store, lambda *words: machine.run("secret", "key", "demo", *words))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("demo", "--rotate", "--retire"), "first rotate"),
        (("demo", "--also", "AGE-SECRET-KEY-1"), "is not the public key of age"),
        (("dem",), "demo"),
    ],
)
def test_wrong_uses_of_the_age_key(
    machine: Machine, store: SqliteStore, given: tuple[str, ...], told: str
) -> None:
    store.age_keys.ensure(DEMO)
    ran = machine.run("secret", "key", *given)
    assert ran.code != Exit.OK
    assert told in ran.stderr
    assert len(store.age_keys.listed(DEMO)) == 1


def test_the_platforms_age_key(machine: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(PLATFORM))
    store.age_keys.ensure(PLATFORM)
    [key] = store.age_keys.listed(PLATFORM)
    assert key.recipient in machine.run("secret", "key", "@platform").stdout
    with daemon(store):
        assert machine.run("secret", "key", "@platform", "--rotate").code == Exit.OK
    assert len(store.age_keys.listed(PLATFORM)) == 2


def test_against_a_server_the_age_key_is_the_same(tmp_path: Path, machine: Machine) -> None:
    with platform_server(tmp_path / "platform") as server:
        server.add("bob", Grant("bob", Role.DEVELOPER, DEMO))
        server.store.secrets.unlock(SecretKeys(b"k" * 32))
        server.store.apps.save(AppStatus(DEMO))
        server.store.age_keys.ensure(DEMO)
        token = tmp_path / "token"
        token.write_text(server.token("bob", Scope.DEPLOY))
        there = ("--server", server.url, "--token-file", str(token))
        with daemon(server.store):
            assert machine.run("secret", "key", "demo", "--rotate", *there).code == Exit.OK
            shown = machine.run("secret", "key", "demo", "-o", "name", *there).stdout.splitlines()
            assert shown == [key.recipient for key in server.store.age_keys.listed(DEMO)]
            assert machine.run("secret", "key", "demo", "--retire", "--yes", *there).code == Exit.OK
        assert len(server.store.age_keys.listed(DEMO)) == 1
        retired(server.store, lambda *words: machine.run("secret", "key", "demo", *words, *there))
