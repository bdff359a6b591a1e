from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.runner.harness import Harness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """With its runner at work."""
    made = Harness(tmp_path / "state")
    made.start()
    yield made
    made.close()
