"""The state belongs to the daemon. Other processes read it, and ask; what is asked for is taken once, and believed
only as far as anybody may ask it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from controller.domain.apps.branch_previews import OpenPull
from controller.domain.apps.image_lists import ImageList
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.previews import PlanPreview
from controller.domain.apps.requests import Outcome, RequestState, Trigger
from controller.domain.apps.spec import Webhook
from controller.domain.apps.status import AppStatus, WebhookDelivery
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.errors import Stalled, Transient
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Service, ServiceKind
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import (
    ELLIPSIS,
    Run,
    RunFilter,
    RunInput,
    RunOutput,
    RunState,
    is_brief,
    new_run,
    new_run_id,
)
from controller.domain.runs.submissions import submission_of
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord, PendingUpload, StorageAccess
from controller.encryption import SecretKeys, seal_for
from controller.ports import QueueLimits, RunLimits
from controller.store import SqliteStore, open_guest_store, state
from controller.store.codec import encode
from controller.store.inbox import FIRST_WISH, TABLES
from controller.store.inbox import make as make_tables
from controller.store.schema import migrations
from controller.store.shared_file import shared_path
from controller.store.sqlite import connect
from tests.support.another import as_another
from tests.support.specs import make
from tests.support.stores import open_store

DEMO, OTHER, TRAIN = AppName("demo"), AppName("other"), ComponentName("train")
NOW = 1_700_000_000.0
KEYS = SecretKeys(b"k" * 32)
MANY = RunLimits(host=100, app=100)
STAGE = make(
    Stage, "fit", "sha256:1", command=("fit",), inputs=("data",), outputs=("model",), env_from=("keys",)
)
PIPELINE = make(
    Pipeline,
    DEMO,
    TRAIN,
    "c0ffee",
    (STAGE,),
    boxes=(ComponentName("box"),),
    concurrency=1000,
    webhook=Webhook("hooks"),
)
ASKED = {"inputs": (RunInput("data", "FILE", "g/in.csv"),), "outputs": (RunOutput("model", "out/"),)}
LEADS_ELSEWHERE = ("../../../../../hostdir", "/etc/shadow", "", "\x1b[2J", "x" * 5000, "';DROP TABLE runs;--")


def clock() -> float:
    return NOW


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db" / "state.db"


@pytest.fixture
def owner(path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(path, clock=clock)) as store:
        store.runs.publish(DEMO, (PIPELINE,))
        store.runs.publish(OTHER, (replace(PIPELINE, app=OTHER),))
        store.apps.save(AppStatus(DEMO))
        store.boxes.save(BoxRecord(DEMO, ComponentName("box"), "prichal.demo.box", 100))
        store.secrets.unlock(KEYS)
        yield store


@pytest.fixture
def guest(path: Path, owner: SqliteStore) -> Iterator[SqliteStore]:
    with closing(open_guest_store(path, clock=clock)) as store:
        yield store


def wanted(number: int = 1, of: Pipeline = PIPELINE, **fields: Any) -> Run:
    return new_run(new_run_id(NOW, number), of, NOW, "ann", **{**ASKED, **fields})


def as_web(path: Path, statement: str, *values: object) -> None:
    """What a taken-over web process does: it has the file."""
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        db.execute(statement, values)


# --- who may write what ------------------------------------------------------------------------------------------


def test_no_table_of_the_state_is_written_by_a_guest(path: Path, guest: SqliteStore) -> None:
    with closing(connect(path, guest=True)) as db:
        names = [
            r[0] for r in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()
        ]
        assert {"runs", "pipelines", "routes", "boxes", "requests", "webhooks"} <= set(names)
        assert not {*names} & {*TABLES}, "a name means the same to everybody"
        for name in names:
            for statement in ("DELETE FROM main.{0}", "INSERT INTO main.{0} SELECT * FROM main.{0}"):
                with pytest.raises(sqlite3.OperationalError, match=r"readonly|may not be modified"):
                    db.execute(statement.format(name))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("CREATE TABLE main.mine (a)")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes the rights of another user")
def test_another_user_of_the_group_asks_and_changes_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "db" / "state.db"

        def work() -> None:
            store = open_guest_store(path)
            assert [status.app for status in store.apps.all()] == [DEMO]
            assert store.requests.enqueue(DEMO, Trigger.MANUAL) >= FIRST_WISH
            assert store.boxes.access() is None, "operators are told nothing of the storage"
            for name in ("state.db", "state.db-wal", "state.db-shm", "keys/storage.json"):
                with pytest.raises(PermissionError):
                    os.open(path.parent / name, os.O_RDWR)
            with pytest.raises(PermissionError):
                (path.parent / "state.db-journal").touch()
            with pytest.raises(PermissionError):
                path.unlink()

        with closing(open_store(path)) as store:
            store.apps.save(AppStatus(DEMO))
            store.boxes.record_access(StorageAccess("http://a", "http://a", "key", Secret("the-secret")))
            for each in (path.parent, *path.parent.rglob("*")):
                mode = stat.S_IMODE(each.stat().st_mode)
                os.chown(each, 0, 4243 if "keys" in each.parts else 4242)
                each.chmod(mode)  # a change of the owner takes set-id bits away
            as_another(work, 4242)
            assert store.requests.claim(NOW * 2) is not None


def test_files_of_an_older_version_are_closed(path: Path, owner: SqliteStore) -> None:
    """Where the group could write the state."""
    owner.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (path.parent / name).chmod(0o660)
    path.parent.chmod(0o2770)
    with closing(open_store(path)) as store:
        store.heartbeat(1.0)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob("state.db*")}
        assert modes == dict.fromkeys(("state.db", "state.db-wal", "state.db-shm"), 0o640)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750


def test_a_guest_reads_while_the_owner_is_away(path: Path, owner: SqliteStore) -> None:
    """SQLite would take away with the last connection what a reader needs."""
    owner.apps.save(AppStatus(DEMO, plan="one"))
    owner.close()

    def work() -> None:
        with closing(open_guest_store(path)) as guest:
            assert guest.apps.status(DEMO).plan == "one"
            guest.requests.enqueue(DEMO, Trigger.MANUAL)

    as_another(work)
    with closing(open_store(path)) as again:
        claimed = again.requests.claim(NOW * 2)
        assert claimed is not None
        assert claimed.app == DEMO


def test_a_guest_makes_no_state(path: Path) -> None:
    with pytest.raises(Transient, match="no state"):
        open_guest_store(path)
    assert not path.parent.exists()


# --- asking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "older",
    [
        "DROP TABLE asked_images",
        "DROP INDEX one_wish",
        "DROP TABLE asked_images; CREATE TABLE asked_images (place INTEGER PRIMARY KEY, id TEXT, begun INTEGER)",
    ],
)
def test_a_guest_waits_for_the_daemon_that_makes_what_an_older_one_has_not(path: Path, older: str) -> None:
    """The state may be of this version, while the file of requests lacks a table."""
    open_store(path, clock=clock).close()
    with closing(sqlite3.connect(shared_path(path))) as db:
        db.executescript(older)
    with pytest.raises(Transient) as failed:
        open_guest_store(path, clock=clock)
    assert failed.value.reason == Reason.STATE_MISSING
    assert "start the daemon" in failed.value.message
    open_store(path, clock=clock).close()
    with closing(open_guest_store(path, clock=clock)) as guest:
        assert guest.image_lists.ask()


def test_a_run_is_seen_at_once_and_stays_what_it_was(owner: SqliteStore, guest: SqliteStore) -> None:
    run = guest.runs.submit(wanted(), "key", "digest")
    assert owner.runs.get(DEMO, run.id) is None
    assert guest.runs.get(DEMO, run.id) == run
    assert guest.runs.get(OTHER, run.id) is None
    assert (
        guest.runs.list(DEMO, RunFilter(TRAIN, user="ann"))
        == guest.runs.list(DEMO, RunFilter(state=RunState.QUEUED))
        == (run,)
    )
    assert (
        guest.runs.list(DEMO, RunFilter(user="bob")) == guest.runs.list(DEMO, RunFilter(after=run.id)) == ()
    )
    assert guest.runs.unfinished(DEMO) == (run,)
    assert [count.number for count in guest.runs.counts()] == [1]
    assert guest.runs.versions([run.id]) == {run.id: 0}
    owner.changed()
    assert owner.runs.get(DEMO, run.id) == guest.runs.get(DEMO, run.id) == run
    assert guest.runs.list(DEMO) == (run,)
    assert [count.number for count in guest.runs.counts()] == [1]
    assert guest.runs.submit(wanted(2), "key", "digest") == run
    with pytest.raises(Stalled) as conflict:
        guest.runs.submit(wanted(3), "key", "another")
    assert conflict.value.reason == "IdempotencyConflict"


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancel_is_seen_at_once_and_nothing_is_taken_back(
    owner: SqliteStore, guest: SqliteStore, begun: bool
) -> None:
    run = guest.runs.submit(wanted())
    if begun:
        assert owner.runs.claim(MANY, NOW)
    before = guest.runs.versions([run.id])[run.id]
    shown = guest.runs.cancel(DEMO, run.id, NOW)
    assert shown is not None
    assert shown.state is RunState.CANCELING
    assert shown.version == guest.runs.versions([run.id])[run.id] > before
    assert guest.runs.cancel(DEMO, run.id, NOW) == guest.runs.get(DEMO, run.id) == shown
    owner.changed()
    found = guest.runs.get(DEMO, run.id)
    assert found is not None
    assert found.state is (RunState.CANCELING if begun else RunState.CANCELED)
    assert found.history[: len(shown.history)] == shown.history, "what was told stays true"
    assert (found.version > shown.version) is not begun


def test_a_repetition_takes_over_what_the_daemon_knows(owner: SqliteStore, guest: SqliteStore) -> None:
    from controller.domain.runs.run import retry_of

    run = guest.runs.submit(wanted())
    with pytest.raises(ValueError, match="is not a pipeline that can be run"):
        guest.runs.submit(retry_of(run, new_run_id(NOW, 2), NOW))
    claimed = owner.runs.claim(MANY, NOW)
    assert claimed is not None
    ended = owner.runs.save(claimed.to(RunState.FAILED, NOW))
    assert ended is not None
    owner.runs.publish(DEMO, ())
    again = guest.runs.submit(retry_of(ended, new_run_id(NOW, 3), NOW))
    owner.changed()
    found = owner.runs.get(DEMO, again.id)
    assert found is not None
    assert (found.cause, found.origin, found.pipeline, found.inputs) == (
        "retry",
        run.id,
        PIPELINE,
        run.inputs,
    )


def test_wishes_are_merged_and_followed(owner: SqliteStore, guest: SqliteStore) -> None:
    one, same = guest.requests.enqueue(DEMO, Trigger.MANUAL), guest.requests.enqueue(DEMO, Trigger.MANUAL)
    other = guest.requests.enqueue(DEMO, Trigger.WEBHOOK)
    assert FIRST_WISH <= one == same != other
    for asking in (owner, guest):
        waiting = asking.requests.queued(DEMO)
        assert waiting is not None
    claimed = owner.requests.claim(NOW)
    assert claimed is not None
    assert claimed.reasons == ("manual", "webhook")
    owner.requests.finish(claimed.id, Outcome.READY, "", "c0ffee")
    for id in (one, other):
        found = guest.requests.get(id)
        assert found is not None
        assert (found.id, found.outcome) == (id, "Ready")
    assert guest.requests.get(FIRST_WISH + 99) is None


def test_what_a_person_decides_holds(owner: SqliteStore, guest: SqliteStore) -> None:
    guest.apps.set_suspended(DEMO, True)
    guest.apps.approve(DEMO, "c0ffee")
    status = owner.apps.status(DEMO)
    assert (status.suspended, status.approved_revision) == (True, "c0ffee")
    assert owner.apps.all() == (status,)
    owner.apps.forget(DEMO)
    assert not owner.apps.status(DEMO).suspended


def test_room_is_given_over_both(owner: SqliteStore, guest: SqliteStore) -> None:
    upload = PendingUpload(0, "prichal.demo.box", "a", 60, NOW, NOW + 60)
    assert isinstance(guest.boxes.reserve(upload, NOW), int)
    assert not isinstance(owner.boxes.reserve(replace(upload, key="b"), NOW), int)
    owner.boxes.measured("prichal.demo.box", 60, 1, NOW, [p.id for p in owner.boxes.pending()])
    found = guest.boxes.get(DEMO, ComponentName("box"))
    assert found is not None
    assert (found.used, found.changed) == (60, NOW)


# --- exactly once -------------------------------------------------------------------------------------------------


def test_a_death_between_both_databases_takes_nothing_twice(
    path: Path, owner: SqliteStore, guest: SqliteStore
) -> None:
    """The state is written first: what was asked for may be there again."""
    run, wish = guest.runs.submit(wanted()), guest.requests.enqueue(DEMO, Trigger.MANUAL)
    guest.runs.cancel(DEMO, run.id, NOW)
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        asked = "SELECT * FROM {}"
        kept = {
            name: db.execute(asked.format(name)).fetchall() for name in ("wishes", "submissions", "cancels")
        }
    for _ in range(3):
        owner.changed()
        found, request = owner.runs.get(DEMO, run.id), guest.requests.get(wish)
        assert found is not None
        assert request is not None
        assert (found.state, len(owner.runs.list(DEMO))) == (RunState.CANCELED, 1)
        if request.state is RequestState.QUEUED:
            claimed = owner.requests.claim(NOW)
            assert claimed is not None
            owner.requests.finish(claimed.id, Outcome.READY, "", "")
        assert owner.requests.claim(NOW) is None
        for name, rows in kept.items():
            for row in rows:
                as_web(path, f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608


# --- hostile ------------------------------------------------------------------------------------------------------


def forged(**fields: object) -> dict[str, Any]:
    whole = json.loads(encode_submission())
    return {**whole, **fields}


def encode_submission() -> str:
    from controller.domain.runs.submissions import submission_of

    return encode(submission_of(wanted(7)))


HOSTILE: dict[str, Callable[[str], dict[str, Any]]] = {
    "pipeline": lambda text: forged(pipeline=text),
    "input": lambda text: forged(inputs=[{"name": text, "data": "g/in.csv"}]),
    "input's path": lambda text: forged(inputs=[{"name": "data", "data": f"../{text}"}]),
    "input's box": lambda text: forged(inputs=[{"name": "data", "data": "g/in.csv", "box": text or "?"}]),
    "output": lambda text: forged(outputs=[{"name": text, "data": "out/"}]),
    "output's group": lambda text: forged(outputs=[{"name": "model", "data": f"../{text}"}]),
    "output's box": lambda text: forged(outputs=[{"name": "model", "data": "out/", "box": text or "?"}]),
    "webhook": lambda text: forged(webhook=f"file://{text}"),
    "repeats": lambda text: forged(repeats=text or "?"),
    "inputs are no list": lambda text: forged(inputs=text),
    "priority": lambda text: forged(priority=len(text) + 1),
    "user": lambda text: forged(user=["x" * 2000]),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("text", LEADS_ELSEWHERE, ids=range(len(LEADS_ELSEWHERE)))
def test_what_no_caller_may_ask_becomes_no_run(
    path: Path, owner: SqliteStore, guest: SqliteStore, what: str, text: str
) -> None:
    content = HOSTILE[what](text)
    as_web(path, "INSERT INTO submissions VALUES (?, ?, ?)", content["id"], DEMO, json.dumps(content))
    good = guest.runs.submit(wanted(8))
    owner.changed()
    assert owner.runs.list(DEMO) == guest.runs.list(DEMO) == (good,)
    claimed = owner.runs.claim(MANY, NOW)
    assert claimed is not None
    assert claimed.pipeline == PIPELINE


def test_what_is_run_is_what_the_daemon_has_published(path: Path, owner: SqliteStore) -> None:
    """Whatever else the row says: the pipeline of the attack that this is about, an image of another app, keys."""
    stage = {
        "name": "fit",
        "image": "other@sha256:2",
        "command": ["id"],
        "env_from": ["stolen"],
        "outputs": ["../../host"],
    }
    mine = {"app": DEMO, "name": TRAIN, "revision": "0" * 40, "stages": [stage]}
    content = forged(
        pipeline=TRAIN, stages=[{"name": "fit", "reused_from": "0" * 19}], state="RUNNING", public=True
    )
    content |= {"cause": "schedule", "version": 7, "pass_identity": True, "history": [], "whole": mine}
    as_web(path, "INSERT INTO submissions VALUES (?, ?, ?)", content["id"], DEMO, json.dumps(content))
    owner.changed()
    (run,) = owner.runs.list(DEMO)
    assert run == replace(wanted(7), created=run.created, history=run.history, stages=run.stages)
    assert (run.pipeline, run.pass_identity, run.cause, run.public) == (PIPELINE, False, "api", False)
    assert [stage.reused_from for stage in run.stages] == [""]


def test_a_run_of_another_app_is_not_repeated(path: Path, owner: SqliteStore, guest: SqliteStore) -> None:
    theirs = guest.runs.submit(wanted(5, replace(PIPELINE, app=OTHER)))
    claimed = owner.runs.claim(MANY, NOW)
    assert claimed is not None
    owner.runs.save(claimed.to(RunState.FAILED, NOW))
    content = forged(repeats=theirs.id)
    as_web(path, "INSERT INTO submissions VALUES (?, ?, ?)", content["id"], DEMO, json.dumps(content))
    owner.changed()
    assert owner.runs.list(DEMO) == ()
    assert guest.runs.is_gone(DEMO, content["id"]), "whoever asked is told so"


def test_names_are_told_only_where_an_api_does(owner: SqliteStore, guest: SqliteStore) -> None:
    api = Api("train", ComponentName("api"), published=True, pass_identity=True)
    for passes in (False, True):
        service = Service(DEMO, replace(api, pass_identity=passes), ServiceKind.PIPELINE, pipeline=TRAIN)
        owner.routes.publish(DEMO, (service,))
        run = guest.runs.submit(wanted(10 + passes, pass_identity=True))
        owner.changed()
        found = owner.runs.get(DEMO, run.id)
        assert found is not None
        assert found.pass_identity is run.pass_identity is passes


VALUES: tuple[object, ...] = (
    None,
    "",
    "x",
    "[" * 100_000,
    b"\xff\x00",
    -1,
    2**62,
    1e308,
    float("inf"),
    "../../x",
    "{}",
)


def columns() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        open_store(path).close()
        with closing(connect(path)) as db:
            for table in TABLES:
                for row in db.execute(f"PRAGMA asked.table_info({table})").fetchall():
                    yield table, row["name"]


def act(owner: SqliteStore) -> None:
    """What the daemon does all the time."""
    owner.changed()
    for app in (DEMO, OTHER):
        owner.apps.status(app)
        owner.activity.of(app)
        owner.boxes.of(app)
        owner.requests.queued(app)
    owner.apps.all()
    owner.secrets.changes(DEMO)
    owner.secrets.of(DEMO)
    owner.boxes.pending()
    owner.boxes.usage("prichal.demo.box", NOW)
    owner.boxes.measured("prichal.demo.box", 1, 1, NOW, [1])
    owner.gateways.drained("10.0.0.1:80", 1, NOW)
    for share in owner.gateways.taken(NOW):
        assert share == TakenShare(DEMO, Resource.CALLS, 3)
    owner.repositories.replace(())
    owner.repositories.delivery("demo", "1")
    owner.repositories.pusher("demo", "c0ffee")
    owner.repositories.push("d" * 64)
    owner.branches.decisions()
    owner.branches.pulls("demo")
    for asked in owner.notifications.tests():
        assert asked.app in (DEMO, OTHER, PLATFORM)
    owner.boxes.arriving("prichal.demo.box", "", NOW)
    owner.boxes.publishing("prichal.demo.box", NOW)
    owner.boxes.unfinished("prichal.demo.box", "", NOW, 100)
    owner.boxes.moves("prichal.demo.box", "")
    while preview := owner.previews.begin():
        owner.previews.finish(PlanPreview(preview.id, preview.app), ())
    while images := owner.image_lists.begin():
        owner.image_lists.finish(ImageList(images.id))
    owner.prune()
    owner.set_aside()
    while owner.requests.claim(NOW * 2):
        pass
    while owner.runs.claim(MANY, NOW):
        pass
    for run in owner.runs.active():
        assert run.pipeline.stages == (STAGE,)


def ask_for_everything(guest: SqliteStore) -> None:
    guest.requests.enqueue(DEMO, Trigger.MANUAL)
    guest.runs.submit(wanted(1), "key", "digest")
    guest.runs.cancel(DEMO, guest.runs.submit(wanted(2)).id, NOW)
    guest.secrets.ask(SecretChange("0" * 32, DEMO, "keys", (("A", Secret("x")),), "ann", NOW))
    guest.apps.set_suspended(DEMO, True)
    guest.gateways.report("w", 1, frozenset(), NOW, (TakenShare(DEMO, Resource.CALLS, 3),))
    guest.activity.touch([(DEMO, TRAIN)], NOW)
    guest.boxes.reserve(PendingUpload(0, "prichal.demo.box", "a", 1, NOW, NOW + 60), NOW)
    guest.repositories.remember(WebhookDelivery("1", "demo", (1,), NOW))
    guest.repositories.remember_push("demo", "c0ffee", "ann", NOW)
    guest.branches.keep(DEMO, NOW)
    guest.branches.open_pull("demo", OpenPull(1, "feature", False), NOW)
    guest.notifications.ask_test(DEMO, TRAIN)
    guest.previews.ask(DEMO)
    guest.image_lists.ask(DEMO)


@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_no_value_of_any_column_stops_the_daemon(
    path: Path, owner: SqliteStore, table: str, column: str
) -> None:
    """Not even one that the table would refuse: a process that may write the file can recreate the table."""
    with closing(open_guest_store(path, clock=clock)) as guest:
        ask_for_everything(guest)
        for number, value in enumerate(VALUES):
            with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
                db.execute("PRAGMA ignore_check_constraints = ON")
                rows = db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
                try:
                    db.execute(f"UPDATE {table} SET {column} = ?", (value,))  # noqa: S608
                except sqlite3.Error:
                    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})").fetchall()]
                    db.execute(f"DROP TABLE {table}")
                    db.execute(f"CREATE TABLE {table} ({', '.join(names)})")
                    holes = ", ".join("?" * len(names))
                    for row in rows:
                        cells = [
                            value if name == column else cell for name, cell in zip(names, row, strict=True)
                        ]
                        db.execute(f"INSERT INTO {table} VALUES ({holes})", cells)  # noqa: S608
            act(owner)
            id = new_run_id(NOW, 100 + number)
            guest.runs.submit(replace(wanted(), id=id))
            act(owner)
            assert id in {run.id for run in owner.runs.active()}, f"others are served after {value!r:.40}"


def schema() -> dict[str, list[tuple[str, str]]]:
    """The columns of all tables with their types, as they are made: a new one is attacked without further ado."""
    with closing(sqlite3.connect(":memory:")) as db:
        make_tables(db)
        return {
            table: [(row[1], row[2]) for row in db.execute(f"PRAGMA table_info({table})").fetchall()]
            for table in TABLES
        }


SCHEMA = schema()
NEARLY_RIGHT = (
    "demo",
    "other",
    "train",
    "box",
    "prichal.demo.box",
    "manual",
    "@platform",
    "10.0.0.1:80",
    "[1]",
)
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from((*NEARLY_RIGHT, *LEADS_ELSEWHERE)))
NUMBERS = st.one_of(
    st.sampled_from((0, 1, -1, FIRST_WISH, 2**53 - 1, 2**53, 2**63 - 1, -(2**63))), st.integers(-9, 9)
)
CELLS: dict[str, st.SearchStrategy[object]] = {
    "TEXT": st.one_of(TEXTS, st.deferred(lambda: st.just(encode_submission()))),
    "INTEGER": NUMBERS,
    "BLOB": st.one_of(st.binary(max_size=300), st.just(seal_for(KEYS.public, b"{}", b"change demo"))),
    "REAL": st.one_of(st.floats(allow_nan=False), st.just(NOW), st.just(NOW + 60)),
}
ANYTHING = st.one_of(*CELLS.values(), st.binary(max_size=30), st.none())


def rows_of(table: str, typed: bool) -> st.SearchStrategy[list[tuple[object, ...]]]:
    cells = (CELLS[kind] if typed else ANYTHING for _, kind in SCHEMA[table])
    return st.lists(st.tuples(*cells), min_size=1, max_size=6)


def forge(path: Path, table: str, typed: bool, rows: list[tuple[object, ...]]) -> int:
    """How many rows the database has taken. Without types it is another table of the same name."""
    taken = 0
    with closing(sqlite3.connect(shared_path(path), isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        if not typed:
            db.execute(f"DROP TABLE {table}")
            db.execute(f"CREATE TABLE {table} ({', '.join(name for name, _ in SCHEMA[table])})")
        for row in rows:
            with suppress(sqlite3.Error):
                holes = ", ".join("?" * len(row))
                taken += db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({holes})", row).rowcount  # noqa: S608
    return taken


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
@pytest.mark.parametrize("table", TABLES)
def test_rows_that_others_forge_stop_nothing_and_become_nothing_that_nobody_may_ask(
    path: Path, owner: SqliteStore, table: str, data: st.DataObject
) -> None:
    typed = data.draw(st.booleans())
    forge(path, table, typed, data.draw(rows_of(table, typed)))
    act(owner)
    with closing(open_guest_store(path, clock=clock)) as guest:
        run = guest.runs.submit(replace(wanted(), id=new_run_id(NOW, data.draw(st.integers(200, 10**6)))))
        guest.requests.enqueue(OTHER, Trigger.MANUAL)
    act(owner)
    found = owner.runs.get(DEMO, run.id)
    assert found is not None
    assert found.pipeline == PIPELINE
    assert {each.pipeline.stages for each in owner.runs.active()} <= {(STAGE,)}


@pytest.mark.parametrize("table", TABLES)
def test_forged_rows_of_every_table_get_as_far_as_the_daemon(
    path: Path, owner: SqliteStore, table: str
) -> None:
    """Or the test above would test nothing."""
    any_will_do = settings(max_examples=2000, phases=[Phase.generate])  # the simplest one takes long to find
    row = find(
        rows_of(table, typed=True), lambda rows: forge(path, table, True, rows) > 0, settings=any_will_do
    )
    assert row
    assert {kind for _, kind in SCHEMA[table]} <= CELLS.keys(), "a type of column that nothing is made up for"


PLANTED = (
    "CREATE TRIGGER evil AFTER DELETE ON submissions BEGIN INSERT INTO wishes VALUES (NULL, 'x', 'y', 0, 0); END",
    "CREATE VIEW evil AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n",
    "CREATE TABLE runs (id, app, run)",
    "CREATE TABLE evil AS SELECT randomblob(100)",
    "CREATE INDEX evil ON submissions (submission)",
    "DROP TABLE wishes",
    "ALTER TABLE cancels ADD COLUMN evil TEXT",
)


@pytest.mark.parametrize("statement", PLANTED, ids=range(len(PLANTED)))
def test_what_is_planted_beside_the_tables_goes(path: Path, owner: SqliteStore, statement: str) -> None:
    act(owner)
    as_web(path, statement)
    act(owner)
    with closing(open_guest_store(path, clock=clock)) as guest:
        guest.requests.enqueue(DEMO, Trigger.MANUAL)
        run = guest.runs.submit(wanted())
        act(owner)
        found = owner.runs.get(DEMO, run.id)
        assert found is not None
    with closing(sqlite3.connect(shared_path(path))) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_schema").fetchall()}
        assert "evil" not in names


def test_endless_views_in_place_of_tables_are_never_asked(path: Path, owner: SqliteStore) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i AS id, 'demo' AS app, 'x' AS reason"
    )
    for name in ("wishes", "submissions", "pending"):
        as_web(path, f"DROP TABLE {name}")
        as_web(path, f"CREATE VIEW {name} AS {endless} FROM n WHERE i < 0")
    act(owner)


# --- from one database to two -------------------------------------------------------------------------------------


def test_what_one_database_held_is_there(path: Path) -> None:
    path.parent.mkdir(mode=0o770)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrations.apply(sqlite_utils.Database(db, execute_plugins=False), stop_before="m008_owners")
        db.execute("PRAGMA user_version = 7")
        text = encode(AppStatus(DEMO, plan="p"))
        db.execute("INSERT INTO apps VALUES ('demo', ?, 1, 'c0ffee')", (text,))
        db.execute("INSERT INTO deliveries VALUES ('demo', '1', '[1]', 5)")
        db.execute("INSERT INTO activity VALUES ('demo', 'train', 6)")
        db.execute(
            "INSERT INTO boxes VALUES ('demo', 'box', 'prichal.demo.box', 9, 'Retain', 'bound', 0, 0, 0, 0, 3)"
        )
        db.execute("INSERT INTO pending VALUES (4, 'prichal.demo.box', 'k', 7, 1, ?, '')", (NOW * 2,))
        db.execute("INSERT INTO storage_access VALUES (1, 'http://a', 'http://a', 'k', 'the-secret', 'r')")
    with pytest.raises(Transient, match="no state"):
        open_guest_store(path)
    with closing(open_store(path, clock=clock)) as store:
        status = store.apps.status(DEMO)
        assert (status.plan, status.suspended, status.approved_revision) == ("p", True, "c0ffee")
        assert store.repositories.delivery("demo", "1") == WebhookDelivery("1", "demo", (1,), 5.0)
        assert store.activity.of(DEMO) == {TRAIN: 6.0}
        assert [pending.id for pending in store.boxes.pending()] == [4]
        assert store.boxes.access() is None, "the daemon tells it anew"
        with closing(open_guest_store(path, clock=clock)) as guest:
            assert guest.apps.status(DEMO) == status


# --- runs that wait to be taken ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    [
        None,
        "ann",
        "",
        'a"b',
        "a\\",
        ',"inputs":',
        '","inputs":[],"user":"bert',
        "Зоя \U0001f600",
        "\n\t\x01\x7f",
        "x" * 1000,
    ],
)
def test_the_queue_counts_for_whom_a_submission_is(guest: SqliteStore, user: str | None) -> None:
    """Whatever a name looks like: a user may have half of the queue, and nobody in particular all of it."""
    few = QueueLimits(runs=4, bytes=10**6)
    for number in (1, 2):
        guest.runs.submit(replace(wanted(number), user=user), most=few)
    third = replace(wanted(3), user=user)
    if not user:
        guest.runs.submit(third, most=few)
        return
    with pytest.raises(Transient, match="a user may have 2 runs"):
        guest.runs.submit(third, most=few)
    guest.runs.submit(replace(third, user="somebody"), most=few)


def test_what_waits_takes_as_much_room_before_it_is_taken(guest: SqliteStore, owner: SqliteStore) -> None:
    """A submission for which there is room is never one for which the daemon has none."""
    room = QueueLimits(runs=1000, bytes=100_000)
    large = (RunInput("data", "str", json.dumps('"' * 10_000)),)
    accepted: list[Run] = []
    with pytest.raises(Transient):
        while True:
            asked = replace(wanted(len(accepted), inputs=large), user=None)
            accepted.append(guest.runs.submit(asked, most=room))
    owner.requests.claim(NOW)
    taken = owner.runs.list(DEMO)
    assert {run.id for run in taken} == {run.id for run in accepted}
    assert room.bytes / 2 < sum(len(encode(run)) for run in taken) <= room.bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"user":',
        ',"user":"ann',
        ',"inputs":,"user":',
        "\0",
        ',"user":1,"inputs":',
        ',"user":{"a":"' + "[" * 5000,
    ],
)
def test_a_submission_that_is_none_stops_no_other(
    path: Path, guest: SqliteStore, owner: SqliteStore, text: str
) -> None:
    as_web(path, "INSERT INTO submissions VALUES ('0', 'demo', ?)", text)
    submitted = guest.runs.submit(wanted(), most=QueueLimits(runs=4, bytes=10**6))
    owner.requests.claim(NOW)
    assert owner.runs.get(DEMO, submitted.id) is not None


def test_large_submissions_are_taken_a_few_at_once(guest: SqliteStore, owner: SqliteStore) -> None:
    """All who write a request wait for the transaction that takes them."""
    large = (RunInput("data", "str", json.dumps("x" * 900_000)),)
    for number in range(9):
        guest.runs.submit(wanted(number, inputs=large))
    asked: list[str] = []
    with owner._database.read() as db:
        db.set_trace_callback(asked.append)
        owner.requests.claim(NOW)
        db.set_trace_callback(None)
    taken = "\n".join(asked).split("COMMIT")
    assert max(part.count("DELETE FROM submissions") for part in taken) == 3
    assert len(owner.runs.list(DEMO)) == 9


# --- runs with large inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_taken", [True, False])
def test_runs_are_listed_and_followed_without_large_inputs(
    guest: SqliteStore, owner: SqliteStore, is_taken: bool
) -> None:
    """A page of a hundred runs would read a hundred megabytes, and who follows runs would hold them."""
    inputs = (
        RunInput("data", "str", json.dumps("x" * 100_000)),
        RunInput("more", "str", json.dumps('"\\' * 400)),
        RunInput("file", "FILE", "/".join(["ф" * 100] * 4)),
    )
    pipeline = replace(PIPELINE, stages=(replace(STAGE, inputs=("data", "more", "file")),))
    owner.runs.publish(DEMO, (pipeline,))
    run = guest.runs.submit(wanted(of=pipeline, inputs=inputs))
    small = guest.runs.submit(wanted(2, of=pipeline))
    if is_taken:
        owner.requests.claim(NOW)
    brief = guest.runs.brief(DEMO, run.id)
    assert brief is not None
    assert is_brief(brief)
    assert brief == replace(run, inputs=(replace(inputs[0], data=ELLIPSIS), *inputs[1:]))
    assert guest.runs.list(DEMO) == (small, brief)
    assert not is_brief(small)
    assert guest.runs.brief(DEMO, small.id) == guest.runs.get(DEMO, small.id) == small
    assert guest.runs.get(DEMO, run.id) == run, "those who ask for it have all of it"


@pytest.mark.parametrize(
    "inputs",
    [
        "1",
        "null",
        "[1]",
        '["' + "x" * 5000 + '"]',
        '{"a": {"name": 1}}',
        '[{"name": "data", "data": ' + "[" * 500 + "]" * 500 + "}]",
        "[" * 5000,
    ],
)
def test_an_odd_submission_that_is_large_hides_no_other(path: Path, guest: SqliteStore, inputs: str) -> None:
    run = guest.runs.submit(wanted())
    text = encode(submission_of(wanted(9)))
    odd = text.replace('"inputs":[', f'"inputs":{inputs},"filled":"{"x" * 70_000}","others":[')
    as_web(path, "INSERT INTO submissions VALUES (?, 'demo', ?)", new_run_id(NOW, 9), odd)
    assert run in guest.runs.list(DEMO)
    assert guest.runs.brief(DEMO, run.id) == run


# --- while the daemon writes, starts or ends ------------------------------------------------------------------------

#: A process of its own: SQLite's connections of one process share what they know of the log.
READS = """
import sys
from pathlib import Path
from controller.domain.errors import ControllerError
from controller.store import open_guest_store, sqlite
sqlite._SETTLES = float(sys.argv[2])
store = open_guest_store(Path(sys.argv[1]))
for line in sys.stdin:
    try:
        print(*(status.app for status in store.apps.all()), flush=True)
    except ControllerError as error:
        print(type(error).__name__, error.reason, flush=True)
