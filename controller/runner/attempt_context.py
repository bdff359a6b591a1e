"""What the parts of an attempt share: what it works on, and its record, which is a part of the run's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from controller.domain.localizable import Localizable
from controller.domain.names import job_name
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import Run, StageRun
from controller.runner.deps import RunnerDeps
from controller.runner.folders import RunFolders
from controller.runner.group_locks import GroupLocks
from controller.runner.inputs import RunInputs
from controller.runner.record import RunRecord
from controller.runner.signals import RunSignals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageWork:
    """What the attempts of one run need. `background` runs tasks besides them; `wake` signals that an
    attempt's end was recorded.
    """

    deps: RunnerDeps
    record: RunRecord
    folders: RunFolders
    inputs: RunInputs
    group_locks: GroupLocks
    signals: RunSignals
    background: Executor
    wake: Callable[[], None]
    overfull: Callable[[], str] = str  # why the run takes too much of the disk, "" if it does not


class AttemptContext:
    """The attempt `number` of a stage, its newest one. The image of `stage` changes if it is built again."""

    def __init__(self, work: StageWork, stage: Stage, number: int) -> None:
        self.work = work
        self.deps = work.deps
        self.signals = work.signals
        self.stage = stage
        self.number = number
        self.name = job_name(work.deps.settings.instance, work.record.app, work.record.id, stage.name, number)
        self._shown = ""  # the reason for waiting

    @property
    def fields(self) -> dict[str, object]:
        return {"run": self.work.record.id, "stage": self.stage.name, "attempt": self.number}

    def now(self) -> float:
        return self.deps.clock.now()

    def run(self) -> Run:
        """Return the run as it is stored. Raises RunEnded."""
        return self.work.record.load()

    def stage_run(self) -> StageRun:
        """Return the stage as it is stored. Raises RunEnded."""
        return self.run().stage(self.stage.name)

    def update(self, change: Callable[[Run], Run]) -> None:
        self.work.record.update(change)

    def write(self, change: Callable[[StageRun], StageRun]) -> None:
        self.work.record.update_stage(self.stage.name, change)

    def show_reason(self, reason: Reason, message: str) -> None:
        """Show people what is waited for. The text of the same reason stays, since it may change with each
        try.
        """

        def with_reason(stage: StageRun) -> StageRun:
            known = stage.reason == reason or not stage.active
            return stage if known else replace(stage, reason=reason, message=message)

        if reason and reason != self._shown:
            log.warning("%s", message, extra={**self.fields, "reason": reason})
        self._shown = reason
        self.write(with_reason)

    def note_turn(self, group: str) -> None:
        self.show_reason(
            Reason.WAITING_FOR_GROUP,
            Localizable("waiting until other runs have finished with the group {group!r}", group=group),
        )
