"""A thread of the daemon that answers what people ask it for: it may use the engine and the repositories, unlike the
web process and other users of this host.

One thing is answered at a time, with a pause after it, so that those who ask cannot keep the engine and its Git servers
busy.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

from controller.domain.errors import ControllerError, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.guards import GuardedStep

log = logging.getLogger(__name__)

_BUG: Final = Localizable("internal error; see the traceback in the daemon's log")

A = TypeVar("A")  # what is asked for
R = TypeVar("R")  # what is found


class AskedWorker(ABC, Generic[A, R]):
    """The methods that a worker has to define: `begin` and `finish` are those of its queue in the store."""

    task: ClassVar[str]  # for the log: "list the images on the engine"
    look: ClassVar[float]  # seconds between two looks for what is asked
    rest: ClassVar[float]  # seconds after an answer

    @abstractmethod
    def begin(self) -> A | None: ...

    @abstractmethod
    def answer(self, asked: A) -> R: ...

    @abstractmethod
    def failure(self, asked: A, reason: Reason, message: str, is_transient: bool) -> R:
        """Return the answer that says why there is none."""

    @abstractmethod
    def finish(self, found: R) -> None: ...

    def run(self, stop: threading.Event) -> None:
        step = GuardedStep(f"cannot {self.task}", self._serve)
        while not stop.is_set():
            step(stop)
            stop.wait(self.look)

    def work(self) -> bool:
        """Answer what has waited longest; return False if there is nothing."""
        asked = self.begin()
        if asked is None:
            return False
        self.finish(self._answer(asked))
        return True

    def _serve(self, stop: threading.Event) -> None:
        while self.work() and not stop.wait(self.rest):
            pass

    def _answer(self, asked: A) -> R:
        """A bug in one answer stops no other."""
        try:
            return self.answer(asked)
        except ControllerError as error:
            return self.failure(asked, error.reason, error.message, isinstance(error, Transient))
        except Exception:
            log.exception("bug: cannot %s", self.task)
            return self.failure(asked, Reason.INTERNAL_ERROR, _BUG, True)
