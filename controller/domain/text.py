"""Text from outside, made safe to show and to store.

File names, branch names and messages come as bytes that need not be UTF-8, and JSON and YAML can spell halves
of characters. Python carries both as lone surrogates, which no file, database or terminal accepts.
`printable` is what all texts for people pass: errors, problems, conditions and events call it when they are
created."""

from __future__ import annotations

import codecs
import re

_COLOURS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
#: The beginning of one at the end of a text, not longer than any in use.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]{0,30}[ -/]{0,2}|\][^\x07\x1b]{0,30})?\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
#: Characters of Unicode that show nothing and turn, join or mark the text around them: a name may hide them and look
#: like another one. Those of the category Cf that can be seen, such as Arabic number signs, are not among them.
_INVISIBLE = (
    "\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
#: Letters of scripts that are written with joiners, and emoji, which are made of several by them.
_JOINED = "\u0620-\u0dff\u1000-\u109f\u1780-\u17ff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_BEFORE_JOINER = re.compile(f"[{_JOINED}]")
#: Control characters except for tab and newline, separators of lines, invisible characters, surrogates, and joiners
#: where they join nothing.
UNPRINTABLE = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_INVISIBLE}\ud800-\udfff]|(?<![{_JOINED}])[\u200c\u200d]"
)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` in valid UTF-8 that a terminal can show: a byte that was not UTF-8 becomes `\\xe9`, a control
    character `\\x00`, half of a character `\\ud83d`, an invisible one `\\u200b`; colours of terminals are left out.
    The function is idempotent."""
    if text.isprintable():
        return text
    clean = UNPRINTABLE.sub(_escape, paired(_COLOURS.sub("", text)).replace("\r\n", "\n"))
    return text if clean == text else clean  # a message (localizable.py) stays one


def shown(text: str) -> str:
    """Return `text` as `printable` does, for output of containers: `\\r`, by which a progress bar returns to
    the start of its line, stays."""
    return text if text.isprintable() else "\r".join(map(printable, text.split("\r")))


class Shown:
    """Converts the output of a container, in pieces that end anywhere, as `shown` does. Escape sequences and
    characters that are split between pieces are joined, and so are emoji that are made of several."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._rest = ""
        self._last = ""  # the character before, if a joiner may follow it

    def take(self, piece: bytes, last: bool = False) -> str:
        """`last`: nothing comes after this piece."""
        text = self._rest + self._decoder.decode(piece, last)
        cut = None if last else _BEGUN.search(text)
        self._rest = cut[0] if cut else ""
        before = self._last
        clean = shown(before + (text.removesuffix(self._rest) if self._rest else text))
        self._last = clean[-1:] if _BEFORE_JOINER.match(clean[-1:]) else ""
        return clean[len(before) :]


def paired(text: str) -> str:
    """Join surrogate pairs, as JSON escapes contain them."""
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


def excerpt(text: str, limit: int) -> str:
    """Return `text`, or beginning and end of a longer one, since programs report an error at the end."""
    if len(text) <= limit:
        return text
    left_out = f"\n[{len(text) - limit} characters left out]\n"
    return f"{text[: limit // 2]}{left_out}{text[len(text) - (limit - limit // 2) :]}"


_LEFT_OUT = re.compile(r"\n\[\d+ characters left out\]\n")


def is_excerpt(kept: str, text: str) -> bool:
    """Return True if `kept` is `text` or an excerpt of it."""
    if kept == text:
        return True
    begin, *rest = _LEFT_OUT.split(kept)
    return bool(rest) and text.startswith(begin) and text.endswith(rest[-1])


#: Characters of a message in events, conditions and so on, because output of builds and registries has no limit.
MAX_MESSAGE = 16_384


def bounded(text: str) -> str:
    """Return the text, safe to show and at most that long."""
    return excerpt(printable(excerpt(text, 4 * MAX_MESSAGE)), MAX_MESSAGE)


def matches_glob(pattern: str, text: str) -> bool:
    """Return True if `*` (anything) and `?` (any character) of the pattern fit the whole text. Takes at most
    the product of both lengths, where a regular expression would try all ways in which the stars could share
    the text."""
    place = star = kept = 0
    starred = False
    for_pattern = len(pattern)
    number = 0
    while place < len(text):
        if number < for_pattern and pattern[number] == "*":
            starred, star, kept = True, number, place
            number += 1
        elif number < for_pattern and pattern[number] in ("?", text[place]):
            number += 1
            place += 1
        elif starred:  # only the last star need take more: what came before it fits as early as it can
            kept += 1
            number, place = star + 1, kept
        else:
            return False
    return pattern[number:].strip("*") == ""


def is_storable(text: str) -> bool:
    """Return True if UTF-8 and the C strings of operating systems can hold it: no lone surrogate, no NUL."""
    return (text.isascii() and "\0" not in text) or not _UNSTORABLE.search(text)


def storable(text: str) -> str:
    """Return `text` with U+FFFD in place of each character that is not storable. It is safe for JSON text,
    too, in which such characters occur only within strings."""
    return text if is_storable(text) else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # what Python makes of a byte that is not UTF-8
        code -= 0xDC00
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
