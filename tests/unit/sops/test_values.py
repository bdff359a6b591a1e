"""Values as the real program sees them: what Go's YAML library makes of a text, and which bytes count for the MAC."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.sops.values import Time, decrypted_value, encrypted_text, mac_bytes, plain_value


@pytest.mark.parametrize(
    ("text", "value", "counted"),
    [
        ("0", 0, "0"),
        ("-0", 0, "0"),
        ("+7", 7, "7"),
        ("1_000", 1000, "1000"),
        ("0x1F", 31, "31"),
        ("-0x1f", -31, "-31"),
        ("0777", 511, "511"),
        ("0o17", 15, "15"),
        ("0b101", 5, "5"),
        ("-0b101", -5, "-5"),
        ("09", 9.0, "9"),
        ("9223372036854775807", 2**63 - 1, "9223372036854775807"),
        ("-9223372036854775808", -(2**63), "-9223372036854775808"),
        ("123456789012345678901234567890", 1.2345678901234568e29, "123456789012345680000000000000"),
        ("1.0", 1.0, "1"),
        ("2.50", 2.5, "2.5"),
        (".5", 0.5, "0.5"),
        ("1e3", 1000.0, "1000"),
        ("1e22", 1e22, "10000000000000000000000"),
        ("1e-7", 1e-7, "0.0000001"),
        ("-0.0", -0.0, "-0"),
        ("1e999", "1e999", "1e999"),
        ("0x", "0x", "0x"),
        ("1.2.3", "1.2.3", "1.2.3"),
        ("-", "-", "-"),
        ("+.", "+.", "+."),
        (".", ".", "."),
        ("true", True, "True"),
        ("False", False, "False"),
        ("yes", "yes", "yes"),
        ("2001-12-14", Time("2001-12-14T00:00:00Z"), "2001-12-14T00:00:00Z"),
        ("2001-1-2", Time("2001-01-02T00:00:00Z"), "2001-01-02T00:00:00Z"),
        ("2001-02-30", "2001-02-30", "2001-02-30"),
        (
            "2001-12-14t21:59:43.10-05:00",
            Time("2001-12-14T21:59:43.1-05:00"),
            "2001-12-14T21:59:43.1-05:00",
        ),
        ("2001-12-14 21:59:43", Time("2001-12-14T21:59:43Z"), "2001-12-14T21:59:43Z"),
        ("2001-12-14T21:59:43+00:00", Time("2001-12-14T21:59:43Z"), "2001-12-14T21:59:43Z"),
        ("2001-12-14 21:59:43 -5", "2001-12-14 21:59:43 -5", "2001-12-14 21:59:43 -5"),
        ("é漢😀", "é漢😀", "é漢😀"),
    ],
)
def test_texts_without_quotes(text: str, value: object, counted: str) -> None:
    found = plain_value(text)
    assert (found, type(found)) == (value, type(value))
    assert mac_bytes(found) == counted.encode()


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_nothing(text: str) -> None:
    assert plain_value(text) is None


@pytest.mark.parametrize(
    ("content", "type", "value"),
    [
        (b"1", "int", 1),
        (b"-12", "int", -12),
        (b"2.5", "float", 2.5),
        (b"True", "bool", True),
        (b"False", "bool", False),
        ("é".encode(), "str", "é"),
        (b"raw", "bytes", "raw"),
        (b"2001-12-14T00:00:00Z", "time", Time("2001-12-14T00:00:00Z")),
    ],
)
def test_decrypted_values_have_their_types(content: bytes, type: str, value: object) -> None:
    assert decrypted_value(content, type) == value


@pytest.mark.parametrize(
    ("content", "type"),
    [(b"x", "int"), (b"x", "float"), (b"\xff", "str"), (b"x", "map"), (b"9" * 5000, "int")],
)
def test_values_that_are_none_of_their_type(content: bytes, type: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decrypted_value(content, type)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ENC[]",
        "ENC[AES256_GCM,data:,iv:AA==,tag:AA==,type:str]",
        "ENC[AES256_GCM,data:A,iv:AA==,tag:AA==,type:str]",
        "ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]x",
        " ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]",
        "ENC[AES256_CBC,data:AA==,iv:AA==,tag:AA==,type:str]",
    ],
)
def test_other_texts_are_no_encrypted_values(text: str) -> None:
    assert encrypted_text(text) is None


@given(st.text(max_size=40))
def test_any_text_has_a_value(text: str) -> None:
    value = plain_value(text)
    assert value is None or mac_bytes(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_count_without_an_exponent_and_keep_their_value(number: float) -> None:
    text = mac_bytes(number).decode()
    assert "e" not in text
    assert math.copysign(1, float(text)) == math.copysign(1, number)
    assert float(text) == number


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_whole_numbers_count_as_they_are_written(number: int) -> None:
    assert plain_value(str(number)) == number
    assert mac_bytes(number) == str(number).encode()
