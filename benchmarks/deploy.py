"""From `git push` to the first answer of the new version, beside `docker run` of the same image: a bare one, and one
with the limits and the network of its own that the platform gives, which is the floor of what it could reach.

A client calls through the gateway every other millisecond all the while; a call without a good answer is lost.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from benchmarks import load
from benchmarks.figures import Section, in_turns
from benchmarks.ground import (
    BODY,
    PATIENCE,
    PAUSE,
    Adder,
    Ground,
    address_of,
    answer,
    answers,
    bare_container,
    network,
    running_platform,
    wait_for,
)
from tests.support.platform import Platform

ROUNDS = 7
HARDENED = (
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256"),
    *("--memory", "256m", "--memory-swap", "256m", "--cpus", str(os.cpu_count())),
)
STAGES = ("hook", "NewRevision", "Started", "BecameReady", "Switched", "answer")
_STAGE_TITLES = {
    "hook": "push → hook accepted",
    "NewRevision": "→ request claimed, commit fetched",
    "Started": "→ planned, container started",
    "BecameReady": "→ ready",
    "Switched": "→ route switched",
    "answer": "→ first answer seen",
}
_ACCEPTED = re.compile(r"^(\S+)Z INFO controller\.web\.hooks: webhook accepted", re.MULTILINE)


@dataclass(frozen=True)
class Rollout:
    """Seconds from the push. `stages` are the seconds of each stage, which add up to `answered`."""

    answered: float
    pushed: float
    stages: dict[str, float]
    calls: int
    lost: int


@dataclass(frozen=True)
class BareRun:
    """Seconds from the start of the command `docker run -d`: to its end, to the first answer."""

    returned: float
    answered: float


def measure(ground: Ground) -> Section:
    section = Section("deploy", "git push → first answer of the new version, beside bare docker run")
    with running_platform(ground) as platform:
        module = Adder(platform, ground)
        module.deploy(0)
        versions = iter(range(1, 10**6))
        measurements: dict[str, Callable[[], Rollout | BareRun]] = {
            "push": lambda: _roll_out(platform, module, next(versions)),
            "bare": lambda: _run_bare(ground, ()),
            "same": lambda: _run_bare(ground, options),
        }
        with network(ground) as name:
            options = ("--network", name, *HARDENED)
            results = in_turns(measurements, ROUNDS)
    rollouts = [r for r in results["push"] if isinstance(r, Rollout)]
    bare, same = ([r for r in results[name] if isinstance(r, BareRun)] for name in ("bare", "same"))
    _report(section, rollouts, bare, same)
    return section


def _report(section: Section, rollouts: list[Rollout], bare: list[BareRun], same: list[BareRun]) -> None:
    pushed = [r.answered for r in rollouts]
    section.add("push → first answer", "ms", [1e3 * seconds for seconds in pushed])
    section.add("bare docker run → first answer", "ms", [1e3 * r.answered for r in bare])
    section.add("docker run, limits and own network", "ms", [1e3 * r.answered for r in same])
    section.compare("push beside bare docker run", pushed, [r.answered for r in bare], aim="1.3 ×")
    section.compare("push beside docker run, limits and own network", pushed, [r.answered for r in same])
    section.add("calls lost in a rollout", "", [r.lost for r in rollouts], aim="0")
    section.add("calls made in a rollout", "", [r.calls for r in rollouts])
    for stage in STAGES:
        section.add(f"  {_STAGE_TITLES[stage]}", "ms", [1e3 * r.stages[stage] for r in rollouts])
    section.add("  git push returned, old one gone", "ms", [1e3 * r.pushed for r in rollouts])
    section.add("  bare docker run returned", "ms", [1e3 * r.returned for r in bare])
    section.add("  docker run, limits and own network, returned", "ms", [1e3 * r.returned for r in same])


# --- with the platform ------------------------------------------------------------------------------------------


def _roll_out(platform: Platform, module: Adder, offset: int) -> Rollout:
    revision = module.commit(offset)
    target = module.target(offset)
    begun = time.time()
    answered, pushed, calls, lost = _call_while_pushed(module.begin_push(), target, answer(offset - 1))
    moments = _moments(platform, module.app, revision, begun)
    return Rollout(
        answered=answered - begun,
        pushed=pushed - begun,
        stages=_stages(begun, {**moments, "answer": answered}),
        calls=calls,
        lost=lost,
    )


def _call_while_pushed(
    push: subprocess.Popen[bytes], target: load.Target, before: bytes
) -> tuple[float, float, int, int]:
    """Moments of the first new answer and of the push's end; calls made, calls lost."""
    answered, calls, lost = 0.0, 0, 0
    deadline = time.monotonic() + PATIENCE
    connection = load.connect(target.address)
    while push.poll() is None or not answered:
        calls += 1
        try:
            body = load.exchange(connection, target.request)
        except (OSError, load.LoadFailed):
            lost += 1
            connection.close()
            connection = load.connect(target.address)
            continue
        if target.expected in body:
            answered = answered or time.time()
        elif before not in body:
            lost += 1
        if time.monotonic() > deadline:
            push.kill()
            raise load.LoadFailed(f"the new version did not answer within {PATIENCE:g} s")
        time.sleep(PAUSE)
    connection.close()
    return answered, time.time(), calls, lost


def _moments(platform: Platform, app: str, revision: str, begun: float) -> dict[str, float]:
    """When each stage ended, as the platform's log and events say."""
    accepted = [
        datetime.fromisoformat(f"{t}+00:00").timestamp() for t in _ACCEPTED.findall(platform.log.read_text())
    ]
    moments = {"hook": next(moment for moment in accepted if moment >= begun - 0.001)}
    for event in platform.events(app):
        if event["revision"] == revision:
            moments.setdefault(event["reason"], event["at"])
    return moments


def _stages(begun: float, moments: dict[str, float]) -> dict[str, float]:
    seconds, last = {}, begun
    for stage in STAGES:
        seconds[stage] = moments[stage] - last
        last = moments[stage]
    return seconds


# --- without it -------------------------------------------------------------------------------------------------


def _run_bare(ground: Ground, options: tuple[str, ...]) -> BareRun:
    begun = time.time()
    with bare_container(ground, options) as container:
        returned = time.time()
        target = load.Target(address_of(ground, container), "/predict", BODY, answer())
        wait_for("the bare container's answer", lambda: answers(target))
        return BareRun(returned - begun, time.time() - begun)
