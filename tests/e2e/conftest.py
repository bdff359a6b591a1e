from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Module, Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    running = Platform(tmp_path)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def module(tmp_path: Path) -> Module:
    return Module(tmp_path)
