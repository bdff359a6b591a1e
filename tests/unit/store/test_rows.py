"""Rows that cannot be read back harm what they are about and nothing else: tried with every text of every table."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.domain.apps.branch_previews import (
    BranchPreview,
    BranchPreviews,
    LeftOut,
    OpenPull,
    SeenBranch,
)
from controller.domain.apps.followed_images import FollowedImage
from controller.domain.apps.image_lists import ImageList
from controller.domain.apps.orders import AppOrder, OrderKind
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.previews import PlanPreview
from controller.domain.apps.requests import Trigger
from controller.domain.apps.spec import CronSchedule, ImageFollow, Reclaim, TagOrder, Webhook
from controller.domain.apps.status import (
    AppStatus,
    Event,
    EventType,
    RepositoryRecord,
    Rollback,
    WebhookDelivery,
)
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.alerts import AlertType, Notice
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.people.pushes import PushUnderWay
from controller.domain.people.quotas import AppShare
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Api, Route, Service, ServiceKind
from controller.domain.runs.gpus import GpuRequest, Lease
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Run, RunCause, RunFilter, RunState, cancel, new_run
from controller.domain.secret import Secret
from controller.domain.storage.box import Arrival, BoxRecord, BoxState, PendingUpload
from controller.domain.storage.moves import GroupMove
from controller.domain.templates import NO_LIMITS, TemplateRecord
from controller.encryption import SecretKeys
from controller.ports import RunLimits, WebhookUnderWay
from controller.store import SqliteStore, open_store
from controller.store.inbox import TABLES
from controller.store.notifications import NoticeTable
from controller.store.shared_file import shared_path
from controller.store.sqlite import connect
from tests.support.specs import make

BAD, GOOD = AppName("a"), AppName("b")  # in every order by app the bad one comes first
C, TRAIN, BOX, TEAM = map(ComponentName, ("c", "train", "box", "team"))
LIMITS = RunLimits(host=10, app=10)
NOW = 1e9
KEYS = SecretKeys(b"k" * 32)
# A name that rows of an app are found by in its table, where that is not `app`.
WHOSE = {
    "repositories": "name",
    "deliveries": "repository",
    "pushes": "repository",
    "pushes_under_way": "hosted",
    "pull_requests": "repository",
    "branch_previews": "of_app",
    "pending": "bucket",
    "arriving": "bucket",
    "touched": "bucket",
    "moves": "bucket",
    "gateways": "worker",
    "shares": "worker",
    "call_ends": "id",
    "grants": "account",
    "templates": "name",
    "notices": "id",  # the first one is the bad app's
}
# The rows of no app, or without texts that anything is read from.
NOBODYS = {"facts", "storage_access", "rows_aside"}
# What is taken in has tests of its own; nothing of the others is decoded, or a test below fills them.
EMPTY = {
    *("wishes", "submissions", "cancels", "caller_keys", "asked_orders", "secret_changes", "call_ends"),
    *("runs_gone", "schedules", "ticks"),
}
DEEP = "[" * 100_000
VALUES: tuple[str | bytes, ...] = (
    "",
    "{",
    "[7, {}]",
    '{"app": [], "at": 1e999}',
    DEEP,
    b"\xff\xfe\x00{",
    "1" * 5000,
)


def pipeline(app: AppName, **fields: object) -> Pipeline:
    schedule = make(CronSchedule, "0 3 * * *", "UTC")
    whole = make(
        Pipeline, app, TRAIN, "c0ffee", (make(Stage, "fit", "sha256:1"),), concurrency=2, schedule=schedule
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


def api(path: str) -> Api:
    return Api(path, C, published=True)


def route(app: AppName, fingerprint: str) -> Route:
    return Route(app, C, fingerprint, "c0ffee", ("127.0.0.1:1",), (api("image"),))


def id_of(app: AppName) -> str:
    """Return the id of the change and of the order of an app."""
    return ("a1" if app == BAD else "b2") * 16


def fill(store: SqliteStore, app: AppName) -> None:
    hook = Webhook("hooks", "https://example.org/hook")
    active, ended = (new_run(f"{app}{n}", pipeline(app, webhook=hook), NOW) for n in range(2))
    store.runs.publish(app, (pipeline(app),))
    store.runs.submit(active)
    store.runs.claim(LIMITS, NOW)
    store.runs.save(cancel(store.runs.submit(ended, key="k", digest="d"), NOW))
    store.apps.save(
        AppStatus(app, applied_revision="c0ffee"), [Event(app, EventType.NORMAL, Reason("Deployed"), "it is")]
    )
    store.apps.set_suspended(app, True)
    store.apps.roll_back(app, Rollback("a" * 40, "b" * 40, "ann", NOW))
    store.routes.switch(route(app, "1"))
    store.routes.publish(app, (Service(app, api("files"), ServiceKind.FILES),))
    store.repositories.replace(
        (*store.repositories.all(), RepositoryRecord(app, (app,), "branch:main", 60.0))
    )
    store.repositories.remember(WebhookDelivery("1", app, (1, 2), NOW))
    store.repositories.remember_push(app, "a" * 40, "ann", NOW)
    store.repositories.save_push(PushUnderWay(f"d-{app}", app, "ann", "openid", "::1", NOW))
    store.gpus.save(Lease(f"{app}.c", app, C, ("0",)))
    store.gpus.ask(app, [GpuRequest(C, 2)], NOW)
    store.boxes.save(BoxRecord(app, BOX, f"bucket-{app}", 100, Reclaim.RETAIN, BoxState.BOUND))
    store.boxes.reserve(
        PendingUpload(id=0, bucket=f"bucket-{app}", key="k", size=1, created=NOW, expires=NOW + 60), NOW
    )
    store.boxes.arrive(Arrival(0, f"bucket-{app}", "k", 1, NOW, NOW + 60), NOW)
    store.boxes.grant(app, (f"bucket-{app}",))
    store.boxes.save_move(GroupMove(f"bucket-{app}", "users/a/x/", "users/a/y/", 2, NOW, NOW))
    store.activity.touch([(app, C)], NOW)
    store.secrets.ask(SecretChange(id_of(app), app, "keys", (("TOKEN", Secret("hunter2")),), "ann", NOW))
    store.orders.ask(AppOrder(id_of(app), OrderKind.CREATE, app, template="function", limits=NO_LIMITS))
    store.previews.ask(app)
    store.image_lists.ask(app)
    store.age_keys.ensure(app)
    store.notifications.declare(app, (make(NotificationSpec, TEAM, Channel.EMAIL, to=("team@example.org",)),))
    store.notifications.ask_test(app, TEAM)
    follow = make(
        ImageFollow, semver="^1", order=TagOrder.NUMERICAL, digest=False, interval=300.0, write_back=False
    )
    store.images.declare(app, (FollowedImage(C, "demo:1", follow),))
    branch = SeenBranch(app, "refs/heads/feature/x", "a" * 40, NOW)
    preview = BranchPreview(AppName(f"{app}-x"), app, branch.ref, branch.head, NOW, NOW + 60)
    store.branches.see(app, (branch, replace(branch, ref="refs/heads/feature/y")))
    why = LeftOut(app, "refs/heads/feature/y", "there are newer ones")
    store.branches.record(BranchPreviews((preview,), (why,)), (), NOW)
    store.branches.keep(app, NOW)
    store.branches.open_pull(app, OpenPull(3, "feature/x"), NOW)
    notice = Notice(app, AlertType.RUN_FAILED, "ExitCode", Severity.WARNING, "it ended with 1", NOW)
    NoticeTable(store._database).add((notice,))
    scheduled = next(item for item in store.schedules.all(app))
    assert scheduled.schedule.cron == "0 3 * * *"
    store.requests.enqueue(app, Trigger.POLL)
    store.requests.claim(NOW)
    store.requests.enqueue(app, Trigger.PUSH)


def open_as_daemon(path: Path) -> SqliteStore:
    store = open_store(path, clock=lambda: NOW)
    store.secrets.unlock(KEYS)
    return store


def of_good(store: SqliteStore) -> dict[str, object]:
    """All that is read, as far as it is the good app's."""
    return {
        "status": [s for s in store.apps.all() if s.app == GOOD],
        "events": [(e.reason, e.type) for e in store.events.list(None) if e.app == GOOD],
        "routes": [r for r in store.routes.all() if r.app == GOOD],
        "services": [s for s in store.routes.services() if s.app == GOOD],
        "repositories": [r for r in store.repositories.all() if r.name == GOOD],
        "pusher": store.repositories.pusher(GOOD, "a" * 40),
        "push": store.repositories.push(f"d-{GOOD}"),
        "delivery": store.repositories.delivery(GOOD, "1"),
        "leases": [lease for lease in store.gpus.leases() if lease.app == GOOD],
        "requests for GPUs": bool(store.gpus.requests(NOW)),
        "boxes": [box for box in store.boxes.all() if box.app == GOOD],
        "pending": [p for p in store.boxes.pending() if p.bucket == f"bucket-{GOOD}"],
        "moves": store.boxes.moves(f"bucket-{GOOD}", "users/a/"),
        "grants": store.boxes.grants(GOOD),
        "activity": store.activity.of(GOOD),
        "secrets": store.secrets.of(GOOD),
        "keys": store.secrets.listed(GOOD),
        "changes": store.secrets.changes(GOOD),
        "templates": [record for record in store.templates.all() if record.name == GOOD],
        "age keys": (store.age_keys.listed(GOOD), store.age_keys.of(GOOD)),
        "notifications": store.notifications.all(GOOD),
        "followed": store.images.of(GOOD),
        "branches": store.branches.seen(GOOD),
        "previews": [each for each in store.branches.previews() if each.of == GOOD],
        "left out": [each for each in store.branches.left_out() if each.of == GOOD],
        "decided": store.branches.decisions().get(GOOD),
        "pulls": store.branches.pulls(GOOD),
        "all followed": [record for record in store.images.all() if record.app == GOOD],
        "notices": [notice for notice in store.notifications.notices()[1] if notice.app == GOOD],
        "conditions": store.notifications.conditions().get(GOOD),
        "orders": [record for record in store.orders.unfinished() if record.order.app == GOOD],
        "order": store.orders.get(id_of(GOOD)),
        "app shares": [share for share in store.orders.shares() if share.app == GOOD],
        "pipelines": store.runs.pipelines(GOOD),
        "schedules": [s for s in store.schedules.all() if s.app == GOOD],
        "active": [run for run in store.runs.active() if run.app == GOOD],
        "unfinished": store.runs.unfinished(GOOD),
        "listed": store.runs.list(GOOD),
        "counts": [count for count in store.runs.counts() if count.app == GOOD],
        "last": store.runs.last_ended(GOOD),
        "badly": store.runs.ended_badly(GOOD, 10),
        "expired": [run for run in store.runs.expired(NOW * 2) if run.app == GOOD],
        "caused": store.runs.unfinished_of(GOOD, TRAIN, RunCause.SCHEDULE),
        "webhooks": [m for m in store.webhooks.due(NOW + 1, WebhookUnderWay()) if m.app == GOOD],
        "queued": store.requests.queued(GOOD),
    }


