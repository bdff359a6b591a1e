"""A pass over an app in which nothing has changed looks, and does no more; whatever has changed makes it a whole one.
What decides is in tests/unit/domain/apps/test_quiet.py."""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.conditions import ConditionType, find
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.quiet import WHOLE_PASS
from controller.domain.apps.requests import Outcome
from controller.domain.errors import Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from tests.unit.reconcile import following
from tests.unit.reconcile.harness import APP, Harness, api, app, ml, secret

KEYS = SecretKeys(b"k" * 32)


@pytest.fixture
def quiet(harness: Harness) -> Harness:
    """An app whose passes find nothing to do, with a component that hibernates later."""
    serve(harness)
    return harness


def serve(harness: Harness) -> None:
    harness.store.secrets.unlock(KEYS)
    harness.connect()
    push(harness)
    for _ in range(3):
        harness.run("drift")
    assert is_passed_over(harness)


def push(harness: Harness, image: str = "demo:1") -> None:
    harness.push(ml(image=image), ml("idle", hibernation={"idleAfter": "1h"}), api(), api("b", "idle", "b"))


def is_passed_over(harness: Harness, *reasons: str) -> bool:
    """Make a pass; return whether it only looked."""
    before = harness.deps.quiet.get(APP)
    harness.run(*(reasons or ("drift",)))
    return before is not None and harness.deps.quiet.get(APP) is before


# --- what it does -----------------------------------------------------------------------------------------------


def test_it_looks_at_git_the_engine_and_the_containers_and_tells_the_same(quiet: Harness) -> None:
    whole, fetched, asked = quiet.outcome, quiet.sources.fetched, len(quiet.prober.asked)
    assert is_passed_over(quiet)
    assert quiet.outcome == whole
    assert quiet.outcome.name is Outcome.READY
    assert quiet.sources.fetched == fetched + 1
    assert len(quiet.prober.asked) == asked + 2


@pytest.mark.parametrize("reason", ["drift", "poll", "webhook", "push", "retry"])
def test_periodic_triggers_only_look(quiet: Harness, reason: str) -> None:
    assert is_passed_over(quiet, "drift", reason)


@pytest.mark.parametrize("reason", ["manual", "container", "secret", "platform", "rollback", "wake", "start"])
def test_others_make_a_whole_pass(quiet: Harness, reason: str) -> None:
    assert not is_passed_over(quiet, "drift", reason)


def test_a_new_commit_is_fetched_once(quiet: Harness) -> None:
    fetched = quiet.sources.fetched
    push(quiet, "demo:2")
    assert not is_passed_over(quiet, "push")
    assert quiet.sources.fetched == fetched + 1
    assert quiet.status().applied_revision == quiet.outcome.revision


def test_what_is_due_is_told_again_each_time(quiet: Harness) -> None:
    """A request of before for a later time is merged into that for this pass, and is gone with it."""
    quiet.store.activity.touch([(APP, ComponentName("idle"))], quiet.clock.now())
    quiet.run("drift")
    due = quiet.clock.now() + (quiet.outcome.retry_after or 0.0)
    quiet.clock.advance(60.0)
    assert is_passed_over(quiet, "retry", "drift")
    assert quiet.clock.now() + (quiet.outcome.retry_after or 0.0) == pytest.approx(due)


# --- what it notices --------------------------------------------------------------------------------------------


def die(harness: Harness) -> None:
    harness.engine.exit(harness.running()[0].id)


def vanish(harness: Harness) -> None:
    harness.engine.vanish(harness.running()[0].id)


def cut_off(harness: Harness) -> None:
    harness.engine.cut_off(harness.running()[0].id)


def hang(harness: Harness) -> None:
    harness.prober.unready["classify"] = "it hangs"


def answer_again(harness: Harness) -> None:
    harness.prober.unready.clear()


def change(harness: Harness) -> None:
    push(harness, "demo:2")


def change_back(harness: Harness) -> None:
    push(harness)


def lose_git(harness: Harness) -> None:
    harness.sources.fault = Transient(Reason.FETCH_FAILED, "no route")


def find_git(harness: Harness) -> None:
    harness.sources.fault = None


def lose_engine(harness: Harness) -> None:
    harness.engine.down = True


def set_secret(harness: Harness) -> None:
    value = uuid.uuid4().hex
    asked = SecretChange(
        uuid.uuid4().hex, APP, "keys", (("token", Secret(value)),), "ann", harness.clock.now()
    )
    harness.secrets.append(value)
    harness.store.secrets.ask(asked)
    harness.store.requests.claim(0.0)  # takes it in


def declare(harness: Harness) -> None:
    harness.connect(app(), secrets=[secret("other", token=uuid.uuid4().hex)])


def suspend(harness: Harness) -> None:
    harness.store.apps.set_suspended(APP, True)


def resume(harness: Harness) -> None:
    harness.store.apps.set_suspended(APP, False)


def roll_back(harness: Harness) -> None:
    if len({each.revision for each in harness.store.history.list(APP)}) > 1:
        harness.roll_back()


def withdraw(harness: Harness) -> None:
    harness.store.routes.withdraw(APP, ComponentName("classify"))


def forget(harness: Harness) -> None:
    harness.store.apps.forget(APP)


def call_idle(harness: Harness) -> None:
    harness.clock.advance(1.0)
    harness.store.activity.touch([(APP, ComponentName("idle"))], harness.clock.now())


def lose_network(harness: Harness) -> None:
    for each in harness.engine.observe(APP).workloads:
        harness.engine.vanish(each.id)
    harness.engine.remove_network(APP)


def wait(harness: Harness) -> None:
    harness.clock.advance(WHOLE_PASS)


def wait_long(harness: Harness) -> None:
    harness.clock.advance(7300.0)


