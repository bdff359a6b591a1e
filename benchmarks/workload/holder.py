"""Functions that hold the interpreter for some milliseconds: one that computes in Python, and one that only waits in C
code, which takes no processor from the load beside it."""

from __future__ import annotations

import ctypes
from typing import Any

_sleep = ctypes.PyDLL(None).usleep  # PyDLL keeps the interpreter's lock during the call


def loop(inputs: list[dict[str, Any]]) -> dict[str, int]:
    """Count in a loop, and return how far.

    :param inputs.numbers: how far
    :type inputs.numbers: INT32
    :param outputs.total: where it ended
    :type outputs.total: INT32
    """
    count = 0
    for _ in range(inputs[0]["data"][0]):
        count += 1
    return {"total": count}


def wait(inputs: list[dict[str, Any]]) -> dict[str, int]:
    """Wait in C code, and return how long.

    :param inputs.numbers: how many microseconds
    :type inputs.numbers: INT32
    :param outputs.total: the same
    :type outputs.total: INT32
    """
    _sleep(inputs[0]["data"][0])
    return {"total": inputs[0]["data"][0]}
