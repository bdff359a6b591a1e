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
