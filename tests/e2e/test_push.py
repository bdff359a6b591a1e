"""`git push` to a repository on this host: the pusher sees the progress, and how it ended."""

from __future__ import annotations

import subprocess

from tests.support.platform import ECHO, Module, Platform


def hosted(platform: Platform, module: Module, app: str) -> None:
    told = platform.prichal("repo", "create", app, "--connect", "--app", app, "--path", "manifests").stdout
    url = told.split()[-1]
    subprocess.run(["git", "-C", str(module.tree), "remote", "add", "host", url], check=True)


def push(module: Module) -> str:
    module.push()
    done = subprocess.run(
        ["git", "-C", str(module.tree), "push", "host", "main"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_pusher_sees_progress_until_it_is_ready(platform: Platform, module: Module, app: str) -> None:
    hosted(platform, module, app)
    told = push(module.served(ECHO))
    assert told.index("building Dockerfile") < told.index("prichal: | Step 1/") < told.index("is ready")
    assert "prichal: | prichal: built in" in told
    assert "prichal: built in" in platform.prichal("logs", app, "--build").stdout
    assert "is ready" in told
    assert "ready after" in told
    assert platform.predict(app).status == 200  # at once: the hook waited for it


def test_pusher_sees_why_it_failed(platform: Platform, module: Module, app: str) -> None:
    hosted(platform, module, app)
    told = push(module.served("import nowhere_to_be_found\n" + ECHO))
    assert "nowhere_to_be_found" in told
    assert "failed" in told

    told = push(module.served(ECHO, replicas=-1))
    assert "spec.replicas" in told


def test_push_without_the_platform_says_that_it_will_be_picked_up(
    platform: Platform, module: Module, app: str
) -> None:
    hosted(platform, module, app)
    platform.kill("web", 15)
    try:
        assert "polling" in push(module.served(ECHO))
    finally:
        platform.start_process("web")
        platform.until(lambda: platform.get("/-/readyz").status == 200)
