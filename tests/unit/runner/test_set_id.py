"""What a stage has made runs as nobody on the host: no set-id bits, no devices, folders of the daemon's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from controller.runner.contents import open_up
from controller.runner.folders import RunFolders


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o7777, 0o1644, 0o4000, 0o6000, 0o4444])
def test_files_lose_their_set_id_bits_and_can_be_read(tmp_path: Path, mode: int) -> None:
    below = tmp_path / "out" / "a" / "b"
    below.mkdir(parents=True)
    for place in (tmp_path / "out" / "tool", below / "tool"):
        place.write_text("#!/bin/sh\n")
        place.chmod(mode)
    open_up(tmp_path / "out")
    for place in (tmp_path / "out" / "tool", below / "tool"):
        found = stat.S_IMODE(place.stat().st_mode)
        assert found & 0o7000 == 0
        assert found == mode & 0o777 | 0o444


def test_a_link_leads_to_no_file_elsewhere(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("of the host")
    tool.chmod(0o4755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tool)
    (tmp_path / "out" / "file").write_text("x")
    open_up(tmp_path / "out")
    assert stat.S_IMODE(tool.stat().st_mode) == 0o4755


@pytest.mark.skipif(os.geteuid() != 0, reason="devices are made by root")
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices_are_closed(tmp_path: Path, kind: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("x")
    try:
        os.mknod(out / "device", kind | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")
    open_up(out)
    assert stat.S_IMODE((out / "device").lstat().st_mode) == 0


def test_nobody_but_the_daemon_enters_what_containers_write(tmp_path: Path) -> None:
    """Also while they run, and after they have failed. The group reads logs beside it."""
    before = os.umask(0)
    try:
        folders = RunFolders(tmp_path, "1" * 19)
        folders.prepare()
        folders.prepare_attempt("fit", 1, ("model",))
    finally:
        os.umask(before)
    for folder in (folders.attempt("fit", 1), folders.root / "in"):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o700
    assert stat.S_IMODE(folders.root.stat().st_mode) & 0o777 == 0o750
    for folder in (folders.output("fit", 1, "model"), folders.progress("fit", 1)):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o777, "images have any user"
