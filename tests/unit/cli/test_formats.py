"""Every command of the tree, with every format of its result and with names of things that are not there."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from controller.cli.exits import Exit
from controller.cli.formats import FormatType, Kind
from controller.domain.apps.branch_previews import preview_name
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.status import AppStatus, ComponentStatus, Event, EventType
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.notifications.delivery import Fate
from controller.domain.notifications.records import check_id, outgoing
from controller.domain.notifications.spec import Channel, NotificationSpec
from controller.domain.people.accounts import SessionRecord
from controller.domain.reasons import Reason
from controller.domain.routing.caller_names import PASSWORD
from controller.domain.runs.run import RunState
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, BoxState
from controller.encryption import SecretKeys
from controller.store import SqliteStore
from controller.store.names import CallerNameTable
from controller.store.people import PeopleStore, SessionLimits
from controller.yaml_documents import parse
from tests.support.branch_previews import record_previews
from tests.support.commands import COMMANDS
from tests.support.files_server import FilesServer, files_server
from tests.support.runs_server import RunsServer, runs_server
from tests.support.specs import make
from tests.support.waiting import wait_for
from tests.unit.cli.conftest import Machine, Outcome

DEMO = AppName("demo")
PREVIEW = preview_name(DEMO, "refs/heads/feature/x")
MANIFEST = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: MLComponent
metadata: {name: namer}
spec:
  image: {existingImageName: "demo:1"}
  mlService: {inference: "app:predict"}
"""


@dataclass
class World:
    """A platform with something of each kind, on this host and on servers."""

    machine: Machine
    files: FilesServer
    runs: RunsServer
    store: SqliteStore
    patch: pytest.MonkeyPatch
    folder: Path

    def run(self, path: tuple[str, ...], *arguments: str) -> Outcome:
        remote = path[0] in ("file", "run")
        self.patch.setenv("PRICHAL_SERVER", self.runs.url if path[0] == "run" else self.files.url)
        return self.machine.run(*path, *arguments, *(("--user", "anna") if remote else ()))

    def stored(self) -> str:
        self.files.store("g/a", b"12345")
        return "demo:data/g/a"

    def disconnected(self) -> str:
        for file in self.machine.platform.iterdir():
            file.unlink()
        return "https://git.example.org/module.git"

    def connected(self) -> str:
        assert self.machine.run("connect", self.disconnected()).code == Exit.OK
        return "module"

    def kept(self) -> str:
        for record in self.store.boxes.all():
            self.store.boxes.forget(record.bucket)
        _fill_boxes(self.store)
        return "prichal.demo.old"

    def secret(self) -> str:
        self.store.secrets.unlock(SecretKeys(b"k" * 32))
        value = (("TOKEN", Secret("x")),)
        self.store.secrets.ask(SecretChange("0" * 32, DEMO, "keys", value, "ann", time.time()))
        with self.store.transaction():  # before which the daemon takes in what others ask for
            pass
        return "keys"

    def previewed(self) -> tuple[str, ...]:
        return record_previews(self.store, DEMO, "feature/x")

    def declared(self) -> tuple[str, str]:
        spec = make(NotificationSpec, ComponentName("team"), Channel.EMAIL, to=("team@example.org",))
        self.store.notifications.declare(DEMO, (spec,))
        return "demo", "team"

    def tested(self) -> tuple[str, str]:
        """As if the daemon delivered the next test."""

        def deliver() -> None:
            spec = self.store.notifications.all(DEMO)[0].spec
            for asked in wait_for(self.store.notifications.tests):
                message = outgoing(check_id(asked.id), DEMO, spec, "{}", 5.0)
                self.store.notifications.record(message, 5.0, Fate.DELIVERED)
                self.store.notifications.end_test(asked.id)

        app, name = self.declared()
        threading.Thread(target=deliver).start()
        return app, name

    def applied(self) -> str:
        revision = "a" * 40
        self.store.apps.save(AppStatus(DEMO, attempted_revision="b" * 40))
        self.store.history.add(AppliedRevision(DEMO, revision, "", "", (), 1.0, 2.0, "Ready", "", ""), [])
        return revision

    def claimed(self) -> str:
        names = CallerNameTable(self.machine.state / "web" / "names.db")
        names.claim(DEMO, "ann", PASSWORD, 1.0)
        return "ann"

    def ended(self, state: RunState = RunState.FAILED) -> str:
        id = self.runs.submit()
        self.runs.player.finish(id, state, "ExitCode")
        return f"demo/train/{id}"


