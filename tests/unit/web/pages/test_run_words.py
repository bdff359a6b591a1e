from __future__ import annotations

import pytest

from controller.domain.runs.run import RunInput, RunState
from controller.web.pages.run_words import RUN_STATES, SHORT, body_of, in_short, wrong_inputs
from controller.web.problems import HttpProblem, ProblemKind
from tests.support.runs import INPUTS


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("data", "group/in.csv", "group/in.csv"),
        ("data", "12", "12"),
        ("rate", "0.25", 0.25),
        ("rate", "fast", "fast"),  # told as wrong by the run API, with its name
        ("note", '{"a": [1, 2]}', {"a": [1, 2]}),
        ("note", "plain words", "plain words"),
        ("note", "[" * 100_000, "[" * 100_000),
    ],
)
def test_what_was_typed_becomes_a_value(name: str, typed: str, value: object) -> None:
    assert body_of({f"input.{name}": typed}, INPUTS) == {"inputs": {name: value}}


def test_empty_and_unknown_fields_are_left_out() -> None:
    assert body_of({"input.data": "", "input.other": "x", "form": "secret"}, INPUTS) == {"inputs": {}}


def test_every_state_has_a_word() -> None:
    assert set(RUN_STATES) == set(RunState)


def test_inputs_in_a_line_are_bounded() -> None:
    line = in_short((RunInput("data", "FILE", "x" * 10_000), RunInput("rate", "FP64", "0.5")))
    assert line.endswith(", rate=0.5")
    assert len(line) < 2 * SHORT


@pytest.mark.parametrize(
    ("pointer", "inputs", "others"),
    [
        ("/inputs/rate", {"rate": "wrong"}, []),
        ("/inputs/rate/0", {"rate": "wrong"}, []),
        ("/inputs/a~1b~0c", {"a/b~c": "wrong"}, []),
        ("/inputs", {}, ["wrong"]),
        ("", {}, ["wrong"]),
    ],
)
def test_what_is_wrong_stands_at_its_input(pointer: str, inputs: dict[str, str], others: list[str]) -> None:
    problem = HttpProblem(
        ProblemKind.INVALID, "all of it", extra={"errors": [{"pointer": pointer, "detail": "wrong"}]}
    )
    assert wrong_inputs(problem) == (inputs, others)


def test_what_is_wrong_without_a_place_is_said() -> None:
    assert wrong_inputs(HttpProblem(ProblemKind.INVALID, "no box")) == ({}, ["no box"])
