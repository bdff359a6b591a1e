"""The manifest of a published group: `.manifest.json`, which lists the group's files and is written last. Pure.

    {"run": "19c0…", "stage": "fit", "attempt": 1, "files": [{"name": "a/x.bin", "size": 5, "sha256": "…"}]}

While a group is being replaced, `"complete": false` stands in place of the files. Written by the runner; read by
whoever must not take half of a group for the whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

MANIFEST = ".manifest.json"


def manifest_head(run: str, stage: str, attempt: int) -> str:
    """Who has made it: the beginning of a manifest, to be gone on with a member and closed with `}`."""
    return json.dumps({"run": run, "stage": stage, "attempt": attempt})[:-1]


def unfinished(head: str) -> str:
    """The manifest of a group that is being written."""
    return f'{head}, "complete": false}}\n'


def listed(content: bytes) -> Mapping[str, int] | None:
    """Sizes (bytes) of the files of the group by name, None if it is being written. ValueError: no such manifest, but
    a file that somebody calls so."""
    try:
        found = json.loads(content)
        if isinstance(found["run"], str) and found.get("complete") is False:
            return None
        return {str(file["name"]): int(file["size"]) for file in found["files"]}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not the manifest of a group") from error
