"""Locates files of calls in the storage: links to inputs, and reservations, conflicts and links for outputs.
It queries the database and the storage, so it blocks; `calls` uses threads for it and transfers the bytes
itself.

A caller reaches only their own area in boxes of the component's app: their name and the route determine the
bucket and the prefix, and the request only what follows it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route
from controller.domain.storage.box import BoxState, BoxUsage, PendingUpload
from controller.domain.storage.keys import FilePath, user_area
from controller.ports import Store
from controller.web.api.files.area import MAX_PUT, BoxArea
from controller.web.api.files.publications import require_settled
from controller.web.call_files import variables
from controller.web.call_files.variables import FileOutput, WantedOutputs
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused
from controller.web.storage import StorageClient

log = logging.getLogger(__name__)

LINK_SECONDS = 300.0  # an own link is used at once; the clocks of two hosts may differ


@dataclass(frozen=True)
class FileCall:
    """A call: its caller, and the files of its request. `user` is empty for a caller without a name."""

    route: Route
    user: str
    request_id: str
    wanted: WantedOutputs


@dataclass(frozen=True)
class OutputSlot:
    """The reserved space of an output, and the link to upload it."""

    output: FileOutput
    path: FilePath
    pending: int
    url: str


class FileLocations:
    """`reserve_for`: seconds that space is reserved for an output until it is counted. Errors are those of
    `ports.Objects` and the store, and RequestRefused."""

    def __init__(self, store: Store, storage: StorageClient, reserve_for: float) -> None:
        self._store = store
        self._storage = storage
        self._reserve_for = reserve_for

    def find(self, job: FileCall) -> list[str]:
        """Return links to the inputs, even to missing ones. Refuse targets that cannot become files now,
        before the component computes in vain."""
        for path in job.wanted.targets.values():
            self._area(job, job.route.boxes[0]).check_name(path)
        for wish in job.wanted.inputs:
            self._require_settled(self._area(job, wish.box), wish.path)
        return [self._link("GET", self._area(job, wish.box), wish.path) for wish in job.wanted.inputs]

    def require_settled(self, job: FileCall, path: FilePath) -> None:
        """Raise RequestRefused if a run has begun to publish into the group of an output."""
        self._require_settled(self._area(job, job.route.boxes[0]), path)

    def reserve(self, job: FileCall, outputs: list[FileOutput]) -> list[OutputSlot]:
        """Reserve space for all of them; otherwise for none, and raise RequestRefused."""
        area = self._area(job, job.route.boxes[0])
        paths = variables.places(outputs, job.wanted, job.request_id)
        for path in paths:
            self._require_settled(area, path)
        links = [self._link("PUT", area, path) for path in paths]  # not while the database is locked
        with self._store.transaction():
            return [
                OutputSlot(output, path, self._room(area, output, path), link)
                for output, path, link in zip(outputs, paths, links, strict=True)
            ]

    def release(self, places: Iterable[OutputSlot]) -> None:
        """Free the space of outputs that were not stored; never raises."""
        try:
            self._store.boxes.release([place.pending for place in places])
        except ControllerError as error:
            log.warning("room for outputs that were not stored is kept for a while: %s", error)

    def explain(self, status: int, body: bytes, doing: str) -> ControllerError:
        """Return the problem for the storage's answer to a link."""
        return self._storage.objects().explain(status, body, doing)

    def _area(self, job: FileCall, box: ComponentName) -> BoxArea:
        record = self._store.boxes.get(job.route.app, box)
        if record is None or record.state is not BoxState.BOUND:
            raise Stalled(
                Reason.BUCKET_MISSING,
                Localizable("box {box} of app {app} is not there", box=box, app=job.route.app),
            )
        prefix = user_area(job.user or None)
        objects = self._storage.objects()
        return BoxArea(self._store, self._storage, objects, record, prefix, LINK_SECONDS, time.time())

    def _require_settled(self, area: BoxArea, path: FilePath) -> None:
        require_settled(self._store, area.record, area.key(path), area.now)

    def _link(self, method: str, area: BoxArea, path: FilePath) -> str:
        return area.objects.sign(method, area.bucket, area.key(path), LINK_SECONDS)

    def _room(self, area: BoxArea, output: FileOutput, path: FilePath) -> int:
        if output.size > MAX_PUT:
            detail = Localizable(
                "Output {variable!r} has {size} bytes; the storage takes {max_put} at once.",
                variable=output.variable,
                size=output.size,
                max_put=MAX_PUT,
            )
            raise RequestRefused(
                HttpProblem(ProblemKind.STORAGE_FULL, detail, extra={"limit": MAX_PUT, "size": output.size})
            )
        upload = PendingUpload(
            0, area.bucket, area.key(path), output.size, area.now, area.now + self._reserve_for
        )
        reserved = self._store.boxes.reserve(upload, area.now)
        if isinstance(reserved, BoxUsage):
            raise RequestRefused(area.full(reserved, output.size))
        return reserved
