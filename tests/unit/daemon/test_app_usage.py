"""The daemon records what apps use of their shares, as far as it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.daemon.app_usage import Uses
from controller.domain.apps.observed import ImageUse
from controller.domain.apps.usage import Resource, TakenShare
from controller.domain.names import AppName
from tests.unit.reconcile.harness import APP, Harness, ml


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    yield made
    made.store.close()


def test_what_workers_builds_and_images_take_is_recorded(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    harness.run()
    looks = []

    def sizes() -> Mapping[AppName, ImageUse]:
        looks.append(harness.clock.now())
        harness.clock.advance(60.0)  # the engine is slow
        return {APP: ImageUse(5, 4, 3)}

    harness.engine.image_sizes = sizes  # type: ignore[method-assign]
    uses = Uses(harness.deps, lambda: {APP: 7})
    now = harness.clock.now() + 60.0
    harness.store.gateways.report("w1", 1, frozenset(), now, (TakenShare(APP, Resource.CALLS, 200),))
    harness.store.gateways.report("w2", 1, frozenset(), now, (TakenShare(APP, Resource.CALLS, 20),))
    with harness.deps.builds.turn(APP):
        uses.record()
    shown: dict[str, Any] = {each.resource: (each.used, each.bound) for each in harness.store.usage(APP)}
    assert shown["calls"] == (200, 250)
    assert shown["password checks"] == (0, 32)
    assert shown["builds"] == (1, 1)
    assert shown["images"] == (5, 40 * 2**30)
    assert shown["pulled images"] == (4, 40 * 2**30)
    assert shown["build files"] == (3, 20 * 2**30)
    assert [each.resource for each in harness.store.usage(APP) if each.is_nearly_full] == ["calls"]
    for _ in range(20):
        harness.clock.advance(30.0)
        uses.record()
    assert len(looks) == 2, "ten times as long without a look as it takes"
