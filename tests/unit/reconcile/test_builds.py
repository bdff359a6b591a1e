"""Builds that are shared within a pass."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from controller.domain.apps.usage import BuildCount
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.reconcile.builds import Builds, BuildTurns
from tests.support.waiting import wait_for


def test_those_who_ask_at_once_wait_for_the_first() -> None:
    builds, built, go = Builds(), [], threading.Event()

    def build() -> None:
        go.wait(10)
        built.append("a")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(builds.once, "a", build) for _ in range(4)]
        assert not any(future.done() for future in waiting)
        go.set()
        assert [future.result(10) for future in waiting] == [None] * 4
    builds.once("a", build)
    assert built == ["a"]


def test_different_builds_come_one_after_the_other_also_when_one_fails() -> None:
    builds, steps, go = Builds(), [], threading.Event()

    def build(tag: str) -> None:
        steps.append(f"{tag} begins")
        go.wait(10)
        steps.append(f"{tag} ends")
        if tag == "b":
            raise Stalled(Reason.BUILD_FAILED, "no such package")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(builds.once, tag, lambda tag=tag: build(tag)) for tag in "abcd"]  # type: ignore[misc]
        go.set()
        failed = [future.exception(10) is not None for future in waiting]
    assert failed == [False, True, False, False]
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    assert sorted(pairs) == [(f"{tag} begins", f"{tag} ends") for tag in "abcd"]


def test_an_error_is_that_of_all() -> None:
    builds, tries = Builds(), []

    def build() -> None:
        tries.append(1)
        raise Stalled(Reason.BUILD_FAILED, "no such package")

    for _ in range(3):
        with pytest.raises(Stalled, match="no such package"):
            builds.once("a", build)
    assert tries == [1]


def test_an_app_has_one_build_at_a_time() -> None:
    turns, first, go, order = BuildTurns(), threading.Event(), threading.Event(), list[str]()

    def build(name: str, app: AppName) -> None:
        with turns.turn(app):
            order.append(name)
            first.set()
            wait_for(go.is_set)

    one, other = AppName("one"), AppName("other")
    threads = [threading.Thread(target=build, args=("first", one))]
    threads[0].start()
    wait_for(first.is_set)
    for name, app in (("second", one), ("of another", other)):
        threads.append(threading.Thread(target=build, args=(name, app)))
        threads[-1].start()
    wait_for(lambda: turns.counts() == {one: BuildCount(1, 1), other: BuildCount(1, 0)})
    assert sorted(order) == ["first", "of another"]
    go.set()
    for thread in threads:
        thread.join()
    assert order[-1] in ("second", "of another")
    assert turns.counts() == {}
