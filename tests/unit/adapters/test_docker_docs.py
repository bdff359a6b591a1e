"""docs/reference/containers.md names every reason that the Docker adapter gives, and every label."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.adapters.docker import errors
from controller.domain import labels

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/containers.md").read_text()
SOURCES = "".join(path.read_text() for path in (ROOT / "controller/adapters/docker").glob("*.py"))

REASONS = {verdict.reason for _, verdict in errors.ANSWERS}
REASONS |= {verdict.reason for verdict in (*errors.CLASSES.values(), *errors.STATUS.values())}
REASONS |= set(re.findall(r'(?:Stalled|Transient)\(\s*"(\w+)"', SOURCES))
REASONS |= set(re.findall(r'ErrorRule\(\s*(?:Stalled|Transient),\s*"(\w+)"', SOURCES))


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_reasons(reason: str) -> None:
    assert f"`{reason}`" in PAGE


def test_no_reason_is_invented() -> None:
    assert set(re.findall(r"^\| (`.*?`) \| (?:yes|no) \|", PAGE, re.MULTILINE))
    for cell in re.findall(r"^\| (`.*?`) \| (?:yes|no) \|", PAGE, re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", cell)) <= REASONS


@pytest.mark.parametrize(
    "label", [value for value in vars(labels).values() if str(value).startswith("io.prichal.")]
)
def test_labels(label: str) -> None:
    assert f"`{label}`" in PAGE
