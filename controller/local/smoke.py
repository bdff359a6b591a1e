"""Runs the smoke test of a component that is served locally as soon as it is ready, and says what came out. Called by
`serve`, which goes on serving in any case, so that people can look for the cause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from controller.adapters.probe import HttpProber
from controller.domain.apps.smoke import SmokeCase, verdict
from controller.domain.apps.spec import MLComponentSpec
from controller.domain.text import printable

_PAUSE = 0.1  # seconds between two questions whether it is ready
_MARGIN = 2.0


class SmokeWatch:
    """One test, on a thread that ends with the process."""

    def __init__(self, spec: MLComponentSpec, case: SmokeCase, port: int, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._case = case
        self._endpoint = f"127.0.0.1:{port}"
        self._say = say

    def begin(self) -> None:
        threading.Thread(target=self.run, name="smoke-test", daemon=True).start()

    def run(self) -> None:
        prober, server = HttpProber(), self._spec.server
        while not prober.probe(self._endpoint, server.ready_path, _MARGIN).ready:
            time.sleep(_PAUSE)
        answer = prober.call(
            self._endpoint, self._case, self._case.headers(server), server.timeout + _MARGIN, lambda: False
        )
        wrong = verdict(self._case, answer)
        if wrong:
            self._say(
                f"the smoke test {self._case.test.input} fails, so the platform would give this version no traffic:"
                f" {printable(wrong)}"
            )
        else:
            self._say(f"the smoke test {self._case.test.input} passes")
