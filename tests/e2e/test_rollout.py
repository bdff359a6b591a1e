"""From a commit to an answer, and from one version to the next, on everything real."""

from __future__ import annotations

import threading

from tests.support.platform import ECHO, Module, Platform

APP = "pu-e2e-pa-echo"


def test_first_push_answers_and_next_version_loses_no_call(platform: Platform, module: Module) -> None:
    first = module.served(ECHO).push()
    platform.connect(module, APP)
    platform.until_ready(APP, first)
    assert platform.predict(APP).json == {"outputs": [{"name": "version", "datatype": "str", "data": "1"}]}

    with Callers(platform, 4) as callers:
        platform.until(lambda: callers.answered("1") > 20)
        second = module.served(ECHO, version="2").push()
        platform.poke(APP)
        platform.until(lambda: callers.answered("2") > 20)
    platform.until_ready(APP, second)
    assert callers.failures == []
    assert len(platform.containers(APP)) == 1
    assert [c["Labels"]["io.prichal.revision"] for c in platform.containers(APP)] == [second]


class Callers:
    """Clients that call without a pause."""

    def __init__(self, platform: Platform, count: int) -> None:
        self._platform = platform
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        self.versions: list[str] = []
        self.failures: list[object] = []

    def answered(self, version: str) -> int:
        return self.versions.count(version)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self._platform.predict(APP)
            except OSError as error:
                self.failures.append(error)
                continue
            if reply.status == 200:
                self.versions.append(reply.json["outputs"][0]["data"])
            else:
                self.failures.append((reply.status, reply.body))
