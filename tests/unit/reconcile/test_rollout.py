"""From a commit to traffic: the first version, the next one, the one that fails."""

from __future__ import annotations

from typing import Any

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import CorsSpec
from controller.domain.names import ComponentName
from tests.support.specs import make
from tests.unit.reconcile.harness import Harness, api, ml, secret


def test_the_first_deploy_ends_ready(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml(), api())
    outcome = harness.run("webhook")
    assert (outcome.name, outcome.revision, outcome.retry_after) == ("Ready", commit, None)
    (runs,) = harness.running()
    assert harness.route().upstreams == (runs.endpoint,)
    assert [a.path for a in harness.route().apis] == ["image"]
    assert (runs.revision, harness.route().revision) == (commit, commit)
    assert harness.types() == [ConditionType.READY]
    assert harness.status().applied_revision == harness.status().attempted_revision == commit
    assert harness.events() == ["NewRevision", "Started", "BecameReady", "Switched", "Applied"]


def test_the_plan_is_kept_and_says_why(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml())
    harness.run()
    lines = harness.status().plan.splitlines()
    assert lines[0] == f"plan demo @ {commit[:12]}"
    assert lines[1] == "  create network  # the app has no network yet"


def test_idle_passes_do_nothing_write_nothing_and_tell_nothing(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), ml("other"), api())
    harness.run()
    status, events, starts = harness.status(), harness.events(), list(harness.engine.starts)
    version = harness.store.routes.version()
    harness.clock.advance(1000.0)
    assert harness.settle().name == "Ready"
    assert (harness.status(), harness.events(), harness.engine.starts) == (status, events, starts)
    assert (harness.store.routes.version(), harness.engine.removals) == (version, [])


