"""Commands that look without acting."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from werkzeug.security import check_password_hash

from controller import __version__
from controller.cli import waiting
from controller.cli.exits import Exit, exit_of
from controller.cli.main import COMMAND_MODULES, SECTIONS
from controller.cli.output import print_columns
from controller.config import Settings
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.status import AppStatus, Event, EventType, state_word
from controller.domain.errors import (
    ControllerError,
    ManifestInvalid,
    ManifestProblem,
    Stalled,
    Transient,
    Waiting,
)
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.web.api.platform.stored import StoredPlatform
from tests.support.commands import COMMANDS
from tests.unit.cli.conftest import Machine

#: Together they take seconds.
pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from controller.store import SqliteStore

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference" / "cli.md"


# --- the commands as a whole


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_reference_tells_of_every_command_option_and_argument(path: tuple[str, ...]) -> None:
    text = REFERENCE.read_text()
    if isinstance(COMMANDS[path], click.Group):
        return
    if any(len(other) == 2 and COMMANDS[other] is COMMANDS[path] for other in COMMANDS if other != path):
        assert re.search(rf"^\| .*`(prichal )?{path[0]}`.* \|", text, re.M), "in the table of short forms"
        return
    section = re.search(rf"^### `prichal {' '.join(path)}[ `].*?(?=^###? |\Z)", text, re.M | re.S)
    assert section is not None, f"no section '### `prichal {' '.join(path)} …`'"
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Argument):
            assert str(parameter.human_readable_name) in section[0].splitlines()[0]
        elif parameter.opts not in (["--config"], ["-o", "--output"], ["--dry-run"]):  # told once for all
            missing = [option for option in parameter.opts if f"`{option}" not in section[0]]
            assert not missing, f"{missing} not told of in the section of {' '.join(path)}"


def test_the_reference_tells_of_every_exit_code() -> None:
    text = REFERENCE.read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)] == [code.value for code in Exit]


def test_the_reference_names_every_noun() -> None:
    found = re.search(r"The nouns are (.*?);", REFERENCE.read_text(), re.S)
    assert found is not None
    assert tuple(re.findall(r"`(\w+)`", found[1])) == SECTIONS["Nouns"]


def test_every_module_has_the_commands_that_are_named(machine: Machine) -> None:
    named = sorted(name for names in COMMAND_MODULES.values() for name in names)
    assert sorted(name for names in SECTIONS.values() for name in names) == named
    found = machine.run("--help")
    assert found.code == Exit.OK
    assert all(path[0] in found.stdout for path in COMMANDS)
    assert "..." not in found.stdout.partition("Apps (")[2], "short helps fit into their line"


def test_the_version(machine: Machine) -> None:
    assert machine.run("--version").stdout == f"prichal, version {__version__}\n"


def test_an_unknown_command_is_a_usage_error(machine: Machine) -> None:
    assert machine.run("stauts").code == Exit.USAGE


def test_asking_for_the_status_loads_no_heavy_library(machine: Machine, store: SqliteStore) -> None:
    heavy = "docker pygit2 flask gunicorn apscheduler sqlite_utils rich jsonschema requests"
    program = (
        "import sys; from controller.cli.main import main; code = main(['status', '--config', sys.argv[1]]); "
        f"loaded = set({heavy.split()}) & set(sys.modules); sys.exit(f'loaded {{loaded}}' if loaded else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(machine.config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ManifestInvalid((ManifestProblem("a.yaml", 1, 1, "", "wrong"),)), Exit.INVALID),
        (Transient(Reason.ENGINE_UNREACHABLE, ""), Exit.UNREACHABLE),
        (Stalled(Reason.UNKNOWN_APP, ""), Exit.NOT_FOUND),
        (Stalled(Reason.TIMED_OUT, ""), Exit.TIMEOUT),
        (Stalled(Reason.ALREADY_RUNNING, ""), Exit.FAILED),
        (Waiting(Reason.DEPENDENCY_NOT_READY, "", 5.0), Exit.FAILED),
    ],
)
def test_an_error_has_its_exit_code(error: ControllerError, code: Exit) -> None:
    assert exit_of(error) is code


# --- output


def test_plain_columns_are_one_line_a_row() -> None:
    assert print_columns([("A", "MESSAGE"), ("long name", "first\nsecond  third"), ("b", "")]) == [
        "A          MESSAGE",
        "long name  first second third",
        "b",
    ]


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_on_a_terminal_only_if_wanted(machine: Machine, store: SqliteStore, no_color: bool) -> None:
    ready = Condition(ConditionType.READY, True, Reason.READY, "all well", time.time())
    store.apps.save(AppStatus(AppName("demo"), conditions=(ready,)))
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    if no_color:
        env["NO_COLOR"] = "1"
    command = [sys.executable, "-m", "controller", "status", "--config", str(machine.config)]
    subprocess.run(command, stdout=theirs, env=env, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "all well" in shown
    assert ("\x1b[32mReady" in shown) is not no_color


def test_a_state_has_one_word() -> None:
    def word(*conditions: tuple[ConditionType, bool], suspended: bool = False) -> str:
        parts = tuple(Condition(kind, status, Reason.NONE, "") for kind, status in conditions)
        return state_word(AppStatus(AppName("a"), conditions=parts, suspended=suspended))

    not_ready = (ConditionType.READY, False)
    assert word() == "Unknown"
    assert word((ConditionType.READY, True)) == "Ready"
    assert word(not_ready) == "NotReady"
    assert word(not_ready, (ConditionType.STALLED, True)) == "Stalled"
    assert word(not_ready, (ConditionType.STALLED, True), (ConditionType.DEGRADED, True)) == "Degraded"
    assert word((ConditionType.READY, True), (ConditionType.RECONCILING, True)) == "Reconciling"
    assert word((ConditionType.READY, True), suspended=True) == "Suspended"


def test_following_starts_after_what_is_there(store: SqliteStore) -> None:
    platform = StoredPlatform(store, Settings())
    seen = waiting.last_event(platform, None)
    assert seen == 0
    for message in ("before", "after"):
        seen = waiting.last_event(platform, None)
        store.events.add([Event(AppName("demo"), EventType.NORMAL, Reason.READY, message)])
    assert next(waiting.follow(platform, None, seen))["message"] == "after"


# --- validate


COMPONENT = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: MLComponent
metadata: {name: namer}
spec:
  image: {existingImageName: "demo:1"}
  mlService: {inference: "app:predict", %s}
"""


