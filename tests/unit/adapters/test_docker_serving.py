"""Copies of the serving library."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.adapters.docker.serving import package_folder, stage_serving


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("VALUE = 1\n")
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "junk.py").write_text("junk")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "state" / "serving"


def sources(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def test_a_copy_of_the_python_files(source: Path, target: Path) -> None:
    copy = stage_serving(source, target)
    assert copy.parent == target
    assert sources(copy) == {"__init__.py": "VALUE = 1\n", "sub/__init__.py": ""}


def test_native_code_beside_the_library_is_copied(source: Path, target: Path) -> None:
    before = stage_serving(source, target)
    kept = source / "orjson"
    kept.mkdir()
    (kept / "cp311-x86_64-gnu.so").write_bytes(b"\x7fELF\0\xff")
    (kept / "LICENSE-MIT").write_text("Permission is granted")
    copy = stage_serving(source, target)
    assert copy != before
    assert sorted(path.name for path in (copy / "orjson").iterdir()) == ["LICENSE-MIT", "cp311-x86_64-gnu.so"]
    assert (copy / "orjson" / "cp311-x86_64-gnu.so").read_bytes() == b"\x7fELF\0\xff"
    (kept / "cp311-x86_64-gnu.so").write_bytes(b"another")
    assert stage_serving(source, target) != copy


def test_equal_content_is_copied_once(source: Path, target: Path) -> None:
    first = stage_serving(source, target)
    before = first.stat().st_mtime_ns
    assert stage_serving(source, target) == first
    assert first.stat().st_mtime_ns == before
    assert [path.name for path in target.iterdir()] == [first.name]


def test_an_upgrade_leaves_the_old_copy_alone(source: Path, target: Path) -> None:
    old = stage_serving(source, target)
    (source / "__init__.py").write_text("VALUE = 2\n")
    new = stage_serving(source, target)
    assert new != old
    assert (old / "__init__.py").read_text() == "VALUE = 1\n"


def test_moving_text_between_files_is_another_content(source: Path, target: Path) -> None:
    first = stage_serving(source, target)
    (source / "__init__.py").rename(source / "sub" / "__init__.py")
    (source / "__init__.py").write_text("")
    assert stage_serving(source, target) != first


def test_everybody_may_read_it_whatever_the_umask(source: Path, target: Path) -> None:
    before = os.umask(0o077)
    try:
        copy = stage_serving(source, target)
    finally:
        os.umask(before)
    for path in (copy, *copy.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_many_at_once_make_one(source: Path, target: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: stage_serving(source, target), range(8)))
    assert len(copies) == 1
    assert list(target.iterdir()) == list(copies)


def test_an_incomplete_installation_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not installed completely"):
        stage_serving(tmp_path, tmp_path / "target")


def test_the_copy_of_the_real_library_runs_under_its_mounted_name(tmp_path: Path) -> None:
    copy = stage_serving(package_folder(), tmp_path)
    (tmp_path / "prichal_serving").symlink_to(copy)
    env = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-P", "-m", "prichal_serving", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    assert "--inference" in done.stdout
