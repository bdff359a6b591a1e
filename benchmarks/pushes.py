"""Measures a large push over HTTP to a hosted repository, compared with the same push over SSH and to `git
http-backend` behind a plain CGI server, which is the least that stands between Git and a caller over HTTP."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.environment import Environment, running_platform, wait_for
from benchmarks.figures import Section, in_turns
from benchmarks.load import LoadFailed
from tests.support.git_servers import GIT_ENV, git, http_backend, sshd

ROUNDS = 5
SIZE, QUICK_SIZE = 500 * 10**6, 4 * 10**6
FILE = 10 * 10**6  # bytes of each file at most


def measure(ground: Environment) -> Section:
    section = Section("push", "a push of 500 MB over HTTP, beside SSH and a plain CGI server")
    tree = _tree(ground.home / "push", QUICK_SIZE if ground.quick else SIZE)
    with running_platform(ground, storage={"backend": "none"}) as platform:
        platform.start_process("git-http")
        wait_for("the Git service", (platform.home / "state" / "git-http.sock").exists)
        hosted = Path(platform.prichal("repo", "create", "pushed").stdout.split()[-1])
        (hosted / "hooks" / "post-receive").unlink()  # the others have none
        token = (platform.home / "state" / "web" / "admin.token").read_text().strip()
        ours = f"http://admin:{token}@127.0.0.1:{platform.port}/-/git/pushed.git"
        plain = _repository(ground.home / "plain")
        git(plain, "config", "http.receivepack", "true")
        watched = [*platform.children("web"), platform.processes["git-http"]]
        grown: list[float] = []

        def push_to_us() -> float:
            before = _peaks(watched, reset=True)
            seconds = _push(tree, ours, hosted)
            grown.append((_peaks(watched) - before) / 2**20)
            return seconds

        with http_backend(plain.parent) as cgi, sshd(ground.home / "sshd", plain.parent) as ssh:
            ways: dict[str, Callable[[], float]] = {
                "ours": push_to_us,
                "cgi": partial(_push, tree, f"{cgi.url}/pushed.git", plain),
                "ssh": partial(
                    _push, tree, f"{ssh.url}/pushed.git", plain, _ssh_command(ssh.folder, ssh.port)
                ),
            }
            found = in_turns(ways, 1 if ground.quick else ROUNDS)
    section.add("over HTTP to a hosted repository", "s", found["ours"])
    section.add("over HTTP to a plain CGI server", "s", found["cgi"])
    section.add("over SSH", "s", found["ssh"])
    section.compare("throughput beside the plain CGI server", found["cgi"], found["ours"], "0.8 ×")
    section.compare("throughput beside SSH", found["ssh"], found["ours"], "0.8 ×")
    section.add("growth of web process and Git service", "MiB", grown, "8 MiB")
    return section


def _tree(folder: Path, size: int) -> Path:
    """A repository with one packed commit of files that cannot be compressed."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "core.compression", "0")
    for number, at in enumerate(range(0, size, FILE)):
        (folder / f"file-{number}").write_bytes(os.urandom(min(FILE, size - at)))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Add files")
    git(folder, "repack", "-adq")
    return folder


def _repository(folder: Path) -> Path:
    made = folder / "pushed.git"
    made.mkdir(parents=True)
    git(made, "init", "--quiet", "--bare")
    return made


def _push(tree: Path, url: str, target: Path, ssh: str = "") -> float:
    """Seconds of a push to an empty repository, which is emptied afterwards."""
    environment = {**os.environ, **GIT_ENV, "GIT_SSH_COMMAND": ssh}
    command = ["git", "-C", str(tree), "push", "--quiet", url, "main:refs/heads/measured"]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise LoadFailed(f"git push failed: {done.stderr}")
    git(target, "update-ref", "-d", "refs/heads/measured")
    git(target, "prune", "--expire=now")
    for pack in (target / "objects" / "pack").iterdir():
        pack.unlink()
    return seconds


def _ssh_command(folder: Path, port: int) -> str:
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -q"
    return f"ssh -i {folder}/user -p {port} {options}"


def _peaks(processes: list[int], reset: bool = False) -> int:
    """The sum of the peaks of resident memory, in bytes. `reset` makes them begin at what is used now (proc(5))."""
    total = 0
    for process in processes:
        if reset:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total
