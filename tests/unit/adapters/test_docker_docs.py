"""docs/reference/containers.md names every label that the Docker adapter writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.domain import labels

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/containers.md").read_text()


@pytest.mark.parametrize(
    "label", [value for value in vars(labels).values() if str(value).startswith("io.prichal.")]
)
def test_labels(label: str) -> None:
    assert f"`{label}`" in PAGE
