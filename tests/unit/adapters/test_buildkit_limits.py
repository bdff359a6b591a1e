"""The script of the container that limits steps of BuildKit, run on folders instead of control groups."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.adapters.docker.buildkit.limits import TOGETHER, script
from controller.config import DockerSettings
from tests.support.waiting import wait_for

MIB = 2**20
#: By the version of control groups: the files of all steps together, and what is in them without a limit.
UNLIMITED = {
    1: {
        "memory/docker/buildkit/memory.limit_in_bytes": "9223372036854771712",
        "memory/docker/buildkit/memory.memsw.limit_in_bytes": "9223372036854771712",
        "pids/docker/buildkit/pids.max": "max",
        "cpu,cpuacct/docker/buildkit/cpu.cfs_quota_us": "-1",
    },
    2: {
        "docker/buildkit/memory.max": "max",
        "docker/buildkit/pids.max": "max",
        "docker/buildkit/cpu.max": "max 100000",
    },
}


def settings(times: int) -> DockerSettings:
    return DockerSettings(build_cpus=times, build_memory=times * 100 * MIB, build_pids=times * 100)


class Groups:
    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.unlimited = UNLIMITED[version]
        for name, value in self.unlimited.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{value}\n")
        if version == 2:
            (folder / "cgroup.controllers").touch()

    def now(self) -> dict[str, str]:
        return {name: (self.folder / name).read_text().strip() for name in self.unlimited}

    def limited(self, times: int) -> dict[str, str]:
        wanted = settings(times)
        quota = f"{TOGETHER * times * 100_000}"
        values = {"mem": f"{TOGETHER * wanted.build_memory}", "pid": f"{TOGETHER * wanted.build_pids}"}
        values |= {"cpu": quota}
        found = {name: values[name.rpartition("/")[2][:3]] for name in self.unlimited}
        return {name: f"{v} 100000" if name.endswith("cpu.max") else v for name, v in found.items()}

    @contextmanager
    def holding(self, times: int) -> Iterator[subprocess.Popen[bytes]]:
        text = script(settings(times)).replace("cd /groups", f"cd '{self.folder}'")
        with subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"free "), "it says so when all has its limits"
                yield process
            finally:
                process.kill()

    def wait_for(self, wanted: dict[str, str]) -> None:
        wait_for(self.now, lambda found: found == wanted)


@pytest.fixture(params=[1, 2])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Groups:
    return Groups(tmp_path, request.param)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(30) == 0


def test_all_steps_together_are_limited_until_the_container_ends(groups: Groups) -> None:
    with groups.holding(2) as container:
        groups.wait_for(groups.limited(2))
        end(container)
    assert groups.now() == groups.unlimited


@pytest.mark.parametrize("first", [2, 3])
@pytest.mark.parametrize("ends_first", [2, 3])
def test_of_several_instances_none_leaves_its_limit_behind(
    groups: Groups, first: int, ends_first: int
) -> None:
    """The strictest counts as long as it is there. One that puts back what it has found puts back the limit of another
    one, which may have ended since."""
    last = 5 - ends_first
    with groups.holding(first) as one:
        groups.wait_for(groups.limited(first))
        with groups.holding(5 - first) as other:
            groups.wait_for(groups.limited(2))
            by_times = {first: one, 5 - first: other}
            end(by_times[ends_first])
            groups.wait_for(groups.limited(last))
            end(by_times[last])
    assert groups.now() == groups.unlimited


def test_a_stricter_limit_of_the_host_stays(groups: Groups) -> None:
    strict = groups.limited(1)
    for name, value in strict.items():
        (groups.folder / name).write_text(f"{value}\n")
    with groups.holding(2) as container:
        assert groups.now() == strict
        end(container)
    assert groups.now() == strict
