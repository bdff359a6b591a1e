"""What the stages of a run have made, taken along into a folder of the person who started it.

The same files that the platform would publish, by the same rules. Called by `life`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import Stalled
from controller.domain.runs import Run, RunState
from controller.domain.units import about_size
from controller.runner.folders import Folders, remove_tree
from controller.runner.outputs import files_of


@dataclass(frozen=True)
class Result:
    """`folder` holds a variable of a stage that has succeeded."""

    variable: str
    folder: Path
    files: int
    size: int  # bytes

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.variable}: {self.folder}/ ({files}, {about_size(self.size)})"


def refuse_taken(output: Path, variables: Iterable[str]) -> None:
    """Stalled `OutputExists` if the run would have to replace something."""
    taken = [str(output / name) for name in sorted(variables) if _taken(output / name)]
    if taken:
        raise Stalled(
            "OutputExists", f"there is already {', '.join(taken)}: remove it, or give --force or --output"
        )


def _taken(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists() or place.is_symlink()


def take_along(run: Run, folders: Folders, output: Path) -> tuple[Result, ...]:
    """Each variable complete or not at all, in place of what is there. Stalled `OutputInvalid` for what could not be
    published, `LocalFileUnusable`."""
    done = [stage for stage in run.pipeline.stages if run.stage(stage.name).state is RunState.SUCCEEDED]
    try:
        output.mkdir(parents=True, exist_ok=True)
        return tuple(
            _taken_along(folders.output(stage.name, len(run.stage(stage.name).attempts), name), output / name)
            for stage in done
            for name in stage.outputs
        )
    except OSError as error:
        raise Stalled("LocalFileUnusable", f"cannot write the outputs: {error}") from error


def _taken_along(source: Path, target: Path) -> Result:
    draft = target.with_name(f".{target.name}.part")
    remove_tree(draft)
    files = size = 0
    for found in files_of(source):
        place = draft / found.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.path, place)
        files, size = files + 1, size + found.size
    remove_tree(target)
    draft.rename(target)
    return Result(target.name, target, files, size)