@pytest.fixture
def world(
    machine: Machine, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "manifest.yaml").write_text(MANIFEST)
    (folder / "local").write_bytes(b"12345")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PRICHAL_PASSWORD", "p:w")
    _fill(store)
    (machine.state / "web").mkdir()
    machine.run("repo", "create", "colors")
    _fill_people(machine)
    with ExitStack() as stack:
        files = stack.enter_context(files_server())
        runs = stack.enter_context(runs_server(tmp_path / "runs"))
        yield World(machine, files, runs, store, monkeypatch, folder)


def _fill(store: SqliteStore) -> None:
    ready = (Condition(ConditionType.READY, True, Reason.READY, "кот: yes\nall well\u202e", 1.0),)
    component = ComponentStatus(ComponentName("namer"), "MLComponent", conditions=ready)
    status = AppStatus(
        DEMO,
        "colors",
        attempted_revision="a" * 40,
        applied_revision="a" * 40,
        conditions=ready,
        components=(component,),
    )
    store.apps.save(status)
    store.apps.save(AppStatus(PLATFORM, conditions=ready))
    store.events.add(
        [Event(DEMO, EventType.NORMAL, Reason(reason), "it happened", at=5.0) for reason in ("One", "Two")]
    )
    _fill_boxes(store)


def _fill_people(machine: Machine) -> None:
    machine.run("user", "add", "anna")
    machine.run("role", "add", "anna", "viewer", "demo")
    machine.run("token", "add", "anna")
    people, now = PeopleStore(machine.state / "web" / "people.db"), time.time()
    session = SessionRecord("3f0c", "anna", now, now, "192.0.2.1", "Firefox")
    people.begin_session("secret", session, SessionLimits(1000, 1000))


def _fill_boxes(store: SqliteStore) -> None:
    store.boxes.save(BoxRecord(DEMO, ComponentName("data"), "prichal.demo.data", 10**9, since=2.0))
    kept = BoxRecord(DEMO, ComponentName("old"), "prichal.demo.old", 10**9, state=BoxState.KEPT, since=2.0)
    store.boxes.save(kept)


Arguments = Callable[[World], tuple[str, ...]]

