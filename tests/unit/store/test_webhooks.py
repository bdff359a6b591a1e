"""The outbox: each run that ends is in it exactly once, and nobody's messages keep others waiting."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import Webhook
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunState, cancel, new_run
from controller.domain.runs.steps import FinishRun, finish
from controller.domain.runs.webhooks import LONGEST
from controller.ports import WebhookUnderWay
from controller.store import SqliteStore
from tests.support.specs import make
from tests.support.stores import open_store

DEMO, NOBODY = AppName("demo"), WebhookUnderWay()
URL, OTHER = "https://example.org/a", "https://example.net/b"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "db" / "state.db", clock=lambda: 1e9)) as opened:
        yield opened


def run(id: str, webhook: str = "", app: str = "demo") -> Run:
    names = (AppName(app), ComponentName("train"), "c0ffee")
    of = make(Pipeline, *names, (make(Stage, "fit", "sha256:1"),), webhook=Webhook("hooks", URL))
    return new_run(id, of, 1.0, webhook=webhook)


def ended(store: SqliteStore, id: str, webhook: str = "", app: str = "demo") -> None:
    store.runs.save(cancel(store.runs.submit(run(id, webhook, app)), 5.0))


def due(store: SqliteStore, now: float = 10.0, underway: WebhookUnderWay = NOBODY) -> list[tuple[str, str]]:
    return [(message.run, message.url) for message in store.webhooks.due(now, underway)]


def test_with_its_end_a_run_puts_its_messages_there(store: SqliteStore) -> None:
    queued = store.runs.submit(run("a1", OTHER))
    assert due(store) == []
    store.runs.save(cancel(queued, 5.0))
    assert sorted(due(store)) == [("a1", OTHER), ("a1", URL)]
    assert due(store, now=4.0) == [], "not before its end"


def test_a_run_that_did_not_end_after_all_puts_nothing_there(store: SqliteStore) -> None:
    queued = store.runs.submit(run("a1"))
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.runs.save(cancel(queued, 5.0))
        raise ZeroDivisionError
    assert due(store) == []
    assert store.runs.save(queued.to(RunState.STARTING, 2.0))
    assert store.runs.save(cancel(queued, 5.0)) is None, "somebody was quicker"
    assert due(store) == []


def test_what_was_delivered_does_not_come_again(store: SqliteStore) -> None:
    over = store.runs.save(cancel(store.runs.submit(run("a1")), 5.0))
    assert over
    (message,) = store.webhooks.due(10.0, NOBODY)
    store.webhooks.delivered(message.id)
    assert store.runs.save(replace(over, message="more words")), "a run may be written once more"
    assert due(store) == []


def test_a_run_that_is_forgotten_still_tells(store: SqliteStore) -> None:
    over = store.runs.save(cancel(store.runs.submit(run("a1")), 5.0))
    assert over
    store.runs.forget([over])
    assert due(store) == [("a1", URL)]


def test_one_that_failed_waits(store: SqliteStore) -> None:
    ended(store, "a1")
    (message,) = store.webhooks.due(10.0, NOBODY)
    store.webhooks.failed(message.id, "no answer", 60.0)
    assert due(store, 59.0) == []
    (again,) = store.webhooks.due(60.0, NOBODY)
    assert again == replace(message, attempts=1, due=60.0)


def test_a_clock_that_was_set_back_makes_nobody_wait(store: SqliteStore) -> None:
    ended(store, "a1")
    (message,) = store.webhooks.due(10.0, NOBODY)
    store.webhooks.failed(message.id, "no answer", 1e9)
    assert due(store, 1e9 - LONGEST) == []
    assert due(store, 10.0) == [("a1", URL)]


def test_what_was_given_up_is_kept_for_a_week(store: SqliteStore) -> None:
    ended(store, "a1")
    ended(store, "a2")
    old, new = store.webhooks.due(10.0, NOBODY)
    store.webhooks.give_up(old.id, "gone", 1e9 - 8 * 86400)
    store.webhooks.give_up(new.id, "gone", 1e9)
    assert due(store) == []
    assert store.webhooks.of("a1") == (replace(old, attempts=1),)
    store.prune()
    assert [store.webhooks.of(run) for run in ("a1", "a2")] == [(), (replace(new, attempts=1),)]


def test_no_receiver_stands_before_the_others(store: SqliteStore) -> None:
    for number in range(100):
        ended(store, f"a{number:02}")
    ended(store, "b1", app="other")
    assert due(store) == [("a00", URL), ("a01", URL), ("b1", URL)]
    first = store.webhooks.due(10.0, NOBODY)[0]
    assert due(store, underway=WebhookUnderWay(ids=frozenset({first.id})))[0] == ("a01", URL)
    assert due(store, underway=WebhookUnderWay(partitions=frozenset({first.partition}))) == [("b1", URL)]
    full = frozenset({"webhooks other"})
    assert due(store, underway=WebhookUnderWay(apps=full)) == [("a00", URL), ("a01", URL)]
    assert len(due(store, underway=WebhookUnderWay(apps=frozenset({"notifications other"})))) == 3
    assert len(due(store, underway=WebhookUnderWay(pools=frozenset({"notifications"})))) == 3
    assert due(store, underway=WebhookUnderWay(pools=frozenset({"webhooks"}))) == []


class Death(Exception):
    """Of a process in the middle of a transaction, as the database sees it."""


ENDS = {RunState.SUCCEEDED, RunState.FAILED, RunState.ERROR, RunState.CANCELED}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["begin", "end", "cancel", "again"]), st.booleans()),
        max_size=25,
    ),
    hooks=st.tuples(*[st.sampled_from(["", URL, OTHER])] * 4),
)
def test_each_run_that_ends_is_there_exactly_once(
    steps: list[tuple[int, str, bool]], hooks: tuple[str, ...]
) -> None:
    """Any process changes it, based on what it saw some time ago; any transaction may die."""
    with tempfile.TemporaryDirectory() as folder, closing(open_store(Path(folder) / "s.db")) as store:
        seen = [[store.runs.submit(run(f"a{n}", hook))] for n, hook in enumerate(hooks)]
        for number, act, dies in steps:
            known = (
                seen[number][-1] if act != "again" else seen[number][0]
            )  # again: with what is long outdated
            with suppress(Death), store.transaction():
                saved = store.runs.save(changed(known, act))
                if dies:
                    raise Death
                if saved:
                    seen[number].append(saved)
        for number, hook in enumerate(hooks):
            now = store.runs.get(DEMO, f"a{number}")
            assert now
            told = sorted({URL, hook} - {""}) if now.state in ENDS else []
            assert sorted(message.url for message in store.webhooks.of(now.id)) == told


def changed(run: Run, act: str) -> Run:
    if run.state.terminal:
        return replace(run, message=f"{run.message}!")
    if act == "begin" and run.state is RunState.QUEUED:
        return run.to(RunState.STARTING, 2.0)
    return (
        cancel(run, 3.0)
        if act == "cancel"
        else finish(run, FinishRun(RunState.FAILED, Reason.EXIT_CODE), 3.0)
    )


def test_ended_by_many_at_once_it_is_there_once(store: SqliteStore) -> None:
    queued = store.runs.submit(run("a1"))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda at: store.runs.save(cancel(queued, float(at))), range(2, 42)))
    assert len(store.webhooks.of("a1")) == 1
