"""Calls of an attempt to the engine, and how long an engine that fails is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from controller.domain.errors import Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.steps import PLATFORM_PAUSES
from controller.ports import ObservedJob
from controller.runner.attempt_context import AttemptContext
from controller.runner.failures import LOST, StageFailed, failure_of_error

T = TypeVar("T")

#: Seconds for which an unreachable engine may delay the record of an attempt's end.
STOPPING = 300.0
_AWAY = Reason.ENGINE_UNREACHABLE  # the only error that says nothing about this attempt


class EngineCalls:
    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._deps = context.deps
        self._signals = context.signals

    def find(self) -> ObservedJob | None:
        """Return the container in any state. Raises ShuttingDown, Canceled."""
        limit = self._deps.settings.runs.lost_after
        return self._insist(
            lambda: self._deps.jobs.find(self._context.name),
            limit,
            PLATFORM_PAUSES,
            self._signals.pause,
        )

    def before_start(self, call: Callable[[], T]) -> T:
        """Make a call before the command runs: wait if the engine is away, without counting an attempt; any
        other error ends the attempt, and nothing is lost. Raises ShuttingDown, Canceled.
        """
        limit = self._deps.settings.runs.lost_after
        if self._context.stage.timeout is not None:
            limit = min(limit, max(self._context.stage.timeout, STOPPING))
        return self._insist(call, limit, (), self._signals.pause)

    def while_running(
        self, call: Callable[[], T], limit: float, until: Callable[[], bool] = lambda: False
    ) -> T:
        """Make a call while the command may run: only the engine can tell, so a few errors are tolerated.
        Pauses end early once `until()` is true. Raises ShuttingDown.
        """
        return self._insist(call, limit, PLATFORM_PAUSES, lambda seconds: self._signals.rest(seconds, until))

    def _insist(
        self, call: Callable[[], T], limit: float, pauses: Sequence[float], rest: Callable[[float], None]
    ) -> T:
        """Retry for `limit` seconds while the engine is away, and after other errors as often as there are
        `pauses`. The stage shows people what is waited for.
        """
        pauses_left, since = list(pauses), None
        while True:
            try:
                self._signals.check_halted()
                answer = call()
            except Transient as error:
                now = self._deps.clock.monotonic()
                since = now if since is None else since
                if error.reason == _AWAY and now - since < limit:
                    pause = 1.0
                elif error.reason not in (_AWAY, LOST.reason) and pauses_left:
                    pause = pauses_left.pop(0)
                elif error.reason == _AWAY:
                    raise StageFailed(replace(failure_of_error(error), final=True)) from error
                else:
                    raise
                self._context.show_reason(
                    error.reason, Localizable("trying again: {error}", error=error.message)
                )
            else:
                if since is not None:
                    self._context.show_reason(Reason.NONE, "")
                return answer
            rest(pause)
