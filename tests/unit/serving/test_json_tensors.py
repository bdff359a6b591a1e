"""Numbers of JSON that go straight into arrays are those that would have gone through a list, and what is refused is
refused with the same words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving import json_pieces, jsontext
from controller.serving.datatypes import FP16_MAX, FP32_MAX, NUMBERS, Datatype
from controller.serving.json_tensors import TAKEN, TensorSink
from controller.serving.tensors import BinaryTensor, as_array
from controller.serving.validate import element_faults
from tests.unit.serving.kept import kept_orjson

NUMERIC = [datatype for datatype in Datatype if datatype.numeric]
CODECS = [None, kept_orjson()]


@pytest.fixture(autouse=True, scope="module")
def short_pieces() -> Iterator[None]:
    """So that short texts have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pieces, "LARGE", 32)
        patch.setattr(json_pieces, "PIECE", 16)
        patch.setattr(jsontext, "LARGE", 64)
        yield


def read(text: str, datatype: Datatype, codec: Any, directly: bool) -> Any:
    """What is read of an array: its dtype and bytes, or the words about what is wrong with it."""

    def sinks(value: Any) -> dict[int, json_pieces.NumberSink]:
        taken = datatype in TAKEN and type(value["data"]) is list
        return {id(value["data"]): TensorSink(np, value, datatype)} if taken else {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "_orjson", codec)
        body = f'{{"data": [{text}], "more": "{" " * 64}"}}'.encode()
        try:
            value = jsontext.read_bytes(body, sinks if directly else None)
        except ValueError as error:
            return str(error)
    data = value["data"]
    if type(data) is not BinaryTensor and (faults := element_faults(data, "", datatype)):
        return faults
    array = as_array(np, datatype, data, None)
    assert array.flags.writeable
    return array.dtype, array.tobytes(), type(data) is BinaryTensor


def agree(text: str, datatype: Datatype) -> bool:
    """Compare both ways; True if the array was made without a list."""
    direct: Any = None
    for codec in CODECS:
        listed, direct = (read(text, datatype, codec, directly) for directly in (False, True))
        if type(listed) is tuple:
            assert direct[:2] == listed[:2], (codec, text)
        else:
            assert direct == listed, (codec, text)
    return type(direct) is tuple and direct[2]


TOKENS = [
    "0", "-0", "0.0", "-0.0", "7.0", "7e0", "0.1", "1e5", "1E-7", "5e-324", "1e400", "-1e400", "1e22", "01", "1.", "-",
    "true", "false", "null", "", "NaN", "[1]", '"1"', "255", "256", "-129", "-1", "65536",
    "65520", "16777217.0", str(2**24 + 1), str(2**31), str(2**32), str(2**53 + 1), str(2**63 - 1), str(2**63),
    str(2**64 - 1), str(2**64), str(-(2**63)), str(-(2**63) - 1), str(-(2**63) - 2**11),
    "9" * 400, "1" * 4301, repr(FP32_MAX), repr(2 * FP32_MAX), "3.4028235677973366e38", repr(FP16_MAX),
    "1.00000005960464477540", "0." + "1" * 40,
]  # fmt: skip
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(json.dumps),
    st.integers(-300, 70_000).map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=20)
    .map(str)
    .filter(lambda text: "E" not in text),
)


@given(st.lists(numbers, min_size=1, max_size=20), st.sampled_from(NUMERIC), st.sampled_from([",", " ,\n"]))
def test_any_numbers(tokens: list[str], datatype: Datatype, comma: str) -> None:
    agree(comma.join(tokens), datatype)


@pytest.mark.parametrize("token", TOKENS)
def test_one_odd_token(token: str) -> None:
    for usual in ("0.5", "3"):
        for place in (0, 7, 30):
            tokens = [usual] * 31
            tokens[place] = token
            for datatype in NUMERIC:
                agree(", ".join(tokens), datatype)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_which_numbers_need_no_list(datatype: Datatype) -> None:
    assert agree(", ".join(["3"] * 31), datatype) is (datatype in TAKEN)
    assert agree(", ".join(["0.5"] * 31), datatype) is (datatype in TAKEN and not datatype.whole)
    highest = [str(int(NUMBERS[datatype].high))] * 31  # a limit itself
    assert agree(", ".join(highest), datatype) is (datatype in TAKEN)


def halves(make: Callable[[float], float]) -> list[str]:
    """Texts at, just below and just above the middle between two neighbouring numbers."""
    chance = random.Random(7)
    found = []
    for _ in range(200):
        low = make(chance.random())
        middle = (low + float(np.nextafter(np.float32(low), np.float32(2)))) / 2
        found += [f"{middle:.40f}", f"{middle:.40f}1", repr(float(np.nextafter(middle, 0)))]
    return found


def test_numbers_are_rounded_as_numpy_rounds_those_of_a_list() -> None:
    assert agree(", ".join(halves(lambda number: float(np.float32(number)))), Datatype.FP32)


def test_an_array_that_cannot_be_taken_stays_a_list() -> None:
    assert read("1, 2, 300, " * 20 + "4", Datatype.UINT8, CODECS[0], True)[0].pointer == "/data/2"
