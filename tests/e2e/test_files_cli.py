"""`prichal file` on the whole platform: what a user's machine does, killed in the middle, too."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.pages import ROOT
from tests.support.platform import Module, Platform

TOKEN = "the-key-of-anna-is-long"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MIB = 2**20


@pytest.fixture
def files(platform: Platform, module: Module, app: str) -> str:
    """The app, which has a box and a files API."""
    module.box("data").files_api(auth={"token": {"credentials": "people"}})
    revision = module.push()
    platform.connect(module, app, {"people": {"anna": TOKEN}})
    platform.until_ready(app, revision)
    return app


@pytest.fixture
def variables(platform: Platform, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PRICHAL_SERVER": f"http://127.0.0.1:{platform.port}",
        "PRICHAL_TOKEN": TOKEN,
    }


def start(variables: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "controller", "file", *arguments]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(variables: Mapping[str, str], *arguments: str) -> str:
    with start(variables, *arguments) as process:
        stdout, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    return stdout


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def test_an_upload_killed_in_the_middle_goes_on(
    platform: Platform, files: str, variables: dict[str, str], tmp_path: Path
) -> None:
    large, path = tmp_path / "large", f"/{files}/files/data/g/large"
    with large.open("wb") as file:
        for number in range(400):
            file.write(hashlib.sha256(str(number).encode()).digest() * (MIB // 32))
    remembered = tmp_path / "cache" / "prichal" / "uploads.json"

    def arrived() -> list[dict[str, object]]:
        (entry,) = json.loads(remembered.read_text()).values()
        upload = entry["value"].rpartition(" ")[2]
        parts: list[dict[str, object]] = platform.get(f"{path}?upload={upload}", BEARER).json["parts"]
        return parts

    with start(variables, "put", str(large), f"{files}:data/g") as first:
        platform.until(lambda: remembered.exists() and len(arrived()) >= 2)
        first.kill()
        assert first.wait() == -signal.SIGKILL
    assert platform.get(path, BEARER).status == 404, "no half a file"
    assert len(arrived()) >= 2
    begun = remembered.read_text()

    put = json.loads(run(variables, "put", str(large), f"{files}:data/g", "-o", "json"))
    assert put["size"] == 400 * MIB
    assert begun != remembered.read_text() == "{}"
    run(variables, "get", f"{files}:data/g/large", str(tmp_path / "copy"))
    assert md5(tmp_path / "copy") == md5(large)


def test_a_folder_there_and_back(files: str, variables: dict[str, str], tmp_path: Path) -> None:
    for name in ("a b.txt", "deep/er/ü.txt"):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    assert run(variables, "cp", "-r", str(tmp_path / "in"), f"{files}:data/g").startswith("2 files copied")
    assert run(variables, "ls", "-R", f"{files}:data").splitlines() == ["g/a b.txt", "g/deep/er/ü.txt"]
    run(variables, "cp", "-r", f"{files}:data/g", str(tmp_path / "out"))
    assert (tmp_path / "out/deep/er/ü.txt").read_text() == "deep/er/ü.txt"
    assert run(variables, "rm", "-r", "--yes", f"{files}:data/g").endswith("2 files removed\n")
