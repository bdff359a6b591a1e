"""The inputs that a person passes to a run: files and folders of this machine, and values. Called by `run`.
Everything is validated before anything starts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.domain.apps.spec import ApiVariable
from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import RunInput
from controller.domain.units import about_size
from controller.local.manifest import DeclaredPipeline
from controller.manifests.reader import nearest
from controller.serving.datatypes import Datatype, fits

#: The datatypes tried, in this order, if the API of the pipeline does not name any.
_VALUES = ("str", "dict", "INT32", "FP64", "FP32")


@dataclass(frozen=True)
class GivenInputs:
    """One parsed `--input`. `as_json` means that it was written with `:=`."""

    name: str
    text: str
    as_json: bool = False

    @classmethod
    def parse(cls, argument: str) -> GivenInputs:
        """Parse `NAME=PATH`, `NAME=TEXT` or `NAME:=JSON`. Raises ValueError."""
        name, sign, text = argument.partition("=")
        as_json = name.endswith(":")
        name = name.removesuffix(":")
        if not name or not sign:
            raise ValueError(f"{argument!r} is neither NAME=PATH, NAME=TEXT nor NAME:=JSON")
        return cls(name, text, as_json)


@dataclass(frozen=True)
class GivenInput:
    """`path` is the file or folder of a FILE."""

    run: RunInput
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is None:
            return f"{self.run.name}: {self.run.datatype} {self.run.data}"
        if self.path.is_dir():
            return f"{self.run.name}: folder {self.path}"
        return f"{self.run.name}: file {self.path} ({about_size(self.path.stat().st_size)})"


def inputs_of(
    passed: tuple[GivenInputs, ...], declared: DeclaredPipeline, pipeline: Pipeline
) -> tuple[GivenInput, ...]:
    """Return the inputs. Raises Stalled `InputMissing` with all that are missing, and `InputInvalid`."""
    wanted = _wanted(pipeline)
    found: dict[str, GivenInput] = {}
    for each in passed:
        if each.name in found:
            raise Stalled(Reason.INPUT_INVALID, f"the input {each.name!r} was passed twice")
        if each.name not in wanted:
            raise Stalled(Reason.INPUT_INVALID, _unknown(each.name, pipeline, wanted))
        found[each.name] = _input(each, declared.passed.get(each.name))
    missing = [name for name in wanted if name not in found and name not in pipeline.optional]
    if missing:
        raise Stalled(Reason.INPUT_MISSING, "\n".join(["inputs are missing:", *_lines(missing, declared)]))
    return tuple(found.values())


def _wanted(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the names of all inputs, including those that the platform would copy from a box."""
    taken = {name for stage in pipeline.stages for name in stage.inputs}
    return tuple(sorted(taken - pipeline.made.keys()))


def _unknown(name: str, pipeline: Pipeline, wanted: tuple[str, ...]) -> str:
    if maker := pipeline.made.get(name):
        return f"{name!r} is an output of the stage {maker!r} and cannot be passed"
    return f"no stage has an input {name!r}, only: {', '.join(wanted) or 'none'}{nearest(name, wanted)}"


def _lines(missing: list[str], declared: DeclaredPipeline) -> Iterator[str]:
    for name in missing:
        source = next((var.mount_from for var in declared.pipeline.vars if var.name == name), None)
        what = f"  --input {name}=PATH"
        if source:
            yield f"{what}  (on the platform: {source[1]} in the developer area of the box {source[0]!r})"
            continue
        variable = declared.passed.get(name)
        values = variable is not None and "FILE" not in variable.datatypes
        told = f"  ({variable.description})" if variable and variable.description else ""
        yield f"  --input {name}=VALUE{told}" if values else f"{what}{told}"


def _input(passed: GivenInputs, variable: ApiVariable | None) -> GivenInput:
    datatypes = frozenset(variable.datatypes) if variable else None
    if passed.as_json:
        return _value(passed.name, _parsed(passed), datatypes)
    if datatypes is None or "FILE" in datatypes:  # otherwise it is not a path, even if such a file exists
        place = os.path.expanduser(passed.text)
        if passed.text and os.path.exists(place):
            return GivenInput(RunInput(passed.name, "FILE", passed.text), _sound(passed.name, Path(place)))
        if datatypes == frozenset({"FILE"}) or "/" in passed.text or not passed.text:
            raise Stalled(
                Reason.INPUT_MISSING, f"input {passed.name!r}: there is no file or folder {passed.text!r}"
            )
    if datatypes is None or "str" in datatypes:
        return _value(passed.name, passed.text, datatypes)
    return _value(passed.name, _parsed(passed), datatypes)


def _sound(name: str, path: Path) -> Path:
    if path.is_dir() and not any(files for _, _, files in os.walk(path, followlinks=True)):
        raise Stalled(Reason.INPUT_MISSING, f"input {name!r}: there are no files in {path}")
    return path


def _parsed(passed: GivenInputs) -> object:
    try:
        parsed: object = json.loads(passed.text)
    except ValueError as error:
        raise Stalled(
            Reason.INPUT_INVALID, f"input {passed.name!r}: {passed.text!r} is not valid JSON: {error}"
        ) from error
    return parsed


def _value(name: str, value: object, datatypes: frozenset[str] | None) -> GivenInput:
    """Return a value by the rules of the run API, where numbers may be single or in lists, also nested ones."""
    found = next(
        (d for d in _VALUES if datatypes is None or d in datatypes if _fits(Datatype(d), value)), None
    )
    if found is None:
        wanted = " or ".join(d for d in _VALUES if datatypes is None or d in datatypes)
        raise Stalled(
            Reason.INPUT_INVALID, f"input {name!r}: {json.dumps(value)} is not of type {wanted or 'FILE'}"
        )
    return GivenInput(RunInput(name, found, json.dumps(value, ensure_ascii=False)))


def _fits(datatype: Datatype, value: object) -> bool:
    if isinstance(value, list):
        return datatype.numeric and all(_fits(datatype, item) for item in value)
    return fits(datatype, value)


# --- bringing ---------------------------------------------------------------------------------------------------


def bring(inputs: tuple[GivenInput, ...], places: Mapping[str, Path]) -> None:
    """Copy files and folders to where the runner expects them, readable for all users, as it would have
    copied them from a box. Raises Stalled `InputInvalid` for what cannot be read.
    """
    for each in inputs:
        if each.path is None:
            continue
        with _translated(each.run.name):
            if each.path.is_dir():
                _copy_folder(each.path, places[each.run.name])
            else:
                _copy(each.path, places[each.run.name])


def _copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=_copy)
    for folder, _, _ in os.walk(target):
        os.chmod(folder, 0o755)  # noqa: S103 - for containers, whose users are others


def _copy(source: str | Path, target: str | Path) -> None:
    """Copy a file. A pipe is read to its end: `--input data=<(make-data)`."""
    with open(source, "rb") as content, open(target, "xb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o644)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # for a folder, a list of all that failed
        raise Stalled(Reason.INPUT_INVALID, f"input {name!r} cannot be copied: {error}") from error
