from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.runner.scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """With its runner at work."""
    made = Scene(tmp_path / "state")
    made.start()
    yield made
    made.close()