#: Arguments with which each command that has a format succeeds, and the names that it shows.
SHOWN: dict[tuple[str, ...], tuple[Arguments, list[str] | None]] = {
    ("app", "ls"): (lambda w: (), ["demo"]),
    ("app", "status"): (lambda w: ("demo",), ["demo"]),
    ("app", "events"): (lambda w: ("demo",), None),
    ("app", "history"): (lambda w: ("demo",), None),
    ("app", "reconcile"): (lambda w: ("demo",), ["demo"]),
    ("app", "suspend"): (lambda w: ("demo",), ["demo"]),
    ("app", "resume"): (lambda w: ("demo",), ["demo"]),
    ("app", "rollback"): (lambda w: ("demo", "--to", w.applied()), ["demo"]),
    ("app", "approve"): (lambda w: ("demo",), ["demo"]),
    ("app", "templates"): (lambda w: (), ["function", "pipeline", "training", "files", "server"]),
    ("repo", "ls"): (lambda w: (), ["colors"]),
    ("repo", "create"): (lambda w: ("colors",), ["colors"]),
    ("repo", "connect"): (lambda w: (w.disconnected(),), ["module"]),
    ("repo", "disconnect"): (lambda w: (w.connected(), "--yes"), ["module"]),
    ("box", "ls"): (lambda w: (), ["prichal.demo.data", "prichal.demo.old"]),
    ("box", "adopt"): (lambda w: (w.kept(), "demo/data"), ["prichal.demo.old"]),
    ("box", "delete"): (lambda w: (w.kept(), "--yes"), ["prichal.demo.old"]),
    ("secret", "ls"): (lambda w: ("demo",) if w.secret() else (), ["keys"]),
    ("secret", "set"): (lambda w: ("demo", w.secret(), "TOKEN=local", "--timeout", "0"), ["keys"]),
    ("secret", "rm"): (lambda w: ("demo", w.secret(), "--timeout", "0"), ["keys"]),
    ("preview", "ls"): (lambda w: ("demo",) if w.previewed() else (), [PREVIEW]),
    ("preview", "keep"): (lambda w: w.previewed(), [PREVIEW]),
    ("preview", "rm"): (lambda w: w.previewed() and ("demo/feature/x",), [PREVIEW]),
    ("notify", "ls"): (lambda w: w.declared()[:1], ["team"]),
    ("notify", "test"): (lambda w: w.tested(), ["team"]),
    ("name", "ls"): (lambda w: ("demo",) if w.claimed() else (), ["demo ann"]),
    ("name", "release"): (lambda w: ("demo", w.claimed()), ["demo ann"]),
    ("user", "ls"): (lambda w: (), ["anna"]),
    ("role", "ls"): (lambda w: ("anna",), ["anna viewer demo"]),
    ("session", "ls"): (lambda w: (), ["3f0c"]),
    ("token", "ls"): (lambda w: ("anna",), []),
    ("audit",): (lambda w: (), None),
    ("config", "show"): (lambda w: (), []),
    ("validate",): (lambda w: (str(w.folder),), None),
    ("doctor",): (lambda w: (), []),
    ("file", "ls"): (lambda w: (w.stored().removesuffix("a"),), ["demo:data/g/a"]),
    ("file", "get"): (lambda w: (w.stored(), "copy"), ["copy"]),
    ("file", "put"): (lambda w: ("local", "demo:data/g/b"), ["demo:data/g/b"]),
    ("file", "cp"): (lambda w: ("local", "demo:data/g/c"), ["demo:data/g/c"]),
    ("file", "mv"): (lambda w: (w.stored(), "demo:data/h/b"), ["demo:data/h/b"]),
    ("file", "rm"): (lambda w: (w.stored(),), ["demo:data/g/a"]),
    ("run", "ls"): (lambda w: ("demo/train",), []),
    ("run", "start"): (lambda w: ("demo/train", "--input", "data=g/in.csv", "--key", "same"), []),
    ("run", "status"): (lambda w: (w.ended(),), []),
    ("run", "cancel"): (lambda w: (w.ended(),), []),
    ("run", "retry"): (lambda w: (w.ended(),), []),
}
#: Commands with a format that no test of this table can call.
ELSEWHERE: dict[tuple[str, ...], str] = {
    ("app", "diff"): "it needs two revisions: tests/unit/cli/test_history.py",
    ("image", "ls"): "the daemon lists them: tests/unit/cli/test_images.py",
    ("image", "prune"): "the daemon lists them: tests/unit/cli/test_images.py",
    ("app", "plan"): "the daemon computes it: tests/unit/cli/test_plan.py",
    ("app", "create"): "it places an order: tests/unit/cli/test_app_orders.py",
    ("app", "delete"): "it places an order: tests/unit/cli/test_app_orders.py",
    ("secret", "key"): "its names are random: tests/unit/cli/test_secrets.py",
    ("user", "quota"): "it writes for people of a platform: tests/unit/cli/test_quotas.py",
    ("login",): "it needs a server: tests/unit/cli/test_login.py",
    **dict.fromkeys(
        [("backup", verb) for verb in ("create", "list", "verify", "restore")],
        "it needs a configured place: tests/unit/cli/test_backup.py",
    ),
    ("new",): "tests/unit/cli/test_new.py",
}
#: Fields that differ between two calls.
VOLATILE = {
    "begun",
    "ends",
    "created",
    "id",
    "links",
    "modified",
    "ended",
    "started",
    "at",
    "origin",
    "detail",
    "since",
}


