"""Checks of the `format`s of the schemas, which a pattern cannot express. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Final

from controller.domain.apps.versions import is_range
from controller.domain.cron import is_cron, is_timezone
from controller.domain.runs.webhooks import is_url


def is_base64_text(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return False
    return True


def is_tag_pattern(text: str) -> bool:
    try:
        from controller.tag_patterns import is_pattern
    except ModuleNotFoundError:
        return True  # a client without the extra `local`: the platform checks it
    return is_pattern(text)


CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "base64-text": is_base64_text,
    "cron": is_cron,
    "tag-pattern": is_tag_pattern,
    "timezone": is_timezone,
    "version-range": is_range,
    "webhook-url": is_url,
}
