"""Removes paths of the host from texts for callers, who must not learn them and cannot use them. Pure."""

from __future__ import annotations

import re
from pathlib import Path

_REST = r"[^\s\"'`:;,()]*"  # of a path in a text
_PATH = re.compile(rf"/{_REST}")
#: The root of a container's file system: `/…/overlay2/…/merged`. Two patterns, one looked for after the other: texts
#: come from containers and registries, and in one pattern the two gaps would share a long path in all ways.
_DRIVER = re.compile(r"/(?:overlay2?|aufs|btrfs|vfs|containerd|snapshots)/")
_ROOT = re.compile(r"/(?:merged|rootfs|fs)\b")
#: What else an engine keeps.
_ENGINE = re.compile(
    rf"(?:unix://)?/(?:var/lib/(?:docker|containerd)|run/(?:docker|containerd)|var/run/docker)\b{_REST}"
)
_URL = re.compile(r"http\+(?:docker|unix)://[^\s\"'`]*")
_RUN = r"runs/[0-9a-f]{19}/"


_WORDS = ("docker", "containerd", "/merged", "/rootfs", "/fs", "http+")


def may_have_host_paths(text: str, state: Path) -> bool:
    """Return False only if there are none; this check is fast."""
    return str(state) in text or any(word in text for word in _WORDS)


def without_host_paths(text: str, state: Path) -> str:
    """Replace host paths in a message about a run: paths in its folder become relative to it, paths in containers
    become those that the container sees, and other folders are named by their purpose."""
    if "/" not in text:
        return text
    root = re.escape(str(state))
    text = re.sub(rf"{root}/{_RUN}", "", text)
    text = re.sub(rf"{root}(?:/{_REST})?(?![\w.-])", "the state folder", text)
    text = _PATH.sub(lambda path: _in_container(path[0]), text)
    return _ENGINE.sub("the engine's folder", _URL.sub("the engine", text))


def _in_container(path: str) -> str:
    """Return the path without the roots of file systems above it."""
    kept, begin = "", 0
    while (start := path.find("/", begin)) >= 0:
        driver = _DRIVER.search(path, start + 1)
        root = driver and _ROOT.search(path, driver.end())
        if not root:
            break
        kept += path[begin:start]
        begin = root.end()
    return kept + path[begin:]