def has_format(command: click.Command) -> bool:
    return any(isinstance(parameter.type, FormatType) for parameter in command.params)


def nouns_and_verbs() -> Iterator[tuple[str, ...]]:
    """Yield the path of each command once; short forms are the same commands."""
    known: list[click.Command] = []
    for path in sorted(COMMANDS, key=lambda path: -len(path)):
        if not isinstance(COMMANDS[path], click.Group) and not any(COMMANDS[path] is c for c in known):
            known.append(COMMANDS[path])
            yield path


def test_every_command_with_a_format_is_in_the_table() -> None:
    offered = {path for path in nouns_and_verbs() if has_format(COMMANDS[path])}
    assert offered == {*SHOWN, *ELSEWHERE}


def documents(text: str) -> list[Any]:
    """The documents of a YAML stream, as the platform reads manifests."""
    found = parse("output", text.encode())
    assert found.problems == ()
    return [node.value for node in found.documents]


def stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, str):
        return re.sub("[0-9a-f]{19}", "ID", value)
    return [stable(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=" ".join)
def test_yaml_says_the_same_as_json(world: World, path: tuple[str, ...]) -> None:
    arguments, _ = SHOWN[path]
    as_json = world.run(path, *arguments(world), "-o", "json")
    as_yaml = world.run(path, *arguments(world), "-o", "yaml")
    assert as_json.code == as_yaml.code, as_json.stderr
    assert as_json.code == Exit.OK or path == ("doctor",), as_json.stderr
    if path == ("app", "events"):
        found = [json.loads(line) for line in as_json.stdout.splitlines()]
    else:
        found = [json.loads(as_json.stdout)]
    assert found
    assert stable(documents(as_yaml.stdout)) == stable(found)
    assert "\u202e" not in as_json.stdout + as_yaml.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=" ".join)
def test_names_are_what_other_commands_take(world: World, path: tuple[str, ...]) -> None:
    arguments, names = SHOWN[path]
    found = world.run(path, *arguments(world), "-o", "name")
    if names is None:
        assert (found.code, "'name' is not one of table, wide, json" in found.stderr) == (Exit.USAGE, True)
    elif names:
        assert found.stdout.splitlines() == names
    else:
        assert found.code == Exit.OK or path == ("doctor",), found.stderr
        assert all(line.strip() for line in found.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=" ".join)
def test_people_see_a_table_which_may_be_wide(world: World, path: tuple[str, ...]) -> None:
    arguments, _ = SHOWN[path]
    shown = world.run(path, *arguments(world))
    wide = world.run(path, *arguments(world), "-o", "wide")
    assert shown.code == wide.code
    assert shown.stdout + shown.stderr != ""
    assert len(wide.stdout.splitlines()) >= len(shown.stdout.splitlines())
    assert not shown.stdout.startswith(("{", "["))


@pytest.mark.parametrize(
    ("path", "expression", "printed"),
    [
        (("app", "ls"), "[*].app", "demo\n"),
        (("app", "status"), "{.appliedRevision}", "a" * 40 + "\n"),
        (("app", "status"), ".components[0].ready", "true\n"),
        (("app", "events"), ".reason", "One\nTwo\n"),
        (("box", "ls"), "[-1].box", "old\n"),
        (("config", "show"), "['reconcile.workers']", "4\n"),
        (("config", "show"), ".nothing", ""),
    ],
)
def test_a_path_selects_from_the_document(
    world: World, path: tuple[str, ...], expression: str, printed: str
) -> None:
    found = world.run(path, *SHOWN[path][0](world), "-o", f"jsonpath={expression}")
    assert (found.code, found.stdout) == (Exit.OK, printed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("xml", "'xml' is not one of table, wide, json, yaml, name, jsonpath=PATH"),
        ("json=.a", "is not one of"),
        ("jsonpath", "the path is missing"),
        ("jsonpath=", "the path is missing"),
        ("jsonpath=..a", "'..a' in '..a' is not"),
    ],
)
def test_an_unknown_format_is_wrong_usage(machine: Machine, text: str, words: str) -> None:
    found = machine.run("app", "ls", "-o", text)
    assert (found.code, words in found.stderr, "prichal app ls --help" in found.stderr) == (
        Exit.USAGE,
        True,
        True,
    )


