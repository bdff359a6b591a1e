"""A new version is tested before it gets traffic. What fails keeps the version before in service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.requests import Trigger
from controller.domain.apps.smoke import SmokeAnswer
from tests.unit.reconcile.harness import Harness, api, ml

EXPECTED = json.dumps({"outputs": [{"name": "label", "data": "cat"}]})
FILES = {"smoke/in.json": json.dumps({"inputs": []}), "smoke/out.json": EXPECTED}


def declared(image: str = "demo:1", **test: Any) -> str:
    test = {"input": "smoke/in.json", "output": "smoke/out.json", **test}
    return ml(image=image, mlService={"inference": "app:predict", "smokeTest": test})


@pytest.fixture(name="served")
def _served(harness: Harness) -> Harness:
    """The first version has passed its test."""
    harness.connect()
    harness.push(declared(), api(), **FILES)
    assert harness.run("webhook").name == "Ready"
    return harness


def test_a_version_is_tested_once_before_it_gets_traffic(served: Harness) -> None:
    assert served.events() == [
        "NewRevision",
        "Started",
        "BecameReady",
        "SmokeTestPassed",
        "Switched",
        "Applied",
    ]
    asked = served.prober.asked
    assert asked.count("/predict") == 1
    waits: list[bool] = []
    served.prober.on_call = lambda workload: waits.append(workload.endpoint in served.route().upstreams)
    served.push(declared("demo:2"), api(), **FILES)
    assert served.run("webhook").name == "Ready"
    assert waits == [False]
    served.engine.exit(served.running()[0].id)
    assert served.settle().name == "Ready"
    served.push(declared("demo:2", path="/predict"), api(), README="new", **FILES)
    assert served.settle().name == "Ready"
    assert len(waits) == 1, "neither a repair nor a commit that changes nothing is a new version"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            SmokeAnswer(200, EXPECTED.replace("cat", "dog").encode()),
            '/outputs/0/data: expected "cat", found "dog"',
        ),
        (SmokeAnswer(500, b'{"detail": "raised KeyError: 1"}'), "/predict answered 500: raised KeyError: 1"),
        (SmokeAnswer(failure="it took longer than 62 s"), "no answer: it took longer than 62 s"),
    ],
)
def test_a_version_that_fails_its_test_gets_no_traffic(
    served: Harness, answer: SmokeAnswer, words: str
) -> None:
    (old,) = served.running()
    bad = served.push(declared("demo:2"), api(), **FILES)
    served.prober.answers[bad] = answer
    outcome = served.run("push")
    assert outcome.name == "Degraded"
    assert "keeps serving. classify does not pass its smoke test, smoke/in.json: " in outcome.message
    assert words in outcome.message
    assert served.route().upstreams == (old.endpoint,)
    assert [w.name for w in served.running()] == [old.name]
    assert ConditionType.DEGRADED in served.types()
    starts = len(served.engine.starts)
    assert served.settle().name == "Degraded"
    assert len(served.engine.starts) == starts, "it is not tried again"
    del served.prober.answers[bad]
    assert served.run(Trigger.MANUAL).name == "Ready", "but when a person asks for it"
    assert served.route().revision == bad


def test_a_first_version_that_fails_its_test_serves_nobody(harness: Harness) -> None:
    harness.connect()
    harness.prober.answers["classify"] = SmokeAnswer(503)
    harness.push(declared(), api(), **FILES)
    outcome = harness.run("push")
    assert (outcome.name, harness.running()) == ("Failed", [])
    assert harness.store.routes.of(harness.status().app) == ()
    del harness.prober.answers["classify"]
    harness.push(declared(), api(), **{**FILES, "smoke/out.json": EXPECTED.replace("cat", "dog")})
    assert harness.run("push").name == "Ready", "another test makes another version of it"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"smoke/out.json": EXPECTED}, "there is no file smoke/in.json"),
        ({"smoke/in.json": "{}"}, "there is no file smoke/out.json"),
        ({**FILES, "smoke/in.json": "{"}, "smoke/in.json is not JSON"),
        ({**FILES, "smoke/out.json": " " * 1_000_001}, "smoke/out.json"),
        ({**FILES, "smoke/in.json": '{"inputs": [{"datatype": "FILE"}]}'}, "/inputs/0 is a FILE"),
    ],
)
def test_a_test_that_cannot_be_run_changes_nothing(
    served: Harness, files: dict[str, str], words: str
) -> None:
    (old,) = served.running()
    served.push(declared("demo:2"), api(), **files)
    outcome = served.run("push")
    assert outcome.name == "Degraded"
    assert "its smoke test cannot be run: " in outcome.message
    assert words in outcome.message
    assert [w.name for w in served.running()] == [old.name]
    served.engine.exit(old.id)
    assert served.settle().name == "Degraded", "what serves is still repaired"
    assert len(served.running()) == 1


def test_a_container_that_dies_is_told_with_its_log(served: Harness) -> None:
    bad = served.push(declared("demo:2"), api(), **FILES)
    served.prober.answers[bad] = SmokeAnswer(failure="the connection was cut (closed)")
    served.prober.on_call = lambda workload: served.engine.exit(workload.id)
    outcome = served.run("push")
    assert outcome.name == "Degraded"
    assert "the connection was cut (closed); it exited with code" in outcome.message
    assert "log" in outcome.message


def test_a_container_that_somebody_removes_is_tried_again(served: Harness) -> None:
    bad = served.push(declared("demo:2"), api(), **FILES)
    served.prober.answers[bad] = SmokeAnswer(failure="the connection was cut (closed)")
    served.prober.on_call = lambda workload: served.engine.vanish(workload.id)
    outcome = served.run("push")
    assert "was removed before it was tested" in outcome.message
    assert outcome.retry_after is not None
    served.prober.answers.clear()
    served.prober.on_call = lambda workload: None
    served.clock.advance(600)
    assert served.settle().name == "Ready"


def test_a_newer_commit_ends_a_test(served: Harness) -> None:
    slow = served.push(declared("demo:2"), api(), **FILES)
    served.prober.answers[slow] = SmokeAnswer(failure="the connection was cut (closed)")

    def push(_: object) -> None:
        served.prober.on_call = lambda workload: None
        served.push(declared("demo:3"), api(), **FILES)
        served.store.requests.enqueue(served.status().app, Trigger.PUSH)

    served.prober.on_call = push
    assert served.run_unchecked("push").name == "Superseded"
    assert served.run("push").name == "Ready"


def test_a_rollback_is_tested_with_the_files_of_its_commit(served: Harness) -> None:
    first = served.route().revision
    served.push(declared("demo:2"), api(), **{**FILES, "smoke/out.json": EXPECTED.replace("cat", "dog")})
    assert served.run("push").name == "Ready"
    served.roll_back(first)
    assert served.run(Trigger.ROLLBACK).name == "Ready"
    assert served.route().revision == first
    assert served.events().count("SmokeTestPassed") == 3
