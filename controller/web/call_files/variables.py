"""FILE variables in the JSON of a call and of its reply, and the header field with the lengths of their
files. Pure; used by `calls`, which transfers the bytes.

`X-Prichal-Files: <length of the JSON>[; <index in inputs or outputs>=<length of the file>]…`: the files
follow the JSON, in this order. `controller.serving.call_files` is the other side of it."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from controller.domain.localizable import Localizable, joined
from controller.domain.names import ComponentName
from controller.domain.storage.keys import FileKeyInvalid, FilePath, parse_path
from controller.serving.fault_texts import MAX_FAULTS, quoted, shown
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

FIELD = b"x-prichal-files"
MAX_FILES = 16  # inputs of one call; each holds a connection to the storage while the call is sent
MAX_OUTPUTS = 100  # of one reply; room for them is reserved at once

_VALUE = re.compile(rb"(\d{1,18})((?:; \d{1,4}=\d{1,18})*)")
_FILE = re.compile(rb"(\d+)=(\d+)")
_JSON_LENGTH = re.compile(rb"^inference-header-content-length: *([0-9]{1,18}) *\r\n", re.MULTILINE)
_CONTENT_TYPE = re.compile(r"[!-~][ -~]{0,126}")
_TYPES = mimetypes.MimeTypes()  # the standard library's own table: the same on every host
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class FileFault:
    """A fault in a request, with its JSON pointer."""

    pointer: str
    detail: str


@dataclass(frozen=True)
class FileInput:
    """A file that the call needs: `index` is that in `inputs`."""

    index: int
    box: ComponentName
    path: FilePath

    @property
    def pointer(self) -> str:
        return f"/inputs/{self.index}/data"


@dataclass(frozen=True)
class FileOutput:
    """A file of the reply, with `size` bytes; `index` is that in `outputs`."""

    index: int
    variable: str
    name: str
    size: int
    content_type: str


@dataclass(frozen=True)
class WantedOutputs:
    """The files of a request. `targets`: destinations of outputs, by the variable's name."""

    inputs: tuple[FileInput, ...] = ()
    targets: Mapping[str, FilePath] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.inputs or self.targets)


def refused(faults: Iterable[FileFault]) -> RequestRefused:
    """Return a problem like that of the serving library, which checks the rest of a request."""
    listed = [{"pointer": fault.pointer, "detail": fault.detail} for fault in islice(faults, MAX_FAULTS)]
    more = Localizable(" (and {count} more)", count=len(listed) - 1) if len(listed) > 1 else ""
    detail = joined((listed[0]["pointer"], ": ", listed[0]["detail"], more), "")
    return RequestRefused(HttpProblem(ProblemKind.INVALID, detail, extra={"errors": listed}))


# --- requests ---------------------------------------------------------------------------------------------------


def json_part(content: bytes, lines: bytes) -> bytes:
    """Return the JSON of a request with the header `lines`, without the tensors that the Open Inference Protocol puts
    behind it. The component reports a length that is wrong."""
    found = _JSON_LENGTH.search(lines)
    return content if found is None else content[: int(found[1])]


def may_name_files(content: bytes) -> bool:
    """Return True if the request may contain FILE variables."""
    return any(word in content for word in (b"FILE", b"output_fields", b'"outputs"'))


def read_request(content: bytes, boxes: tuple[ComponentName, ...]) -> WantedOutputs:
    """Return the files of a request. `boxes` are the connected ones, the default one first. Malformed
    requests are ignored here, since the component reports their errors. Raises RequestRefused with all
    problems of files."""
    if not may_name_files(content):
        return WantedOutputs()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return WantedOutputs()
    if not isinstance(document, dict):
        return WantedOutputs()
    faults: list[FileFault] = []
    inputs = [
        found
        for index, item in _objects(document.get("inputs"))
        if item.get("datatype") == "FILE" and (found := _input(item, index, boxes, faults))
    ]
    if len(inputs) > MAX_FILES:
        faults.append(
            FileFault(
                "/inputs",
                Localizable(
                    "{count} files are too many for one call; it may have {max_files}",
                    count=len(inputs),
                    max_files=MAX_FILES,
                ),
            )
        )
    member = (
        "output_fields" if document.get("output_fields") else "outputs"
    )  # as the Open Inference Protocol says it
    targets = {
        name: path
        for index, item in _objects(document.get(member))
        if isinstance(name := item.get("name"), str)
        and (text := _text(item.get("data"))) is not None
        and (path := _file_path(text, f"/{member}/{index}/data", faults))
    }
    if faults:
        raise refused(faults)
    return WantedOutputs(tuple(inputs), targets)


