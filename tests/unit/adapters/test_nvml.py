"""The real binding of NVIDIA's library, in a process of its own, over a stand-in of that library: what is not known is
unknown, and nothing is an exception."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from controller.adapters.gpu_driver import GpuDriver
from controller.domain.gpu_devices import GpuDevice, GpuReport
from tests.support.nvml import GIB, StandInDriver, StandInGpu, has_compiler

pytestmark = [
    pytest.mark.skipif(not has_compiler(), reason="needs a C compiler: scripts/test-tools cc"),
    pytest.mark.skipif(
        importlib.util.find_spec("pynvml") is None, reason="needs nvidia-ml-py: scripts/setup"
    ),
]

A = StandInGpu("GPU-aaaa1111")
B = StandInGpu("GPU-bbbb2222", "NVIDIA-T4", 16 * GIB, 0, 0, mig=-1)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandInDriver:
    return StandInDriver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(stand_in: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> StandInDriver:
    find(stand_in, monkeypatch)
    stand_in.says()
    return stand_in


def find(stand_in: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stand_in.env.items():
        monkeypatch.setenv(name, value)


def read(**options: float) -> GpuReport:
    return GpuDriver(clock=lambda: 7.0, **options).read()  # type: ignore[arg-type]


def test_all_that_the_driver_says(nvml: StandInDriver) -> None:
    nvml.says(A, B)
    assert read() == GpuReport(
        7.0,
        "550.54.15",
        (
            GpuDevice("0", "GPU-aaaa1111", "NVIDIA-A100", GIB, 40 * GIB, 0.25),
            GpuDevice("1", "GPU-bbbb2222", "NVIDIA-T4", 0, 16 * GIB, 0.0),
        ),
    )


def test_a_host_without_gpus(nvml: StandInDriver) -> None:
    assert read() == GpuReport(7.0, "550.54.15")


def test_instances_of_a_card_in_mig_mode(nvml: StandInDriver) -> None:
    parent = StandInGpu("GPU-aaaa1111", mig=1)
    instances = [StandInGpu(f"MIG-{n}", parent=0, total=10 * GIB, use_code=3) for n in range(2)]
    nvml.says(parent, *instances, B)
    found = read().devices
    assert [(device.index, device.id, device.partitioned) for device in found] == [
        ("0", "GPU-aaaa1111", True),
        ("0:0", "MIG-0", False),
        ("0:1", "MIG-1", False),
        ("1", "GPU-bbbb2222", False),
    ]
    assert (found[1].memory_total, found[1].utilization, found[1].problem) == (10 * GIB, None, "")


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (StandInGpu("GPU-b", use_code=3), (GIB, None, "", False)),
        (StandInGpu("GPU-b", memory_code=3, use_code=13), (None, None, "", False)),
        (StandInGpu("GPU-b", memory_code=999), (None, 0.25, "Unknown Error", False)),
        (StandInGpu("GPU-b", memory_code=15, use_code=15), (None, None, "GPU is lost", True)),
        (StandInGpu("GPU-b", use_code=16), (GIB, None, "GPU requires restart", True)),
        (StandInGpu("GPU-b", handle_code=15), (None, None, "GPU is lost", True)),
        (StandInGpu("GPU-b", handle_code=4), (None, None, "Insufficient Permissions", False)),
        (StandInGpu("GPU-b", percent=250), (GIB, 1.0, "", False)),
        (StandInGpu("GPU-b", id_code=999), (GIB, 0.25, "Unknown Error", False)),
    ],
)
def test_what_one_card_does_not_say_hides_no_other(
    nvml: StandInDriver, gpu: StandInGpu, expected: tuple[int | None, float | None, str, bool]
) -> None:
    nvml.says(gpu, A)
    report = read()
    first, second = report.devices
    assert (first.memory_used, first.utilization, first.problem, first.lost) == expected
    assert (second.id, second.problem, report.problem) == ("GPU-aaaa1111", "", "")


@pytest.mark.parametrize(
    ("codes", "problem"),
    [
        ((9, 0), "Driver Not Loaded"),
        ((18, 0), "RM has detected an NVML/RM version mismatch."),
        ((4, 0), "Insufficient Permissions"),
        ((4711, 0), "Unknown Error"),
        ((0, 999), "Unknown Error"),
    ],
)
def test_errors_of_the_driver_are_told(nvml: StandInDriver, codes: tuple[int, int], problem: str) -> None:
    nvml.says(A, init=codes[0], count=codes[1])
    assert read() == GpuReport(7.0, problem=problem)


def test_a_library_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = StandInDriver(tmp_path, old=True)
    find(old, monkeypatch)
    old.says(A)
    report = read()
    assert report.devices == ()
    assert "Function Not Found" in report.problem


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert read().problem == "libnvidia-ml.so.1 of NVIDIA's driver is not installed"
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert read().problem == "libnvidia-ml.so.1 of NVIDIA's driver is not installed"


def test_without_the_binding(tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("raise ImportError")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from controller.adapters import nvml; nvml.main()"
    assert GpuDriver((sys.executable, "-c", program)).read().problem == "nvidia-ml-py is not installed"


def test_a_library_that_crashes_ends_its_own_process_only(nvml: StandInDriver) -> None:
    nvml.crashes()
    assert read().problem == "asking the driver ended with signal 6"


def test_a_library_that_hangs_is_given_up(nvml: StandInDriver) -> None:
    nvml.hangs()
    assert read(timeout=0.5).problem == "the driver has not answered within 0.5 s"


ANSWERS = (
    "not JSON",
    "[" * 100_000,
    "[]",
    '{"devices": 3}',
    '{"devices": [3]}',
    '{"devices": [{"index": 3}]}',
    json.dumps({"devices": [{"index": "0"}] * 2000}),
    json.dumps({"problem": "x" * 2**21}),
)


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_answers_that_are_none(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "answer"
    path.write_text(answer)
    report = GpuDriver((sys.executable, "-c", f"print(open({str(path)!r}).read(), end='')")).read()
    assert "cannot be read" in report.problem
    assert report.devices == ()


def test_odd_numbers_are_unknown(tmp_path: Path) -> None:
    device = {
        "index": "0",
        "memory_used": -1,
        "memory_total": 2**80,
        "utilization": float("nan"),
        "name": "a\x1b[31m",
    }
    path = tmp_path / "answer"
    path.write_text(json.dumps({"devices": [device]}))
    (found,) = GpuDriver((sys.executable, "-c", f"print(open({str(path)!r}).read())")).read().devices
    assert (found.memory_used, found.memory_total, found.utilization) == (None, None, None)
    assert found.name.isprintable()


def test_a_program_that_is_not_there() -> None:
    assert "cannot be asked" in GpuDriver(("/no/such/program",)).read().problem
