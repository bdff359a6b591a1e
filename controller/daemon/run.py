"""The life of the daemon: lock, open, recover, start, work until a signal, stop in the reverse order.

Containers are not stopped with the daemon: services keep running.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from controller import memory
from controller.config import Settings
from controller.daemon.app_usage import Uses
from controller.daemon.last_fault import LastFault
from controller.daemon.lock import only_one
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.restarts import RestartLog
from controller.daemon.stop_signals import stop_on_signals
from controller.daemon.timers import Timers
from controller.daemon.wiring import (
    build_cron_scheduler,
    build_jobs,
    build_reconciler_deps,
    build_runner_deps,
    build_sender,
    prepare_folders,
)
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.names import PLATFORM
from controller.guards import GuardedGroup, GuardedStep, Life
from controller.notify import notify
from controller.ports import QueueLimits, Store
from controller.reconcile.box_usage import UsageScanner
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.loop import ControlLoop
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from controller.reconcile.scratch import ScratchScan
from controller.runner.runner import Runner
from controller.runner.webhook_dispatcher import WebhookDispatcher
from controller.store import open_store

log = logging.getLogger(__name__)

_WATCH_PAUSE = 2.0


def run(settings: Settings) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT. Returns the exit code."""
    stop = threading.Event()
    stop_on_signals(stop)
    return serve(settings, stop)


def up(settings: Settings) -> int:
    """Run daemon and web process together in the foreground, for a first try and for development."""
    stop = threading.Event()
    stop_on_signals(stop)
    prepare_folders(settings)
    if not settings.platform.url:  # a first try should not fail because an empty folder is missing
        Path(settings.platform.path).mkdir(parents=True, exist_ok=True)
    return serve(settings, stop, {"web": _web_command(settings)})


def serve(
    settings: Settings, stop: threading.Event, children: Mapping[str, Sequence[str]] | None = None
) -> int:
    """Run until `stop`, together with `children`, commands by name. Returns the exit code, which is 0 only if
    the stop was requested from outside.
    """
    prepare_folders(settings)
    memory.keep_little()
    memory.give_back_for_ever()
    with only_one(settings.private):
        queue = QueueLimits(settings.runs.queued, settings.runs.queued_size)
        fault = LastFault(settings.private)
        store = open_store(
            settings.database,
            keep_events=settings.reconcile.keep_events,
            queue=queue,
            distrust=fault.begin(),
        )
        restarts = RestartLog(store)
        reconciler_deps = build_reconciler_deps(settings, store, stop.is_set, tell=restarts.record)
        group = GuardedGroup(stop, restarts.record)
        try:
            _run_until_stop(reconciler_deps, store, stop, group, children or {})
        finally:
            reconciler_deps.engine.close()
            reconciler_deps.storage.close()
            store.close()
            fault.end()
    return 1 if group.failed else 0


def _run_until_stop(
    reconciler_deps: ReconcilerDeps,
    store: Store,
    stop: threading.Event,
    group: GuardedGroup,
    children: Mapping[str, Sequence[str]],
) -> None:
    folder = PlatformFolder(reconciler_deps.settings, reconciler_deps.sources)
    platform = PlatformReconciler(reconciler_deps, folder.read, folder.keep, folder.last)
    requeued = store.requests.recover()
    reconciler_deps.models.recover()
    store.requests.enqueue(PLATFORM, Trigger.START)
    jobs = build_jobs(reconciler_deps.settings)
    deps = build_runner_deps(reconciler_deps, jobs)
    runner = Runner(deps)
    scratch = ScratchScan(reconciler_deps)
    uses = Uses(reconciler_deps, lambda: runner.disk.used, lambda: scratch.used)
    schedule = Timers(
        reconciler_deps.settings,
        store,
        reconciler_deps.catalog,
        folder,
        reconciler_deps.engine,
        uses.record,
        scratch.scan,
    )
    webhook_dispatcher = WebhookDispatcher(
        deps, build_sender(reconciler_deps.settings), lambda: reconciler_deps.catalog.known
    )
    loop = ControlLoop(
        store,
        reconciler_deps.clock,
        _worker(reconciler_deps, platform),
        reconciler_deps.settings.reconcile.workers,
        _beat(reconciler_deps),
    )
    lives: dict[str, Life] = {
        "schedule": schedule.run,
        "watch": partial(_watch, reconciler_deps),
        "accounting": _usage_scanner(reconciler_deps).run,
        "runner": runner.run,
        "webhooks": webhook_dispatcher.run,
        "cron": build_cron_scheduler(reconciler_deps).run,
    }
    for name, life in lives.items():
        group.thread(name, life)
    for name, command in children.items():
        group.child(name, command)
    log.info("daemon started", extra={"state": reconciler_deps.settings.state, "requeued": requeued})
    notify("READY=1")
    try:
        _run_loop(loop, stop)
    finally:
        notify("STOPPING=1")
        stop.set()
        schedule.stop()
        group.join(timeout=5.0)
        jobs.close()
        log.info("daemon stopped")


def _run_loop(loop: ControlLoop, stop: threading.Event) -> None:
    """Raises if the loop ends although nobody has asked for it: the exit code tells the service manager to start
    the daemon again."""
    try:
        loop.run(stop)
    except SystemExit as error:
        raise RuntimeError("the control loop was left by SystemExit") from error
    if not stop.is_set():
        raise RuntimeError("the control loop ended by itself")


def _worker(
    reconciler_deps: ReconcilerDeps, platform: PlatformReconciler
) -> Callable[[ReconcileRequest], PassOutcome]:
    """Return a function that handles a request by its key: the platform folder or an app."""

    def work(request: ReconcileRequest) -> PassOutcome:
        if request.app == PLATFORM:
            return platform.reconcile(request)
        if not reconciler_deps.catalog.known:  # before the folder was read, every app would look disconnected
            return PassOutcome(Outcome.WAITING, "the platform folder has not been read yet", retry_after=1.0)
        return reconcile(reconciler_deps, request)

    return work


def _beat(reconciler_deps: ReconcilerDeps) -> Callable[[], None]:
    def beat() -> None:
        reconciler_deps.store.heartbeat(reconciler_deps.clock.now())
        notify("WATCHDOG=1")

    return beat


def _watch(reconciler_deps: ReconcilerDeps, stop: threading.Event) -> None:
    """Request a pass whenever something happens to our containers, whatever the cause."""
    follow = GuardedStep(
        "cannot follow the events of the engine", partial(_follow_events, reconciler_deps, stop)
    )
    while not stop.is_set():
        follow()
        stop.wait(_WATCH_PAUSE)


def _follow_events(reconciler_deps: ReconcilerDeps, stop: threading.Event) -> None:
    for event in reconciler_deps.engine.watch(stop.is_set):
        reconciler_deps.store.requests.enqueue(event.app, Trigger.DRIFT)


def _usage_scanner(reconciler_deps: ReconcilerDeps) -> UsageScanner:
    return UsageScanner(
        reconciler_deps.store,
        reconciler_deps.storage,
        reconciler_deps.clock,
        reconciler_deps.settings.storage.abandon_after,
    )


def _web_command(settings: Settings) -> list[str]:
    # -P keeps Python from importing modules of the current folder
    command = [sys.executable, "-P", "-m", "controller", "web"]
    return [*command, "--config", str(settings.source)] if settings.source else command