"""
#: Begins to write the head of the log's index, as a daemon does at each commit, and ends it with the next line.
COMMITS = """
import sys
with open(sys.argv[1], "r+b", buffering=0) as index:
    whole = index.read(48)
    for line in sys.stdin:
        index.seek(0)
        index.write(bytes(48) if line == "begin\\n" else whole)
        print("done", flush=True)
"""


@contextmanager
def talking(script: str, *arguments: str) -> Iterator[Callable[[str], str]]:
    """A process that answers each line by one."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        ends, begins = process.stdin, process.stdout

        def ask(line: str) -> str:
            ends.write(f"{line}\n")
            ends.flush()
            return begins.readline().strip()

        try:
            yield ask
        finally:
            process.kill()


def test_a_commit_that_is_being_written_is_waited_for(path: Path, owner: SqliteStore) -> None:
    owner.apps.save(AppStatus(DEMO))
    with (
        talking(READS, str(path), "60") as read,
        talking(COMMITS, f"{path}-shm") as commit,
        ThreadPoolExecutor() as threads,
    ):
        assert read("") == DEMO
        assert commit("begin") == "done"
        found = threads.submit(read, "")
        with pytest.raises(TimeoutError):
            found.result(0.2)
        assert commit("end") == "done"
        assert found.result() == DEMO


def test_a_commit_that_the_daemon_has_not_completed_passes(path: Path, owner: SqliteStore) -> None:
    """It was killed; the next one repairs the index."""
    owner.apps.save(AppStatus(DEMO))
    with talking(READS, str(path), "0.05") as read, talking(COMMITS, f"{path}-shm") as commit:
        assert read("") == DEMO
        assert commit("begin") == "done"
        assert read("") == "Transient StateBusy"
        owner.apps.save(AppStatus(OTHER))
        assert read("") == f"{DEMO} {OTHER}"


def test_a_state_that_is_closed_and_opened_again_is_waited_for(
    path: Path, owner: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.apps.save(AppStatus(DEMO))
    owner.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()
    monkeypatch.setattr(state, "REOPENS", 0.0)
    with pytest.raises(Transient, match="closed") as caught:
        open_guest_store(path)
    assert caught.value.reason == Reason.STATE_MISSING
    monkeypatch.setattr(state, "REOPENS", 600.0)
    with ThreadPoolExecutor() as threads:
        opened = threads.submit(open_guest_store, path)
        with closing(open_store(path)), closing(opened.result()) as store:
            assert [status.app for status in store.apps.all()] == [DEMO]
