"""A secret shows nowhere but where it is revealed on purpose."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.secret import Secret, scrub
from controller.domain.text import printable


@dataclass(frozen=True)
class Holder:
    password: Secret


def test_no_way_of_printing_shows_it() -> None:
    secret = Secret("hunter2")
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r}",
        repr(Holder(secret)),
        str([secret]),
        "{}".format(secret),  # noqa: UP032 - one way more
    ]
    assert all("hunter2" not in text for text in shown)
    assert secret.reveal() == "hunter2"


def test_scrub_replaces_every_occurrence_and_the_longest_first() -> None:
    text = scrub(
        "url https://ann:hunter22@host, again hunter22 and hunter2", (Secret("hunter2"), Secret("hunter22"))
    )
    assert text == "url https://ann:***@host, again *** and ***"


def test_scrub_leaves_ordinary_words_alone() -> None:
    assert scrub("exit code 1", (Secret("1"), Secret(""), Secret("ex"))) == "exit code 1"


# --- as programs write it ---------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in UTF-8": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps(json.dumps({"error": json.dumps(value)})),
    "Python": repr,
    "a shell": shlex.quote,
    "a shell's shell": lambda value: f"sh -c {shlex.quote(f'run --key={shlex.quote(value)}')}",
    "a URL": lambda value: f"https://ann:{quote(value, safe='')}@host/",
    "a query": lambda value: f"?token={quote_plus(value)}&x=1",
    "a URL in small letters": lambda value: re.sub(
        "%..", lambda found: found[0].lower(), quote(value, safe="")
    ),
    "Base64": lambda value: base64.b64encode(value.encode()).decode(),
    "a login": lambda value: "Basic " + base64.b64encode(f"ann:{value}".encode()).decode(),
    "a longer text in Base64": lambda value: base64.b64encode(f"abc{value}de".encode()).decode(),
    "Base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "hexadecimal": lambda value: value.encode().hex(),
    "hexadecimal in capitals": lambda value: value.encode().hex().upper(),
    "hexadecimal of a packet": lambda value: value.encode().hex(":"),
    "hexadecimal of Go": lambda value: value.encode().hex(" ").upper(),
    "hexadecimal of a dump": lambda value: value.encode().hex(" ", -2),
    "numbers of C": lambda value: ", ".join(f"0x{byte:02x}" for byte in value.encode()),
    "bytes of Go": lambda value: "[" + " ".join(map(str, value.encode())) + "]",
    "bytes of Rust": lambda value: str(list(value.encode())),
    "bytes in JSON in lines": lambda value: json.dumps(json.dumps(list(value.encode()), indent=1)),
    "a dump in JSON": lambda value: json.dumps("\n".join(textwrap_of(value.encode().hex(" "), 12))),
    "quoted-printable": lambda value: quopri.encodestring(value.encode(), quotetabs=True).decode(),
    "quoted-printable in lines": lambda value: quopri.encodestring(f"{value * 9}".encode()).decode(),
    "Base32": lambda value: base64.b32encode(value.encode()).decode(),
    "a longer text in Base32": lambda value: (
        base64.b32encode(f"ab{value}c".encode()).decode().rstrip("=").lower()
    ),
    "SQL": lambda value: "'" + value.replace("'", "''") + "'",
    "CSV": lambda value: '"' + value.replace('"', '""') + '"',
    "printable": printable,
    "HTML": html.escape,
    "HTML by numbers": lambda value: "".join(f"&#{ord(char)};" for char in value),
    "XML by numbers": lambda value: "".join(f"&#x{ord(char):X};" for char in value),
    "each byte in a URL": lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
    "a URL in a URL": lambda value: quote(quote(value, safe=""), safe=""),
    "JSON in a URL": lambda value: quote(json.dumps({"error": value}), safe=""),
    "a URL in JSON in HTML": lambda value: html.escape(json.dumps({"url": quote(value, safe="")})),
    "Python's bytes": lambda value: repr(value.encode()),
    "a string of C": lambda value: "".join(f"\\x{byte:02X}" for byte in value.encode()),
    "octal": lambda value: "".join(f"\\{byte:03o}" for byte in value.encode()),
    "escaped for JavaScript": lambda value: "".join(f"\\u{{{ord(char):x}}}" for char in value),
    "JSON with capitals": lambda value: re.sub(
        r"\\u[0-9a-f]{4}", lambda found: r"\u" + found[0][2:].upper(), json.dumps(value)
    ),
    "a shell's quotes in JSON": lambda value: json.dumps(f"run --key={shlex.quote(value)}"),
    "backslashes before all": lambda value: re.sub(r"([^\w\n])", r"\\\1", value),
    "broken into lines": lambda value: "\n    ".join(textwrap_of(value, 5)),
    "JSON broken into lines": lambda value: json.dumps("\n".join(textwrap_of(value, 5))),
    "Base64 in lines": lambda value: base64.encodebytes(f"ann:{value * 9}".encode()).decode(),
    "Base64 in lines in JSON": lambda value: json.dumps(base64.encodebytes(value.encode() * 20).decode()),
    "hexadecimal in lines": lambda value: "\r\n".join(textwrap_of(value.encode().hex(), 7)),
}


#: Words in the names of those that encode: what they are given, not what that says.
NUMBERS = ("hexadecimal of", "bytes of", "numbers of", "bytes in", "a dump")
CODES = ("Base64", "Base32", "hexadecimal", "login", "quoted-printable", *NUMBERS)


def textwrap_of(text: str, width: int) -> list[str]:
    return [text[at : at + width] for at in range(0, len(text), width)]


VALUES = (
    "hunter2-horse",
    "correct-horse\0battery",
    "quotes \" and ' and `$(x)`",
    r"back\slash\n",
    "tab\tand\x07bell\x1b[0m",
    "пароль-猫\N{GRINNING FACE}",
    "line one of it\nline two of it\n",
    "user+pass/w%rd==&?#",
    "\N{ZERO WIDTH SPACE}invisible\u2028",
)


def leaves_nothing(text: str, value: str) -> None:
    """Neither the text nor four characters in a row of a form that could be turned back."""
    assert "***" in text
    for written in (value, value.strip(), json.dumps(value)[1:-1], repr(value)[1:-1], value.encode().hex()):
        assert written not in text


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("writer", WRITERS)
def test_scrub_knows_how_programs_write_a_value(writer: str, value: str) -> None:
    text = f"cannot start: {WRITERS[writer](value)} (exit code 1)"
    shown = scrub(text, (Secret(value),))
    leaves_nothing(shown, value)
    assert shown.startswith("cannot start: ")
    assert shown.endswith(" (exit code 1)")


def test_scrub_knows_how_an_engine_quotes() -> None:
    secret = Secret("correct-horse\0battery")
    text = r"""environment variable value can't contain null(\x00): "API_KEY=correct-horse\x00battery": unknown"""
    assert "horse" not in scrub(text, (secret,))
    assert "horse" not in scrub(json.dumps(text), (secret,))


