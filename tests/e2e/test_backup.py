"""An installation is lost as a whole, containers, state and files, and comes back from its last backup with the same
answers. What the guide shows is typed here."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from controller.config import load
from controller.domain.people.roles import Grant, Role
from controller.store.people import PeopleStore
from tests.support.backups import KEY
from tests.support.people import add_person, add_token
from tests.support.platform import ECHO, Module, Platform
from tests.support.waiting import wait_for

ANNA = {"Authorization": "Bearer the-key-of-anna-is-long"}


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("backup") / "host"
    backup = {"to": str(home.parent / "backups"), "recipients": [KEY.recipient]}
    platform = Platform(home, backup=backup)
    try:
        platform.start()
        platform.start_process("git-http")
        yield platform
    finally:
        platform.stop()  # once more: it is fine


def answers(platform: Platform, app: str, token: str) -> dict[str, Any]:
    """What callers, a person and a clone get."""
    clone = platform.home.parent / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    url = f"http://boss:{token}@127.0.0.1:{platform.port}/-/git/{app}.git"
    subprocess.run(["git", "clone", "--quiet", url, str(clone)], check=True, capture_output=True, timeout=60)
    head = subprocess.run(
        ["git", "-C", str(clone), "log", "--format=%H %s"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    status = platform.request("GET", f"/-/apps/{app}", headers={"Authorization": f"Bearer {token}"})
    return {
        "predict": platform.predict(app, [{"name": "text", "datatype": "str", "data": "x"}]).json,
        "file": platform.get_file(app, "data/photos/a.bin", headers=ANNA).body,
        "refused": platform.get_file(app, "data/photos/a.bin").status,
        "person": (status.status, status.json["appliedRevision"]),
        "secrets": json.loads(platform.prichal("secret", "ls", app, "-o", "json").stdout),
        "commits": head.stdout,
    }


def installed(platform: Platform, app: str) -> str:
    """An app from a hosted repository with a component, a box, an owned Secret, and a person. Return their token."""
    told = platform.prichal("repo", "create", app, "--connect", "--app", app, "--path", "manifests").stdout
    module = Module(platform.home.parent / app)
    platform.prichal(
        "secret", "set", app, "people", "anna", "--timeout", "0", input=ANNA["Authorization"][7:]
    )
    module.served(ECHO).box("data").files_api(auth={"token": {"credentials": "people"}})
    revision = module.push()
    push = ["git", "-C", str(module.tree), "push", told.split()[-1], "main"]
    subprocess.run(push, check=True, capture_output=True, timeout=110)
    platform.until_ready(app, revision)
    people = PeopleStore(load(platform.config).people)
    add_person(people, "boss", Grant("boss", Role.ADMIN))
    assert platform.put_file(app, "data/photos/a.bin", b"\0photo" * 100_000, headers=ANNA).status == 200
    wait_for(lambda: (platform.home / "state" / "git-http.sock").exists(), limit=30)
    return add_token(people, "boss")


def test_a_host_is_lost_and_comes_back(platform: Platform, app: str) -> None:
    token = installed(platform, app)
    before = answers(platform, app, token)
    assert before["predict"]["outputs"][0]["data"] == "1"
    assert len(before["file"]) == 600_000

    name = platform.prichal("backup", "create", "-o", "name").stdout.strip()
    identity = platform.home.parent / "backup.key"
    identity.write_text(KEY.identity.reveal())
    refused = platform.prichal("backup", "restore", "latest", "--identity", str(identity), check=False)
    assert "AlreadyRunning" in refused.stderr
    platform.stop()  # and no container, network or image of it is left
    shutil.rmtree(platform.home / "state")
    shutil.rmtree(platform.platform_folder)

    platform.prichal("backup", "verify", name, "--identity", str(identity))
    platform.prichal("backup", "restore", "latest", "--identity", str(identity))
    again = Platform(platform.home, **platform.settings)
    again.instance, again.port, again.storage_port = platform.instance, platform.port, platform.storage_port
    try:
        again.start()
        again.start_process("git-http")
        again.until_ready(app, before["person"][1])
        wait_for(lambda: (again.home / "state" / "git-http.sock").exists(), limit=30)
        again.until(lambda: again.predict(app).status == 200)
        assert answers(again, app, token) == before
    finally:
        again.stop()
