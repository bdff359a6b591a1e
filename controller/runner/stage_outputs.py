"""The outputs of a stage: they are made readable, and published into the box."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.runs.run import Run, RunOutput, RunState, reused_reason
from controller.domain.runs.steps import PLATFORM_PAUSES
from controller.runner.attempt_context import AttemptContext
from controller.runner.contents import open_up
from controller.runner.failures import StageFailed, StageFailure, failure_of_error
from controller.runner.outputs import Publication, guarded, publication, publish, require_place, require_space


class StageOutputs:
    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._work = context.work
        self._deps = context.deps
        self._signals = context.signals

    def require_box(self, run: Run) -> None:
        """Raise StageFailed if the run hands out files, and has neither a box nor a folder for them."""
        if not run.pipeline.boxes and not self._deps.keeps_files and run.handed_out:
            raise StageFailed(StageFailure(Reason.OUTPUT_INVALID, _no_box(run), final=True))

    def require_places(self, run: Run) -> None:
        """Raise Stalled if an output that is to be published has no place."""
        for output in run.to_publish:
            self._require_place(run, output)

    def _require_place(self, run: Run, output: RunOutput) -> None:
        """Raise Stalled if the output has no place. A storage that does not answer now may do so at the end."""
        target = publication(self._deps, run, output, self._work.folders.root)
        with suppress(Transient):
            objects = self._deps.storage.objects()
            require_place(objects, target)
            require_space(self._deps, objects, target)

    def deliver(self) -> None:
        """Publish the outputs that the run hands out, and record that the stage has succeeded. Raises StageFailed."""
        run = self._context.run()
        folders = {name: self._folder(run, name) for name in self._context.stage.outputs}
        reused = run.stage(self._context.stage.name).reused_from
        if not reused:
            for folder in folders.values():
                self._open_up(folder)
        for output in run.handed_out if run.pipeline.boxes else ():
            if output.name in folders:
                self._publish(publication(self._deps, run, output, folders[output.name]))
        progress = self._work.folders.read_progress(self._context.stage.name, self._context.number)
        why = reused_reason(reused) if reused else ()
        self._context.write(
            lambda stage: replace(
                stage.end_attempt(self._context.now()).to(RunState.SUCCEEDED, self._context.now(), *why),
                progress=progress,
            )
        )

    def _open_up(self, folder: Path) -> None:
        """Make the output readable. If files of root are closed to this process, a container changes them."""
        try:
            open_up(folder)
        except Stalled as error:
            refused = isinstance(error.__cause__, PermissionError)
            if not refused or self._deps.unlock is None:
                raise
            self._deps.unlock(self._work.folders.volume(folder), self._context.stage.image)
            open_up(folder)

    def _publish(self, target: Publication) -> None:
        """Publish an output. If the storage does not answer, wait: running the stage again would not help."""
        with guarded(self._deps, target):
            for pause in PLATFORM_PAUSES:
                self._signals.check()
                try:
                    return self._publish_in_turn(target)
                except Transient as error:
                    self._context.show_reason(
                        error.reason,
                        Localizable("could not publish yet, trying again: {error}", error=error.message),
                    )
                self._signals.pause(pause)
            try:
                return self._publish_in_turn(target)
            except Transient as error:
                raise StageFailed(replace(failure_of_error(error), final=True)) from error

    def _publish_in_turn(self, target: Publication) -> None:
        turn = self._work.group_locks.acquire(
            target.bucket,
            target.prefix,
            self._signals.check,
            lambda: self._context.note_turn(target.group),
        )
        with turn:
            publish(self._deps, self._signals, target)

    def _folder(self, run: Run, name: str) -> Path:
        """Return where this stage, or the run that this one repeats, has put an output."""
        if run.stage(self._context.stage.name).reused_from:
            return self._work.inputs.bring(run, name) or Path()
        return self._work.folders.output(self._context.stage.name, self._context.number, name)


def _no_box(run: Run) -> str:
    names = ", ".join(output.name for output in run.handed_out)
    return Localizable(
        "the pipeline has no connected box for its outputs ({names}): connect one with "
        "`connectedBoxes`, or use `publishTo`",
        names=names,
    )
