"""Measures the time from `git push` to the first answer of the new version, and from a request to roll back to the
first answer of the version before it, compared with `docker run` of the same image: a bare one, and one with the
platform's limits and network, which is the least that the platform could need.

A client calls through the gateway every other millisecond all the while; a call without a good answer is lost.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass

from benchmarks import load
from benchmarks.environment import (
    BODY,
    PAUSE,
    Adder,
    Environment,
    address_of,
    answer,
    answers,
    bare_container,
    network,
    running_platform,
    wait_for,
)
from benchmarks.figures import Section
from controller.domain.units import parse_rfc3339
from tests.support.platform import Platform

ROUNDS = 7
HARDENED = (
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256"),
    *("--memory", "256m", "--memory-swap", "256m", "--cpus", str(os.cpu_count())),
)
STAGES = ("NewRevision", "Started", "BecameReady", "Switched", "answer")
_STAGE_TITLES = {
    "NewRevision": "push → hook accepted, request claimed, commit fetched",
    "Started": "→ planned, container started",
    "BecameReady": "→ ready",
    "Switched": "→ route switched",
    "answer": "→ first answer seen",
}


@dataclass(frozen=True)
class Rollout:
    """Seconds from the push. `stages` are the seconds of each stage, which add up to `answered`."""

    answered: float
    pushed: float
    stages: dict[str, float]
    calls: int
    lost: int


@dataclass(frozen=True)
class Rollback:
    """Seconds from the request."""

    answered: float
    lost: int


@dataclass(frozen=True)
class BareRun:
    """Seconds from the start of the command `docker run -d`: to its end, to the first answer."""

    returned: float
    answered: float


def measure(ground: Environment) -> Section:
    section = Section("deploy", "git push → first answer of the new version, beside docker run")
    rollouts: list[Rollout] = []
    back: list[Rollback] = []
    bare: list[BareRun] = []
    same: list[BareRun] = []
    with running_platform(ground) as platform, network(ground) as own:
        contest = Contest(ground, platform)
        for _ in range(ground.count(ROUNDS)):
            rollouts.append(contest.roll_out())
            back.append(contest.roll_back())
            bare.append(contest.run_container(()))
            same.append(contest.run_container(("--network", own, *HARDENED)))
    _report(section, rollouts, bare, same)
    _report_back(section, back, bare, same)
    return section


def _report_back(section: Section, back: list[Rollback], bare: list[BareRun], same: list[BareRun]) -> None:
    seconds = [each.answered for each in back]
    section.add("rollback → first answer", "ms", [1e3 * each for each in seconds])
    section.compare("rollback beside bare docker run", seconds, [r.answered for r in bare])
    section.compare(
        "rollback beside docker run, limits and own network",
        seconds,
        [r.answered for r in same],
        aim="1.05 ×",
    )
    section.add("calls lost in a rollback", "", [each.lost for each in back], aim="0")


def _report(section: Section, rollouts: list[Rollout], bare: list[BareRun], same: list[BareRun]) -> None:
    pushed = [r.answered for r in rollouts]
    section.add("push → first answer", "ms", [1e3 * seconds for seconds in pushed])
    section.add("bare docker run → first answer", "ms", [1e3 * r.answered for r in bare])
    section.add("docker run, limits and own network", "ms", [1e3 * r.answered for r in same])
    section.compare("push beside bare docker run", pushed, [r.answered for r in bare], aim="1.3 ×")
    section.compare(
        "push beside docker run, limits and own network", pushed, [r.answered for r in same], aim="1.15 ×"
    )
    section.add("calls lost in a rollout", "", [r.lost for r in rollouts], aim="0")
    section.add("calls made in a rollout", "", [r.calls for r in rollouts])
    for stage in STAGES:
        section.add(f"  {_STAGE_TITLES[stage]}", "ms", [1e3 * r.stages[stage] for r in rollouts])
    section.add("  git push returned, old one gone", "ms", [1e3 * r.pushed for r in rollouts])
    section.add("  bare docker run returned", "ms", [1e3 * r.returned for r in bare])
    section.add("  docker run, limits and own network, returned", "ms", [1e3 * r.returned for r in same])


class Contest:
    """One module on the platform, and containers started beside it. A client calls the module all the while, in both
    cases: it costs some of the processor."""

    def __init__(self, ground: Environment, platform: Platform) -> None:
        self._ground = ground
        self._platform = platform
        self._module = Adder(platform, ground)
        self._module.deploy(0)
        self._offset = 0  # of the newest commit
        self._serving = self._previous = 0

    def roll_out(self) -> Rollout:
        before = answer(self._serving)
        self._offset += 1
        self._previous, self._serving = self._serving, self._offset
        revision = self._module.commit(self._offset)
        with Caller(self._module.target(self._offset), before) as caller:
            begun = time.time()
            push = self._module.begin_push()
            wait_for("the end of git push", lambda: push.poll() is not None)
            pushed = time.time()
            wait_for("the new version's answer", lambda: caller.answered)
        moments = _moments(self._platform, self._module.app, revision)
        stages = _stages(begun, {**moments, "answer": caller.answered})
        return Rollout(caller.answered - begun, pushed - begun, stages, caller.calls, caller.lost)

    def roll_back(self) -> Rollback:
        """Go back to what served before the last push; the next push goes on."""
        before, self._serving = answer(self._serving), self._previous
        with Caller(self._module.target(self._serving), before) as caller:
            begun = time.time()
            self._platform.request("POST", f"/-/apps/{self._module.app}/rollback")
            wait_for("the earlier version's answer", lambda: caller.answered)
            wait_for(
                "the end of the other one", lambda: len(self._platform.containers(self._module.app)) == 1
            )
        return Rollback(caller.answered - begun, caller.lost)

    def run_container(self, options: tuple[str, ...]) -> BareRun:
        with Caller(self._module.target(self._serving), answer(self._serving)):
            begun = time.time()
            with bare_container(self._ground, options) as container:
                returned = time.time()
                target = load.Target(address_of(self._ground, container), "/predict", BODY, answer())
                wait_for("the container's answer", lambda: answers(target))
                return BareRun(returned - begun, time.time() - begun)


class Caller(threading.Thread):
    """A client on one connection that calls every other millisecond. `answered`: when the version that
    `target` expects answered first, Unix seconds, 0 before. Any answer but this version's or the one `before`
    is a lost call."""

    def __init__(self, target: load.Target, before: bytes) -> None:
        super().__init__(daemon=True)
        self.answered, self.calls, self.lost = 0.0, 0, 0
        self._target = target
        self._before = before
        self._stop_calling = threading.Event()

    def __enter__(self) -> Caller:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_calling.set()
        self.join()

    def run(self) -> None:
        while not self._stop_calling.is_set():
            try:
                with load.connect(self._target.address) as connection:
                    self._call_on(connection)
            except (OSError, load.LoadFailed):
                self.lost += 1
                self._stop_calling.wait(PAUSE)

    def _call_on(self, connection: socket.socket) -> None:
        while not self._stop_calling.wait(PAUSE):
            self.calls += 1
            body = load.exchange(connection, self._target.request)
            if self._target.expected in body:
                self.answered = self.answered or time.time()
            elif self._before not in body:
                raise load.LoadFailed(f"neither version's answer: {body!r}")


# --- where the time goes ----------------------------------------------------------------------------------------


def _moments(platform: Platform, app: str, revision: str) -> dict[str, float]:
    """The time of the first event of each reason, in Unix seconds, for the events of this commit."""
    moments: dict[str, float] = {}
    for event in platform.events(app):
        if event["revision"] == revision:
            moments.setdefault(event["reason"], parse_rfc3339(event["at"]))
    return moments


def _stages(begun: float, moments: dict[str, float]) -> dict[str, float]:
    seconds, last = {}, begun
    for stage in STAGES:
        seconds[stage] = moments[stage] - last
        last = moments[stage]
    return seconds
