"""Asks NVIDIA's driver for the GPUs of this host, by the program in `nvml`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from controller.adapters.nvml import NO_LIBRARY
from controller.adapters.nvml import NOT_INSTALLED as NOT_INSTALLED
from controller.domain.gpu_devices import GpuReport, read_report
from controller.domain.localizable import Localizable

#: What the program says in words of ours, as messages.
_WORDS: Final = {
    NOT_INSTALLED: Localizable("nvidia-ml-py is not installed"),
    NO_LIBRARY: Localizable("libnvidia-ml.so.1 of NVIDIA's driver is not installed"),
}
ANSWER_TIMEOUT: Final = 10.0  # seconds
MOST: Final = 2**20  # bytes of an answer
#: `-P` keeps Python from importing modules of the current folder.
PROGRAM: Final = (sys.executable, "-P", "-m", "controller.adapters.nvml")


class GpuDriver:
    """Used by one thread. A process that hangs in the driver cannot always be killed: no other one is started beside
    it."""

    def __init__(
        self,
        program: Sequence[str] = PROGRAM,
        timeout: float = ANSWER_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._program = program
        self._timeout = timeout
        self._clock = clock
        self._hanging: subprocess.Popen[bytes] | None = None

    def read(self) -> GpuReport:
        """Return what the driver says now, or why it says nothing. Raises no error."""
        if self._hanging and self._hanging.poll() is None:
            return self._silent(Localizable("the driver has not answered for long"))
        self._hanging = None
        try:
            process = subprocess.Popen(self._program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            return self._silent(Localizable("the driver cannot be asked: {error}", error=error))
        try:
            content, _ = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            self._give_up(process)
            return self._silent(
                Localizable("the driver has not answered within {patience} s", patience=self._timeout)
            )
        if process.returncode:
            return self._silent(
                Localizable("asking the driver ended with {how}", how=_told(process.returncode))
            )
        return self._read(content)

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        if process.stdout:
            process.stdout.close()
        self._hanging = process

    def _read(self, content: bytes) -> GpuReport:
        try:
            if len(content) > MOST:
                raise ValueError("too much")
            report = read_report(json.loads(content), self._clock())
            return replace(report, problem=_WORDS.get(report.problem, report.problem))
        except (ValueError, RecursionError):
            return self._silent(Localizable("the driver's answer cannot be read"))

    def _silent(self, problem: str) -> GpuReport:
        return GpuReport(self._clock(), problem=problem)


def _told(code: int) -> str:
    return Localizable("signal {number}", number=-code) if code < 0 else Localizable("code {code}", code=code)