def act(store: SqliteStore) -> None:
    """What daemon and web process do all the time, for any app."""
    store.requests.recover()
    for app in (BAD, GOOD):
        store.requests.enqueue(app, Trigger.DRIFT)
        store.apps.save(store.apps.status(app))
        store.routes.switch(route(app, "2"))
        store.routes.publish(app, (Service(app, api("pipelines"), ServiceKind.PIPELINES),))
        store.gpus.replace(app, ())
        store.gpus.ask(app, [GpuRequest(C, 1)], NOW)
        store.runs.publish(app, (pipeline(app),))
    store.repositories.replace([RepositoryRecord(GOOD, (GOOD,), "branch:main", 30.0)])
    store.templates.replace([TemplateRecord(GOOD, None, problem="it is gone")])
    store.orders.replace_shares([AppShare(GOOD, "bob", NO_LIMITS)])
    assert (GOOD, TEAM) in {(test.app, test.name) for test in store.notifications.tests()}
    for notification in store.notifications.all():
        store.notifications.advance(notification.app, notification.spec.name, notification.state)
    store.notifications.take(store.notifications.notices()[0])
    store.gateways.drained("127.0.0.1:1", 1, NOW)
    store.gateways.taken(NOW)
    store.prune()
    assert {request.app for _ in range(9) if (request := store.requests.claim(NOW * 2))} >= {GOOD}
    apps = []
    while preview := store.previews.begin():
        apps.append(preview.app)
        store.previews.finish(PlanPreview(preview.id, preview.app), ())
    assert GOOD in apps
    listed = []
    while images := store.image_lists.begin():
        listed.append(images.app)
        store.image_lists.finish(ImageList(images.id))
    assert GOOD in listed
    claimed = {run.app for _ in range(9) if (run := store.runs.claim(LIMITS, NOW))}
    assert GOOD in claimed


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "state.db"
    with closing(open_as_daemon(path)) as store:
        fill(store, BAD)
        fill(store, GOOD)
        for app in (BAD, GOOD):
            store.runs.submit(new_run(f"{app}2", pipeline(app), NOW))
        store.templates.replace(TemplateRecord(app, None, "https://example.org/t.git") for app in (BAD, GOOD))
        store.orders.replace_shares(AppShare(app, "ann", NO_LIMITS) for app in (BAD, GOOD))
        store.gateways.report("a", 1, frozenset(), NOW, (TakenShare(AppName("a"), Resource.CALLS, 3),))
    for file in (path, shared_path(path)):
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="module")
def before(filled: Path) -> dict[str, object]:
    with closing(open_as_daemon(filled)) as store:
        return of_good(store)