@settings(deadline=None)
@given(
    st.text(min_size=6, max_size=40).filter(lambda v: len("".join(v.split())) >= 6),
    st.sampled_from(sorted(WRITERS)),
)
def test_scrub_hides_whatever_is_written(value: str, writer: str) -> None:
    shown = scrub(f"before {WRITERS[writer](value)} after", (Secret(value),))
    assert value not in shown
    assert "***" in shown


def test_scrub_hides_each_line_of_a_key() -> None:
    key = "-----BEGIN KEY-----\nc3NoLWVkMjU1MTk\n  bm90IGEga2V5IGF0\n-----END KEY-----\n"
    shown = scrub("error in line 2: bm90IGEga2V5IGF0: invalid", (Secret(key),))
    assert shown == "error in line 2: ***: invalid"


def test_scrub_hides_short_values_where_they_are_set() -> None:
    secrets = (Secret("abc"), Secret("1"))
    text = 'PIN=1 and PASSWORD="abc", https://ann:abc@host:8080/abc1 has 1 abc, exit code 1'
    assert (
        scrub(text, secrets)
        == "PIN=*** and PASSWORD=***, https://ann:***@host:8080/abc1 has 1 abc, exit code 1"
    )


def may_follow(inner: str, outer: str) -> bool:
    """Whether the outer one quotes what the inner one wrote. What encodes something quoted encodes another value."""
    if any(word in outer for word in CODES) or any(word in inner for word in ("lines", "quoted-printable")):
        return False
    return "lines" not in outer or not any(word in inner for word in NUMBERS)


PAIRS = [
    (inner, outer)
    for inner in sorted(WRITERS.keys() - {"printable"})
    for outer in sorted(WRITERS.keys() - {"printable"})
    if may_follow(inner, outer)
]


def is_hidden(value: str, written: str) -> None:
    shown = scrub(written, (Secret(value),))
    assert "***" in shown
    for undone in (shown, unquote(shown), html.unescape(shown), "".join(shown.split())):
        assert value not in undone


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "outer"), PAIRS)
def test_scrub_undoes_what_programs_do_to_one_another(inner: str, outer: str) -> None:
    for value in ("00000000", "0000000\U00010000", "quote\"s&<co>'s%20"):
        is_hidden(value, WRITERS[outer](WRITERS[inner](value)))


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Zs", "Zl", "Zp", "Cc", "Cs"]), min_size=8, max_size=40),
    st.sampled_from(PAIRS),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_scrub_finds_what_two_programs_quoted_in_any_text(
    value: str, pair: tuple[str, str], before: str, after: str
) -> None:
    inner, outer = pair
    is_hidden(value, f"{before} {WRITERS[outer](WRITERS[inner](value))} {after}")


HOSTILE = (
    *("\\" * 200_000, "%25" * 70_000, "&#" * 100_000, " \t" * 100_000, " \t\n" * 70_000, r"\\n" * 70_000),
    *("=\n" * 100_000, "= " * 100_000, "1, " * 100_000, "0x0x" * 50_000, "ab:" * 70_000, "1" * 200_000),
)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:3]))
def test_scrub_takes_time_in_proportion_to_the_text(text: str) -> None:
    """A test that hangs is interrupted: these would take hours, were they read again at each of their characters."""
    assert scrub(text, tuple(Secret(f"\\n {number} % &#hunter2") for number in range(20))) == text


def test_scrub_leaves_texts_without_the_value_as_they_are() -> None:
    secret = (Secret("hunter2-horse"),)
    for text in ("%68unter2", "a\\nb\n  c &amp; d", "hunter2\nhouse", "\ud83d \\ud83d", "50% of &it; \\q"):
        assert scrub(text, secret) == text
    assert scrub("пароль hunter2-\n   horse!", secret) == "пароль ***!"


def test_scrub_costs_no_more_than_the_values_have_characters() -> None:
    """One of 100 kB took 17 seconds and 300 MB as a regular expression. The time limit of the tests would end that."""
    long, lines = "x7-" * 33_000, "\n".join(f"line {number} of a key" for number in range(4000))
    many = tuple(Secret(f"value-{number}-of-many") for number in range(300))
    shown = scrub(
        f"a {long} b, c {json.dumps(long)} d, line 7 of a key, value-255-of-many",
        (Secret(long), Secret(lines), *many),
    )
    assert shown == 'a *** b, c "***" d, ***, ***'
