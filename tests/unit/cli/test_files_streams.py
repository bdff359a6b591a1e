"""`prichal file get|put|cp` with links, devices, pipes and standard input and output, as real processes see them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest

from controller.cli.exits import Exit
from tests.support.files_server import FilesServer, files_server

pytestmark = pytest.mark.slow  # each starts a command

CONTENT = b"a model\0" * 1000
SOURCE = "demo:data/g/model.bin"


@pytest.fixture
def server() -> Iterator[FilesServer]:
    with files_server() as running:
        running.store("g/model.bin", CONTENT)
        yield running


def files(
    server: FilesServer,
    here: Path,
    *arguments: str,
    stdout: int | IO[bytes] = subprocess.PIPE,
    input: bytes | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[bytes]:
    here.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "controller", "file", *arguments, "--user", "anna"],
        cwd=here,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "XDG_CACHE_HOME": str(here.parent / "cache"),
            "PRICHAL_SERVER": server.url,
            "PRICHAL_PASSWORD": "p:w",
        },
        stdout=stdout,
        stderr=subprocess.PIPE,
        input=input,
        pass_fds=pass_fds,
        timeout=60,
    )


STREAMS = {
    "a dash": "-",
    "its device": "/dev/stdout",
    "its descriptor": "/dev/fd/1",
    "its path in proc": "/proc/self/fd/1",
    "a link to it": "link",
    "a link to a link to it": "links/second",
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "links").mkdir(parents=True)
    (folder / "link").symlink_to("/proc/self/fd/1")
    (folder / "links" / "second").symlink_to("../link")
    return folder


@pytest.mark.parametrize("command", ["get", "cp"])
@pytest.mark.parametrize("target", STREAMS.values(), ids=STREAMS)
def test_standard_output_gets_the_content_and_nothing_else(
    server: FilesServer, here: Path, command: str, target: str
) -> None:
    links = {path: path.readlink() for path in here.rglob("*") if path.is_symlink()}
    piped = files(server, here, command, SOURCE, target)
    assert (piped.returncode, piped.stdout) == (0, CONTENT), piped.stderr
    assert b"8 kB" in piped.stderr
    captured = here.parent / "captured"
    captured.write_bytes(b"before\n")
    with captured.open("ab") as file:  # a shell's >>
        assert files(server, here, command, SOURCE, target, stdout=file).returncode == 0
    assert captured.read_bytes() == b"before\n" + CONTENT
    assert {path: path.readlink() for path in here.rglob("*") if path.is_symlink()} == links
    assert not list(here.rglob("*.part"))


def test_devices_stay_devices(server: FilesServer, here: Path) -> None:
    (here / "null").symlink_to("/dev/null")
    assert files(server, here, "get", SOURCE, "null").returncode == 0
    assert Path("/dev/null").is_char_device()
    full = files(server, here, "get", SOURCE, "/dev/full")
    assert full.returncode != 0
    assert b"No space left on device" in full.stderr
    assert Path("/dev/full").is_char_device()


def test_a_pipe_gets_the_content(server: FilesServer, here: Path) -> None:
    os.mkfifo(here / "pipe")
    with subprocess.Popen(["cat", here / "pipe"], stdout=subprocess.PIPE) as reader:
        holding = os.open(here / "pipe", os.O_WRONLY)  # opens once the reader is there
        done = files(server, here, "get", SOURCE, "pipe")
        os.close(holding)
        assert (done.returncode, reader.communicate()[0]) == (0, CONTENT), done.stderr
    assert (here / "pipe").is_fifo()


def test_a_pipe_that_nobody_reads_is_not_waited_for(server: FilesServer, here: Path) -> None:
    os.mkfifo(here / "pipe")
    done = files(server, here, "get", SOURCE, "pipe")
    assert (done.returncode, b"pipe: No such device or address" in done.stderr) == (Exit.FAILED, True)


@pytest.mark.parametrize("chain", [1, 3])
def test_what_a_link_leads_to_is_written_and_the_link_stays(
    server: FilesServer, here: Path, tmp_path: Path, chain: int
) -> None:
    real = tmp_path / "large-disk" / "model.bin"
    real.parent.mkdir()
    real.write_bytes(b"old")
    real.chmod(0o640)
    names = [f"link{number}" for number in range(chain)]
    for name, target in zip(names, [*names[1:], str(real)], strict=True):
        (here / name).symlink_to(target)
    assert files(server, here, "get", SOURCE, "link0").returncode == 0
    assert all((here / name).is_symlink() for name in names)
    assert (real.read_bytes(), real.stat().st_mode & 0o777) == (CONTENT, 0o640)
    assert [path.name for path in real.parent.iterdir()] == ["model.bin"]


def test_a_link_to_nothing_makes_the_file(server: FilesServer, here: Path, tmp_path: Path) -> None:
    (here / "dangling").symlink_to(tmp_path / "new")
    assert files(server, here, "get", SOURCE, "dangling").returncode == 0
    assert (here / "dangling").is_symlink()
    assert (tmp_path / "new").read_bytes() == CONTENT


def test_shared_memory_has_files_like_any_folder(server: FilesServer, here: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as shared:
        target = Path(shared, "model.bin")
        (here / "shm").symlink_to(shared)
        assert files(server, here, "get", SOURCE, str(target)).returncode == 0
        assert target.read_bytes() == CONTENT
        server.store("g/model.bin", b"shorter")
        assert files(server, here, "get", SOURCE, "shm/model.bin").returncode == 0
        assert target.read_bytes() == b"shorter", "nothing of the old one is left"
        assert [path.name for path in Path(shared).iterdir()] == ["model.bin"]


def test_links_in_a_circle_are_an_error(server: FilesServer, here: Path) -> None:
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    done = files(server, here, "get", SOURCE, "a")
    assert (done.returncode, b"Too many levels of symbolic links" in done.stderr) == (Exit.FAILED, True)
    assert (here / "a").is_symlink()


@pytest.mark.parametrize("source", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_is_uploaded(server: FilesServer, here: Path, source: str) -> None:
    done = files(server, here, "put", source, "demo:data/g/stdin", input=CONTENT)
    assert (done.returncode, server.content("g/stdin")) == (0, CONTENT), done.stderr
    assert b"demo:data/g/stdin: 8 kB" in done.stdout


def test_the_output_of_a_process_is_uploaded(server: FilesServer, here: Path) -> None:
    """As a shell passes it: put <(command) ADDRESS."""
    reading, writing = os.pipe()
    os.write(writing, b"made up")
    os.close(writing)
    done = files(server, here, "put", f"/dev/fd/{reading}", "demo:data/g/made", pass_fds=(reading,))
    os.close(reading)
    assert (done.returncode, server.content("g/made")) == (0, b"made up"), done.stderr


def test_standard_input_needs_a_name(server: FilesServer, here: Path) -> None:
    done = files(server, here, "put", "-", "demo:data/g/", input=b"x")
    assert (done.returncode, b"standard input has no name" in done.stderr) == (Exit.USAGE, True)


@pytest.mark.parametrize("source", ["/dev/zero", "pipe"])
def test_what_may_never_end_is_not_uploaded(server: FilesServer, here: Path, source: str) -> None:
    os.mkfifo(here / "pipe")
    done = files(server, here, "put", source, "demo:data/g/endless")
    assert (done.returncode, b"not a regular file" in done.stderr) == (Exit.FAILED, True)


def test_a_file_called_dash_has_a_path(server: FilesServer, here: Path) -> None:
    assert files(server, here, "get", SOURCE, "./-").returncode == 0
    assert (here / "-").read_bytes() == CONTENT
    assert files(server, here, "put", "./-", "demo:data/g/dash").returncode == 0
    assert server.content("g/dash") == CONTENT
