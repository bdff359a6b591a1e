"""Images that were pulled for an app: how much of the disk they take, and which of them go when it is too much. Used
only by `images`.

Each has a tag with the app's name and the time, so that the engine itself knows which ones the platform has pulled,
and for whom. Images that were there before belong to others and are never removed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import docker.errors

from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.engine_disk import EngineDisk
from controller.adapters.docker.layers import LayerSizes
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.image_names import familiar
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.units import about_size

log = logging.getLogger(__name__)

Json = dict[str, Any]

_NAME = "pulled"  # in the place of `build`, see domain/names.py
#: Seconds for which an image stays that nothing uses: the pass that has pulled it has yet to create its containers.
_SETTLING = 600.0
_OTHERS = 2**30  # bytes that others may write to the disk during a pull


@dataclass(frozen=True)
class _Pulled:
    id: str
    ours: tuple[str, ...]  # tags that say for whom it was pulled
    at: float


@dataclass
class Incoming:
    """A pull under way. `layers` are the announced bytes by layer, compressed; `free` is the free space when it
    began."""

    app: AppName
    doing: str
    free: int | None
    layers: dict[str, int] = field(default_factory=dict)

    def note(self, message: Json) -> None:
        total = (message.get("progressDetail") or {}).get("total")
        if isinstance(total, int) and message.get("id"):
            known = self.layers.get(message["id"], 0)
            self.layers[message["id"]] = max(known, total)

    @property
    def size(self) -> int:
        return sum(self.layers.values())


class PulledImages:
    """The images of all apps. `most` is the bound for one app, in bytes. Thread-safe."""

    def __init__(self, connection: EngineConnection, layers: LayerSizes, instance: str, most: int) -> None:
        self._connection = connection
        self._layers = layers
        self._instance = instance
        self._most = most
        self._lock = threading.Lock()  # of `_incoming`
        self._incoming: list[Incoming] = []
        self._disk = EngineDisk(connection)

    # --- a pull ------------------------------------------------------------------------------------------------

    def begin(self, app: AppName, doing: str) -> Incoming:
        """Raises Stalled or Transient `ImageTooLarge` if there is no room for anything."""
        incoming = Incoming(app, doing, self._disk.free())
        with self._lock:
            self._incoming.append(incoming)
        self._make_room(incoming)
        return incoming

    def follow(self, incoming: Incoming, message: Json) -> None:
        """Raises Stalled or Transient `ImageTooLarge` as soon as a message of the engine announces too much. Layers may
        be compressed, at worst to a thousandth, so the disk is looked at, too."""
        before = incoming.size
        incoming.note(message)
        if incoming.size > before:
            self._make_room(incoming)
        free = self._disk.free()
        if incoming.free is not None and free is not None and incoming.free - free > self._most + _OTHERS:
            raise Transient(
                Reason.IMAGE_TOO_LARGE,
                Localizable(
                    "{doing}: while it was pulled, the disk lost {free}, and the images of its app may take "
                    "{most} (docker.pulledPerApp)",
                    doing=incoming.doing,
                    free=about_size(incoming.free - free),
                    most=about_size(self._most),
                ),
            )

    def end(self, incoming: Incoming) -> None:
        with self._lock:
            self._incoming.remove(incoming)

    def keep(self, incoming: Incoming, image: str) -> None:
        """Record whose a new image is. Raises as `follow`, and removes it, if it takes too much on the disk."""
        client = self._connection.client
        repository = f"{self._instance}.local/{incoming.app}/{_NAME}"
        client.tag(image, repository, f"{int(time.time())}-{image.removeprefix('sha256:')[:12]}")
        incoming.layers.clear()
        try:
            self._make_room(incoming, new=image)
        except ControllerError:
            self._remove(next(each for each in self._of(incoming.app) if each.id == image))
            raise

    def _make_room(self, incoming: Incoming, new: str = "") -> None:
        """Remove the oldest images that nothing uses, if there is no room with them."""
        own = self._of(incoming.app)
        used = self._used()
        coming = self._announced(incoming.app)
        kept = {each.id for each in own if each.id in used or each.id == new}
        unused = sorted((each for each in own if each.id not in kept), key=lambda each: each.at)
        while self._layers.together({each.id for each in unused} | kept) + coming > self._most:
            if not unused or unused[0].at > time.time() - _SETTLING:
                raise self._too_large(incoming, kept, [each.id for each in unused], coming)
            self._remove(unused.pop(0))

    def _too_large(
        self, incoming: Incoming, kept: Collection[str], unused: Collection[str], coming: int
    ) -> ControllerError:
        """Return the error. It is Transient if what is in the way can be removed in some minutes."""
        size = self._layers.together(kept) + coming
        text = Localizable(
            "{doing}: with those in use, the images that were pulled for its app would take {size} "
            "or more, and may take {most} (docker.pulledPerApp)",
            doing=incoming.doing,
            size=about_size(size),
            most=about_size(self._most),
        )
        if size > self._most:
            return Stalled(Reason.IMAGE_TOO_LARGE, text)
        recent = about_size(self._layers.together(unused))
        return Transient(
            Reason.IMAGE_TOO_LARGE,
            Localizable(
                "{text}; others that were pulled just before take {recent}", text=text, recent=recent
            ),
        )

    def _announced(self, app: AppName) -> int:
        """Of all pulls of the app under way."""
        with self._lock:
            return sum(each.size for each in self._incoming if each.app == app)

    # --- what there is -----------------------------------------------------------------------------------------

    def sizes(self) -> Mapping[AppName, int]:
        own: dict[AppName, set[str]] = {}
        for image in self._listed("*"):
            for name in image["RepoTags"] or ():
                app, _, rest = name.removeprefix(f"{self._instance}.local/").partition("/")
                if rest.startswith(f"{_NAME}:"):
                    own.setdefault(AppName(app), set()).add(image["Id"])
        return {app: self._layers.together(images) for app, images in own.items()}

    def forget(self, app: AppName, needed: Mapping[str, AppName]) -> None:
        """Remove what was pulled for an app that was disconnected, and that nothing uses. `needed` has ids and digests
        of images that other apps need: each belongs to that app from then on, and goes when that one needs it no
        more."""
        heirs = {familiar(name): heir for name, heir in needed.items()}
        # All are listed: a list of some, by their names, has only the digests that the filter names.
        listed = self._connection.client.images()
        by_id = {each["Id"]: heirs[key] for each in listed for key in keys_of(each) if key in heirs}
        used = self._used()
        for image in self._of(app):
            if (heir := by_id.get(image.id)) is not None:
                self._hand_over(image, heir)
            elif image.id not in used:
                self._remove(image)

    def _hand_over(self, image: _Pulled, heir: AppName) -> None:
        """The new tags come first, so that a daemon that is killed in between loses no image."""
        client = self._connection.client
        for tag in image.ours:
            client.tag(image.id, f"{self._instance}.local/{heir}/{_NAME}", tag.rpartition(":")[2])
        for tag in image.ours:
            client.remove_image(tag)

    def _listed(self, app: str) -> list[Json]:
        filters = {"reference": f"{self._instance}.local/{app}/{_NAME}"}
        found: list[Json] = self._connection.client.images(filters=filters)
        return found

    def _of(self, app: AppName) -> list[_Pulled]:
        prefix = f"{self._instance}.local/{app}/{_NAME}:"
        found = []
        for image in self._listed(app):
            ours = tuple(tag for tag in image["RepoTags"] or () if tag.startswith(prefix))
            times = [int(tag.removeprefix(prefix).partition("-")[0]) for tag in ours]
            found.append(_Pulled(image["Id"], ours, max(times, default=0)))
        return found

    def _used(self) -> frozenset[str]:
        return frozenset(entry["ImageID"] for entry in self._connection.client.containers(all=True))

    def _remove(self, image: _Pulled) -> None:
        """Remove our tags of an image, and the names that it has from its registry."""
        client = self._connection.client
        try:
            found = client.inspect_image(image.id)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            return
        for name in (*names_from_registry(found, image.ours), *image.ours):
            try:
                client.remove_image(name)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise
        log.info("a pulled image was removed", extra={"image": image.id[:19]})


def keys_of(image: Json) -> tuple[str, ...]:
    """Return the id and the digests of an image, as `familiar` has them."""
    return image["Id"], *map(familiar, image["RepoDigests"] or ())


def is_pulled(tag: str) -> bool:
    """Return whether it is a tag of ours that says for whom an image was pulled."""
    return tag.rpartition(":")[0].endswith(f"/{_NAME}")


def names_from_registry(image: Json, ours: Collection[str]) -> tuple[str, ...]:
    """Return the names that an image has from its registry, and that go with our tags of it: none if somebody has given
    it another one, a person, or the platform for another app."""
    tags, digests = image["RepoTags"] or [], image["RepoDigests"] or []
    origins = {name.partition("@")[0] for name in digests}
    pulled = [name for name in tags if name.rpartition(":")[0] in origins]
    return () if set(tags) - {*pulled, *ours} else (*pulled, *digests)
