"""How much of a disk is free. Used by all that leave a reserve of it alone (`runs.minFree`)."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_percent(folder: Path) -> float:
    """Return the free percentage of the disk that contains the folder, as for users other than root."""
    usage = shutil.disk_usage(folder)
    return 100.0 * usage.free / usage.total
