"""Stage `train`: teaches a network to read digits and leaves it in the folder of the variable `model`."""

import json
import os
from pathlib import Path

from sklearn.neural_network import MLPClassifier

from app import data, network

EPOCHS, HIDDEN = 30, 64


def main():
    epochs, hidden = parameter("epochs", EPOCHS), parameter("hidden", HIDDEN)
    (images, digits), _ = data.split()
    print(f"{len(images)} images, {hidden} neurons, {epochs} epochs", flush=True)

    classifier = MLPClassifier((hidden,), learning_rate_init=0.003, random_state=0)
    for epoch in range(1, epochs + 1):
        classifier.partial_fit(images / network.INK, digits, classes=range(10))
        print(f"epoch {epoch}: loss {classifier.loss_:.4f}", flush=True)
        Path(os.environ["UNIP_PROGRESS"]).write_text(f"{epoch}/{epochs}")

    about = f"{hidden} neurons, {epochs} epochs"
    network.save(Path(os.environ["UNIP_PIPELINE_MODEL"], "model.npz"), classifier, about)


def parameter(name, default):
    """What the caller passed: a value arrives as a JSON file, and not at all if it was left out."""
    path = os.environ.get(f"UNIP_PIPELINE_{name.upper()}")
    value = json.loads(Path(path).read_text()) if path else default
    if value < 1:
        raise SystemExit(f"{name} must be 1 or more, not {value}")
    return value


if __name__ == "__main__":
    main()
