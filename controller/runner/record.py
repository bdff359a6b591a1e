"""The run as it is written down. Threads of one run, and whoever cancels it, change it in turns: each change is made to
what is there, and made again if somebody was quicker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.runs import Run, StageRun
from controller.ports import Runs
from controller.runner.signals import Signals

log = logging.getLogger(__name__)

T = TypeVar("T")


class Over(Exception):
    """The run is at its end, or was removed: nothing more is to be done for it."""


class Record:
    def __init__(self, runs: Runs, signals: Signals, app: AppName, id: str) -> None:
        self._runs = runs
        self._signals = signals
        self.app = app
        self.id = id

    def load(self) -> Run:
        """Raises Over."""
        run = self._insist(lambda: self._runs.get(self.app, self.id))
        if run is None or run.state.terminal:
            raise Over
        return run

    def update(self, change: Callable[[Run], Run]) -> Run:
        """The run as it was saved. `change` may be called more than once, and may raise. Raises Over, Halted."""
        while True:
            run = self.load()
            changed = change(run)
            if changed == run:
                return run
            if saved := self._insist(lambda changed=changed: self._runs.save(changed)):  # type: ignore[misc]
                return saved

    def update_stage(self, name: str, change: Callable[[StageRun], StageRun]) -> StageRun:
        return self.update(lambda run: run.with_stage(change(run.stage(name)))).stage(name)

    def _insist(self, call: Callable[[], T]) -> T:
        """What cannot be written down must not be done: while the state does not answer, nothing goes on."""
        while True:
            try:
                return call()
            except Transient as error:
                log.error("the state does not answer: %s", error.message, extra={"run": self.id})
            self._signals.rest()
