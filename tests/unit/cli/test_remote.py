"""Which server a command talks to."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli.remote import Remote
from controller.cli.session import Session


@pytest.mark.parametrize(
    ("web", "server"),
    [
        ("listen: '0.0.0.0:8000'", "http://127.0.0.1:8000"),
        ("publicUrl: https://ml.example.org", "https://ml.example.org"),
        ("appDomain: apps.example.org", "http://demo.apps.example.org:8000"),
        ("appDomain: apps.example.org, publicUrl: https://ml.example.org", "https://demo.apps.example.org"),
        ("appDomain: apps.x, publicUrl: 'https://ml.x:8443'", "https://demo.apps.x:8443"),
    ],
)
def test_of_the_platform_on_this_machine(tmp_path: Path, web: str, server: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"web: {{{web}}}\n")
    remote = Remote(Session(config=config), None, None, None)
    assert remote.address("demo:box/group/file").server == server
    assert remote.pipeline("demo/train").server == server
    assert (
        Remote(Session(config=config), "https://other", None, None).address("demo:box/group/file").server
        == "https://other"
    )
