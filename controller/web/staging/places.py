"""Where the files of calls lie in the storage: links to inputs, and room, conflicts and links for outputs. Asks the
database and the storage, so it blocks; `calls` calls it in threads and moves the bytes itself.

A caller reaches his own area in boxes of the component's app, and nothing else: his name and the route choose the
bucket and the prefix, what he sends is only what comes behind it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from controller.domain.errors import ControllerError, Stalled
from controller.domain.keys import FilePath, user_area
from controller.domain.names import ComponentName
from controller.domain.routes import Route
from controller.domain.storage import BoxState, Pending, Room
from controller.ports import Store
from controller.web.files.area import MAX_PUT, Area
from controller.web.problems import Kind, Problem, Refused
from controller.web.staging import variables
from controller.web.staging.variables import FileOutput, Wanted
from controller.web.storage import StorageClient

log = logging.getLogger(__name__)

LINK_SECONDS = 300.0  # an own link is used at once; the clocks of two hosts may differ


@dataclass(frozen=True)
class Job:
    """One call: who it is for, and what it said of files. `user` is empty for a caller without a name."""

    route: Route
    user: str
    request_id: str
    wanted: Wanted


@dataclass(frozen=True)
class Place:
    """Room that is reserved for one output, and the link that fills it."""

    output: FileOutput
    path: FilePath
    pending: int
    url: str


class Places:
    """`reserve_for`: seconds that room is kept for an output until it is counted. Errors are those of `ports.Objects`
    and the store, and Refused."""

    def __init__(self, store: Store, storage: StorageClient, reserve_for: float) -> None:
        self._store = store
        self._storage = storage
        self._reserve_for = reserve_for

    def find(self, job: Job) -> list[str]:
        """Links to the inputs, whether they are there or not. Refuses targets that cannot become files now, before
        the component has worked in vain."""
        for path in job.wanted.targets.values():
            self._area(job, job.route.boxes[0]).check_name(path)
        return [self._link("GET", self._area(job, wish.box), wish.path) for wish in job.wanted.inputs]

    def reserve(self, job: Job, outputs: list[FileOutput]) -> list[Place]:
        """Room for all of them, or for none and Refused."""
        area = self._area(job, job.route.boxes[0])
        paths = variables.places(outputs, job.wanted, job.request_id)
        links = [self._link("PUT", area, path) for path in paths]  # not while the database is locked
        with self._store.transaction():
            return [
                Place(output, path, self._room(area, output, path), link)
                for output, path, link in zip(outputs, paths, links, strict=True)
            ]

    def release(self, places: Iterable[Place]) -> None:
        """Give back the room of what was not stored; never raises."""
        try:
            self._store.boxes.release([place.pending for place in places])
        except ControllerError as error:
            log.warning("room for outputs that were not stored is kept for a while: %s", error)

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """What the storage's answer to a link means."""
        return self._storage.objects().explain(status, body, doing)

    def _area(self, job: Job, box: ComponentName) -> Area:
        record = self._store.boxes.get(job.route.app, box)
        if record is None or record.state is not BoxState.BOUND:
            raise Stalled("BucketMissing", f"box {box} of app {job.route.app} is not there")
        prefix = user_area(job.user or None)
        objects = self._storage.objects()
        return Area(self._store, self._storage, objects, record, prefix, LINK_SECONDS, time.time())

    def _link(self, method: str, area: Area, path: FilePath) -> str:
        return area.objects.sign(method, area.bucket, area.key(path), LINK_SECONDS, public=False)

    def _room(self, area: Area, output: FileOutput, path: FilePath) -> int:
        if output.size > MAX_PUT:
            detail = (
                f"Output {output.variable!r} has {output.size} bytes; the storage takes {MAX_PUT} at once."
            )
            raise Refused(Problem(Kind.STORAGE_FULL, detail, extra={"limit": MAX_PUT, "size": output.size}))
        upload = Pending(0, area.bucket, area.key(path), output.size, area.now, area.now + self._reserve_for)
        reserved = self._store.boxes.reserve(upload, area.now)
        if isinstance(reserved, Room):
            raise Refused(area.full(reserved, output.size))
        return reserved
