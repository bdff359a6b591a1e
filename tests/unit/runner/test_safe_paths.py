"""Names that others have chosen lead nowhere but into the folder of the run, and links that somebody has put there lead
nowhere at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.adapters.staging import StagingFolders
from controller.domain.errors import Stalled, Transient
from controller.domain.volumes import StagingArea
from controller.runner.contents import open_up
from controller.runner.folders import RunFolders
from controller.runner.logs import LogFile

RUN = "1a22b3c4d5e6f708192"
HOSTILE = ("../../outside", "..", ".", "", "/etc", "a/b", "a\0b", "x" * 300)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host, with a file in it, both closed."""
    folder = tmp_path / "outside"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("secret")
    (folder / "file").chmod(0o600)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "runs"
    folder.mkdir(parents=True)
    return folder


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize(
    "use",
    [
        lambda runs, name: RunFolders(runs, name),
        lambda runs, name: RunFolders(runs, RUN).input(name),
        lambda runs, name: RunFolders(runs, RUN).draft(name),
        lambda runs, name: RunFolders(runs, RUN).attempt(name, 1),
        lambda runs, name: RunFolders(runs, RUN).output("fit", 1, name),
        lambda runs, name: RunFolders(runs, RUN).output(name, 1, "model"),
        lambda runs, name: RunFolders(runs, RUN).log(name, 1),
        lambda runs, name: RunFolders(runs, RUN).read_progress(name, 1),
        lambda runs, name: RunFolders(runs, RUN).prepare_attempt("fit", 1, ["model", name]),
        lambda runs, name: RunFolders(runs, RUN).prepare_attempt(name, 1, ["model"]),
    ],
)
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_one_step(use: Callable[[Path, str], object], name: str, runs: Path, outside: Path) -> None:
    before = modes(outside)
    with pytest.raises(Stalled) as refused:
        use(runs, name)
    assert refused.value.reason == "PathRefused"
    assert modes(outside) == before
    assert not list(runs.iterdir())


def plant(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


@pytest.mark.parametrize("link", ["", "fit.1", "fit.1/out", "fit.1/out/model", "fit.1/progress", "in"])
def test_links_are_not_followed(link: str, runs: Path, outside: Path) -> None:
    """Wherever on the way one lies: nothing outside is made, changed, read or mounted."""
    folders = RunFolders(runs, RUN)
    plant(runs / RUN / link, outside)
    (outside / "progress").write_text("1/2")
    before = modes(outside)
    with pytest.raises(OSError, match=r"Not a directory|levels of symbolic"):
        folders.prepare()
        folders.prepare_attempt("fit", 1, ["model"])
    assert modes(outside) == before
    for path in (folders.output("fit", 1, "model"), folders.input("model"), folders.progress("fit", 1)):
        if path.is_relative_to(runs / RUN / link) and path.exists():
            with pytest.raises(Stalled, match="is not a file or folder below"):
                mounted(runs, folders, path)
    assert folders.read_progress("fit", 1) == ""


def test_what_the_platform_has_made_is_mounted(runs: Path) -> None:
    folders = RunFolders(runs, RUN)
    folders.prepare()
    folders.prepare_attempt("fit", 1, ["model"])
    output = folders.output("fit", 1, "model")
    assert mounted(runs, folders, output) == output
    assert stat.S_IMODE(output.stat().st_mode) == 0o777
    assert stat.S_IMODE(folders.root.stat().st_mode) == 0o750


def test_what_is_no_file_is_not_mounted(runs: Path) -> None:
    folders = RunFolders(runs, RUN)
    folders.prepare()
    os.mkfifo(folders.root / "pipe")
    with pytest.raises(Stalled, match="is not a file or folder below"):
        mounted(runs, folders, folders.root / "pipe")
    with pytest.raises(Transient) as caught:
        mounted(runs, folders, folders.root / "missing")
    assert caught.value.reason == "MountGone"


def mounted(runs: Path, folders: RunFolders, path: Path) -> Path:
    """What an engine on this host mounts."""
    return StagingFolders({StagingArea.RUNS: runs}).path(folders.volume(path))


@pytest.mark.parametrize("link", [RUN, f"{RUN}/fit.1.log", f"{RUN}/fit.1.log.at"])
def test_logs_are_not_written_through_links(link: str, runs: Path, outside: Path) -> None:
    target = outside if link == RUN else outside / "file"
    plant(runs / link, target)
    with pytest.raises(OSError, match=r"Not a directory|levels of symbolic"):
        LogFile(RunFolders(runs, RUN).log("fit", 1), 2**16)
    assert (outside / "file").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["file"]


def test_outputs_are_opened_up_without_following_links(runs: Path, outside: Path) -> None:
    output = runs / RUN / "fit.1" / "out" / "model"
    (output / "folder").mkdir(parents=True, mode=0o700)
    (output / "folder" / "file").write_text("made")
    (output / "folder" / "file").chmod(0o600)
    plant(output / "link", outside)
    plant(output / "folder" / "link", outside / "file")
    before = modes(outside)
    open_up(output)
    assert modes(outside) == before
    assert stat.S_IMODE((output / "folder").stat().st_mode) & 0o555 == 0o555
    assert stat.S_IMODE((output / "folder" / "file").stat().st_mode) & 0o444 == 0o444
