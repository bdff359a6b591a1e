"""The database of requests: the web process and operators write it, and the daemon does not trust it.

It is next to the state, in a separate folder, and is attached to each connection under the name `asked`; its
tables have names that no table of the state has. The daemon writes the state, takes what is to be done from
here (`intake`), and validates the rest when it reads it. All other processes open the state read-only.

    wishes       that an app be reconciled             taken in
    submissions  runs                                  taken in
    cancels      of runs                               taken in
    secret_changes  of Secrets, sealed                 taken in
    asked_orders that apps be made or deleted          taken in
    call_ends    async calls that are over, for webhooks  taken in
    asked_tests  of notifications                      taken by the notifier
    asked_previews  of the next passes                 read several times a second, deleted when they are there
    asked_images  lists of images, and removals        the same
    caller_keys  Idempotency-Keys of callers           the daemon only deletes them
    decisions    suspended by a person, approved       read at each pass
    rollbacks    to earlier revisions                  read at each pass
    gateways, activity                                 what the gateway has loaded, and when components were called
    shares       that apps take of the gateway         read every few seconds
    pending, arriving, touched                         uploads that were allowed, uploads under way, changed buckets
    moves        of groups of files                    the daemon only deletes them
    deliveries   of webhooks, so that none counts twice
    pushes       to repositories that are hosted here, and by whom
    pushes_under_way  over HTTPS                       read by the web process alone
    preview_decisions  that a preview stay, or go      read about every two seconds
    pull_requests  of forges that are open             read when branches are listed
"""

from __future__ import annotations

import sqlite3
from functools import cache

NAME = "asked"
#: The ids of wishes start here; ids of requests are lower.
FIRST_WISH = 2**40
LAST_WISH = 2**53 - 1  # the largest integer that JSON readers represent exactly
#: The JSON of the caller's name in a submission, which stands between two others (`RunSubmission`). An index has it, so
#: that the submissions that wait are not read for each that is added; functions for JSON are refused in a schema.
SUBMITTED_BY = (
    """substr(submission, instr(submission, ',"user":') + 8, """
    """instr(submission, ',"inputs":') - instr(submission, ',"user":') - 8)"""
)

# Some of these tables are in old migrations of the state, too (schema.py), whence `m008_owners` moved their
# rows. They are repeated here on purpose: a migration never changes, while these are compared with the database.
_TABLES = (
    """CREATE TABLE wishes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    reason TEXT NOT NULL,
    created REAL NOT NULL,
    not_before REAL NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX one_wish ON wishes (app, reason)",
    """CREATE TABLE submissions (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    submission TEXT NOT NULL
) STRICT""",
    "CREATE INDEX submissions_by_app ON submissions (app, id)",
    f"CREATE INDEX submissions_waiting ON submissions (app, {SUBMITTED_BY}, length(submission))",
    "CREATE TABLE cancels (run TEXT PRIMARY KEY, app TEXT NOT NULL, at REAL NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE secret_changes (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created REAL NOT NULL
) STRICT""",
    "CREATE INDEX secret_changes_by_app ON secret_changes (app, created)",
    "CREATE TABLE asked_orders (id TEXT PRIMARY KEY, app TEXT NOT NULL, app_order TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE call_ends (id TEXT PRIMARY KEY, ended_call TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE asked_tests (id TEXT PRIMARY KEY, app TEXT NOT NULL, name TEXT NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE asked_previews (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0
) STRICT""",
    """CREATE TABLE asked_images (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL,
    removes INTEGER NOT NULL DEFAULT 0,
    begun INTEGER NOT NULL DEFAULT 0
) STRICT""",
    """CREATE TABLE caller_keys (
    app TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    user TEXT,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    created REAL NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX one_run_per_key ON caller_keys (app, pipeline, user, key)",
    "CREATE INDEX caller_keys_by_run ON caller_keys (run)",
    """CREATE TABLE decisions (
    app TEXT PRIMARY KEY,
    suspended INTEGER NOT NULL DEFAULT 0,
    approved_revision TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE rollbacks (
    app TEXT PRIMARY KEY,
    revision TEXT NOT NULL,
    replaced TEXT NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE gateways (
    worker TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    busy TEXT NOT NULL,
    heard REAL NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE shares (
    worker TEXT PRIMARY KEY,
    taken TEXT NOT NULL,
    heard REAL NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE activity (
    app TEXT NOT NULL,
    component TEXT NOT NULL,
    last_used REAL NOT NULL,
    PRIMARY KEY (app, component)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    created REAL NOT NULL,
    expires REAL NOT NULL,
    upload TEXT NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX one_pending_per_key ON pending (bucket, upload, key)",
    "CREATE INDEX pending_room ON pending (bucket, expires, size) WHERE size > 0",
    "CREATE INDEX pending_age ON pending (expires)",
    """CREATE TABLE arriving (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    began REAL NOT NULL,
    until REAL NOT NULL,
    upload TEXT NOT NULL,
    part INTEGER NOT NULL,
    stored REAL NOT NULL DEFAULT 0
) STRICT""",
    "CREATE INDEX arriving_by_name ON arriving (bucket, upload, key)",
    "CREATE TABLE touched (bucket TEXT PRIMARY KEY, at REAL NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE moves (
    bucket TEXT NOT NULL,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    files INTEGER NOT NULL,
    began REAL NOT NULL,
    stepped REAL NOT NULL,
    moved INTEGER NOT NULL,
    done INTEGER NOT NULL,
    PRIMARY KEY (bucket, source)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE deliveries (
    repository TEXT NOT NULL,
    id TEXT NOT NULL,
    requests TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (repository, id)
) STRICT""",
    """CREATE TABLE pushes (
    repository TEXT NOT NULL,
    revision TEXT NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (repository, revision)
) STRICT""",
    """CREATE TABLE pushes_under_way (
    digest TEXT PRIMARY KEY,
    hosted TEXT NOT NULL,
    author TEXT NOT NULL,
    via TEXT NOT NULL,
    address TEXT NOT NULL,
    at REAL NOT NULL,
    accepted INTEGER NOT NULL,
    told TEXT NOT NULL,
    left INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE preview_decisions (
    app TEXT PRIMARY KEY,
    kept REAL NOT NULL,
    removed TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE pull_requests (
    repository TEXT NOT NULL,
    number INTEGER NOT NULL,
    branch TEXT NOT NULL,
    fork INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (repository, number)
) STRICT, WITHOUT ROWID""",
)
TABLES = tuple(text.split()[2] for text in _TABLES if text.startswith("CREATE TABLE"))
DECISIONS = (
    "decisions",
    "rollbacks",
    "preview_decisions",
)  # of people; they outlast a file that cannot be read any more
_OBJECTS = r"SELECT type, name, sql FROM asked.sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'"


