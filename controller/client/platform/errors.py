"""The meaning of responses of the platform's own interface below `/-/`: its problems carry the reason of the error
that a command on the host would end with."""

from __future__ import annotations

import re
from typing import Final

from controller.client.errors import ErrorAnswer, ErrorMeanings, problem_of
from controller.domain.error_table import ErrorRule
from controller.domain.errors import ControllerError, Stalled
from controller.domain.reasons import Reason
from controller.domain.text import bounded

#: The header by which a platform tells its version, on every response below `/-/`.
VERSION: Final = "Prichal-Version"
NOT_A_PLATFORM: Final = ErrorRule(
    Stalled, Reason.NOT_A_PLATFORM, "Check the URL; it is that of the platform, without a path"
)
_REASON: Final = re.compile(r"[A-Z][A-Za-z]{1,59}")
_REFUSED: Final = ErrorRule(
    Stalled, Reason.CREDENTIALS_REFUSED, "Sign in with: prichal login URL, or give --token-file FILE"
)


class PlatformMeanings(ErrorMeanings):
    def error(self, answer: ErrorAnswer, doing: str) -> ControllerError:
        problem = problem_of(answer)
        reason, detail = problem.get("reason"), problem.get("detail")
        if 400 <= answer.status < 500 and isinstance(reason, str) and isinstance(detail, str):
            known = Reason(reason) if _REASON.fullmatch(reason) else Reason.REQUEST_REFUSED
            return Stalled(known, bounded(detail))
        if answer.status in (404, 405):
            return self._missing(answer, doing)
        return super().error(answer, doing)

    def _missing(self, answer: ErrorAnswer, doing: str) -> ControllerError:
        """A route that the server does not have."""
        version = answer.headers.get(VERSION, "")
        if not version:
            return NOT_A_PLATFORM.error(doing, "the server is not prichal, or too old for this command")
        told = f"{doing}: the server, prichal {version[:20]}, does not know this request; it may be too old"
        return Stalled(Reason.SERVER_TOO_OLD, told)


def platform_meanings() -> PlatformMeanings:
    made = ErrorMeanings.of(NOT_A_PLATFORM, {401: _REFUSED})
    return PlatformMeanings(made.stranger, made.table)
