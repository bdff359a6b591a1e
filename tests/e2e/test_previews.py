"""A branch that is pushed becomes an app of its own, and goes with the branch."""

from __future__ import annotations

import subprocess

from controller.domain.apps.branch_previews import preview_name
from controller.domain.names import AppName
from tests.support.platform import Module, Platform

PREVIEWS = """\
  previews:
    branches: feature/*
    boxes: copy
    limits: {storage: 1M}
"""
FILE = "data/texts/a.txt"
BRANCH = "feature/правка"


def git(module: Module, *arguments: str) -> str:
    identity = ("-c", "user.name=dev", "-c", "user.email=dev@example.org")
    command = ["git", "-C", str(module.tree), *identity, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stderr


def push(module: Module, branch: str) -> str:
    git(module, "add", "-A")
    git(module, "commit", "-q", "--allow-empty", "-m", f"Work on {branch}")
    return git(module, "push", "host", f"HEAD:refs/heads/{branch}")


def capacity(platform: Platform, app: str) -> object:
    return next((box["capacity"] for box in platform.status(app).get("boxes", ())), None)


def test_a_branch_has_a_preview_as_long_as_it_is_there(platform: Platform, module: Module, app: str) -> None:
    told = platform.prichal("repo", "create", app, "--connect", "--app", app, "--path", "manifests").stdout
    manifest = platform.platform_folder / f"{app}.yaml"
    manifest.write_text(manifest.read_text() + PREVIEWS)
    git(module, "remote", "add", "host", told.split()[-1])
    push(module.box(capacity="1M").files_api(), "main")
    platform.until(lambda: capacity(platform, app) == 10**6)
    assert platform.put_file(app, FILE, b"of the app").status == 200

    preview = preview_name(AppName(app), f"refs/heads/{BRANCH}")
    told = push(module.box(capacity="500k"), BRANCH)
    assert f"{preview} is the preview of {BRANCH}" in told
    assert "ready after" in told
    assert f"/{preview}/files/" in told
    assert (capacity(platform, preview), capacity(platform, app)) == (500_000, 10**6)
    assert platform.get(f"/{preview}/files/").status == platform.get(f"/{app}/files/").status
    assert platform.get_file(preview, FILE).body == b"of the app"
    assert platform.put_file(preview, FILE, b"of the preview").status == 200
    assert platform.get_file(app, FILE).body == b"of the app"

    assert f"no preview of {BRANCH}: its branch is gone" in git(module, "push", "host", f":{BRANCH}")
    platform.kill("daemon")  # wherever the removal is
    platform.start_process("daemon")
    platform.until(lambda: platform.status(preview) == {})
    assert capacity(platform, app) == 10**6
