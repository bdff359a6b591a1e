"""Files that Secrets name: dotenv, JSON, YAML and binary ones, in plain and as the real program has encrypted them."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.sops import FileFormat, SopsError, format_of, open_file
from controller.sops.files import MAX_FILE
from tests.support.sops_files import FIXTURES, encrypted_document, recorded_keys

KEYS = recorded_keys()


def recorded(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "found"),
    [("a.env", "dotenv"), (".env", "dotenv"), ("a.json", "json"), ("a.yml", "yaml"), ("a.env.x", "binary")],
)
def test_the_name_says_which(name: str, found: str) -> None:
    assert format_of(name) == found


def test_dotenv() -> None:
    opened = open_file("values.env", recorded("values.env"), KEYS)
    values = {key: node.value for key, node in opened.fields}
    assert values == {"A": "1", "B": "two words", "C": "multi\nline", "D": "", "E": "'q'", "F": "a=b"}
    assert opened.text == "A=1\nB=two words\nC=multi\\nline\nD=\nE='q'\nF=a=b\n"
    assert opened.was_encrypted
    assert opened.is_decrypted


def test_json() -> None:
    opened = open_file("values.json", recorded("values.json"), KEYS)
    assert json.loads(opened.text) == {
        "a": 1,
        "b": 2.5,
        "c": "x",
        "d": [1, "two", {"e": None, "f": True}],
        "big": 12345678901234567e3,
        "z": "😀 é",
        "": "empty",
        "n": 1000,
        "m": 0,
        "l": 1,
    }
    assert opened.was_encrypted


def test_binary() -> None:
    opened = open_file("client.key", recorded("client.key"), KEYS)
    assert opened.text == "-----BEGIN KEY-----\nhorse é\n-----END KEY-----\n"
    assert (opened.format, opened.fields, opened.was_encrypted) == (FileFormat.BINARY, (), True)


def test_yaml() -> None:
    opened = open_file("kinds.yaml", recorded("kinds.yaml"), KEYS)
    assert opened.text.startswith("int: 1\nfloat: 2.5\n")
    assert "\n---\nsecond:" in opened.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.env", "A=1\n"),
        ("a.json", '{"A": "1"}'),
        ("a.yaml", "A: '1'\n"),
        ("a.txt", "A"),
        ("a.txt", '{"sops"'),
    ],
)
def test_plain_files_are_read_as_they_are(name: str, text: str) -> None:
    opened = open_file(name, text.encode(), KEYS)
    assert opened.text == text
    assert not opened.was_encrypted


def test_half_of_a_file_is_not_encrypted() -> None:
    text = encrypted_document({"stringData": {"A": "x"}, "OTHER": "plain"}, KEYS)
    assert not open_file("a.json", text.encode(), KEYS).was_encrypted


@pytest.mark.parametrize("name", ["values.env", "values.json", "client.key"])
def test_without_keys(name: str) -> None:
    opened = open_file(name, recorded(name), None)
    assert not opened.is_decrypted
    assert "horse" not in opened.text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.env", b"A=1\nB\n", "the line is not KEY=value"),
        ("a.env", b"A=1\nA=2\n", "is there twice"),
        ("a.env", b"=1\n", "the line is not KEY=value"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b'{"A": NaN}', "is not valid JSON"),
        ("a.json", b'{"A": 1, "A": 2}', "is there twice"),
        ("a.json", b"[" * 100_000, "nested deeper"),
        ("a.json", b"[" * 40 + b"]" * 40, "nested deeper"),
        ("a.json", b'{"A": 1e999}', "too large"),
        ("a.yaml", b"a: [", "is not valid YAML"),
        ("a.ini", b"[a]\nb=1\n", "INI files are not supported"),
        ("a.bin", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("a.bin", b"x" * (MAX_FILE + 1), "is larger than 1 MiB"),
        ("a.bin", b"x" * 10 * 2**20, "is larger than 1 MiB"),
        ("a.bin", b'{"sops": {}}', "the MAC is missing"),
        ("a.env", b"A=1\nsops_mac=x\n", "the MAC is missing"),
    ],
)
def test_what_cannot_be_read(name: str, content: bytes, told: str) -> None:
    with pytest.raises(SopsError, match=told):
        open_file(name, content, KEYS)


@pytest.mark.parametrize("name", ["values.env", "values.json", "client.key"])
def test_a_changed_byte_never_gives_other_values(name: str) -> None:
    """Each position in turn: refused, or the same content, as where a comment or the version was changed."""
    content = recorded(name)
    right = open_file(name, content, KEYS).text
    for position in range(0, len(content), 31):
        changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        with suppress(SopsError):
            found = open_file(name, changed, KEYS)
            assert not found.was_encrypted or found.text == right, position


@given(st.sampled_from(["a.env", "a.json", "a.yaml", "a.bin"]), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name: str, content: bytes) -> None:
    with suppress(SopsError):
        open_file(name, content, KEYS)
