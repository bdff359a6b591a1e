"""The build context: what a folder gives, and what is sent to the classic builder."""

from __future__ import annotations

import io
import socket
import tarfile
from pathlib import Path

import pytest

from controller.adapters.docker.context import DOCKERFILE, labelled, of_folder, spool
from controller.domain.errors import Stalled
from controller.ports import BuildContext

TREE = ("x.log", "sub/x.log", "data/a", "data/keep", "secrets/k", "sub/deep/secrets/k")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*TREE, "Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def sent(context: BuildContext, dockerfile: bytes = b"") -> dict[str, str]:
    """Names and texts of the files that the builder gets."""
    target = io.BytesIO()
    spool(context, dockerfile, target)
    with tarfile.open(fileobj=target) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file}


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        ("", {*TREE, "Dockerfile"}),
        ("# comment\n*.log\n/data \n!data/keep\n**/secrets", {"sub/x.log", "data/keep", "Dockerfile"}),
        ("*\n", set()),
        ("Dockerfile\nsub", {"x.log", "data/a", "data/keep", "secrets/k"}),
    ],
)
def test_a_folder_without_what_is_ignored(folder: Path, ignore: str, kept: set[str]) -> None:
    if ignore:
        (folder / ".dockerignore").write_text(ignore)
    files = sent(of_folder(folder, "Dockerfile"), b"FROM x")
    assert set(files) - {".dockerignore", DOCKERFILE} == kept
    assert all(files[name] == name for name in kept)
    assert files[DOCKERFILE] == "FROM x"


def test_the_builder_is_told_to_hide_what_only_it_needs(folder: Path) -> None:
    assert sent(of_folder(folder, "Dockerfile"))[".dockerignore"] == f"{DOCKERFILE}\n.dockerignore\n"
    (folder / ".dockerignore").write_text("*.log")
    assert sent(of_folder(folder, "Dockerfile"))[".dockerignore"] == f"*.log\n{DOCKERFILE}\n"
    (folder / ".dockerignore").write_text(".*")
    assert sent(of_folder(folder, "Dockerfile"))[".dockerignore"] == f"{DOCKERFILE}\n.dockerignore\n"


def test_what_is_ignored_in_a_folder_is_not_read(folder: Path) -> None:
    (folder / "data" / "broken").symlink_to("/nowhere")
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(folder / "socket"))
        context = of_folder(folder, "Dockerfile")
        assert "socket" not in sent(context)
    with pytest.raises(Stalled, match="there is no"):
        of_folder(folder, "deploy/Dockerfile")


# --- labels -----------------------------------------------------------------------------------------------------

LABEL = 'LABEL by="us"'


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM a\nRUN b", f"FROM a\n{LABEL}\nRUN b"),
        (
            "# c\n\nARG V=1\n  from a:$V AS x\nRUN b\nFROM x\n",
            f"# c\n\nARG V=1\n  from a:$V AS x\n{LABEL}\nRUN b\nFROM x\n{LABEL}\n",
        ),
        ("FROM \\\n  # why\n\n a\nRUN b", f"FROM \\\n  # why\n\n a\n{LABEL}\nRUN b"),
        ("FROM a\nRUN echo \\\nFROM me\n", f"FROM a\n{LABEL}\nRUN echo \\\nFROM me\n"),
        (
            "# escape=`\nFROM a\nRUN echo `\nFROM me\\\nFROM b",
            f"# escape=`\nFROM a\n{LABEL}\nRUN echo `\nFROM me\\\nFROM b\n{LABEL}",
        ),
        (
            "# c\n# escape=`\nFROM a\nRUN b `\nFROM c",
            f"# c\n# escape=`\nFROM a\n{LABEL}\nRUN b `\nFROM c\n{LABEL}",
        ),
        ("\ufeffFROM a\r\nRUN b\r\n", f"\ufeffFROM a\r\n{LABEL}\nRUN b\r\n"),
        ("RUN echo from\nFROMAGE a", "RUN echo from\nFROMAGE a"),
        ("", ""),
    ],
)
def test_a_label_follows_each_from(dockerfile: str, expected: str) -> None:
    assert labelled(dockerfile.encode(), {"by": "us"}).content.decode() == expected


def test_errors_are_about_the_lines_that_their_developer_knows() -> None:
    made = labelled(b"FROM a\nRUN b\nFROM c\nFETCH d\n", {"by": "us"})
    assert made.added == (2, 5)
    assert made.translated("dockerfile parse error line 6: FETCH") == "dockerfile parse error line 4: FETCH"
    assert made.translated("dockerfile parse error line 1: x") == "dockerfile parse error line 1: x"
