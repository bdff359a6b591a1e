"""What one build writes: the layers that it makes, and the file systems of its steps. Used only by `images`.

The engine has no limit for it, so it is measured while the build runs, and the build is ended if it is too much. The
builder says in its output which images it has made and in which container a step runs. A step can print such lines,
too: what it names counts against its own build, and nothing but that build is ended.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection

import docker.errors
import requests.exceptions

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.layers import LayerSizes
from controller.adapters.docker.scratch import written
from controller.domain import labels
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable, joined
from controller.domain.pace import pause_after
from controller.domain.reasons import Reason
from controller.domain.units import about_size

log = logging.getLogger(__name__)

_SAID = re.compile(r" ---> (?P<step>Running in )?(?P<id>[0-9a-f]{12})\n?")
_MOST_NAMES = 10_000  # of images and containers that the output may name
_SHORTEST = 0.5  # seconds between two looks


class BuildDisk:
    """`bases` are ids of the images that the build begins with, which others have; `earlier` of those that failed
    builds of the app have left; `free` gives the free bytes of the engine's disk, None if they are not known. One
    thread calls `note`, another one `is_full`; `excess` says in words what was too much."""

    def __init__(
        self,
        connection: EngineConnection,
        layers: LayerSizes,
        instance: str,
        most: int,
        bases: Collection[str],
        earlier: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._layers = layers
        self._instance = instance
        self._most = most
        self._bases = bases
        self._earlier = earlier
        self._alone = 0  # without what failed builds have left
        self._clock = clock
        self._free = free
        self._free_then: int | None = None  # at the last look
        self._images: set[str] = set()
        self._steps: set[str] = set()
        self._not_before = 0.0
        self.used = 0
        self.excess = ""

    def note(self, text: str) -> None:
        """Read a message of the builder."""
        said = _SAID.fullmatch(text)
        if said is None:
            return
        if len(self._images) + len(self._steps) >= _MOST_NAMES:
            self.excess = Localizable(
                "its output names more than {most} images and containers", most=_MOST_NAMES
            )
            return
        (self._steps if said["step"] else self._images).add(said["id"])

    def is_full(self) -> bool:
        """Look, if it is time to, and return whether the build has to end."""
        began = self._clock()
        if not self.excess and (began >= self._not_before or self._has_lost_much()):
            self._free_then = self._free()
            self._look()
            ended = self._clock()
            self._not_before = ended + pause_after(ended - began, _SHORTEST)
        return bool(self.excess)

    def _has_lost_much(self) -> bool:
        """Return whether the disk has lost enough since the last look for another one at once: where the machine is
        busy, a look takes seconds, and the pause after it ten times as long."""
        free = self._free()
        return free is not None and self._free_then is not None and self._free_then - free > self._most / 4

    @property
    def images(self) -> frozenset[str]:
        """Ids of the images that the build has made so far."""
        return frozenset(self._images)

    def error(self, doing: str) -> ControllerError:
        """Return the error of a build that was ended. What failed builds have left is collected some time."""
        text = joined((doing, self.excess), ": ")
        if self._alone <= self._most and self._earlier:
            return Transient(Reason.BUILD_TOO_LARGE, text)
        return Stalled(Reason.BUILD_TOO_LARGE, text)

    def _look(self) -> None:
        try:
            own, steps = set(self._images), self._of_steps()
            self._alone = self._layers.together(own, but=self._bases) + steps
            self.used = self._layers.together({*own, *self._earlier}, but=self._bases) + steps
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            log.debug("could not measure what a build writes: %s", error)
            return
        if self.used > self._most:
            left = Localizable(
                " together with {used} that failed builds of the app have left",
                used=about_size(self.used - self._alone),
            )
            self.excess = Localizable(
                "it has written {alone}{more}, and may write {most} (docker.buildDisk)",
                alone=about_size(self._alone),
                more=left if self.used > self._alone else "",
                most=about_size(self._most),
            )

    def _of_steps(self) -> int:
        """Return the bytes of steps under way. Those that have ended are layers, or gone. Components have the label of
        builds from their image, and another one of their own, which steps have without a value."""
        steps = {"label": [f"{labels.BUILT_BY}={self._instance}", f"{labels.INSTANCE}="]}
        found = written(self._connection.client, steps)
        return sum(size for entry, size in found if entry["Id"][:12] in self._steps)
