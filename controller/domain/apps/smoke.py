"""Smoke tests: a request that a new version must answer as expected before it gets traffic. Pure: what files say, and
whether an answer is what was expected.

Nothing that a container answers is trusted: it is read up to a limit, compared in linear time, and shown in part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controller.domain.apps.spec import PlatformServer, SmokeTest
from controller.domain.localizable import Localizable
from controller.domain.text import printable
from controller.domain.units import about_size

#: Bytes of a file of a smoke test, and of an answer that is compared.
MAX_FILE = 1_000_000
_SHOWN = 120  # characters of a value, and of the path of a difference
FILES_FIELD = "X-Prichal-Files"

Json = object


class SmokeTestInvalid(Exception):
    """A file of the test cannot be used; the text says which and why."""


@dataclass(frozen=True)
class SmokeCase:
    """A smoke test with the content of its files. `expected` is None if every answer with 200 will do."""

    test: SmokeTest
    request: bytes = field(repr=False)
    expected: bytes | None = field(repr=False)

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for content in (self.request, self.expected or b""):
            digest.update(b"%d\0" % len(content) + content)
        return digest.hexdigest()

    def headers(self, server: object) -> Mapping[str, str]:
        """Return the header fields of the request. The serving library sends files of a reply behind it then."""
        fields = {"Content-Type": "application/json"}
        if isinstance(server, PlatformServer):
            fields[FILES_FIELD] = str(len(self.request))
        return fields


@dataclass(frozen=True)
class SmokeAnswer:
    """What a workload answered. `failure` says why there is no answer. `body` has up to a byte more than `MAX_FILE`."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    failure: str = ""


def case_of(test: SmokeTest, request: bytes, expected: bytes | None) -> SmokeCase:
    """Check the files of a test. Raises SmokeTestInvalid."""
    for file in _files_in(_read(request, test.input)):
        raise SmokeTestInvalid(
            Localizable(
                "{input}: {file} is a FILE, and a smoke test has no caller with files",
                input=test.input,
                file=file,
            )
        )
    if expected is not None:
        _read(expected, test.output or "")
    return SmokeCase(test, request, expected)


def too_large(path: str, size: int) -> SmokeTestInvalid:
    return SmokeTestInvalid(
        Localizable(
            "{path} has {size} bytes, {max_file} are allowed", path=path, size=size, max_file=MAX_FILE
        )
    )


def _read(content: bytes, path: str) -> Json:
    if len(content) > MAX_FILE:
        raise too_large(path, len(content))
    try:
        return parsed(content)
    except ValueError as error:
        raise SmokeTestInvalid(Localizable("{path} is not JSON: {error}", path=path, error=error)) from error


def parsed(content: bytes) -> Json:
    """Return a value from JSON. Raises ValueError."""
    try:
        value: Json = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(Localizable("it is not UTF-8 (byte {start})", start=error.start)) from error
    except RecursionError:
        raise ValueError(Localizable("it is nested too deeply")) from None
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(Localizable("{name} is not JSON", name=name))


def _files_in(request: Json) -> Iterator[str]:
    inputs = request.get("inputs") if isinstance(request, dict) else None
    for index, item in enumerate(inputs if isinstance(inputs, list) else []):
        if isinstance(item, dict) and item.get("datatype") == "FILE":
            yield f"/inputs/{index}"


# --- the verdict ------------------------------------------------------------------------------------------------


def verdict(case: SmokeCase, answer: SmokeAnswer) -> str:
    """Return why the answer is not the expected one; empty if it is."""
    path = case.test.path
    if answer.failure:
        return Localizable("{path} gave no answer: {failure}", path=path, failure=answer.failure)
    if answer.status != 200:
        return Localizable(
            "{path} answered {status}{body}", path=path, status=answer.status, body=_words(answer.body)
        )
    if case.expected is None:
        return ""
    if len(answer.body) > MAX_FILE:
        return Localizable(
            "{path} answered more than {max_file}, which is not compared",
            path=path,
            max_file=about_size(MAX_FILE),
        )
    try:
        found = parsed(answer.body)
    except ValueError as error:
        return Localizable("{path} answered what is not JSON: {error}", path=path, error=error)
    return difference(parsed(case.expected), found, case.test.shape_only, case.test.tolerance)


