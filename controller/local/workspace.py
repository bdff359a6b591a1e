"""A folder and an instance name for each run, both removed at its end. The next run removes those of killed
ones.

    <temporary folder>/prichal-local-<user id>/<id>/       state of the run whose instance is `local-<mark>-<id>`
                                                /daemon.lock   held while its process lives
                                              /lock        held while one is created or removed

The mark stands for this machine and folder, so that what else runs on the same engine, under another user or
with another temporary folder, is never taken for a leftover.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from controller.adapters.docker import LocalEngine
from controller.daemon.lock import holder, only_one
from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.file_trees import remove_tree
from controller.local.signals import ignore_signals

log = logging.getLogger(__name__)

_IMAGES = "images"


@dataclass(frozen=True)
class Workspace:
    """`state` is a state folder like the daemon's, used only by this process."""

    state: Path
    instance: str

    def remember(self, images: Iterable[str]) -> None:
        """Record the images that containers are created from here: they may be needed for cleaning up."""
        (self.state / _IMAGES).write_text("\n".join(images))


@contextmanager
def workspace(engine: LocalEngine) -> Iterator[Workspace]:
    """Yield a workplace, and remove it from the engine and the disk at the end. Raises Stalled
    `StateUnwritable`, and errors of the engine.
    """
    base = _base()
    with ExitStack() as afterwards:
        with _alone(base):
            _sweep(base, engine)
            id = secrets.token_hex(4)
            place = Workspace(base / id, _prefix(base) + id)
            afterwards.callback(_clear, base, place, engine)
            place.state.mkdir(mode=0o700)
            afterwards.enter_context(only_one(place.state))
        yield place


def _clear(base: Path, place: Workspace, engine: LocalEngine) -> None:
    with ignore_signals(), _alone(base):
        _remove(place.state, place.instance, engine)


def keep(folder: Path) -> Path:
    """Move the folder where no later run takes it for a leftover, and return its new path."""
    kept = Path(tempfile.mkdtemp(prefix="prichal-kept-"))
    return Path(shutil.move(folder, kept))


def _base() -> Path:
    """Return the folder of this user's runs. Raises Stalled `StateUnwritable` if another user has created it
    and could read its content.
    """
    base = Path(tempfile.gettempdir()) / f"prichal-local-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise Stalled(
            Reason.STATE_UNWRITABLE, f"{base} belongs to another user: set TMPDIR to your own folder"
        )
    return base


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    with (base / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prefix(base: Path) -> str:
    mark = hashlib.sha256(f"{socket.gethostname()}\0{base}".encode()).hexdigest()[:8]
    return f"local-{mark}-"


def _sweep(base: Path, engine: LocalEngine) -> None:
    prefix = _prefix(base)
    folders = {prefix + path.name: path for path in base.iterdir() if path.is_dir()}
    for instance in sorted({*folders, *engine.instances(prefix)}):
        folder = folders.get(instance, base / instance.removeprefix(prefix))
        if holder(folder) is None:
            _remove(folder, instance, engine)


def _remove(folder: Path, instance: str, engine: LocalEngine) -> None:
    """Remove a run. Commands may run as root and leave folders that other users cannot empty, but containers
    can.
    """
    engine.remove_all(instance)
    listed = folder / _IMAGES
    images = sorted(set(listed.read_text().split())) if listed.is_file() else []
    if remove_tree(folder):
        return
    for image in images:
        with suppress(ControllerError):
            engine.open_up(folder, image)
    if not remove_tree(folder):
        log.warning("cannot remove %s, which belongs to users of containers: sudo rm -rf %s", folder, folder)
