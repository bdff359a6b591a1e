"""Stage `report` of the pipeline: counts the names and draws bars."""

import csv
import os
from collections import Counter
from pathlib import Path


def main():
    source = Path(os.environ["UNIP_PIPELINE_NAMED"], "named.csv")
    with source.open(newline="") as file:
        counts = Counter(row["color"] for row in csv.DictReader(file))
    lines = [f"{name:<8} {count:>3} {'#' * count}" for name, count in counts.most_common()]
    Path(os.environ["UNIP_PIPELINE_REPORT"], "report.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(counts)} different names")


if __name__ == "__main__":
    main()
