"""The hints of a function in source text, without running any of it: what `controller.serving.annotations` reads from
the objects that annotations are at run time, it reads here from objects made in their place.

Known are the builtins, the modules of the standard library that annotations come from, numpy, pydantic, and what the
file itself defines at its top level. An annotation that names anything else is Unknown: only set-up can tell.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import os
import pathlib
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from controller.serving import docstring
from controller.serving.annotations import AnnotationScope, ClassMember, NotUnderstood, Unknown, not_evaluated
from controller.serving.hinted import MISSING, Argument, HintedFunction

Function = ast.FunctionDef | ast.AsyncFunctionDef


def function_of(module: ast.Module, node: Function, path: str) -> HintedFunction:
    """The function of a definition at the top level of a module."""
    scope = SourceScope(module, path)
    every = node.args
    positional = [*every.posonlyargs, *every.args]
    defaults = dict(zip(reversed(positional), reversed(every.defaults), strict=False))
    defaults |= {arg: value for arg, value in zip(every.kwonlyargs, every.kw_defaults, strict=True) if value}
    lines = docstring.lines_of(node)
    arguments = tuple(
        Argument(
            arg.arg,
            MISSING if arg.annotation is None else ast.unparse(arg.annotation),
            _default(defaults[arg]) if arg in defaults else MISSING,
            lines[arg.arg],
        )
        for arg in (*positional, *every.kwonlyargs)
    )
    returns = MISSING if node.returns is None else ast.unparse(node.returns)
    yields = any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in _own_parts(node))
    takes_any = every.kwarg is not None
    return HintedFunction(
        path, node.lineno, arguments, returns, lines["return"], yields, scope, scope.place, takes_any
    )


def _default(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return object()


def _own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a function without those of functions in it."""
    for part in ast.iter_child_nodes(node):
        if not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield part
            yield from _own_parts(part)


#: Parts of a type that a name stands for, with those of the names in it. Python compares types part by part, so names
#: that each use the one before twice would take twice as long with each line.
MOST_PARTS = 5000


