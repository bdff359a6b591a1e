"""`prichal user quota`: what admins set for a person."""

from __future__ import annotations

import json

from controller.store.people import PeopleStore
from tests.unit.cli.conftest import Machine


def test_a_quota(machine: Machine) -> None:
    (machine.state / "web").mkdir(parents=True)
    machine.run("user", "add", "anna")
    machine.configure("apps: {quotaApps: 7}")
    shown = machine.run("user", "quota", "anna")
    assert shown.stdout.splitlines()[1].split() == ["apps", "-", "7", "by", "the", "configuration"]
    assert machine.run("user", "quota", "anna", "--memory", "16Gi", "--cpus", "1.5").code == 0
    document = json.loads(machine.run("user", "quota", "anna", "-o", "json").stdout)
    assert (document["quota"]["memory"], document["quota"]["cpus"], document["used"]) == (
        16 * 2**30,
        1.5,
        None,
    )
    assert document["own"] == ["cpus", "memory"]
    assert machine.run("user", "quota", "anna", "--reset").code == 0
    assert PeopleStore(machine.state / "web" / "people.db").quota("anna") == {}


def test_wrong_quotas(machine: Machine) -> None:
    (machine.state / "web").mkdir(parents=True)
    assert machine.run("user", "quota", "boris").code == 4
    machine.run("user", "add", "anna")
    assert "is not a size" in machine.run("user", "quota", "anna", "--memory", "much").stderr
    assert machine.run("user", "quota", "anna", "--apps", "-1").code == 2
    assert machine.run("user", "quota", "anna", "--reset", "--apps", "1").code == 2
