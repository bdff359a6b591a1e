"""When what a build writes is measured, however long that takes."""

from __future__ import annotations

from typing import Any

import pytest

from controller.adapters.docker.build_disk import BuildDisk

MOST = 1000
STEP = "0123456789ab"


class Machine:
    """An engine that takes five seconds to tell what one step has written, and its disk."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written = 0
        self.elsewhere = 0
        self.looks = 0

    client = property(lambda self: self)

    def containers(self, **_: object) -> list[dict[str, Any]]:
        self.looks += 1
        self.now += 5.0
        return [{"Id": STEP + "00", "SizeRw": self.written, "Mounts": []}]

    def together(self, images: object, but: object = ()) -> int:
        return 0

    def free(self) -> int | None:
        return 100 * MOST - self.written - self.elsewhere


@pytest.fixture
def machine() -> Machine:
    return Machine()


def disk_of(machine: Any, is_known: bool = True) -> BuildDisk:
    free = machine.free if is_known else lambda: None
    disk = BuildDisk(machine, machine, "test", MOST, (), clock=lambda: machine.now, free=free)
    disk.note(f" ---> Running in {STEP}\n")
    assert not disk.is_full()
    return disk


def test_a_build_that_writes_fast_is_measured_before_the_pause_is_over(machine: Machine) -> None:
    disk = disk_of(machine)
    machine.written = 2 * MOST
    assert disk.is_full()
    assert disk.used == 2 * MOST


def test_others_that_write_to_the_disk_end_no_build(machine: Machine) -> None:
    """Each quarter of the bound costs one look at most."""
    disk = disk_of(machine)
    for _ in range(10):
        machine.elsewhere += MOST // 8
        assert not disk.is_full()
    assert machine.looks == 1 + 3


def test_a_build_that_writes_nothing_is_looked_at_seldom(machine: Machine) -> None:
    disk = disk_of(machine)
    for _ in range(49):
        machine.now += 1
        assert not disk.is_full()
    assert machine.looks == 1
    machine.now += 1
    assert not disk.is_full()
    assert machine.looks == 2


def test_a_disk_elsewhere_is_measured_after_the_pause(machine: Machine) -> None:
    disk = disk_of(machine, is_known=False)
    machine.written = 2 * MOST
    assert not disk.is_full()
    machine.now += 50
    assert disk.is_full()
