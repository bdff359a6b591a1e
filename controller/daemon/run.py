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
from controller.ports import QueueLimits
from controller.reconcile.box_usage import UsageScanner
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.loop import ControlLoop
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from controller.reconcile.scratch import ScratchScan
from controller.runner.deps import RunnerDeps
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
        deps = build_reconciler_deps(settings, store, stop.is_set, tell=restarts.record)
        group = GuardedGroup(stop, restarts.record)
        try:
            _run_until_stop(deps, stop, group, children or {})
        finally:
            deps.engine.close()
            deps.storage.close()
            store.close()
            fault.end()
    return 1 if group.failed else 0


def _run_until_stop(
    deps: ReconcilerDeps,
    stop: threading.Event,
    group: GuardedGroup,
    children: Mapping[str, Sequence[str]],
) -> None:
    store = deps.store
    folder = PlatformFolder(deps.settings, deps.sources)
    loop = _control_loop(deps, folder)
    requeued = store.requests.recover()
    deps.models.recover()
    store.requests.enqueue(PLATFORM, Trigger.START)
    jobs = build_jobs(deps.settings)
    timers, lives = _threads(deps, build_runner_deps(deps, jobs), folder)
    for name, life in lives.items():
        group.thread(name, life)
    for name, command in children.items():
        group.child(name, command)
    log.info("daemon started", extra={"state": deps.settings.state, "requeued": requeued})
    notify("READY=1")
    try:
        _run_loop(loop, stop)
    finally:
        notify("STOPPING=1")
        stop.set()
        timers.stop()
        group.join(timeout=5.0)
        jobs.close()
        log.info("daemon stopped")


def _threads(
    deps: ReconcilerDeps, runner_deps: RunnerDeps, folder: PlatformFolder
) -> tuple[Timers, dict[str, Life]]:
    """Return the timers and, by name, what each thread beside the control loop does."""
    settings, store, catalog = deps.settings, deps.store, deps.catalog
    runner = Runner(runner_deps)
    scratch = ScratchScan(deps)
    uses = Uses(deps, lambda: runner.disk.used, lambda: scratch.used)
    timers = Timers(settings, store, catalog, folder, deps.engine, uses.record, scratch.scan)
    webhooks = WebhookDispatcher(runner_deps, build_sender(settings), lambda: catalog.known)
    return timers, {
        "schedule": timers.run,
        "watch": partial(_watch, deps),
        "accounting": _usage_scanner(deps).run,
        "runner": runner.run,
        "webhooks": webhooks.run,
        "cron": build_cron_scheduler(deps).run,
    }


def _control_loop(deps: ReconcilerDeps, folder: PlatformFolder) -> ControlLoop:
    platform = PlatformReconciler(deps, folder.read, folder.keep, folder.last)
    return ControlLoop(
        deps.store,
        deps.clock,
        _worker(deps, platform),
        deps.settings.reconcile.workers,
        _beat(deps),
    )


def _run_loop(loop: ControlLoop, stop: threading.Event) -> None:
    """Raises if the loop ends although nobody has asked for it: the exit code tells the service manager to start
    the daemon again."""
    try:
        loop.run(stop)
    except SystemExit as error:
        raise RuntimeError("the control loop was left by SystemExit") from error
    if not stop.is_set():
        raise RuntimeError("the control loop ended by itself")


def _worker(deps: ReconcilerDeps, platform: PlatformReconciler) -> Callable[[ReconcileRequest], PassOutcome]:
    """Return a function that handles a request by its key: the platform folder or an app."""

    def work(request: ReconcileRequest) -> PassOutcome:
        if request.app == PLATFORM:
            return platform.reconcile(request)
        if not deps.catalog.known:  # before the folder was read, every app would look disconnected
            return PassOutcome(Outcome.WAITING, "the platform folder has not been read yet", retry_after=1.0)
        return reconcile(deps, request)

    return work


def _beat(deps: ReconcilerDeps) -> Callable[[], None]:
    def beat() -> None:
        deps.store.heartbeat(deps.clock.now())
        notify("WATCHDOG=1")

    return beat


def _watch(deps: ReconcilerDeps, stop: threading.Event) -> None:
    """Request a pass whenever something happens to our containers, whatever the cause."""
    follow = GuardedStep("cannot follow the events of the engine", partial(_follow_events, deps, stop))
    while not stop.is_set():
        follow()
        stop.wait(_WATCH_PAUSE)


def _follow_events(deps: ReconcilerDeps, stop: threading.Event) -> None:
    for event in deps.engine.watch(stop.is_set):
        deps.store.requests.enqueue(event.app, Trigger.DRIFT)


def _usage_scanner(deps: ReconcilerDeps) -> UsageScanner:
    return UsageScanner(
        deps.store,
        deps.storage,
        deps.clock,
        deps.settings.storage.abandon_after,
    )


def _web_command(settings: Settings) -> list[str]:
    # -P keeps Python from importing modules of the current folder
    command = [sys.executable, "-P", "-m", "controller", "web"]
    return [*command, "--config", str(settings.source)] if settings.source else command
