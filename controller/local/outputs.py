"""The outputs of a run's stages, copied into a folder of the person who started it.

These are the files that the platform would publish, by the same rules. Called by `run`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import mount_path
from controller.domain.runs.run import Run, RunState
from controller.domain.units import about_size
from controller.file_trees import remove_tree
from controller.runner.contents import OutputContents
from controller.runner.folders import RunFolders


@dataclass(frozen=True)
class Result:
    """`folder` contains a variable of a stage that has succeeded."""

    variable: str
    folder: Path
    files: int
    size: int  # bytes

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.variable}: {self.folder}/ ({files}, {about_size(self.size)})"


def refuse_taken(output: Path, variables: Iterable[str]) -> None:
    """Raise Stalled `OutputExists` if the run would replace something."""
    taken = [str(output / name) for name in sorted(variables) if _taken(output / name)]
    if taken:
        raise Stalled(
            Reason.OUTPUT_EXISTS,
            f"{', '.join(taken)} exists already: remove it, or give --force or another --output-dir",
        )


def _taken(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists() or place.is_symlink()


def collect_outputs(run: Run, folders: RunFolders, output: Path) -> tuple[Result, ...]:
    """Copy each variable atomically, replacing what is there. Raises Stalled `OutputInvalid` for files that
    could not be published, and `LocalFileUnusable`.
    """
    done = [stage for stage in run.pipeline.stages if run.stage(stage.name).state is RunState.SUCCEEDED]
    try:
        output.mkdir(parents=True, exist_ok=True)
        return tuple(
            _taken_along(_contents(run, folders, stage.name, name), output / name)
            for stage in done
            for name in stage.outputs
        )
    except OSError as error:
        raise Stalled(Reason.LOCAL_FILE_UNUSABLE, f"cannot write the outputs: {error}") from error


def _contents(run: Run, folders: RunFolders, stage: str, name: str) -> OutputContents:
    folder = folders.output(stage, len(run.stage(stage).attempts), name)
    return OutputContents(folder, mount_path(run.pipeline.var(name)))


def _taken_along(source: OutputContents, target: Path) -> Result:
    draft = target.with_name(f".{target.name}.part")
    remove_tree(draft)
    files = size = 0
    for found in source.files():
        place = draft / found.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(source.open(found.place), "rb") as content, place.open("xb") as copy:
            shutil.copyfileobj(content, copy)
        files, size = files + 1, size + found.size
    remove_tree(target)
    draft.rename(target)
    return Result(target.name, target, files, size)
