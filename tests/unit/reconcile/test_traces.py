"""Spans of passes: what is below what, in threads too, and that nothing secret gets into them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from controller.domain.apps.plan import Action
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from controller.reconcile.executor import span_name
from tests.support.tracing import KeptSpans
from tests.unit.reconcile.harness import Harness, api, built, ml


@pytest.fixture
def tracer(harness: Harness) -> KeptSpans:
    made = KeptSpans()
    harness.deps = replace(harness.deps, tracer=made)
    return made


def test_a_pass_is_one_trace(harness: Harness, tracer: KeptSpans) -> None:
    harness.connect()
    commit = harness.push(built(), ml("second"), api(), Dockerfile="FROM demo:1\n")
    assert harness.run("webhook").name == "Ready"
    (whole,) = tracer.named("reconcile")
    assert whole.start.parent is None
    assert whole.attributes == {
        "prichal.app": "demo",
        "prichal.triggers": "webhook",
        "prichal.outcome": "Ready",
        "vcs.ref.head.revision": commit,
    }
    below = tracer.children(whole)
    assert below[:4] == ["fetch", "read manifests", "observe", "plan"]
    assert {"build image", "start workload", "await ready", "switch route"} <= set(below)
    assert len(below) == len(tracer.spans) - 1, "nothing is outside of the trace"
    (build,) = tracer.named("build image")
    assert build.attributes["prichal.component"] == "classify"
    assert all(span.ended and not span.failure for span in tracer.spans)


def test_failures_are_told_by_their_reasons(harness: Harness, tracer: KeptSpans) -> None:
    harness.connect()
    harness.push(ml(), api())
    harness.sources.fault = Transient(Reason.FETCH_FAILED, "password=hunter2")
    harness.run("webhook")
    (fetch,), (whole,) = tracer.named("fetch"), tracer.named("reconcile")
    assert fetch.failure == Reason.FETCH_FAILED
    assert whole.failure == "Failed"
    assert "hunter2" not in repr(tracer.spans)


def test_every_action_has_a_name_in_words() -> None:
    names = {span_name(action.__name__) for action in get_args(Action)}
    assert {"build image", "pull image", "start workload", "await ready", "run smoke test"} <= names
    assert all(name == name.lower() and "action" not in name for name in names)
    assert len(names) == len(get_args(Action))
