"""Type hints -> what they say of a variable. Reads the objects that annotations are, and texts of them.

The table of what is understood is in the documentation of the serving library; all else is refused with what to write
instead. Nothing of numpy or pydantic is imported: what is not imported by the developer's code is in no hint.
"""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import os
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from .datatypes import Datatype
from .forms import Form
from .shapes import MAX_RANK
from .values import NULL, Choice, Dictionary, Either, Items, Member, Model, Plain, Record, Value

FLOATS = tuple(Datatype(name) for name in ("FP64", "FP32", "FP16", "BF16"))
INTEGERS = tuple(
    Datatype(name) for name in ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
)
_NUMBERS = (*FLOATS, *INTEGERS, Datatype.BOOL)
_NUMPY_NAMES = {
    "bool": Datatype.BOOL,
    "bool_": Datatype.BOOL,
    **{f"float{bits}": Datatype(f"FP{bits}") for bits in (16, 32, 64)},
    **{f"int{bits}": Datatype(f"INT{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": Datatype(f"UINT{bits}") for bits in (8, 16, 32, 64)},
}
_NUMPY_KINDS = {"floating": FLOATS, "integer": INTEGERS, "number": (*FLOATS, *INTEGERS), "generic": _NUMBERS}
_SCALARS = {str: (Datatype.STR,), int: INTEGERS, float: FLOATS, bool: (Datatype.BOOL,)}
_SEQUENCES: dict[Any, Callable[..., Any]] = {
    list: list,
    tuple: tuple,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
}
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_PATHS = (pathlib.Path, pathlib.PurePath, pathlib.PosixPath, pathlib.PurePosixPath, os.PathLike)
_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final")
_INSTEAD = {
    "bytes": "write pathlib.Path for a file, or str for a text",
    "bytearray": "write pathlib.Path for a file, or str for a text",
    "set": "write list",
    "frozenset": "write list",
    "datetime": "write str and convert it",
    "date": "write str and convert it",
    "Decimal": "write float or str and convert it",
    "UUID": "write str and convert it",
    "complex": "write list[float] and convert it",
    "Tensor": "write numpy.ndarray and convert it",
    "DataFrame": "write list[dict] and convert it",
    "Image": "write pathlib.Path and open it",
}
MOST_NESTED = 50  # levels; an alias that names itself has no end
_ENDLESS = f"has itself within itself, or more than {MOST_NESTED} levels: write dict there"
_KNOWN = (
    "known are str, int, float, bool, pathlib.Path, numpy.ndarray and numpy's types of numbers, list, tuple[X, ...],"
    " dict, Literal, enumerations, dataclasses, TypedDict, NamedTuple, models of pydantic 2, and unions of them"
)


class NotUnderstood(Exception):
    """Why an annotation is not understood, and what to write instead, as the rest of a sentence about it."""


class Unknown(Exception):
    """An annotation that names what is not known here, so that nothing can be said of it."""


@dataclasses.dataclass(frozen=True)
class Alternative:
    """One kind of data that a hint allows: in the docstring it may be of any of ``accepted``, and beside one of them of
    those ``beside``; without a docstring it is of the ``defaults``."""

    defaults: tuple[Datatype, ...]
    accepted: tuple[Datatype, ...]
    form: Form
    beside: tuple[Datatype, ...] = ()


@dataclasses.dataclass(frozen=True)
class Hint:
    """What an annotation says of a variable; without alternatives it says nothing of its type. ``known``: it can be
    read here."""

    alternatives: tuple[Alternative, ...]
    optional: bool = False
    description: str = ""
    known: bool = True

    @property
    def defaults(self) -> tuple[Datatype, ...]:
        return tuple(datatype for one in self.alternatives for datatype in one.defaults)


@dataclasses.dataclass(frozen=True)
class ClassMember:
    """One member of a class, as its annotation and its defaults tell. ``owner``: the class that declares it."""

    name: str
    annotation: Any
    required: bool
    description: str
    owner: type


class AnnotationScope:
    """The names that texts of annotations mean: those of the module of a function or class."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def evaluate(self, text: str) -> Any:
        """Raises NotUnderstood, Unknown."""
        try:
            tree = ast.parse(text.strip(), mode="eval")
            if sys.version_info < (3, 10):
                tree = ast.fix_missing_locations(_Unions().visit(tree))
            # the developer's own code, in the process that runs it
            return eval(  # noqa: S307
                compile(tree, "annotation", "eval"), {**self._names, _UNION: typing.Union}
            )
        except Exception as error:
            raise not_evaluated(error) from error

    def of_class(self, owner: type) -> AnnotationScope:
        """The scope of annotations in a class."""
        module = sys.modules.get(owner.__module__)
        return AnnotationScope({**vars(module), **vars(owner)} if module else vars(owner))


def not_evaluated(error: BaseException) -> NotUnderstood:
    """Why the text of an annotation gives no object."""
    words = f"cannot be evaluated ({type(error).__name__}: {error})"
    if not isinstance(error, NameError):
        return NotUnderstood(words)
    return NotUnderstood(
        f"{words}: import what it names at the top of the module, outside of 'if TYPE_CHECKING'"
    )


_UNION = "__prichal_union__"


class _Unions(ast.NodeTransformer):
    """``X | Y`` as a Union, which Python 3.9 cannot evaluate."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        members = ast.Tuple([node.left, node.right], ast.Load())
        return ast.Subscript(ast.Name(_UNION, ast.Load()), members, ast.Load())


class HintReader:
    """Reads the annotations of one function; ``is_output``: of its result."""

    def __init__(self, scope: AnnotationScope, is_output: bool) -> None:
        self._scope = scope
        self._is_output = is_output
        self._within: tuple[type, ...] = ()  # classes whose members are being read
        self._depth = 0  # of what is being read
        self._deepest = 0  # that it has been since the class that is being read began
        self._records: dict[
            Any, tuple[Record, int]
        ] = {}  # classes that were read, and how many levels are in each

    # --- what a variable is -----------------------------------------------------------------------------------

    def hint(self, annotation: Any) -> Hint:
        """Raises NotUnderstood, Unknown."""
        annotation, description = self._bare(annotation)
        if annotation in (Any, object):
            return Hint((), description=description)
        members = self._members(annotation)
        with self._one_level_deeper():
            found = [one for each in members if each is not type(None) for one in self._alternatives(each)]
        if not found:
            raise NotUnderstood("is None alone, which is not data")
        taken: set[Datatype] = set()
        for one in found:
            shared = taken & {*one.accepted}
            if shared and not (len(one.accepted) > 1 and taken.isdisjoint(one.defaults)):
                words = " and ".join(sorted(datatype.value for datatype in shared))
                raise NotUnderstood(
                    f"has alternatives that are both {words} and cannot be told apart: write one"
                )
            taken |= {*one.defaults}
        return Hint(tuple(found), type(None) in members, description)

    def bare(self, annotation: Any) -> Any:
        """An annotation without what says nothing of the data, such as Annotated. Raises NotUnderstood, Unknown."""
        return self._bare(annotation)[0]

    @contextlib.contextmanager
    def _one_level_deeper(self) -> Iterator[None]:
        """Raises NotUnderstood."""
        if self._depth == MOST_NESTED:
            raise NotUnderstood(_ENDLESS)
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        try:
            yield
        finally:
            self._depth -= 1

    def _bare(self, annotation: Any) -> tuple[Any, str]:
        """Without Annotated, whose first text is the description, and what else says nothing of the data."""
        description = ""
        for _ in range(MOST_NESTED):
            if annotation is None:
                return type(None), description
            if isinstance(annotation, str):
                annotation = self._scope.evaluate(annotation)
            elif isinstance(annotation, typing.ForwardRef):
                annotation = self._scope.evaluate(annotation.__forward_arg__)
            elif hasattr(annotation, "__metadata__"):
                description = description or _described(annotation.__metadata__)
                annotation = annotation.__origin__
            elif hasattr(annotation, "__supertype__"):  # NewType
                annotation = annotation.__supertype__
            elif type(annotation).__name__ == "TypeAliasType":
                annotation = annotation.__value__
            elif getattr(typing.get_origin(annotation), "_name", None) in _WRAPPERS:
                (annotation,) = typing.get_args(annotation)
            else:
                return _hashable(annotation), description
        raise NotUnderstood(_ENDLESS)

    def _members(self, annotation: Any) -> list[Any]:
        """The members of a union, and of unions in it; the only one of other annotations."""
        annotation, _ = self._bare(annotation)
        if typing.get_origin(annotation) in _UNIONS:
            with self._one_level_deeper():
                return [one for member in typing.get_args(annotation) for one in self._members(member)]
        if typing.get_origin(annotation) is typing.Literal and None in typing.get_args(annotation):
            rest = tuple(value for value in typing.get_args(annotation) if value is not None)
            return [type(None), *([typing.Literal[rest]] if rest else [])]
        return [annotation]

    def _alternatives(self, annotation: Any) -> Iterator[Alternative]:
        origin = typing.get_origin(annotation) or annotation
        arguments = typing.get_args(annotation)
        choices = self._choices(annotation)
        if choices:
            yield from _of_choices(*choices)
        elif annotation in _SCALARS:
            yield _of_numbers(_SCALARS[annotation], Form(0, make=float if annotation is float else None))
        elif _is_numpy(origin):
            yield self._of_numpy(annotation, origin, arguments)
        elif origin in _PATHS:
            form = Form(0, make=pathlib.Path)
            yield Alternative((Datatype.FILE,), (Datatype.FILE,), form)
        elif origin in _SEQUENCES:
            yield from self._of_sequence(origin, arguments)
        elif origin in _MAPPINGS or has_members(annotation):
            value = None if origin in _MAPPINGS and not arguments else self.value(annotation)
            yield Alternative((Datatype.DICT,), (Datatype.DICT,), Form(0, value=value))
        else:
            raise self._refusal(annotation)

    def _of_sequence(self, origin: Any, arguments: tuple[Any, ...]) -> Iterator[Alternative]:
        hint = self.hint(self._item(origin, arguments, "list[float]"))
        if hint.optional and not self._is_output:
            raise NotUnderstood(
                "has elements that may be None, which no request can carry: write them without None"
            )
        if not hint.alternatives:
            raise NotUnderstood("does not say what its elements are: write for example list[float]")
        for one in hint.alternatives:
            form = one.form
            if Datatype.FILE in one.accepted:
                raise NotUnderstood("is a list of files: write an argument or output for each file")
            if form.array or form.rank is None:
                raise NotUnderstood("is a list of arrays: write numpy.ndarray, with one dimension more")
            if form.rank and (Datatype.DICT in one.accepted or form.rank >= MAX_RANK):
                raise NotUnderstood("is nested too deeply: write dict")
            sequences = (_SEQUENCES[origin], *form.sequences)
            yield dataclasses.replace(
                one, form=dataclasses.replace(form, rank=form.rank + 1, sequences=sequences)
            )

    @staticmethod
    def _item(origin: Any, arguments: tuple[Any, ...], example: str) -> Any:
        """The annotation of the elements of a sequence."""
        if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
            return arguments[0]
        if origin is tuple and arguments:
            raise NotUnderstood(
                "is a tuple of a fixed length: write tuple[X, ...], or a dataclass or NamedTuple with names"
            )
        if not arguments:
            raise NotUnderstood(f"does not say what its elements are: write for example {example}")
        return arguments[0]

    def _of_numpy(self, annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Alternative:
        name = origin.__name__
        if name != "ndarray":
            datatypes = _numpy_datatypes(origin)
            make = origin if name in _NUMPY_NAMES else None
            return Alternative(datatypes, datatypes, Form(0, make=make))
        rank, datatypes = None, _NUMBERS
        if len(arguments) == 2:
            sizes, dtype = arguments
            of_sizes = typing.get_args(sizes) if typing.get_origin(sizes) is tuple else (...,)
            rank = None if ... in of_sizes else len(of_sizes)
            element = (typing.get_args(dtype) or (Any,))[0]
            datatypes = (
                _NUMBERS
                if element is Any or isinstance(element, typing.TypeVar)
                else _numpy_datatypes(element)
            )
        return Alternative(datatypes, datatypes, Form(rank, array=True))

    # --- values within an object ------------------------------------------------------------------------------

    def value(self, annotation: Any) -> Value:
        """What is within an object. Raises NotUnderstood, Unknown."""
        annotation, _ = self._bare(annotation)
        if annotation in (Any, object):
            return Value()
        members = self._members(annotation)
        with self._one_level_deeper():
            kinds = tuple(self._value(member) for member in members)
        return kinds[0] if len(kinds) == 1 else Either(kinds)

    def _value(self, annotation: Any) -> Value:
        origin = typing.get_origin(annotation) or annotation
        arguments = typing.get_args(annotation)
        choices = self._choices(annotation)
        if choices:
            return Choice(*choices)
        if annotation is type(None):
            return NULL
        if annotation in _SCALARS:
            return Plain(annotation)
        if origin in _SEQUENCES:
            if not arguments:
                return Items(Value(), _SEQUENCES[origin])
            return Items(self.value(self._item(origin, arguments, "list[str]")), _SEQUENCES[origin])
        if origin in _MAPPINGS:
            return self._table(arguments)
        if has_members(annotation) or is_model(annotation):
            return self._record(annotation)
        if _is_numpy(origin) and self._is_output:
            return Value()
        if _is_numpy(origin) or origin in _PATHS:
            raise NotUnderstood(
                f"has {shown(annotation)} within an object: arrays and files are arguments and outputs of their own"
            )
        raise self._refusal(annotation)

    def _table(self, arguments: tuple[Any, ...]) -> Value:
        if not arguments:
            return Dictionary(Value())
        if len(arguments) != 2:
            raise NotUnderstood(
                "does not say what its keys and values are: write for example dict[str, float]"
            )
        key, item = arguments
        if self._bare(key)[0] is not str:
            raise NotUnderstood("has keys other than str, which JSON does not have: write dict[str, ...]")
        return Dictionary(self.value(item))

    def _record(self, annotation: Any) -> Value:
        if is_model(annotation):
            return Model(annotation)
        if annotation in self._within:
            raise NotUnderstood(f"has {annotation.__name__} within itself: write dict there")
        known = self._records.get(annotation)
        if known is None:
            known = self._records[annotation] = self._read_record(annotation)
        record, levels = known
        if self._depth + levels > MOST_NESTED:
            raise NotUnderstood(_ENDLESS)
        self._deepest = max(self._deepest, self._depth + levels)
        return record

    def _read_record(self, annotation: Any) -> tuple[Record, int]:
        """A class, and how many levels are in it. Each is read once: with two members of one class in each of them, the
        last of 20 classes would be read a million times."""
        self._check_constructor(annotation)
        outer, self._within = self._within, (*self._within, annotation)
        deepest, self._deepest = self._deepest, self._depth
        try:
            members = tuple(self._member(member) for member in self.members(annotation))
        finally:
            self._within = outer
            levels, self._deepest = self._deepest - self._depth, max(deepest, self._deepest)
        return Record(annotation.__name__, members, annotation), levels

    def _member(self, member: ClassMember) -> Member:
        with self.scope_of(member):
            return Member(member.name, self.value(member.annotation), member.required, member.description)

    def _check_constructor(self, kind: Any) -> None:
        """A class that is made of other arguments than its members cannot be made of an object."""
        parameters = getattr(kind, "__dataclass_fields__", {}).values()
        other = [
            field.name for field in parameters if getattr(field._field_type, "name", "") == "_FIELD_INITVAR"
        ]
        if other and not self._is_output:
            raise NotUnderstood(f"is a dataclass with InitVar ({', '.join(other)}): write a member for it")

    # --- classes ----------------------------------------------------------------------------------------------

    def scope_of(self, member: ClassMember) -> _MemberScope:
        """Read annotations in the scope of a member's class, within ``with``."""
        return _MemberScope(self, member)

    def members(self, kind: Any) -> Iterator[ClassMember]:
        """The members of a class that has_members. Raises NotUnderstood, Unknown."""
        if is_model(kind):
            for name, field in kind.model_fields.items():
                required = self._is_output or bool(field.is_required())
                yield ClassMember(name, field.annotation, required, field.description or "", kind)
        elif dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                if field.init or self._is_output:
                    missing = field.default is field.default_factory is dataclasses.MISSING
                    description = str(field.metadata.get("description", ""))
                    yield self._of_class(
                        kind, field.name, field.type, missing or self._is_output, description
                    )
        elif is_typed_dict(kind):
            for name, annotation in kind.__annotations__.items():
                yield self._of_class(kind, name, annotation, self._is_required(kind, name, annotation))
        else:
            for name in kind._fields:
                required = name not in kind._field_defaults or self._is_output
                yield self._of_class(kind, name, _annotations(kind)[name], required)

    def _of_class(
        self, kind: Any, name: str, annotation: Any, required: bool, description: str = ""
    ) -> ClassMember:
        owner = next((base for base in kind.__mro__ if name in _own_annotations(base)), kind)
        member = ClassMember(name, annotation, required, description, owner)
        if not description:
            with self.scope_of(member):
                member = dataclasses.replace(member, description=self._bare(annotation)[1])
        return member

    def _is_required(self, kind: Any, name: str, annotation: Any) -> bool:
        with self.scope_of(ClassMember(name, annotation, True, "", kind)):
            for _ in range(MOST_NESTED):
                if isinstance(annotation, (str, typing.ForwardRef)):
                    text = annotation if isinstance(annotation, str) else annotation.__forward_arg__
                    annotation = self._scope.evaluate(text)
        stated = getattr(typing.get_origin(annotation), "_name", None)
        return name in kind.__required_keys__ if stated not in _WRAPPERS[:2] else stated == "Required"

    # --- parts ------------------------------------------------------------------------------------------------

    def _choices(self, annotation: Any) -> Optional[tuple[tuple[Any, ...], Any]]:
        """The values of a Literal or an enumeration, and what makes a member of them."""
        make = None
        if typing.get_origin(annotation) is typing.Literal:
            values = typing.get_args(annotation)
        elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            values, make = tuple(member.value for member in annotation), annotation
            if not values:
                raise NotUnderstood(f"is {annotation.__name__}, an enumeration without members")
        else:
            return None
        if any(type(value) not in (str, int, bool) for value in values):
            raise NotUnderstood(f"is {shown(annotation)}: its values must be texts, integers or truth values")
        return values, make

    def _refusal(self, annotation: Any) -> NotUnderstood:
        name = getattr(annotation, "__name__", "")
        if hasattr(annotation, "__fields__") and hasattr(annotation, "parse_obj"):
            if is_model(annotation):
                return NotUnderstood(f"is {name}, a RootModel: write what is in it")
            return NotUnderstood(
                f"is {name}, a model of pydantic 1: install pydantic 2, or write a dataclass"
            )
        return NotUnderstood(f"is {shown(annotation)}, which is not understood: {_INSTEAD.get(name, _KNOWN)}")


class _MemberScope:
    """Has a reader read annotations in the scope of a member's class."""

    def __init__(self, reader: HintReader, member: ClassMember) -> None:
        self._reader = reader
        self._outer = reader._scope
        self._inner = reader._scope.of_class(member.owner)

    def __enter__(self) -> None:
        self._reader._scope = self._inner

    def __exit__(self, *_: object) -> None:
        self._reader._scope = self._outer


def _hashable(annotation: Any) -> Any:
    try:
        hash(annotation)
    except TypeError:
        raise NotUnderstood(f"is {shown(annotation)}, which is not a type: {_KNOWN}") from None
    return annotation


_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))


