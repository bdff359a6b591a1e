"""`prichal file` against a server of the files API in this process; what goes wrong on the way is tested with the
client (tests/unit/client/test_files.py)."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from tests.support.faulty_server import Gate, after, status
from tests.support.files_server import FilesServer, files_server
from tests.support.waiting import wait_for
from tests.unit.cli.conftest import Machine, Outcome

MIB = 2**20
Run = Callable[..., Outcome]


@pytest.fixture
def server() -> Iterator[FilesServer]:
    with files_server() as running:
        yield running


@pytest.fixture
def run(machine: Machine, server: FilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`prichal file …` as anna, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PRICHAL_SERVER", server.url)
    monkeypatch.setenv("PRICHAL_PASSWORD", "p:w")

    def call(*arguments: str, user: str = "anna") -> Outcome:
        return machine.run("file", *arguments, *(("--user", user) if user else ()))

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the commands -----------------------------------------------------------------------------------------------


def test_ls_lists_boxes_groups_and_files(server: FilesServer, run: Run) -> None:
    for name in ("g/b", "g/a", "g/deep/c", "other/d"):
        server.store(name, b"12345")
    boxes = run("ls", "demo:")
    assert [line.split() for line in boxes.stdout.splitlines()] == [
        ["BOX", "USED", "PENDING", "CAPACITY", "FILES"],
        ["data", "20", "bytes", "0", "bytes", "1", "GB", "4"],
    ]
    assert run("ls", "demo:data").stdout == "g/\nother/\n"
    assert run("ls", "demo:data/g").stdout == "a\nb\ndeep/\n"
    assert run("ls", "-R", "demo:data/").stdout == "g/a\ng/b\ng/deep/c\nother/d\n"
    assert run("ls", "demo:data/g/a").stdout == "a\n"
    assert run("ls", "demo:data/nothing/").stdout == ""
    long = run("ls", "-l", "demo:data/g").stdout.splitlines()
    assert [line.split()[-1] for line in long] == ["NAME", "a", "b", "deep/"]
    assert long[1].startswith("5 bytes")


def test_ls_for_scripts(server: FilesServer, run: Run) -> None:
    stored = server.store("g/a", b"12345")
    server.store("g/deep/c", b"")
    file = {"name": "a", "size": 5, "etag": stored.etag, "modified": stored.modified}
    assert json.loads(run("ls", "demo:data/g", "-o", "json").stdout) == {"files": [file], "groups": ["deep"]}
    assert json.loads(run("ls", "demo:data/g/a", "-o", "json").stdout) == {"files": [file], "groups": []}
    (box,) = json.loads(run("ls", "demo:", "-o", "json").stdout)["boxes"]
    assert box == {"name": "data", "capacity": 10**9, "used": 5, "pending": 0, "files": 2}


def test_put_and_get(server: FilesServer, run: Run) -> None:
    here = Path.cwd()
    (here / "a.txt").write_bytes(b"hello")
    assert run("put", "a.txt", "demo:data/g").stdout == "demo:data/g/a.txt: 5 bytes\n"
    assert run("put", "a.txt", "demo:data/g/b.txt").code == Exit.OK
    assert (server.content("g/a.txt"), server.content("g/b.txt")) == (b"hello", b"hello")
    assert run("get", "demo:data/g/b.txt").stdout == "b.txt: 5 bytes\n"
    (here / "folder").mkdir()
    run("get", "demo:data/g/b.txt", "folder")
    run("get", "demo:data/g/b.txt", "c.txt")
    found = json.loads(run("get", "demo:data/g/b.txt", "./d:e", "-o", "json").stdout)
    assert found == {"place": "d:e", "size": 5, "etag": "5d41402abc4b2a76b9719d911017c592"}
    names = ["a.txt", "b.txt", "c.txt", "d:e", "folder/b.txt"]
    assert tree(here) == dict.fromkeys(names, b"hello")


def test_rm(server: FilesServer, run: Run, machine: Machine) -> None:
    for name in ("g/a", "g/b", "g/c/d", "h/e"):
        server.store(name, b"x")
    assert run("rm", "demo:data/g/a").stdout == "demo:data/g/a: 1 file removed\n"
    assert run("rm", "demo:data/g/a").code == Exit.NOT_FOUND
    assert run("rm", "demo:data/g").code == Exit.USAGE
    assert run("rm", "-r", "demo:data/g").code == Exit.INTERRUPTED, "nobody said yes"
    refused = machine.run("file", "rm", "-r", "demo:data/g", "--user", "anna", stdin="n\n")
    assert refused.code == Exit.INTERRUPTED
    assert server.names() == ["g/b", "g/c/d", "h/e"]
    found = run("rm", "-r", "--yes", "demo:data/g", "-o", "json")
    assert json.loads(found.stdout) == {"removed": 2}
    assert server.names() == ["h/e"]


def test_mv_of_a_file(server: FilesServer, run: Run) -> None:
    server.store("g/a", b"hello")
    assert run("mv", "demo:data/g/a", "demo:data/h/b").stdout == "demo:data/h/b: 5 bytes\n"
    assert run("mv", "demo:data/h/b", "demo:data/имя «x»/").stdout == "demo:data/имя «x»/b: 5 bytes\n"
    assert server.names() == ["имя «x»/b"]
    assert run("mv", "demo:data/g/a", "demo:data/h/b").code == Exit.NOT_FOUND


def test_mv_of_a_group(server: FilesServer, run: Run) -> None:
    server.page = 2
    for name in ("g/a", "g/b", "g/in/c", "g/in/d", "g/e"):
        server.store(name, b"x")
    assert run("mv", "demo:data/g", "demo:data/new/name").stdout == "demo:data/new/name/: 5 files moved\n"
    assert server.names() == ["new/name/a", "new/name/b", "new/name/e", "new/name/in/c", "new/name/in/d"]
    assert run("mv", "demo:data/none", "demo:data/other").code == Exit.NOT_FOUND
    server.store("there/x", b"x")
    assert run("mv", "demo:data/new", "demo:data/there").code == Exit.FAILED


def test_mv_continues_after_a_failure(server: FilesServer, run: Run) -> None:
    """And says how many files had to stay."""
    server.page = 2
    for name in ("g/a", "g/b", "g/c"):
        server.store(name, b"x")
    server.order("api", "POST", status(503, Retry_After="0"), status(502), status(400))
    assert run("mv", "demo:data/g/", "demo:data/h/").code == Exit.FAILED
    server.moves.update({key.rpartition("g/")[0] + "g/": [3, 0] for key in server.objects})
    server.store("h/c", b"another one")
    found = run("mv", "demo:data/g/", "demo:data/h/", "-o", "json")
    assert (found.code, json.loads(found.stdout)) == (
        Exit.FAILED,
        {"place": "demo:data/h/", "moved": 2, "left": 1},
    )
    assert server.names() == ["g/c", "h/a", "h/b", "h/c"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rm", "demo:data/g/a"), "demo:data/g/a: 1 file removed"),
        (("rm", "-r", "demo:data/g"), "demo:data/g/: 2 files removed"),
        (("mv", "demo:data/g/a", "demo:data/h/"), "demo:data/h/a: 5 bytes"),
        (("mv", "demo:data/g", "demo:data/new"), "demo:data/new/: 2 files moved"),
        (("put", "local", "demo:data/g/"), "demo:data/g/local: 6 bytes"),
        (("cp", "local", "demo:data/g/x"), "demo:data/g/x: 6 bytes"),
        (("cp", "demo:data/g/a", "."), "a: 5 bytes"),
        (("cp", "demo:data/g/a", "demo:data/h/"), "demo:data/h/a: 5 bytes"),
        (("cp", "-r", "folder", "demo:data/g"), "1 file copied (3 bytes), 1 skipped (already there)"),
        (("cp", "-r", "demo:data/g", "new/place"), "2 files copied (10 bytes)"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_dry_run_says_what_the_command_would_and_changes_nothing(
    server: FilesServer, run: Run, words: tuple[str, ...], told: str
) -> None:
    here = Path.cwd()
    for name, content in (("local", b"local!"), ("folder/a", b"12345"), ("folder/b", b"new")):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(content)
    server.store("g/a", b"12345")
    server.store("g/in/b", b"12345")
    before, local = dict(server.objects), tree(here)
    tried = run(*words, "--dry-run")
    assert (tried.code, tried.stdout.strip()) == (Exit.OK, told), tried.stderr
    assert "This is a dry run" in tried.stderr
    assert (server.objects, tree(here), (here / "new").exists()) == (before, local, False)
    answer = run(*words, *(("--yes",) if words[0] == "rm" else ()))
    assert (answer.code, answer.stdout) == (tried.code, tried.stdout)


@pytest.mark.parametrize(
    "words",
    [
        ("rm", "demo:data/g/none"),
        ("mv", "demo:data/g/none", "demo:data/h/"),
        ("mv", "demo:data/none/", "demo:data/h/"),
        ("mv", "demo:data/g/", "demo:data/there/"),
        ("put", "none", "demo:data/g/"),
        ("put", "huge", "demo:data/g/"),
        ("cp", "demo:data/g/none", "."),
        ("cp", "demo:data/g/a", "none/there"),
        ("put", "local", "demo:none/g/"),
        ("cp", "demo:data/g/a", "demo:none/g/"),
        ("mv", "demo:data/g/a", "demo:none/g/"),
        ("mv", "demo:data/g/", "demo:none/g/"),
    ],
    ids=" ".join,
)
def test_a_dry_run_of_files_fails_as_the_command(
    server: FilesServer, run: Run, words: tuple[str, ...]
) -> None:
    for name in ("g/a", "g/b", "there/x"):
        server.store(name, b"12345")
    Path("local").write_bytes(b"local!")
    with (Path.cwd() / "huge").open("wb") as file:
        file.truncate(2 * 10**9)  # a hole
    tried, done = run(*words, "--dry-run"), run(*words)
    assert (tried.code, done.code != Exit.OK) == (done.code, True), (tried.stderr, done.stderr)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("demo:data/g/a", "demo:data/g/b"), "there is a file demo:data/g/b already"),
        (("demo:data/g/", "demo:data/g/in/"), "cannot be moved into itself"),
    ],
)
def test_a_dry_run_replaces_nothing_either(
    server: FilesServer, run: Run, words: tuple[str, str], told: str
) -> None:
    for name in ("g/a", "g/b"):
        server.store(name, b"12345")
    assert told in run("mv", *words, "--dry-run").stderr


def test_cp_of_one_file(server: FilesServer, run: Run) -> None:
    Path("a").write_bytes(b"hello")
    assert run("cp", "a", "demo:data/g/").stdout == "demo:data/g/a: 5 bytes\n"
    assert run("cp", "demo:data/g/a", "demo:data/h/b").stdout == "demo:data/h/b: 5 bytes\n"
    assert run("cp", "demo:data/h/b", ".").stdout == "b: 5 bytes\n"
    assert server.names() == ["g/a", "h/b"]
    assert tree(Path.cwd()) == {"a": b"hello", "b": b"hello"}


def test_cp_of_trees(server: FilesServer, run: Run) -> None:
    files = {"in/a": b"1", "in/b/c": b"22", "in/b/d": b"333"}
    for name, data in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)
    assert run("cp", "-r", "in", "demo:data/x/y").stdout == "3 files copied (6 bytes)\n"
    assert server.names() == ["x/y/a", "x/y/b/c", "x/y/b/d"]
    assert (
        run("cp", "-r", "in/", "demo:data/x/y/").stdout
        == "0 files copied (0 bytes), 3 skipped (already there)\n"
    )
    assert run("cp", "-r", "demo:data/x/", "demo:data/z").stdout == "3 files copied (6 bytes)\n"
    found = run("cp", "-r", "demo:data/z/y/", "out", "-o", "json")
    assert json.loads(found.stdout) == {"copied": 3, "bytes": 6, "skipped": 0, "failed": []}
    assert tree(Path("out")) == tree(Path("in"))


def test_a_tree_with_a_file_that_fails(server: FilesServer, run: Run) -> None:
    Path("in").mkdir()
    for name in ("a", "b\\c"):
        Path("in", name).write_bytes(b"1")
    found = run("cp", "-r", "in", "demo:data/g")
    assert found.code == Exit.FAILED
    assert found.stdout == "1 file copied (1 byte), 1 failed\n"
    assert "b\\c" in found.stderr
    assert "backslash" in found.stderr


# --- whose files, and where -------------------------------------------------------------------------------------


def test_areas(server: FilesServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    server.store("g/mine", b"x", user="dev")
    monkeypatch.setenv("PRICHAL_PASSWORD", "secret")
    Path("weights").write_bytes(b"w")
    assert run("put", "weights", "demo:data/m/", "--area", "developer", user="dev").code == Exit.OK
    assert run("ls", "-R", "demo:data", "--area", "developer", user="dev").stdout == "m/weights\n"
    url = f"{server.url}/demo/files/data/m/?area=developer"
    assert run("ls", url, user="dev").stdout == "weights\n"
    assert run("ls", "-R", "demo:data", user="dev").stdout == "g/mine\n"
    monkeypatch.setenv("PRICHAL_PASSWORD", "p:w")
    refused = run("ls", "demo:data", "--area", "developer")
    assert (refused.code, "AccessDenied" in refused.stderr) == (Exit.FAILED, True)


def test_tokens(server: FilesServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.store("g/a", b"x", user="bot")
    (tmp_path / "token").write_text("t0ken\nmore\n")
    assert run("ls", "demo:data/g", "--token-file", str(tmp_path / "token"), user="").stdout == "a\n"
    monkeypatch.setenv("PRICHAL_TOKEN", "t0ken")
    assert run("ls", "demo:data/g", user="").stdout == "a\n"
    server.store("g/b", b"x")
    assert run("ls", "demo:data/g").stdout == "b\n", "what is typed counts more than what was set"


def test_nobody(server: FilesServer, run: Run) -> None:
    found = run("ls", "demo:data", user="")
    assert found.code == Exit.FAILED
    assert "error (CredentialsRefused)" in found.stderr
    assert "--user" in found.stderr
    server.open_to_all = True
    server.store("g/a", b"x", user=None)
    assert run("ls", "demo:data/g", user="").stdout == "a\n"


def test_the_server_is_that_of_the_address_the_option_or_the_configuration(
    server: FilesServer, run: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.store("g/a", b"x")
    monkeypatch.setenv("PRICHAL_SERVER", "http://127.0.0.1:1")
    assert run("ls", f"{server.url}/demo/files/data/g/").stdout == "a\n"
    assert run("ls", "demo:data/g", "--server", f"{server.url}/").stdout == "a\n"
    monkeypatch.delenv("PRICHAL_SERVER")
    machine.configure(f"web: {{publicUrl: {server.url}}}")
    assert run("ls", "demo:data/g").stdout == "a\n"
    machine.configure(f"web: {{listen: '0.0.0.0:{server.api.server_port}'}}")
    assert run("ls", "demo:data/g").stdout == "a\n"


def test_neither_configuration_nor_state_is_needed(server: FilesServer, tmp_path: Path) -> None:
    server.store("g/a", b"x")
    done = subprocess.run(
        [sys.executable, "-m", "controller", "file", "ls", "demo:data/g", "--user", "anna"],
        env=environment(server, tmp_path),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("a\n", "")
    assert list(tmp_path.iterdir()) == []


# --- wrong usage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls", "data/g"), "APP:BOX/GROUP/FILE"),
        (("ls", "De:data"), "cannot be an app"),
        (("get", "demo:data/g/"), "cp -r"),
        (("put", "a", "demo:data"), "GROUP"),
        (("put", "a", "demo:"), "does not name a box"),
        (("put", "a", "./local"), "APP:BOX/GROUP/FILE"),
        (("cp", "a", "b"), "neither is an address"),
        (("cp", ".", "demo:data/g"), "-r"),
        (("cp", "demo:data/g", "."), "-r"),
        (("cp", "-r", "demo:", "."), "does not name a box"),
        (("rm", "-r", "--yes", "demo:"), "does not name a box"),
        (("mv", "demo:data/g/a", "demo:other/g/a"), "prichal file cp"),
        (("mv", "demo:data/g/a", "other:data/g/a"), "prichal file cp"),
        (("mv", "demo:data", "demo:data/g"), "a whole box does not move"),
        (("mv", "demo:data/g", "demo:data"), "names no group"),
        (("mv", "a", "demo:data/g"), "APP:BOX/GROUP/FILE"),
        (("ls", "demo:data", "--server", "example.org"), "http(s)://"),
        (("ls", "demo:data", "--server", "https://anna:pw@example.org"), "http(s)://"),
        (("ls", "demo:data", "--token-file", "/nowhere"), "cannot be read"),
        (("ls", "demo:data", "--user", "a:b"), "colon"),
        (("ls", "demo:data", "--user", "a", "--token-file", "x"), "only one of"),
    ],
)
def test_wrong_usage_says_what_is_right(
    server: FilesServer, run: Run, arguments: tuple[str, ...], words: str
) -> None:
    Path("a").write_bytes(b"x")
    found = run(*arguments, user="")
    assert found.code == Exit.USAGE
    assert words in found.stderr
    assert server.seen == []


def test_without_a_terminal_nobody_is_asked_for_a_password(
    server: FilesServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRICHAL_PASSWORD")
    found = run("ls", "demo:data")
    assert found.code == Exit.USAGE
    assert "PRICHAL_PASSWORD" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("get", "demo:data/g/missing"), Exit.NOT_FOUND),
        (("put", "missing", "demo:data/g"), Exit.FAILED),
        (("put", ".", "demo:data/g/f"), Exit.FAILED),
        (("cp", "missing", "demo:data/g"), Exit.FAILED),
    ],
)
def test_exit_codes(server: FilesServer, run: Run, arguments: tuple[str, ...], code: Exit) -> None:
    found = run(*arguments)
    assert found.code == code
    assert found.stderr.startswith("error (")
    assert tree(Path.cwd()) == {}


# --- terminals and kills ----------------------------------------------------------------------------------------


def environment(server: FilesServer, cache: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    root = str(Path(__file__).parents[3])
    mine = {"XDG_CACHE_HOME": str(cache), "PRICHAL_SERVER": server.url, "PRICHAL_PASSWORD": "p:w"}
    return {**kept, **mine, "PYTHONPATH": root, "PYTHONWARNINGS": "error"}


def test_a_terminal_is_asked_for_the_password_and_shown_a_bar(server: FilesServer, tmp_path: Path) -> None:
    server.store("g/a", b"x" * MIB)
    variables = {**environment(server, tmp_path / "cache"), "TERM": "xterm", "COLUMNS": "100"}
    del variables["PRICHAL_PASSWORD"]
    ours, theirs = pty.openpty()
    gate = Gate()
    server.order("storage", "GET", gate)
    with subprocess.Popen(
        [sys.executable, "-m", "controller", "file", "get", "demo:data/g/a", "--user", "anna"],
        cwd=tmp_path,
        env=variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = read_until(ours, "Password of anna: ")
        os.write(ours, b"p:w\n")
        shown += read_until(ours, "MB")
        gate.open.set()
        shown += read_until(ours, "a: 1.05 MB")
        assert process.wait(30) == 0
    os.close(ours)
    assert "p:w" not in shown
    assert (tmp_path / "a").stat().st_size == MIB


def read_until(terminal: int, words: str) -> str:
    shown = ""
    while words not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_large_upload_that_is_killed_goes_on(
    server: FilesServer, tmp_path: Path, number: signal.Signals
) -> None:
    server.part_size = 16 * MIB
    large = tmp_path / "large"
    with large.open("wb") as file:
        for letter in b"abcde":
            file.write(bytes([letter]) * (13 * MIB))
    command = [
        sys.executable,
        "-m",
        "controller",
        "file",
        "put",
        str(large),
        "demo:data/g/",
        "--user",
        "anna",
    ]
    variables = environment(server, tmp_path / "cache")
    gate = Gate()
    server.order("storage", "PUT", lambda _: False, lambda _: False, *([gate] * 3))
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as first:
        wait_for(lambda: gate.waiting == 3)
        (upload,) = server.uploads.values()
        wait_for(lambda: len(upload.parts) == 2)
        first.send_signal(number)
        gate.open.set()
        assert first.wait(60) == (-signal.SIGKILL if number is signal.SIGKILL else Exit.INTERRUPTED)
    assert server.content("g/large") is None, "no half a file"
    there = len(upload.parts)
    server.seen.clear()
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.content("g/large") == large.read_bytes()
    assert 0 < len(server.requests("storage", "PUT")) <= 5 - there, "a part that was cut off may have arrived"
    assert there >= 2


def test_a_tree_goes_on_after_a_failure_of_all(server: FilesServer, run: Run) -> None:
    Path("in").mkdir()
    for name in "abcdef":
        Path("in", name).write_bytes(name.encode())
    refused = after(server.names, status(507))
    server.order("storage", "PUT", lambda _: False, *[refused] * 6)
    assert run("cp", "-r", "in", "demo:data/g").code == Exit.FAILED
    there = len(server.names())
    assert 1 <= there < 6
    server.ordered.clear()
    found = run("cp", "-r", "in", "demo:data/g")
    assert found.stdout == f"{6 - there} files copied ({6 - there} bytes), {there} skipped (already there)\n"
    assert [name.rpartition("/")[2] for name in server.names()] == list("abcdef")
