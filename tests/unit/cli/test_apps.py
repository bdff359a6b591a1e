"""Commands about apps, on a real store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from controller.cli.exits import Exit
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.requests import ReconcileRequest, RequestState, Trigger
from controller.domain.apps.status import AppStatus, ComponentStatus, Event, EventType
from controller.domain.apps.usage import Usage
from controller.domain.gpu_devices import GpuDevice, GpuReport, write_report
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import Lease
from controller.domain.runs.run import RunState, new_run
from tests.support.runs import make_pipeline
from tests.unit.cli.conftest import Machine, worker

if TYPE_CHECKING:
    from controller.store import SqliteStore

DEMO = AppName("demo-colors")


def ready(yes: bool, message: str = "") -> Condition:
    return Condition(
        ConditionType.READY, yes, Reason.READY if yes else Reason.NOT_READY, message, time.time() - 7200
    )


@pytest.fixture
def demo(store: SqliteStore) -> AppStatus:
    component = ComponentStatus(
        ComponentName("namer"), "MLComponent", conditions=(ready(True, "version 1 serves"),)
    )
    status = AppStatus(
        DEMO,
        repository="colors",
        attempted_revision="a" * 40,
        applied_revision="a" * 40,
        conditions=(ready(True, "1 of 1 ready"),),
        components=(component,),
    )
    store.apps.save(status)
    return status


@pytest.fixture
def broken(store: SqliteStore) -> AppStatus:
    message = "namer: exit code 1\nTraceback: no model"
    conditions = (
        ready(False, message),
        Condition(ConditionType.DEGRADED, True, Reason.NOT_READY, message, time.time()),
    )
    status = AppStatus(AppName("broken"), attempted_revision="b" * 40, conditions=conditions)
    store.apps.save(status)
    return status


# --- status


def test_without_a_state_there_is_nothing_to_ask(machine: Machine) -> None:
    found = machine.run("status")
    assert found.code == Exit.UNREACHABLE
    assert "prichal up" in found.stderr
    assert not machine.state.exists(), "looking makes nothing"


def test_no_app_yet(machine: Machine, store: SqliteStore) -> None:
    found = machine.run("status")
    assert (found.code, found.stdout) == (Exit.OK, "")
    assert "prichal connect URL" in found.stderr


def test_all_apps_in_columns(machine: Machine, demo: AppStatus, broken: AppStatus) -> None:
    found = machine.run("status")
    assert found.code == Exit.OK
    assert [line.split(maxsplit=5) for line in found.stdout.splitlines()] == [
        ["APP", "STATE", "REVISION", "COMPONENTS", "SINCE", "MESSAGE"],
        ["broken", "Degraded", "-", "0/0", "2h", "namer: exit code 1"],
        ["demo-colors", "Ready", "aaaaaaaaaaaa", "1/1", "2h", "1 of 1 ready"],
    ]


def test_check_fails_while_something_is_not_ready(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    assert machine.run("status", "--check").code == Exit.OK
    store.apps.save(AppStatus(AppName("broken"), conditions=(ready(False),)))
    assert machine.run("status", "--check").code == Exit.FAILED
    assert machine.run("status", DEMO, "--check").code == Exit.OK
    store.apps.set_suspended(AppName("broken"), True)
    assert machine.run("status", "--check").code == Exit.OK


def test_one_app_tells_all_about_itself(machine: Machine, broken: AppStatus) -> None:
    found = machine.run("status", "broken")
    assert "Degraded=True NotReady (0s): namer: exit code 1\n      Traceback: no model\n" in found.stdout
    assert f"attempted   {'b' * 40}" in found.stdout


def test_one_app_tells_what_it_uses_of_its_shares(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    assert "RESOURCE" not in machine.run("status", DEMO).stdout, "before the daemon has looked"
    usage = [
        Usage(DEMO, "cpus", 1.5, 16.0),
        Usage(DEMO, "memory", 2**30, 2**35),
        Usage(DEMO, "box tables", 90e6, 100e6),
        Usage(DEMO, "queue", 0, 1000),
        Usage(DEMO, "gpus", 1, None),
    ]
    store.record_usage([Usage(AppName("another"), "cpus", 1, 2), *usage])
    shown = machine.run("status", DEMO).stdout.splitlines()
    assert [
        line.split("  ") for line in columns_of(shown[shown.index("RESOURCE    USED     BOUND    SHARE") :])
    ] == [
        ["RESOURCE", "USED", "BOUND", "SHARE"],
        ["cpus", "1.5", "16", "9 %"],
        ["memory", "1.07 GB", "34.4 GB", "3 %"],
        ["box tables", "90 MB", "100 MB", "90 %, nearly full"],
        ["queue", "0", "1000", "0 %"],
        ["gpus", "1", "-", "-"],
    ]
    document = json.loads(machine.run("status", DEMO, "-o", "json").stdout)
    assert document["uses"] == [{"resource": u.resource, "used": u.used, "bound": u.bound} for u in usage]


def columns_of(lines: list[str]) -> list[str]:
    """With two blanks between the columns, however wide they are."""
    return [re.sub(" {2,}", "  ", line) for line in lines]


def test_gpus_are_told_with_who_has_them(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    assert "GPU" not in machine.run("status").stdout
    machine.configure("runs: {gpus: [GPU-a, GPU-b]}")
    store.gpus.save(Lease("p.web.1.0", DEMO, ComponentName("web"), ("GPU-b",)))
    devices = (GpuDevice("0", "GPU-a"), GpuDevice("1", "GPU-b", "T4", 2**30, 2**34, 0.5))
    path = machine.state / "db" / "gpus.json"
    path.write_text(json.dumps(write_report(GpuReport(time.time(), devices=devices))))
    lines = [re.split(r"  +", line) for line in machine.run("status").stdout.splitlines()]
    assert lines[-3:] == [
        ["GPU", "NAME", "MEMORY", "USE", "HELD BY", "PROBLEM"],
        ["GPU-a", "-", "unknown", "unknown", "-", "-"],
        ["GPU-b", "T4", "1.07 GB of 17.2 GB", "50%", f"{DEMO}/web", "-"],
    ]
    one = machine.run("status", DEMO).stdout
    assert "GPU-b" in one
    assert "GPU-a" not in one


def test_one_app_tells_of_its_runs(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    assert "runs" not in machine.run("status", DEMO).stdout
    now = time.time()
    pipeline = make_pipeline(app=DEMO)
    ended = store.runs.submit(new_run("a", pipeline, now - 300))
    store.runs.save(ended.to(RunState.FAILED, now - 130, Reason.EXIT_CODE))
    store.runs.submit(new_run("b", pipeline, now))
    expected = "  runs        1 queued, 0 active; last: train FAILED ExitCode (2m ago)\n"
    assert expected in machine.run("status", DEMO).stdout
    runs = json.loads(machine.run("status", DEMO, "-o", "json").stdout)["runs"]
    assert (runs["queued"], runs["last"]["id"]) == (1, "a")


def test_json_has_the_field_names_of_the_http_api(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    store.apps.save(AppStatus(PLATFORM, conditions=(ready(True),)))
    everything = json.loads(machine.run("status", "-o", "json").stdout)
    assert everything["daemon"] is True
    assert everything["platform"]["app"] == PLATFORM
    assert [app["app"] for app in everything["apps"]] == [DEMO]
    one = json.loads(machine.run("status", DEMO, "-o", "json").stdout)
    assert (one["state"], one["ready"], one["appliedRevision"]) == ("Ready", True, "a" * 40)
    assert one["components"][0]["name"] == "namer"
    assert one["conditions"][0]["type"] == "Ready"


def test_a_daemon_that_does_not_run_is_told(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    assert machine.run("status").stderr == ""
    store.heartbeat(time.time() - 60)
    assert "does not run" in machine.run("status").stderr


@pytest.mark.parametrize(
    "command", ["status", "reconcile", "suspend", "resume", "approve", "logs", "plan", "events"]
)
def test_an_unknown_app_is_answered_with_the_nearest_name(
    machine: Machine, demo: AppStatus, command: str
) -> None:
    found = machine.run(command, "demo-color")
    assert found.code == Exit.NOT_FOUND
    assert "Did you mean demo-colors?" in found.stderr


# --- events


def event(reason: str, app: AppName = DEMO, kind: EventType = EventType.NORMAL) -> Event:
    return Event(app, kind, Reason(reason), f"{reason} happened", ComponentName("namer"), "abc", time.time())


def test_events_are_lines(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    store.events.add(
        [event("Started"), event("Crashed", kind=EventType.WARNING), event("Other", AppName("else"))]
    )
    lines = machine.run("events", DEMO).stdout.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "namer Started: Started happened",
        "! namer Crashed: Crashed happened",
    ]
    everything = machine.run("events", "-n", "1").stdout
    assert everything.startswith("else  ")
    assert len(everything.splitlines()) == 1


def test_events_of_an_app_that_was_disconnected(machine: Machine, store: SqliteStore) -> None:
    store.events.add([event("Removed", AppName("gone"))])
    assert "Removed happened" in machine.run("events", "gone").stdout


def test_events_as_json_are_one_object_a_line(machine: Machine, store: SqliteStore) -> None:
    store.events.add([event("One"), event("Two")])
    found = [json.loads(line) for line in machine.run("events", "-o", "json").stdout.splitlines()]
    assert [(e["reason"], e["component"], e["type"]) for e in found] == [
        ("One", "namer", "Normal"),
        ("Two", "namer", "Normal"),
    ]


@pytest.fixture
def following(machine: Machine, store: SqliteStore) -> Iterator[subprocess.Popen[str]]:
    store.events.add([event("Before")])
    command = [sys.executable, "-m", "controller", "events", "-f", "--config", str(machine.config)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    with process:
        yield process
        process.kill()


def test_following_goes_on_until_interrupted(following: subprocess.Popen[str], store: SqliteStore) -> None:
    assert following.stdout is not None
    assert "Before happened" in following.stdout.readline()
    for reason in ("After", "Later"):
        store.events.add([event(reason)])
        assert f"{reason} happened" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    assert following.wait() == Exit.INTERRUPTED
    assert following.stdout.read() == ""


# --- reconcile


def test_reconcile_asks_and_returns(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    found = machine.run("reconcile", DEMO)
    queued = store.requests.queued(DEMO)
    assert found.code == Exit.OK
    assert queued is not None
    assert queued.reasons == ("manual",)
    assert f"request {queued.id}" in found.stdout


def test_reconcile_waits_and_shows_what_happens(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    store.events.add([event("Long")])

    def work(request: ReconcileRequest) -> str:
        store.events.add([event("Pulled"), event("Started")])
        return "Ready"

    with worker(store, work) as taken:
        found = machine.run("reconcile", DEMO, "--wait")
    assert (found.code, found.stdout) == (Exit.OK, "demo-colors: Ready: as the test says\n")
    assert [request.reasons for request in taken] == [("manual",)]
    assert "Pulled happened" in found.stderr
    assert found.stderr.index("Pulled") < found.stderr.index("Started")
    assert "Long" not in found.stderr, "what happened before was not asked for"


@pytest.mark.parametrize("outcome", ["Degraded", "Failed", "Suspended"])
def test_what_does_not_end_well_is_an_exit_code(
    machine: Machine, demo: AppStatus, store: SqliteStore, outcome: str
) -> None:
    with worker(store, lambda _: outcome):
        found = machine.run("reconcile", DEMO, "--wait", "-o", "json")
    assert found.code == Exit.FAILED
    assert json.loads(found.stdout)["outcome"] == outcome


@pytest.mark.parametrize(
    ("revision", "code"), [("abc1230", Exit.OK), ("abc1230f", Exit.OK), ("def4567", Exit.FAILED)]
)
def test_a_pipeline_waits_for_its_own_commit(
    machine: Machine, demo: AppStatus, store: SqliteStore, revision: str, code: Exit
) -> None:
    with worker(store, lambda _: "Ready", revision="abc1230f" * 5):
        found = machine.run("reconcile", DEMO, "--wait", "--revision", revision)
    assert found.code == code
    other = "demo-colors is at another commit: abc1230fabc1, not def4567"
    assert (other in found.stderr) == (code == Exit.FAILED)


@pytest.mark.parametrize(
    "arguments", [("--revision", "abc1230"), ("--wait", "--revision", ""), ("--wait", "--revision", "main")]
)
def test_what_names_no_commit_to_wait_for(
    machine: Machine, demo: AppStatus, store: SqliteStore, arguments: tuple[str, ...]
) -> None:
    assert machine.run("reconcile", DEMO, *arguments).code == Exit.USAGE
    assert store.requests.queued(DEMO) is None


def test_waiting_goes_on_with_the_request_that_takes_over(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    def work(request: ReconcileRequest) -> str:
        if request.reasons != ("manual",):
            return "Ready"
        store.requests.enqueue(DEMO, Trigger.WEBHOOK)
        return "Superseded"

    with worker(store, work) as taken:
        found = machine.run("reconcile", DEMO, "--wait")
    assert found.code == Exit.OK
    assert taken[0].reasons == ("manual",)
    assert taken[1].reasons[0] == "webhook"


def test_waiting_has_an_end(machine: Machine, demo: AppStatus) -> None:
    found = machine.run("reconcile", DEMO, "--wait", "--timeout", "0")
    assert found.code == Exit.TIMEOUT
    assert "prichal events demo-colors -f" in found.stderr


def test_waiting_for_a_daemon_that_does_not_run(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    store.heartbeat(time.time() - 60)
    found = machine.run("reconcile", DEMO, "--wait")
    assert found.code == Exit.UNREACHABLE
    assert store.requests.queued(DEMO) is not None, "the request is kept"


def test_the_platform_folder_is_reconciled_like_an_app(machine: Machine, store: SqliteStore) -> None:
    assert machine.run("reconcile", PLATFORM).code == Exit.OK
    assert store.requests.queued(PLATFORM) is not None


# --- suspend, resume, approve


def test_suspend_and_resume(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    assert machine.run("suspend", DEMO).code == Exit.OK
    assert store.apps.status(DEMO).suspended
    assert "Suspended" in machine.run("status").stdout
    with worker(store, lambda _: "Ready"):
        assert machine.run("resume", DEMO, "--wait").code == Exit.OK
    assert not store.apps.status(DEMO).suspended


def test_rollback_and_resume(machine: Machine, demo: AppStatus, store: SqliteStore) -> None:
    refused = machine.run("rollback", DEMO)
    assert (refused.code, "nothing was applied" in refused.stderr) == (Exit.NOT_FOUND, True)
    for letter in "bca":
        store.history.add(AppliedRevision(DEMO, letter * 40, "", "", (), 1.0, 2.0, "Ready", "", ""), [])
    assert machine.run("rollback", DEMO, "--to", "dddd").code == Exit.NOT_FOUND
    assert machine.run("rollback", DEMO).code == Exit.OK
    rollback = store.apps.status(DEMO).rollback
    assert rollback is not None
    assert (rollback.revision, rollback.replaced, rollback.by[:5]) == ("c" * 40, "a" * 40, "host:")
    with worker(store, lambda _: "Ready"):
        found = machine.run("rollback", DEMO, "--to", "1", "--wait", "-o", "json")
    assert (found.code, json.loads(found.stdout)["rollback"]["revision"]) == (Exit.OK, "b" * 40)
    assert machine.run("resume", DEMO).code == Exit.OK
    assert store.apps.status(DEMO).rollback is None


def test_approve_names_the_revision_that_was_tried(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    assert machine.run("approve", DEMO).code == Exit.OK
    assert store.apps.status(DEMO).approved_revision == "a" * 40
    assert store.requests.queued(DEMO) is not None


def test_an_empty_platform_folder_is_approved_without_a_revision(
    machine: Machine, store: SqliteStore
) -> None:
    assert machine.run("approve", PLATFORM).code == Exit.OK
    assert store.apps.status(PLATFORM).approved_revision != ""


def test_an_app_that_was_never_tried_cannot_be_approved(machine: Machine, store: SqliteStore) -> None:
    store.apps.save(AppStatus(AppName("new")))
    assert machine.run("approve", "new").code == Exit.FAILED
    assert store.requests.queued(AppName("new")) is None


def test_a_request_that_was_merged_is_waited_for(
    machine: Machine, demo: AppStatus, store: SqliteStore
) -> None:
    first = store.requests.enqueue(DEMO, Trigger.POLL)
    with worker(store, lambda _: "Ready") as taken:
        assert machine.run("reconcile", DEMO, "--wait").code == Exit.OK
    done = store.requests.get(first)
    assert done is not None
    assert done.state is RequestState.DONE
    assert 1 <= len(taken) <= 2
