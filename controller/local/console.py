"""The progress of a run while it lasts: output of its stages on standard output, and their states on standard
error.

Each line begins with the name of its stage, since several may run at once. `run` calls `show` repeatedly.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from controller.domain.runs.run import Run, RunState, StageRun, Transition
from controller.runner.folders import RunFolders

Say = Callable[[str], None]  # one line

_LONGEST = 1 << 16  # characters of an unfinished line; longer ones are shown in parts


class Console:
    """The view of one run. `out` takes what stages write, `note` everything else."""

    def __init__(self, folders: RunFolders, stages: tuple[str, ...], out: Say, note: Say) -> None:
        width = max(map(len, stages))
        self._stages = [_StageView(folders, name, width, out, note) for name in stages]

    def show(self, run: Run) -> None:
        """Show what is new. The log is read after `run` was, so it has all that an ended attempt has written."""
        for view in self._stages:
            view.show(run.stage(view.name))


class _StageView:
    def __init__(self, folders: RunFolders, name: str, width: int, out: Say, note: Say) -> None:
        self.name = name
        self._folders = folders
        self._head = name.ljust(width)
        self._out = out
        self._note = note
        self._told = 0  # transitions
        self._progress = ""
        self._began = 0.0
        self._log: _LogTail | None = None
        self._attempt = 0

    def show(self, stage: StageRun) -> None:
        for step in stage.history[self._told :]:
            self._print_transition(stage, step)
        self._told = len(stage.history)
        self._print_progress(stage)
        self._write(end=False)

    def _print_transition(self, stage: StageRun, step: Transition) -> None:
        if step is stage.history[0]:  # the first state, QUEUED, tells nothing
            return
        if step.state is RunState.STARTING:
            self._attempt, self._began = self._attempt + 1, step.at
            self._log = _LogTail(self._folders.log(self.name, self._attempt))
        elif step.state not in (RunState.RUNNING, RunState.CANCELING):
            if step is stage.history[-1]:
                self._print_progress(stage)
            self._write(end=True)
            self._log = None
        self._note(f"{self._head} * {self._described(stage, step)}")

    def _described(self, stage: StageRun, step: Transition) -> str:
        text = str(step.state)
        if step.state is RunState.STARTING and self._attempt > 1:
            text += f" again, attempt {self._attempt}"
        if self._began and (step.state.terminal or step.state is RunState.QUEUED):
            text += f" after {step.at - self._began:.1f} s"
        if step.reason:
            text += f", {step.reason}: {step.message}"
        if step is stage.history[-1] and step.state is RunState.QUEUED and stage.not_before > step.at:
            text += f"; again in {stage.not_before - step.at:.0f} s"
        return text

    def _print_progress(self, stage: StageRun) -> None:
        if stage.progress not in ("", self._progress):
            self._note(f"{self._head} * {stage.progress}")
        self._progress = stage.progress

    def _write(self, end: bool) -> None:
        for line in self._log.lines(end) if self._log else ():
            self._out(f"{self._head} | {line}")


class _LogTail:
    """A log file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self, end: bool) -> list[str]:
        """Return new complete lines; at the `end` also an incomplete one."""
        text = self._rest + self._new() + (self._decoder.decode(b"", final=True) if end else "")
        *lines, self._rest = text.split("\n")
        if self._rest and (end or len(self._rest) > _LONGEST):
            lines.append(self._rest)
            self._rest = ""
        return [line.removesuffix("\r") for line in lines]

    def _new(self) -> str:
        """Return all that is new; logs are bounded."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return ""
        self._offset += len(content)
        return self._decoder.decode(content)