def _words(body: bytes) -> str:
    """Return what a problem, or an error of OpenAI's API, says."""
    try:
        found = parsed(body)
    except ValueError:
        return ""
    detail = found.get("detail") or found.get("error") if isinstance(found, dict) else None
    if isinstance(detail, dict):
        detail = detail.get("message")
    return f": {_cut(printable(detail), 1000)}" if isinstance(detail, str) else ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A part of a JSON value. Its path is joined only for a message: joining the paths of all parts would take
    quadratic time for long names."""

    outer: _Place | None
    token: str


_Pairs = Iterator[tuple[_Place | None, Json, Json]]


def difference(expected: Json, found: Json, shape_only: bool = False, tolerance: float = 0.0) -> str:
    """Return the first difference with its path; empty if there is none. Numbers may differ by `tolerance`, relative to
    the expected one if that is beyond 1. `shape_only`: members, lengths and types are compared, and no values."""
    levels: list[_Pairs] = [iter([(None, expected, found)])]
    while levels:
        pair = next(levels[-1], None)
        if pair is None:
            levels.pop()
            continue
        place, wanted, given = pair
        if isinstance(wanted, dict) and isinstance(given, dict):
            if wrong := _wrong_members(place, wanted, given):
                return wrong
            levels.append(_members(place, wanted, given))
        elif isinstance(wanted, list) and isinstance(given, list):
            if len(wanted) != len(given):
                return _differs(place, Localizable("{count} elements", count=len(wanted)), f"{len(given)}")
            levels.append(_elements(place, wanted, given))
        elif _kind(wanted) != _kind(given) or not (shape_only or _equal(wanted, given, tolerance)):
            return _differs(place, _shown(wanted), _shown(given))
    return ""


def _members(place: _Place | None, wanted: dict[str, Json], given: dict[str, Json]) -> _Pairs:
    return ((_Place(place, name), value, given[name]) for name, value in wanted.items())


def _elements(place: _Place | None, wanted: list[Json], given: list[Json]) -> _Pairs:
    pairs = enumerate(zip(wanted, given, strict=True))
    return ((_Place(place, str(index)), one, other) for index, (one, other) in pairs)


def _wrong_members(place: _Place | None, wanted: dict[str, Json], given: dict[str, Json]) -> str:
    for name in wanted:
        if name not in given:
            return _differs(_Place(place, name), _shown(wanted[name]), "nothing")
    for name in given:
        if name not in wanted:
            return _differs(_Place(place, name), "nothing", _shown(given[name]))
    return ""


def _kind(value: Json) -> str:
    """Return the type as JSON has it: a number is a number with a fraction or without."""
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def _equal(wanted: Json, given: Json, tolerance: float) -> bool:
    if wanted == given or not tolerance or _kind(wanted) != "number":
        return wanted == given
    assert isinstance(wanted, (int, float))
    assert isinstance(given, (int, float))
    try:
        return abs(wanted - given) <= tolerance * max(1.0, abs(wanted))
    except OverflowError:  # integers beyond all floating-point numbers
        return False


def _differs(place: _Place | None, wanted: str, given: str) -> str:
    tokens: list[str] = []
    while place is not None:
        tokens.append(place.token.replace("~", "~0").replace("/", "~1"))
        place = place.outer
    path = "".join(f"/{token}" for token in reversed(tokens))
    return Localizable(
        "{place}: expected {wanted}, found {given}",
        place=_cut(printable(path), _SHOWN) or Localizable("the answer"),
        wanted=wanted,
        given=given,
    )


def _shown(value: Json) -> str:
    if isinstance(value, (dict, list)):
        noun = Localizable("an object") if isinstance(value, dict) else Localizable("an array")
        return Localizable("{noun} of {count}", noun=noun, count=len(value))
    return _cut(printable(json.dumps(value, ensure_ascii=False)), _SHOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
