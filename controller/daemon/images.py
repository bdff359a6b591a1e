"""Lists what the platform keeps on the engine, and removes what nothing needs, for people who ask (`prichal image`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from controller.config import Settings
from controller.daemon.asked_worker import AskedWorker
from controller.domain.apps.image_lists import AskedImages, ImageList, image_list
from controller.domain.apps.kept_images import ImageNeed, ImageVerdict, KeptImage, needs_of, verdicts
from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.ports import Store

log = logging.getLogger(__name__)

_UNKNOWN: Final = Localizable("the platform folder has not been read yet")
_IN_USE: Final = Localizable("kept, since something has begun to use it")


class EngineImages(Protocol):
    """What the engine has for this instance. Both raise Transient, Stalled."""

    def listed(self) -> tuple[KeptImage, ...]: ...

    def remove(self, names: Iterable[str]) -> Collection[str]:
        """Remove images by their tags or ids; return those that are gone then."""
        ...


class ImageWorker(AskedWorker[AskedImages, ImageList]):
    """`declared` are the apps of the platform folder, None before it was read. One that is new, or whose status was
    lost with the state, is not known otherwise, and its images would look as if nothing needed them."""

    task = "list the images on the engine"
    look = 0.25
    rest = 1.0

    def __init__(
        self,
        store: Store,
        engine: EngineImages,
        settings: Settings,
        now: Callable[[], float],
        declared: Callable[[], Collection[AppName] | None],
    ) -> None:
        self._store = store
        self._lists = store.image_lists
        self._engine = engine
        self._docker = settings.docker
        self._now = now
        self._declared = declared

    def begin(self) -> AskedImages | None:
        return self._lists.begin()

    def finish(self, found: ImageList) -> None:
        self._lists.finish(found)

    def answer(self, asked: AskedImages) -> ImageList:
        judged = self._judged(asked.app)
        return image_list(asked.id, self._removed(judged) if asked.removes else judged)

    def failure(self, asked: AskedImages, reason: Reason, message: str, is_transient: bool) -> ImageList:
        return ImageList(asked.id, problem=reason, message=message, is_transient=is_transient)

    def _judged(self, app: str) -> tuple[ImageVerdict, ...]:
        """Judge all images, or those of an app. The images are listed first: an app that is new since then has none
        among them."""
        images = [each for each in self._engine.listed() if app in ("", each.app)]
        declared = self._declared()
        if declared is None:
            raise Transient(Reason.NOT_RUNNING, _UNKNOWN)
        revisions, history = self._docker.kept_revisions, self._store.history
        needs: dict[str, Mapping[str, ImageNeed]] = {name: {} for name in declared}
        for status in self._store.apps.all():
            needs[status.app] = needs_of(status, history.releases(status.app), revisions)
        return verdicts(images, needs, self._now(), self._docker.build_timeout)

    def _removed(self, judged: tuple[ImageVerdict, ...]) -> tuple[ImageVerdict, ...]:
        """Remove what is to be removed, and return what became of each."""
        leaving = [_name(each) for each in judged if each.removed]
        gone = self._engine.remove(leaving) if leaving else ()
        if leaving:
            log.info("removed images that nothing needs", extra={"images": len(gone)})
        return tuple(
            replace(each, removed=False, why=_IN_USE) if each.removed and _name(each) not in gone else each
            for each in judged
        )


def _name(each: ImageVerdict) -> str:
    return each.image.name or each.image.id
