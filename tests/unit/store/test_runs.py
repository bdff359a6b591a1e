"""Runs in the store: one change at a time, limits that hold, an order that everybody sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product, starmap
from pathlib import Path

import pytest

from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunCause, RunCount, RunFilter, RunInput, RunState, new_run
from controller.ports import QueueLimits, RunLimits
from controller.store import SqliteStore
from controller.store import runs as runs_table
from tests.support.specs import make
from tests.support.stores import open_store

DEMO = AppName("demo")
TRAIN = ComponentName("train")
MANY = RunLimits(host=100, app=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path / "db" / "state.db")
    yield opened
    opened.close()


def pipeline(name: str = "train", app: str = "demo", concurrency: int = 10) -> Pipeline:
    stage = make(Stage, "fit", "sha256:1", outputs=("model",))
    return make(Pipeline, AppName(app), ComponentName(name), "c0ffee", (stage,), concurrency=concurrency)


def run(id: str, of: Pipeline | None = None, **rest: object) -> Run:
    return new_run(id, of or pipeline(), at=1.0, **rest)  # type: ignore[arg-type]


def end(store: SqliteStore, found: Run) -> None:
    assert store.runs.save(found.to(RunState.SUCCEEDED, 5.0))


def test_a_run_comes_back_as_it_was(store: SqliteStore) -> None:
    submitted = store.runs.submit(run("a1", user="anna"))
    assert store.runs.get(DEMO, "a1") == submitted
    assert store.runs.get(AppName("other"), "a1") is None
    assert store.runs.get(DEMO, "nothing") is None


def test_counts_and_the_last_end(store: SqliteStore) -> None:
    other = pipeline("other", app="second")
    for id in ("a1", "a2", "a3"):
        store.runs.submit(run(id))
    store.runs.submit(run("b1", of=other))
    assert store.runs.last_ended(DEMO) is None
    for id in ("a2", "a1"):
        found = store.runs.get(DEMO, id)
        assert found is not None
        end(store, found)
    last = store.runs.last_ended(DEMO)
    assert last is not None
    assert last.id == "a2"
    of_demo = (
        RunCount(DEMO, TRAIN, RunState.QUEUED, 1, "a3"),
        RunCount(DEMO, TRAIN, RunState.SUCCEEDED, 2, "a1"),
    )
    assert store.runs.counts(DEMO) == of_demo
    assert store.runs.counts() == (*of_demo, RunCount(other.app, other.name, RunState.QUEUED, 1, "b1"))


def test_only_what_nobody_else_has_changed_is_saved(store: SqliteStore) -> None:
    first = store.runs.submit(run("a1"))
    saved = store.runs.save(first.to(RunState.STARTING, 2.0))
    assert saved is not None
    assert saved.version == 1
    assert store.runs.save(first.to(RunState.CANCELED, 3.0)) is None
    assert store.runs.get(DEMO, "a1") == saved


def test_of_many_who_change_a_run_at_once_one_does(store: SqliteStore) -> None:
    first = store.runs.submit(run("a1"))
    with ThreadPoolExecutor(8) as threads:
        changed = threads.map(lambda at: store.runs.save(first.to(RunState.STARTING, float(at))), range(40))
    assert sum(found is not None for found in changed) == 1


def test_the_oldest_goes_first_and_priority_before_that(store: SqliteStore) -> None:
    for id, priority in (("a1", 0), ("a2", 0), ("a3", 5)):
        store.runs.submit(run(id, priority=priority))
    claimed = [store.runs.claim(MANY, 2.0) for _ in range(4)]
    assert [found.id if found else None for found in claimed] == ["a3", "a1", "a2", None]
    assert all(found.state is RunState.STARTING for found in claimed if found)


def test_limits_of_pipeline_app_and_host(store: SqliteStore) -> None:
    narrow, wide = pipeline("narrow", concurrency=1), pipeline("wide")
    for id in ("a1", "a2"):
        store.runs.submit(run(id, narrow))
    for id in ("b1", "b2", "b3"):
        store.runs.submit(run(id, wide))
    store.runs.submit(run("c1", pipeline(app="other")))
    limits = RunLimits(host=4, app=3)
    ids = [found.id if (found := store.runs.claim(limits, 2.0)) else None for _ in range(6)]
    assert ids == ["a1", "b1", "b2", "c1", None, None]
    end(store, store.runs.active()[0])
    found = store.runs.claim(limits, 3.0)
    assert found is not None
    assert found.id == "a2", "its pipeline has a slot again"


def test_claimed_by_many_at_once_limits_hold(store: SqliteStore) -> None:
    for number in range(30):
        store.runs.submit(run(f"a{number:02}"))
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda _: store.runs.claim(RunLimits(7, 100), 2.0), range(30)))
    assert sorted(found.id for found in claimed if found) == [f"a{number:02}" for number in range(7)]


def test_runs_of_an_app_that_are_not_over(store: SqliteStore) -> None:
    for id in ("a1", "a2", "a3"):
        store.runs.submit(run(id))
    store.runs.submit(run("x1", pipeline(app="other")))
    first = store.runs.claim(MANY, 2.0)
    assert first
    end(store, first)
    assert store.runs.claim(MANY, 2.0)
    assert [found.id for found in store.runs.unfinished(DEMO)] == ["a2", "a3"]
    assert [found.id for found in store.runs.unfinished(DEMO, limit=1)] == ["a2"]
    assert store.runs.unfinished(AppName("nobody")) == ()


def test_the_same_key_is_the_same_run(store: SqliteStore) -> None:
    first = store.runs.submit(run("a1", user="anna"), key="k", digest="d")
    assert store.runs.submit(run("a2", user="anna"), key="k", digest="d") == first
    assert store.runs.submit(run("a3", user="boris"), key="k", digest="d").id == "a3", "another caller's key"
    with pytest.raises(Stalled, match="run a1") as refused:
        store.runs.submit(run("a4", user="anna"), key="k", digest="other")
    assert refused.value.reason == "IdempotencyConflict"
    assert [found.id for found in store.runs.list(DEMO)] == ["a3", "a1"]


def test_one_key_from_many_at_once_is_one_run(store: SqliteStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        submitted = threads.map(lambda n: store.runs.submit(run(f"a{n}"), key="k", digest="d"), range(16))
    assert len({found.id for found in submitted}) == 1
    assert len(store.runs.list(DEMO)) == 1


def test_lists_are_newest_first_and_go_on_after_one(store: SqliteStore) -> None:
    for id in ("a1", "a2", "a3"):
        store.runs.submit(run(id))
    store.runs.submit(run("a4", pipeline("other")))
    store.runs.submit(run("x1", pipeline(app="foreign")))
    assert [found.id for found in store.runs.list(DEMO)] == ["a4", "a3", "a2", "a1"]
    assert [found.id for found in store.runs.list(DEMO, RunFilter(TRAIN), limit=2)] == ["a3", "a2"]
    assert [found.id for found in store.runs.list(DEMO, RunFilter(TRAIN, after="a2"))] == ["a1"]
    end(store, store.runs.submit(run("a5")))
    assert [found.id for found in store.runs.list(DEMO, RunFilter(state=RunState.SUCCEEDED))] == ["a5"]


def test_what_is_forgotten_is_known_to_be_gone(store: SqliteStore) -> None:
    end(store, store.runs.submit(run("a1"), key="k", digest="d"))
    store.runs.submit(run("a2"))
    over = 5.0 + pipeline().ttl_succeeded
    assert store.runs.expired(over - 1.0) == ()
    (old,) = store.runs.expired(over)
    store.runs.forget([old])
    assert store.runs.get(DEMO, "a1") is None
    assert store.runs.is_gone(DEMO, "a1")
    assert not store.runs.is_gone(AppName("other"), "a1")
    assert not store.runs.is_gone(DEMO, "a2")
    assert store.runs.submit(run("a3"), key="k", digest="d").id == "a3"


def test_pipelines_are_published_as_a_whole(store: SqliteStore) -> None:
    store.runs.publish(DEMO, (pipeline("a"), pipeline("b")))
    assert [found.name for found in store.runs.pipelines(DEMO)] == ["a", "b"]
    changed = replace(pipeline("b"), revision="newer")
    store.runs.publish(DEMO, (changed,))
    assert store.runs.pipelines(DEMO) == (changed,)
    assert store.runs.pipeline(DEMO, ComponentName("a")) is None


def test_lists_of_one_user(store: SqliteStore) -> None:
    for id, user in (("a1", "anna"), ("a2", None), ("a3", "anna"), ("a4", "boris")):
        store.runs.submit(run(id, user=user))
    for user, expected in (
        ("anna", ["a3", "a1"]),
        ("", ["a2"]),
        ("clara", []),
        (None, ["a4", "a3", "a2", "a1"]),
    ):
        assert [found.id for found in store.runs.list(DEMO, RunFilter(user=user))] == expected


def test_versions_of_the_runs_that_are_there(store: SqliteStore) -> None:
    first, second = (store.runs.submit(run(id)) for id in ("a1", "a2"))
    store.runs.save(first.to(RunState.STARTING, 2.0))
    assert store.runs.versions(["a1", "a2", "nothing", "'"]) == {"a1": 1, "a2": second.version}
    assert store.runs.versions([]) == {}


def test_whose_run_is_gone(store: SqliteStore) -> None:
    end(store, store.runs.submit(run("a1", user="anna")))
    end(store, store.runs.submit(run("a2")))
    store.runs.forget(store.runs.list(DEMO))
    assert [store.runs.is_gone(DEMO, "a1", user) for user in ("anna", "boris", "", None)] == [
        True,
        False,
        False,
        True,
    ]
    assert [store.runs.is_gone(DEMO, "a2", user) for user in ("anna", "", None)] == [False, True, True]


def test_texts_of_older_rows_tell_nothing_of_the_host(store: SqliteStore, tmp_path: Path) -> None:
    """They were written when nobody looked what is in them."""
    text = f"[Errno 13] Permission denied: '{tmp_path}/runs/19c0a7f3e2d5b1f04a6/fit.1/out/model/x'"
    begun = run("a1").to(RunState.STARTING, 2.0).to(RunState.RUNNING, 3.0)
    stage = begun.stage("fit").begin(2.0).to(RunState.RUNNING, 3.0).end_attempt(4.0, message=text)
    begun = begun.with_stage(stage.to(RunState.FAILED, 4.0, Reason("Broken"), text))
    store.runs.submit(begun.to(RunState.FAILED, 5.0, Reason("Broken"), f"stage fit: {text}"))
    found = store.runs.get(DEMO, "a1")
    for shown in (found, *store.runs.list(DEMO), *store.runs.ended_badly(DEMO, 9)):
        assert shown is not None
        assert str(tmp_path) not in repr(shown)
        assert shown.message == "stage fit: [Errno 13] Permission denied: 'fit.1/out/model/x'"


def test_an_earlier_run_of_a_key(store: SqliteStore) -> None:
    assert store.runs.submitted(run("a1"), "k", "one") is None
    first = store.runs.submit(run("a1"), "k", "one")
    assert store.runs.submitted(run("a2"), "k", "one") == first
    assert store.runs.submitted(run("a2"), "", "one") is None
    with pytest.raises(Stalled, match="a1"):
        store.runs.submitted(run("a2"), "k", "two")


def test_the_queue_of_an_app_has_room_for_so_many(store: SqliteStore) -> None:
    """Half of it for one user; what is not in the queue any more, or is another app's, does not count."""
    few = QueueLimits(runs=4, bytes=10**6)
    for id in ("a1", "a2"):
        store.runs.submit(run(id, user="anna"), most=few)
    with pytest.raises(Transient, match="a user may have 2 runs") as caught:
        store.runs.submit(run("a3", user="anna"), most=few)
    assert caught.value.reason == "QueueFull"
    for id in ("b1", "b2"):
        store.runs.submit(run(id), most=few)  # nobody in particular: the app's share
    with pytest.raises(Transient, match="app demo may have 4 runs"):
        store.runs.submit(run("b3", user="bert"), most=few)
    store.runs.submit(run("c1", of=pipeline(app="other")), most=few)
    store.runs.submit(run("b4"))  # the platform's own, by the clock, say
    begun = store.runs.claim(MANY, 1.0)
    assert begun is not None
    end(store, begun)
    end(store, store.runs.claim(MANY, 1.0) or begun)
    store.runs.submit(run("b5"), "key", "digest", most=few)
    assert store.runs.submit(run("b6"), "key", "digest", most=few).id == "b5", "the earlier one needs no room"


