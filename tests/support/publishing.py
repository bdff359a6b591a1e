"""A stored run that guards a group, as if it were publishing into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from controller.domain.names import AppName, ComponentName
from controller.domain.runs.file_index import under_way
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import cancel, new_run, new_run_id
from controller.domain.storage.box import PendingUpload
from controller.ports import Store
from tests.support.specs import make


@contextmanager
def publishing(store: Store, app: AppName, bucket: str, prefix: str) -> Iterator[str]:
    """The run's id. `prefix` of keys, ends in `/`."""
    now = time.time()
    stage = make(Stage, "fit", "sha256:1", outputs=("model",))
    pipeline = make(Pipeline, app, ComponentName("train"), "c0ffee", (stage,))
    run = store.runs.submit(new_run(new_run_id(now, 7), pipeline, now, "ann"))
    store.boxes.guard(PendingUpload(0, bucket, under_way(prefix, run.id), 0, now, now + 100))
    try:
        yield run.id
    finally:
        store.runs.save(cancel(run, now))
