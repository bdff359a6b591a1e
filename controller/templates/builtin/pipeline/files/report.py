"""Writes the most frequent words: the second stage."""

import json
import os
from pathlib import Path

counts = json.loads(Path(os.environ["UNIP_PIPELINE_COUNTS"], "counts.json").read_text())
top = int(json.loads(Path(os.environ["UNIP_PIPELINE_TOP"]).read_text()))
ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
lines = [f"{word:<20} {number:>6}" for word, number in ranked]
Path(os.environ["UNIP_PIPELINE_REPORT"], "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
