"""Names the colour nearest to an RGB value: a module as small as can be, with a model, a loader and a set-up."""

import json
import os
from pathlib import Path

PALETTE = Path(__file__).with_name("palette.json")
THRESHOLD = float(os.environ.get("THRESHOLD", "120"))


def load(path):
    """The palette, name -> [r, g, b]. `path` is the model's file when a model box is connected."""
    return json.loads(Path(path or PALETTE).read_text())


def predict(inputs, model):
    """Name a colour.

    :param inputs.rgb: red, green and blue, 0..255
    :type inputs.rgb: INT32
    :param inputs.language: language of the answer; only "en" is known
    :type inputs.language: str, optional
    :param outputs.color: name of the nearest colour, "unknown" if none is near
    :type outputs.color: str
    :param outputs.distance: Euclidean distance to it in RGB space
    :type outputs.distance: FP32
    """
    red, green, blue = next(i["data"] for i in inputs if i["name"] == "rgb")
    distances = {
        name: ((red - r) ** 2 + (green - g) ** 2 + (blue - b) ** 2) ** 0.5
        for name, (r, g, b) in model.items()
    }
    name = min(distances, key=distances.get)
    distance = distances[name]
    return {"color": name if distance <= THRESHOLD else "unknown", "distance": distance}
