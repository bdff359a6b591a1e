"""The guide "From your own machine" is typed into a shell with what `pip install prichal` brings, against a running
platform: nothing of the host is used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.config import load
from controller.domain.names import AppName
from controller.domain.people.accounts import Scope
from controller.domain.people.roles import Grant, Role
from controller.store.people import PeopleStore
from tests.support.git_servers import git
from tests.support.pages import ROOT, Block, blocks
from tests.support.people import PASSWORD, add_person, add_token
from tests.support.platform import Platform
from tests.support.shell import Told, run

PAGE = ROOT / "docs" / "guide" / "remote.md"
#: What the page takes for granted: its reader's own folder.
BEFORE = Block(PAGE, 0, "sh", 'cd "$HOME"\n')
SHOWN = (BEFORE, *blocks(PAGE, "sh"))
SERVER = "https://models.example.org"
APP = AppName("demo-colors")
pytestmark = pytest.mark.timeout(900)  # an environment is made, and two versions are built
#: Answers what Git asks for.
ASKPASS = '#!/bin/sh\ncase "$1" in Username*) echo anna ;; *) cat {token} ;; esac\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform of the page: a hosted repository with the example in it, and the account of its developer."""
    running = Platform(tmp_path_factory.mktemp("platform"))
    try:
        running.start()
        running.start_process("git-http")
        made = running.prichal("repo", "create", "colors", "--connect", "--app", APP, "--path", "manifests")
        tree = running.home / "colors"
        subprocess.run(["cp", "-r", ROOT / "examples" / "colors", tree], check=True)
        git(tree, "init", "--quiet", "--initial-branch=main")
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "-m", "Name colours")
        git(tree, "push", "--quiet", made.stdout.strip(), "main")
        running.until_ready(APP, git(tree, "rev-parse", "HEAD").strip())
        people = PeopleStore(load(running.config).people)
        add_person(people, "anna", Grant("anna", Role.DEVELOPER, APP))
        add_person(people, "boss", Grant("boss", Role.ADMIN))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def told(platform: Platform, home: Path) -> Told:
    wheel = subprocess.run(
        [ROOT / "scripts/wheel"], capture_output=True, text=True, check=True
    ).stdout.strip()
    requirements, token, askpass = home / "requirements.txt", home / "token", home / "askpass"
    requirements.write_text(f"prichal @ file://{wheel}\n")
    people = PeopleStore(load(platform.config).people)
    token.write_text(add_token(people, "anna", Scope.DEPLOY))
    (of_admin := home / "admin").write_text(add_token(people, "boss", Scope.ADMIN))
    of_admin.chmod(0o600)
    askpass.write_text(ASKPASS.format(token=token))
    askpass.chmod(0o700)
    url, environment = f"http://127.0.0.1:{platform.port}", home / "env"
    confirm = f"{sys.executable} -m tests.support.confirm_login anna '{PASSWORD}'"
    here = {
        "pip install prichal": f"{ROOT}/scripts/python-env {environment} {requirements} 2>/dev/null",
        f"prichal login {SERVER}": f"timeout 60 prichal login {url} 2>&1 | (cd {ROOT} && {confirm})",
        f"clone {SERVER}": f"clone -q {url}",
        **{
            command: f"{command} --server {url} --token-file {of_admin}"
            for command in ("prichal image ls --app demo-colors", "prichal image prune --dry-run")
        },
    }
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    return run(SHOWN, home, here, PATH=path, XDG_CONFIG_HOME=str(home / "xdg"), GIT_ASKPASS=str(askpass))


def test_log_in_and_look(told: Told) -> None:
    assert "as anna" in told.of("prichal login https", SHOWN)
    looked = told.of("prichal events", SHOWN)
    assert "Ready" in looked
    assert "namer" in looked
    assert told.of("jsonpath", SHOWN).splitlines() == ["Ready", APP]


def test_a_push_over_http_and_what_differed(told: Told) -> None:
    assert "ready after" in told.of("git clone", SHOWN)
    differed = told.of("prichal history", SHOWN)
    assert "Call it crimson" in differed
    assert "the manifests are the same" in differed


def test_a_change_is_seen_before_it_is_made(told: Told) -> None:
    seen = told.of("prichal suspend", SHOWN)
    assert "warning: Suspended" in seen
    assert '-    - {name: THRESHOLD, value: "120"}' in seen
    assert '+    - {name: THRESHOLD, value: "90"}' in seen
    assert seen.count("plan demo-colors @") == 2
    assert "demo-colors: Ready" in seen


def test_an_administrator_sees_images(told: Told) -> None:
    assert "in force, at " in told.of("prichal image ls", SHOWN)


def test_files_runs_and_secrets(told: Told) -> None:
    ran = told.of("prichal run start", SHOWN)
    assert "SUCCEEDED" in ran
    assert "crimson" in ran
    assert "TOKEN" in told.of("prichal secret", SHOWN)
    assert "logged out" in told.of("prichal logout", SHOWN)


def test_nothing_of_the_host_was_used(told: Told, home: Path) -> None:
    installed = {each.name.lower() for each in (home / "env/lib").glob("*/site-packages/*")}
    assert "click" in installed
    assert {"docker", "flask", "pygit2"}.isdisjoint(installed)