def test_a_valid_folder(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.yaml").write_text(COMPONENT % "concurrency: 4")
    found = machine.run("validate", str(tmp_path / "m"))
    assert (found.code, found.stdout) == (Exit.OK, "")
    assert "1 documents, no problems" in found.stderr


def test_all_problems_with_their_places(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.yaml").write_text(COMPONENT % "concurency: 4, timeout: soon")
    found = machine.run("validate", str(tmp_path / "m"))
    assert found.code == Exit.INVALID
    lines = found.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("a.yaml:7:") for line in lines)
    report = json.loads(machine.run("validate", str(tmp_path / "m"), "-o", "json").stdout)
    assert report["valid"] is False
    assert [(p["file"], p["line"]) for p in report["problems"]] == [("a.yaml", 7), ("a.yaml", 7)]


def test_a_folder_that_is_not_there_is_a_usage_error(machine: Machine) -> None:
    assert machine.run("validate", "/nowhere").code == Exit.USAGE


# --- configuration, passwords


def test_the_settings_in_force_without_secrets(machine: Machine) -> None:
    token = machine.config.with_name("token")
    token.write_text("a-long-admin-token-0123456789")
    machine.configure(f"web: {{adminTokenFile: {token}}}")
    found = machine.run("config", "show")
    assert found.code == Exit.OK, found.stderr
    assert f"state = {machine.state}" in found.stdout.splitlines()
    assert "web.workers = 2" in found.stdout.splitlines()
    assert "web.adminTokenFile = ***" in found.stdout.splitlines()
    as_json = machine.run("config", "show", "-o", "json").stdout
    assert json.loads(as_json)["reconcile.workers"] == 4
    assert "0123456789" not in found.stdout + as_json


def test_a_config_that_is_wrong(machine: Machine) -> None:
    machine.configure("webb: {}")
    found = machine.run("status")
    assert found.code == Exit.INVALID
    assert "config.yaml:3:1" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_hash_that_the_web_process_accepts(machine: Machine) -> None:
    from controller.cli.main import main

    with click.testing.CliRunner().isolation(input="correct horse\n") as (stdout, _, __):
        assert main(["password", "hash"]) == Exit.OK
    digest = stdout.getvalue().decode().strip()
    assert digest.startswith("scrypt:")
    assert check_password_hash(digest, "correct horse")
    assert not check_password_hash(digest, "wrong horse")


def test_an_empty_password_is_refused() -> None:
    from controller.cli.main import main

    with click.testing.CliRunner().isolation(input="\n"):
        assert main(["password", "hash"]) == Exit.USAGE
