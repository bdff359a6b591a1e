"""Completion in shells, of commands and of names from the state."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from controller.cli.exits import Exit
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.routing.routes import Api, Service, ServiceKind
from controller.domain.storage.box import BoxRecord, BoxState
from controller.store import SqliteStore
from tests.unit.cli.conftest import Machine

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """What is offered for the last of the words, as the script for bash asks for it."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(("prichal", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        environment = {"_PRICHAL_COMPLETE": "bash_complete", "PRICHAL_CONFIG": str(machine.config)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "controller"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]

    return ask


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    demo = AppName("demo")
    components = tuple(ComponentStatus(ComponentName(name), "MLComponent") for name in ("namer", "other"))
    for status in (AppStatus(demo, components=components), AppStatus(AppName("digits")), AppStatus(PLATFORM)):
        store.apps.save(status)
    store.boxes.save(BoxRecord(demo, ComponentName("data"), "prichal.demo.data", 10))
    kept = BoxRecord(demo, ComponentName("old"), "prichal.demo.old", 10, state=BoxState.KEPT)
    store.boxes.save(kept)
    api = Api("train", ComponentName("train-api"), published=True)
    store.routes.publish(demo, (Service(demo, api, ServiceKind.PIPELINE, pipeline=ComponentName("train")),))
    return store


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("st",), ["status"]),
        (("app", "s"), ["status", "suspend"]),
        (("status", ""), ["demo", "digits"]),
        (("app", "status", "de"), ["demo"]),
        (("logs", "demo", ""), ["namer", "other"]),
        (("logs", "demo", "n"), ["namer"]),
        (("logs", "nothing", ""), []),
        (("disconnect", "di"), ["digits"]),
        (("box", "delete", ""), ["prichal.demo.old"]),
        (("box", "adopt", "prichal.demo.old", ""), ["demo/data"]),
        (("run", "start", ""), ["demo/train"]),
        (("run", "logs", "demo/"), ["demo/train"]),
        (("file", "ls", "de"), ["demo:data/"]),
        (("status", "-o", "y"), ["yaml"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("boxe",), []),
    ],
    ids=" ".join,
)
def test_names_are_completed(
    complete: Complete, filled: SqliteStore, words: tuple[str, ...], offered: list[str]
) -> None:
    assert sorted(complete(*words)) == sorted(offered)


def test_without_a_state_nothing_is_offered(complete: Complete, machine: Machine) -> None:
    assert complete("status", "") == []
    assert not machine.state.exists()


def test_with_a_wrong_configuration_nothing_is_offered(complete: Complete, machine: Machine) -> None:
    machine.configure("webb: {}")
    assert complete("status", "") == []


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "complete --")]
)
def test_the_script_of_a_shell(machine: Machine, shell: str, words: str) -> None:
    found = machine.run("completion", shell)
    assert (found.code, words in found.stdout) == (Exit.OK, True)
    assert f"_PRICHAL_COMPLETE={shell}_complete" in found.stdout


def test_bash_takes_its_script(machine: Machine) -> None:
    script = machine.run("completion", "bash").stdout + "complete -p prichal\n"
    done = subprocess.run(["bash", "--norc"], input=script, check=True, capture_output=True, text=True)
    assert done.stdout == "complete -o nosort -F _prichal_completion prichal\n"
