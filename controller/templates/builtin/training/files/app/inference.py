"""Serves the model that the pipeline has published last."""

import json
from pathlib import Path


def load(path):
    return json.loads(Path(path).read_text())


def predict(inputs, model):
    """Predict y.

    :param inputs.x: the places of which y is wanted
    :type inputs.x: FP32
    :param outputs.y: what the line says there
    :type outputs.y: FP32
    :param outputs.points: from how many points the model was made
    :type outputs.points: INT32
    """
    places = next(item["data"] for item in inputs if item["name"] == "x")
    return {"y": [model["slope"] * x + model["intercept"] for x in places], "points": model["points"]}
