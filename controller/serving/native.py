"""Finds orjson: the image's own, or the one that is kept beside this library for the usual interpreters.

The kept ones are extension modules in the folder ``orjson`` of this package, one for each version of Python, processor
and libc, each named after them. They were written there when the platform was installed, pinned by hash, and are
mounted read-only with the rest. One is loaded from its file under a private name: ``import orjson`` in the developer's
code finds what the image has, or nothing, as without us. Whatever does not fit or does not work is as good as none.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, Optional

KEPT = Path(__file__).with_name("orjson")
SUMS = "sha256sums.txt"
_PROBE = b'{"a": [1.5, -2, null, true, "\xc3\xa9"]}'
_PROBED = {"a": [1.5, -2, None, True, "\u00e9"]}


class JsonCodec(NamedTuple):
    """``module`` is orjson or None, ``origin`` one of ORIGINS, ``reason`` why the kept one is not used, if one was
    tried."""

    module: Any
    origin: str
    reason: str = ""


#: Where the code that reads and writes large JSON is from: Python's standard library, the image, this folder.
ORIGINS = ("python", "image", "kept")


def find(kept: Path = KEPT) -> JsonCodec:
    """The image's orjson goes before a kept one: its developer may have chosen it."""
    try:
        return JsonCodec(_tried(importlib.import_module("orjson")), "image")
    except Exception:  # noqa: BLE001, S110 -- a broken or very old one is as good as none, and so is a folder
        pass
    name = tag()
    path = kept / f"{name}.so"
    if not name or not path.is_file():
        return JsonCodec(None, "python")
    try:
        _check(path)
        return JsonCodec(_loaded(path.resolve()), "kept")
    except Exception as error:  # noqa: BLE001 -- whatever the loader of native code says
        return JsonCodec(None, "python", f"{path.name}: {type(error).__name__}: {error}")


def tag() -> str:
    """The name of what fits this interpreter, such as ``cp311-x86_64-gnu``; empty for kinds that have none."""
    plain = getattr(sys, "abiflags", "") == "" and sys.maxsize > 2**32
    if sys.implementation.name != "cpython" or not plain:
        return ""
    major, minor = sys.version_info[:2]
    return f"cp{major}{minor}-{os.uname().machine}-{_libc()}"


def _libc() -> str:
    try:
        version: Optional[str] = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    return "gnu" if version and version.startswith("glibc") else "musl"


def _check(path: Path) -> None:
    """Compare a file with the list of its folder: one that is cut off would end the process."""
    wanted = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    if wanted not in (path.parent / SUMS).read_text().splitlines():
        raise ImportError("it is not the file that was installed")


@functools.cache
def _loaded(path: Path) -> Any:
    """Load and try an extension module. It does not go into sys.modules, where others could find it. It is loaded once,
    since a second one of the same file would share its variables with the first one."""
    name = f"{__package__}.{path.parent.name}"  # the last part names the function that makes the module
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"no spec for {path}")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return _tried(module)


def _tried(module: Any) -> Any:
    written = module.dumps(_PROBED, option=module.OPT_SERIALIZE_NUMPY)
    if module.loads(_PROBE) != _PROBED or module.loads(written) != _PROBED:
        raise ImportError("it does not read and write a sample as it should")
    return module
