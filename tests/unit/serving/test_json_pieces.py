"""Texts that are read in pieces, by Python's own code and by orjson, give what the whole text gives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import json_pieces, jsontext
from tests.unit.serving.kept import kept_orjson

PAD = b" " * jsontext.LARGE  # makes a text large


@pytest.fixture(autouse=True, scope="module")
def short_pieces() -> Iterator[None]:
    """So that short texts have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "LARGE", 32)
        patch.setattr(json_pieces, "PIECE", 16)
        patch.setattr(jsontext, "LARGE", 64)
        yield


def outcome(read: Callable[[], Any]) -> str:
    """A value with its types, or how it is refused."""
    try:
        return repr(read())
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def agree(body: bytes) -> str:
    """What all ways of reading find."""
    expected = outcome(lambda: jsontext.read(body.decode("utf-8")))
    for codec in (None, kept_orjson()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsontext, "_orjson", codec)
            assert outcome(lambda: jsontext.read_bytes(body)) == expected, (codec, body[:500])
            assert outcome(lambda: jsontext.read_bytes(bytearray(body))) == expected
    return expected


TOKENS = [
    "0", "-0", "0.0", "-0.0", "1", "7.0", "0.1", "1e5", "1E-7", "5e-324", "1e400", "-1e400", "3.4e38", "1e22", "01",
    "1.", ".5", "+1", "-", "--1", "1e", "0x1", "NaN", "Infinity", "-Infinity", "nan", "true", "false", "null", "True",
    "", str(2**53 + 1), str(2**63 - 1), str(2**63), str(2**64 - 1), str(2**64), str(-(2**63)), str(-(2**63) - 1),
    str(2**70), "9" * 400, "1" * 4301, "0." + "1" * 40, "12345678901234567890.5", "12345678901234567890e3", "[1]", "{}",
    '{"a": 1}', '"a"', '"\\ud800"', '"\\ud83d\\ude00"', '"]"', '"["', "\u00e9", " ", "\n", ",", "[", "]", "}", "{", '"',
    "/**/", "\0",
]  # fmt: skip
arrays = st.lists(st.sampled_from(TOKENS) | st.floats().map(json.dumps) | st.integers().map(str), max_size=30)


@pytest.mark.slow
@given(arrays, arrays, st.sampled_from([", ", ",", " ,\n\t"]), st.sampled_from(["image", "data", "\u00e9"]))
def test_any_arrays(first: list[str], second: list[str], comma: str, name: str) -> None:
    one, two = (comma.join(tokens) for tokens in (first, second))
    agree(f'{{"{name}": [{one}], "data": [{two}], "more": [[{one}], {{"data": [{two}]}}]}}'.encode() + PAD)
    agree(f"[{one}]".encode() + PAD)


GOOD = [str(number / 8) for number in range(100)]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("place", [0, 1, 50, 99])
def test_one_odd_token_in_a_long_array(token: str, place: int) -> None:
    tokens = [*GOOD[:place], token, *GOOD[place + 1 :]]
    agree(f'{{"inputs": [{{"name": "x", "data": [{", ".join(tokens)}], "shape": [100]}}]}}'.encode())


NUMBERS = ", ".join(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"data": [{NUMBERS}], "data": [{NUMBERS}]}}',
        f'{{"data": [{NUMBERS}], "data": 1}}',
        f'{{"a": {{"data": [{NUMBERS}]}}, "a": {{}}}}',
        f'{{"text": "[{NUMBERS}]", "data": [{NUMBERS}]}}',
        f'{{"text": "a [{NUMBERS}',
        f'{{"[{NUMBERS}]": 1}}',
        f'{{"text": "\\\\[{NUMBERS}]\\\\"}}',
        f"[{NUMBERS}", f"{NUMBERS}]", f"[[{NUMBERS}]", f"[{NUMBERS}]]", f"[{NUMBERS},]", f"[,{NUMBERS}]",
        f"[{NUMBERS}, ]", f"[{NUMBERS}] x", f"x [{NUMBERS}]", f"[{NUMBERS}] [{NUMBERS}]", f"[{NUMBERS},,{NUMBERS}]",
        f"[{NUMBERS} {NUMBERS}]", f"[{NUMBERS}}}", f"[[{NUMBERS}], [{NUMBERS}], [], [1]]", "[" + " " * 200 + "]",
        "[" + "1" * 200 + "]", "[" + ", " * 200 + "]", "[" * 101 + NUMBERS + "]" * 101, "[" * 100 + NUMBERS + "]" * 100,
        "[" * 50 + NUMBERS + "]" * 50, f"[[{NUMBERS}]{', []' * 200}]", '{"a":' * 101 + f"[{NUMBERS}]" + "}" * 101,
        "[" * 100_000, f'{{"x": {2**64}, "data": [{NUMBERS}]}}', f'{{"x": {2.0**70}, "data": [{NUMBERS}]}}',
        f'{{"x": [{2**64}], "data": [{NUMBERS}]}}', "\ufeff" + f"[{NUMBERS}]", f"[{NUMBERS}]" + "\0",
    ],
)  # fmt: skip
def test_texts_of_all_shapes(text: str) -> None:
    agree(text.encode())


