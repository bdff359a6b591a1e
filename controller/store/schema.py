"""The tables, as migrations of sqlite-utils: decorated functions, each run once and in order, never changed after a
release. `migrate` is called by `open_store` alone, and this module is imported only when there is something to do:
importing sqlite-utils takes 0.2 s, which every command would pay.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

from controller.store.version import VERSION

migrations = Migrations("prichal")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to `VERSION`, in one transaction. A process that dies within leaves the old schema."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(Database(connection, execute_plugins=False))
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@migrations()
def m001_initial(db: Database) -> None:
    for statement in (REQUESTS, ONE_QUEUED, ONE_RUNNING, BY_APP, FOLLOWED, APPS, EVENTS, EVENTS_BY_APP):
        db.execute(statement)
    for statement in (ROUTES, GATEWAYS, REPOSITORIES, DELIVERIES, FACTS):
        db.execute(statement)


@migrations()
def m002_activity(db: Database) -> None:
    db.execute(ACTIVITY)


@migrations()
def m003_boxes(db: Database) -> None:
    for statement in (BOXES, PENDING, ONE_PENDING, PENDING_ROOM, PENDING_AGE, SERVICES, STORAGE_ACCESS):
        db.execute(statement)


@migrations()
def m004_runs(db: Database) -> None:
    for statement in (
        PIPELINES,
        RUNS,
        ACTIVE_RUNS,
        RUNS_BY_STATE,
        RUNS_BY_APP,
        RUNS_BY_USER,
        RUNS_BY_END,
        RUN_KEYS,
        RUNS_GONE,
        WEBHOOKS,
        WEBHOOKS_DUE,
        SCHEDULES,
        TICKS,
    ):
        db.execute(statement)


# AUTOINCREMENT: an id that was handed out never comes to mean another request, nor an event another event.
# `followed_by`: the request that took over when a dead daemon's request was given up (see requests.py).
REQUESTS = """
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    reasons TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done')),
    created REAL NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    finished REAL,
    outcome TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    revision TEXT NOT NULL DEFAULT '',
    followed_by INTEGER REFERENCES requests (id) ON DELETE SET NULL
) STRICT
"""
# The rules of the queue. They hold over all processes, whatever the code does.
ONE_QUEUED = "CREATE UNIQUE INDEX one_queued_per_app ON requests (app) WHERE state = 'queued'"
ONE_RUNNING = "CREATE UNIQUE INDEX one_running_per_app ON requests (app) WHERE state = 'running'"
BY_APP = "CREATE INDEX done_by_app ON requests (app, id) WHERE state = 'done'"
FOLLOWED = "CREATE INDEX requests_followed_by ON requests (followed_by) WHERE followed_by IS NOT NULL"

APPS = """
CREATE TABLE apps (
    app TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    suspended INTEGER NOT NULL DEFAULT 0,
    approved_revision TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID
"""
EVENTS = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    component TEXT,
    type TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    revision TEXT NOT NULL,
    at REAL NOT NULL
) STRICT
"""
EVENTS_BY_APP = "CREATE INDEX events_by_app ON events (app, id)"
ROUTES = """
CREATE TABLE routes (
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    route TEXT NOT NULL,
    PRIMARY KEY (app, component)
) STRICT, WITHOUT ROWID
"""
GATEWAYS = """
CREATE TABLE gateways (
    worker TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    busy TEXT NOT NULL,
    heard REAL NOT NULL
) STRICT, WITHOUT ROWID
"""
REPOSITORIES = "CREATE TABLE repositories (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID"
DELIVERIES = """
CREATE TABLE deliveries (
    repository TEXT NOT NULL,
    id TEXT NOT NULL,
    requests TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (repository, id)
) STRICT
"""
# Single values: 'routes_version', 'heartbeat'.
FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID"
# When a component was last called: of those that hibernate.
ACTIVITY = """
CREATE TABLE activity (
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    last_used REAL NOT NULL,
    PRIMARY KEY (app, component)
) STRICT, WITHOUT ROWID
"""
# `changed`: when an upload was last allowed or something removed; with `measured` it tells whether to look again.
BOXES = """
CREATE TABLE boxes (
    app TEXT NOT NULL,
    box TEXT NOT NULL,
    bucket TEXT NOT NULL UNIQUE,
    capacity INTEGER NOT NULL,
    reclaim TEXT NOT NULL,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    used INTEGER NOT NULL,
    files INTEGER NOT NULL,
    measured REAL NOT NULL,
    changed REAL NOT NULL,
    PRIMARY KEY (app, box)
) STRICT, WITHOUT ROWID
"""
# AUTOINCREMENT: a measurement may settle an id that was taken over meanwhile, and must not meet its successor.
PENDING = """
CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    created REAL NOT NULL,
    expires REAL NOT NULL,
    upload TEXT NOT NULL
) STRICT
"""
ONE_PENDING = "CREATE UNIQUE INDEX one_pending_per_key ON pending (bucket, upload, key)"
PENDING_ROOM = "CREATE INDEX pending_room ON pending (bucket, expires, size) WHERE size > 0"
PENDING_AGE = "CREATE INDEX pending_age ON pending (expires)"
SERVICES = """
CREATE TABLE services (
    app TEXT NOT NULL,
    path TEXT NOT NULL,
    service TEXT NOT NULL,
    PRIMARY KEY (app, path)
) STRICT, WITHOUT ROWID
"""
# One row. The key has a column of its own: what is kept as JSON never holds a secret.
STORAGE_ACCESS = """
CREATE TABLE storage_access (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    internal_url TEXT NOT NULL,
    public_url TEXT NOT NULL,
    access_key TEXT NOT NULL,
    secret_key TEXT NOT NULL,
    region TEXT NOT NULL
) STRICT
"""
PIPELINES = """
CREATE TABLE pipelines (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID
"""
# Ids begin with the time: their order is that of submission. `user`, here and below: '' for callers without a name,
# NULL for a run that is nobody's.
RUNS = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    user TEXT,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    version INTEGER NOT NULL,
    run TEXT NOT NULL
) STRICT
"""
ACTIVE_RUNS = (
    "CREATE VIEW active_runs AS SELECT * FROM runs WHERE state IN ('STARTING', 'RUNNING', 'CANCELING')"
)
RUNS_BY_STATE = "CREATE INDEX runs_by_state ON runs (state, app, pipeline, priority, id)"
RUNS_BY_APP = "CREATE INDEX runs_by_app ON runs (app, id)"
RUNS_BY_USER = "CREATE INDEX runs_by_user ON runs (app, user, id)"
RUNS_BY_END = "CREATE INDEX runs_by_end ON runs (expires) WHERE expires IS NOT NULL"
RUN_KEYS = """
CREATE TABLE run_keys (
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    user TEXT,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    created REAL NOT NULL,
    UNIQUE (app, pipeline, user, key)
) STRICT
"""
# What is over and forgotten answers 410, not 404.
RUNS_GONE = """
CREATE TABLE runs_gone (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    user TEXT,
    created REAL NOT NULL
) STRICT
"""
# `lane`: an app and the receiver that it tells. `due`: when to try next; `given_up`: when that was over.
WEBHOOKS = """
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    revision TEXT NOT NULL,
    run TEXT NOT NULL,
    secret TEXT NOT NULL,
    url TEXT NOT NULL,
    lane TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    given_up REAL
) STRICT
"""
WEBHOOKS_DUE = "CREATE INDEX webhooks_due ON webhooks (due, lane, app, id) WHERE given_up IS NULL"
# How far the schedule of a pipeline was followed, see `domain.schedules.Mark`. `at` and `next` are Unix seconds.
SCHEDULES = """
CREATE TABLE schedules (
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    at REAL NOT NULL,
    next REAL NOT NULL,
    skipping INTEGER NOT NULL,
    PRIMARY KEY (app, pipeline)
) STRICT, WITHOUT ROWID
"""
# Whatever becomes of clocks and daemons: a tick is dealt with once.
TICKS = """
CREATE TABLE ticks (
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    tick REAL NOT NULL,
    PRIMARY KEY (app, pipeline, tick)
) STRICT, WITHOUT ROWID
"""
