"""`prichal plan`, and `diff` of what comes next, with a thread in the daemon's place."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from controller.cli.exits import Exit
from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.plan import EnsureNetwork, Plan
from controller.domain.apps.previews import PlanPreview, preview_of
from controller.domain.apps.status import AppStatus
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.store import SqliteStore
from tests.unit.cli.conftest import Machine

DEMO = AppName("demo")
PLAN = Plan(DEMO, "b" * 40, ((EnsureNetwork("declared"),),))
FOUND = preview_of("", PLAN, "Two of them", "Anna", ["ManifestInvalid: the newest commit"], ())


@contextmanager
def daemon(store: SqliteStore, found: PlanPreview = FOUND) -> Iterator[None]:
    store.apps.save(AppStatus(DEMO))
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.01):
            if asked := store.previews.begin():
                given = PlanPreview(**{**vars(found), "id": asked.id, "app": asked.app})
                store.previews.finish(given, [ManifestText("app.yaml", "x: 2\n")])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_plan(machine: Machine, store: SqliteStore) -> None:
    with daemon(store):
        found = machine.run("plan", DEMO)
        as_json = machine.run("plan", DEMO, "-o", "json")
        name = machine.run("plan", DEMO, "-o", "jsonpath={.actions[0].action}")
    assert (found.code, found.stdout) == (Exit.OK, PLAN.render() + "\n")
    assert found.stderr == "warning: ManifestInvalid: the newest commit\n"
    assert json.loads(as_json.stdout)["actions"] == [{"action": "create network", "why": "declared"}]
    assert name.stdout == "create network\n"


def test_what_comes_next_against_what_was_applied(machine: Machine, store: SqliteStore) -> None:
    entry = AppliedRevision(DEMO, "a" * 40, "One", "Anna", ("push",), 1e9, 1e9 + 2, "Ready", "", "")
    store.history.add(entry, [ManifestText("app.yaml", "x: 1\n")])
    with daemon(store):
        found = machine.run("diff", DEMO)
    assert found.code == Exit.OK
    assert found.stdout.splitlines()[-5:] == ["-x: 1", "+x: 2", "", *PLAN.render().splitlines()]


def test_what_prevents_a_plan(machine: Machine, store: SqliteStore) -> None:
    problem = PlanPreview("", DEMO, problem=Reason.ENGINE_UNREACHABLE, message="no engine", is_transient=True)
    with daemon(store, problem):
        found = machine.run("plan", DEMO)
    assert (found.code, "no engine" in found.stderr) == (Exit.UNREACHABLE, True)


def test_a_daemon_that_does_not_answer(machine: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(DEMO))
    assert machine.run("plan", DEMO, "--timeout", "0.1").code == Exit.TIMEOUT
    store.heartbeat(0.0)
    found = machine.run("plan", DEMO)
    assert (found.code, "prichal daemon" in found.stderr) == (Exit.UNREACHABLE, True)
