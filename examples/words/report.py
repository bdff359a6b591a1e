"""Writes down the most frequent words: the second stage."""

import json
import os
from collections import Counter
from pathlib import Path

counts = Counter(json.loads(Path(os.environ["UNIP_PIPELINE_COUNTS"], "counts.json").read_text()))
number = json.loads(Path(os.environ["UNIP_PIPELINE_TOP"]).read_text())
with Path(os.environ["UNIP_PIPELINE_REPORT"], "report.txt").open("w") as report:
    for word, count in counts.most_common(number):
        print(f"{count} {word}", file=report)
print("written", flush=True)
