"""JSON by the standard library as it was before the developers' code, which may replace functions, classes and methods
of ``json``: for answers of our own, and as the base of ``jsontext``.

What the library imports later takes it from here."""

from __future__ import annotations

from json import JSONDecoder, JSONEncoder
from typing import Any, Callable, Optional


class Encoder(JSONEncoder):
    __init__ = JSONEncoder.__init__
    default = JSONEncoder.default
    encode = JSONEncoder.encode
    iterencode = JSONEncoder.iterencode


class Decoder(JSONDecoder):
    __init__ = JSONDecoder.__init__
    decode = JSONDecoder.decode
    raw_decode = JSONDecoder.raw_decode


_plain = Decoder()


def dumps(
    value: Any,
    *,
    ensure_ascii: bool = True,
    allow_nan: bool = True,
    indent: Optional[int] = None,
    default: Optional[Callable[[Any], Any]] = None,
) -> str:
    """Like ``json.dumps``."""
    options = {"ensure_ascii": ensure_ascii, "allow_nan": allow_nan, "indent": indent, "default": default}
    text: str = Encoder(**options).encode(value)
    return text


def loads(text: bytes) -> Any:
    """Return the value of a text in UTF-8. Raises ValueError."""
    return _plain.decode(text.decode())
