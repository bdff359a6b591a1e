"""Every invalid example has all its problems, at the right places, in the golden file beside it; every valid one
loads. To renew the golden files after a change of wording, run this file as a program and read the difference."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from controller.domain.errors import ManifestProblem
from tests.support.manifests import EXAMPLES, app_of, app_problems, platform_of, platform_problems

INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))
VALID = sorted((EXAMPLES / "valid").glob("*.yaml"))


def verdict(example: Path) -> str:
    content = example.read_bytes()
    found = (platform_problems if example.name.startswith("platform-") else app_problems)(content)
    return "".join(f"{_line(problem)}\n" for problem in found)


def _line(problem: ManifestProblem) -> str:
    """As people see it, without the name of the file."""
    return str(problem).removeprefix(f"{problem.file}:").lstrip()


@pytest.mark.parametrize("example", INVALID, ids=lambda path: path.stem)
def test_an_invalid_example_has_all_its_problems(example: Path) -> None:
    assert verdict(example) == example.with_suffix(".problems").read_text()


@pytest.mark.parametrize("example", VALID, ids=lambda path: path.stem)
def test_a_valid_example_loads(example: Path) -> None:
    load = platform_of if example.name.startswith("platform-") else app_of
    assert load(example.read_bytes()).warnings == ()


def test_each_example_is_found() -> None:
    goldens = {path.stem for path in (EXAMPLES / "invalid").glob("*.problems")}
    assert {path.stem for path in INVALID} == goldens
    assert len(INVALID) > 30
    assert len(VALID) > 3


if __name__ == "__main__":
    sys.path.insert(0, ".")
    for example in INVALID:
        example.with_suffix(".problems").write_text(verdict(example))
