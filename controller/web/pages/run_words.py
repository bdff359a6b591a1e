"""States of runs in words, and the values of a start form as the body of a request. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from controller.domain.apps.spec import ApiVariable
from controller.domain.runs.run import RunInput, RunState
from controller.domain.text import excerpt
from controller.web.pages.languages import N_, UNITS
from controller.web.problems import HttpProblem

#: A word and its tone.
RUN_STATES: Final[Mapping[RunState, tuple[str, str]]] = {
    RunState.QUEUED: (N_("waiting"), "calm"),
    RunState.STARTING: (N_("starting"), "busy"),
    RunState.RUNNING: (N_("running"), "busy"),
    RunState.CANCELING: (N_("being canceled"), "warn"),
    RunState.SUCCEEDED: (N_("succeeded"), "good"),
    RunState.FAILED: (N_("failed"), "bad"),
    RunState.ERROR: (N_("failed on the platform"), "bad"),
    RunState.CANCELED: (N_("canceled"), "calm"),
}
#: What the modules start.js and outputs.js say; the keys are their own, and those of sending.js.
WORDS: Final[Mapping[str, str]] = {
    "compares": N_("compares what has arrived before"),
    "uploads": N_("is being sent"),
    "again": N_("the connection is lost; it goes on by itself"),
    "later": N_("not possible at the moment; it is tried again by itself"),
    "done": N_("uploaded"),
    "failed": N_("It could not be uploaded."),
    "empty": N_("There are no files here."),
    "above": N_("The folder above"),
    "more": N_("More"),
    "gone": N_("Its files are gone: somebody has deleted them."),
    "not-read": N_("Files cannot be reached at the moment. Everything else works."),
    "all": N_("All files"),
    "download": N_("Download"),
    **{f"unit-{step}": unit for step, unit in enumerate(UNITS)},
}
#: How the fields of the form are named that hold inputs.
FIELD: Final = "input."
SHORT: Final = 60  # characters of an input in a list


def body_of(form: Mapping[str, str], inputs: tuple[ApiVariable, ...]) -> dict[str, object]:
    """Return the body of the request that a filled-in form stands for. Fields that are left empty are left out."""
    given = {each.name: form.get(FIELD + each.name, "") for each in inputs}
    return {"inputs": {each.name: _value(given[each.name], each) for each in inputs if given[each.name]}}


def _value(text: str, declared: ApiVariable) -> object:
    """Return what a text stands for: JSON where a datatype other than texts and files is meant and it is JSON."""
    if set(declared.datatypes) <= {"str", "FILE"}:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def wrong_inputs(problem: HttpProblem) -> tuple[dict[str, str], list[str]]:
    """Return what is wrong with each input of a refused start by its name, and all else that is wrong."""
    found: dict[str, str] = {}
    others: list[str] = []
    errors = problem.extra.get("errors", [])
    for each in errors if isinstance(errors, list) else []:
        if not isinstance(each, dict):
            continue
        _, member, name, *_ = [*each["pointer"].split("/"), "", "", ""]
        if member == "inputs" and name:
            found.setdefault(name.replace("~1", "/").replace("~0", "~"), each["detail"])
        else:
            others.append(each["detail"])
    return found, others if found or others else [problem.detail]


def in_short(inputs: tuple[RunInput, ...]) -> str:
    """Return the inputs of a run in one line."""
    return ", ".join(f"{each.name}={excerpt(each.data, SHORT)}" for each in inputs)