def has_members(kind: Any) -> bool:
    """Is it a class whose instances have members with hints?"""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or (is_model(kind) and not getattr(kind, "__pydantic_root_model__", False))
        or is_typed_dict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_field_defaults") and bool(_annotations(kind)))
    )


def is_model(kind: Any) -> bool:
    """Is it a model of pydantic 2?"""
    return isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_fields")


def is_typed_dict(kind: Any) -> bool:
    """Is it a TypedDict, whose instances are mappings?"""
    return isinstance(kind, type) and hasattr(kind, "__required_keys__") and hasattr(kind, "__total__")


def _annotations(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        found.update(_own_annotations(base))
    return found


def _own_annotations(kind: type) -> Mapping[str, Any]:
    """The annotations of a class without those of its bases. Raises NotUnderstood."""
    read = getattr(inspect, "get_annotations", None)  # from Python 3.10 on, which will evaluate them lazily
    try:
        own: Mapping[str, Any] = read(kind) if read else vars(kind).get("__annotations__", {})
    except Exception as error:
        raise not_evaluated(error) from error
    return own


def shown(annotation: Any) -> str:
    """An annotation as it is written, nearly."""
    if isinstance(annotation, (str, typing.ForwardRef)):
        return annotation if isinstance(annotation, str) else annotation.__forward_arg__
    if isinstance(annotation, type) and not typing.get_args(annotation):
        module = "" if annotation.__module__ in ("builtins", "__main__") else f"{annotation.__module__}."
        return f"{module}{annotation.__qualname__}"
    text = repr(annotation).replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "None")
    return text if len(text) <= 100 else f"{text[:100]}..."