class SourceScope(AnnotationScope):
    """The names that annotations in a module mean."""

    def __init__(self, module: ast.Module, path: str) -> None:
        super().__init__({})
        self._path = path
        self._bound = dict(_bindings(module))
        self._made: dict[str, Any] = {}
        self._lines: dict[type, dict[str, int]] = {}
        self._parts: dict[
            int, tuple[Any, int]
        ] = {}  # by identity, with the object, so that it stays the same

    def evaluate(self, text: str) -> Any:
        """Raises NotUnderstood, Unknown."""
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise not_evaluated(error) from error
        return self._value(node)

    def of_class(self, owner: type) -> AnnotationScope:
        return self

    def place(self, member: ClassMember) -> str:
        """File and line of a member of a class."""
        return f"{self._path}:{self._lines.get(member.owner, {}).get(member.name, 0)}"

    def _value(self, node: ast.expr) -> Any:
        """The object that an expression gives. Raises NotUnderstood, Unknown."""
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return self._named(name)
            case ast.Attribute(value, name):
                return _attribute(self._value(value), name)
            case ast.Tuple(elts) | ast.List(elts):
                return tuple(self._value(one) for one in elts)
        try:
            return self._computed(node)
        except (Unknown, NotUnderstood):
            raise
        except Exception as error:  # as at run time, or because what stands in its place cannot do it
            raise Unknown from error

    def _computed(self, node: ast.expr) -> Any:
        match node:
            case ast.Subscript(value, index):
                return self._value(value)[self._value(index)]
            case ast.BinOp(left, ast.BitOr(), right):
                return self._value(left) | self._value(right)
            case ast.Call(function, [ast.Constant(str(name)), of]) if self._value(function) is typing.NewType:
                return self._placed(typing.NewType(name, self._value(of)))
        return ast.literal_eval(node)  # an object, or a number below 0

    def _named(self, name: str) -> Any:
        if name in self._made:
            return self._known(self._made[name])
        if name not in self._bound:
            if hasattr(builtins, name) and None not in self._bound:
                return getattr(builtins, name)
            if None in self._bound:  # what a star has imported
                raise Unknown
            raise not_evaluated(NameError(f"name {name!r} is not defined"))
        self._made[name] = _UNKNOWN  # while it is made
        self._made[name] = self._made_of(self._bound[name])
        return self._known(self._made[name])

    @staticmethod
    def _known(made: Any) -> Any:
        if made is _UNKNOWN:
            raise Unknown
        return made

    def _made_of(self, node: Any) -> Any:
        try:
            match node:
                case _Import():
                    return node.value()
                case ast.ClassDef():
                    return self._class(node)
                case ast.expr():
                    made = self._value(node)
                    return made if self._parts_of(made) <= MOST_PARTS else _UNKNOWN
        except Exception:  # noqa: BLE001 -- as at run time, or because what stands in its place cannot do it
            return _UNKNOWN
        return _UNKNOWN

    def _parts_of(self, made: Any) -> int:
        known = self._parts.get(id(made))
        if known is None:
            parts = 1 + sum(map(self._parts_of, typing.get_args(made)))
            known = self._parts[id(made)] = (made, parts)
        return known[1]

    # --- classes ------------------------------------------------------------------------------------------------

    def _class(self, node: ast.ClassDef) -> Any:
        """A class as it is to its hints: its members have the same names, hints and defaults."""
        bases = [self._value(base) for base in node.bases]
        fields = list(_fields(node))
        is_dataclass = [self._is_dataclass(decorator) for decorator in node.decorator_list]
        if not all(is_dataclass):
            raise Unknown
        made: Any
        if any(base in _MODELS or hasattr(base, "model_fields") for base in bases):
            made = self._model(node, bases, fields)
        elif any(isinstance(base, type) and issubclass(base, enum.Enum) for base in bases):
            make: Any = enum.Enum
            made = make(node.name, dict(_constants(node)))
        elif is_dataclass:
            made = self._dataclass(node, bases, fields)
        else:
            keywords = {key.arg: self._value(key.value) for key in node.keywords if key.arg}
            annotations = {field.name: field.text for field in fields}
            body: dict[str, Any] = {"__annotations__": annotations, "__module__": __name__}
            body |= {
                field.name: _default(field.value)
                for field in fields
                if field.value and bases == [typing.NamedTuple]
            }
            made = types.new_class(node.name, tuple(bases), keywords, lambda names: names.update(body))
        self._lines[made] = {field.name: field.line for field in fields}
        return self._placed(made)

    def _placed(self, made: Any) -> Any:
        """It with the module that it stands for."""
        made.__module__ = self._path.removesuffix(".py")
        return made

    def _is_dataclass(self, node: ast.expr) -> bool:
        called = node.func if isinstance(node, ast.Call) else node
        return self._value(called) in (dataclasses.dataclass, _pydantic_dataclass)

    @staticmethod
    def _dataclass(node: ast.ClassDef, bases: list[Any], fields: list[_ClassField]) -> Any:
        made = [(field.name, field.text, field.made()) for field in fields]
        return dataclasses.make_dataclass(node.name, made, bases=tuple(bases), kw_only=True)

    @staticmethod
    def _model(node: ast.ClassDef, bases: list[Any], fields: list[_ClassField]) -> Any:
        inherited: dict[str, Any] = {}
        for base in reversed(bases):
            inherited |= getattr(base, "model_fields", {})
        own = {field.name: _ModelField(field.text) for field in fields if not field.name.startswith("_")}
        return type(node.name, tuple(bases), {"model_fields": {**inherited, **own}})


class _Unknown:
    """What is not known here."""


_UNKNOWN = _Unknown()


class _ModelBase:
    """In place of pydantic's BaseModel."""

    model_fields: typing.ClassVar[dict[str, Any]] = {}
    model_validate_json = None


def _pydantic_dataclass() -> None:
    """In place of pydantic's decorator."""


_MODELS = (_ModelBase,)


