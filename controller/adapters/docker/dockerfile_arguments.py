"""Arguments that a Dockerfile declares before its first `FROM`, and the names of images that are written with them.
Pure; `dockerfile` reads the instructions.

Words are split as the builders do it. What builders of several versions read differently, and values with quotes or
escapes in the middle, are kept as unclear: a name of an image that needs one is refused, since the builder might take
another image than the one that was checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from controller.domain.localizable import Localizable

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}$]*))?\})")
#: Variables that BuildKit sets by itself.
_OF_PLATFORM = re.compile(r"(?:TARGET|BUILD)(?:PLATFORM|OS|OSVERSION|ARCH|VARIANT)")
_QUOTES: Final = "\"'"


class UnclearArgument(Exception):
    """Nobody can tell which image the builder would take. The message says what to write, for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class GlobalArguments:
    """`given` has the values of the manifest. `escape` is the Dockerfile's escape character."""

    def __init__(self, given: Mapping[str, str], escape: str) -> None:
        self._given = given
        self._escape = escape
        self._values: dict[str, str | None] = {}  # None: unclear

    def declare(self, text: str) -> None:
        """Take what follows an `ARG`. Raises UnclearArgument."""
        found: dict[str, str | None] = {}
        for word in _words(text, self._escape):
            name, sign, value = word.partition("=")
            if any(sign in name for sign in ("$", self._escape, *_QUOTES)):
                told = Localizable("write the name {name} without quotes and variables", name=name[:100])
                raise UnclearArgument(told)  # the builder would remove the quotes, and replace the variables
            if name in self._given:
                found[name] = self._given[name]
            elif sign:
                found[name] = self._value(value, found)
            else:  # one that has a value already keeps it in some builders, and loses it in others
                found[name] = None if self._values.get(name, "") != "" or name in found else ""
        self._values.update(found)

    def _value(self, written: str, beside: Mapping[str, str | None]) -> str | None:
        """Return a default; None if it is unclear, as with the value of another argument `beside` it, which only some
        builders know by then."""
        quote = written[:1] if written[:1] in _QUOTES else ""
        inner = written[1:-1] if quote and len(written) > 1 and written[-1] == quote else written
        if any(sign in inner for sign in (*_QUOTES, self._escape)) or (quote == "'" and "$" in inner):
            return None
        if any((match[1] or match[2]) in beside for match in _VARIABLE.finditer(inner)):
            return None
        try:
            replaced = self._replaced(inner)
        except UnclearArgument:
            return None
        return None if "$" in replaced else replaced

    def expanded(self, text: str) -> str:
        """Return the name of an image. Raises UnclearArgument."""
        name = self._replaced(text.strip(_QUOTES))
        if any(sign in name for sign in ("$", "\\", "`", *_QUOTES)):
            raise _unclear(text)
        return name

    def _replaced(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if _OF_PLATFORM.fullmatch(name):
                told = Localizable(
                    "write the image of `{text}` without a variable of the platform", text=text[:200]
                )
                raise UnclearArgument(told)
            found = self._values.get(name, "")
            if found is None:
                raise _unclear(text)
            if match[3] == "-":
                return found or match[4]
            return (match[4] if found else "") if match[3] == "+" else found

        return _VARIABLE.sub(value, text)


def _unclear(text: str) -> UnclearArgument:
    return UnclearArgument(
        Localizable(
            "cannot determine the image of `{text}`: write it without such variables", text=text[:200]
        )
    )


def _words(text: str, escape: str) -> Iterator[str]:
    """Yield the words, with their quotes and escapes: white space in quotes, or after an escape character, does not
    end one."""
    word, quote, is_escaped = "", "", False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif character == escape and quote != "'":
            is_escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES:
            quote = character
        elif character.isspace():
            if word:
                yield word
            word = ""
            continue
        word += character
    if word:
        yield word
