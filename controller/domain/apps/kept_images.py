"""What the platform keeps on the engine: images that it has built or pulled, what builds have left, caches; of whom
each is, and what becomes of it. Pure: the engine's own lists in, values out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from controller.domain.apps.history import AppliedRevision
from controller.domain.apps.releases import short_release
from controller.domain.apps.rollback import earlier_images, resolved_images
from controller.domain.apps.status import AppStatus
from controller.domain.image_names import familiar
from controller.domain.localizable import Localizable

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
    it, also those of others. `due` is when it is removed, None if no time decides. `digests` as `name@sha256:…`."""

    app: str
    kind: ImageKind
    id: str
    name: str
    size: int
    created: float
    containers: int = 0
    due: float | None = None
    digests: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Return what an app may need it by."""
        return self.id, *map(familiar, self.digests)


@dataclass(frozen=True)
class ImageNeed:
    """For which release an app needs an image: the one in force, or an earlier one that it can be rolled back to."""

    release: str
    in_force: bool


#: By the name of an app, and by the id or a digest of an image, which is `familiar`.
ImageNeeds = Mapping[str, Mapping[str, ImageNeed]]


@dataclass(frozen=True)
class ImageVerdict:
    """Whether a person who asks for room may have an image removed now, and why, or what becomes of it otherwise. In
    the answer to one who has asked: whether it was removed."""

    image: KeptImage
    removed: bool
    why: str


def needs_of(
    status: AppStatus, history: Collection[AppliedRevision], revisions: int
) -> Mapping[str, ImageNeed]:
    """Return what an app needs which image for, as far as the state knows: `revisions` is how many earlier ones it can
    be rolled back to without a build."""
    earlier = earlier_images(history, status.desired, revisions)
    serving = filter(None, (each.image for each in status.components))
    return {
        **{familiar(image): ImageNeed(release, False) for image, release in earlier.items()},
        **{familiar(image): ImageNeed(status.applied, True) for image in serving},
        **{familiar(image): ImageNeed(status.desired, True) for image in resolved_images(status.pins)},
    }


def verdicts(
    images: Iterable[KeptImage], needs: ImageNeeds, now: float, minimum_age: float
) -> tuple[ImageVerdict, ...]:
    """Judge all images. `needs` has all apps that the platform knows: what they may still need, the daemon keeps and
    removes with their changes. A build under way may have made an image that is younger than `minimum_age` seconds, the
    longest that a build takes."""
    needed = frozenset(name for names in needs.values() for name in names)
    return tuple(_verdict(each, needs, needed, now - minimum_age) for each in images)


def _verdict(image: KeptImage, needs: ImageNeeds, needed: frozenset[str], old: float) -> ImageVerdict:
    leaves = image.kind is ImageKind.UNFINISHED or (image.app and image.app not in needs)
    if image.containers or not leaves:
        return ImageVerdict(image, False, _fate(image, needs.get(image.app, {})))
    if not needed.isdisjoint(image.keys):  # which found it here, and pulled none
        return ImageVerdict(image, False, Localizable("kept, since an app needs it"))
    if image.created > old:
        why = Localizable("kept, since a build that is under way may have made it")
        return ImageVerdict(image, False, why)
    if image.kind is ImageKind.UNFINISHED:
        return ImageVerdict(image, True, Localizable("a build that has ended has left it"))
    return ImageVerdict(image, True, Localizable("its app is gone"))


def _fate(image: KeptImage, needs: Mapping[str, ImageNeed]) -> str:
    """Return what becomes of an image, in words."""
    need = next((needs[key] for key in image.keys if key in needs), None)
    if need is not None and need.in_force:
        return Localizable("in force, at {release}", release=short_release(need.release))
    if image.containers:
        return Localizable("kept while it is used")
    match image.kind:
        case ImageKind.BUILT if need is not None:
            return Localizable(
                "kept for a rollback to {release}, as far as docker.keptImages allows",
                release=short_release(need.release),
            )
        case ImageKind.BUILT:
            return Localizable("removed with a change of its app, but for the newest ones")
        case ImageKind.PULLED if need is not None:
            return Localizable(
                "of use for a rollback to {release}; removed when another image of its app needs the room "
                "(docker.pulledPerApp)",
                release=short_release(need.release),
            )
        case ImageKind.PULLED:
            return Localizable("removed when another image of its app needs the room (docker.pulledPerApp)")
        case ImageKind.UNFINISHED:
            return Localizable("removed when it is due (docker.keepUnfinished)")
        case ImageKind.CACHE:
            return Localizable("removed beyond docker.buildCache, what was not used for longest first")


def kept_images(
    images: Iterable[Mapping[str, Any]],
    unfinished: Iterable[Mapping[str, Any]],
    containers: Iterable[Mapping[str, Any]],
    instance: str,
    age: float,
) -> tuple[KeptImage, ...]:
    """Return what is kept by app, then newest first. `images` are all and `unfinished` those without a tag that builds
    have left, as the engine lists them; the latter are kept for `age` seconds."""
    used = Counter(str(entry["ImageID"]) for entry in containers)
    found = [each for image in images for each in _by_tag(image, instance, used[image["Id"]])]
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
            made, digests = float(image["Created"]), tuple(image.get("RepoDigests") or ())
            yield KeptImage(app, kind, image["Id"], tag, image["Size"], made, used, digests=digests)


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
