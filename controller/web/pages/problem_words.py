"""What each kind of problem means, in one sentence, for pages and their scripts. `ProblemKind` has the sentences;
`locale/<language>/problems.po` translates them. The detail of a problem is in English, and is shown below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.domain.reasons import Reason
from controller.web.pages.reason_meanings import MEANINGS
from controller.web.problems import HttpProblem, ProblemKind

PROBLEMS: Final[Mapping[ProblemKind, str]] = {
    kind: f"{kind.title}." for kind in ProblemKind if kind is not ProblemKind.HTTP
}
#: The same for scripts, which know the last part of a problem's type.
PROBLEMS_BY_TYPE: Final = {kind.slug: text for kind, text in PROBLEMS.items()}


def meaning_of(problem: HttpProblem) -> str:
    """Return what a problem means: what its reason says, if it has one, is more exact. "" if there are no words."""
    reason = MEANINGS.get(Reason(str(problem.extra.get("reason", ""))))
    return reason or PROBLEMS.get(problem.kind, "")
