"""The object storage as the web process reaches it: one client a worker, made when it is first needed, and what its
errors mean to callers. Used by the views of the files API; which storage it is, the daemon tells through the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from controller.domain.errors import ControllerError, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.storage.box import StorageAccess
from controller.ports import Objects, Store
from controller.web.problems import HttpProblem, ProblemKind

log = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds, told to callers while the storage is in trouble
AT_ONCE = 8  # questions to the storage beside those of the views' own threads

T = TypeVar("T")
U = TypeVar("U")

#: Makes a client of the storage; given by the composition root, since no adapter is known here.
Connect = Callable[[StorageAccess], Objects]

_ERRORS: dict[str, HttpProblem] = {
    Reason.STORAGE_UNREACHABLE: HttpProblem(
        ProblemKind.STORAGE_UNREACHABLE,
        Localizable("The storage does not answer at the moment."),
        retry_after=RETRY_AFTER,
    ),
    Reason.LINKS_NOT_SERVED: HttpProblem(
        ProblemKind.STORAGE_UNREACHABLE,
        Localizable(
            "Links to files are not served at the moment: their address is in use by another program. The platform's "
            "operator finds more in `prichal doctor`."
        ),
        retry_after=RETRY_AFTER,
    ),
    Reason.STORAGE_FULL: HttpProblem(
        ProblemKind.STORAGE_FULL,
        Localizable("The storage itself is full; the platform's operator has to free space."),
    ),
    Reason.BUCKET_MISSING: HttpProblem(
        ProblemKind.BUCKET_MISSING,
        Localizable("The box has lost its bucket; it is being made again."),
        retry_after=RETRY_AFTER,
    ),
    Reason.STORAGE_DENIED: HttpProblem(
        ProblemKind.STORAGE_REFUSED,
        Localizable("The storage does not let the platform do this."),
        retry_after=RETRY_AFTER,
    ),
    Reason.STORAGE_REFUSED: HttpProblem(
        ProblemKind.STORAGE_REFUSED,
        Localizable("The storage answered with an error; the platform's log has it."),
        retry_after=RETRY_AFTER,
    ),
}


class StorageClient:
    """The client for what the daemon told last. Shared by the threads of one worker. `serves_links`: whether links lead
    to this process, not to whatever else has their address."""

    def __init__(self, store: Store, connect: Connect, serves_links: bool = True) -> None:
        self._store = store
        self._connect = connect
        self.serves_links = serves_links
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storage")
        self._access: StorageAccess | None = None
        self._objects: Objects | None = None

    def access(self) -> StorageAccess:
        """Transient `StorageUnreachable` before the daemon has told anything."""
        access = self._store.boxes.access()
        if access is None:
            raise Transient(Reason.STORAGE_UNREACHABLE, "the daemon has not made a storage known yet")
        return access

    def linked(self) -> StorageAccess:
        """Return the storage for code that makes links. Transient `LinksNotServed` while another program would be
        given them."""
        if not self.serves_links:
            raise Transient(Reason.LINKS_NOT_SERVED, "another program listens where links to files lead")
        return self.access()

    def objects(self) -> Objects:
        """Transient `StorageUnreachable`, as of `access`."""
        access = self.access()
        with self._lock:
            if self._objects is None or access != self._access:
                self._drop()
                self._objects, self._access = self._connect(access), access
            return self._objects

    def start(self, ask: Callable[[T], U], about: Iterable[T], within: float | None = None) -> Iterator[U]:
        """Ask about all of them side by side, beginning now; the answers come in their order. TimeoutError after
        `within` seconds."""
        return self._threads.map(ask, about, timeout=within)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        # Calls of other threads that are under way keep their connections until they end.
        if self._objects is not None:
            self._objects.close()
        self._objects = None


def storage_problem(error: ControllerError) -> HttpProblem | None:
    """Return the problem for the caller, or None if the storage did not fail."""
    return _ERRORS.get(error.reason)
