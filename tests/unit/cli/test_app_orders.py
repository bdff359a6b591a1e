"""`prichal app create`, `delete` and `templates` on the host."""

from __future__ import annotations

import json

from tests.support.stores import open_store
from tests.unit.cli.conftest import Machine


def begun(machine: Machine) -> None:
    open_store(machine.state / "db" / "state.db").close()


def test_an_order_is_placed(machine: Machine) -> None:
    begun(machine)
    made = machine.run("app", "create", "demo", "--template", "function", "--set", "path=x", "-o", "json")
    order = json.loads(made.stdout)
    assert (made.code, order["app"], order["state"], order["by"]) == (0, "demo", "pending", None)
    assert "prichal events demo -f" in made.stderr
    waited = machine.run("app", "create", "demo2", "--template", "function", "--wait", "--timeout", "0")
    assert (waited.code, "the work continues" in waited.stderr) == (6, True)


def test_what_is_refused(machine: Machine) -> None:
    begun(machine)
    assert machine.run("app", "create", "Имя", "--template", "function").code == 1
    assert machine.run("app", "create", "demo", "--template", "none").code == 4
    assert machine.run("app", "create", "demo", "--template", "function", "--set", "x=1").code == 2
    assert (
        "give for example 512Mi"
        in machine.run("app", "create", "demo", "--template", "function", "--memory", "much").stderr
    )
    assert machine.run("app", "delete", "demo", stdin="other\n").code == 1
    assert machine.run("app", "delete", "demo", "--yes").code == 4


def test_templates(machine: Machine) -> None:
    begun(machine)
    shown = machine.run("app", "templates", "-o", "name")
    assert (shown.code, shown.stdout.split()[0]) == (0, "function")
