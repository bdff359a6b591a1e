"""Patterns of tags, by RE2: developers write them and registries send the tags, so matching must be linear."""

from __future__ import annotations

from functools import lru_cache

import re2

MOST = 200  # characters of a pattern
_MEMORY = 2**20  # bytes of a compiled pattern


def is_pattern(text: str) -> bool:
    """Return True if `extracted` takes the pattern."""
    try:
        _compiled(text)
    except ValueError:
        return False
    return True


def extracted(pattern: str, tag: str) -> str | None:
    """Return the part of a tag that counts: the group named `version`, or else the first group, or else all of it. None
    if the whole tag does not match. Raises ValueError for a pattern that is none."""
    compiled = _compiled(pattern)
    found = compiled.fullmatch(tag)
    if found is None:
        return None
    group = "version" if "version" in compiled.groupindex else min(1, compiled.groups)
    text: str | None = found.group(group)
    return text


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re2._Regexp:
    if len(pattern) > MOST:
        raise ValueError(f"a pattern has at most {MOST} characters")
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        raise ValueError("RE2 does not take it") from None
