"""From a commit to traffic: the first version, the next one, the one that fails."""

from __future__ import annotations

from typing import Any

from controller.domain.conditions import ConditionType
from controller.domain.observed import ObservedWorkload
from tests.unit.reconcile.scene import Scene, api, ml, secret


def test_the_first_deploy_ends_ready(scene: Scene) -> None:
    scene.connect()
    commit = scene.push(ml(), api())
    outcome = scene.run("webhook")
    assert (outcome.name, outcome.revision, outcome.retry_after) == ("Ready", commit, None)
    (runs,) = scene.running()
    assert scene.route().upstreams == (runs.endpoint,)
    assert [a.path for a in scene.route().apis] == ["image"]
    assert (runs.revision, scene.route().revision) == (commit, commit)
    assert scene.types() == [ConditionType.READY]
    assert scene.status().applied_revision == scene.status().attempted_revision == commit
    assert scene.events() == ["NewRevision", "Started", "BecameReady", "Switched", "Applied"]


def test_the_plan_is_kept_and_says_why(scene: Scene) -> None:
    scene.connect()
    commit = scene.push(ml())
    scene.run()
    lines = scene.status().plan.splitlines()
    assert lines[0] == f"plan demo @ {commit[:12]}"
    assert lines[1] == "  create network  # the app has no network yet"


def test_idle_passes_do_nothing_write_nothing_and_tell_nothing(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(), ml("other"), api())
    scene.run()
    status, events, starts = scene.status(), scene.events(), list(scene.engine.starts)
    version = scene.store.routes.version()
    scene.clock.advance(1000.0)
    assert scene.settle().name == "Ready"
    assert (scene.status(), scene.events(), scene.engine.starts) == (status, events, starts)
    assert (scene.store.routes.version(), scene.engine.removals) == (version, [])


