"""What failures of foreign systems mean as ours: one class for the tables of adapters, store and clients. Pure.

The tables themselves lie beside the code that knows the other side: its codes, its words, the classes of its SDK.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable, joined, sentences, shortened, stripped
from controller.domain.reasons import Reason
from controller.domain.secret import Secret, scrub
from controller.domain.text import excerpt

#: Characters of a text from outside that are searched and shown; other programs write as much as they like.
MAX_TEXT: Final = 8192


@dataclass(frozen=True)
class ErrorRule:
    """`advice` says what a person can do, "" if it is enough to wait."""

    kind: type[Stalled] | type[Transient]
    reason: Reason
    advice: str = ""

    def error(
        self, doing: str, text: str, secrets: tuple[Secret, ...] = (), retry_after: float = 0.0
    ) -> ControllerError:
        """Return the error "`doing`: `text`. `advice`". `retry_after` is in seconds, 0 if the other side named none."""
        # Scrubbed as a whole: half a secret would not be found.
        told = shortened(stripped(scrub(text, secrets)), MAX_TEXT)
        sentence = joined((doing, told if isinstance(told, Localizable) else told.rstrip(".")), ": ")
        message = sentences(sentence, self.advice) if self.advice else sentence
        if self.kind is Transient:
            return Transient(self.reason, message, retry_after)
        return self.kind(self.reason, message)


#: The first pattern that is found decides, without regard to case.
Words = tuple[tuple[str, ErrorRule], ...]


def rule_by_words(words: Words, text: str) -> ErrorRule | None:
    shown = excerpt(text, MAX_TEXT)
    return next((rule for pattern, rule in words if re.search(pattern, shown, re.IGNORECASE)), None)


@dataclass(frozen=True)
class ErrorTable:
    """For a response, its code decides, then its words, then its status; for an exception, the nearest class in its
    method resolution order. `server_failed` is for other 5xx, `otherwise` for all else."""

    otherwise: ErrorRule
    server_failed: ErrorRule
    codes: Mapping[str, ErrorRule] = field(default_factory=dict)
    words: Words = ()
    status: Mapping[int, ErrorRule] = field(default_factory=dict)
    classes: Mapping[type[BaseException], ErrorRule] = field(default_factory=dict)

    def of_response(self, status: int, code: str = "", text: str = "") -> ErrorRule:
        found = self.codes.get(code) or rule_by_words(self.words, text) or self.status.get(status)
        return found or (self.server_failed if status >= 500 else self.otherwise)

    def of_exception(self, error: BaseException) -> ErrorRule:
        return next(
            (self.classes[base] for base in type(error).__mro__ if base in self.classes), self.otherwise
        )

    @contextmanager
    def translated(self, translate: Callable[[BaseException], ControllerError]) -> Iterator[None]:
        """Raise what `translate` makes of an exception of `classes`. Bugs, and errors of ours, pass unchanged."""
        try:
            yield
        except tuple(self.classes) as error:
            raise translate(error) from error
