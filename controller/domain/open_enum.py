"""Enums whose values are stored and sent, and may have been written by another release."""

from __future__ import annotations

from enum import StrEnum


class OpenEnum(StrEnum):
    """An enum that keeps a text that it does not know, as an equal member without a name of its own. So an upgrade or
    a downgrade does not make rows unreadable. Code names members; only texts that come from outside are converted.
    """

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown
