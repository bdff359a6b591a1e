r"""Decodes the escapes in a text, and maps each decoded piece to its place in the text.

Programs escape what they quote, in several layers: an engine quotes a value, a client the engine's answer,
JSON the whole. `readings` undoes that up to `LEVELS` times: `%2F`, `\x2f`, `\u002f`, `\57`, `&#47;`, `\"`, in
any mixture; and what was broken into lines is read as one, too. So is what spells bytes as numbers, `68:75`
or `104, 117`, and what is quoted-printable, `=3D`. Everything is bytes here, since escapes may spell halves
of characters. Each reading costs time in proportion to the text. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from html.entities import html5

LEVELS = 6
_ESCAPE = re.compile(
    rb"%[0-9A-Fa-f]{2}"
    rb"|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
    rb"|\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|U[0-9A-Fa-f]{8}|[0-7]{1,3}|[abefnrtv\W_])"
    rb"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,6});"
    # Halves of a character that were decoded one after the other, because a line break stood in one of them.
    rb"|\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]"
)
#: Of quoted-printable texts, with the breaks of their lines.
_EQUALS = re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]*+\r?\n)")
_HEX, _DECIMAL = rb"(?:0[xX])?[0-9A-Fa-f]{2}", rb"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: A byte as a number, with what separates it from the next one: a plus sign, too, which is a blank in a query.
_PAIR = re.compile(rb"%s(?:[\s:,;._+-]{1,4}(?=%s))?" % (_HEX, _HEX))
_NUMBER = re.compile(rb"(?<![\w.])%s(?![\w.])(?:[\s,;+]{1,4}(?=[0-9]))?" % _DECIMAL)
#: Four bytes or more in a row, before which it is not worth while to look at each number.
_PAIRS = re.compile(rb"%s([\s:,;._+-]{1,4})(?:0[xX]|[0-9A-Fa-f]{2}|\1){3,}%s" % (_HEX, _HEX))
_NUMBERS = re.compile(rb"%s([\s,;+]{1,4})%s\1%s\1%s" % (_DECIMAL, _DECIMAL, _DECIMAL, _DECIMAL))
_SIMPLE = dict(zip(b"abefnrtv", b"\a\b\x1b\f\n\r\t\v", strict=True))
_BREAK = re.compile(rb"(?<![ \t])[ \t]*+(?:\r?\n[ \t]*+)+")


class UnescapedText:
    """`content`, made of another reading (of the text itself, at the bottom) by replacing some of its parts.
    `joined`: without line breaks and the blanks around them."""

    joined = False

    def __init__(
        self, content: bytes, below: UnescapedText | None = None, parts: _Parts | None = None
    ) -> None:
        self.content = content
        self._below = below
        self._parts = parts

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Bytes of the text that a piece of the content was made of."""
        if self._below is None or self._parts is None:
            return start, end
        return self._below.span(self._parts.begin(start), self._parts.end(end - 1))


class _Parts:
    """Maps each position in decoded content to the position in its source."""

    def __init__(self) -> None:
        self._made: list[int] = []
        self._origins: list[int] = []
        self._widths: list[int] = []  # of what was replaced; 0: taken as it is

    def add(self, made: int, origin: int, width: int) -> None:
        self._made.append(made)
        self._origins.append(origin)
        self._widths.append(width)

    def begin(self, place: int) -> int:
        at = bisect_right(self._made, place) - 1
        return self._origins[at] + (0 if self._widths[at] else place - self._made[at])

    def end(self, place: int) -> int:
        at = bisect_right(self._made, place) - 1
        return self._origins[at] + (self._widths[at] or place - self._made[at] + 1)


def readings(text: bytes) -> Iterator[UnescapedText]:
    """Yield the text itself and its decoded readings, also of other encodings of bytes; then the same without
    line breaks."""
    for join in (False, True):
        reading: UnescapedText | None = UnescapedText(text)
        for _ in range(LEVELS):
            if reading is None:
                break
            if join:
                reading = _read(reading, _BREAK, lambda found: b"") or reading
                reading.joined = True
            yield reading
            if not join:  # line breaks are part of these
                yield from _decoded(reading)
            reading = _read(reading, _ESCAPE, _undone)


def unescaped(text: bytes) -> bytes:
    """Return the text without any escapes, which is its meaning if it was quoted once or several times; its
    content may look like escapes, too, as `100%25` does."""
    reading: UnescapedText | None = UnescapedText(text)
    content = text
    for _ in range(LEVELS):
        if reading is None:
            break
        content = reading.content
        reading = _read(reading, _ESCAPE, _undone)
    return content


def _decoded(reading: UnescapedText) -> Iterator[UnescapedText]:
    """Apart from each other and from escapes: `KEY=ab` need not be quoted-printable, nor `face` hexadecimal."""
    for worth, pattern, undone in (
        (_EQUALS, _EQUALS, lambda found: bytes.fromhex(found[1:].strip().decode())),
        (_PAIRS, _PAIR, lambda found: bytes.fromhex(found[2 * (found[1:2] in b"xX") :][:2].decode())),
        (_NUMBERS, _NUMBER, lambda found: bytes([int(re.split(rb"\D", found, maxsplit=1)[0])])),
    ):
        if worth.search(reading.content):
            yield _read(reading, pattern, undone) or reading


def _read(
    below: UnescapedText, pattern: re.Pattern[bytes], undone: Callable[[bytes], bytes]
) -> UnescapedText | None:
    """Return None if there is nothing to replace."""
    content, parts, origin = bytearray(), _Parts(), 0
    for found in pattern.finditer(below.content):
        if found.start() > origin:
            parts.add(len(content), origin, 0)
            content += below.content[origin : found.start()]
        if made := undone(found[0]):
            parts.add(len(content), found.start(), found.end() - found.start())
            content += made
        origin = found.end()
    if not origin:
        return None
    parts.add(len(content), origin, 0)
    content += below.content[origin:]
    return UnescapedText(bytes(content), below, parts)


def _undone(escape: bytes) -> bytes:
    """Return the decoded character, or the text itself if it is not an escape."""
    if escape[:1] == b"%":
        return bytes([int(escape[1:], 16)])
    if escape[:1] == b"\xed":
        return _joined(escape.decode("utf-8", "surrogatepass"))
    if escape[:2] == b"&#":
        digits = escape[2:-1]
        return _character(int(digits[1:], 16) if digits[:1] in b"xX" else int(digits)) or escape
    if escape[:1] == b"&":
        return html5[name].encode() if (name := escape[1:].decode()) in html5 else escape
    kind = escape[1]
    if kind in _SIMPLE and len(escape) == 2:
        return bytes([_SIMPLE[kind]])
    if kind == ord("x"):
        return bytes([int(escape[2:], 16)])
    if kind in b"uU":
        return _characters(escape)
    if kind in b"01234567":
        return bytes([int(escape[1:], 8) & 0xFF])
    return b"" if escape == b"\\\n" else escape[1:]


def _characters(escape: bytes) -> bytes:
    halves = [int(half.strip(b"{}"), 16) for half in re.split(rb"\\[uU]", escape) if half]
    if len(halves) == 1:
        return _character(halves[0]) or escape
    return _joined("".join(map(chr, halves)))


def _joined(halves: str) -> bytes:
    return halves.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def _character(code: int) -> bytes:
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else b""
