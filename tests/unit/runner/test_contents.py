"""Links in outputs: read as in the container, copied, and never followed out of the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.apps.spec import PipelineVar
from controller.domain.errors import Stalled
from controller.domain.runs.run import RunState
from controller.ports import Job
from controller.runner.contents import OutputContents
from tests.unit.runner.harness import Command, Harness, pipeline, stage

MOUNT = "/unip/model"


def trained(folder: Path) -> Path:
    for number in (1, 2):
        (folder / f"step-{number}").mkdir(parents=True)
        (folder / f"step-{number}" / "weights").write_text(f"w{number}")
    return folder


def read(folder: Path, mount: str = MOUNT) -> dict[str, str]:
    contents = OutputContents(folder, mount)
    found = {}
    for file in contents.files():
        with open(contents.open(file.place)) as content:
            found[file.name] = content.read()
        assert len(found[file.name]) == file.size
    return found


STEPS = {"step-1/weights": "w1", "step-2/weights": "w2"}


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("step-2/weights", {"link": "w2"}),
        (f"{MOUNT}/step-2/weights", {"link": "w2"}),
        (f"{MOUNT}/../model/./step-2//weights", {"link": "w2"}),
        ("../model/step-2/weights", {"link": "w2"}),
        ("../../../../unip/model/step-1/weights", {"link": "w1"}),
        ("step-2", {"link/weights": "w2"}),
        ("step-2/", {"link/weights": "w2"}),
        (f"{MOUNT}/step-1", {"link/weights": "w1"}),
        ("step-2/../step-1", {"link/weights": "w1"}),
        ("other", {"link": "w1"}),
        ("folder/weights", {"link": "w1"}),
    ],
)
def test_links_are_copies(tmp_path: Path, target: str, files: dict[str, str]) -> None:
    folder = trained(tmp_path / "model")
    (folder / "other").symlink_to(f"{MOUNT}/step-1/weights")
    (folder / "folder").symlink_to(f"{MOUNT}/step-1")
    (folder / "link").symlink_to(target)
    assert read(folder) == {**STEPS, "other": "w1", "folder/weights": "w1", **files}


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../outside",
        f"{MOUNT}/../outside",
        "step-1/../../outside",
        "/unip",
        "..",
        "/",
        f"{MOUNT}2/x",
        "nothing",
        "link",
        "one",
        ".",
        MOUNT,
        "/proc/self/root/unip/model/step-1/weights",
        "step-1/weights/../weights/x",
    ],
)
def test_links_that_are_refused_are_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = trained(tmp_path / "model")
    if target == "one":
        (folder / "one").symlink_to("link")
    (folder / "link").symlink_to(target)
    with pytest.raises(Stalled, match="'link' is a link") as refused:
        read(folder)
    assert refused.value.reason == "OutputInvalid"


def test_a_link_on_the_host_means_nothing(tmp_path: Path) -> None:
    """What the daemon would find at a link's path is not what the container has there."""
    folder = trained(tmp_path / "model")
    (folder / "link").symlink_to(folder / "step-1" / "weights")
    with pytest.raises(Stalled, match="leads out of the output"):
        read(folder)


def test_circles_through_folders(tmp_path: Path) -> None:
    folder = trained(tmp_path / "model")
    (folder / "step-1" / "next").symlink_to("../step-2")
    (folder / "step-2" / "next").symlink_to("../step-1")
    with pytest.raises(Stalled, match="is a link to a folder that contains it"):
        read(folder)


def test_links_of_links_of_folders_are_bounded(tmp_path: Path) -> None:
    """Twenty levels of two links each would be a million copies."""
    folder = tmp_path / "model"
    for level in range(20):
        (folder / str(level)).mkdir(parents=True)
        for name in "ab":
            (folder / str(level) / name).symlink_to(f"{MOUNT}/{level + 1}")
    (folder / "20").mkdir()
    with pytest.raises(Stalled, match="exceeds a limit: links to folders"):
        read(folder)


def test_what_becomes_a_link_after_it_was_looked_at_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "weights").write_text("secret")
    contents = OutputContents(trained(tmp_path / "model"), MOUNT)
    places = [found.place for found in contents.files()]
    os.rename(tmp_path / "model" / "step-1", tmp_path / "model" / "moved")
    (tmp_path / "model" / "step-1").symlink_to("../outside")
    (tmp_path / "model" / "step-2" / "weights").unlink()
    (tmp_path / "model" / "step-2" / "weights").symlink_to(tmp_path / "outside" / "weights")
    for place in places:
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            contents.open(place)


# --- as the kernel reads them -----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=5).map("/".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(PATHS, max_size=6),
    st.lists(st.tuples(PATHS, TARGETS, st.booleans()), max_size=6),
)
def test_they_are_read_as_the_kernel_reads_them(files: list[str], links: list[tuple[str, str, bool]]) -> None:
    """Where the folder lies at its mount path on this host, too."""
    with TemporaryDirectory() as above:
        folder = Path(above, "a")  # a name that links may come by on their way
        folder.mkdir()
        for name in files:
            _made(folder / name, lambda path: path.write_text(str(path)))
        for name, target, absolute in links:
            leads_to = f"{folder}/{target}" if absolute else target
            _made(folder / name, partial(_link, leads_to))
        real = folder.resolve()
        try:
            found = read(folder, str(folder))
        except Stalled as error:
            assert error.reason == "OutputInvalid"
            assert any(path.is_symlink() for path in folder.rglob("*"))
            return
        for name, content in found.items():
            assert (folder / name).read_text() == content
            assert (folder / name).resolve().is_relative_to(real)


def _link(target: str, path: Path) -> None:
    path.symlink_to(target)


def _made(path: Path, make: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path) and not any(each.is_symlink() for each in path.parents):
            make(path)
    except OSError:  # a file where a folder would have to be
        pass


# --- through a run ----------------------------------------------------------------------------------------------


def test_a_trainers_output_is_published(harness: Harness) -> None:
    """Where `mountTo` says that it lies."""

    def link(job: Job) -> None:
        harness.output(job, "model/latest").symlink_to("step-2")
        harness.output(job, "model/last").symlink_to("/work/out/step-2/weights")

    harness.commands["fit"] = Command(files={"model/step-2/weights": "w2"}, act=link)
    of = pipeline(stage(outputs=("model",)), vars=(PipelineVar("model", mount_to="/work/out"),))
    run = harness.finish(of)
    assert run.state is RunState.SUCCEEDED, run.message
    found = harness.stored(f"runs/{run.id}/model/")
    del found[".manifest.json"]
    assert found == {"step-2/weights": b"w2", "latest/weights": b"w2", "last": b"w2"}


def test_copies_count_against_the_room(harness: Harness) -> None:
    box = harness.store.boxes.all()[0]
    harness.store.boxes.save(type(box)(**{**vars(box), "capacity": 2500}))

    def link(job: Job) -> None:
        for number in range(3):
            harness.output(job, f"model/{number}").symlink_to("weights")

    harness.commands["fit"] = Command(files={"model/weights": "x" * 1000}, act=link)
    run = harness.finish(pipeline(stage(outputs=("model",))))
    assert (run.state, run.reason) == (RunState.FAILED, "StorageFull")
