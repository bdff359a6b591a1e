"""Copies of the serving library, one folder for each content, which containers mount read-only.

An upgrade of prichal makes a new folder beside the old one; what runs keeps the code it was started with. Called by
`engine` at the first start of a workload that is served by the platform.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.resources
import shutil
import tempfile
from pathlib import Path
from py_compile import PycInvalidationMode

from controller.adapters.sealing import seal
from controller.domain.apps.mounts import OURS

#: The folder of the library with native code for its usual interpreters; see `scripts/serving-wheels`.
KEPT = "orjson"
#: Where containers see the copy; its parent is in their PYTHONPATH.
MOUNT = f"{OURS}/prichal_serving"


def package_folder() -> Path:
    """Return the folder of the installed serving library."""
    return Path(str(importlib.resources.files("controller.serving")))


def stage_serving(source: Path, target: Path) -> Path:
    """Copy the Python files of `source`, and what is kept for interpreters beside them, to
    `target/<hash of their content>` unless they are there; that folder.

    Atomic: the folder appears complete or not at all, also when two processes do it at once. Everybody may read it,
    whatever the umask: processes in containers run under users of their own.
    """
    files = sorted(path for path in source.rglob("*.py") if "__pycache__" not in path.parts)
    if not files:
        raise FileNotFoundError(f"no serving library in {source}: prichal is not installed completely")
    files += sorted(path for path in (source / KEPT).glob("*") if path.is_file())
    folder = target / _digest(source, files)
    if folder.is_dir():
        return folder
    target.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target))
    try:
        _copy(source, files, draft)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, and its content is the same
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _digest(source: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _copy(source: Path, files: list[Path], draft: Path) -> None:
    for path in files:
        copy = draft / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    # Containers cannot write bytecode into a read-only mount. Ours serves images with the same Python version, which
    # saves a third of the library's import time; others compile as they would anyway. "Unchecked": the folder's name
    # is the content's hash.
    compileall.compile_dir(draft, ddir=MOUNT, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    seal(draft)