def test_the_queue_of_an_app_takes_so_much_room(store: SqliteStore) -> None:
    little = QueueLimits(runs=1000, bytes=100_000)
    large = (RunInput("cmd", "str", json.dumps("x" * 30_000)),)
    for id in ("a1", "a2", "a3"):
        store.runs.submit(run(id, inputs=large), most=little)
    with pytest.raises(Transient, match="1000 runs with 100 kB"):
        store.runs.submit(run("a4", inputs=large), most=little)
    store.runs.submit(run("a5"), most=little)
    with pytest.raises(Transient, match="a user may have 500 runs with 50 kB"):
        store.runs.submit(run("b1", of=pipeline(app="other"), user="anna", inputs=2 * large), most=little)


def test_the_query_takes_what_the_rule_takes(store: SqliteStore) -> None:
    """The rule is for runs that the daemon has yet to take."""
    spoof = (RunInput("note", "str", '"cause":"schedule"'),)
    for id, name, user in (("a1", "train", "anna"), ("a2", "other", None), ("a3", "other", "anna")):
        store.runs.submit(run(id, pipeline(name), user=user, inputs=spoof))
    end(store, store.runs.submit(run("a4", user="anna", cause=RunCause.RETRY)))
    store.runs.submit(run("a5", cause=RunCause.SCHEDULE, public=True))
    everything = store.runs.list(DEMO)
    assert len(everything) == 5
    choices = (
        (None, TRAIN, ComponentName("none")),
        (None, RunState.SUCCEEDED),
        ("", "a3"),
        (None, "", "anna"),
        ("", "a2"),
        (None, "", "anna"),
        (None, RunCause.SCHEDULE),
    )
    for wanted in starmap(RunFilter, product(*choices)):
        taken = tuple(found for found in everything if wanted.takes(found))
        assert store.runs.list(DEMO, wanted) == taken, wanted


