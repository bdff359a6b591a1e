"""Releases: the outputs of a run become the module's own data (`publishTo`), once all its stages have
succeeded.

A release replaces all of its group in the developer area, and half of it is never taken for the whole: the
group's manifest first says that it is being written, and finally what is there. After a crash all of it is
done again, since `next_step` requires it until its end is recorded. Called by `run_worker`, in the thread of the
run.

Releases into one bucket take turns, whatever runs they belong to: a later one replaces the earlier one
completely.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from controller.domain.apps.requests import Trigger
from controller.domain.errors import ControllerError, Stalled
from controller.domain.localizable import Localizable
from controller.domain.runs.run import Run, RunOutput, RunState
from controller.domain.runs.steps import PLATFORM_PAUSES, FinishRun, release
from controller.runner.deps import RunnerDeps
from controller.runner.failures import BUG, StageFailure, failure_of_error
from controller.runner.group_locks import GroupLocks
from controller.runner.inputs import RunInputs
from controller.runner.outputs import give_up, publication, publish
from controller.runner.record import RunEnded, RunRecord
from controller.runner.signals import RunSignals, ShuttingDown

log = logging.getLogger(__name__)


class OutputReleaser:
    """The releases of one run. `signals` report only the daemon's end: once all stages have succeeded it is
    too late to cancel.
    """

    def __init__(
        self,
        deps: RunnerDeps,
        record: RunRecord,
        inputs: RunInputs,
        signals: RunSignals,
        group_locks: GroupLocks,
    ) -> None:
        self._deps = deps
        self._record = record
        self._inputs = inputs
        self._signals = signals
        self._group_locks = group_locks

    def carry_out(self, output: RunOutput) -> FinishRun | None:
        """Publish an output and record that, and return None; or return how the run has to end. Waits if the
        storage does not answer. Raises ShuttingDown, RunEnded, and errors of the state.
        """
        failure = self._try(output)
        for pause in PLATFORM_PAUSES:
            if failure is None or failure.final:
                break
            self._note(failure)
            self._signals.pause(pause)
            failure = self._try(output)
        if failure is None:
            self._write_down(output)
            return None
        self._give_up(output)
        state = RunState.ERROR if failure.platform else RunState.FAILED
        return FinishRun(
            state,
            failure.reason,
            Localizable("output {output}: {failure}", output=output.name, failure=failure.message),
        )

    def _try(self, output: RunOutput) -> StageFailure | None:
        try:
            self._release(self._record.load(), output)
        except ControllerError as error:
            return replace(failure_of_error(error), final=isinstance(error, Stalled))
        except (ShuttingDown, RunEnded):
            raise
        except Exception:
            log.exception("bug in a release", extra={"run": self._record.id, "output": output.name})
            return replace(BUG, final=True)
        return None

    def _release(self, run: Run, output: RunOutput) -> None:
        folder = self._inputs.bring(run, output.name)
        assert folder is not None, "only inputs can be left out"
        target = publication(self._deps, run, output, folder)
        with self._group_locks.acquire(target.bucket, target.prefix, self._signals.check_halted):
            publish(self._deps, self._signals, target)

    def _give_up(self, output: RunOutput) -> None:
        with suppress(ControllerError):
            give_up(self._deps, publication(self._deps, self._record.load(), output, Path()))

    def _note(self, failure: StageFailure) -> None:
        message = Localizable("could not publish yet, trying again: {failure}", failure=failure.message)
        self._record.update(lambda run: replace(run, reason=failure.reason, message=message))

    def _write_down(self, output: RunOutput) -> None:
        """Save the run and request a reconciliation in one transaction."""
        with self._deps.store.transaction():
            run = self._record.load()
            self._deps.store.runs.save(release(run, output))
            self._deps.store.requests.enqueue(run.app, Trigger.BOX)
        fields = {
            "app": run.app,
            "run": run.id,
            "output": output.name,
            "box": output.box,
            "path": output.data,
        }
        log.info("output published to the developer area", extra=fields)
