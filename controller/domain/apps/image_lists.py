"""Lists of what the platform keeps on the engine, as people ask for them, and removals of what nothing needs. The web
process and users of the host ask; the daemon, which may use the engine, answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from controller.domain.apps.kept_images import ImageVerdict
from controller.domain.names import is_dns_label

MOST_IMAGES: Final = 2000  # of an answer; the first of them are those that are removed
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class AskedImages:
    """`app` is "" for the images of all. `removes`: what nothing needs is to be removed, too."""

    id: str
    app: str
    removes: bool = False

    @property
    def is_valid(self) -> bool:
        """Return False if no process of ours has asked for it."""
        return bool(_ID.fullmatch(self.id)) and (not self.app or is_dns_label(self.app))


@dataclass(frozen=True)
class ImageList:
    """`problem` and `message` say why there is no list; it may succeed later if it `is_transient`. `removed` counts the
    images that nothing needs, or that were removed, and `removed_size` has their bytes, also of those that were left
    out of the list."""

    id: str
    images: tuple[ImageVerdict, ...] = ()
    left_out: int = 0
    removed: int = 0
    removed_size: int = 0
    problem: str = ""
    message: str = ""
    is_transient: bool = False


def image_list(id: str, judged: Collection[ImageVerdict]) -> ImageList:
    """Return images as a list within bounds. Where some have to be left out, those that are removed come first."""
    removed = [each for each in judged if each.removed]
    size = sum(each.image.size for each in removed)
    first = judged if len(judged) <= MOST_IMAGES else sorted(judged, key=lambda each: not each.removed)
    shown = tuple(first)[:MOST_IMAGES]
    return ImageList(id, shown, len(judged) - len(shown), len(removed), size)
