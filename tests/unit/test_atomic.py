"""Files that are replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from controller.atomic import replace_file


@pytest.mark.parametrize("durable", [False, True])
def test_the_content_and_the_mode_are_replaced(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    path.chmod(0o644)
    old = path.open()
    replace_file(path, "new", 0o640, durable=durable)
    assert (path.read_text(), old.read()) == ("new", "old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["state.json"]
    old.close()


def test_without_a_mode_only_the_owner_may_read(tmp_path: Path) -> None:
    replace_file(tmp_path / "key", b"\x00\xff")
    assert (tmp_path / "key").read_bytes() == b"\x00\xff"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_failure_keeps_what_was_there_and_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        replace_file(tmp_path / "taken", "new")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "link").symlink_to("other")
    replace_file(tmp_path / "link", "new")
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "link").is_symlink()