def copy(path: Path, target: Path) -> None:
    """Both databases."""
    for source, place in ((path, target), (shared_path(path), shared_path(target))):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def columns() -> Iterator[tuple[str, str]]:
    """Every text column of every table that has rows."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        open_store(path).close()
        for file in (path, shared_path(path)):
            with closing(sqlite3.connect(file)) as db:
                tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in sorted(set(tables) - NOBODYS - EMPTY):
                    if not table.startswith(("sqlite_", "_")):
                        for row in db.execute(f"PRAGMA table_info({table})").fetchall():
                            if row[2] == "TEXT":
                                yield table, row[1]


def spoil(path: Path, table: str, column: str, value: str | bytes) -> None:
    """Of the bad app's rows one, as no program of ours would write it."""
    whose = WHOSE.get(table, "app")
    key = (
        "rowid"
        if table in {"runs", "requests", "events", "webhooks", "gpus", "run_keys", "runs_gone"}
        else whose
    )
    text = "?" if isinstance(value, str) else "CAST(? AS TEXT)"
    file = shared_path(path) if table in TABLES else path
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        changed = db.execute(
            f"UPDATE OR IGNORE {table} SET {column} = {text} WHERE {key} ="  # noqa: S608
            f" (SELECT min({key}) FROM {table} WHERE {whose} IN ('a', 'bucket-a', 1))",
            (value,),
        ).rowcount
    assert changed, f"the bad app has no row in {table}"


