"""Limits the disk use of each app's runs on this host. It is measured repeatedly, since nothing
else limits what a container writes into a folder. Ended runs are removed first; then the largest run of the
app is ended with `StorageFull`, and the outputs of its earlier stages are kept.

`du` counts folders, as a separate process: a stage can nest folders and create files so that counting takes
minutes, and what cannot be counted in time is considered too much.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from controller.domain.errors import ControllerError
from controller.domain.localizable import Localizable
from controller.domain.names import AppName
from controller.domain.runs.disk import Held, excess, used
from controller.domain.runs.run import Run
from controller.domain.units import about_size
from controller.file_trees import remove_tree
from controller.ports import Jobs, Runs
from controller.runner.folders import RunFolders

log = logging.getLogger(__name__)

COUNT_TIMEOUT = 20.0  # seconds for counting the files of one run
_NAMES = 500  # of folders in one call of `du`


class Uncountable(Exception):
    """Counting took too long."""


def counted(folder: Path, timeout: float = COUNT_TIMEOUT) -> int:
    """Return the bytes of a run's outputs and logs. Inputs do not count: they are files of boxes, which have
    a capacity, and links to models that others use, too. Raises Uncountable.
    """
    try:
        names = sorted(entry.path for entry in os.scandir(folder) if entry.name != "in")
    except OSError:  # deleted meanwhile
        return 0
    size = 0
    for place in range(0, len(names), _NAMES):
        command = ["du", "-scxB1", "--", *names[place : place + _NAMES]]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Uncountable from None
        last = done.stdout.splitlines()[-1:] or [b"0"]
        number = last[0].split(b"\t")[0]
        size += int(number) if number.isdigit() else 0
    return size


class Disk:
    """`check_all` is called by one thread at a time, `refusal` by all. `most` is in bytes for all runs of an app,
    `scratch` for a container besides its outputs; `is_short` returns whether the disk itself is nearly full.
    """

    def __init__(
        self,
        runs: Runs,
        jobs: Jobs,
        root: Path,
        most: int,
        scratch: int,
        is_short: Callable[[], bool],
        count: Callable[[Path], int] = counted,
    ) -> None:
        self._runs = runs
        self._jobs = jobs
        self._root = root
        self._most = most
        self._scratch = scratch
        self._is_short = is_short
        self._count = count
        self._known: dict[str, Held] = {}  # ended runs that have been counted
        self._refused: Mapping[str, str] = {}
        self.used: Mapping[AppName, int] = {}

    def refusal(self, run: str) -> str:
        """Return why a run has to end; "" if it may continue."""
        return self._refused.get(run, "")

    def check_all(self) -> None:
        active = {run.id: run for run in self._runs.active()}
        refused: dict[str, str] = {}
        held = [*self._kept(active), *self._under_way(active.values(), refused)]
        found = excess(held, self._most)
        for id in found.forget:
            self._forget(self._known.pop(id))
        gone = frozenset(found.forget)
        held = [each for each in held if each.run not in gone]
        refused |= {**self._too_much_beside(active.values()), **found.end}
        under_way = [each for each in held if not each.kept]
        if under_way and self._is_short():
            largest = max(under_way, key=lambda each: each.size)
            refused[largest.run] = Localizable(
                "the disk of this host is nearly full, and this run takes the most of it"
            )
        for id in refused.keys() - self._refused.keys():
            log.warning("ending a run: %s", refused[id], extra={"run": id})
        self._refused, self.used = refused, used(held)

    def _kept(self, active: Mapping[str, Run]) -> Iterable[Held]:
        """Return the ended runs, each of which is counted once."""
        there = {entry.name for entry in os.scandir(self._root)} if self._root.is_dir() else set()
        self._known = {id: held for id, held in self._known.items() if id in there - active.keys()}
        for id, app in self._runs.owners(there - active.keys() - self._known.keys()).items():
            try:
                self._known[id] = Held(id, app, self._count(self._root / id), kept=True)
            except Uncountable:
                log.warning("could not count the files of an ended run", extra={"run": id})
                self._known[id] = Held(id, app, self._most, kept=True)
        needed = {run.origin for run in active.values()}
        return [held for id, held in self._known.items() if id not in needed]

    def _under_way(self, active: Iterable[Run], refused: dict[str, str]) -> Iterable[Held]:
        for run in active:
            try:
                yield Held(run.id, run.app, self._count(self._root / run.id), kept=False)
            except Uncountable:
                refused[run.id] = Localizable(
                    "its files cannot be counted within {patience} s: they are too many",
                    patience=format(COUNT_TIMEOUT, ".0f"),
                )

    def _too_much_beside(self, active: Iterable[Run]) -> dict[str, str]:
        """Return runs whose containers have written too much into their own file systems, with the reason."""
        ids = {run.id for run in active}
        try:
            written = self._jobs.written() if ids else ()
        except ControllerError as error:
            log.debug("could not get the sizes of containers from the engine: %s", error)
            written = ()
        return {
            job.run: Localizable(
                "stage {stage!r} has written {size} besides its outputs, but may write only {scratch} (runs.scratch)",
                stage=job.stage,
                size=about_size(size),
                scratch=about_size(self._scratch),
            )
            for job, size in written
            if size > self._scratch and job.run in ids
        }

    def _forget(self, held: Held) -> None:
        """Delete the files first and then the row, as at the end of the retention."""
        run = self._runs.get(held.app, held.run)
        if run is not None and run.state.terminal and remove_tree(RunFolders(self._root, held.run).root):
            self._runs.forget([run])
            log.info("run deleted early, because its app takes too much of the disk", extra={"run": held.run})
