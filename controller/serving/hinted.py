"""The signature of a function by its type hints, beside its docstring: the same values as the docstring makes, so that
requests, descriptions and results are treated alike. Pure: used by the worker at set-up, on the function itself, and by
the platform on a commit's source text before anything runs.

A function whose arguments are those of every call (``inputs``, ``model``, ``context``) is described by its docstring
alone. One that has other arguments takes its inputs by name. If its docstring describes ``inputs.NAME`` and
``outputs.NAME``, that is the specification, and hints that say something else are refused with both places. If it does
not, the hints are the specification.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import re
import typing
from collections.abc import Callable
from typing import Any, Optional

from . import docstring
from .annotations import (
    Alternative,
    AnnotationScope,
    ClassMember,
    Hint,
    HintReader,
    NotUnderstood,
    Unknown,
    has_members,
    is_typed_dict,
    shown,
)
from .datatypes import Datatype
from .docstring import Remarks
from .forms import Form
from .signature import ResultForm, Signature, Variable
from .values import value_of

ARGUMENTS = ("parameters", "inputs", "output_fields", "model", "context")
RESULT = "result"  # the name of an output that has none
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
_NAME = re.compile(r"[A-Za-z0-9_]+")
_ITERATORS = (
    collections.abc.Iterator, collections.abc.Generator, collections.abc.AsyncIterator, collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)  # fmt: skip
_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine)
_PYTHON = {Datatype.STR: "str", Datatype.DICT: "dict", Datatype.FILE: "pathlib.Path", Datatype.BOOL: "bool"}


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a function. ``annotation`` is MISSING if it has none, and so is the default."""

    name: str
    annotation: Any
    default: Any
    line: int


@dataclasses.dataclass(frozen=True)
class HintedFunction:
    """A function as its definition tells: its file, the lines of its parts, its arguments but those of a decorator, and
    whether it yields. ``member_place`` gives file and line of a member of a class."""

    path: str
    line: int
    arguments: tuple[Argument, ...]
    returns: Any
    returns_line: int
    yields: bool
    scope: AnnotationScope
    member_place: Callable[[ClassMember], str]
    takes_any: bool = False
    decorated: bool = False

    def own(self) -> tuple[Argument, ...]:
        """The arguments that are neither those of every call nor private, which begin with _ and have a default."""
        return tuple(
            argument
            for argument in self.arguments
            if argument.name not in ARGUMENTS
            and not (argument.name.startswith("_") and argument.default is not MISSING)
        )


@dataclasses.dataclass(frozen=True)
class DescribedFunction:
    """What the docstring and the hints say together. ``absent``: inputs that the function gets as None if they are left
    out. ``yields``: its hint says that it gives an iterator."""

    signature: Signature
    absent: tuple[str, ...] = ()
    yields: bool = False


class Disagreement(Exception):
    """Everything that is wrong with the description of a function, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def describe(function: HintedFunction, text: Optional[str], path: str, line: int) -> DescribedFunction:
    """What the docstring, which begins in a line of a file, and the hints say. Raises Disagreement."""
    remarks = docstring.remarks(text)
    by_name = takes_by_name(function, text)
    parsed = None if by_name and remarks is not None else docstring.parse(text, line)
    if isinstance(parsed, list):
        raise Disagreement([f"{path}:{problem.line}: {problem.message}" for problem in parsed])
    comparison = _Comparison(function, parsed, remarks or Remarks(), text or "", path, line)
    if by_name:
        return comparison.described()
    assert parsed is not None
    unknown = [argument.name for argument in function.own() if argument.default is MISSING]
    if unknown:
        words = f"unknown required argument {', '.join(unknown)}; known are {', '.join(ARGUMENTS)}"
        advice = "A function that takes inputs by name has neither 'inputs' nor **kwargs"
        raise Disagreement([f"{function.path}:{function.line}: {words}. {advice}"])
    return comparison.with_members(parsed)


def takes_by_name(function: HintedFunction, text: Optional[str]) -> bool:
    """Does it take its inputs as arguments? What has a default and no hint, or stands beside ``inputs``, is the
    function's own affair."""
    if function.takes_any or any(argument.name == "inputs" for argument in function.arguments):
        return False
    own = function.own()
    if any(argument.default is MISSING or argument.annotation is not MISSING for argument in own):
        return True
    return not own and function.returns is not MISSING and docstring.remarks(text) is not None