@pytest.mark.parametrize(
    "wanted",
    [
        RunFilter(TRAIN),
        RunFilter(TRAIN, RunState.FAILED),
        RunFilter(owner="anna"),
        RunFilter(TRAIN, since="a2"),
        RunFilter(TRAIN, cause=RunCause.SCHEDULE),
        RunFilter(TRAIN, RunState.FAILED, cause=RunCause.SCHEDULE),
        RunFilter(cause=RunCause.SCHEDULE),
    ],
)
def test_a_list_reads_no_run_that_is_not_in_it(store: SqliteStore, wanted: RunFilter) -> None:
    """Ten thousand runs may have many megabytes."""
    asked: list[str] = []
    with store._database.read() as db:
        db.set_trace_callback(asked.append)
        store.runs.list(DEMO, wanted, 50)
        db.set_trace_callback(None)
        (query,) = [text for text in asked if "DESC" in text]
        steps = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()]
    assert any("USING INDEX" in step or "COVERING INDEX" in step for step in steps)
    # json_each looks through the inputs of one run, which is in the list
    assert not any(step.startswith("SCAN") and "json_each" not in step for step in steps), steps
    if wanted.cause is not None:
        assert any("COVERING INDEX runs_by_cause (app=? AND cause=?" in step for step in steps), steps


