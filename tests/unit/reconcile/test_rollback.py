"""Going back to an earlier revision, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.observed import ObservedWorkload
from controller.domain.apps.requests import Trigger
from controller.domain.apps.status import Rollback
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.reconcile.next_pass import preview
from tests.support.fake_engine import Registries
from tests.unit.reconcile.harness import APP, Harness, api, built, manifest, ml, secret


def serve(harness: Harness, *versions: tuple[str, ...]) -> list[str]:
    harness.connect()
    commits = []
    for manifests in versions:
        commits.append(harness.push(*manifests))
        harness.run()
        harness.clock.advance(60.0)
    return commits


def serve_two(harness: Harness) -> tuple[str, str]:
    first, second = serve(harness, (ml(), api()), (ml(image="demo:2"), api()))
    assert harness.route().revision == second
    return first, second


def image(harness: Harness) -> str:
    (component,) = harness.status().components
    return component.image


def messages(harness: Harness, reason: Reason) -> list[str]:
    return [event.message for event in harness.store.events.list(APP, limit=1000) if event.reason == reason]


def test_back_at_once_and_held(harness: Harness) -> None:
    first, second = serve_two(harness)
    before = image(harness)
    harness.roll_back()
    fetched = harness.sources.fetched
    outcome = harness.run("rollback")
    assert (outcome.name, outcome.revision, harness.route().revision) == ("Ready", first, first)
    assert harness.sources.fetched == fetched, "going back does not wait for a Git server"
    assert image(harness) != before
    condition = harness.condition(ConditionType.ROLLED_BACK)
    assert condition is not None
    assert condition.message.startswith(f"revision {first[:12]} is held since ")
    assert ", by anna; a new commit or `prichal resume demo` goes on" in condition.message
    assert (harness.status().applied_revision, harness.status().attempted_revision) == (first, second)
    assert messages(harness, Reason.ROLLED_BACK) == [
        f"rolled back from {second[:12]} to {first[:12]} by anna"
    ]
    entry = harness.store.history.list(APP, 1)[0]
    assert (entry.revision, entry.by, entry.outcome) == (first, "anna", "Ready")


def test_polls_and_pushes_of_the_same_commit_do_not_undo_it(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    starts = list(harness.engine.starts)
    for reason in ("retry", "poll", "webhook", "push", "start", "manual", "platform", "drift"):
        harness.clock.advance(60.0)
        assert harness.run(reason).name == "Ready"
    assert (harness.route().revision, harness.engine.starts) == (first, starts)
    assert len(messages(harness, Reason.ROLLED_BACK)) == 1
    assert harness.condition(ConditionType.ROLLED_BACK)


def test_a_push_that_came_together_with_it_is_not_lost(harness: Harness) -> None:
    """The pass that goes back asks no Git server; the next one does."""
    serve_two(harness)
    harness.roll_back()
    third = harness.push(ml(image="demo:3"), api())
    harness.run("push", "rollback")
    queued = harness.store.requests.queued(APP)
    assert queued is not None
    assert queued.reasons == (Trigger.RETRY,)
    harness.run("retry")
    assert harness.route().revision == third


def test_a_new_commit_goes_on(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    third = harness.push(ml(image="demo:3"), api())
    assert harness.run("push").name == "Ready"
    assert harness.route().revision == third
    assert harness.condition(ConditionType.ROLLED_BACK) is None
    assert harness.status().rollback is None
    assert messages(harness, Reason.ROLLBACK_ENDED) == [f"{first[:12]} is no longer held"]


def test_a_new_commit_with_errors_changes_nothing(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    harness.push(manifest("MLComponent", "classify"), api())
    harness.run("push")
    assert harness.route().revision == first
    assert harness.condition(ConditionType.MANIFEST_INVALID)


def test_a_new_commit_ends_it_even_if_neither_can_be_loaded(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    harness.sources.lose("demo", first)
    harness.push(manifest("MLComponent", "classify"), api())
    assert harness.run("push").name in ("Degraded", "Failed")
    assert harness.status().rollback is None
    third = harness.push(ml(image="demo:3"), api())
    harness.run("push")
    assert harness.route().revision == third
    assert len(messages(harness, Reason.ROLLED_BACK)) == 1
    assert len(messages(harness, Reason.ROLLBACK_ENDED)) == 1


def test_resume_goes_on(harness: Harness) -> None:
    _, second = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    harness.resume()
    assert harness.run("manual").name == "Ready"
    assert harness.route().revision == second
    assert harness.condition(ConditionType.ROLLED_BACK) is None


def test_it_needs_no_git_server(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.sources.fault = Transient(Reason.FETCH_FAILED, "the server does not answer")
    harness.roll_back()
    assert harness.run("rollback").name == "Ready"
    assert harness.route().revision == first
    harness.run("retry")
    assert harness.condition(ConditionType.FETCH_FAILED)
    assert harness.condition(ConditionType.ROLLED_BACK)
    harness.engine.exit(harness.running()[0].id)
    harness.run("drift")
    assert harness.running(), "what is held is repaired without Git, too"


def test_while_a_rollout_is_under_way(harness: Harness) -> None:
    """The rollout ends early, and its containers go."""
    first, second = serve_two(harness)
    third = harness.push(ml(image="demo:3"), api())

    def ask_meanwhile(workload: ObservedWorkload) -> None:
        if workload.revision == third and harness.status().rollback is None:
            harness.roll_back()
            harness.store.requests.enqueue(APP, Trigger.ROLLBACK)

    harness.prober.on_probe = ask_meanwhile
    harness.prober.unready[third] = "loading"
    assert harness.run_unchecked("push").name == "Superseded"
    assert harness.status().attempted_revision == third
    assert harness.run("rollback").name == "Ready"
    assert (harness.route().revision, len(harness.running())) == (second, 1)
    assert first != second


def test_to_an_image_that_is_gone_it_is_built_again(harness: Harness) -> None:
    harness.connect()
    first = harness.push(built(), api(), Dockerfile="FROM a")
    harness.run()
    harness.push(built(), api(), Dockerfile="FROM b")
    harness.run()
    tags = list(harness.engine.builds)
    harness.engine.images -= {
        name for name in harness.engine.images if name.startswith("sha256") or ".local/" in name
    }
    harness.roll_back()
    assert harness.run("rollback").name == "Ready"
    assert (harness.route().revision, harness.engine.builds) == (first, [*tags, tags[0]])


def test_images_of_the_last_revisions_are_kept(harness: Harness) -> None:
    """Those of as many earlier ones as `docker.keptRevisions` says; so going back builds nothing."""
    harness.connect()
    commits = []
    for number in range(6):
        commits.append(harness.push(built(), api(), Dockerfile=f"FROM base-{number}"))
        harness.run()
        harness.clock.advance(60.0)
        harness.run()
    tags = list(harness.engine.builds)
    assert [tag in harness.engine.images for tag in tags] == [False] * 2 + [True] * 4
    harness.roll_back(commits[2][:8])
    harness.run("rollback")
    assert (harness.route().revision, harness.engine.builds) == (commits[2], tags)
    harness.clock.advance(60.0)
    harness.run("retry")
    harness.resume()
    harness.run("manual")
    assert (harness.route().revision, harness.engine.builds) == (commits[5], tags)


def test_tags_of_registries_stay_what_they_were(harness: Harness) -> None:
    """The tag has moved since; a rollback goes back to the content, also when a person reconciles."""
    harness.connect()
    harness.engine.registry["hub/demo:latest"] = "sha256:one"
    first = harness.push(ml(image="hub/demo:latest"), api())
    harness.run()
    one = image(harness)
    harness.engine.registry["hub/demo:latest"] = "sha256:two"
    harness.push(ml(image="hub/demo:latest", replicas=2), api())
    harness.run()
    assert image(harness) != one
    harness.roll_back()
    harness.run("rollback")
    harness.run("manual")
    assert (harness.route().revision, image(harness)) == (first, one)


def test_to_an_image_that_its_registry_has_no_more(harness: Harness) -> None:
    """The version in service goes on, and what runs of it is repaired."""
    harness.connect()
    harness.engine.registry["hub/demo:1"] = "sha256:one"
    harness.engine.registry["hub/demo:2"] = "sha256:two"
    harness.push(ml(image="hub/demo:1"), api())
    harness.run()
    second = harness.push(ml(image="hub/demo:2"), api())
    harness.run()
    gone = "hub/demo@sha256:one"
    pull = harness.engine.pull

    def refuse(app: AppName, reference: str, registries: Registries) -> None:
        if reference == gone:
            raise Stalled(Reason.IMAGE_NOT_FOUND, f"cannot pull {reference}: manifest unknown")
        pull(app, reference, registries)

    harness.engine.images -= {gone}
    harness.engine.pull = refuse  # type: ignore[method-assign]
    harness.roll_back()
    harness.run_unchecked("rollback")
    assert (harness.route().revision, harness.route().in_service) == (second, True)
    (component,) = harness.status().components
    assert "manifest unknown" in component.failure + component.conditions[0].message
    harness.engine.exit(harness.running()[0].id)
    harness.run_unchecked("drift")
    assert [each.revision for each in harness.running()] == [second]
    harness.resume()
    assert harness.run("manual").name == "Ready"


def test_to_a_commit_that_is_gone_from_everywhere(harness: Harness) -> None:
    first, second = serve_two(harness)
    harness.sources.lose("demo", first)
    harness.roll_back()
    harness.run("rollback")
    assert harness.route().revision == second
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert stalled.message.startswith(f"cannot go back to {first[:12]}: no branch contains the commit")
    harness.engine.exit(harness.running()[0].id)
    harness.run("drift")
    assert harness.running(), "what runs is repaired meanwhile"
    harness.resume()
    assert harness.run("manual").name == "Ready"
    assert harness.types() == [ConditionType.READY]


def test_to_a_commit_that_a_new_clone_does_not_have(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.sources.lose("demo", first, served=True)
    harness.roll_back()
    assert harness.run("rollback").name == "Ready"
    assert harness.route().revision == first
    assert harness.run("poll").name == "Ready"
    assert harness.route().revision == first


def test_to_a_revision_whose_secret_is_gone(harness: Harness) -> None:
    """Its component waits; the version in service goes on."""
    harness.connect(secrets=[secret("keys", KEY="1")])
    harness.push(ml(envFrom=[{"secretRef": {"name": "keys"}}]), api())
    harness.run()
    second = harness.push(ml(image="demo:2"), api())
    harness.run()
    harness.connect()
    harness.roll_back()
    harness.run("rollback")
    (component,) = harness.status().components
    assert component.conditions[0].reason == Reason.AWAITING_SECRET
    assert (harness.route().revision, len(harness.running())) == (second, 1)


def test_to_a_revision_whose_box_is_gone(harness: Harness) -> None:
    """Its data was kept, and it is bound again."""
    box = manifest("DataBox", "files", s3DefaultStorage={"capacity": "1G"})
    first, _ = serve(harness, (ml(), box, api()), (ml(), api()))
    assert [record.state for record in harness.store.boxes.of(APP)] == ["kept"]
    harness.roll_back()
    assert harness.run("rollback").name == "Ready"
    assert [record.state for record in harness.store.boxes.of(APP)] == ["bound"]
    assert harness.status().applied_revision == first


def test_twice_goes_back_no_further(harness: Harness) -> None:
    commits = serve(harness, *((ml(image=f"demo:{number}"), api()) for number in (1, 2, 3)))
    for by in ("anna", "bob"):
        harness.roll_back(by=by)
        harness.run("rollback")
    assert harness.route().revision == commits[1]
    rollback = harness.status().rollback
    assert rollback is not None
    assert rollback.by == "anna"
    harness.roll_back(commits[0][:8], by="bob")
    harness.run("rollback")
    assert harness.route().revision == commits[0]
    assert [text.rpartition(" ")[2] for text in messages(harness, Reason.ROLLED_BACK)] == ["anna", "bob"]


def test_suspended_while_it_is_held(harness: Harness) -> None:
    first, second = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    harness.store.apps.set_suspended(APP, True)
    assert harness.run("poll").name == "Suspended"
    assert harness.condition(ConditionType.ROLLED_BACK)
    with pytest.raises(Stalled, match="is suspended"):
        harness.roll_back()
    assert harness.route().revision == first
    harness.resume()
    harness.run("manual")
    assert harness.route().revision == first, "the suspension is over, and nothing else"
    assert harness.condition(ConditionType.ROLLED_BACK)
    harness.resume()
    harness.run("manual")
    assert harness.route().revision == second


def test_while_an_approval_is_awaited(harness: Harness) -> None:
    """The commit that would remove everything is no longer asked for."""
    first, _ = serve(harness, (ml(), api()), ())
    assert harness.condition(ConditionType.PRUNE_PENDING)
    harness.roll_back()
    assert harness.run("rollback").name == "Ready"
    assert harness.condition(ConditionType.PRUNE_PENDING) is None
    assert harness.status().applied_revision == first


def test_one_to_a_commit_that_was_never_applied_is_dropped(harness: Harness) -> None:
    """Who can write the file of requests does not get around `verify` this way."""
    _, second = serve_two(harness)
    unseen = harness.push(ml(image="demo:3"), api())
    harness.sources.move("demo", second)
    harness.store.apps.roll_back(APP, Rollback(unseen, second, "mallory", harness.clock.now()))
    assert harness.run("rollback").name == "Ready"
    assert (harness.route().revision, harness.status().rollback) == (second, None)
    assert "was never applied here" in messages(harness, Reason.ROLLBACK_REFUSED)[0]


def test_a_history_that_is_lost_does_not_end_it(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    harness.run("rollback")
    harness.database.with_name("history.db").unlink()
    harness.run("poll")
    assert (harness.route().revision, harness.condition(ConditionType.ROLLED_BACK) is None) == (first, False)


def test_a_preview_changes_nothing(harness: Harness) -> None:
    first, _ = serve_two(harness)
    harness.roll_back()
    events, rollback = harness.events(), harness.status().rollback
    found = preview(harness.deps, APP)
    assert found.revision.commit == first
    assert found.warnings[0].startswith(f"RolledBack: revision {first[:12]} is held since")
    assert (harness.events(), harness.status().rollback) == (events, rollback)
    assert harness.store.requests.queued(APP) is None


def test_who_pushed_is_in_the_event_and_in_the_history(harness: Harness) -> None:
    harness.connect()
    commit = harness.push(ml(), api())
    harness.store.repositories.remember_push("demo", commit, "anna", harness.clock.now())
    harness.run("push")
    assert messages(harness, Reason.NEW_REVISION) == [f"{commit[:12]} a change, pushed by anna"]
    assert harness.store.history.list(APP, 1)[0].by == "anna"
    other = harness.push(ml(image="demo:2"), api())
    harness.run("push")
    assert messages(harness, Reason.NEW_REVISION)[1] == f"{other[:12]} a change"
    assert harness.store.history.list(APP, 1)[0].by == ""


def served(harness: Harness) -> Route:
    return replace(harness.route(), upstreams=())


@pytest.mark.parametrize("again", [Harness.resume, lambda harness: harness.push(ml(image="demo:2"), api())])
def test_back_and_forth_ends_where_it_began(harness: Harness, again: Callable[[Harness], object]) -> None:
    serve_two(harness)
    fingerprint = served(harness).fingerprint
    harness.roll_back()
    harness.run("rollback")
    assert served(harness).fingerprint != fingerprint
    again(harness)
    harness.run("manual")
    assert served(harness).fingerprint == fingerprint
