"""JSON values within an object, as type hints describe them: dataclasses, lists, choices and what is in them.

Each kind of value knows three things: its JSON Schema; how what a caller sends becomes what the function gets
(``take``), with every fault and its pointer; and how what the function returns becomes JSON (``give``). The developer's
classes are called where they make values: what they raise with ValueError is a fault of the caller's data.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

from .arrays import plain
from .datatypes import FP64_MAX, whole
from .fault_texts import MAX_FAULTS, escape, json_name, quoted, shown
from .plain_json import dumps
from .problems import RequestFault
from .texts import Text

Json = dict[str, Any]
Faults = list[RequestFault]


class ClassFailed(Exception):
    """A class of the developer raised something other than ValueError, which is its cause. Also SystemExit: it must not
    end our thread, which may check a request before the function is called."""


class Misfit(ValueError):
    """Why a value that the function returned is not of its hint, as the rest of a sentence about it."""


@dataclasses.dataclass(frozen=True)
class SchemaPlace:
    """Where a schema stands in the description: its variable, such as ``Input.item``, and the models that schemas
    refer to, to which they add theirs. ``shared``: the names of records that stand at several places of the variable
    and are described once, by their identity."""

    variable: str
    is_output: bool
    models: dict[str, Json]
    shared: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, variable: str, is_output: bool, models: dict[str, Json], values: Iterable[Value]
    ) -> SchemaPlace:
        """The place of a variable with these values in its objects."""
        shared: dict[int, str] = {}
        for record in _shared(values):
            name = first = f"Model.{variable}.{re.sub('[^A-Za-z0-9_-]', '_', record.name)}"
            for number in itertools.count(2):
                if name not in shared.values():
                    break
                name = f"{first}-{number}"
            shared[id(record)] = name
        return cls(variable, is_output, models, shared)


def _shared(values: Iterable[Value]) -> list[Record]:
    """The records that occur more than once in these values. Each is looked into once."""
    found: dict[int, Record] = {}
    again: dict[int, Record] = {}
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, Record):
            if id(value) in found:
                again[id(value)] = value
                continue
            found[id(value)] = value
        left += reversed(value.parts())
    return [record for identity, record in found.items() if identity in again]


class Value:
    """One kind of values. This one is any JSON."""

    def schema(self, place: SchemaPlace) -> Json:
        return {}

    def parts(self) -> tuple[Value, ...]:
        """The kinds of values within this one."""
        return ()

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        """Return what the function gets. What is wrong is added to the faults."""
        return given

    def give(self, value: Any) -> Any:
        """Return the value as JSON may carry it. Raises Misfit."""
        return value


@dataclasses.dataclass(frozen=True)
class Plain(Value):
    """A text, a number, a truth value or null: ``kind`` is Python's type of it."""

    kind: type

    def schema(self, place: SchemaPlace) -> Json:
        kind = _SCHEMA_TYPES[self.kind]
        missing = place.is_output and self.kind is float  # NaN is sent as null
        return {"type": [kind, "null"] if missing else kind}

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        taken = whole(given) if self.kind is int else given
        if self.kind is float and type(given) is int and abs(given) <= FP64_MAX:
            taken = float(given)
        if type(taken) is not self.kind:
            faults.append(
                RequestFault(
                    pointer, Text("must be {words}, not {given}", words=_WORDS[self.kind], given=shown(given))
                )
            )
        return taken

    def give(self, value: Any) -> Any:
        found = plain(value)
        if self.kind is float and type(found) is int:
            return found
        if self.kind is int and isinstance(found, float):
            found = whole(found)
        if not isinstance(found, self.kind) or (isinstance(found, bool) and self.kind is not bool):
            raise Misfit(Text("is {value}, not {words}", value=_python_name(value), words=_WORDS[self.kind]))
        return found


_SCHEMA_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_WORDS = {
    str: Text("a string"),
    int: Text("an integer"),
    float: Text("a 64-bit floating-point number"),
    bool: Text("true or false"),
    type(None): "null",
}
NULL = Plain(type(None))


@dataclasses.dataclass(frozen=True)
class Choice(Value):
    """One of some texts, integers and truth values. ``make`` makes a member of an enumeration of it."""

    choices: tuple[Any, ...]
    make: Optional[Callable[[Any], Any]] = None

    def schema(self, place: SchemaPlace) -> Json:
        return {"enum": list(self.choices)}

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        given = whole(given)
        if not chosen(given, self.choices):
            faults.append(
                RequestFault(
                    pointer,
                    Text("must be {choices}, not {given}", choices=one_of(self.choices), given=named(given)),
                )
            )
            return given
        return given if self.make is None else self.make(given)

    def give(self, value: Any) -> Any:
        found = value_of(value)
        if not chosen(found, self.choices):
            raise Misfit(Text("is {found}, not {choices}", found=named(found), choices=one_of(self.choices)))
        return found


