"""Checks of Git: the library that fetches, the program that serves, and the service for HTTPS."""

from __future__ import annotations

import stat
from pathlib import Path

from controller.adapters.features import git_library, program
from controller.config import Settings
from controller.domain.findings import Finding
from controller.domain.localizable import Localizable
from controller.unix_socket import connected


def check_git_library(settings: Settings) -> str:
    version, missing = git_library()
    if missing:
        advice = Localizable("install pygit2 as a wheel from PyPI, which has all of them")
        raise Finding(
            Localizable(
                "libgit2 {version} was built without {missing}", version=version, missing=", ".join(missing)
            ),
            advice,
        )
    return Localizable("libgit2 {version} with https and ssh", version=version)


def check_git_program(settings: Settings) -> str:
    version = program("git", "--version")
    if version is None:
        raise Finding(
            Localizable("git is not installed, so pushes to repositories hosted here fail"),
            "apt install git",
        )
    return version


def check_git_http(settings: Settings) -> str:
    """Check what stands between a `git clone` of a hosted repository and Git."""
    if not settings.git.http:
        return Localizable("hosted repositories are not served over HTTP (git.http: false)")
    exec_path = program("git", "--exec-path")
    if exec_path is None or not (Path(exec_path) / "git-http-backend").exists():
        raise Finding(
            Localizable("git http-backend is not installed"),
            Localizable("install the whole of Git: apt install git"),
        )
    path = settings.git_socket
    if not path.is_socket():
        advice = Localizable("start it with: prichal git-http, or: systemctl enable --now prichal-git.socket")
        raise Finding(
            Localizable("the Git service does not listen at {path}, so pushes over HTTPS fail", path=path),
            advice,
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Finding(
            Localizable("more users than the web process may open {path}", path=path), f"chmod 0600 {path}"
        )
    try:
        connected(path).close()
    except ConnectionRefusedError as error:
        advice = Localizable("start it with: prichal git-http, or: systemctl restart prichal-git.socket")
        raise Finding(Localizable("nothing listens at {path} any more", path=path), advice) from error
    except (PermissionError, BlockingIOError):
        pass  # it belongs to the web process, or more than it takes at once are waiting
    url = settings.clone_url("NAME")
    if not settings.web.public_url:
        return Localizable("hosted repositories are at {url}, for this host alone (web.publicUrl)", url=url)
    return Localizable("hosted repositories are at {url}", url=url)
