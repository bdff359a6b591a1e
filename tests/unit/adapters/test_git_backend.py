"""What Git learns about a request, and how large a repository is."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.git_backend import environment, size_of
from controller.domain.git_http import GitExchange, GitService


def options(found: dict[str, str]) -> dict[str, str]:
    count = int(found["GIT_CONFIG_COUNT"])
    return {found[f"GIT_CONFIG_KEY_{n}"]: found[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)}


def test_a_push() -> None:
    exchange = GitExchange("demo", GitService.RECEIVE_PACK, False, "ivanov", "version=1")
    found = environment(exchange, Path("/srv/git"), 1000)
    assert (found["REQUEST_METHOD"], found["PATH_INFO"]) == ("POST", "/demo.git/git-receive-pack")
    assert (found["QUERY_STRING"], found["REMOTE_USER"]) == ("", "ivanov")
    assert found["CONTENT_TYPE"] == "application/x-git-receive-pack-request"
    assert (found["GIT_PROTOCOL"], found["GIT_PROJECT_ROOT"]) == ("version=1", "/srv/git")
    assert "CONTENT_LENGTH" not in found
    set_ = options(found)
    assert set_["receive.maxInputSize"] == "1000"
    assert set_["safe.directory"] == "*"
    assert set_["http.getanyfile"] == "false"


def test_what_hooks_learn_and_how_large_pushes_are_kept() -> None:
    exchange = GitExchange("demo", GitService.RECEIVE_PACK, False, "ivanov", "", "0f" * 16, large=True)
    found = environment(exchange, Path("/srv/git"), 1000)
    assert found["PRICHAL_PUSH"] == "0f" * 16
    assert options(found)["receive.unpackLimit"] == "1"
    small = environment(replace(exchange, push="", large=False), Path("/srv/git"), 1000)
    assert "PRICHAL_PUSH" not in small
    assert "receive.unpackLimit" not in options(small)


def test_a_list_of_refs() -> None:
    exchange = GitExchange("demo", GitService.UPLOAD_PACK, True, "ivanov")
    found = environment(exchange, Path("/srv/git"), 1000)
    assert (found["REQUEST_METHOD"], found["PATH_INFO"]) == ("GET", "/demo.git/info/refs")
    assert (found["QUERY_STRING"], found["CONTENT_TYPE"]) == ("service=git-upload-pack", "")


def test_nothing_of_the_service_reaches_git() -> None:
    found = environment(GitExchange("d", GitService.UPLOAD_PACK, True, "i"), Path("/"), 1)
    ours = {"PATH", "HOME", "LC_ALL"}
    assert {name for name in found if not name.startswith(("GIT_", "REQUEST_", "GATEWAY_", "SERVER_"))} == {
        *ours,
        *("PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "REMOTE_USER"),
    }


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"1234")
    (tmp_path / "c").write_bytes(b"56")
    (tmp_path / "d").symlink_to("/etc/passwd")
    assert size_of(tmp_path) == 6 + len("/etc/passwd")
    assert size_of(tmp_path / "missing") == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to other users")
@pytest.mark.parametrize("service", GitService)
def test_a_repository_of_another_user_is_served(tmp_path: Path, service: GitService) -> None:
    """An administrator creates it as root, say, and the service runs as a user of its own."""
    folder = tmp_path / "demo.git"
    subprocess.run(("git", "init", "-q", "--bare", folder), check=True)
    os.chown(folder, 65534, 65534)
    found = environment(GitExchange("demo", service, True, "ivanov"), tmp_path, 1000)
    answer = subprocess.run(("git", "http-backend"), env=found, capture_output=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert f"# service={service}\n".encode() in answer.stdout
