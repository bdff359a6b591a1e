"""A build context on its way from Git, or from a folder, to the engine: spooled to disk, with `.dockerignore` applied.

The classic builder expects its client to leave out what `.dockerignore` names. Pure but for the files it is given.
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterable
from pathlib import Path
from posixpath import normpath
from tempfile import TemporaryFile
from typing import IO, Any

from docker.utils.build import PatternMatcher, tar


def spool(context: Iterable[bytes], target: IO[bytes], dockerfile: str) -> None:
    """Write the tar stream `context` to `target`, without the ignored members, and rewind it.

    On disk, since `.dockerignore` may come after what it excludes and a context may be larger than memory."""
    for chunk in context:
        target.write(chunk)
    target.seek(0)
    patterns = _patterns(target)
    target.seek(0)
    if not patterns:
        return
    with TemporaryFile() as kept:
        _filter(target, kept, PatternMatcher([*patterns, f"!{normpath(dockerfile)}"]))
        kept.seek(0)
        target.seek(0)
        target.truncate()
        while chunk := kept.read(1 << 20):
            target.write(chunk)
    target.seek(0)


def of_folder(folder: Path, dockerfile: str) -> Generator[bytes]:
    """The tar stream of what lies there now: what is ignored is not even read. OSError."""
    ignoring = folder / ".dockerignore"
    patterns = _patterns_in(ignoring.read_bytes()) if ignoring.is_file() else []
    with TemporaryFile() as spool:
        tar(folder, patterns, (normpath(dockerfile), None), spool)
        while chunk := spool.read(1 << 20):
            yield chunk


def _patterns(archive: IO[bytes]) -> list[str]:
    with tarfile.open(fileobj=archive, mode="r:") as found:
        member = next((m for m in found if normpath(m.name) == ".dockerignore"), None)
        content = found.extractfile(member) if member else None
        return _patterns_in(content.read()) if content else []


def _patterns_in(content: bytes) -> list[str]:
    """Lines of a `.dockerignore`, without comments."""
    lines = content.decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _filter(source: IO[bytes], target: IO[bytes], ignored: PatternMatcher) -> None:
    """Folders are left out too; the engine makes those that a kept file needs."""
    with tarfile.open(fileobj=source, mode="r:") as tar, tarfile.open(fileobj=target, mode="w") as out:
        for member in tar:
            path: Any = normpath(member.name)  # declared as PathLike, read as text
            if not ignored.matches(path):
                out.addfile(member, tar.extractfile(member) if member.isfile() else None)
