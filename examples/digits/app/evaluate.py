"""Stage `evaluate`: tries the model on images that it has not seen. A bad one fails the run, and is never published."""

import json
import os
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix

from app import data, network

MIN_ACCURACY = float(os.environ.get("MIN_ACCURACY", "0.9"))


def main():
    model = network.load(Path(os.environ["UNIP_PIPELINE_MODEL"], "model.npz"))
    _, (images, digits) = data.split()
    read = np.argmax(network.probabilities(model, images), axis=1)
    accuracy = float(accuracy_score(digits, read))
    print(f"{accuracy:.1%} of {len(images)} images read right", flush=True)

    report = {
        "model": str(model["about"]),
        "images": len(images),
        "accuracy": round(accuracy, 4),
        "confusion": confusion_matrix(digits, read).tolist(),  # a row per digit, a column per answer
    }
    Path(os.environ["UNIP_PIPELINE_REPORT"], "report.json").write_text(json.dumps(report, indent=1))
    if accuracy < MIN_ACCURACY:
        raise SystemExit(f"not good enough: at least {MIN_ACCURACY:.0%} are wanted")


if __name__ == "__main__":
    main()
