"""Sends a build context to the classic builder: spooled to disk, with a Dockerfile that labels each image.

The builder creates an image for each step. Those of an interrupted build stay, and only a label shows whose
they are: the first step after each `FROM` sets it, and all that follow inherit it. The labelled Dockerfile is
sent next to the context and hidden from the build by the `.dockerignore`, which the builder applies to these
two files.
"""

from __future__ import annotations

import os
import re
import tarfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from docker.utils.build import create_archive

from controller.adapters import dockerignore
from controller.adapters.docker.dockerfile import instructions
from controller.adapters.dockerignore import IgnoreRules, Matched
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.ports import BuildContext

#: The name under which the labelled Dockerfile is sent.
DOCKERFILE = ".prichal.Dockerfile"
_ERROR_LINE = re.compile(r"(?<=\bline )\d+")


def spool(context: BuildContext, dockerfile: bytes, target: IO[bytes]) -> None:
    """Write the tar stream for the engine to `target` and rewind it. `dockerfile` is the one that is used."""
    hidden = [DOCKERFILE] if context.dockerignore is not None else [DOCKERFILE, dockerignore.NAME]
    ignoring = b"\n".join([context.dockerignore or b"", *(name.encode() for name in hidden), b""])
    for name, content in ((DOCKERFILE, dockerfile), (dockerignore.NAME, ignoring.removeprefix(b"\n"))):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        target.write(member.tobuf())
        target.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
    for chunk in context.files:
        target.write(chunk)
    target.seek(0)


# --- labels -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """`added` has the numbers, from 1, of lines that are not the developer's."""

    content: bytes
    added: tuple[int, ...]

    def translated(self, text: str) -> str:
        """Translate line numbers in an error of the builder to those of the developer's Dockerfile."""

        def original(match: re.Match[str]) -> str:
            number = int(match[0]) if len(match[0]) < 10 else 0
            return str(number - bisect_left(self.added, number)) if number else match[0]

        return _ERROR_LINE.sub(original, text)


def labelled(dockerfile: bytes, values: Mapping[str, str]) -> Labelled:
    """Return the Dockerfile with a `LABEL` after each `FROM`, whose image may have labels, and after each
    `LABEL`, since the last one counts.
    """
    label = "LABEL " + " ".join(f'{key}="{value}"' for key, value in values.items())
    found, _ = instructions(dockerfile)
    behind = {one.last for one in found if one.keyword in ("FROM", "LABEL")}
    lines: list[bytes] = []
    added: list[int] = []
    for number, line in enumerate(dockerfile.split(b"\n"), start=1):
        lines.append(line)
        if number in behind:
            lines.append(label.encode())
            added.append(len(lines))
    return Labelled(b"\n".join(lines), tuple(added))


# --- a folder ---------------------------------------------------------------------------------------------------


def of_folder(folder: Path, dockerfile: str) -> BuildContext:
    """Return the context as it is now; ignored files are not even read. Raises OSError, and Stalled
    `BuildFailed` without a Dockerfile.
    """

    def read(path: str) -> bytes | None:
        return (folder / path).read_bytes() if (folder / path).is_file() else None

    content = read(dockerfile)
    if content is None:
        raise Stalled(
            Reason.BUILD_FAILED, Localizable("there is no Dockerfile {path}", path=folder / dockerfile)
        )
    rules = dockerignore.rules_for(read, dockerfile)
    hidden = {dockerignore.NAME, *(name for name in (dockerfile,) if rules.leaves_out(name))}
    shown = None if rules.leaves_out(dockerignore.NAME) else read(dockerignore.NAME)
    found = _walk(folder, rules.sparing(dockerignore.NAME, dockerfile))
    return BuildContext(content, shown, _tar(folder, sorted(path for path in found if path not in hidden)))


def _walk(folder: Path, rules: IgnoreRules) -> Iterator[str]:
    waiting: list[tuple[str, Matched]] = [("", ())]
    while waiting:
        prefix, above = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                ignored, matched = rules.judge(path, above)
                if entry.is_dir(follow_symlinks=False) and (not ignored or rules.enters(path)):
                    waiting.append((f"{path}/", matched))
                if not ignored:
                    yield path


def _tar(folder: Path, paths: list[str]) -> Iterator[bytes]:
    with TemporaryFile() as archive:
        create_archive(str(folder), paths, fileobj=archive)
        while chunk := archive.read(1 << 20):
            yield chunk
