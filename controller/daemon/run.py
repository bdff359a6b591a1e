"""The life of the daemon: lock, open, recover, start, work until a signal, stop in the reverse order.

Containers are not stopped with the daemon: services keep running.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller import memory
from controller.config import Settings
from controller.daemon.app_usage import Uses
from controller.daemon.build_logs import BuildLogs
from controller.daemon.component_logs import ComponentLogs
from controller.daemon.gpus import GpuWatch
from controller.daemon.health import write_health
from controller.daemon.images import ImageWorker
from controller.daemon.instance_key import settle
from controller.daemon.last_fault import LastFault
from controller.daemon.lock import only_one
from controller.daemon.orders import OrderWorker
from controller.daemon.platform_folder import PlatformFolder
from controller.daemon.previews import PreviewWorker
from controller.daemon.restarts import RestartLog
from controller.daemon.sampling import ComponentSampler
from controller.daemon.stop_signals import stop_on_signals
from controller.daemon.templates import TemplateShelf
from controller.daemon.timers import Timers
from controller.daemon.wiring import (
    build_cron_scheduler,
    build_engine_images,
    build_image_follower,
    build_jobs,
    build_notification_sender,
    build_notifier,
    build_preview_deps,
    build_reconciler_deps,
    build_runner_deps,
    build_senders,
    prepare_folders,
)
from controller.domain.apps.requests import Outcome, ReconcileRequest, Trigger
from controller.domain.errors import ControllerError, Stalled
from controller.domain.names import PLATFORM, app_of_previews
from controller.domain.reasons import Reason
from controller.guards import GuardedGroup, GuardedStep, Life
from controller.notify import notify
from controller.ports import QueueLimits
from controller.reconcile.box_usage import UsageScanner
from controller.reconcile.branch_previews import look_at_branches
from controller.reconcile.deps import PassOutcome, ReconcilerDeps
from controller.reconcile.loop import ControlLoop
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from controller.reconcile.scratch import ScratchScan
from controller.runner.deps import RunnerDeps
from controller.runner.runner import Runner
from controller.runner.webhook_dispatcher import WebhookDispatcher
from controller.store import open_store
from controller.tracing.starting import start_tracing

log = logging.getLogger(__name__)

_WATCH_PAUSE = 2.0
_BUILD_SHARE = 16  # of the bound of an app's logs that the log of one build may take


def run(settings: Settings) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT. Returns the exit code."""
    stop = threading.Event()
    stop_on_signals(stop)
    return serve(settings, stop)


def up(settings: Settings) -> int:
    """Run daemon, web process and Git service together in the foreground, for a first try and for development."""
    stop = threading.Event()
    stop_on_signals(stop)
    prepare_folders(settings)
    if not settings.platform.url:  # a first try should not fail because an empty folder is missing
        Path(settings.platform.path).mkdir(parents=True, exist_ok=True)
    children = {"web": _command(settings, "web")}
    if settings.git.http:
        children["git-http"] = _command(settings, "git-http")
    if settings.backup.to and settings.backup.schedule:
        children["backup"] = _command(settings, "backup", "run")
    return serve(settings, stop, children)


def serve(
    settings: Settings, stop: threading.Event, children: Mapping[str, Sequence[str]] | None = None
) -> int:
    """Run until `stop`, together with `children`, commands by name. Returns the exit code, which is 0 only if
    the stop was requested from outside.
    """
    prepare_folders(settings)
    if settings.restore_marker.exists():
        advice = "make it again with `prichal backup restore`, or move that folder away"
        text = f"a restore into {settings.state} was interrupted: {advice}"
        raise Stalled(Reason.RESTORE_INCOMPLETE, text)
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
        settle(settings.private, store.secrets)
        restarts = RestartLog(store)
        gpus = GpuWatch(settings)
        deps = build_reconciler_deps(settings, store, stop.is_set, tell=restarts.record)
        tracer = start_tracing(settings.tracing, "prichal-daemon")
        deps = replace(deps, lost_gpus=gpus.lost, tracer=tracer)
        group = GuardedGroup(stop, restarts.record)
        try:
            _run_until_stop(deps, stop, group, children or {}, gpus)
        finally:
            tracer.close()
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
    gpus: GpuWatch,
) -> None:
    logs = _component_logs(deps)
    deps = replace(deps, finish_log=logs.finish, build_log=_build_logs(deps).of)
    store = deps.store
    folder = PlatformFolder(deps.settings, deps.sources, lambda: deps.store.age_keys.of(PLATFORM))
    templates = TemplateShelf(deps.settings, store)
    platform = PlatformReconciler(deps, folder.read, folder.keep, folder.last)
    loop = _control_loop(deps, platform, templates)
    requeued = store.requests.recover()
    deps.models.recover()
    _restore_gpus(deps)
    store.requests.enqueue(PLATFORM, Trigger.START)
    jobs = build_jobs(deps.settings)
    timers, lives = _threads(deps, build_runner_deps(deps, jobs), folder, gpus, platform)
    lives["gpus"] = partial(gpus.run, deps.gpu_leases)
    lives["templates"] = templates.run
    lives["logs"] = logs.run
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