class _Comparison:
    """Reads the hints of one function, and compares them with its docstring, if that describes it."""

    def __init__(
        self,
        function: HintedFunction,
        described: Optional[Signature],
        remarks: Remarks,
        text: str,
        path: str,
        line: int,
    ) -> None:
        self._function = function
        self._described = described
        self._remarks = remarks
        self._place = f"{function.path}:{function.line}"
        self._path = path  # of the docstring
        self._docstring = f"{path}:{line}"
        self._arrays = docstring.line_of_arrays(text, line)
        self._problems: list[str] = []

    def described(self) -> DescribedFunction:
        """The signature of a function that takes its inputs by name. Raises Disagreement."""
        inputs, absent = self._inputs()
        outputs, result, yields = self._outputs()
        if self._problems:
            raise Disagreement(self._problems)
        spec = self._described or Signature((), (), self._remarks.summary, self._remarks.description)
        signature = dataclasses.replace(spec, inputs=inputs, outputs=outputs, by_name=True, result=result)
        return DescribedFunction(signature, absent, yields)

    def with_members(self, described: Signature) -> DescribedFunction:
        """The signature of any other function. Of its hints, only a class whose instances could not be returned without
        them says something of its outputs. Raises Disagreement."""
        try:
            reader = HintReader(self._function.scope, True)
            kind, _ = self._result_kind(reader)
            members = has_members(kind) and not is_typed_dict(kind)
        except (NotUnderstood, Unknown):
            members = False
        if not members or self._function.decorated:
            return DescribedFunction(described)
        outputs, result, yields = self._outputs()
        if self._problems:
            raise Disagreement(self._problems)
        return DescribedFunction(dataclasses.replace(described, outputs=outputs, result=result), (), yields)

    # --- inputs -----------------------------------------------------------------------------------------------

    def _inputs(self) -> tuple[tuple[Variable, ...], tuple[str, ...]]:
        """The inputs, and those that are None if they are left out."""
        reader = HintReader(self._function.scope, False)
        found: dict[str, Variable] = {}
        absent = []
        for argument in self._function.arguments:
            if argument.name in ARGUMENTS:
                self._check_own(reader, argument)
        for argument in self._function.own():
            hint = self._hint(reader, argument)
            if hint is None:
                continue
            has_default = argument.default is not MISSING
            optional = True if has_default else hint.optional if hint.known else None
            if hint.optional and not has_default:
                absent.append(argument.name)
            spot = _Spot("inputs", argument.name, "argument", f"{self._function.path}:{argument.line}")
            variable = self._variable(spot, hint, argument.annotation, optional)
            if variable is not None:
                default = _json_default(argument.default, variable) if has_default else None
                found[argument.name] = dataclasses.replace(variable, default=default)
        names = {argument.name for argument in self._function.own()}
        described = self._described.inputs if self._described else ()
        for variable in described:
            if variable.name not in names:
                self._problems.append(
                    f"{self._path}:{variable.line}: the docstring describes inputs.{variable.name}, but the"
                    f" function in {self._place} has no such argument: {self._advice(variable.name)}"
                )
        order = [variable.name for variable in described] or list(found)
        return tuple(found[name] for name in order if name in found), tuple(absent)

    @staticmethod
    def _advice(name: str) -> str:
        if name in ARGUMENTS:
            return f"{name} is an argument of every call, give the input another name"
        if not name.isidentifier():
            return "an argument cannot have this name, give the input another one or take all of them as 'inputs'"
        return "add it, or remove the two lines"

    def _hint(self, reader: HintReader, argument: Argument) -> Optional[Hint]:
        """The hint of an argument, without alternatives if it says nothing and the docstring does; None if it is wrong,
        or not known here."""
        place = f"{self._function.path}:{argument.line}: argument {argument.name}"
        if not _NAME.fullmatch(argument.name):
            self._problems.append(f"{place}: names of inputs are of A-Z, a-z, 0-9 and _")
            return None
        if argument.annotation is MISSING:
            if self._described is None:
                self._problems.append(
                    f"{place} has no type hint: write for example '{argument.name}: str'. A function that takes all"
                    " inputs as one list calls it 'inputs', and describes them in the docstring"
                )
                return None
            return Hint(())
        return self._read(reader, argument.annotation, place)

    def _read(self, reader: HintReader, annotation: Any, place: str) -> Optional[Hint]:
        try:
            hint = reader.hint(annotation)
        except Unknown:
            return None if self._described is None else Hint((), known=False)
        except NotUnderstood as error:
            self._problems.append(f"{place}: its type hint {shown(annotation)} {error}")
            return None
        if not hint.alternatives and self._described is None:
            self._problems.append(
                f"{place}: its type hint {shown(annotation)} does not say what it is: write a type, or describe it in"
                " the docstring"
            )
            return None
        return hint

    def _check_own(self, reader: HintReader, argument: Argument) -> None:
        """An argument of every call whose hint says that it is meant as an input."""
        if argument.name == "model" or argument.annotation is MISSING:
            return
        try:
            alternatives = reader.hint(argument.annotation).alternatives
        except (NotUnderstood, Unknown):
            return
        if any(not one.form.rank or argument.name == "context" for one in alternatives):
            kind = (
                "facts about the call"
                if argument.name == "context"
                else f"the request's list of {argument.name}"
            )
            self._problems.append(
                f"{self._function.path}:{argument.line}: argument {argument.name} is {shown(argument.annotation)}, but"
                f" the function gets {kind} by this name: give an input another name, or remove the hint"
            )

    # --- outputs ----------------------------------------------------------------------------------------------

    def _outputs(self) -> tuple[tuple[Variable, ...], ResultForm, bool]:
        """The outputs, how the function gives them, and whether one after the other."""
        described = self._described.outputs if self._described else ()
        reader = HintReader(self._function.scope, True)
        place = f"{self._function.path}:{self._function.returns_line}"
        returns = self._function.returns
        if returns is MISSING:
            if self._described is None:
                self._problems.append(
                    f"{place}: the function has no return annotation: write for example '-> str'"
                )
            return described, ResultForm.LISTED, False
        try:
            kind, yields = self._result_kind(reader)
            outputs, result = self._of_kind(reader, kind, place)
        except Unknown:
            return described, ResultForm.LISTED, False
        except NotUnderstood as error:
            self._problems.append(f"{place}: the return annotation {shown(returns)} {error}")
            return described, ResultForm.LISTED, False
        if yields:
            outputs = tuple(self._yielded(output, place) for output in outputs)
        return outputs, result, yields

    def _result_kind(self, reader: HintReader) -> tuple[Any, bool]:
        """What the function gives, or yields: the annotation without what is awaited and iterated over."""
        kind, yields = reader.bare(self._function.returns), False
        if typing.get_origin(kind) in _AWAITABLES:
            kind = reader.bare(typing.get_args(kind)[-1])
        origin = typing.get_origin(kind) or kind
        if origin in _ITERATORS or (origin is collections.abc.Iterable and self._function.yields):
            arguments = typing.get_args(kind)
            if not arguments:
                raise NotUnderstood("does not say what is yielded: write for example Iterator[str]")
            kind, yields = reader.bare(arguments[0]), True
        elif self._function.yields and not _says_nothing(kind):
            raise NotUnderstood("is not what a function that yields gives: write Iterator[...] around it")
        return kind, yields

    def _of_kind(self, reader: HintReader, kind: Any, place: str) -> tuple[tuple[Variable, ...], ResultForm]:
        described = self._described.outputs if self._described else ()
        if has_members(kind):
            return self._of_members(reader, kind), ResultForm.MEMBERS
        if self._described is not None and _says_nothing(kind):
            return described, ResultForm.LISTED
        item = _item_of_table(kind)
        if self._described is not None and item is not None and not self._is_one_object():
            spots = (_Spot("outputs", one.name, "output", place) for one in described)
            hint = reader.hint(item)
            found = (self._variable(spot, hint, item, None, partly=True) for spot in spots)
            return tuple(one for one in found if one is not None), ResultForm.LISTED
        hint = reader.hint(kind)
        if not hint.alternatives:
            raise NotUnderstood("does not say what the result is: write a type")
        name = described[0].name if described else RESULT
        if self._described is not None and len(described) != 1:
            names = ", ".join(f"outputs.{one.name}" for one in described) or "no outputs"
            self._problems.append(
                f"{place}: the return annotation {shown(kind)} is one output, but the docstring in {self._docstring}"
                f" describes {names}: return a dataclass with these members, or describe one output"
            )
            return described, ResultForm.LISTED
        remark = dataclasses.replace(hint, description=hint.description or self._remarks.result)
        variable = self._variable(_Spot("outputs", name, "output", place), remark, kind, hint.optional)
        return (() if variable is None else (variable,)), ResultForm.SINGLE

    def _is_one_object(self) -> bool:
        """Does the docstring describe one output, an object?"""
        outputs = self._described.outputs if self._described else ()
        return len(outputs) == 1 and outputs[0].datatypes == (Datatype.DICT,)

    def _of_members(self, reader: HintReader, kind: Any) -> tuple[Variable, ...]:
        described = {one.name: one for one in self._described.outputs} if self._described else {}
        found: dict[str, Variable] = {}
        places: dict[str, str] = {}
        for member in reader.members(kind):
            place = places[member.name] = self._function.member_place(member)
            with reader.scope_of(member):
                hint = self._read(
                    reader, member.annotation, f"{place}: output {member.name} of {kind.__name__}"
                )
            if hint is None:
                continue
            if not _NAME.fullmatch(member.name):
                self._problems.append(f"{place}: names of outputs are of A-Z, a-z, 0-9 and _")
                continue
            hint = dataclasses.replace(hint, description=member.description or hint.description)
            spot = _Spot("outputs", member.name, "output", place)
            optional = not member.required or (hint.optional if hint.known else None)
            variable = self._variable(spot, hint, member.annotation, optional)
            if variable is not None:
                found[member.name] = variable
        for name, variable in described.items():
            if name not in places:
                self._problems.append(
                    f"{self._path}:{variable.line}: the docstring describes outputs.{name}, but {kind.__name__},"
                    f" which the function in {self._place} returns, has no such member: add it, or remove the two lines"
                )
        return tuple(found[name] for name in (described or found) if name in found)

    def _yielded(self, output: Variable, place: str) -> Variable:
        if Datatype.FILE in output.datatypes:
            self._problems.append(
                f"{place}: output {output.name} is a FILE, which cannot be yielded: return it from a function that does"
                " not yield"
            )
        forms = tuple(dataclasses.replace(form, yielded=True) for form in output.forms)
        return dataclasses.replace(output, forms=forms)

    # --- one variable -----------------------------------------------------------------------------------------

    def _variable(
        self, spot: _Spot, hint: Hint, annotation: Any, optional: Optional[bool], partly: bool = False
    ) -> Optional[Variable]:
        """The variable by its hint and by the docstring, where that describes it; None if they disagree. ``optional``
        is None if the hint does not say it; ``partly``: other variables may be of its other alternatives."""
        if self._described is None:
            forms = tuple(one.form for one in hint.alternatives for _ in one.defaults)
            described = self._remarks.arguments.get(spot.name, "") if spot.side == "inputs" else ""
            return Variable(spot.name, hint.defaults, bool(optional), hint.description or described, forms)
        sides = {"inputs": self._described.inputs, "outputs": self._described.outputs}
        variable = next((one for one in sides[spot.side] if one.name == spot.name), None)
        if variable is None:
            self._problems.append(
                f"{spot}: {spot.noun} {spot.name} is not described in the docstring in {self._docstring}: add"
                f" ':param {spot.side}.{spot.name}:' and ':type {spot.side}.{spot.name}:' lines, or remove it"
            )
            return None
        there = f"in {self._path}:{variable.line}"
        if optional is not None and optional != variable.optional:
            self._problems.append(
                f"{spot}: {spot.noun} {spot.name} is {'optional' if optional else 'required'} by its type hint"
                f"{' or default' if spot.side == 'inputs' else ''}, and {'required' if optional else 'optional'} by the"
                f" docstring {there}: {_optional_advice(spot, optional)}"
            )
        chosen = [_alternative(hint, datatype) for datatype in variable.datatypes]
        unused = (
            []
            if partly
            else [one for one in hint.alternatives if not {*one.accepted} & {*variable.datatypes}]
        )
        if hint.alternatives and (None in chosen or unused):
            words = " or ".join(datatype.value for datatype in variable.datatypes)
            self._problems.append(
                f"{spot}: {spot.noun} {spot.name} is {shown(annotation)} by its type hint, and {words} by the docstring"
                f" {there}: write {_as_hint(variable)} here, or {_as_docstring(hint)} there"
            )
            return None
        forms = tuple(one.form for one in chosen if one is not None)
        self._check_arrays(spot, annotation, forms, variable.datatypes)
        return dataclasses.replace(variable, forms=forms)

    def _check_arrays(
        self, spot: _Spot, annotation: Any, forms: tuple[Form, ...], datatypes: tuple[Datatype, ...]
    ) -> None:
        """The line for arrays is for inputs whose hints do not say that they are lists."""
        lists = any(
            form.rank and not form.array and datatype.numeric for form, datatype in zip(forms, datatypes)
        )
        if spot.side == "inputs" and lists and self._arrays is not None:
            self._problems.append(
                f"{spot}: argument {spot.name} is {shown(annotation)} by its type hint, and an array by ':type inputs:"
                f" arrays' in {self._path}:{self._arrays}: write numpy.ndarray here, or remove that line"
            )


