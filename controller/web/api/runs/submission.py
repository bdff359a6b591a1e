"""Parses the request of a caller to start a run: the body of `POST …/runs`, checked against the inputs and
outputs of the pipeline. Pure; used by the views of the run API. The same code checks inputs of inference
calls. All problems are reported at once, each with its JSON pointer into the body."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Final

from controller.domain.apps.spec import ApiVariable
from controller.domain.localizable import Localizable
from controller.domain.routing.routes import Service
from controller.domain.runs.pipeline import Pipeline
from controller.domain.runs.run import RunInput, RunOutput
from controller.domain.runs.webhooks import MAX_URL, is_url
from controller.domain.storage.keys import FileKeyInvalid, parse_path
from controller.serving.datatypes import Datatype, fits, whole
from controller.serving.fault_texts import MAX_FAULTS, escape, json_name, quoted
from controller.serving.problems import RequestFault
from controller.serving.shapes import sizes
from controller.serving.signature import Signature, Variable
from controller.serving.validate import compile_check

LEAST_PRIORITY: Final = -10  # callers may let others go first, not push ahead of them

#: Without a datatype, the first of these that fits the value is used.
ANY_DATATYPE: Final = ("FILE", "str", "dict", "INT32", "FP64", "FP32")

_MEMBERS = ("inputs", "outputs", "priority", "webhook")
_INPUT_MEMBERS = ("name", "datatype", "data", "shape", "content_type", "box")
_OUTPUT_MEMBERS = ("name", "data", "box")

Json = dict[str, Any]


@dataclass(frozen=True)
class RunInterface:
    """The inputs and outputs that callers of a pipeline may name; `boxes` are its connected ones, the default
    first; `releases` are outputs that always go to boxes of the module; `signs`: it has a secret that signs
    webhooks."""

    inputs: tuple[ApiVariable, ...]
    outputs: tuple[ApiVariable, ...]
    boxes: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    signs: bool = False


@dataclass(frozen=True)
class SubmittedRun:
    inputs: tuple[RunInput, ...] = ()
    outputs: tuple[RunOutput, ...] = ()
    priority: int = 0
    webhook: str = ""
    places: tuple[str, ...] = field(default=(), compare=False)  # pointers to the data of the inputs


class SubmissionInvalid(Exception):
    def __init__(self, faults: Sequence[RequestFault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = tuple(faults)


def interface_of(pipeline: Pipeline, api: Service | None) -> RunInterface:
    """Return the interface from the `apiSpec` of the pipeline's API; without one, callers pass all variables that
    nothing else fills, in any datatype."""
    signs = pipeline.webhook is not None
    if api is not None:
        outputs = tuple(variable for variable in api.outputs if variable.name not in pipeline.releases)
        return RunInterface(api.inputs, outputs, pipeline.boxes, pipeline.releases, signs)
    inputs = tuple(
        ApiVariable(name, required=name not in pipeline.optional, datatypes=ANY_DATATYPE)
        for name in pipeline.passed
    )
    outputs = tuple(ApiVariable(name, required=True, datatypes=("FILE",)) for name in pipeline.offered)
    return RunInterface(inputs, outputs, pipeline.boxes, pipeline.releases, signs)


def read_submission(body: object, interface: RunInterface) -> SubmittedRun:
    """Parse the body. Raises SubmissionInvalid."""
    if not isinstance(body, dict):
        raise SubmissionInvalid(
            [RequestFault("", Localizable("the body must be an object, not {body}", body=json_name(body)))]
        )
    inputs = _entries(body, "inputs", len(interface.inputs))
    outputs = _entries(body, "outputs", len(interface.outputs))
    inputs = [replace(entry, item=_typed(entry.item, interface.inputs)) for entry in inputs]
    found = chain(
        _unknown(body, "", _MEMBERS),
        _listing_fault(body, "inputs") or _input_faults(inputs, interface),
        _listing_fault(body, "outputs") or _output_faults(outputs, interface),
        _priority_faults(body),
        _webhook_faults(body, interface),
    )
    if faults := list(islice(found, MAX_FAULTS)):
        raise SubmissionInvalid(faults)
    return SubmittedRun(
        tuple(_run_input(entry.item) for entry in inputs),
        tuple(_run_output(entry.item) for entry in outputs if entry.item.get("data") is not None),
        whole(body.get("priority")) or 0,
        body.get("webhook") or "",
        tuple(entry.data for entry in inputs),
    )


@dataclass(frozen=True)
class _SubmittedEntry:
    """An input or output of the request, with the pointers to it, its name and its data."""

    item: Any
    place: str
    name: str
    data: str


def _entries(body: Json, member: str, declared: int) -> list[_SubmittedEntry]:
    """Return the entries of a list, or of a mapping of names to data, its short form. Entries are left out only if
    those before them have as many faults as are told: each one beyond the declared names is unknown, or there twice."""
    given = body.get(member)
    most = declared + MAX_FAULTS
    if isinstance(given, dict):
        places = {name: f"/{member}/{escape(name)}" for name in islice(given, most)}
        return [
            _SubmittedEntry({"name": n, "data": given[n]}, place, place, place) for n, place in places.items()
        ]
    items = given[:most] if isinstance(given, list) else []
    numbered = ((item, f"/{member}/{i}") for i, item in enumerate(items))
    return [_SubmittedEntry(item, place, f"{place}/name", f"{place}/data") for item, place in numbered]


def _listing_fault(body: Json, member: str) -> list[RequestFault]:
    given = body.get(member)
    if given is None or isinstance(given, list | dict):
        return []
    what = Localizable(
        "must be an array, or an object of names and data, not {given}", given=json_name(given)
    )
    return [RequestFault(f"/{member}", what)]


# --- inputs -----------------------------------------------------------------------------------------------------


def _typed(item: Any, declared: tuple[ApiVariable, ...]) -> Any:
    """Return the entry with a datatype: if it has none, the first declared one that fits its data."""
    if not isinstance(item, dict) or item.get("datatype") is not None:
        return item
    variable = next((v for v in declared if v.name == item.get("name")), None)
    if variable is None:
        return item
    data = item.get("data")
    elements = data if isinstance(data, list) else [data]
    fitting = (
        name for name in variable.datatypes if all(fits(Datatype(name), whole(value)) for value in elements)
    )
    return {**item, "datatype": next(fitting, variable.datatypes[0])}


def _input_faults(entries: list[_SubmittedEntry], interface: RunInterface) -> Iterator[RequestFault]:
    wrong: set[str] = set()
    for fault in _check(entries, interface):
        _, _, index, *rest = [*fault.pointer.split("/"), ""]
        if not index:
            yield fault  # something is missing
            continue
        entry = entries[int(index)]
        wrong.add(entry.place)
        yield replace(fault, pointer=_sent_at(entry, rest[:-1]))
    for entry in entries:
        if isinstance(entry.item, dict):
            yield from _unknown(entry.item, entry.place, _INPUT_MEMBERS)
            if entry.place not in wrong:
                yield from _place_faults(entry, interface.boxes)


def _check(entries: list[_SubmittedEntry], interface: RunInterface) -> list[RequestFault]:
    """Check it by the rules of an inference call."""
    variables = tuple(
        Variable(v.name, tuple(Datatype(name) for name in v.datatypes), not v.required, v.description)
        for v in interface.inputs
    )
    check = compile_check(Signature(variables, (), "", ""))
    return check({"inputs": [entry.item for entry in entries]})


def _sent_at(entry: _SubmittedEntry, rest: list[str]) -> str:
    """Return the pointer to a part of the entry in the request."""
    if not rest:
        return entry.place
    begin = {"name": entry.name, "data": entry.data}.get(rest[0], f"{entry.place}/{rest[0]}")
    return "/".join([begin, *rest[1:]])


def _place_faults(entry: _SubmittedEntry, boxes: tuple[str, ...]) -> Iterator[RequestFault]:
    """Return faults in the place of an otherwise valid input."""
    item = entry.item
    if item["datatype"] != Datatype.FILE.value:
        if item.get("box") is not None:
            yield RequestFault(f"{entry.place}/box", Localizable("only a FILE lies in a box"))
        return
    yield from _box_faults(entry, boxes)
    try:
        parse_path(item["data"])
    except FileKeyInvalid as error:
        yield RequestFault(entry.data, error.message)


def _box_faults(entry: _SubmittedEntry, boxes: tuple[str, ...]) -> Iterator[RequestFault]:
    box = entry.item.get("box")
    if not boxes:
        yield RequestFault(
            entry.place, Localizable("the pipeline has no connected box that files could lie in")
        )
    elif box is not None and box not in boxes:
        yield RequestFault(
            f"{entry.place}/box",
            Localizable("must be a connected box of the pipeline: {names}", names=", ".join(boxes)),
        )


def _run_input(item: Json) -> RunInput:
    if item["datatype"] == Datatype.FILE.value:
        return RunInput(item["name"], "FILE", parse_path(item["data"]).text, item.get("box") or "")
    data, shape = item["data"], sizes(item.get("shape"))
    if shape and isinstance(data, list) and math.prod(shape) == len(data):
        data = _nested(data, shape)
    return RunInput(item["name"], item["datatype"], json.dumps(data))


def _nested(flat: list[Any], shape: list[int]) -> list[Any]:
    """Return the flat data as nested lists of these dimensions, since the stage gets only the data."""
    if len(shape) == 1 or not flat:
        return flat
    step = len(flat) // shape[0]
    return [_nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


# --- outputs ----------------------------------------------------------------------------------------------------


def _output_faults(entries: list[_SubmittedEntry], interface: RunInterface) -> Iterator[RequestFault]:
    taken: dict[tuple[str, str], str] = {}
    seen: set[str] = set()
    for entry in entries:
        fault = _name_fault(entry, interface)
        if fault:
            yield fault
            continue
        name = entry.item["name"]
        if name in seen:
            yield RequestFault(entry.name, Localizable("output {name!r} is given twice", name=name))
            continue
        seen.add(name)
        yield from _unknown(entry.item, entry.place, _OUTPUT_MEMBERS)
        yield from _box_faults(entry, interface.boxes)
        yield from _group_faults(entry, interface.boxes, taken)


def _name_fault(entry: _SubmittedEntry, interface: RunInterface) -> RequestFault | None:
    if not isinstance(entry.item, dict):
        return RequestFault(
            entry.place, Localizable("must be an object with a name, not {item}", item=json_name(entry.item))
        )
    name = entry.item.get("name")
    if not isinstance(name, str):
        return RequestFault(
            entry.name,
            Localizable("is missing")
            if name is None
            else Localizable("must be a string, not {name}", name=json_name(name)),
        )
    if name in interface.releases:
        return RequestFault(
            entry.name,
            Localizable("output {name!r} goes to a box of the module: it cannot be asked for", name=name),
        )
    known = tuple(variable.name for variable in interface.outputs)
    if name in known:
        return None
    offered = (
        Localizable("known are {names}", names=", ".join(known))
        if known
        else Localizable("this pipeline has no outputs to ask for")
    )
    return RequestFault(
        entry.name, Localizable("unknown output {name}; {offered}", name=quoted(name), offered=offered)
    )


def _group_faults(
    entry: _SubmittedEntry, boxes: tuple[str, ...], taken: dict[tuple[str, str], str]
) -> Iterator[RequestFault]:
    """`taken`: groups of the outputs before, to which this one is added; none may lie in another."""
    wanted = entry.item.get("data")
    if wanted is None:
        return
    if not isinstance(wanted, str) or not wanted:
        what = Localizable("an empty one") if wanted == "" else json_name(wanted)
        yield RequestFault(
            entry.data, Localizable("must be the path of a group, a non-empty string, not {what}", what=what)
        )
        return
    try:
        group = _group(wanted)
    except FileKeyInvalid as error:
        yield RequestFault(entry.data, error.message)
        return
    box = str(entry.item.get("box") or "".join(boxes[:1]))
    for (other_box, other), name in taken.items():
        if other_box == box and (group.startswith(other) or other.startswith(group)):
            yield RequestFault(
                entry.data,
                Localizable("overlaps the group of output {name!r}; each needs one of its own", name=name),
            )
    taken[box, group] = entry.item["name"]


def _group(path: str) -> str:
    """An output is always a group, so the slash at its end may be left out."""
    return parse_path(path if path.endswith("/") else f"{path}/").text


def _run_output(item: Json) -> RunOutput:
    return RunOutput(item["name"], _group(item["data"]), item.get("box") or "")


# --- the rest ---------------------------------------------------------------------------------------------------


def _unknown(item: Mapping[str, Any], place: str, known: tuple[str, ...]) -> Iterator[RequestFault]:
    for name in item:
        if name not in known:
            yield RequestFault(
                f"{place}/{escape(name)}",
                Localizable("unknown member; known are {names}", names=", ".join(known)),
            )


def _priority_faults(body: Json) -> Iterator[RequestFault]:
    priority = whole(body.get("priority"))
    if priority is not None and (type(priority) is not int or not LEAST_PRIORITY <= priority <= 0):
        yield RequestFault(
            "/priority",
            Localizable(
                "must be an integer, {least_priority} to 0: others go first", least_priority=LEAST_PRIORITY
            ),
        )


def _webhook_faults(body: Json, interface: RunInterface) -> Iterator[RequestFault]:
    webhook = body.get("webhook")
    if webhook is None:
        return
    if not (isinstance(webhook, str) and is_url(webhook)):
        limit = Localizable("at most {max_url} characters", max_url=MAX_URL)
        yield RequestFault(
            "/webhook",
            Localizable("must be an http or https URL without user and fragment, {limit}", limit=limit),
        )
    elif not interface.signs:
        yield RequestFault(
            "/webhook", Localizable("the pipeline has no webhook.secret that it could be signed with")
        )
