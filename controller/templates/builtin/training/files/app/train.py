"""The stage `train`: fits a straight line to a table with the columns x and y."""

import csv
import json
import os
import time
from pathlib import Path


def fit(points):
    """Return slope and intercept by least squares."""
    n = len(points)
    if not n:
        raise SystemExit("the table has no points")
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise SystemExit("the points need at least two different x")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope, mean_y - slope * mean_x


def main():
    with open(os.environ["UNIP_PIPELINE_TABLE"], newline="", encoding="utf-8") as table:
        points = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(table)]
    print(f"{len(points)} points", flush=True)
    slope, intercept = fit(points)
    Path(os.environ["UNIP_PROGRESS"]).write_text("1/1")
    model = {"slope": slope, "intercept": intercept, "points": len(points), "trained": int(time.time())}
    Path(os.environ["UNIP_PIPELINE_MODEL"], "model.json").write_text(json.dumps(model))
    worst = max(abs(y - slope * x - intercept) for x, y in points)
    report = f"y = {slope:.4g} x + {intercept:.4g}, off by {worst:.4g} at most\n"
    Path(os.environ["UNIP_PIPELINE_REPORT"], "report.txt").write_text(report)


if __name__ == "__main__":
    main()