def make(connection: sqlite3.Connection, first_wish: int = FIRST_WISH) -> None:
    """Create all tables in an empty database. Ids of wishes begin at `first_wish`."""
    for text in _TABLES:
        connection.execute(text)
    connection.execute("INSERT INTO sqlite_sequence VALUES ('wishes', ?)", (first_wish - 1,))


@cache
def _expected() -> frozenset[tuple[str, str, str]]:
    with sqlite3.connect(":memory:") as made:
        for text in _TABLES:
            made.execute(text)
        return frozenset(made.execute(_OBJECTS.replace(f"{NAME}.", "")).fetchall())


def is_sound(connection: sqlite3.Connection) -> bool:
    """Return whether the database has exactly our tables and indexes as we create them, without triggers and
    views.
    """
    return _found(connection) == _expected()


def is_complete(connection: sqlite3.Connection) -> bool:
    """Return whether all of our tables and indexes are there. A daemon of an older release has made fewer."""
    return _found(connection) >= _expected()


def _found(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str]]:
    return frozenset(tuple(row) for row in connection.execute(_OBJECTS).fetchall())


def put_right(connection: sqlite3.Connection) -> None:
    """Delete foreign objects and create missing ones. Called by the owner of the state, in a transaction."""
    foreign = _found(connection) - _expected()
    for kind in ("trigger", "view", "index", "table"):  # an index is dropped with its table
        for type, name, _ in sorted(foreign):
            if type == kind:
                quoted = name.replace('"', '""')
                connection.execute(f'DROP {kind} IF EXISTS {NAME}."{quoted}"')
    there = {name for _, name, _ in _found(connection)}
    for text in _TABLES:
        name = text.split()[3 if text.startswith("CREATE UNIQUE") else 2]
        if name not in there:
            connection.execute(text.replace(f" {name}", f" {NAME}.{name}", 1))
    if "wishes" not in there:
        begin_wishes(connection)


def begin_wishes(connection: sqlite3.Connection) -> None:
    """Continue ids of wishes after those that the daemon has taken, so that each counts once."""
    connection.execute("DELETE FROM asked.sqlite_sequence WHERE name = 'wishes'")
    connection.execute("INSERT INTO asked.sqlite_sequence VALUES ('wishes', ?)", (next_wish(connection) - 1,))


def next_wish(connection: sqlite3.Connection) -> int:
    """Return the next id; ignore foreign wishes with ids at the end of the range."""
    if not connection.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'wishes_taken'").fetchone():
        return FIRST_WISH
    query = "SELECT max(wish) FROM main.wishes_taken WHERE wish < ?"
    last: int | None = connection.execute(query, (LAST_WISH // 2,)).fetchone()[0]
    return FIRST_WISH if last is None else max(FIRST_WISH, last + 1)
