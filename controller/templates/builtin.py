"""The templates that come with prichal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.templates import TemplateFile, render, values_of
from controller.templates.description import LoadedTemplate, load_template

#: In the order in which they are shown.
NAMES: Final = ("function", "pipeline", "training", "files", "server")
_PASSED_OVER = frozenset({"__pycache__"})


@cache
def builtin() -> dict[str, LoadedTemplate]:
    """Return the templates by name."""
    root = resources.files("controller.templates").joinpath("builtin")
    return {name: load_template(name, _files(root.joinpath(name))) for name in NAMES}


def _files(folder: Traversable, prefix: str = "") -> Iterator[TemplateFile]:
    for item in sorted(folder.iterdir(), key=lambda each: each.name):
        path = f"{prefix}{item.name}"
        if item.is_dir() and item.name not in _PASSED_OVER:
            yield from _files(item, f"{path}/")
        elif item.is_file():
            yield TemplateFile(path, item.read_bytes())


def made(loaded: LoadedTemplate, app: str, given: dict[str, str]) -> tuple[TemplateFile, ...]:
    """Return the files of a new app. Raises Stalled `TemplateValues` with all problems of the values."""
    values, problems = values_of(loaded.template, given)
    if problems:
        raise Stalled(Reason.TEMPLATE_VALUES, "; ".join(problems))
    return render(loaded.files, app, values)


def write_files(folder: Path, files: tuple[TemplateFile, ...]) -> None:
    """Write the files of a new app into a folder that is made for them, or is empty. Raises Stalled
    `OutputExists`; what is there is never overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Stalled(Reason.OUTPUT_EXISTS, f"{folder} is not empty: choose a folder that is not there yet")
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o777 if file.executable else 0o666  # less what the umask takes
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(file.content)
