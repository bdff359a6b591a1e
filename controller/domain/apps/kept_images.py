"""What the platform keeps on the engine: images that it has built or pulled, what builds have left, caches; of whom
each is, and what becomes of it. Pure: the engine's own lists in, values out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: What failed and interrupted builds have left, the newest of which are kept for the next build to continue from.
MOST_UNFINISHED: Final = 100
_PULLED: Final = "pulled"  # in the place of `build` in a tag of ours


class ImageKind(StrEnum):
    BUILT = "built"
    PULLED = "pulled"
    UNFINISHED = "unfinished"
    CACHE = "cache"


@dataclass(frozen=True)
class KeptImage:
    """`app` is "" for what belongs to none; `created` in Unix seconds, 0 for a cache; `containers` that are made from
    it, also those of others. `due` is when it is removed, None if no time decides."""

    app: str
    kind: ImageKind
    id: str
    name: str
    size: int
    created: float
    containers: int = 0
    due: float | None = None

    @property
    def fate(self) -> str:
        """Return what becomes of it, in words."""
        if self.containers:
            return "kept while it is used"
        match self.kind:
            case ImageKind.BUILT:
                return "removed with a change of its app, but for the newest ones and those of its history"
            case ImageKind.PULLED:
                return "removed when another image of its app needs the room (docker.pulledPerApp)"
            case ImageKind.UNFINISHED:
                return "removed when it is due (docker.keepUnfinished)"
            case ImageKind.CACHE:
                return "removed beyond docker.buildCache, what was not used for longest first"


@dataclass(frozen=True)
class ImageVerdict:
    """Whether a person who asks for room may have an image removed now, and why or why not."""

    image: KeptImage
    removed: bool
    why: str


def verdicts(
    images: Iterable[KeptImage], apps: Collection[str], now: float, patience: float
) -> tuple[ImageVerdict, ...]:
    """Judge all images. `apps` are those that the platform knows: what they may still need, for a version in force or
    for a rollback, the daemon keeps and removes with their changes. A build under way may have made an image that is
    younger than `patience` seconds, the longest that a build takes."""
    return tuple(_verdict(each, apps, now - patience) for each in images)


def _verdict(image: KeptImage, apps: Collection[str], old: float) -> ImageVerdict:
    leaves = image.kind is ImageKind.UNFINISHED or (image.app and image.app not in apps)
    if image.containers or not leaves:
        return ImageVerdict(image, False, image.fate)
    if image.created > old:
        return ImageVerdict(image, False, "kept, since a build that is under way may have made it")
    if image.kind is ImageKind.UNFINISHED:
        return ImageVerdict(image, True, "a build that has ended has left it")
    return ImageVerdict(image, True, "its app is gone")


def kept_images(
    tagged: Iterable[Mapping[str, Any]],
    unfinished: Iterable[Mapping[str, Any]],
    containers: Iterable[Mapping[str, Any]],
    instance: str,
    age: float,
) -> tuple[KeptImage, ...]:
    """Return what is kept by app, then newest first. `tagged` and `unfinished` are images as the engine lists them;
    those without a tag are kept for `age` seconds."""
    used = Counter(str(entry["ImageID"]) for entry in containers)
    found = [each for image in tagged for each in _by_tag(image, instance, used[image["Id"]])]
    for number, image in enumerate(_newest_first(unfinished)):
        count, created = used[image["Id"]], float(image["Created"])
        due = created + (age if number < MOST_UNFINISHED else 0.0)
        found.append(
            KeptImage(
                "",
                ImageKind.UNFINISHED,
                image["Id"],
                "",
                image["Size"],
                created,
                count,
                None if count else due,
            )
        )
    return tuple(sorted(found, key=lambda each: (each.app == "", each.app, -each.created, each.name)))


def _by_tag(image: Mapping[str, Any], instance: str, used: int) -> Iterable[KeptImage]:
    """Yield the image for each app that has a tag of it."""
    prefix = f"{instance}.local/"
    for tag in image["RepoTags"] or ():
        if tag.startswith(prefix):
            app, _, rest = tag.removeprefix(prefix).partition("/")
            kind = ImageKind.PULLED if rest.startswith(f"{_PULLED}:") else ImageKind.BUILT
            yield KeptImage(app, kind, image["Id"], tag, image["Size"], float(image["Created"]), used)


def superfluous(
    unfinished: Iterable[Mapping[str, Any]], in_use: Collection[str], now: float, age: float
) -> tuple[str, ...]:
    """Return the ids of images without a tag that are to be removed: older ones than `age`, and more than the newest
    `MOST_UNFINISHED`."""
    left = (image for image in _newest_first(unfinished) if image["Id"] not in in_use)
    return tuple(
        str(image["Id"])
        for number, image in enumerate(left)
        if number >= MOST_UNFINISHED or image["Created"] <= now - age
    )


def _newest_first(images: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(images, key=lambda image: (-image["Created"], str(image["Id"])))
