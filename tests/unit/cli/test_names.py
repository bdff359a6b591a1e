"""`prichal name`: whose the names of callers are, and who gets one next."""

from __future__ import annotations

import json

from controller.cli.exits import Exit
from controller.domain.names import AppName
from controller.domain.routing.caller_names import PASSWORD, openid
from controller.store.names import CallerNameTable
from tests.unit.cli.conftest import Machine


def test_names(machine: Machine) -> None:
    assert "No caller" in machine.run("name", "ls").stderr
    path = machine.state / "web" / "names.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = CallerNameTable(path)
    names.claim(AppName("demo"), "ann", openid("https://id.example.org", "7f\x1b[2J"), 1.0)
    names.claim(AppName("other"), "bob", PASSWORD, 1.0)
    listed = machine.run("name", "ls")
    assert "\x1b" not in listed.stdout
    assert "https://id.example.org, subject 7f" in listed.stdout
    (one,) = json.loads(machine.run("name", "ls", "other", "-o", "json").stdout)
    assert (one["name"], one["owner"]) == ("bob", PASSWORD)
    assert machine.run("name", "release", "demo", "bob").code == Exit.NOT_FOUND
    assert machine.run("name", "release", "demo", "ann").code == Exit.OK
    assert [each.name for each in names.all()] == ["bob"]
