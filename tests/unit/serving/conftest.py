"""Servers of the serving library, ended with the test."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.serving.server import ECHO, Server

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: pathlib.Path) -> Iterator[Serve]:
    """Start a server of a module's source."""
    with contextlib.ExitStack() as stack:

        def start(source: str = ECHO, **settings: Any) -> Server:
            server = Server(tmp_path, source, **settings)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One echo server for all tests of a module that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("echo"), ECHO, max_body=100_000).ready()
    yield server
    server.close()
