"""Makes a backup of an installation, keeps the record of it, and removes old ones. Called by `prichal backup create`
and by the service of the schedule."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller import __version__
from controller.adapters.objects import S3Objects
from controller.backup.archive import Head, disk_full, writing
from controller.backup.contents import BoxObjects, Copying, copied_state, stage
from controller.backup.places import BackupPlace, place_of
from controller.config import Settings
from controller.domain.backups import (
    Backup,
    BackupRecord,
    MadeBackup,
    name_at,
    outdated,
)
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import sentences
from controller.domain.reasons import Reason
from controller.file_trees import remove_tree
from controller.store.backup_record import load_record, save_record
from controller.store.copies import schema_of
from controller.store.keys import StorageKeys
from controller.store.owners import as_owner_of

log = logging.getLogger(__name__)

_SCRATCH: Final = "scratch-"


@dataclass(frozen=True)
class Maker:
    """Makes backups of one installation. `objects` opens the storage of boxes; None: there is none yet."""

    settings: Settings
    place: BackupPlace
    objects: Callable[[], BoxObjects | None]
    clock: Callable[[], float] = time.time

    def create(self, boxes: bool = True) -> Backup:
        """Make a backup, and record how it went. Then remove old ones. Raises ControllerError."""
        with only_backup(self.settings):
            began = self.clock()
            record = load_record(self.settings.backup_record)
            try:
                made = self._made(began, boxes)
            except ControllerError as error:
                self._record(record.failed(self.clock(), error.reason, error.message))
                raise
            except OSError as error:
                failure = _failure_of(error, self.settings)
                self._record(record.failed(self.clock(), failure.reason, failure.message))
                raise failure from error
            except Exception as error:
                text = f"internal error ({type(error).__name__}); see the log of the service"
                self._record(record.failed(self.clock(), Reason.BACKUP_FAILED, text))
                raise
            self._record(record.succeeded(MadeBackup(made.name, began, self.clock(), made.size)))
            self._remove_old()
            return made

    def _made(self, began: float, boxes: bool) -> Backup:
        settings = self.settings
        self.place.sweep()
        for left in settings.backups.glob(f"{_SCRATCH}*"):
            remove_tree(left)
        name = self._free_name(began)
        with _scratch(settings) as scratch:
            objects = self.objects() if boxes else None
            stage(settings, scratch)
            with copied_state(scratch) as store:
                buckets = tuple(sorted(record.bucket for record in store.boxes.all()))
            schema = schema_of(scratch / "db" / "state.db")
            head = Head(
                settings.instance,
                __version__,
                schema,
                float(int(began)),
                buckets if objects is not None else (),
                repositories=str(settings.repositories),
            )
            with self.place.draft(name) as out, writing(out, settings.backup.recipients, head) as writer:
                Copying(settings, writer, scratch, objects).everything(buckets)
        made = next((each for each in self.place.all() if each.name == name), None)
        if made is None:
            raise Transient(
                Reason.BACKUP_FAILED, f"{name} is not in {self.place}, although it was written there"
            )
        log.info("backup made", extra={"backup": name, "size": made.size, "place": str(self.place)})
        return made

    def _free_name(self, began: float) -> str:
        taken = {each.name for each in self.place.all()}
        return next(
            n for i in range(len(taken) + 1) if (n := name_at(self.settings.instance, began + i)) not in taken
        )

    def _remove_old(self) -> None:
        """What cannot be removed now is removed after the next backup."""
        chosen = self.settings.backup
        try:
            for old in outdated(self.place.all(), chosen.keep_count, chosen.keep_age, self.clock()):
                self.place.remove(old.name)
                log.info("backup removed", extra={"backup": old.name})
        except ControllerError as error:
            log.warning("cannot remove old backups: %s", error.message)

    def _record(self, record: BackupRecord) -> None:
        try:
            save_record(self.settings.backup_record, record)
        except OSError as error:
            log.warning("cannot record how the backup went: %s", error)


def maker(settings: Settings) -> Maker:
    """Return a maker for the place and the storage of the settings. Raises Stalled `BackupDisabled`."""
    if not settings.backup.recipients:
        text = "backup.recipients is not set in the configuration: backups are always encrypted"
        raise Stalled(Reason.BACKUP_DISABLED, text)
    return Maker(settings, place_of(settings), lambda: box_objects(settings))


def box_objects(settings: Settings) -> S3Objects | None:
    """Return the storage of boxes with the account of the web process; None if there has been no box yet."""
    if settings.storage.backend == "none":
        return None
    with as_owner_of(settings.private):
        access = StorageKeys(settings.database).read()
    if access is None:
        return None
    objects = S3Objects.of(access)
    try:
        objects.ping()
    except ControllerError as error:
        advice = (
            "The storage of boxes runs with the daemon: start it, or leave boxes out with --without-boxes"
        )
        raise Transient(error.reason, sentences(error.message, advice)) from error
    return objects


@contextmanager
def only_backup(settings: Settings) -> Iterator[None]:
    """Hold the lock of backups of this installation. Raises Transient `BackupRunning` if another one is under way."""
    if not settings.private.is_dir():
        text = f"there is no installation in {settings.state}: the platform has not run here yet"
        raise Stalled(Reason.STATE_MISSING, text)
    with as_owner_of(settings.private):
        settings.backups.mkdir(mode=0o750, exist_ok=True)
        descriptor = os.open(
            settings.backups / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = "another backup or a restore of this installation is under way; try again when it is over"
            raise Transient(Reason.BACKUP_RUNNING, text) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _scratch(settings: Settings) -> Iterator[Path]:
    """Yield a folder that no other user can enter, and remove it."""
    folder = settings.backups / f"{_SCRATCH}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        remove_tree(folder)


def _failure_of(error: OSError, settings: Settings) -> Transient:

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(f"cannot make a backup of {settings.state}")
    where = f" ({error.filename})" if error.filename else ""
    return Transient(
        Reason.BACKUP_FAILED, f"cannot make a backup of {settings.state}: {error.strerror}{where}"
    )