@pytest.mark.parametrize("query", ["WAITING", "WAITING_AND_ASKED", "QUEUED_SIZE"])
def test_what_waits_is_counted_without_reading_it(store: SqliteStore, query: str) -> None:
    """Each submission counts: reading all inputs that wait, up to 64 MiB, would take a third of a second."""
    with store._database.read() as db:
        steps = db.execute(f"EXPLAIN {getattr(runs_table, query)}", {"app": DEMO}).fetchall()
        roots = "SELECT rootpage, {} FROM {}.sqlite_schema WHERE name = '{}'"
        places = [(0, "main", "runs"), (2, "asked", "submissions")]  # the numbers are SQLite's, of the files
        tables = {tuple(db.execute(roots.format(*place)).fetchone()) for place in places}
    cursors = {
        step["p1"] for step in steps if step["opcode"] == "OpenRead" and (step["p2"], step["p3"]) in tables
    }
    assert len(cursors) == (2 if query == "WAITING_AND_ASKED" else 1)
    assert not [tuple(step) for step in steps if step["opcode"] == "Column" and step["p1"] in cursors]


def test_images_of_what_waits_and_runs(store: SqliteStore) -> None:
    """Those of ended runs and of other apps are not among them, and unreadable rows have none."""
    assert store.runs.images(DEMO) == frozenset()
    stages = (make(Stage, "a", "image-a"), make(Stage, "b", "image-b"))
    pipeline = make(Pipeline, DEMO, ComponentName("train"), "c0ffee", stages)
    store.runs.submit(new_run("r1", pipeline, 1.0))
    over = store.runs.submit(new_run("r2", replace(pipeline, stages=(make(Stage, "c", "image-c"),)), 2.0))
    store.runs.save(over.to(RunState.CANCELED, 3.0))
    store.runs.submit(
        new_run("r3", replace(pipeline, app=AppName("other"), stages=(make(Stage, "d", "x"),)), 1.0)
    )
    assert store.runs.images(DEMO) == {"image-a", "image-b"}
    for broken in ("{", '{"pipeline": {"stages": [1, {"image": 2}, "x"]}}', '{"pipeline": []}', "[]"):
        with store._database.write() as db:
            db.execute("UPDATE runs SET run = ? WHERE id = 'r1'", (broken,))
        assert store.runs.images(DEMO) == frozenset()


def test_the_oldest_unfinished_run_is_found_without_reading_the_others(store: SqliteStore) -> None:
    pipeline = make(Pipeline, DEMO, ComponentName("train"), "c0ffee", (make(Stage, "a", "image-a"),))
    for number in (3, 1, 2):
        store.runs.submit(new_run(f"r{number}", pipeline, 1.0))
    with store._database.write() as db:
        db.execute("UPDATE runs SET run = '{' WHERE id = 'r2'")
    assert [run.id for run in store.runs.unfinished(DEMO, limit=1)] == ["r1"]
    assert store.set_aside() == 0, "r2 was not read"
