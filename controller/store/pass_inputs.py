"""A digest of all rows by which a pass over an app is decided, in one query: a pass over an app in which nothing has
changed reads nothing else of the state.

A test compares these tables with those that a whole pass reads.
"""

from __future__ import annotations

import hashlib
from typing import Final

from controller.domain.names import AppName
from controller.store.sqlite import Database

_SELECTS: Final = (
    "'status', status, '' FROM apps",
    "'decision', suspended, approved_revision FROM decisions",
    "'rollback', revision, at FROM rollbacks",
    "'route ' || component, route, '' FROM routes",
    "'service ' || path, service, '' FROM services",
    "'secret ' || secret, key, sealed FROM secrets",
    "'age key', number, sealed FROM age_keys",
    "'image ' || subject, image || ' ' || state || ' ' || rejected, wanted FROM followed_images",
    "'notification ' || name, spec, '' FROM notifications",
    "'activity ' || component, last_used, '' FROM activity",
    "'gpus ' || workload, gpus, share FROM gpus",
    "'gpu request ' || component, wanted, share FROM gpu_requests",
    "'box ' || box, bucket, state FROM boxes",
    "'pipeline ' || name, pipeline, '' FROM pipelines",
)
_RUNS: Final = """SELECT 'runs', EXISTS (SELECT 1 FROM runs INDEXED BY runs_by_state
WHERE state IN ('QUEUED', 'STARTING', 'RUNNING', 'CANCELING') AND app = :app), ''"""
_ALL: Final = " UNION ALL ".join([*(f"SELECT {each} WHERE app = :app" for each in _SELECTS), _RUNS])


def digest_of_inputs(database: Database, app: AppName) -> bytes:
    with database.read() as db:
        rows = db.execute(_ALL, {"app": app}).fetchall()
    return hashlib.blake2b(repr([tuple(row) for row in rows]).encode(), digest_size=16).digest()
