"""GPUs of the configuration, of the driver and of their holders, side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.gpu_devices import (
    FRESH,
    GpuDevice,
    GpuReport,
    find_device,
    gpu_states,
    read_report,
    unusable,
    use_of,
    write_report,
)
from controller.domain.names import AppName, ComponentName
from controller.domain.runs.gpus import Lease

A, B = GpuDevice("0", "GPU-aaaa1111", "A100", 1, 10, 0.5), GpuDevice("1", "GPU-aaab2222")
MIG = GpuDevice("2", "GPU-cccc3333", partitioned=True)
INSTANCE = GpuDevice("2:0", "MIG-dddd4444", memory_used=2, memory_total=5)
DEVICES = (A, B, MIG, INSTANCE)
REPORT = GpuReport(100.0, "550", DEVICES)


@pytest.mark.parametrize(
    ("id", "device"),
    [
        ("0", A),
        ("1", B),
        ("2:0", INSTANCE),
        ("GPU-aaaa1111", A),
        ("gpu-AAAA1111", A),
        ("GPU-aaaa", A),
        ("GPU-aaa", None),
        ("GPU-", None),
        ("GPU-zzzz", None),
        ("MIG-dddd4444", INSTANCE),
        ("7", None),
    ],
)
def test_ids_are_read_as_nvidia_s_runtime_reads_them(id: str, device: GpuDevice | None) -> None:
    assert find_device(id, DEVICES) == device


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (("0", "1"), {}),
        (("0", "7"), {"7": "the driver does not know it"}),
        (("0", "GPU-aaaa1111"), {"GPU-aaaa1111": "it is the same as 0"}),
        (("2", "2:0"), {"2": "it is in MIG mode: lend its instances"}),
        ((), {}),
    ],
)
def test_what_cannot_be_lent(gpus: tuple[str, ...], expected: dict[str, str]) -> None:
    assert unusable(gpus, REPORT, 100.0) == expected


def test_a_lost_one_is_not_lent_as_long_as_the_driver_says_so() -> None:
    lost = replace(REPORT, devices=(replace(A, lost=True, problem="GPU is lost"), replace(B, problem="odd")))
    assert unusable(("0", "1"), lost, 100.0) == {"0": "GPU is lost"}, (
        "of the other less is known, and it works"
    )
    assert unusable(("0",), lost, 101.0 + FRESH) == {}, "that was long ago"
    assert unusable(("0",), GpuReport(100.0, problem="no driver"), 100.0) == {}
    assert unusable(("0",), GpuReport(), 100.0) == {}


def test_all_are_shown_once() -> None:
    leases = [
        Lease("one", AppName("demo"), ComponentName("web"), ("0",), 2),
        Lease("two", AppName("demo"), ComponentName("chat"), ("0", "old"), 2),
    ]
    found = gpu_states(("GPU-aaaa1111", "0"), REPORT, leases, (), 100.0)
    assert [(each.id, each.lent, each.usable, len(each.holders)) for each in found] == [
        ("GPU-aaaa1111", True, True, 0),
        ("0", True, False, 2),
        ("old", False, False, 1),
        ("GPU-aaab2222", False, False, 0),
        ("GPU-cccc3333", False, False, 0),
        ("MIG-dddd4444", False, False, 0),
    ]


def test_without_a_driver_the_configuration_and_the_holders_remain() -> None:
    leases = [Lease("one", AppName("demo"), ComponentName("web"), ("0",))]
    found = gpu_states(("0", "1"), GpuReport(problem="no driver"), leases, (), 100.0)
    assert [(each.id, each.usable, each.device, len(each.holders)) for each in found] == [
        ("0", True, None, 1),
        ("1", True, None, 0),
    ]


def test_the_use_of_several() -> None:
    assert use_of(("0",), REPORT, 100.0) == (0.5, 1.0)
    assert use_of(("0", "1"), REPORT, 100.0) == (None, None)
    assert use_of(("2:0",), REPORT, 100.0) == (None, 2.0)
    assert use_of((), REPORT, 100.0) == (None, None)
    assert use_of(("0",), REPORT, 1000.0) == (None, None)


def test_a_report_that_is_written_is_read_again() -> None:
    assert read_report(write_report(REPORT)) == REPORT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("at", "devices", "index", "id", "utilization", "problem", "x")),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_nothing_that_is_read_is_an_exception(document: object) -> None:
    report = read_report(document)
    assert all(device.utilization is None or 0 <= device.utilization <= 1 for device in report.devices)
    gpu_states(("0",), report, (), (), 0.0)
