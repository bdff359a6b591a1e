"""Problems: one document, one list."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from controller.web.problems import HttpProblem, Member, ProblemDialect, ProblemKind

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "http-api.md"


def test_every_kind_is_documented_and_nothing_else() -> None:
    section = REFERENCE.read_text().partition("## Problems")[2].partition("## Metrics")[0]
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", section, re.MULTILINE))
    assert set(listed) == {kind.slug for kind in ProblemKind}
    for kind in ProblemKind:
        assert listed[kind.slug] == ("any 4xx" if kind is ProblemKind.HTTP else str(kind.status))


@pytest.mark.parametrize("kind", ProblemKind)
def test_the_document(kind: ProblemKind) -> None:
    problem = HttpProblem(kind, "Because.", retry_after=3, allow="GET", extra={"limit": 5})
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
    assert len({kind.slug for kind in ProblemKind}) == len(ProblemKind)


STATE = Path("/var/lib/prichal")
TEXT = f"cannot write {STATE}/models/abc"
CLEAN = "cannot write the state folder"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"why": TEXT}, {"why": CLEAN}),
        ({"whys": [TEXT, "else"]}, {"whys": [CLEAN, "else"]}),
        ({"errors": [{"pointer": "/a", "detail": TEXT}]}, {"errors": [{"pointer": "/a", "detail": CLEAN}]}),
        ({"limit": 5}, {"limit": 5}),
    ],
)
def test_nobody_learns_where_something_lies_on_the_host(
    extra: dict[str, Member], expected: dict[str, Member]
) -> None:
    told = HttpProblem(ProblemKind.INVALID, TEXT, extra=extra).without_paths(STATE)
    assert (told.detail, told.extra) == (CLEAN, expected)


@pytest.mark.parametrize("text", ["a\ud800", "\udfffb", "\x00", "\x1b[31mred", "a\u202eb"])
def test_its_texts_can_be_read_by_any_parser_and_shown_by_any_terminal(text: str) -> None:
    problem = HttpProblem(
        ProblemKind.INVALID, text, extra={"errors": [{"pointer": f"/inputs/{text}", "detail": text}]}
    )
    body = problem.body("r-1", ProblemDialect.OPEN_INFERENCE)
    document = json.loads(body)
    for told in (document["detail"], document["error"], *document["errors"][0].values()):
        told.encode()
        assert told.isprintable()


@pytest.mark.parametrize("kind", ProblemKind)
def test_clients_of_openai_find_an_error_of_their_own(kind: ProblemKind) -> None:
    document = json.loads(HttpProblem(kind, "Because.").body("r-1", ProblemDialect.OPENAI))
    assert document["detail"] == document["error"]["message"] == "Because."
    of_server = document["error"]["type"] == "server_error"
    assert of_server == (kind.status >= 500)
    assert document["error"]["code"] == kind.slug.replace("-", "_")
