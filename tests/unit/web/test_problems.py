"""Problems: one document, one list."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from controller.web.problems import Kind, Problem

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"


def test_every_kind_is_documented_and_nothing_else() -> None:
    section = REFERENCE.read_text().partition("## Problems")[2].partition("## Metrics")[0]
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", section, re.MULTILINE))
    assert set(listed) == {kind.slug for kind in Kind}
    for kind in Kind:
        assert listed[kind.slug] == ("any 4xx" if kind is Kind.HTTP else str(kind.status))


@pytest.mark.parametrize("kind", Kind)
def test_the_document(kind: Kind) -> None:
    problem = Problem(kind, "Because.", retry_after=3, allow="GET", extra={"limit": 5})
    document = json.loads(problem.body("r-1"))
    assert document == {
        "type": f"urn:prichal:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": "Because.",
        "instance": "urn:prichal:request:r-1",
        "limit": 5,
        "retryAfter": 3,
    }
    assert {("retry-after", "3"), ("allow", "GET")} < set(problem.headers())


def test_slugs_are_unique() -> None:
    assert len({kind.slug for kind in Kind}) == len(Kind)
