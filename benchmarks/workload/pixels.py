"""Takes a picture and gives back its first number, or all of it: the server takes all of the time."""

from __future__ import annotations

from typing import Any


def predict(inputs: list[dict[str, Any]], output_fields: list[dict[str, Any]]) -> dict[str, Any]:
    """Give back numbers.

    :param inputs.image: the numbers of a picture
    :type inputs.image: FP32
    :param outputs.image: all of them
    :type outputs.image: FP32, optional
    :param outputs.first: the first of them
    :type outputs.first: FP32, optional
    """
    data, wanted = inputs[0]["data"], output_fields[0]["name"]
    return {wanted: data if wanted == "image" else data[0]}


def predict_arrays(inputs: list[dict[str, Any]], output_fields: list[dict[str, Any]]) -> dict[str, Any]:
    return predict(inputs, output_fields)


predict_arrays.__doc__ = f"{predict.__doc__}\n    :type inputs: arrays\n"
