"""Checks that the input files of a run are in their boxes: so callers learn of missing files at submission,
not after the run has waited in the queue. Used by the views of the run API. If the storage does not answer
soon, the check is skipped, and the stage detects missing files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.runs.run import Run, RunInput
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import parse_path
from controller.ports import Objects, Store
from controller.serving.problems import RequestFault
from controller.web.api.files.publications import being_published
from controller.web.storage import StorageClient

log = logging.getLogger(__name__)

LOOKUP_TIMEOUT: Final = 5.0  # seconds that all questions about one run may take together


def absent_inputs(
    run: Run, places: Sequence[str], store: Store, storage: StorageClient
) -> list[RequestFault]:
    """Return the missing inputs. `places` has the pointer into the request for each input."""
    files = [
        (given, place) for given, place in zip(run.inputs, places, strict=True) if given.datatype == "FILE"
    ]
    if not files:
        return []
    try:
        there = list(
            storage.start(
                _looking(run, store, storage.objects()), [given for given, _ in files], within=LOOKUP_TIMEOUT
            )
        )
    except (ControllerError, TimeoutError) as error:
        log.warning("inputs of a run are not looked for: %s", error, extra={"run": run.id})
        return []
    return [
        RequestFault(place, _absent(given))
        for (given, place), found in zip(files, there, strict=True)
        if not found
    ]


def _looking(run: Run, store: Store, objects: Objects) -> Callable[[RunInput], bool]:
    def is_there(given: RunInput) -> bool:
        box = given.box or next(iter(run.pipeline.boxes), "")
        record = store.boxes.get(run.app, ComponentName(box))
        if record is None:
            return True  # it is being created
        path = parse_path(given.data)
        key = path.key(run.prefix(run.area))
        if path.is_group:
            there = bool(objects.page(record.bucket, key, limit=1).objects)
        else:
            there = objects.stat(record.bucket, key) is not None
        return there or _is_on_its_way(store, record, key)

    return is_there


def _is_on_its_way(store: Store, record: BoxRecord, key: str) -> bool:
    """Return True if a run is publishing there: the stage waits until it has done so."""
    prefixes = being_published(store, record, time.time())
    return any(
        key.startswith(prefix) or (key.endswith("/") and prefix.startswith(key)) for prefix in prefixes
    )


def _absent(given: RunInput) -> str:
    path = (
        Localizable("{path!r} of box {box}", path=given.data, box=given.box)
        if given.box
        else repr(given.data)
    )
    if given.data.endswith("/"):
        return Localizable(
            "input {name!r}: there are no files in the group {path}; upload them first",
            name=given.name,
            path=path,
        )
    return Localizable("input {name!r}: there is no file {path}; upload it first", name=given.name, path=path)
