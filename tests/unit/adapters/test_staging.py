"""Volumes as folders of this host: nothing outside of an area is mounted, whatever a volume says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.staging import StagingFolders
from controller.config import Settings
from controller.domain.errors import Stalled, Transient
from controller.domain.volumes import StagingArea, Volume


def of(folder: Path) -> StagingFolders:
    return StagingFolders({StagingArea.RUNS: folder})


def test_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run" / "in").mkdir(parents=True)
    (tmp_path / "run" / "in" / "data").touch()
    for path in (("run",), ("run", "in"), ("run", "in", "data")):
        assert of(tmp_path).path(Volume(StagingArea.RUNS, path)) == tmp_path.joinpath(*path)


def test_areas_lie_in_the_state_folder(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    for folder in (settings.models, settings.run_files):
        (folder / "x").mkdir(parents=True)
    staging = StagingFolders.of(settings)
    assert staging.path(Volume(StagingArea.MODELS, ("x",))) == settings.models / "x"
    assert staging.path(Volume(StagingArea.RUNS, ("x",))) == settings.run_files / "x"


def test_what_is_gone_may_come_back(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(Transient, match="runs/a/b") as caught:
            of(folder).path(Volume(StagingArea.RUNS, ("a", "b")))
        assert caught.value.reason == "MountGone"


@pytest.mark.parametrize(
    "path", [("link",), ("link", "hosts"), ("file", "x"), ("pipe",), ("..",), (), ("a/b",), ("",)]
)
def test_nothing_else_is_mounted(tmp_path: Path, path: tuple[str, ...]) -> None:
    root = tmp_path / "area"
    (root / "a" / "b").mkdir(parents=True)
    (root / "link").symlink_to("/etc")
    (root / "file").touch()
    (tmp_path / "outside").mkdir()
    os.mkfifo(root / "pipe")
    with pytest.raises(Stalled) as caught:
        of(root).path(Volume(StagingArea.RUNS, path))
    assert caught.value.reason == "PathRefused"


def test_an_area_that_the_engine_does_not_have() -> None:
    with pytest.raises(Stalled, match="models") as caught:
        StagingFolders().path(Volume(StagingArea.MODELS, ("x",)))
    assert caught.value.reason == "PathRefused"


@given(st.lists(st.sampled_from(["..", ".", "", "/", "/etc", "a", "a/..", "\0", "é" * 200])).map(tuple))
def test_no_names_lead_out_of_the_area(path: tuple[str, ...]) -> None:
    with pytest.raises((Stalled, Transient)):
        of(Path("/proc/self/fdinfo")).path(Volume(StagingArea.RUNS, path))
