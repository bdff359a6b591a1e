"""A policy that becomes stricter is about commits to come; what is in force stays, and is repaired."""

from __future__ import annotations

from dataclasses import replace

from controller.domain.apps.conditions import ConditionType, is_ready
from controller.domain.apps.policies import Policies
from tests.unit.reconcile.harness import Harness, api, ml


def tighten(harness: Harness) -> None:
    settings = replace(harness.settings, policies=Policies(images=("registry.example.org/*",)))
    harness.deps = replace(harness.deps, settings=settings)


def test_what_is_in_force_stays_and_is_repaired(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml(), api())
    harness.run()
    tighten(harness)
    harness.run("start")
    assert is_ready(harness.status().conditions)
    for workload in harness.running():
        harness.engine.exit(workload.id)
    harness.run("container")
    harness.settle()
    assert [workload.revision for workload in harness.running()] == [commit]


def test_the_next_commit_is_refused_with_the_place(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml(), api())
    harness.run()
    tighten(harness)
    harness.push(ml(image="demo:2"), api())
    harness.run()
    refused = harness.condition(ConditionType.MANIFEST_INVALID)
    assert refused
    assert "m0.yaml:1:" in refused.message
    assert "spec.image.existingImageName: this platform takes no image 'demo:2'" in refused.message
    assert harness.route().revision == commit


def test_the_first_commit_is_refused(harness: Harness) -> None:
    tighten(harness)
    harness.connect()
    harness.push(ml(), api())
    harness.run()
    assert harness.condition(ConditionType.MANIFEST_INVALID)
    assert not harness.running()
