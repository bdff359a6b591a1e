"""The run as it is stored. Threads of one run and requests to cancel it change it concurrently: each change
is applied to the stored run, and again if another one came first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from controller.domain.errors import Transient
from controller.domain.names import AppName
from controller.domain.runs.run import Run, StageRun, with_messages
from controller.ports import Runs
from controller.runner.signals import RunSignals

log = logging.getLogger(__name__)

T = TypeVar("T")


class RunEnded(Exception):
    """The run has ended or was deleted: there is nothing more to do for it."""


class RunRecord:
    """`clean` removes from texts that callers read what is not meant for them."""

    def __init__(
        self, runs: Runs, signals: RunSignals, app: AppName, id: str, clean: Callable[[str], str] = str
    ) -> None:
        self._runs = runs
        self._clean = clean
        self._signals = signals
        self.app = app
        self.id = id

    def load(self) -> Run:
        """Return the stored run. Raises RunEnded."""
        run = self.insist(lambda: self._runs.get(self.app, self.id))
        if run is None or run.state.terminal:
            raise RunEnded
        return run

    def update(self, change: Callable[[Run], Run]) -> Run:
        """Change the run and return it as saved. `change` may be called more than once, and may raise. Raises
        RunEnded, ShuttingDown.
        """
        while True:
            run = self.load()
            changed = with_messages(change(run), self._clean)
            if changed == run:
                return run
            if saved := self.insist(lambda changed=changed: self._runs.save(changed)):  # type: ignore[misc]
                return saved

    def update_stage(self, name: str, change: Callable[[StageRun], StageRun]) -> StageRun:
        return self.update(lambda run: run.with_stage(change(run.stage(name)))).stage(name)

    def insist(self, call: Callable[[], T]) -> T:
        """Retry until the state answers: what cannot be recorded must not be done."""
        while True:
            try:
                return call()
            except Transient as error:
                log.error(
                    "the state does not answer, trying again: %s", error.message, extra={"run": self.id}
                )
            self._signals.rest()