def test_a_new_commit_rolls_without_a_moment_of_silence(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()

    waits: list[bool] = []

    def still_served(asked: ObservedWorkload) -> None:
        (target,) = scene.route().upstreams
        assert target in {w.endpoint for w in scene.running()}
        waits.append(asked.endpoint != target)

    scene.prober.on_probe = still_served
    commit = scene.push(ml(image="demo:2"))
    assert scene.run("webhook").name == "Ready"
    assert waits == [True, False]  # asked before the switch, and for the verdict after it
    (new,) = scene.running()
    assert (new.revision, scene.route().upstreams) == (commit, (new.endpoint,))
    assert scene.engine.names() == [new.name]
    assert scene.status().applied_revision == commit


def test_a_commit_that_changes_nothing_for_a_component_restarts_nothing(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    commit = scene.push(ml(), README="about")
    version = scene.store.routes.version()
    assert scene.run().revision == commit
    assert len(scene.engine.starts) == 1
    assert scene.store.routes.version() == version
    assert scene.status().applied_revision == commit
    assert scene.events()[-2:] == ["NewRevision", "Applied"]


def test_a_change_of_the_api_switches_the_route_and_restarts_nothing(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(), api())
    scene.run()
    scene.push(ml(), api(path="picture"))
    assert scene.run().name == "Ready"
    assert [a.path for a in scene.route().apis] == ["picture"]
    assert len(scene.engine.starts) == 1


def test_replicas_come_and_go(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    scene.push(ml(replicas=3))
    assert scene.run().name == "Ready"
    assert len(scene.running()) == len(scene.route().upstreams) == 3
    scene.push(ml(replicas=1))
    assert scene.run().name == "Ready"
    assert len(scene.running()) == len(scene.route().upstreams) == 1
    component = scene.status().component(scene.route().component)
    assert component is not None
    assert component.restarts == ()


def test_an_unready_version_never_replaces_a_serving_one(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml())
    scene.run()
    (old,) = scene.running()
    bad = scene.push(ml(image="demo:2"))
    scene.prober.unready[bad] = "model not loaded"
    outcome = scene.run()
    assert outcome.name == "Degraded"
    assert outcome.retry_after is None
    assert scene.running() == [old]
    assert scene.route().upstreams == (old.endpoint,)
    assert scene.engine.names() == [old.name]
    degraded = scene.condition(ConditionType.DEGRADED)
    assert degraded is not None
    assert "goes on serving" in degraded.message
    assert "was not ready within 120 s: model not loaded" in degraded.message
    assert (scene.status().attempted_revision, scene.status().applied_revision) == (bad, good)


def test_a_failed_commit_is_not_tried_again_by_itself(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    bad = scene.push(ml(image="demo:2"))
    scene.prober.unready[bad] = "model not loaded"
    scene.run()
    starts, events = list(scene.engine.starts), scene.events()
    assert scene.settle().name == "Degraded"
    assert (scene.engine.starts, scene.events()) == (starts, events)
    assert events.count("Degraded") == 1


def test_a_failed_commit_is_tried_again_when_a_person_asks(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    bad = scene.push(ml(image="demo:2"))
    scene.prober.unready[bad] = "model not loaded"
    scene.run()
    del scene.prober.unready[bad]
    assert scene.run("manual").name == "Ready"
    assert scene.status().applied_revision == bad
    (new,) = scene.running()
    assert new.revision == bad
    assert scene.types() == [ConditionType.READY]


def test_a_newer_commit_is_tried_after_a_failed_one(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    bad = scene.push(ml(image="demo:2"))
    scene.prober.unready[bad] = "model not loaded"
    scene.run()
    good = scene.push(ml(image="demo:3"))
    assert scene.run().name == "Ready"
    assert [w.revision for w in scene.running()] == [good]


def test_going_back_to_the_version_in_force_is_ready_at_once(scene: Scene) -> None:
    scene.connect()
    first = scene.push(ml())
    scene.run()
    scene.push(ml(image="demo:2"))
    scene.engine.exits_at_start["classify"] = 1
    scene.run()
    scene.sources.move("demo", first)
    assert scene.run().name == "Ready"
    assert len(scene.engine.starts) == 2


def test_a_container_that_exits_shows_its_last_words_without_secrets(scene: Scene) -> None:
    scene.secrets = ["hunter2secret"]
    scene.connect(secrets=[secret("keys", TOKEN="hunter2secret")])
    scene.push(ml(envFrom=[{"secretRef": {"name": "keys"}}]))

    def dies(asked: ObservedWorkload) -> None:
        scene.engine.say(asked.id, "starting")
        scene.engine.say(asked.id, "ValueError: bad token hunter2secret")
        scene.engine.exit(asked.id, 3)

    scene.prober.on_probe = dies
    scene.prober.unready["classify"] = "not yet"
    outcome = scene.run()
    assert outcome.name == "Failed"
    stalled = scene.condition(ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "Exited"
    expected = "classify exited with code 3 before it was ready.\nLast log lines:\nstarting\nValueError: bad token ***"
    assert expected in stalled.message
    assert scene.engine.names() == []


def test_a_container_that_ran_out_of_memory_says_so(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.prober.on_probe = lambda asked: scene.engine.exit(asked.id, 137, oom_killed=True)
    scene.prober.unready["classify"] = "not yet"
    scene.run()
    stalled = scene.condition(ConditionType.STALLED)
    assert stalled is not None
    assert "ran out of memory" in stalled.message


def test_the_last_good_version_is_kept_up_while_the_new_one_is_held_back(scene: Scene) -> None:
    scene.connect()
    good = scene.push(ml())
    scene.run()
    bad = scene.push(ml(image="demo:2"))
    scene.prober.unready[bad] = "model not loaded"
    scene.run()
    (old,) = scene.running()
    scene.engine.vanish(old.id)
    assert scene.run("drift").name == "Degraded"
    (healed,) = scene.running()
    assert (healed.revision, healed.fingerprint) == (good, old.fingerprint)
    assert scene.route().upstreams == (healed.endpoint,)


def test_a_password_that_was_changed_counts_even_while_a_version_is_held_back(scene: Scene) -> None:
    auth: dict[str, Any] = {"auth": {"basic": {"credentials": "users"}}}
    scene.connect(secrets=[secret("users", ann="first-password")])
    scene.push(ml(), api(**auth))
    scene.run()
    bad = scene.push(ml(image="demo:2"), api(**auth))
    scene.prober.unready[bad] = "model not loaded"
    scene.run()
    before = scene.route().apis
    scene.connect(secrets=[secret("users", ann="second-password")])
    scene.run("platform")
    assert scene.route().apis != before


def test_the_issuer_of_an_api_reaches_its_route(scene: Scene) -> None:
    oidc = {
        "issuer": "https://id.example.org",
        "audience": "demo",
        "clientId": "web",
        "requiredClaims": {"g": "lab"},
    }
    scene.connect()
    scene.push(ml(), api(auth={"oidc": oidc}))
    scene.run()
    (found,) = scene.route().apis
    assert not found.open_to_all
    assert (found.oidc_issuer, found.oidc_audience) == ("https://id.example.org", "demo")
    assert (found.oidc_client, found.oidc_claims) == ("web", (("g", "lab"),))


def test_a_failing_neighbour_does_not_hold_the_others_back(scene: Scene) -> None:
    scene.connect()
    scene.push(ml("good"), ml("bad"))
    scene.run()
    scene.push(ml("good", "demo:2"), ml("bad", "demo:2"))
    scene.prober.unready["bad"] = "model not loaded"
    assert scene.run().name == "Degraded"
    first, second = scene.running("good"), scene.running("bad")
    assert len(first) == len(second) == 1
    assert first[0].revision != second[0].revision
    assert scene.status().applied_revision != scene.status().attempted_revision


def test_waiting_ends_when_a_newer_commit_is_pushed(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    slow = scene.push(ml(image="demo:2"))
    scene.prober.unready[slow] = "still loading"

    def push_while_it_loads(asked: ObservedWorkload) -> None:
        if asked.revision == slow:
            scene.prober.on_probe = lambda asked: None
            scene.push(ml(image="demo:3"))
            scene.store.requests.enqueue(asked_app, "webhook")

    asked_app = scene.directory.spec.apps[0].name
    scene.prober.on_probe = push_while_it_loads
    begun = scene.clock.now()
    outcome = scene.run()
    assert (outcome.name, outcome.retry_after) == ("Superseded", 0.0)
    assert scene.clock.now() - begun < 5.0
    assert scene.run().name == "Ready"
    assert len(scene.running()) == 1
    assert slow not in {w.revision for w in scene.running()}


def test_a_request_without_a_newer_commit_does_not_cut_the_waiting_short(scene: Scene) -> None:
    scene.connect()
    slow = scene.push(ml())
    scene.prober.unready[slow] = "still loading"
    probes = 0

    def ask_again(asked: ObservedWorkload) -> None:
        nonlocal probes
        probes += 1
        scene.store.requests.enqueue(scene.directory.spec.apps[0].name, "poll")
        if probes == 50:
            scene.prober.unready.clear()

    scene.prober.on_probe = ask_again
    assert scene.run().name == "Ready"


def test_the_daemon_that_stops_leaves_waiting_and_the_next_one_goes_on(scene: Scene) -> None:
    scene.connect()
    slow = scene.push(ml())
    scene.prober.unready[slow] = "still loading"

    def stop(asked: ObservedWorkload) -> None:
        scene.stopping = True

    scene.prober.on_probe = stop
    assert scene.run().name == "Superseded"
    (waiting,) = scene.running()
    scene.stopping = False
    scene.prober.unready.clear()
    scene.prober.on_probe = lambda asked: None
    assert scene.run("start").name == "Ready"
    assert scene.running() == [waiting]


def test_recreate_stops_the_old_one_first(scene: Scene) -> None:
    scene.connect()
    recreate: dict[str, Any] = {"rollout": {"strategy": "Recreate"}}
    scene.push(ml(**recreate))
    scene.run()
    commit = scene.push(ml(image="demo:2", **recreate))

    def alone(asked: ObservedWorkload) -> None:
        if asked.revision == commit:
            assert scene.running() == [asked]

    scene.prober.on_probe = alone
    assert scene.run().name == "Ready"
    assert [w.revision for w in scene.running()] == [commit]


def test_the_old_version_is_drained_before_it_goes(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    (old,) = scene.running()
    busy = frozenset({old.endpoint or ""})
    scene.store.gateways.report("worker", version=1000, busy=busy, now=scene.clock.now())
    scene.push(ml(image="demo:2"))
    begun = scene.clock.now()
    assert scene.run().name == "Ready"
    assert scene.clock.now() - begun >= 3.0  # as long as a worker that is heard of no more counts as alive
    assert "DrainTimeout" not in scene.events()


def test_draining_has_an_end(scene: Scene) -> None:
    scene.connect()
    scene.push(ml(rollout={"drainTimeout": "10s"}))
    scene.run()
    (old,) = scene.running()
    for_ever = scene.clock.now() + 1e6
    scene.store.gateways.report("worker", version=1000, busy=frozenset({old.endpoint or ""}), now=for_ever)
    scene.push(ml(image="demo:2", rollout={"drainTimeout": "10s"}))
    assert scene.run().name == "Ready"
    assert scene.events().count("DrainTimeout") == 1
    assert old not in scene.running()


def test_the_daemon_that_stops_leaves_draining_and_the_next_one_drains_again(scene: Scene) -> None:
    scene.connect()
    scene.push(ml())
    scene.run()
    (old,) = scene.running()
    for_ever = scene.clock.now() + 1e6
    scene.store.gateways.report("worker", version=1000, busy=frozenset({old.endpoint or ""}), now=for_ever)
    scene.push(ml(image="demo:2"))
    scene.stopping = True
    assert scene.run().name == "Superseded"
    assert old in scene.running()
    scene.stopping = False
    scene.store.gateways.leave("worker")
    assert scene.run("start").name == "Ready"
    assert "drain " in scene.status().plan
    assert old not in scene.running()
