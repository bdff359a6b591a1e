"""What `prichal run start` sends: inputs and outputs as they were typed. Local files are uploaded first."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.progress import progress
from controller.cli.remote import Remote
from controller.domain.runs.addresses import PipelineAddress
from controller.domain.storage.addresses import AddressInvalid, BoxAddress

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class TypedSubmission:
    """A parsed submission. `uploads` maps names of inputs to local files and the addresses they are uploaded
    to.
    """

    remote: Remote
    inputs: dict[str, Any]
    outputs: dict[str, str]
    uploads: dict[str, tuple[Path, BoxAddress]]

    def document(self) -> dict[str, Any]:
        """Return the request body. Inputs are a mapping, unless one names its box: then they are a list."""
        inputs: Any = self.inputs
        if self.uploads:
            boxes = {name: {"box": address.box} for name, (_, address) in self.uploads.items()}
            inputs = [{"name": n, "data": data, **boxes.get(n, {})} for n, data in inputs.items()]
        return {"inputs": inputs, **({"outputs": self.outputs} if self.outputs else {})}

    def upload(self) -> None:
        if not self.uploads:
            return
        with self.remote.files() as client:
            for path, address in self.uploads.values():
                with progress(path.name, path.stat().st_size) as moved:
                    client.upload(path, address, moved)


def read_submission(
    remote: Remote,
    pipeline: PipelineAddress,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    group: str | None,
) -> TypedSubmission:
    """Parse the options of the command. Raises click.UsageError."""
    given: dict[str, Any] = {}
    uploads: dict[str, tuple[Path, BoxAddress]] = {}
    for name, text in _pairs(inputs, "--input"):
        if name.endswith(":"):
            name, value = name[:-1], _json(name, text)
        elif text.startswith("@"):
            path = Path(text[1:])
            uploads[name] = (path, _place(remote, pipeline, path, group))
            value = uploads[name][1].path.text
        else:
            value = _value(text)
        _once(name, given, "--input")
        given[name] = value
    wanted: dict[str, str] = {}
    for name, text in _pairs(outputs, "--output-group"):
        _once(name, wanted, "--output-group")
        wanted[name] = text
    return TypedSubmission(remote, given, wanted, uploads)


def _pairs(texts: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not sign or not name.rstrip(":"):
            raise click.BadParameter(f"{name + sign!r} is not NAME=VALUE", param_hint=option)
    return [(name, value) for name, _, value in pairs]


def _once(name: str, given: dict[str, Any], option: str) -> None:
    if name in given:
        raise click.BadParameter(f"{name} is given twice", param_hint=option)


def _value(text: str) -> str | float:
    """Return a number if the text is one; otherwise the text, which the server takes as a path or a value."""
    return json.loads(text) if _NUMBER.fullmatch(text) else text


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{name}={text} is not valid JSON: {error}", param_hint="--input") from error


def _place(remote: Remote, pipeline: PipelineAddress, path: Path, group: str | None) -> BoxAddress:
    """Return where a local file is uploaded to: into the group, under its own name."""
    if group is None:
        raise click.UsageError(f"{path} has to be uploaded first: add --upload BOX/GROUP")
    if pipeline.by_url:
        raise click.UsageError(f"to upload local files, write the pipeline as APP/PATH, not {pipeline}")
    if not path.is_file():
        raise click.BadParameter(f"there is no file {path}", param_hint="--input")
    place = remote.address(f"{pipeline.app}:{group}")
    if not place.box or not place.path.text:
        raise click.BadParameter(f"{group!r} is not BOX/GROUP", param_hint="--upload")
    try:
        return place.as_group().below(path.name)
    except AddressInvalid as error:
        raise click.UsageError(str(error)) from error
