"""Collects what apps use of their shares and stores it, so that people can see it. Called by the timers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from controller.domain.apps.observed import ImageUse
from controller.domain.apps.spec import Limits
from controller.domain.apps.usage import Bounds, MeasuredUse, usage
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.pace import pause_after
from controller.domain.routing.shares import shares_of_app
from controller.domain.runs.stage_slots import Share
from controller.reconcile.deps import ReconcilerDeps

log = logging.getLogger(__name__)

_IMAGES = 30.0  # the shortest time between two looks at images, which takes the engine longer than all else


class Uses:
    """`run_files`: bytes that the runs of each app hold on the disk, as they were counted last. `scratch`: those of the
    container of each app that has written the most."""

    def __init__(
        self,
        deps: ReconcilerDeps,
        run_files: Callable[[], Mapping[AppName, int]],
        scratch: Callable[[], Mapping[AppName, int]] = dict,
    ) -> None:
        self._deps = deps
        self._run_files = run_files
        self._scratch = scratch
        self._images: Mapping[AppName, ImageUse] = {}
        self._next_images = -math.inf

    def record(self) -> None:
        if not self._deps.catalog.known:
            return
        store = self._deps.store
        found = MeasuredUse(
            declared=self._deps.uses,
            active=store.runs.active(),
            counts=store.runs.counts(),
            boxes=store.boxes.all(),
            queued=store.runs.queued_size(),
            run_files=self._run_files(),
            images=self._of_images(),
            scratch=self._scratch(),
            builds=self._deps.builds.counts(),
            taken=store.gateways.taken(self._deps.clock.now()),
        )
        apps = self._deps.catalog.spec.apps
        store.record_usage(each for app in apps for each in usage(app.name, app.limits, self._bounds, found))

    @property
    def _bounds(self) -> Bounds:
        settings = self._deps.settings
        runs = settings.runs
        return Bounds(
            runs=min(runs.per_app, runs.concurrent),
            stages=Share(Limits(), runs.stages, per_app=runs.stages_per_app).slots,
            queue=runs.queued,
            queue_size=runs.queued_size,
            run_files=runs.disk_per_app,
            images=settings.docker.images_per_app,
            pulled_images=settings.docker.pulled_per_app,
            scratch=settings.docker.scratch,
            build_files=settings.docker.build_disk,
            of_workers=shares_of_app(
                settings.web.queue_limit,
                settings.web.per_app,
                min(settings.web.sockets, settings.web.sockets_per_app),
                settings.calls.limits,
            ),
        )

    def _of_images(self) -> Mapping[AppName, ImageUse]:
        clock = self._deps.clock
        began = clock.monotonic()
        if began >= self._next_images:
            try:
                self._images = self._deps.engine.image_sizes()
            except ControllerError as error:
                log.debug("images are not counted: %s", error)
            ended = clock.monotonic()
            self._next_images = ended + pause_after(ended - began, _IMAGES)
        return self._images