def _restore_gpus(deps: ReconcilerDeps) -> None:
    """Know which GPUs are held before anything is started that wants some."""
    try:
        deps.gpu_leases.restore()
    except ControllerError as error:
        log.warning("the GPUs of containers are not known until the engine answers: %s", error.message)


def _threads(
    deps: ReconcilerDeps,
    runner_deps: RunnerDeps,
    folder: PlatformFolder,
    gpus: GpuWatch,
    platform: PlatformReconciler,
) -> tuple[Timers, dict[str, Life]]:
    """Return the timers and, by name, what each thread beside the control loop does."""
    settings, store, catalog = deps.settings, deps.store, deps.catalog
    runner = Runner(runner_deps)
    scratch = ScratchScan(deps)
    uses = Uses(deps, lambda: runner.disk.used, lambda: scratch.used)
    report = partial(write_health, settings)
    timers = Timers(
        settings,
        store,
        catalog,
        folder,
        deps.engine,
        uses.record,
        scratch.scan,
        report,
        refresh_previews=partial(_refresh_previews, platform),
    )
    webhooks = WebhookDispatcher(
        runner_deps,
        build_senders(settings),
        lambda: catalog.known,
        notifications=build_notification_sender(deps),
    )
    return timers, {
        "schedule": timers.run,
        "watch": partial(_watch, deps),
        "accounting": _usage_scanner(deps).run,
        "runner": runner.run,
        "sampling": _sampler(deps, gpus).run,
        "previews": PreviewWorker(build_preview_deps(deps)).run,
        "listing": _image_worker(deps).run,
        "webhooks": webhooks.run,
        "notifier": build_notifier(deps).run,
        "images": build_image_follower(deps).run,
        "cron": build_cron_scheduler(deps).run,
    }


def _image_worker(deps: ReconcilerDeps) -> ImageWorker:
    settings, catalog = deps.settings, deps.catalog
    return ImageWorker(
        deps.store,
        build_engine_images(settings),
        settings,
        deps.clock.now,
        lambda: [app.name for app in catalog.spec.apps] if catalog.known else None,
    )


def _refresh_previews(platform: PlatformReconciler) -> None:
    if platform.is_due():
        platform.refresh()


def _component_logs(deps: ReconcilerDeps) -> ComponentLogs:
    settings, catalog = deps.settings, deps.catalog
    return ComponentLogs(
        deps.engine,
        settings.kept_logs,
        settings.docker.kept_logs,
        deps.secrets.get,
        lambda: [app.name for app in catalog.spec.apps] if catalog.known else None,
    )


def _build_logs(deps: ReconcilerDeps) -> BuildLogs:
    settings = deps.settings
    logs = BuildLogs(settings.kept_logs, settings.docker.kept_logs // _BUILD_SHARE, deps.secrets.get)
    logs.end_abandoned()
    return logs


def _control_loop(
    deps: ReconcilerDeps, platform: PlatformReconciler, templates: TemplateShelf
) -> ControlLoop:
    orders = OrderWorker(deps.settings, deps.store, deps.clock, templates.get)
    return ControlLoop(
        deps.store,
        deps.clock,
        _worker(deps, platform, orders),
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


def _worker(
    deps: ReconcilerDeps, platform: PlatformReconciler, orders: OrderWorker
) -> Callable[[ReconcileRequest], PassOutcome]:
    """Return a function that handles a request by its key: the platform folder or an app."""

    def work(request: ReconcileRequest) -> PassOutcome:
        if request.app == PLATFORM:
            orders.work()
            return platform.reconcile(request)
        if not deps.catalog.known:  # before the folder was read, every app would look disconnected
            return PassOutcome(Outcome.WAITING, "the platform folder has not been read yet", retry_after=1.0)
        if app := app_of_previews(request.app):
            return look_at_branches(deps, app, platform.refresh)
        return reconcile(deps, request)

    return work


def _beat(deps: ReconcilerDeps) -> Callable[[], None]:
    def beat() -> None:
        deps.store.heartbeat(deps.clock.now())
        deps.store.record_spans_dropped(deps.tracer.dropped())
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
        deps.store.requests.enqueue(event.app, Trigger.CONTAINER)


def _usage_scanner(deps: ReconcilerDeps) -> UsageScanner:
    return UsageScanner(
        deps.store,
        deps.storage,
        deps.clock,
        deps.settings.storage.abandon_after,
    )


def _sampler(deps: ReconcilerDeps, gpus: GpuWatch) -> ComponentSampler:
    counts = deps.settings.request_counts
    return ComponentSampler(deps.store, deps.engine, deps.prober, deps.clock, counts, lambda: gpus.report)


def _command(settings: Settings, *names: str) -> list[str]:
    # -P keeps Python from importing modules of the current folder
    command = [sys.executable, "-P", "-m", "controller", *names]
    return [*command, "--config", str(settings.source)] if settings.source else command
