"""The daemon's life: lock, open, recover, start, turn until a signal, stop in the reverse order.

Containers are never stopped with the daemon: what serves goes on serving.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.config import Settings
from controller.daemon.lock import only_one
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.schedule import Schedule
from controller.daemon.wiring import (
    build_deps,
    build_house,
    build_jobs,
    build_sender,
    build_timetable,
    prepare_folders,
)
from controller.domain.errors import ControllerError
from controller.domain.names import PLATFORM
from controller.domain.status import Request
from controller.notify import notify
from controller.ports import Store
from controller.reconcile.accounting import Accountant
from controller.reconcile.house import House, Outcome
from controller.reconcile.loop import Loop
from controller.reconcile.passes import reconcile
from controller.reconcile.platform import Platform
from controller.runner.runner import Runner
from controller.runner.webhooks import Deliverer
from controller.store import open_store

log = logging.getLogger(__name__)

_WATCH_PAUSE = 2.0


def run(settings: Settings) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT. The exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return serve(settings, stop)


def up(settings: Settings) -> int:
    """Daemon and web process together in the foreground, for a first look and for development."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    prepare_folders(settings)
    if not settings.platform.url:  # a first try should not fail for want of an empty folder
        Path(settings.platform.path).mkdir(parents=True, exist_ok=True)
    with _web_process(settings, stop):
        return serve(settings, stop)


def serve(settings: Settings, stop: threading.Event) -> int:
    prepare_folders(settings)
    with only_one(settings.private):
        store = open_store(settings.database, keep_events=settings.reconcile.keep_events)
        house = build_house(settings, store, stop.is_set)
        try:
            _turn(house, store, stop)
        finally:
            notify("STOPPING=1")
            house.engine.close()
            house.storage.close()
            store.close()
    return 0


def _turn(house: House, store: Store, stop: threading.Event) -> None:
    folder = PlatformFolder(house.settings, house.sources)
    platform = Platform(house, folder.read)
    requeued = store.requests.recover()
    house.models.recover()
    store.requests.enqueue(PLATFORM, "start")
    schedule = Schedule(house.settings, store, house.directory, folder)
    watcher = threading.Thread(target=_watch, args=(house, stop), name="watch", daemon=True)
    accounting = threading.Thread(target=_accountant(house).run, args=(stop,), name="accounting", daemon=True)
    jobs = build_jobs(house.settings)
    deps = build_deps(house, jobs)
    runner = threading.Thread(target=Runner(deps).run, args=(stop,), name="runner", daemon=True)
    deliverer = Deliverer(deps, build_sender(house.settings), lambda: house.directory.known)
    webhooks = threading.Thread(target=deliverer.run, args=(stop,), name="webhooks", daemon=True)
    starting = build_timetable(house)
    timetable = threading.Thread(target=starting.run, args=(stop,), name="timetable", daemon=True)
    loop = Loop(store, house.clock, _worker(house, platform), house.settings.reconcile.workers, _beat(house))
    schedule.start()
    watcher.start()
    accounting.start()
    runner.start()
    webhooks.start()
    timetable.start()
    log.info("daemon started", extra={"state": house.settings.state, "requeued": requeued})
    notify("READY=1")
    try:
        loop.run(stop)
    finally:
        stop.set()
        schedule.stop()
        watcher.join(timeout=5.0)
        accounting.join(timeout=5.0)
        runner.join(timeout=5.0)
        webhooks.join(timeout=5.0)
        timetable.join(timeout=5.0)
        jobs.close()
        log.info("daemon stopped")


def _worker(house: House, platform: Platform) -> Callable[[Request], Outcome]:
    """Requests by their key: the platform folder or an app."""

    def work(request: Request) -> Outcome:
        if request.app == PLATFORM:
            return platform.reconcile(request)
        if not house.directory.known:  # before the folder was read every app would look disconnected
            return Outcome("Waiting", "the platform folder has not been read yet", retry_after=1.0)
        return reconcile(house, request)

    return work


def _beat(house: House) -> Callable[[], None]:
    def beat() -> None:
        house.store.heartbeat(house.clock.now())
        notify("WATCHDOG=1")

    return beat


def _watch(house: House, stop: threading.Event) -> None:
    """What happens to our containers asks for a pass, whoever did it."""
    while not stop.is_set():
        try:
            for event in house.engine.watch(stop.is_set):
                house.store.requests.enqueue(event.app, "drift")
        except ControllerError as error:
            log.warning("events of the engine are lost: %s", error.message)
        except Exception:
            log.exception("bug in the watcher")
        stop.wait(_WATCH_PAUSE)


def _accountant(house: House) -> Accountant:
    return Accountant(house.store, house.storage, house.clock, house.settings.storage.abandon_after)


@contextmanager
def _web_process(settings: Settings, stop: threading.Event) -> Iterator[None]:
    command = [sys.executable, "-m", "controller", "web"]
    if settings.source:
        command += ["--config", str(settings.source)]
    process = subprocess.Popen(command)

    def watch() -> None:
        code = process.wait()
        if not stop.is_set():
            log.error("the web process ended", extra={"code": code})
            stop.set()

    threading.Thread(target=watch, name="web", daemon=True).start()
    try:
        yield
    finally:
        process.terminate()
        process.wait()  # it ends by itself: calls under way get their time, see web/server.py