@dataclasses.dataclass(frozen=True)
class _ModelField:
    """In place of pydantic's FieldInfo. Whether it is required counts for inputs alone, which pydantic checks."""

    annotation: str
    description: str = ""

    def is_required(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class _ClassField:
    """One annotated member of a class."""

    name: str
    text: str
    value: ast.expr | None
    line: int

    def made(self) -> Any:
        """Its field of a dataclass."""
        if not isinstance(self.value, ast.Call) or not ast.unparse(self.value.func).endswith("field"):
            return dataclasses.field(default=dataclasses.MISSING if self.value is None else None)
        given = {key.arg: key.value for key in self.value.keywords}
        init = not (isinstance(given.get("init"), ast.Constant) and ast.literal_eval(given["init"]) is False)
        has_default = not given.keys().isdisjoint({"default", "default_factory"})
        return dataclasses.field(init=init, default=None if has_default else dataclasses.MISSING)


def _fields(node: ast.ClassDef) -> Iterator[_ClassField]:
    """Raises Unknown for what cannot be made in the same way."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            text = ast.unparse(item.annotation)
            if "InitVar" in text:
                raise Unknown
            if "ClassVar" not in text:
                yield _ClassField(item.target.id, text, item.value, item.lineno)


def _constants(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """The members of an enumeration. Raises Unknown if one is computed."""
    for item in node.body:
        if isinstance(item, ast.Assign):
            for target in item.targets:
                if not isinstance(target, ast.Name) or not isinstance(item.value, ast.Constant):
                    raise Unknown
                yield target.id, item.value.value


# --- names ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Import:
    module: str
    name: str | None = None

    def value(self) -> Any:
        """Raises Unknown."""
        found = _MODULES.get(self.module)
        if self.name is None:
            return _Module(self.module)
        if f"{self.module}.{self.name}" in _MODULES:
            return _Module(f"{self.module}.{self.name}")
        return _member(found, self.name)


@dataclasses.dataclass(frozen=True)
class _Module:
    """A module by its name; its parts are looked up when they are named."""

    name: str


def _attribute(value: Any, name: str) -> Any:
    if isinstance(value, _Module):
        return _Import(value.name, name).value()
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return getattr(value, name, _UNKNOWN)
    raise Unknown


def _member(module: Any, name: str) -> Any:
    found = module.get(name, _UNKNOWN) if isinstance(module, Mapping) else getattr(module, name, _UNKNOWN)
    if found is _UNKNOWN or isinstance(found, types.ModuleType):
        raise Unknown
    return found


def _bindings(module: ast.Module) -> Iterator[tuple[Any, Any]]:
    """The names of a module, each with what it is if it is bound once, at the top level; None, too, for a star."""
    seen: set[str] = set()
    for top in module.body:
        if isinstance(top, ast.If) and ast.unparse(top.test).endswith("TYPE_CHECKING") and not top.orelse:
            continue  # not there at run time
        for name, what in _bound_by(top):
            yield name, _UNKNOWN if name in seen else what
            seen.add(name)


def _bound_by(node: ast.stmt) -> Iterator[tuple[Any, Any]]:
    match node:
        case ast.Import(names):
            for alias in names:
                first = alias.name.partition(".")[0]
                yield alias.asname or first, _Import(alias.name if alias.asname else first)
        case ast.ImportFrom(source, names, level):
            for alias in names:
                what = _UNKNOWN if level else _Import(source or "", alias.name)
                yield (None, _UNKNOWN) if alias.name == "*" else (alias.asname or alias.name, what)
        case ast.ClassDef(name):
            yield name, node
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
            yield name, _UNKNOWN
        case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
            yield name, value
        case _:
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part.id, _UNKNOWN
                elif isinstance(part, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield part.name, _UNKNOWN
                elif isinstance(part, (ast.Import, ast.ImportFrom)):
                    yield from ((name, _UNKNOWN) for name, _ in _bound_by(part))


def _of_numpy(name: str) -> type:
    """A class in place of one of numpy."""
    members = {"__module__": "numpy", "__class_getitem__": classmethod(types.GenericAlias)}
    return type(name, (), members)


_NUMPY: dict[str, Any] = {
    name: _of_numpy(name)
    for name in (
        "ndarray", "dtype", "bool", "bool_", "floating", "integer", "number", "generic", "float16", "float32",
        "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "complex64", "complex128",
        "datetime64", "str_",
    )
}  # fmt: skip


_ELEMENT = typing.TypeVar("_ELEMENT")
_ND_ARRAY: Any = types.GenericAlias(
    _NUMPY["ndarray"], (tuple[Any, ...], types.GenericAlias(_NUMPY["dtype"], (_ELEMENT,)))
)
_EXTENSIONS = {name: getattr(typing, name) for name in typing.__all__}
_MODULES: dict[str, Any] = {
    "typing": _EXTENSIONS,
    "typing_extensions": _EXTENSIONS,
    "collections": collections,
    "collections.abc": collections.abc,
    "dataclasses": dataclasses,
    "datetime": datetime,
    "decimal": decimal,
    "enum": enum,
    "os": os,
    "pathlib": pathlib,
    "uuid": uuid,
    "numpy": _NUMPY,
    "numpy.typing": {"NDArray": _ND_ARRAY},
    "pydantic": {"BaseModel": _ModelBase},
    "pydantic.dataclasses": {"dataclass": _pydantic_dataclass},
}