@dataclasses.dataclass(frozen=True)
class _Spot:
    """A variable at its place among the hints."""

    side: str
    name: str
    noun: str
    place: str

    def __str__(self) -> str:
        return self.place


def _alternative(hint: Hint, datatype: Datatype) -> Optional[Alternative]:
    """The alternative that data of a datatype are of."""
    accepting = [one for one in hint.alternatives if datatype in one.accepted]
    return next(iter(accepting or [one for one in hint.alternatives if datatype in one.beside]), None)


def _optional_advice(spot: _Spot, optional: bool) -> str:
    if optional:
        return "add ', optional' there"
    here = (
        "give it a default, or write Optional[...] here"
        if spot.side == "inputs"
        else "write Optional[...] here"
    )
    return f"{here}, or remove ', optional' there"


def _as_hint(variable: Variable) -> str:
    """A hint that agrees with the docstring."""
    words = (
        _PYTHON.get(datatype) or ("int" if datatype.whole else "float") for datatype in variable.datatypes
    )
    return " | ".join(dict.fromkeys(words))


def _as_docstring(hint: Hint) -> str:
    """A type of the docstring that agrees with the hint."""
    return " or ".join(datatype.value for datatype in dict.fromkeys(hint.defaults))


def _says_nothing(kind: Any) -> bool:
    """Is it an annotation of results in general, of which the docstring says what is in them?"""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    general = (list, dict, collections.abc.Mapping, collections.abc.Sequence)
    if origin in general and arguments:
        return arguments[-1] in (Any, object) or _says_nothing(arguments[-1])
    return origin in (Any, object, *general)


def _item_of_table(kind: Any) -> Any:
    """The annotation of the values of a mapping of names to values; None for all else."""
    arguments = typing.get_args(kind)
    is_table = typing.get_origin(kind) in (dict, collections.abc.Mapping) and len(arguments) == 2
    return arguments[1] if is_table and arguments[0] is str else None


def _json_default(default: Any, variable: Variable) -> Any:
    """The default as JSON, if it is of the variable's datatypes; else None."""
    value = value_of(default)
    elements = list(value) if isinstance(value, (list, tuple)) else [value]
    kinds = {
        kind
        for datatype in variable.datatypes
        for kind in ((int, float, bool) if datatype.numeric else (str,) if datatype is Datatype.STR else ())
    }
    finite = all(type(one) in kinds and (type(one) is not float or math.isfinite(one)) for one in elements)
    return (elements if isinstance(value, (list, tuple)) else value) if finite else None