def set_the_clock_back(harness: Harness) -> None:
    harness.clock.jump(-3600.0)


NOTICED = (
    die,
    vanish,
    cut_off,
    hang,
    change,
    lose_git,
    set_secret,
    declare,
    suspend,
    withdraw,
    forget,
    call_idle,
    lose_network,
    wait,
    wait_long,
    set_the_clock_back,
)


@pytest.mark.parametrize("act", NOTICED, ids=lambda act: act.__name__)
def test_whatever_has_changed_makes_a_whole_pass(quiet: Harness, act: Callable[[Harness], None]) -> None:
    act(quiet)
    assert not is_passed_over(quiet)


def test_an_engine_that_does_not_answer_is_told_of(quiet: Harness) -> None:
    lose_engine(quiet)
    assert quiet.run_unchecked("drift").name is not Outcome.READY


def test_a_bug_while_it_looks_is_told_of_by_a_whole_pass(quiet: Harness) -> None:
    quiet.sources.fault = RuntimeError("a bug")  # type: ignore[assignment]
    quiet.run_unchecked("drift")
    failed = find(quiet.status().conditions, ConditionType.FETCH_FAILED)
    assert failed is not None
    assert "RuntimeError: a bug" in failed.message
    find_git(quiet)
    quiet.run("drift")
    assert quiet.outcome.name is Outcome.READY


def test_an_app_that_is_disconnected_while_it_looks_goes_by_the_next_pass(quiet: Harness) -> None:
    read = quiet.deps.store.apps.inputs

    def disconnect(name: AppName) -> bytes:
        quiet.disconnect()
        return read(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quiet.deps.store.apps, "inputs", disconnect)
        assert is_passed_over(quiet)
    assert quiet.run("drift").name is Outcome.REMOVED


def test_the_same_declared_again_changes_nothing(quiet: Harness) -> None:
    quiet.connect()
    assert is_passed_over(quiet)


def test_what_changes_during_a_whole_pass_makes_the_next_one_whole(quiet: Harness) -> None:
    """The Secret comes when the pass has read Secrets, and looks at its containers."""
    quiet.prober.on_probe = lambda workload: set_secret(quiet)
    assert not is_passed_over(quiet, "manual")
    quiet.prober.on_probe = lambda workload: None
    assert not is_passed_over(quiet)
    assert is_passed_over(quiet)


@pytest.mark.parametrize(
    "declared",
    [
        app(suspend=True),
        pytest.param(app(path="nowhere"), id="no manifests"),
    ],
)
def test_what_is_not_in_order_makes_whole_passes(harness: Harness, declared: object) -> None:
    harness.connect(declared)  # type: ignore[arg-type]
    push(harness)
    for _ in range(3):
        assert not is_passed_over(harness)


def test_a_daemon_that_dies_remembers_nothing(quiet: Harness) -> None:
    quiet.deps = replace(quiet.deps, quiet={})
    assert not is_passed_over(quiet)
    assert is_passed_over(quiet)


# --- nothing is missed ------------------------------------------------------------------------------------------

ACTS = (*NOTICED, answer_again, change_back, find_git, resume, roll_back)
REASONS = ("drift", "poll", "webhook", "push", "retry", "container")


def trace(harness: Harness) -> object:
    """What a pass can change, and what it tells."""
    engine, store = harness.engine, harness.store
    return (
        (tuple(engine.starts), tuple(engine.removals), engine.observe(APP)),
        (store.routes.of(APP), store.routes.services(APP)),
        (store.apps.status(APP), harness.events(), store.history.list(APP)),
    )


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(REASONS)), min_size=1, max_size=12))
def test_a_whole_pass_in_place_of_one_that_only_looked_does_nothing(
    steps: list[tuple[Callable[[Harness], None], str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(Path(folder))
        with closing(harness.store):
            serve(harness)
            for act, reason in steps:
                if act not in (die, vanish, cut_off) or harness.running():
                    act(harness)
                for _ in range(2):
                    if is_passed_over(harness, reason):
                        compare(harness, reason)


def compare(harness: Harness, reason: str) -> None:
    looked, before = harness.outcome, trace(harness)
    harness.deps.quiet.clear()
    whole = harness.run(reason)
    assert (whole.name, whole.message, whole.revision) == (looked.name, looked.message, looked.revision)
    assert trace(harness) == before


def test_the_digest_reads_all_tables_that_a_whole_pass_reads(harness: Harness) -> None:
    """Those that cannot make it do anything are named with the reason."""
    beside = {
        "touched",  # when something was put into a box: apps with boxes have whole passes
        "pushes",  # who has pushed a commit, for the event of a new one
        "runs",  # `EXISTS` reads the index
        "json_each",
    }
    follow = following.Following(harness)
    harness.store.secrets.unlock(KEYS)
    follow.declare()
    harness.run()
    harness.clock.advance(7200.0)
    whole, digest = set[str](), set[str]()
    with watched(harness, whole):
        harness.run_unchecked("manual")
    with watched(harness, digest):
        harness.store.apps.inputs(APP)
    assert {"apps", "routes", "secrets", "age_keys", "followed_images", "gpus"} <= whole
    assert whole - digest <= beside


class watched:  # noqa: N801 - reads like a function
    """Collects the tables that this thread reads."""

    def __init__(self, harness: Harness, tables: set[str]) -> None:
        self._database, self._tables = harness.store._database, tables

    def __enter__(self) -> None:
        def note(action: int, table: str | None, *_: object) -> int:
            if action == sqlite3.SQLITE_READ and table:
                self._tables.add(table)
            return sqlite3.SQLITE_OK

        with self._database.read() as db:
            db.set_authorizer(note)

    def __exit__(self, *_: object) -> None:
        with self._database.read() as db:
            db.set_authorizer(None)
