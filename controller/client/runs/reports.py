"""Runs as reported by the API, with our types. Pure; invalid documents raise KeyError, TypeError, ValueError
or AttributeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.client.errors import ErrorMeanings
from controller.domain.error_table import ErrorRule
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.run import Attempt, RunOutput, RunState, StageRun, Transition
from controller.domain.units import parse_rfc3339

GONE: Final = ErrorRule(Stalled, Reason.RUN_GONE)
RUNS: Final = ErrorMeanings.of(
    ErrorRule(
        Stalled,
        Reason.NOT_A_RUN_API,
        "Is this the address of a prichal server, and of a pipeline? See --server",
    ),
    {404: ErrorRule(Stalled, Reason.RUN_NOT_FOUND), 410: GONE},
)


@dataclass(frozen=True)
class RunReport:
    """Times are Unix seconds. Runs of a list have no stages, history or outputs; `document` is the response."""

    id: str
    pipeline: str
    state: RunState
    reason: Reason
    message: str
    created: float
    started: float | None
    ended: float | None
    stages: tuple[StageRun, ...]
    history: tuple[Transition, ...]
    outputs: tuple[RunOutput, ...]
    document: Mapping[str, Any]

    @classmethod
    def of(cls, document: Any) -> RunReport:
        created = _time(document["created"])
        if created is None:
            raise ValueError("the time of creation is missing")
        return cls(
            str(document["id"]),
            str(document["pipeline"]),
            RunState(document["state"]),
            Reason(document["reason"]),
            str(document["message"]),
            created,
            _time(document["started"]),
            _time(document["ended"]),
            tuple(map(_stage, document.get("stages", ()))),
            tuple(map(_transition, document.get("history", ()))),
            tuple(RunOutput(o["name"], o["data"], o.get("box", "")) for o in document.get("outputs", ())),
            document,
        )

    @property
    def link(self) -> str:
        return str(self.document["links"]["self"])


def _stage(found: Any) -> StageRun:
    return StageRun(
        str(found["name"]),
        RunState(found["state"]),
        Reason(found["reason"]),
        str(found["message"]),
        tuple(map(_attempt, found["attempts"])),
        progress=str(found["progress"] or ""),
        history=tuple(map(_transition, found["history"])),
    )


def _attempt(found: Any) -> Attempt:
    return Attempt(
        int(found["number"]),
        _time(found["started"]) or 0.0,
        _time(found["ended"]) or 0.0,
        None if found["exitCode"] is None else int(found["exitCode"]),
        Reason(found["reason"]),
        str(found["message"]),
    )


def _transition(found: Any) -> Transition:
    return Transition(
        RunState(found["state"]), _time(found["at"]) or 0.0, Reason(found["reason"]), str(found["message"])
    )


def _time(text: str | None) -> float | None:
    """Parse a time in RFC 3339."""
    return None if text is None else parse_rfc3339(text)
