"""A text that must not be seen: `repr`, `str` and formatting show asterisks; `reveal()` is the one way to it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    _value: str = field(repr=False)

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __bool__(self) -> bool:
        return bool(self._value)


def scrub(text: str, secrets: tuple[Secret, ...]) -> str:
    """`text` without any of the secrets: error texts of libraries quote URLs, headers and command lines."""
    for secret in sorted(secrets, key=lambda s: -len(s.reveal())):
        if len(secret.reveal()) >= 4:  # shorter ones would blank out ordinary words
            text = text.replace(secret.reveal(), "***")
    return text