def test_formats_are_completed() -> None:
    context = click.Context(COMMANDS["app", "ls"])
    (option,) = [p for p in COMMANDS["app", "ls"].params if isinstance(p.type, FormatType)]
    offered = [item.value for item in option.type.shell_complete(context, option, "j")]
    assert offered == [Kind.JSON, "jsonpath="]


# --- names of things that are not there -------------------------------------------------------------------------

RUN = f"demo/train/{'0' * 19}"
#: What is typed, the exit code, and words of the error.
UNKNOWN: dict[tuple[str, ...], tuple[tuple[str, ...], Exit, str]] = {
    ("app", "status"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "events"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "logs"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "plan"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "create"): (("new-app", "--template", "nothing"), Exit.NOT_FOUND, "nothing"),
    ("app", "delete"): (("dem", "--yes"), Exit.NOT_FOUND, "Did you mean demo?"),
    ("user", "quota"): (("nobody",), Exit.NOT_FOUND, "UnknownUser"),
    ("app", "reconcile"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "suspend"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "resume"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "rollback"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("app", "approve"): (("xyz",), Exit.NOT_FOUND, "prichal status"),
    ("app", "history"): (("xyz",), Exit.NOT_FOUND, "prichal status"),
    ("app", "diff"): (("xyz",), Exit.NOT_FOUND, "prichal status"),
    ("repo", "disconnect"): (("demo", "--yes"), Exit.NOT_FOUND, "prichal app ls"),
    ("repo", "connect"): (("https://host/мир",), Exit.FAILED, "--name"),
    ("repo", "create"): (("../evil",), Exit.FAILED, "NameInvalid"),
    ("box", "adopt"): (("nothing", "demo/data"), Exit.NOT_FOUND, "prichal box ls"),
    ("box", "delete"): (("nothing", "--yes"), Exit.NOT_FOUND, "prichal box ls"),
    ("secret", "ls"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("secret", "set"): (("dem", "keys", "A=local"), Exit.NOT_FOUND, "Did you mean demo?"),
    ("secret", "rm"): (("dem", "keys"), Exit.NOT_FOUND, "Did you mean demo?"),
    ("secret", "key"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("preview", "ls"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("preview", "keep"): (("demo/x",), Exit.NOT_FOUND, "prichal preview ls"),
    ("preview", "rm"): (("demo-x",), Exit.NOT_FOUND, "prichal preview ls"),
    ("notify", "ls"): (("dem",), Exit.NOT_FOUND, "Did you mean demo?"),
    ("notify", "test"): (("demo", "nobody"), Exit.NOT_FOUND, "has no Notification 'nobody'"),
    ("name", "release"): (("demo", "bob"), Exit.NOT_FOUND, "prichal name ls demo"),
    ("user", "add"): (("Not-a-name",), Exit.USAGE, "Not-a-name"),
    ("user", "rm"): (("bob",), Exit.NOT_FOUND, "prichal user ls"),
    ("user", "passwd"): (("bob",), Exit.NOT_FOUND, "prichal user ls"),
    ("user", "release"): (("bob",), Exit.NOT_FOUND, "prichal user ls"),
    ("role", "add"): (("bob", "admin"), Exit.NOT_FOUND, "prichal user ls"),
    ("role", "rm"): (("bob", "admin"), Exit.NOT_FOUND, "prichal role ls"),
    ("session", "revoke"): (("0000",), Exit.NOT_FOUND, "prichal session ls"),
    ("token", "add"): (("bob",), Exit.NOT_FOUND, "prichal user ls"),
    ("token", "revoke"): (("0000",), Exit.NOT_FOUND, "prichal token ls"),
    ("file", "ls"): (("demo:data/g/nothing",), Exit.NOT_FOUND, "FileNotFound"),
    ("file", "get"): (("demo:data/g/nothing",), Exit.NOT_FOUND, "FileNotFound"),
    ("file", "put"): (("nothing", "demo:data/g/"), Exit.FAILED, "LocalFileUnusable"),
    ("file", "cp"): (("demo:data/g/nothing", "."), Exit.NOT_FOUND, "FileNotFound"),
    ("file", "mv"): (("demo:data/g/nothing", "demo:data/g/b"), Exit.NOT_FOUND, "FileNotFound"),
    ("file", "rm"): (("nothing:data/g/a",), Exit.NOT_FOUND, "FileNotFound"),
    ("run", "ls"): (("demo/nothing",), Exit.NOT_FOUND, "RunNotFound"),
    ("run", "start"): (("demo/nothing",), Exit.NOT_FOUND, "RunNotFound"),
    ("run", "status"): ((RUN,), Exit.NOT_FOUND, "RunNotFound"),
    ("run", "logs"): ((RUN,), Exit.NOT_FOUND, "RunNotFound"),
    ("run", "cancel"): ((RUN,), Exit.NOT_FOUND, "RunNotFound"),
    ("run", "retry"): ((RUN,), Exit.NOT_FOUND, "RunNotFound"),
    ("backup", "verify"): (("nothing", "--identity", "none"), Exit.FAILED, "BackupDisabled"),
    ("backup", "restore"): (("nothing", "--identity", "none"), Exit.FAILED, "BackupKeyWrong"),
    ("login",): (("https://unknown.example.org", "--use"), Exit.NOT_FOUND, "NotLoggedIn"),
    ("logout",): (("https://unknown.example.org",), Exit.NOT_FOUND, "NotLoggedIn"),
    ("new",): (("nothing", "folder"), Exit.NOT_FOUND, "nothing"),
    ("validate",): (("nothing",), Exit.USAGE, "nothing"),
    ("serve-local",): (("image", "nothing"), Exit.USAGE, "nothing"),
    ("run-local",): (("nothing",), Exit.USAGE, "nothing"),
    ("completion",): (("cmd",), Exit.USAGE, "'bash', 'zsh', 'fish'"),
}
#: Commands that take no name of anything, or list nothing where there is nothing of that name.
NAMELESS = {
    *(("user", "ls"), ("role", "ls"), ("session", "ls"), ("token", "ls"), ("audit",)),
    *(("backup", "create"), ("backup", "list"), ("backup", "keygen"), ("backup", "run")),
    *(("app", "ls"), ("app", "templates"), ("repo", "ls"), ("box", "ls"), ("name", "ls"), ("config", "show")),
    *(("image", "ls"), ("image", "prune")),
    *(
        ("key", "rotate"),
        ("token", "show"),
        ("password", "hash"),
        ("up",),
        ("daemon",),
        ("web",),
        ("git-http",),
        ("doctor",),
    ),
}


def test_every_command_that_takes_a_name_is_in_the_table() -> None:
    assert {*nouns_and_verbs()} == {*UNKNOWN, *NAMELESS}


@pytest.mark.slow
@pytest.mark.parametrize("path", UNKNOWN, ids=" ".join)
def test_an_unknown_name_is_a_clear_error(world: World, path: tuple[str, ...]) -> None:
    arguments, code, words = UNKNOWN[path]
    found = world.run(path, *arguments)
    assert (found.code, found.stdout) == (code, ""), found.stderr
    assert words in found.stderr
    assert "Traceback" not in found.stderr
