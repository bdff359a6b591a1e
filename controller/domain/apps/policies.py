"""What the operator of a platform demands of modules: where images come from, that resources are stated, which
arguments builds may not have, how components are called. Pure.

A policy is about commits to come: one that is in force stays, and is repaired, when a policy becomes stricter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from controller.domain.image_names import split_name


@dataclass(frozen=True)
class Policies:
    """`images`, `cache_images` and `forbidden_build_args` are patterns as of file names, whose `*` stands for any
    characters; no `images`: from everywhere; no `cache_images`: builds have no images as cache. `names` is a regular
    expression for whole names, "": any."""

    images: tuple[str, ...] = ()
    require_resources: bool = False
    forbidden_build_args: tuple[str, ...] = ()
    names: str = ""
    cache_images: tuple[str, ...] = ()

    def allows_image(self, reference: str) -> bool:
        """Return True if an image may be used. A pattern is compared with the whole name, registry included, without
        tag and digest."""
        name = whole_name(reference)
        return not self.images or any(fnmatchcase(name, pattern) for pattern in self.images)

    def allows_cache(self, reference: str) -> bool:
        """Return True if builds may use layers of an image as cache. Builders trust what such an image says that a step
        has made, and give it to builds of other apps later; so it takes more than to be allowed as an image."""
        name = whole_name(reference)
        return self.allows_image(reference) and any(fnmatchcase(name, one) for one in self.cache_images)

    def allows_build_arg(self, name: str) -> bool:
        return not any(fnmatchcase(name, pattern) for pattern in self.forbidden_build_args)

    def allows_name(self, name: str) -> bool:
        return not self.names or re.fullmatch(self.names, name) is not None

    @property
    def sources(self) -> str:
        """Return where images may come from, for people."""
        return " or ".join(self.images)


NO_POLICIES: Final = Policies()


def whole_name(reference: str) -> str:
    """Return the name of an image with its registry and without tag and digest: `python:3.12` is
    `docker.io/library/python`."""
    named = reference.partition("@")[0]
    before, slash, last = named.rpartition("/")
    return "/".join(split_name(before + slash + last.partition(":")[0]))
