"""A command shows the same in every format on the host and against a server, and watches both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.status import AppStatus, ComponentStatus, Event, EventType
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from tests.support.platform_server import PlatformServer, platform_server
from tests.unit.cli.conftest import run_here

pytestmark = pytest.mark.slow

DEMO = AppName("demo")
COMMANDS = (
    ("status",),
    ("status", "demo"),
    ("app", "ls"),
    ("events", "demo"),
    ("history", "demo"),
    ("diff", "demo", "1", "2"),
    ("secret", "ls", "demo"),
    ("notify", "ls", "demo"),
    ("preview", "ls"),
    ("preview", "ls", "demo"),
    ("app", "templates"),
)
FORMATS = ("table", "wide", "json", "yaml", "name", "jsonpath={.app}", "jsonpath=.apps[0].state")


def save(server: PlatformServer, message: str) -> None:
    ready = Condition(ConditionType.READY, True, Reason.READY, message, time.time() - 30 * 86400)
    part = ComponentStatus(ComponentName("namer"), "MLComponent", "1f0c9a2e", "image:1", "", (ready,))
    server.store.apps.save(AppStatus(DEMO, conditions=(ready,), components=(part,)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    with platform_server(tmp_path_factory.mktemp("platform")) as running:
        save(running, "1 of 1 ready")
        running.store.events.add([Event(DEMO, EventType.NORMAL, Reason.READY, "all well", at=1e9)])
        for number in (1, 2):
            entry = AppliedRevision(
                DEMO, str(number) * 40, "Change", "Anna", ("push",), 1e9, 2e9, "Ready", "", "x"
            )
            running.store.history.add(entry, [ManifestText("a.yaml", f"x: {number}\n")])
        yield running


@pytest.fixture(autouse=True)
def configuration(server: PlatformServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the host on which the server runs."""
    for name in ("PRICHAL_SERVER", "PRICHAL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    file = tmp_path / "config.yaml"
    file.write_text(f"state: {server.settings.state}\nweb: {{publicUrl: 'https://models.example.org'}}\n")
    return file


@pytest.fixture(scope="module")
def there(server: PlatformServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    token = tmp_path_factory.mktemp("there") / "token"
    token.write_text(server.token())
    return "--server", server.url, "--token-file", str(token)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_same_is_shown(
    configuration: Path, there: tuple[str, ...], command: tuple[str, ...], form: str
) -> None:
    here = run_here(*command, "-o", form, "--config", str(configuration))
    elsewhere = run_here(*command, "-o", form, *there)
    assert form not in ("table", "wide", "json", "yaml") or here.code == Exit.OK
    assert (elsewhere.code, shape(elsewhere.stdout)) == (here.code, shape(here.stdout)), elsewhere.stderr


def shape(text: str) -> str:
    """Without what each way has of its own: how long ago it was, and what a caller may make."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, dict):
        found.pop("you", None)
    return json.dumps(found)


def test_a_server_is_watched(server: PlatformServer, there: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "controller", "status", "demo", "--watch", "-o", "json"]
    with subprocess.Popen([*command, *there], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "1 of 1 ready" in process.stdout.readline()
        save(server, "something else")
        assert "something else" in process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == Exit.INTERRUPTED
    save(server, "1 of 1 ready")
