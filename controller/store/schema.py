"""The tables, as migrations of sqlite-utils: decorated functions, each run once and in order, never changed after a
release. `migrate` is called by `open_store` alone, and this module is imported only when there is something to do:
importing sqlite-utils takes 0.2 s, which every command would pay.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from controller.store.keys import Credentials
from controller.store.version import VERSION

#: Earlier versions of the state contained secrets, of which SQLite leaves pages behind.
_WITHOUT_SECRETS = 9

migrations = Migrations("prichal")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to `VERSION` in one transaction. A process that dies within it leaves the old schema.
    If one dies after it, before the file was rewritten without its old pages, the next one rewrites it.
    """
    found: int = connection.execute("PRAGMA main.user_version").fetchone()[0]
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(Database(connection, execute_plugins=False))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    if 0 < found < _WITHOUT_SECRETS:
        connection.execute("VACUUM main")
        connection.execute("PRAGMA main.wal_checkpoint(TRUNCATE)")
    connection.execute(f"PRAGMA main.user_version = {VERSION}")


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


@migrations()
def m005_gpus(db: Database) -> None:
    db.execute(GPUS)


@migrations()
def m006_rows_aside(db: Database) -> None:
    db.execute(ROWS_ASIDE)


@migrations()
def m007_grants(db: Database) -> None:
    db.execute(GRANTS)


@migrations()
def m008_owners(db: Database) -> None:
    """Move what other processes write into the attached database (see inbox.py). It is copied first, so a
    crash does no harm.
    """
    for statement in (
        DECIDED,
        "INSERT OR IGNORE INTO asked.pending SELECT * FROM main.pending",
        "INSERT OR IGNORE INTO asked.deliveries SELECT * FROM main.deliveries",
        "INSERT OR IGNORE INTO asked.activity SELECT * FROM main.activity",
        "DROP TABLE main.pending",
        "DROP TABLE main.deliveries",
        "DROP TABLE main.activity",
        "DROP TABLE main.gateways",
        "DROP TABLE main.storage_access",
        "ALTER TABLE main.apps DROP COLUMN suspended",
        "ALTER TABLE main.apps DROP COLUMN approved_revision",
        WISHES_TAKEN,
        WISHES_BY_REQUEST,
    ):
        db.execute(statement)


@migrations()
def m009_credentials(db: Database) -> None:
    """Move hashes and secrets of webhooks into a file that operators cannot read; the rows keep handles."""
    credentials = Credentials(_path(db))

    def hide_api(api: dict[str, Any]) -> None:
        for kind in ("users", "tokens"):
            api[kind] = [[name, credentials.handle(value)] for name, value in api.get(kind, ())]

    def hide_route(route: dict[str, Any]) -> None:
        for api in route["apis"]:
            hide_api(api)

    def hide_record(record: dict[str, Any]) -> None:
        record["hook_secret"] = credentials.handle(record.get("hook_secret") or "")

    for table, key, column, hide in (
        ("routes", "app, component", "route", hide_route),
        ("services", "app, path", "service", lambda service: hide_api(service["api"])),
        ("repositories", "name", "record", hide_record),
    ):
        for row in db.execute(f"SELECT {column}, {key} FROM main.{table}").fetchall():  # noqa: S608
            where = " AND ".join(f"{name} = ?" for name in key.split(", "))
            try:
                content = json.loads(row[0])
                hide(content)
            except (ValueError, TypeError, KeyError, AttributeError):  # unreadable: the next pass writes it
                db.execute(f"DELETE FROM main.{table} WHERE {where}", tuple(row)[1:])  # noqa: S608
            else:
                text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
                db.execute(f"UPDATE main.{table} SET {column} = ? WHERE {where}", (text, *tuple(row)[1:]))  # noqa: S608
    db.execute(EMPTY_ASIDE)


@migrations()
def m010_queued(db: Database) -> None:
    db.execute(RUNS_QUEUED)


@migrations()
def m011_secrets(db: Database) -> None:
    for statement in (SECRETS, CHANGES_TAKEN, CHANGES_BY_APP, SEALING):
        db.execute(statement)


@migrations()
def m012_orders(db: Database) -> None:
    for statement in (APP_ORDERS, APP_SHARES, TEMPLATES):
        db.execute(statement)


@migrations()
def m013_shared_gpus(db: Database) -> None:
    for statement in (GPU_SHARES, GPU_REQUESTS):
        db.execute(statement)


