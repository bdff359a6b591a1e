"""Stage `name` of the pipeline: names each colour of a table (CSV with the columns red, green, blue)."""

import csv
import os
import sys
from pathlib import Path

from app.inference import load, predict


def main():
    source, folder = os.environ["UNIP_PIPELINE_TABLE"], Path(os.environ["UNIP_PIPELINE_NAMED"])
    with open(source, newline="") as file:
        rows = list(csv.DictReader(file))
    palette = load(None)
    with (folder / "named.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["red", "green", "blue", "color"])
        for number, row in enumerate(rows, 1):
            rgb = numbers(row, number)
            named = predict([{"name": "rgb", "data": rgb}], palette)["color"]
            out.writerow([*rgb, named])
            print(*rgb, named, flush=True)
            Path(os.environ["UNIP_PROGRESS"]).write_text(f"{number}/{len(rows)}")


def numbers(row, number):
    try:
        return [int(row[column]) for column in ("red", "green", "blue")]
    except (KeyError, TypeError, ValueError):
        sys.exit(f"row {number} has no whole numbers red, green and blue: {row}")


if __name__ == "__main__":
    main()