@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_no_text_in_a_row_of_one_app_keeps_another_from_anything(
    filled: Path, before: dict[str, object], tmp_path: Path, table: str, column: str
) -> None:
    for number, value in enumerate(VALUES):
        path = tmp_path / f"{number}" / "state.db"
        copy(filled, path)
        spoil(path, table, column, value)
        with closing(open_as_daemon(path)) as store:
            assert of_good(store) == before, value[:20]
            if store.set_aside():
                assert of_good(store) == before, value[:20]
            act(store)


def test_the_tables_that_are_left_out_have_no_rows(filled: Path) -> None:
    with closing(connect(filled)) as db:
        found = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in EMPTY}  # noqa: S608
    assert set(found.values()) == {0}, found


def test_what_is_put_aside_is_told_once_and_kept(
    filled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.db"
    copy(filled, path)
    spoil(path, "runs", "run", "{")
    with closing(open_store(path, clock=lambda: NOW)) as store, caplog.at_level(logging.ERROR):
        assert [row.name for row in store.unreadable()] == ["a0"] or [
            row.name for row in store.unreadable()
        ] == ["a1"]
        name = store.unreadable()[0].name
        with pytest.raises(Stalled, match=f"the run {name} cannot be read back") as caught:
            store.runs.get(BAD, name)
        assert caught.value.reason == "RowUnreadable"
        store.runs.list(BAD)
        store.runs.list(BAD)
        assert (
            len([r for r in caplog.records if f"the run {name} cannot be read back" in r.getMessage()]) == 1
        )
        assert store.set_aside() == 1
        assert store.set_aside() == 0
        assert store.runs.get(BAD, name) is None
        assert store.runs.is_gone(BAD, name)
        event = store.events.list(BAD)[-1]
        assert (event.reason, event.type) == ("RowUnreadable", EventType.WARNING)
        assert f"the run {name}" in event.message
        assert [(row.app, row.name) for row in store.aside()] == [(BAD, name)]
        assert store.unreadable() == ()
    with closing(sqlite3.connect(path)) as db:
        assert '"run":"{"' in db.execute("SELECT content FROM rows_aside").fetchone()[0]


def test_a_status_that_cannot_be_read_is_that_of_a_new_app_with_the_decisions_about_it(
    filled: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    copy(filled, path)
    spoil(path, "apps", "status", "{")
    with closing(open_store(path, clock=lambda: NOW)) as store:
        for _ in range(2):
            rollback = Rollback("a" * 40, "b" * 40, "ann", NOW)
            assert store.apps.status(BAD) == AppStatus(BAD, suspended=True, rollback=rollback)
            assert [status.app for status in store.apps.all()] == [BAD, GOOD]
            store.set_aside()


def test_a_run_that_cannot_be_read_holds_no_place_and_no_queue(filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    copy(filled, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE runs SET run = '{' WHERE app = 'a'")
    with closing(open_store(path, clock=lambda: NOW)) as store:
        assert store.runs.claim(RunLimits(host=1, app=1), NOW) is None, "its container may run still"
        store.runs.active()
        store.set_aside()
        ended = replace(next(iter(store.runs.active())), state=RunState.CANCELED)
        store.runs.save(ended)
        claimed = store.runs.claim(RunLimits(host=1, app=1), NOW)
        assert claimed is not None
        assert claimed.app == GOOD
        assert all(count.state.terminal for count in store.runs.counts(BAD))


def test_a_page_of_runs_is_full_whatever_cannot_be_read(store: SqliteStore, path: Path) -> None:
    runs: list[Run] = [store.runs.submit(new_run(f"r{n}", pipeline(BAD), NOW)) for n in range(9)]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE runs SET run = '' WHERE id IN ('r8', 'r6', 'r5')")
    assert [run.id for run in store.runs.list(BAD, limit=4)] == ["r7", "r4", "r3", "r2"]
    assert [run.id for run in store.runs.list(BAD, RunFilter(after="r2"), limit=4)] == [
        runs[1].id,
        runs[0].id,
    ]


def test_what_is_written_anew_meanwhile_is_not_put_aside(store: SqliteStore, path: Path) -> None:
    store.routes.switch(route(BAD, "1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE routes SET route = ''")
    assert store.routes.all() == ()
    store.routes.switch(route(BAD, "2"))
    assert store.set_aside() == 0
    assert [found.fingerprint for found in store.routes.all()] == ["2"]
