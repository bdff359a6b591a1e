"""Measures what callers notice when the only container of a component is killed by hand: failed calls, and the time
until the calls that waited are answered, compared with `docker restart` of the same image under the same limits, which
is what nobody who starts a container again can undercut.

Two callers call without a pause, in both cases: they cost some of the processor."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import load
from benchmarks.deploy import HARDENED
from benchmarks.environment import (
    BODY,
    PAUSE,
    Adder,
    Environment,
    RunningPlatform,
    address_of,
    answer,
    answers,
    bare_container,
    network,
    running_platform,
    wait_for,
)
from benchmarks.figures import Section

ROUNDS = 7
CALLERS = 2
LEAST = 0.15  # seconds that no container starts in


@dataclass(frozen=True)
class Heal:
    """`answered`: seconds from the kill until the last of the calls that it met was answered."""

    answered: float
    calls: int
    failed: int


@dataclass(frozen=True)
class Call:
    """`ended` is of the monotonic clock."""

    ended: float
    seconds: float
    good: bool


class Callers:
    """Each caller makes one call after the other, on a connection of its own; another one if that breaks. `calls` are
    those of each that have ended."""

    def __init__(self, target: load.Target) -> None:
        self._target = target
        self._stop = threading.Event()
        self.calls: list[list[Call]] = [[] for _ in range(CALLERS)]
        self._threads = [threading.Thread(target=self._run, args=(own,), daemon=True) for own in self.calls]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, calls: list[Call]) -> None:
        while not self._stop.is_set():
            try:
                with load.connect(self._target.address) as connection:
                    while not self._stop.is_set() and self._call(connection, calls):
                        pass
            except OSError:  # a bare container takes no connection while it is restarted
                self._stop.wait(PAUSE)

    def _call(self, connection: socket.socket, calls: list[Call]) -> bool:
        begun = time.monotonic()
        try:
            good = self._target.expected in load.exchange(connection, self._target.request)
        except (OSError, load.LoadFailed):
            good = False
        ended = time.monotonic()
        calls.append(Call(ended, ended - begun, good))
        return good


def measure(ground: Environment) -> Section:
    section = Section("heal", f"the only container is killed under {CALLERS} callers, beside docker restart")
    twice: list[Heal] = []
    once: list[Heal] = []
    bare: list[float] = []
    with running_platform(ground) as platform, network(ground) as own:
        for _ in range(ground.count(ROUNDS)):
            twice.append(_heal(ground, platform, idempotent=True))
            bare.append(_restart(ground, own))
            once.append(_heal(ground, platform, idempotent=False))
    section.add(
        "calls failed, of a function that may run twice", "", [each.failed for each in twice], aim="0"
    )
    section.add("calls failed, of one that may not: those in it", "", [each.failed for each in once])
    section.add("calls made meanwhile", "", [each.calls for each in (*twice, *once)])
    section.add("killed → all calls answered", "ms", [1e3 * each.answered for each in twice])
    section.add("docker restart, limits and own network", "ms", [1e3 * each for each in bare])
    section.compare("healing beside docker restart", [each.answered for each in twice], bare, aim="1.5 ×")
    return section


def _heal(ground: Environment, platform: RunningPlatform, idempotent: bool) -> Heal:
    """Of an app of its own, since a component that is killed again and again is started later and later."""
    module = Adder(platform, ground, idempotent=idempotent)
    target = module.deploy(0)
    (container,) = platform.containers(module.app, running=True)
    with Callers(target) as callers:
        wait_for("calls", lambda: min(map(len, callers.calls)) > 100)
        killed = time.monotonic()
        ground.docker.kill(container["Id"])
        wait_for("the calls that met it", lambda: all(_waited(calls, killed) for calls in callers.calls))
    answered = max(_waited(calls, killed)[0] for calls in callers.calls)
    everything = [call for calls in callers.calls for call in calls]
    return Heal(answered - killed, len(everything), sum(not call.good for call in everything))


def _waited(calls: list[Call], killed: float) -> list[float]:
    """Return when the first call ended that has waited for the start of a container; empty if none has."""
    return [call.ended for call in list(calls) if call.ended > killed and call.seconds > LEAST][:1]


def _restart(ground: Environment, own: str) -> float:
    """Seconds from `docker restart` of a bare container to its first answer."""
    with ExitStack() as stack:
        container = stack.enter_context(bare_container(ground, ("--network", own, *HARDENED)))
        target = load.Target(address_of(ground, container), "/predict", BODY, answer())
        wait_for("the container's answer", lambda: answers(target))
        callers = stack.enter_context(Callers(target))
        wait_for("calls", lambda: min(map(len, callers.calls)) > 100)
        begun = time.monotonic()
        ground.docker.restart(container, timeout=0)
        wait_for("the container's answer", lambda: answers(target))
        return time.monotonic() - begun
