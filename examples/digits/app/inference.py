"""Reads a digit with the model that the pipeline has published last."""

from app import network


def load(path):
    return network.load(path)


def predict(inputs, model):
    """Read a handwritten digit.

    :param inputs.image: 8x8 pixels, row by row, from 0 (paper) to 16 (ink)
    :type inputs.image: INT32 or FP32
    :param outputs.digit: the digit it most likely is
    :type outputs.digit: INT32
    :param outputs.probabilities: how likely it is a 0, a 1, ... a 9
    :type outputs.probabilities: FP32
    :param outputs.model: which model has read it
    :type outputs.model: str
    """
    (image,) = (item["data"] for item in inputs if item["name"] == "image")
    if len(image) != 64:
        raise ValueError(f"an image has 64 pixels, not {len(image)}")
    (likely,) = network.probabilities(model, image)
    return {"digit": int(likely.argmax()), "probabilities": likely.round(4), "model": str(model["about"])}
