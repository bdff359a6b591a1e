"""A function with a fixed cost a call, as one has that hands its inputs to an accelerator: 2 ms, and 0.1 ms an item."""

from __future__ import annotations

import time
from typing import Any

FIXED, EACH = 0.002, 0.0001  # seconds


def squares(numbers: list[int]) -> list[int]:
    time.sleep(FIXED + EACH * len(numbers))
    return [number * number for number in numbers]


def predict(inputs: list[list[dict[str, Any]]]) -> list[dict[str, int]]:
    """Square numbers.

    :param inputs.number: a number
    :type inputs.number: INT32
    :param outputs.square: its square
    :type outputs.square: INT32
    """
    return [{"square": square} for square in squares([call[0]["data"][0] for call in inputs])]


def predict_one(inputs: list[dict[str, Any]]) -> dict[str, int]:
    (result,) = predict([inputs])
    return result


predict_one.__doc__ = predict.__doc__
