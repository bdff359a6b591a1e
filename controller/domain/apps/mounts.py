"""Decides where in a container variables may be mounted: not over paths that commands need to run, nor over the
platform's own mounts. Pure; used when manifests are checked."""

from __future__ import annotations

from pathlib import PurePosixPath

from controller.domain.localizable import Localizable

#: The platform's own folder in containers: the serving library, models, progress.
OURS = "/opt/prichal"
#: Where variables lie unless `mountTo` says otherwise.
MOUNT = "/unip"

MAX_NAME = 255  # bytes of one part of a path, as file systems allow

#: The system of an image, with all below.
_SYSTEM = frozenset(
    f"/{top}{name}" for top in ("", "usr/") for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
) | {
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/sys",
    "/usr/include",
    "/usr/libexec",
    "/usr/local",
    "/usr/share",
    "/var/lib/dpkg",
    "/var/run",
}
#: Folders with much in them that commands need; what is below may be mounted over.
_FULL = frozenset({"/", "/home", "/opt", "/root", "/run", "/tmp", "/usr", "/var", "/var/lib", "/var/tmp"})  # noqa: S108 - no file of ours there


def unmountable(variable: str, target: str) -> str:
    """Return why the variable cannot be mounted at `target`, a normal absolute path; "" if it can."""
    above = {target, *map(str, PurePosixPath(target).parents)}
    if system := above & _SYSTEM:
        return Localizable("{system} belongs to the system of the image", system=min(system))
    if target in _FULL:
        return Localizable("{target} holds what commands need", target=target)
    if OURS in above:
        return Localizable("{ours} is the platform's own", ours=OURS)
    if MOUNT in above and target != f"{MOUNT}/{variable}":
        return Localizable("below {mount} each variable has the place of its own name", mount=MOUNT)
    if any(len(part.encode()) > MAX_NAME for part in target.split("/")):
        return Localizable("no part of a path may have more than {max_name} bytes", max_name=MAX_NAME)
    return ""


def nested(one: str, other: str) -> bool:
    """Return True if one of two paths is the other, or lies in it."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)
