"""The build context: what `.dockerignore` leaves of it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from controller.adapters.docker.context import of_folder, spool
from tests.support.engines import tar_of


def kept(files: dict[str, str], dockerfile: str = "Dockerfile") -> dict[str, str]:
    """Names and texts that would be sent."""
    content, target = tar_of(files), io.BytesIO()
    spool((content[at : at + 700] for at in range(0, len(content), 700)), target, dockerfile)
    assert target.tell() == 0
    with tarfile.open(fileobj=target) as tar:
        members = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() if file else "" for name, file in members.items()}


def test_without_a_dockerignore_everything_is_sent() -> None:
    files = {"Dockerfile": "FROM x", "a/b": "1" * 5000}
    assert kept(files) == files


@pytest.mark.parametrize("name", [".dockerignore", "./.dockerignore"])
@pytest.mark.parametrize("last", [True, False])
def test_patterns_apply_wherever_the_file_lies(name: str, last: bool) -> None:
    ignore = {name: "# comment\n\n*.log\n /data \n!data/keep\n"}
    files = {"Dockerfile": "F", "x.log": "1", "sub/x.log": "2", "data/a": "3", "data/keep": "4"}
    sent = kept(files | ignore if last else ignore | files)
    assert set(sent) - {name} == {"Dockerfile", "sub/x.log", "data/keep"}
    assert sent["data/keep"] == "4"


def test_the_dockerfile_is_always_sent() -> None:
    files = {".dockerignore": "*\n", "deploy/Dockerfile": "F", "Dockerfile": "G", "a": "1"}
    assert set(kept(files, "deploy/Dockerfile")) == {".dockerignore", "deploy/Dockerfile"}


def test_links_and_folders_are_kept() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in (("d", tarfile.DIRTYPE, ""), ("l", tarfile.SYMTYPE, "/etc/passwd")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
        ignore = tarfile.TarInfo(".dockerignore")
        ignore.size = 1
        tar.addfile(ignore, io.BytesIO(b"x"))
    target = io.BytesIO()
    spool([buffer.getvalue()], target, "Dockerfile")
    with tarfile.open(fileobj=target) as tar:
        assert [(m.name, m.type, m.linkname) for m in tar][:2] == [
            ("d", tarfile.DIRTYPE, ""),
            ("l", tarfile.SYMTYPE, "/etc/passwd"),
        ]


@pytest.mark.parametrize("ignore", ["", "# comment\n*.log\n/data\n!data/keep\n", "*\n"])
def test_a_folder_gives_what_its_commit_would(tmp_path: Path, ignore: str) -> None:
    files = {"Dockerfile": "F", "x.log": "1", "sub/x.log": "2", "data/a": "3", "data/keep": "4"}
    files |= {".dockerignore": ignore} if ignore else {}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with tarfile.open(fileobj=io.BytesIO(b"".join(of_folder(tmp_path, "./Dockerfile")))) as tar:
        sent = {member.name for member in tar if member.isfile()}
    assert sent - {".dockerignore"} == set(kept(files)) - {".dockerignore"}
