"""Sizes of images by their layers, so that what several images share counts once. Used by `images`, `pulled` and
`build_disk`.

The engine tells the size of a whole image and the digests of its layers, but not the size of a layer: the history that
it shows is what the author of the image has written. So layers count together up to where another image on this host
ends: a base image, a step of a build.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors

from controller.adapters.docker.connection import EngineConnection

Json = dict[str, Any]

_SHORT = 12  # hexadecimal digits of an id in the builder's output


@dataclass(frozen=True)
class _Image:
    """`stacks` has a digest for each layer and all below it, from the lowest to the highest."""

    stacks: tuple[str, ...]
    size: int


class LayerSizes:
    """Remembers the images on this host, which never change. Thread-safe."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: dict[str, _Image] = {}  # by id

    def together(self, images: Iterable[str], but: Iterable[str] = ()) -> int:
        """Return the bytes of all layers of `images` that no image of `but` has. An image is named by its id, or the
        beginning of it; one that is gone takes nothing.
        """
        found = self._look()
        ends = {image.stacks[-1]: image.size for image in found.values() if image.stacks}
        by_name = {id.removeprefix("sha256:")[:_SHORT]: image for id, image in found.items()}
        parts: dict[str, int] = {}
        for names, add in ((images, True), (but, False)):
            for name in names:
                image = by_name.get(name.removeprefix("sha256:")[:_SHORT])
                for stack, size in _parts(image, ends) if image else ():
                    if add:
                        parts[stack] = size
                    else:
                        parts.pop(stack, None)
        return sum(parts.values())

    def _look(self) -> Mapping[str, _Image]:
        ids = {entry["Id"] for entry in self._connection.client.images(all=True)}
        with self._lock:
            known = {id: image for id, image in self._known.items() if id in ids}
        for id in ids - known.keys():
            try:
                known[id] = _read(self._connection.client.inspect_image(id))  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                continue
        with self._lock:
            self._known = known
        return known


def _read(found: Json) -> _Image:
    stack, stacks = hashlib.sha256(), []
    for layer in (found.get("RootFS") or {}).get("Layers") or ():
        stack.update(f"{layer}\0".encode())
        stacks.append(stack.hexdigest())
    return _Image(tuple(stacks), int(found["Size"]))


def _parts(image: _Image, ends: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Return the layers between the ends of images, each part by the digest of its end, with its size."""
    below = 0
    for stack in image.stacks:
        if (size := ends.get(stack)) is not None:
            yield stack, size - below
            below = size
