"""A confidential text: `repr`, `str` and formatting show asterisks; only `reveal()` returns it."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import AnyStr, Generic
from urllib.parse import quote, quote_plus

from controller.domain.escapes import readings, unescaped
from controller.domain.localizable import changed_whole
from controller.domain.text import printable

SHORT = 4  # characters; a shorter value would blank out ordinary words
_LINES = 1000  # of one value; the rest of a longer one is hidden only as a whole
_LINE = 8  # characters; a shorter line of a value is hidden only with its neighbours
_LONG = 1500  # characters; a longer value is found in the usual forms only
_PATTERNS = 50_000  # bytes of regular expressions
_INNER = 6  # characters that have to be left of a Base64 text which holds more than the value, or of one without blanks


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


def without_line_end(text: str) -> str:
    """Return the text without a line end that an editor, `echo` or `|` has added; that of a private key
    belongs to it."""
    return text if "\n" in text.strip() else text.rstrip("\r\n")


def scrub(text: str, secrets: tuple[Secret, ...]) -> str:
    """Return `text` without any of the secrets, see `_scrubbed`. A message stays one."""
    return changed_whole(text, partial(_scrubbed, secrets=secrets))


def _scrubbed(text: str, secrets: tuple[Secret, ...]) -> str:
    """`text` without any of the secrets: error texts of libraries quote URLs, headers and command lines. Values are
    found as they are and as programs write them: quoted and escaped in any way (see escapes.py), in URLs, in
    Base64 and Base32, within a longer text, too, as numbers of bytes, line by line and broken into lines. Short ones
    are found where something is set to them."""
    patterns = _patterns(frozenset(secrets))
    if not patterns:
        return text
    text = patterns.plain.hidden(text)
    raw = text.encode("utf-8", "surrogatepass")
    found = sorted(
        reading.span(*span)
        for reading in readings(raw)
        for span in (patterns.joined if reading.joined else patterns.read).spans(reading.content)
    )
    return _hidden(raw, found).decode("utf-8", "surrogatepass") if found else text


def _hidden(raw: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    """Replace the spans, which are sorted and may overlap. A character that they contain in part is replaced
    as a whole."""
    parts, place = [], 0
    for start, end in spans:
        while start > place and raw[start] & 0xC0 == 0x80:
            start -= 1
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end += 1
        if start >= place:
            parts += [raw[place:start], b"***"]
        place = max(place, end)
    return b"".join([*parts, raw[place:]])


@lru_cache(maxsize=32)
def _patterns(secrets: frozenset[Secret]) -> _Patterns | None:
    values = {secret.reveal() for secret in secrets} - {""}
    forms = {form for value in values if len(value) >= SHORT for form in _forms(value)}
    short = sorted(re.escape(value) for value in values if len(value) < SHORT)
    # PASSWORD=abc, user:abc@host; not every "abc"
    set_to = rf"(?<=[=:])[\"']?(?:{'|'.join(short)})[\"']?(?!\w)" if short else ""
    if not forms and not set_to:
        return None
    raw = {form.encode("utf-8", "surrogatepass") for form in forms}
    quoted = [pattern for value in sorted(values) for pattern in _with_any_quotes(value)]
    parted = [parts for form in sorted(raw) if len(b"".join(parts := form.split())) >= _INNER]
    blanks = [rb"\s*".join(map(re.escape, parts)) for parts in parted if len(parts) > 1]
    regular = [
        *([set_to.encode("utf-8", "surrogatepass")] if set_to else []),
        *_few(quoted),
    ]
    return _Patterns(
        _PlainPattern(_Literals(forms), re.compile(set_to) if set_to else None),
        _Pattern(_Literals(raw), re.compile(b"|".join(regular)) if regular else None),
        _Pattern(
            _Literals({parts[0] for parts in parted if len(parts) == 1}),
            re.compile(b"|".join(found)) if (found := _few([*blanks, *quoted])) else None,
        ),
    )


def _few(patterns: list[bytes]) -> list[bytes]:
    """Return patterns that compile within about a second, the shortest ones first."""
    kept, size = [], 0
    for pattern in sorted(patterns, key=lambda pattern: (len(pattern), pattern)):
        size += len(pattern)
        if size > _PATTERNS:
            break
        kept.append(pattern)
    return sorted(kept, key=lambda pattern: (-len(pattern), pattern))


class _Literals(Generic[AnyStr]):
    """Finds texts in another one, by their first characters: a regular expression of thousands of them takes minutes to
    compile."""

    def __init__(self, texts: Iterable[AnyStr]) -> None:
        self._by_start: dict[AnyStr, list[AnyStr]] = {}
        for text in sorted(texts, key=len, reverse=True):
            self._by_start.setdefault(text[:SHORT], []).append(text)

    def spans(self, content: AnyStr) -> Iterator[tuple[int, int]]:
        """Yield the places of the longest ones, from the left, of which none overlaps another."""
        if not self._by_start:
            return
        at, last, starting = 0, len(content) - SHORT, self._by_start.get
        while at <= last:
            found = starting(content[at : at + SHORT])
            size = next((len(text) for text in found if content.startswith(text, at)), 0) if found else 0
            if size:
                yield at, at + size
            at += size or 1


@dataclass(frozen=True)
class _PlainPattern:
    """Texts, and a regular expression for short values."""

    literals: _Literals[str]
    regular: re.Pattern[str] | None

    def hidden(self, text: str) -> str:
        parts, place = [], 0
        for start, end in self.literals.spans(text):
            parts += [text[place:start], "***"]
            place = end
        text = "".join([*parts, text[place:]])
        return self.regular.sub("***", text) if self.regular else text


@dataclass(frozen=True)
class _Pattern:
    literals: _Literals[bytes]
    regular: re.Pattern[bytes] | None

    def spans(self, content: bytes) -> Iterator[tuple[int, int]]:
        yield from self.literals.spans(content)
        if self.regular:
            yield from (found.span() for found in self.regular.finditer(content))


def _with_any_quotes(value: str) -> Iterator[bytes]:
    """Yield patterns that match a value with quotes in it, whatever quotes stand in their places: shells, SQL and CSV
    write several for one, and so do those that quote these."""
    raw = value.encode("utf-8", "surrogatepass")
    for text in {raw, unescaped(raw)}:
        pieces = [piece for piece in re.split(rb"['\"\\]+", text) if piece]
        if len(pieces) > 1 and len(b"".join(pieces)) >= _INNER:
            yield rb"['\"\\]++".join(map(re.escape, pieces))


@dataclass(frozen=True)
class _Patterns:
    """The patterns for the text itself, for the text with its escapes decoded, and for that without line breaks."""

    plain: _PlainPattern
    read: _Pattern
    joined: _Pattern


def _forms(value: str) -> Iterator[str]:
    lines = [line.strip() for line in value.splitlines()[:_LINES]] if "\n" in value.strip() else []
    for part in (value, value.strip(), *(line for line in lines if len(line) >= _LINE)):
        if len(part) >= SHORT:
            yield part
            yield printable(part)
    decoded = unescaped(value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    if decoded != value and SHORT <= len(decoded) <= _LONG:
        yield decoded
        yield from _escaped(decoded)
    for whole in {value, value.strip()} if len(value.strip()) >= SHORT else {value}:
        if len(whole) > _LONG:
            yield from (
                json.dumps(whole)[1:-1],
                repr(whole)[1:-1],
                quote(whole, safe="", errors="replace"),
            )
            yield base64.b64encode(whole.encode("utf-8", "surrogatepass")).decode()
            continue
        yield from _escaped(whole)
        yield from _encoded(whole.encode("utf-8", "surrogatepass"))


def _escaped(value: str) -> Iterator[str]:
    """Return the escaped text without the quotes around it. Errors that pass through several programs are quoted
    several times."""
    quoted = {
        _go(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
    }
    for _ in range(3):
        yield from quoted
        quoted = {_go(once) for once in quoted}
    shell = value
    for _ in range(3):
        shell = shlex.quote(shell)
        yield shell.removeprefix("'").removesuffix("'")
    yield value.replace("'", r"'\''")
    yield value.replace("'", "''")  # SQL, YAML
    yield value.replace('"', '""')  # CSV
    for url in (
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    ):
        yield url
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), url)


_GO = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}


def _go(value: str) -> str:
    """Quote the text like `%q` of Go, the language of container engines."""
    return "".join(_GO.get(char) or (char if char.isprintable() else _go_escape(ord(char))) for char in value)


def _go_escape(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _encoded(raw: bytes) -> Iterator[str]:
    yield raw.hex()
    yield raw.hex().upper()
    for encode, block, bits in _BASES:
        yield encode(raw).decode()
        yield encode(raw).decode().rstrip("=")
        for before in range(
            block
        ):  # `user:password` in one: what is certain whatever stands before and after
            end = 8 * (before + len(raw)) // bits
            inner = encode(bytes(before) + raw).decode()[-(-8 * before // bits) : end]
            if len(inner) >= _INNER:
                yield inner


def _small_base32(raw: bytes) -> bytes:
    return base64.b32encode(raw).lower()


#: How each writes bytes, how many of them make one block, and the bits of each of its characters.
_BASES: tuple[tuple[Callable[[bytes], bytes], int, int], ...] = (
    (base64.b64encode, 3, 6),
    (base64.urlsafe_b64encode, 3, 6),
    (base64.b32encode, 5, 5),
    (_small_base32, 5, 5),
)
