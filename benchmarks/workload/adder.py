"""The function of every measurement: it is so small that the server takes all of the time."""

from __future__ import annotations

import os
from typing import Any

OFFSET = int(os.environ.get("OFFSET", "0"))  # tells one version's answers from another's


def predict(inputs: list[dict[str, Any]]) -> dict[str, int]:
    """Add numbers.

    :param inputs.numbers: what is to be added
    :type inputs.numbers: INT32
    :param outputs.total: their sum
    :type outputs.total: INT32
    """
    return {"total": sum(inputs[0]["data"]) + OFFSET}
