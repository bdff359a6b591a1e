"""What containers use, from control groups of both versions and from the output of `nvidia-smi`."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.docker.use import read_group, read_smi

ID = "0123456789abcdef"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.mark.parametrize("group", [f"system.slice/docker-{ID}.scope", f"docker/{ID}"])
def test_control_groups_of_version_2(tmp_path: Path, group: str) -> None:
    write(
        tmp_path / group,
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
        memory__current="5000\n",
        memory__stat="anon 1\ninactive_file 1000\n",
    )
    assert read_group(tmp_path, ID) == (2.5, 4000.0)
    assert read_group(tmp_path, "another") is None


@pytest.mark.parametrize("group", [f"system.slice/docker-{ID}.scope", f"docker/{ID}"])
def test_control_groups_of_version_1(tmp_path: Path, group: str) -> None:
    write(tmp_path / "cpuacct" / group, cpuacct__usage="1500000000\n")
    write(
        tmp_path / "memory" / group,
        memory__usage_in_bytes="900\n",
        memory__stat="cache 1\ntotal_inactive_file 1000\n",
    )
    assert read_group(tmp_path, ID) == (1.5, 0.0)


def test_groups_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "docker" / ID, cpu__stat="nonsense", memory__current="x", memory__stat="")
    assert read_group(tmp_path, ID) is None


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("37, 1024\n", (0.37, 2.0**30)),
        ("0, 0\n100, 2\n", (0.5, 2.0 * 2**20)),
        ("", (None, None)),
        ("[N/A], 5\n", (None, None)),
        ("50\n", (None, None)),
        ("101, 5\n", (None, None)),
        ("nan, 5\n", (None, None)),
        ("5, inf\n", (None, None)),
        ("exec: nvidia-smi: not found\n", (None, None)),
    ],
)
def test_what_nvidia_smi_prints(printed: str, found: tuple[float | None, float | None]) -> None:
    assert read_smi(printed) == found
