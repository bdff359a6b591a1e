from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engines import unique
from tests.support.platform import Module, Platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of a file, each with an app of its own."""
    running = Platform(tmp_path_factory.mktemp("platform"))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def app() -> str:
    return unique("pu-e2e-pa")


@pytest.fixture
def module(platform: Platform, app: str) -> Module:
    return Module(platform.home / app)
