"""The daemon's part of `prichal image` in a thread, over an engine that is a list."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from controller.config import Settings
from controller.daemon.images import EngineImages, ImageWorker
from controller.domain.apps.kept_images import ImageKind, KeptImage
from controller.domain.errors import ControllerError
from controller.store import SqliteStore

OLD = 1_700_000_000.0


def kept(app: str, kind: ImageKind = ImageKind.BUILT, id: str = "", containers: int = 0) -> KeptImage:
    id = f"sha256:{id or app or 'left'}"
    name = f"prichal.local/{app}/{'pulled' if kind is ImageKind.PULLED else 'build'}:1" if app else ""
    return KeptImage(app, kind, id, name, 5 * 2**20, OLD, containers, OLD if not app else None)


class ListedImages:
    """`fault` is raised in place of the list; `held` are names of images that something begins to use."""

    def __init__(self, *images: KeptImage) -> None:
        self.images = list(images)
        self.fault: ControllerError | Exception | None = None
        self.held = frozenset[str]()
        self.asked = 0

    def listed(self) -> tuple[KeptImage, ...]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return tuple(self.images)

    def remove(self, names: Iterable[str]) -> Collection[str]:
        gone = frozenset(names) - self.held
        self.images = [each for each in self.images if (each.name or each.id) not in gone]
        return gone


@contextmanager
def answering(store: SqliteStore, engine: EngineImages, settings: Settings | None = None) -> Iterator[None]:
    """Answer what is asked for, as the daemon does, without its rests."""
    over = threading.Event()
    worker = ImageWorker(store, engine, settings or Settings(), time.time, lambda: ())

    def work() -> None:
        while not over.wait(0.01):
            worker.work()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
