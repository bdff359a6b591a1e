"""Texts for people that can be said in another language later. A `Localizable` is its English text, so whatever takes a
text takes one; it also keeps the pattern and the values that it was made of, by which pages translate it
(`controller.web.pages.languages`). Pure.

Write `Localizable("the value of {key} is empty", key=key)` for what a page shows to somebody who has to act on it. The
pattern is a constant: `tests/unit/web/pages/test_languages.py` collects all of them, and finds those without a
translation. A value is put in as it is, and with `{name!r}` in quotation marks; it may be a message, too. What people
or programs outside have written is a value, and is never translated.

Messages are stored with their pattern and values (`controller.store.codec`, `as_stored`). `str(error)` and `+` keep
them, `joined` puts several together; other operations, such as slices and f-strings, leave the English text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from controller.domain.text import excerpt, printable

Value = str | int | float
Translate = Callable[[str], str]

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)(!r)?\}")
_ENDS = (".", "!", "?", "…")
_DEEPEST: Final = 16  # messages in messages that are stored: each of them has its text once more


class Localizable(str):
    """`is_sentence`: it begins with a capital letter and ends with a full stop, whatever the pattern has."""

    pattern: str
    values: Mapping[str, Value]
    is_sentence: bool

    def __new__(cls, pattern: str, /, **values: object) -> Self:
        return cls.made(pattern, values)

    @classmethod
    def made(cls, pattern: str, values: Mapping[str, object], is_sentence: bool = False) -> Self:
        clean = {name: _clean(value) for name, value in values.items()}
        made = super().__new__(cls, _finished(filled(pattern, clean), is_sentence))
        made.pattern, made.values, made.is_sentence = pattern, clean, is_sentence
        return made

    def __str__(self) -> str:
        return self  # so that `str(error)` is the message that the error was made of

    def __add__(self, other: str) -> str:
        return joined((self, other), "")

    def __radd__(self, other: str) -> str:
        return joined((other, self), "")

    def said(self, translate: Translate) -> str:
        """Return the text with all patterns translated."""
        values = {name: said(value, translate) for name, value in self.values.items()}
        return _finished(filled(translate(self.pattern), values), self.is_sentence)

    def changed(self, change: Translate) -> Localizable:
        """Return the message with each text among its values changed."""
        values = {
            name: value.changed(change)
            if isinstance(value, Localizable)
            else change(value)
            if isinstance(value, str)
            else value
            for name, value in self.values.items()
        }
        return Localizable.made(self.pattern, values, self.is_sentence)

    def __reduce__(self) -> tuple[Any, ...]:
        return Localizable.made, (self.pattern, dict(self.values), self.is_sentence)


def said(value: Value, translate: Translate) -> Value:
    """Return a message translated, and all else as it is."""
    return value.said(translate) if isinstance(value, Localizable) else value


def filled(pattern: str, values: Mapping[str, Value]) -> str:
    """Return the pattern with values in its places; a place without a value stays."""

    def value_of(place: re.Match[str]) -> str:
        if place[1] not in values:
            return place[0]
        value = values[place[1]]
        return repr(value) if place[2] else f"{value:g}" if isinstance(value, float) else str(value)

    return _PLACE.sub(value_of, pattern)


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    if isinstance(text, Localizable):
        return Localizable.made(text.pattern, text.values, is_sentence=True)
    return _finished(text, is_sentence=True)


def joined(parts: Iterable[str], separator: str = "; ") -> str:
    """Return the parts as one text, that is a message if one of them is."""
    found = tuple(parts)
    if len(found) == 1:
        return found[0]
    if not any(isinstance(part, Localizable) for part in found):
        return separator.join(found)
    names = [f"part{number}" for number in range(len(found))]
    return Localizable.made(
        separator.join(f"{{{name}}}" for name in names), dict(zip(names, found, strict=True))
    )


def sentences(first: str, second: str) -> str:
    """Return two sentences as one text. The first gets a full stop, unless it ends as a sentence does."""
    return joined((first, second), " " if first.endswith(_ENDS) else ". ")


def first_line(text: str) -> str:
    """Return the first line of a text; of a message whose lines are messages, the first one."""
    if "\n" not in text:
        return text
    if isinstance(text, Localizable):
        head = text.pattern.partition("\n")[0]
        if head and not any(letter.isalpha() for letter in _PLACE.sub("", head)):
            values = {
                name: first_line(value) if isinstance(value, str) else value
                for name, value in text.values.items()
            }
            return Localizable.made(head, values)
    return text.partition("\n")[0]


def shortened(text: str, most: int) -> str:
    """Return an excerpt of at most that many characters; a message stays one if excerpts of its values are short."""
    if len(text) <= most:
        return text
    short = changed(text, lambda value: excerpt(value, most // 3))
    return short if len(short) <= most else excerpt(str.__str__(text), most)


def stripped(text: str) -> str:
    """Return a text without white space around it; a message has none."""
    return text if isinstance(text, Localizable) else text.strip()


def changed(text: str, change: Translate) -> str:
    """Return a text changed; of a message, its values."""
    return text.changed(change) if isinstance(text, Localizable) else change(text)


def changed_whole(text: str, change: Translate) -> str:
    """Return `change(text)`; it stays a message if nothing changes, or if changing its values has the same effect."""
    whole = change(text)
    if not isinstance(text, Localizable):
        return whole
    if whole == text:
        return text
    found = text.changed(change)
    return found if found == whole else whole


def as_document(text: str) -> dict[str, Any] | None:
    """Return what `from_document` reads; None for a text that is not a message."""
    if not isinstance(text, Localizable):
        return None
    values = {
        name: as_document(value) if isinstance(value, Localizable) else value
        for name, value in text.values.items()
    }
    return {"pattern": text.pattern, "values": values, "sentence": text.is_sentence}


def as_stored(text: str) -> str | None:
    """Return what a column beside the text holds, by which `from_stored` returns the message; None for other texts."""
    return json.dumps(as_document(text), ensure_ascii=False) if isinstance(text, Localizable) else None


def from_stored(text: str, stored: object) -> str:
    """Return the message that was stored beside its text; the text if there is none, or another one. Never raises."""
    try:
        return restored(text, json.loads(stored)) if isinstance(stored, str) else text
    except (ValueError, RecursionError):
        return text


def restored(text: str, document: object) -> str:
    """Return the message of a document if it says what the text says, else the text. Others may have written both: a
    document costs no more than the two are long, however often its patterns repeat what is in it."""
    try:
        found = from_document(document, _DEEPEST * (len(text) + 1))
    except (ValueError, RecursionError):
        return text
    return found if found == text else text


def from_document(document: object, most: int = 2**20) -> Localizable:
    """Raises ValueError for what `as_document` does not write, and for what puts more than so many characters into
    places, all messages in it included."""
    return _Reading(most).message(document)


@dataclass
class _Reading:
    left: int  # characters

    def message(self, document: object) -> Localizable:
        match document:
            case {"pattern": str(pattern), "values": dict(values), "sentence": bool(is_sentence)}:
                found = {str(name): self._value(value) for name, value in values.items()}
                self._pay(pattern, found)
                return Localizable.made(pattern, found, is_sentence)
        raise ValueError("it is not a message")

    def _value(self, value: object) -> Value:
        return value if isinstance(value, str | int | float) else self.message(value)

    def _pay(self, pattern: str, values: Mapping[str, Value]) -> None:
        sizes = {name: len(str(value)) for name, value in values.items()}
        self.left -= sum(sizes.get(place[1], 0) for place in _PLACE.finditer(pattern))
        if self.left < 0:
            raise ValueError("it is longer than what it says")


def _clean(value: object) -> Value:
    if isinstance(value, Localizable) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = str(value)
    if isinstance(text, Localizable):
        return text
    if hasattr(text, "pattern") and hasattr(text, "values"):  # of the serving library (serving/texts.py)
        return Localizable.made(text.pattern, text.values)
    return printable(text)


def _finished(text: str, is_sentence: bool) -> str:
    if not is_sentence:
        return text
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(_ENDS) else '.'}"