@pytest.mark.parametrize("place", range(0, 600, 37))
def test_what_is_not_utf_8(place: int) -> None:
    text = f'{{"text": "\u00e9", "data": [{NUMBERS}]}}'.encode()
    seen = agree(text[:place] + b"\xff" + text[place:])
    assert seen.startswith("UnicodeDecodeError") is (place <= len(text))


@given(st.binary(max_size=6), st.integers(0, 700))
def test_any_bytes_within_an_array(odd: bytes, place: int) -> None:
    text = f'{{"data": [{NUMBERS}], "shape": [100]}}'.encode()
    agree(text[:place] + odd + text[place:])


def test_a_caller_who_writes_placeholders() -> None:
    """Only one who knew the number could have a list replaced."""
    chance = random.Random(7)
    rows = [[chance.getrandbits(62), index] for index in range(20)]
    assert agree(json.dumps({"rows": rows, "data": list(range(100))}).encode()) == repr(
        {"rows": rows, "data": list(range(100))}
    )


def arrays_in(text: bytes) -> list[tuple[int, int]]:
    found = json_pieces.places(text, len(text), b"[", b"{")
    assert found is not None
    return json_pieces.arrays(text, *found)


def test_few_signs() -> None:
    assert json_pieces.places(b"[[{[", 4, b"[", b"{") == [[0, 1, 3], [2]]
    assert json_pieces.places(b"[[{[", 3, b"[", b"{") is None
    assert json_pieces.places(b"", 0, b"[", b"{") == [[], []]


def test_where_large_arrays_are() -> None:
    text = (
        f'{{"a": [{NUMBERS}], "b": [[1, 2], [{NUMBERS}]], "c": "[{NUMBERS}]", "d": ["{NUMBERS}"]}}'.encode()
    )
    found = [text[start:end].decode() for start, end in arrays_in(text)]
    assert found == [NUMBERS] * 3  # one of them is a text, which only a reader of the text knows


@pytest.mark.parametrize(
    "text", [b"[" * 250_000, b"[1]" * 80_000, b"[" + b'"' * 250_000, b"[1," * 80_000, b"{[" * 120_000]
)
def test_to_look_for_arrays_takes_linear_time(text: bytes) -> None:
    assert arrays_in(text) == []


@pytest.mark.parametrize("count", [100, 2**14, 2**15, 2**15 + 1, 100_000, 2**18 + 7])
@pytest.mark.parametrize("odd", [0.5, None, float("nan"), 2**70])
def test_numbers_are_written_alike_in_pieces(count: int, odd: Any) -> None:
    numbers = [index / 8 for index in range(count)]
    numbers[count // 2] = odd
    expected = json.dumps(
        [None if odd != odd and index == count // 2 else n for index, n in enumerate(numbers)]
    )
    for codec in (None, kept_orjson()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsontext, "_orjson", codec)
            written = b"".join(jsontext.encode_in_pieces(numbers))
            assert json.loads(written) == json.loads(expected)


@pytest.mark.parametrize("more", [0, 1, 7, 9_999])
def test_what_is_left_behind_the_last_whole_piece_is_written_by_the_same_encoder(more: int) -> None:
    """Python's own takes twenty times as long, and writes this number with a plus sign."""
    codec = kept_orjson()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "_orjson", codec)
        numbers = [1e16] * (3 * jsontext.LIST_STEP + more)
        assert b"".join(jsontext.encode_in_pieces(numbers)) == codec.dumps(numbers)