@migrations()
def m014_age_keys(db: Database) -> None:
    db.execute(AGE_KEYS)


@migrations()
def m015_notifications(db: Database) -> None:
    for statement in (NOTIFICATIONS, NOTICES):
        db.execute(statement)


@migrations()
def m016_causes(db: Database) -> None:
    for statement in (RUN_CAUSE, RUN_CAUSES, RUNS_BY_CAUSE, CHANGE_TOLD):
        db.execute(statement)


@migrations()
def m017_messages(db: Database) -> None:
    db.execute(EVENT_TOLD)


@migrations()
def m018_followed_images(db: Database) -> None:
    db.execute(FOLLOWED_IMAGES)


@migrations()
def m019_branches(db: Database) -> None:
    for statement in (BRANCHES, BRANCH_PREVIEWS):
        db.execute(statement)


def _path(db: Database) -> Path:
    files = {row[1]: row[2] for row in db.execute("PRAGMA database_list").fetchall()}
    return Path(files["main"])


# AUTOINCREMENT: an id that was returned never refers to another request or event. `followed_by` is the
# request that took over from the one of a dead daemon (see requests.py).
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
# Single values: 'routes_version', 'heartbeat', 'restarts:<part>'.
FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID"
# When components that hibernate were last called.
ACTIVITY = """
CREATE TABLE activity (
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    last_used REAL NOT NULL,
    PRIMARY KEY (app, component)
) STRICT, WITHOUT ROWID
"""
# `changed` is when an upload was last allowed or something was removed; compared with `measured`, it tells
# whether to measure again.
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
# AUTOINCREMENT: a measurement may settle an id that was replaced meanwhile, and must not affect its
# successor.
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
# One row. The key has a separate column: JSON columns never contain a secret.
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
# Ids begin with the time, so their order is that of submission. `user`, here and below, is '' for callers
# without a name and NULL for a run without an owner.
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
# What waits is counted with each submission, and a run may have a megabyte of inputs: the index has their sizes, so
# that no run is read.
RUNS_QUEUED = "CREATE INDEX runs_queued ON runs (app, user, length(run)) WHERE state = 'QUEUED'"
# A run never changes its cause.
RUN_CAUSE = "ALTER TABLE runs ADD COLUMN cause TEXT NOT NULL DEFAULT ''"
RUN_CAUSES = "UPDATE runs SET cause = coalesce(json_extract(run, '$.cause'), '') WHERE json_valid(run)"
# With the state, so that both are found without reading a run.
RUNS_BY_CAUSE = "CREATE INDEX runs_by_cause ON runs (app, cause, pipeline, id, state)"
# The message as it was made, for other languages (domain/localizable.py).
CHANGE_TOLD = "ALTER TABLE secret_changes_taken ADD COLUMN told TEXT NOT NULL DEFAULT ''"
EVENT_TOLD = "ALTER TABLE events ADD COLUMN told TEXT NOT NULL DEFAULT ''"
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
# Runs that ended and were deleted are answered with 410, not 404.
RUNS_GONE = """
CREATE TABLE runs_gone (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    user TEXT,
    created REAL NOT NULL
) STRICT
"""
# `lane` is the partition of a message: an app and a receiver.
# `due` is the time of the next attempt; `given_up` is when attempts ended.
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
# How far the schedule of a pipeline was followed, see `domain.runs.schedules.Checkpoint`. `at` and `next` are Unix
# seconds.
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
# Each tick is handled once, whatever happens to clocks and daemons.
TICKS = """
CREATE TABLE ticks (
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    tick REAL NOT NULL,
    PRIMARY KEY (app, pipeline, tick)
) STRICT, WITHOUT ROWID
"""
# GPUs of components' containers; those of stages are in their runs. `gpus` has ids as a JSON list.
GPUS = """
CREATE TABLE gpus (
    workload TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    gpus TEXT NOT NULL
) STRICT
"""
# How many containers may have each of these GPUs.
GPU_SHARES = "ALTER TABLE gpus ADD COLUMN share INTEGER NOT NULL DEFAULT 1"
# What components wait for. Rows that are not written again for a while do not count.
GPU_REQUESTS = """
CREATE TABLE gpu_requests (
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    wanted INTEGER NOT NULL,
    share INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (app, component)
) STRICT
"""
# The buckets that the account of a component may use. Its secret is not stored.
GRANTS = """
CREATE TABLE grants (
    account TEXT NOT NULL,
    bucket TEXT NOT NULL,
    PRIMARY KEY (account, bucket)
) STRICT, WITHOUT ROWID
"""
# Rows of other tables that could not be read back, see rows.py. `content` is the row as a JSON object.
ROWS_ASIDE = """
CREATE TABLE rows_aside (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    problem TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT
"""
DECIDED = """
INSERT OR IGNORE INTO asked.decisions SELECT app, suspended, approved_revision FROM main.apps
WHERE suspended <> 0 OR approved_revision <> ''
"""
# Apps that are made and deleted, with what each order has led to.
APP_ORDERS = "CREATE TABLE app_orders (id TEXT PRIMARY KEY, app TEXT NOT NULL, record TEXT NOT NULL) STRICT"
# What apps that people have made may use, and the templates that admins have added.
APP_SHARES = "CREATE TABLE app_shares (app TEXT PRIMARY KEY, share TEXT NOT NULL) STRICT"
TEMPLATES = "CREATE TABLE templates (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT"
EMPTY_ASIDE = """
UPDATE rows_aside SET content = '{}'
WHERE kind IN ('the route of', 'the service at', 'the record of the repository')
"""
# The request that each wish has become: a wish is taken in once, and can be queried as long as the request.
WISHES_TAKEN = """
CREATE TABLE wishes_taken (
    wish INTEGER PRIMARY KEY,
    request INTEGER NOT NULL REFERENCES requests (id) ON DELETE CASCADE
) STRICT
"""
WISHES_BY_REQUEST = "CREATE INDEX wishes_by_request ON wishes_taken (request)"
# Values that people have set, encrypted with a key that only the daemon has (see owned_secrets.py).
SECRETS = """
CREATE TABLE secrets (
    app TEXT NOT NULL,
    secret TEXT NOT NULL,
    key TEXT NOT NULL,
    sealed BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (app, secret, key)
) STRICT
"""
# What became of each change, so that it is applied once. `request` is the pass that it asked for, or 0.
CHANGES_TAKEN = """
CREATE TABLE secret_changes_taken (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    secret TEXT NOT NULL,
    author TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT NOT NULL,
    request INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT
"""
CHANGES_BY_APP = "CREATE INDEX secret_changes_taken_by_app ON secret_changes_taken (app, at)"
# One row: the public key for which others seal changes.
SEALING = "CREATE TABLE sealing (id INTEGER PRIMARY KEY CHECK (id = 1), public_key BLOB NOT NULL) STRICT"
# Keys of age, of apps and of the platform folder; `sealed` is the private key, encrypted as `secrets` are. The highest
# number is the newest.
AGE_KEYS = """
CREATE TABLE age_keys (
    app TEXT NOT NULL,
    number INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    sealed BLOB NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (app, number)
) STRICT
"""
# `state` is the notifier's, `record` the dispatcher's (see notifications.py).
NOTIFICATIONS = """
CREATE TABLE notifications (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '{}',
    record TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID
"""
# What has happened and is told once.
NOTICES = "CREATE TABLE notices (id INTEGER PRIMARY KEY AUTOINCREMENT, notice TEXT NOT NULL) STRICT"
# Images that components and stages follow: `image` and `rejected` are those of passes, `state` is the follower's,
# `wanted` is when a person has last asked for the registry to be asked.
FOLLOWED_IMAGES = """
CREATE TABLE followed_images (
    app TEXT NOT NULL,
    subject TEXT NOT NULL,
    image TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT '{}',
    rejected TEXT NOT NULL DEFAULT '',
    wanted REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (app, subject)
) STRICT, WITHOUT ROWID
"""
# Those that were seen for previews; `why` says why one has none, as a message.
BRANCHES = """
CREATE TABLE branches (
    app TEXT NOT NULL,
    ref TEXT NOT NULL,
    head TEXT NOT NULL,
    since REAL NOT NULL,
    why TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (app, ref)
) STRICT, WITHOUT ROWID
"""
BRANCH_PREVIEWS = """
CREATE TABLE branch_previews (
    app TEXT PRIMARY KEY,
    of_app TEXT NOT NULL,
    ref TEXT NOT NULL,
    head TEXT NOT NULL,
    begun REAL NOT NULL,
    since REAL NOT NULL,
    ends REAL NOT NULL
) STRICT, WITHOUT ROWID
"""
