"""Removes what an app needs no longer: images that were built or pulled for it, and models. Called at the end of a
pass; what cannot be removed is logged, and tried again by a later pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from controller.domain.apps.desired import DesiredApp
from controller.domain.apps.kept_images import needs_of
from controller.domain.apps.rollback import earlier_images
from controller.domain.apps.status import AppStatus
from controller.domain.errors import ControllerError
from controller.domain.names import AppName
from controller.domain.runs.run import images_to_repeat
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.models import in_use
from controller.reconcile.status_writer import StatusWriter

log = logging.getLogger(__name__)

_REPEATABLE = 100  # the newest failed runs, whose images are kept for repetitions,
_REPEATABLE_IMAGES = 10  # and the number of their images
_INTERVAL = 30.0  # seconds between two removals of what is old, while nothing changes
_KEPT_BUILDS = 2  # of each image that is declared: the one in service and the one before it


class Cleanup:
    def __init__(self, deps: ReconcilerDeps, app: AppName, status_writer: StatusWriter) -> None:
        self._deps = deps
        self._app = app
        self._status_writer = status_writer

    def is_due(self) -> bool:
        """Return whether old images may be left. This does not depend on actions of this pass: an earlier
        pass may have been interrupted before it tidied up, and an image may have been used by a run that has
        ended since.
        """
        last = self._deps.tidied.get(self._app)
        return last is None or self._deps.clock.monotonic() - last >= _INTERVAL

    def end(self) -> None:
        """Note that all has been removed that was old."""
        self._deps.tidied[self._app] = self._deps.clock.monotonic()

    def remove_old_images(self, desired: DesiredApp) -> bool:
        """Remove old images, and return whether that worked."""
        keep = _KEPT_BUILDS * max(1, _images_built(desired))
        engine, needed, earlier = self._deps.engine, self._needed_images(), self._earlier_images()
        return self._has_removed(lambda: engine.prune_images(self._app, keep, needed, earlier))

    def remove_all_images(self) -> bool:
        """Remove all images of an app that goes, and return whether that worked."""
        engine, needed = self._deps.engine, self._needed_elsewhere()
        return self._has_removed(lambda: engine.prune_images(self._app, keep=0)) and self._has_removed(
            lambda: engine.remove_pulled_images(self._app, needed)
        )

    def _has_removed(self, remove: Callable[[], None]) -> bool:
        try:
            remove()
        except ControllerError as error:  # doctor reports a full disk; running containers are not affected
            log.warning("could not remove old images: %s", error.message, extra={"app": self._app})
            return False
        return True

    def _needed_images(self) -> frozenset[str]:
        """Return images of the app that no container may keep. A sleeping component has none, and a pipeline has one
        only while it runs. Runs that can be repeated may be of older commits."""
        asleep = {r.component for r in self._deps.store.routes.of(self._app) if r.asleep}
        needed = {c.image for c in self._status_writer.status.components if c.name in asleep}
        runs = self._deps.store.runs
        for pipeline in runs.pipelines(self._app):
            needed.update(stage.image for stage in pipeline.stages)
        needed |= runs.images(self._app)
        needed |= images_to_repeat(runs.ended_badly(self._app, _REPEATABLE), _REPEATABLE_IMAGES)
        return frozenset(needed)

    def _needed_elsewhere(self) -> Mapping[str, AppName]:
        """Return images that other apps need, and which app does, the first by name: it may have found one here that
        was pulled for this app."""
        history, revisions = self._deps.store.history, self._deps.settings.docker.kept_revisions
        others = (status for status in self._deps.store.apps.all() if status.app != self._app)
        return {
            image: status.app
            for status in sorted(others, key=lambda status: status.app, reverse=True)
            for image in needs_of(status, history.releases(status.app), revisions)
        }

    def _earlier_images(self) -> tuple[str, ...]:
        """Return the images by which the app can be rolled back without a build."""
        history, present = self._deps.store.history, self._status_writer.status.desired
        revisions = self._deps.settings.docker.kept_revisions
        return tuple(earlier_images(history.releases(self._app), present, revisions))

    def remove_unused_models(self, now: AppStatus) -> None:
        """Remove models that are not used. `now` is the app's status as it will be saved."""

        def used() -> frozenset[str]:
            others = (status for status in self._deps.store.apps.all() if status.app != self._app)
            return in_use((*others, now))

        try:
            self._deps.models.prune(used)
        except ControllerError as error:
            log.warning("could not remove old models: %s", error.message, extra={"app": self._app})


def _images_built(desired: DesiredApp) -> int:
    """Return the number of different images that are built for the app."""
    pins = [component.pin for component in desired.components if component.build]
    pins += [stage.pin for pipeline in desired.pipelines for stage in pipeline.stages if stage.build]
    return len({pin.deploy for pin in pins})
