"""From a push at a forge to the status beside the commit, and to a pipeline that fails with the deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forges import TOKEN
from tests.support.git_servers import Author, http_backend
from tests.support.platform import API_VERSION, Platform
from tests.support.receivers import Received, receiver
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("platform"), git={"privateForges": True})
    try:
        yield running.start()
    finally:
        running.stop()


def connect(platform: Platform, app: str, url: str, api: str) -> None:
    repository = {
        "url": url,
        "ref": {"branch": "main"},
        "interval": "0s",
        "commitStatus": {"provider": "gitea", "credentials": "bot", "url": api},
    }
    documents: list[dict[str, Any]] = [
        {"kind": "Repository", "metadata": {"name": app}, "spec": repository},
        {"kind": "PlatformApp", "metadata": {"name": app}, "spec": {"repository": app}},
        {"kind": "Secret", "metadata": {"name": "bot"}, "stringData": {"token": TOKEN}},
    ]
    text = "\n---\n".join(json.dumps({"apiVersion": API_VERSION, **each}) for each in documents)
    (platform.platform_folder / f"{app}.yaml").write_text(text)
    platform.until(lambda: platform.status(app))


def box(capacity: str) -> str:
    spec = {"s3DefaultStorage": {"capacity": capacity}}
    return json.dumps(
        {"apiVersion": API_VERSION, "kind": "DataBox", "metadata": {"name": "files"}, "spec": spec}
    )


def words(received: list[Received]) -> list[tuple[str, str]]:
    """Return commit and state of what the forge was sent."""
    return [(one.path.rpartition("/")[2], one.json["state"]) for one in received]


def test_the_forge_and_the_pipeline_learn_what_became_of_a_commit(
    platform: Platform, app: str, tmp_path: Path
) -> None:
    author = Author(tmp_path / "forge" / "team" / "demo.git")
    good = author.commit({"box.yaml": box("1M")})
    with http_backend(tmp_path / "forge") as forge, receiver() as there:
        there.answer = lambda received: (201, {})
        api = there.url.replace("/done", "/api/v1")
        connect(platform, app, f"{forge.url}/team/demo.git", api)
        wait = ("reconcile", app, "--wait", "--revision")
        assert platform.prichal(*wait, good).returncode == 0
        wait_for(lambda: (good, "success") in words(there.received))

        bad = author.commit({"box.yaml": box("many")})
        done = platform.prichal(*wait, bad, check=False)
        assert done.returncode == 1, done.stderr
        wait_for(lambda: (bad, "failure") in words(there.received))
        assert platform.prichal(*wait, good, check=False).returncode == 1, "it is not the newest any more"

        better = author.commit({"box.yaml": box("2M")})
        platform.kill("daemon")
        platform.start_process("daemon")
        assert platform.prichal(*wait, better).returncode == 0
        wait_for(lambda: (better, "success") in words(there.received))

    told = [word for word in words(there.received) if word[1] != "pending"]
    assert told == [(good, "success"), (bad, "failure"), (better, "success")], "each of them once"
    (last,) = [one for one in there.received if words([one]) == [(better, "success")]]
    assert last.headers["authorization"] == f"token {TOKEN}"
    assert last.json["context"] == f"{platform.instance}/{app}"
    assert last.json["target_url"] == f"http://127.0.0.1:{platform.port}/-/apps/{app}"
    assert TOKEN not in platform.log.read_text()