def _described(metadata: tuple[Any, ...]) -> str:
    """The first text in the metadata of Annotated, or that of a Doc or of a field of pydantic."""
    for one in metadata:
        text = (
            one if isinstance(one, str) else getattr(one, "documentation", getattr(one, "description", None))
        )
        if isinstance(text, str):
            return " ".join(text.split())
    return ""


def _of_numbers(datatypes: tuple[Datatype, ...], form: Form) -> Alternative:
    beside = INTEGERS if datatypes is FLOATS else ()
    return Alternative(datatypes[:1], datatypes, form, beside)


def _of_choices(values: tuple[Any, ...], make: Any) -> Iterator[Alternative]:
    for kind in (str, int, bool):
        of_kind = tuple(value for value in values if type(value) is kind)
        if of_kind:
            yield _of_numbers(_SCALARS[kind], Form(0, of_kind, make=make))


def _is_numpy(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.partition(".")[0] == "numpy"


def _numpy_datatypes(kind: Any) -> tuple[Datatype, ...]:
    name = getattr(kind, "__name__", "")
    if name in _NUMPY_NAMES:
        return (_NUMPY_NAMES[name],)
    if name in _NUMPY_KINDS:
        return _NUMPY_KINDS[name]
    raise NotUnderstood(f"has numbers of numpy's type {shown(kind)}: write for example numpy.float32")
