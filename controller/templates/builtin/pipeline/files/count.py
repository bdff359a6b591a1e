"""Counts the words of a text: the first stage."""

import json
import os
import re
from collections import Counter
from pathlib import Path

lines = Path(os.environ["UNIP_PIPELINE_TEXT"]).read_text(encoding="utf-8").splitlines()
progress = Path(os.environ["UNIP_PROGRESS"])
counts = Counter()
for number, line in enumerate(lines, 1):
    counts.update(re.findall(r"\w+", line.lower()))
    progress.write_text(f"{number}/{len(lines)}")
print(f"{counts.total()} words, {len(counts)} different", flush=True)
Path(os.environ["UNIP_PIPELINE_COUNTS"], "counts.json").write_text(json.dumps(counts))
