"""What docs/reference/serving.md shows is so."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from controller.serving import problems
from controller.serving.config import ServingSettings
from tests.unit.serving.conftest import Serve

PAGE = (pathlib.Path(__file__).parents[3] / "docs" / "reference" / "serving.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_answers_as_shown(serve: Serve) -> None:
    (source,) = blocks("python")
    request, reply = map(json.loads, blocks("json"))
    assert serve(source).ready().post(request).json == reply


def test_every_setting_is_described_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    for field in dataclasses.fields(ServingSettings):
        if field.name in ("inference", "app", "component"):
            continue
        default = json.dumps(field.default).replace(".0", "")
        assert rows[field.name].strip() == default, field.name


def test_every_kind_of_problem_is_described() -> None:
    kinds = [value for value in vars(problems).values() if isinstance(value, problems.ServingProblemKind)]
    assert len({kind.slug for kind in kinds}) == len(kinds)
    for kind in kinds:
        (row,) = (line for line in PAGE.splitlines() if f"`{kind.slug}`" in line)
        assert str(kind.status) in row
