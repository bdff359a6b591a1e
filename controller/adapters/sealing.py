"""Seals folders for containers before they are renamed to the name of their content. Used by `models` and
`docker.serving`.
"""

from __future__ import annotations

from pathlib import Path

from controller.atomic import flush


def seal(draft: Path) -> None:
    """Make a folder readable for all users and write it to the disk before the rename: after a power cut it
    must not exist with empty files.
    """
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        flush(path)
