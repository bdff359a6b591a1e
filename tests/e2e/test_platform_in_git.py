"""The platform's own side kept in a Git repository: what is pushed there connects and disconnects modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import API_VERSION, ECHO, Module, Platform


@pytest.fixture
def operators(tmp_path: Path) -> Module:
    """The operators' repository, with one commit."""
    repository = Module(tmp_path / "operators")
    repository.write("README.md", "who is connected").push()
    return repository


@pytest.fixture
def guided(tmp_path: Path, operators: Module) -> Iterator[Platform]:
    source = {"url": str(operators.bare), "path": ".", "branch": "main", "interval": "1s"}
    running = Platform(tmp_path / "home", platform=source, git={"allowedPaths": [str(tmp_path)]})
    try:
        yield running.start()
    finally:
        running.stop()


def connection(app: str, module: Module) -> str:
    documents = [
        ("Repository", {"url": str(module.bare), "ref": {"branch": "main"}, "interval": "0s"}),
        ("PlatformApp", {"repository": app, "path": "manifests"}),
    ]
    return "\n---\n".join(
        json.dumps({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": app}, "spec": spec})
        for kind, spec in documents
    )


def test_a_push_to_the_operators_repository_connects_a_module(
    guided: Platform, operators: Module, app: str, tmp_path: Path
) -> None:
    module = Module(tmp_path / "module")
    first = module.served(ECHO).push()
    operators.write("apps/echo.yaml", connection(app, module)).push()
    guided.until_ready(app, first)
    assert guided.predict(app).status == 200

    operators.write("apps/echo.yaml", "apiVersion: " + API_VERSION + "\nkind: Repository\n").push()
    guided.until(lambda: guided.condition("@platform", "ManifestInvalid"))
    assert "apps/echo.yaml" in guided.condition("@platform", "ManifestInvalid")["message"]
    assert guided.predict(app).status == 200  # what ran goes on running
