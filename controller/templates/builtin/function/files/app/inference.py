"""Counts the words of a text. Replace `load` and `predict` by your own."""

import re


def load(path):
    """Return what `predict` gets as `model`: called once, before the first request."""
    return re.compile(r"\w+")


def predict(inputs, model):
    """Count the words of a text.

    :param inputs.text: the text
    :type inputs.text: str
    :param outputs.words: how many words it has
    :type outputs.words: INT32
    :param outputs.longest: the longest of them
    :type outputs.longest: str
    """
    text = next(item["data"] for item in inputs if item["name"] == "text")
    words = model.findall(text)
    return {"words": len(words), "longest": max(words, key=len, default="")}
