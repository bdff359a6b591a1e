"""What containers of components write outside of boxes has a bound."""

from __future__ import annotations

import pytest

from controller.domain.errors import Transient
from controller.reconcile.scratch import ScratchScan
from tests.unit.reconcile.harness import APP, Harness, ml


@pytest.fixture
def serving(harness: Harness) -> Harness:
    harness.connect()
    harness.push(ml(replicas=2))
    harness.run()
    return harness


def test_a_container_that_writes_too_much_is_replaced(serving: Harness) -> None:
    greedy, modest = serving.running()
    most = serving.deps.settings.docker.scratch
    serving.engine.write(greedy.id, most + 1)
    serving.engine.write(modest.id, most)
    scan = ScratchScan(serving.deps)
    scan.scan()
    assert [each.id for each in serving.running()] == [modest.id]
    assert scan.used == {APP: most + 1}
    assert serving.events().count("ScratchFull") == 1
    assert serving.store.requests.claim(serving.clock.now()) is not None, "a pass was asked for"
    assert serving.run("drift").name == "Ready"
    assert greedy.id not in [each.id for each in serving.running()]
    scan.scan()
    assert scan.used == {APP: most}


def test_an_engine_that_is_away_changes_nothing(serving: Harness) -> None:
    workload = serving.running()[0]
    serving.engine.write(workload.id, 1000)
    scan = ScratchScan(serving.deps)
    scan.scan()
    serving.engine.down = True
    with pytest.raises(Transient):
        scan.scan()
    assert scan.used == {APP: 1000}