def test_a_new_commit_rolls_without_a_moment_of_silence(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()

    waits: list[bool] = []

    def still_served(asked: ObservedWorkload) -> None:
        (target,) = harness.route().upstreams
        assert target in {w.endpoint for w in harness.running()}
        waits.append(asked.endpoint != target)

    harness.prober.on_probe = still_served
    commit = harness.push(ml(image="demo:2"))
    assert harness.run("webhook").name == "Ready"
    assert waits == [True, False]  # asked before the switch, and for the verdict after it
    (new,) = harness.running()
    assert (new.revision, harness.route().upstreams) == (commit, (new.endpoint,))
    assert harness.engine.names() == [new.name]
    assert harness.status().applied_revision == commit


def test_a_commit_that_changes_nothing_for_a_component_restarts_nothing(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    commit = harness.push(ml(), README="about")
    version = harness.store.routes.version()
    assert harness.run().revision == commit
    assert len(harness.engine.starts) == 1
    assert harness.store.routes.version() == version
    assert harness.status().applied_revision == commit
    assert harness.events()[-2:] == ["NewRevision", "Applied"]


def test_a_change_of_the_api_switches_the_route_and_restarts_nothing(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(), api())
    harness.run()
    harness.push(ml(), api(path="picture"))
    assert harness.run().name == "Ready"
    assert [a.path for a in harness.route().apis] == ["picture"]
    assert len(harness.engine.starts) == 1


def test_replicas_come_and_go(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    harness.push(ml(replicas=3))
    assert harness.run().name == "Ready"
    assert len(harness.running()) == len(harness.route().upstreams) == 3
    harness.push(ml(replicas=1))
    assert harness.run().name == "Ready"
    assert len(harness.running()) == len(harness.route().upstreams) == 1
    component = harness.status().component(harness.route().component)
    assert component is not None
    assert component.restarts == ()


def test_an_unready_version_never_replaces_a_serving_one(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml())
    harness.run()
    (old,) = harness.running()
    bad = harness.push(ml(image="demo:2"))
    harness.prober.unready[bad] = "model not loaded"
    outcome = harness.run()
    assert outcome.name == "Degraded"
    assert outcome.retry_after is None
    assert harness.running() == [old]
    assert harness.route().upstreams == (old.endpoint,)
    assert harness.engine.names() == [old.name]
    degraded = harness.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert "keeps serving" in degraded.message
    assert "was not ready within 120 s: model not loaded" in degraded.message
    assert (harness.status().attempted_revision, harness.status().applied_revision) == (bad, good)


def test_a_failed_commit_is_not_tried_again_by_itself(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    bad = harness.push(ml(image="demo:2"))
    harness.prober.unready[bad] = "model not loaded"
    harness.run()
    starts, events = list(harness.engine.starts), harness.events()
    assert harness.settle().name == "Degraded"
    assert (harness.engine.starts, harness.events()) == (starts, events)
    assert events.count("Degraded") == 1


def test_a_failed_commit_is_tried_again_when_a_person_asks(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    bad = harness.push(ml(image="demo:2"))
    harness.prober.unready[bad] = "model not loaded"
    harness.run()
    del harness.prober.unready[bad]
    assert harness.run("manual").name == "Ready"
    assert harness.status().applied_revision == bad
    (new,) = harness.running()
    assert new.revision == bad
    assert harness.types() == [ConditionType.READY]


def test_a_newer_commit_is_tried_after_a_failed_one(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    bad = harness.push(ml(image="demo:2"))
    harness.prober.unready[bad] = "model not loaded"
    harness.run()
    good = harness.push(ml(image="demo:3"))
    assert harness.run().name == "Ready"
    assert [w.revision for w in harness.running()] == [good]


def test_going_back_to_the_version_in_force_is_ready_at_once(harness: Harness) -> None:
    harness.connect()
    first = harness.push(ml())
    harness.run()
    harness.push(ml(image="demo:2"))
    harness.engine.exits_at_start["classify"] = 1
    harness.run()
    harness.sources.move("demo", first)
    assert harness.run().name == "Ready"
    assert len(harness.engine.starts) == 2


def test_a_container_that_exits_shows_its_last_words_without_secrets(harness: Harness) -> None:
    harness.secrets = ["hunter2secret"]
    harness.connect(secrets=[secret("keys", TOKEN="hunter2secret")])
    harness.push(ml(envFrom=[{"secretRef": {"name": "keys"}}]))

    def dies(asked: ObservedWorkload) -> None:
        harness.engine.say(asked.id, "starting")
        harness.engine.say(asked.id, "ValueError: bad token hunter2secret")
        harness.engine.exit(asked.id, 3)

    harness.prober.on_probe = dies
    harness.prober.unready["classify"] = "not yet"
    outcome = harness.run()
    assert outcome.name == "Failed"
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "Exited"
    expected = "classify exited with code 3 before it was ready.\nLast log lines:\nstarting\nValueError: bad token ***"
    assert expected in stalled.message
    assert harness.engine.names() == []


def test_a_version_that_does_not_start_without_writing_is_let_write(harness: Harness) -> None:
    """Once it has said so; and the status says it as long as that version serves."""
    harness.engine.writers.add(ComponentName("classify"))
    harness.connect()
    harness.push(ml())
    outcome = harness.run()
    assert outcome.name == "Failed"
    assert outcome.retry_after
    assert "RootNotWritable" in harness.events()
    failed = harness.condition(ConditionType.APPLY_FAILED)
    assert failed is not None
    assert "readOnlyRootFilesystem: false" in failed.message
    harness.clock.advance(outcome.retry_after)
    assert harness.run().name == "Ready"
    (serving,) = harness.running()
    assert serving.root == "writable"
    (component,) = harness.status().components
    assert "it did not start without" in component.conditions[0].message


@pytest.mark.parametrize("said", [True, False])
def test_a_version_that_says_what_it_needs_is_not_second_guessed(harness: Harness, said: bool) -> None:
    harness.engine.exits_at_start["classify"] = 1
    harness.connect()
    harness.push(ml(readOnlyRootFilesystem=said))
    harness.prober.on_probe = lambda asked: harness.engine.say(asked.id, "OSError: Read-only file system")
    assert harness.run().name == "Failed"
    assert harness.engine.writing == set()


def test_a_container_that_ran_out_of_memory_says_so(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.prober.on_probe = lambda asked: harness.engine.exit(asked.id, 137, oom_killed=True)
    harness.prober.unready["classify"] = "not yet"
    harness.run()
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert "ran out of memory before it was ready" in stalled.message


def test_the_last_good_version_is_kept_up_while_the_new_one_is_held_back(harness: Harness) -> None:
    harness.connect()
    good = harness.push(ml())
    harness.run()
    bad = harness.push(ml(image="demo:2"))
    harness.prober.unready[bad] = "model not loaded"
    harness.run()
    (old,) = harness.running()
    harness.engine.vanish(old.id)
    assert harness.run("drift").name == "Degraded"
    (healed,) = harness.running()
    assert (healed.revision, healed.fingerprint) == (good, old.fingerprint)
    assert harness.route().upstreams == (healed.endpoint,)


def test_a_password_that_was_changed_counts_even_while_a_version_is_held_back(harness: Harness) -> None:
    auth: dict[str, Any] = {"auth": {"basic": {"credentials": "users"}}}
    harness.connect(secrets=[secret("users", ann="first-password")])
    harness.push(ml(), api(**auth))
    harness.run()
    bad = harness.push(ml(image="demo:2"), api(**auth))
    harness.prober.unready[bad] = "model not loaded"
    harness.run()
    before = harness.route().apis
    harness.connect(secrets=[secret("users", ann="second-password")])
    harness.run("platform")
    assert harness.route().apis != before


def test_the_rules_of_an_api_reach_its_route(harness: Harness) -> None:
    oidc = {
        "issuer": "https://id.example.org",
        "audience": "demo",
        "clientId": "web",
        "requiredClaims": {"g": "lab"},
    }
    harness.connect()
    harness.push(ml(), api(auth={"oidc": oidc}, cors={"origins": ["https://lab.example.org"]}))
    harness.run()
    (found,) = harness.route().apis
    assert not found.open_to_all
    assert found.cors == make(CorsSpec, ("https://lab.example.org",))
    assert (found.oidc_issuer, found.oidc_audience) == ("https://id.example.org", "demo")
    assert (found.oidc_client, found.oidc_claims) == ("web", (("g", "lab"),))


def test_a_failing_neighbour_does_not_hold_the_others_back(harness: Harness) -> None:
    harness.connect()
    harness.push(ml("good"), ml("bad"))
    harness.run()
    harness.push(ml("good", "demo:2"), ml("bad", "demo:2"))
    harness.prober.unready["bad"] = "model not loaded"
    assert harness.run().name == "Degraded"
    first, second = harness.running("good"), harness.running("bad")
    assert len(first) == len(second) == 1
    assert first[0].revision != second[0].revision
    assert harness.status().applied_revision != harness.status().attempted_revision


def test_waiting_ends_when_a_newer_commit_is_pushed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    slow = harness.push(ml(image="demo:2"))
    harness.prober.unready[slow] = "still loading"

    def push_while_it_loads(asked: ObservedWorkload) -> None:
        if asked.revision == slow:
            harness.prober.on_probe = lambda asked: None
            harness.push(ml(image="demo:3"))
            harness.store.requests.enqueue(asked_app, Trigger.WEBHOOK)

    asked_app = harness.catalog.spec.apps[0].name
    harness.prober.on_probe = push_while_it_loads
    begun = harness.clock.now()
    outcome = harness.run()
    assert (outcome.name, outcome.retry_after) == ("Superseded", 0.0)
    assert harness.clock.now() - begun < 5.0
    assert harness.run().name == "Ready"
    assert len(harness.running()) == 1
    assert slow not in {w.revision for w in harness.running()}


def test_a_request_without_a_newer_commit_does_not_cut_the_waiting_short(harness: Harness) -> None:
    harness.connect()
    slow = harness.push(ml())
    harness.prober.unready[slow] = "still loading"
    probes = 0

    def ask_again(asked: ObservedWorkload) -> None:
        nonlocal probes
        probes += 1
        harness.store.requests.enqueue(harness.catalog.spec.apps[0].name, Trigger.POLL)
        if probes == 50:
            harness.prober.unready.clear()

    harness.prober.on_probe = ask_again
    assert harness.run().name == "Ready"


def test_the_daemon_that_stops_leaves_waiting_and_the_next_one_goes_on(harness: Harness) -> None:
    harness.connect()
    slow = harness.push(ml())
    harness.prober.unready[slow] = "still loading"

    def stop(asked: ObservedWorkload) -> None:
        harness.stopping = True

    harness.prober.on_probe = stop
    assert harness.run().name == "Superseded"
    (waiting,) = harness.running()
    harness.stopping = False
    harness.prober.unready.clear()
    harness.prober.on_probe = lambda asked: None
    assert harness.run("start").name == "Ready"
    assert harness.running() == [waiting]


def test_recreate_stops_the_old_one_first(harness: Harness) -> None:
    harness.connect()
    recreate: dict[str, Any] = {"rollout": {"strategy": "Recreate"}}
    harness.push(ml(**recreate))
    harness.run()
    commit = harness.push(ml(image="demo:2", **recreate))

    def alone(asked: ObservedWorkload) -> None:
        if asked.revision == commit:
            assert harness.running() == [asked]

    harness.prober.on_probe = alone
    assert harness.run().name == "Ready"
    assert [w.revision for w in harness.running()] == [commit]


def test_the_old_version_is_drained_before_it_goes(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    (old,) = harness.running()
    busy = frozenset({old.endpoint or ""})
    harness.store.gateways.report("worker", version=1000, busy=busy, now=harness.clock.now())
    harness.push(ml(image="demo:2"))
    begun = harness.clock.now()
    assert harness.run().name == "Ready"
    assert harness.clock.now() - begun >= 3.0  # as long as a worker that is heard of no more counts as alive
    assert "DrainTimeout" not in harness.events()


def test_draining_has_an_end(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(rollout={"drainTimeout": "10s"}))
    harness.run()
    (old,) = harness.running()
    for_ever = harness.clock.now() + 1e6
    harness.store.gateways.report("worker", version=1000, busy=frozenset({old.endpoint or ""}), now=for_ever)
    harness.push(ml(image="demo:2", rollout={"drainTimeout": "10s"}))
    assert harness.run().name == "Ready"
    assert harness.events().count("DrainTimeout") == 1
    assert old not in harness.running()


def test_the_daemon_that_stops_leaves_draining_and_the_next_one_drains_again(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    (old,) = harness.running()
    for_ever = harness.clock.now() + 1e6
    harness.store.gateways.report("worker", version=1000, busy=frozenset({old.endpoint or ""}), now=for_ever)
    harness.push(ml(image="demo:2"))
    harness.stopping = True
    assert harness.run().name == "Superseded"
    assert old in harness.running()
    harness.stopping = False
    harness.store.gateways.leave("worker")
    assert harness.run("start").name == "Ready"
    assert "drain " in harness.status().plan
    assert old not in harness.running()
