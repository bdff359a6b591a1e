"""Releases: a commit together with the images that are followed at it. Pure.

An app that follows images changes without a commit. Where a decision is about what was in service (a rollback, an
approval, the watch of a version), it names a release: the id of the commit, and, if images are followed, a short digest
of them behind a dot. Without such images a release is the commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

#: Images by what follows them, a component or `pipeline/stage`, as `name:tag@digest`. Sorted.
Images = tuple[tuple[str, str], ...]


def release(commit: str, images: Images) -> str:
    if not (commit and images):
        return commit
    text = json.dumps(sorted(images), separators=(",", ":"))
    return f"{commit}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def commit_of(release: str) -> str:
    return release.partition(".")[0]


def short_release(release: str) -> str:
    """Return the first characters of the commit, with the digest of the images."""
    commit, dot, images = release.partition(".")
    return f"{commit[:12]}{dot}{images}"


def changed_images(before: Images, after: Images) -> Iterable[tuple[str, str, str]]:
    """Yield what follows an image, the image before, "" if there was none, and the one after, for each that differs."""
    known = dict(before)
    return ((name, known.get(name, ""), image) for name, image in after if known.get(name) != image)