@dataclasses.dataclass(frozen=True)
class Items(Value):
    """An array of equal values; ``make`` makes the sequence that the function gets."""

    item: Value
    make: Callable[[Iterable[Any]], Any] = list

    def schema(self, place: SchemaPlace) -> Json:
        return {"type": "array", "items": self.item.schema(place)}

    def parts(self) -> tuple[Value, ...]:
        return (self.item,)

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        if not isinstance(given, list):
            faults.append(
                RequestFault(pointer, Text("must be an array, not {given}", given=json_name(given)))
            )
            return given
        taken = []
        for index, item in enumerate(given):
            if len(faults) > MAX_FAULTS:
                break
            taken.append(self.item.take(item, f"{pointer}/{index}", faults))
        return self.make(taken)

    def give(self, value: Any) -> Any:
        found = plain(value)
        if not isinstance(found, (list, tuple)):
            raise Misfit(Text("is {value}, not a list", value=_python_name(value)))
        return [
            _within(self.item, item, Text("element {index}", index=index)) for index, item in enumerate(found)
        ]


@dataclasses.dataclass(frozen=True)
class Dictionary(Value):
    """An object with any members of one kind."""

    item: Value

    def schema(self, place: SchemaPlace) -> Json:
        return {"type": "object", "additionalProperties": self.item.schema(place)}

    def parts(self) -> tuple[Value, ...]:
        return (self.item,)

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        if not isinstance(given, dict):
            faults.append(
                RequestFault(pointer, Text("must be an object, not {given}", given=json_name(given)))
            )
            return given
        taken = {}
        for name, item in given.items():
            if len(faults) > MAX_FAULTS:
                break
            taken[name] = self.item.take(item, f"{pointer}/{escape(name)}", faults)
        return taken

    def give(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Misfit(Text("is {value}, not a mapping", value=_python_name(value)))
        return {
            name: _within(self.item, item, Text("member {name!r}", name=name)) for name, item in value.items()
        }


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of a Record. ``line``: in the file of its class, 0 if that is not known."""

    name: str
    value: Value
    required: bool
    description: str = ""


@dataclasses.dataclass(frozen=True)
class Record(Value):
    """An object with known members; ``make`` makes what the function gets of them."""

    name: str
    members: tuple[Member, ...]
    make: Callable[..., Any]

    def schema(self, place: SchemaPlace) -> Json:
        name = place.shared.get(id(self))
        if name is None:
            return self._object(place)
        if name not in place.models:
            place.models[name] = self._object(place)
        return {"$ref": f"#/components/schemas/{name}"}

    def parts(self) -> tuple[Value, ...]:
        return tuple(member.value for member in self.members)

    def _object(self, place: SchemaPlace) -> Json:
        properties = {}
        for member in self.members:
            schema = member.value.schema(place)
            described = {"description": member.description} if member.description else {}
            properties[member.name] = {**schema, **described}
        required = [member.name for member in self.members if member.required]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            **({} if place.is_output else {"additionalProperties": False}),
        }

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        if not isinstance(given, dict):
            faults.append(
                RequestFault(pointer, Text("must be an object, not {given}", given=json_name(given)))
            )
            return given
        before, members = len(faults), {member.name: member for member in self.members}
        for name in given:
            if name not in members and len(faults) <= MAX_FAULTS:
                known = ", ".join(members) or "none"
                faults.append(
                    RequestFault(
                        f"{pointer}/{escape(name)}",
                        Text("unknown member {name}; known are {known}", name=quoted(name), known=known),
                    )
                )
        taken = {}
        for name, member in members.items():
            if name in given:
                taken[name] = member.value.take(given[name], f"{pointer}/{escape(name)}", faults)
            elif member.required:
                faults.append(RequestFault(pointer, Text("member {name!r} is missing", name=name)))
        return made(self.make, taken, pointer, faults) if len(faults) == before else given

    def give(self, value: Any) -> Any:
        found = {}
        for name, item in members_of(value, self).items():
            value_of_item = next(member.value for member in self.members if member.name == name)
            found[name] = _within(value_of_item, item, Text("member {name!r}", name=name))
        return found


@dataclasses.dataclass(frozen=True)
class Either(Value):
    """One of several kinds, tried in their order."""

    kinds: tuple[Value, ...]

    def schema(self, place: SchemaPlace) -> Json:
        return {"anyOf": [kind.schema(place) for kind in self.kinds]}

    def parts(self) -> tuple[Value, ...]:
        return self.kinds

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        tried: list[Faults] = []
        for kind in self.kinds:
            wrong: Faults = []
            taken = kind.take(given, pointer, wrong)
            if not wrong:
                return taken
            tried.append(wrong)
        # That which comes furthest into the value says most: others are refused at its outside.
        faults.extend(max(tried, key=_depth))
        return given

    def give(self, value: Any) -> Any:
        misfit = Misfit(Text("is of no kind"))
        for kind in self.kinds:
            try:
                return kind.give(value)
            except Misfit as error:
                misfit = error
        raise misfit


@dataclasses.dataclass(frozen=True)
class Model(Value):
    """A model of pydantic 2, which checks for itself."""

    model: Any

    def schema(self, place: SchemaPlace) -> Json:
        prefix = f"Model.{place.variable}.{self.model.__name__}"
        schema: Json = self.model.model_json_schema(
            ref_template=f"#/components/schemas/{prefix}.{{model}}",
            mode="serialization" if place.is_output else "validation",
        )
        for name, definition in schema.pop("$defs", {}).items():
            place.models[f"{prefix}.{name}"] = definition
        return schema

    def take(self, given: Any, pointer: str, faults: Faults) -> Any:
        try:
            return self.model.model_validate_json(dumps(given))
        except ValueError as error:
            problems = getattr(error, "errors", None)
            if problems is None:
                faults.append(RequestFault(pointer, str(error)))
                return given
            for problem in problems(include_url=False)[:MAX_FAULTS]:
                faults.append(RequestFault(_pointer(given, problem["loc"], pointer), problem["msg"][:2000]))
            return given
        except BaseException as error:
            raise ClassFailed from error

    def give(self, value: Any) -> Any:
        if not isinstance(value, self.model):
            raise Misfit(
                Text("is {value}, not a {name}", value=_python_name(value), name=self.model.__name__)
            )
        return value.model_dump(mode="json", by_alias=True)


def made(make: Callable[..., Any], members: Mapping[str, Any], pointer: str, faults: Faults) -> Any:
    """Call a class of the developer; its ValueError says what is wrong with the data."""
    try:
        return make(**members)
    except ValueError as error:
        faults.append(RequestFault(pointer, str(error)[:2000] or Text("is refused")))
        return None
    except BaseException as error:
        raise ClassFailed from error


def members_of(value: Any, record: Record) -> dict[str, Any]:
    """Return the members of an instance, or of a mapping in its place. Raises Misfit."""
    if isinstance(value, Mapping):
        unknown = [name for name in value if all(member.name != name for member in record.members)]
        if unknown:
            raise Misfit(
                Text(
                    "has a member {unknown!r}, which {record} does not have",
                    unknown=unknown[0],
                    record=record.name,
                )
            )
        found = {member.name: value[member.name] for member in record.members if member.name in value}
    else:
        missing = object()
        pairs = ((member.name, getattr(value, member.name, missing)) for member in record.members)
        found = {name: item for name, item in pairs if item is not missing}
    for member in record.members:
        if member.required and member.name not in found:
            what = (
                ""
                if isinstance(value, Mapping)
                else Text("is {value}, not a {record}: it ", value=_python_name(value), record=record.name)
            )
            raise Misfit(Text("{what}has no {member!r}", what=what, member=member.name))
    return found


def value_of(value: Any) -> Any:
    """Return the value of a member of an enumeration, and others as they are."""
    import enum

    return plain(value.value if isinstance(value, enum.Enum) else value)


def chosen(value: Any, choices: tuple[Any, ...]) -> bool:
    """Is it one of them, with its type?"""
    return any(value == choice and type(value) is type(choice) for choice in choices)


def one_of(choices: tuple[Any, ...]) -> str:
    words = [dumps(choice, ensure_ascii=False) for choice in choices[:20]]
    return (
        Text("one of {names}{word}", names=", ".join(words), word=", ..." if len(choices) > 20 else "")
        if len(words) > 1
        else words[0]
    )


def named(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else shown(value)


def _depth(faults: Iterable[RequestFault]) -> int:
    return max(len(fault.pointer) for fault in faults)


def _within(kind: Value, value: Any, where: str) -> Any:
    try:
        return kind.give(value)
    except Misfit as error:
        raise Misfit(Text("has {where}, which {error}", where=where, error=error)) from None


def _python_name(value: Any) -> str:
    return "None" if value is None else Text("of type {name}", name=type(value).__name__)


def _pointer(given: Any, places: Iterable[Any], pointer: str) -> str:
    """Return the pointer to a place that pydantic names, up to where it names what is not in the data."""
    for place in places:
        inside = isinstance(given, list) and isinstance(place, int) and place < len(given)
        if not inside and not (isinstance(given, dict) and place in given):
            return pointer
        given = given[place]
        pointer += f"/{escape(str(place))}"
    return pointer
