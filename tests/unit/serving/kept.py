"""The orjson that is kept beside the serving library, and the library without it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.serving import native
from tests.unit.serving.server import LIBRARY

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def kept_folder() -> Path:
    """The folder, which `scripts/setup` fills. Skips the test if the package index could not be reached."""
    subprocess.run([ROOT / "scripts" / "serving-wheels"], check=True)
    if not native.KEPT.is_dir():
        pytest.skip("there is no orjson beside the serving library: the package index cannot be reached")
    return native.KEPT


def kept_orjson() -> Any:
    """The one for this interpreter, as the serving library loads it."""
    return native._loaded(kept_folder() / f"{native.tag()}.so")


def library_without(folder: Path) -> None:
    """Let the server in this folder have no kept orjson."""
    left_out = shutil.ignore_patterns("orjson", "__pycache__")
    shutil.copytree(LIBRARY, folder / "mount" / "prichal_serving", ignore=left_out)