def _input(
    item: dict[str, Any], index: int, boxes: tuple[ComponentName, ...], faults: list[FileFault]
) -> FileInput | None:
    box = item.get("box")
    if box is not None and box not in boxes:
        known = Localizable("connected are {names}", names=", ".join(boxes))
        which = quoted(box) if isinstance(box, str) else shown(box)
        faults.append(
            FileFault(
                f"/inputs/{index}/box",
                Localizable(
                    "no box {which} is connected to this component; {known}", which=which, known=known
                ),
            )
        )
        return None
    text = _text(item.get("data"))
    path = _file_path(text, f"/inputs/{index}/data", faults) if text else None
    if path is None:
        return None
    return FileInput(index, boxes[0] if box is None else ComponentName(box), path)


def _file_path(text: str, pointer: str, faults: list[FileFault]) -> FilePath | None:
    try:
        path = parse_path(text)
    except FileKeyInvalid as error:
        faults.append(FileFault(pointer, str(error)))
        return None
    if path.is_group:
        faults.append(
            FileFault(
                pointer,
                Localizable(
                    "{text!r} is a file group; a file in it is {path}NAME", text=text, path=path.text
                ),
            )
        )
        return None
    return path


def _objects(items: object) -> list[tuple[int, dict[str, Any]]]:
    listed = items if isinstance(items, list) else []
    return [(index, item) for index, item in enumerate(listed) if isinstance(item, dict)]


def _text(data: object) -> str | None:
    """Return a path, which may be the only element of a tensor of the Open Inference Protocol."""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    return data if isinstance(data, str) else None


# --- the header field -------------------------------------------------------------------------------------------


def write_header(length: int, files: Iterable[tuple[int, int]]) -> bytes:
    """Return a header line; `files` are index and size of each."""
    ends = b"".join(b"; %d=%d" % entry for entry in files)
    return b"%b: %d%b\r\n" % (FIELD, length, ends)


def read_header(value: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Return the length of the JSON, and index and size of each file. Raises ValueError."""
    match = _VALUE.fullmatch(value.strip())
    if match is None:
        raise ValueError(Localizable("its X-Prichal-Files is malformed"))
    return int(match[1]), [(int(index), int(size)) for index, size in _FILE.findall(match[2])]


# --- replies ----------------------------------------------------------------------------------------------------


def read_reply(content: bytes, files: list[tuple[int, int]]) -> list[FileOutput]:
    """Return the outputs whose files come with a reply. Raises ValueError, RecursionError."""
    return read_outputs(json.loads(content), files)


def read_outputs(document: Any, files: list[tuple[int, int]]) -> list[FileOutput]:
    """Return the outputs whose files come with a reply. Raises ValueError."""
    if len(files) > MAX_OUTPUTS:
        raise ValueError(
            Localizable(
                "it has {count} files; a reply may have {max_outputs}",
                count=len(files),
                max_outputs=MAX_OUTPUTS,
            )
        )
    try:
        return [_output(document["outputs"][index], index, size) for index, size in files]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(Localizable("its X-Prichal-Files does not fit its outputs")) from error


def _output(item: dict[str, Any], index: int, size: int) -> FileOutput:
    name = _text(item["data"]) or ""
    given = item.get("content_type") or (item.get("parameters") or {}).get("content_type")
    if not isinstance(given, str) or not _CONTENT_TYPE.fullmatch(given):
        given = _TYPES.guess_type(name)[0] or _UNKNOWN_TYPE
    return FileOutput(index, str(item["name"]), name, size, given)


def places(outputs: Iterable[FileOutput], wanted: WantedOutputs, request_id: str) -> list[FilePath]:
    """Return the place of each output in the caller's area: the requested one, else `predictions/<request id>/`
    and its own name. No two outputs of a call share a place."""
    chosen: list[FilePath] = []
    for output in outputs:
        path = wanted.targets.get(output.variable)
        if path is None or path in chosen:
            path = _made_up(output, request_id, chosen)
        chosen.append(path)
    return chosen


def _made_up(output: FileOutput, request_id: str, taken: list[FilePath]) -> FilePath:
    folder = f"predictions/{request_id}"
    path = _named(folder, output.name) or parse_path(f"{folder}/output-{output.index}")
    return (
        path if path not in taken else parse_path(f"{folder}/{output.index}/{path.text.rpartition('/')[2]}")
    )


def _named(folder: str, name: str) -> FilePath | None:
    try:
        path = parse_path(f"{folder}/{name}")
    except FileKeyInvalid:
        return None
    return None if path.is_group or "/" in name else path


def with_paths(content: bytes, outputs: Iterable[FileOutput], paths: Iterable[FilePath]) -> bytes:
    """Return the reply for the caller: `data` of each output is its path in the caller's area."""
    document = json.loads(content)
    for output, path in zip(outputs, paths, strict=True):
        item = document["outputs"][output.index]
        if isinstance(item["data"], list):
            item["data"] = [path.text]
            item["parameters"] = {**(item.get("parameters") or {}), "content_type": output.content_type}
        else:
            item["data"] = path.text
            item["content_type"] = output.content_type
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
