"""The model: a network with one hidden layer, as plain numbers in a file.

No pickle: who may write to the box must not be able to run code where the model is served. It needs numpy alone, so the
service starts without scikit-learn.
"""

import numpy as np

INK = 16.0  # the darkest pixel


def save(path, classifier, about):
    """What a trained MLPClassifier has learned, and a line about it."""
    (hidden_weights, weights), (hidden_bias, bias) = classifier.coefs_, classifier.intercepts_
    np.savez(
        path, about=about, hidden_weights=hidden_weights, hidden_bias=hidden_bias, weights=weights, bias=bias
    )


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def probabilities(model, images):
    """For each image (64 pixels from 0 to 16) how likely it is each of the ten digits."""
    pixels = np.asarray(images, dtype=float).reshape(-1, 64) / INK
    hidden = np.maximum(pixels @ model["hidden_weights"] + model["hidden_bias"], 0)
    scores = hidden @ model["weights"] + model["bias"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
