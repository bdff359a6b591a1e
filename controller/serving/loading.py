"""Set-up in the worker: the developer's function, its docstring and the model, or a SetupError that says in
words what to change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from . import chat, docstring, hinted, log
from .annotations import AnnotationScope, ClassMember
from .config import ServingSettings
from .hinted import ARGUMENTS, MISSING, Argument, DescribedFunction, Disagreement, HintedFunction
from .signature import Signature
from .streams import is_stream

_CACHED = type(functools.lru_cache(maxsize=None)(lambda: None))


class SetupError(Exception):
    """Why the component cannot serve, for the developer."""


@dataclasses.dataclass(frozen=True)
class InferenceFunction:
    """The function, which of ARGUMENTS it takes, and what its docstring and its hints say. ``numpy`` is the module if
    the function takes arrays; ``yields``: it is known to yield its results, for the description; ``absent``: inputs
    that are None if they are left out; ``refusals``: statuses with which it refuses calls, and when."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    signature: Signature
    model: Any
    numpy: Any = None
    yields: bool = False
    absent: tuple[str, ...] = ()
    refusals: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load(settings: ServingSettings, run_async: Callable[[Any], Any]) -> InferenceFunction:
    """Import the function and call the loader. ``run_async`` runs a coroutine to its end. Raises
    SetupError.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    function = _resolve(settings.inference, "inference")
    check_callable(function, settings.inference)
    described = _described(function, settings.inference)
    signature = described.signature
    _check_files(signature, settings)
    _check_chat(signature, settings)
    yields = described.yields or _is_generator_function(function)
    _check_batches(signature, yields, settings)
    inputs = tuple(variable.name for variable in signature.inputs) if signature.by_name else ()
    arguments = accepted_arguments(function, settings.inference, inputs)
    numpy = _numpy(settings.inference) if docstring.takes_arrays(signature) else None
    model = _model(settings, run_async)
    refusals = docstring.refusals(_docstring(_described_layer(function), settings.inference)[0])
    return InferenceFunction(
        settings.inference, function, arguments, signature, model, numpy, yields, described.absent, refusals
    )


def _is_generator_function(function: Any) -> bool:
    *_, innermost = layers(function)
    return inspect.isgeneratorfunction(innermost) or inspect.isasyncgenfunction(innermost)


def _numpy(reference: str) -> Any:
    try:
        return importlib.import_module("numpy")
    except Exception as error:
        raise SetupError(
            f"inference {reference}: it takes arrays, and numpy cannot be imported ({_words(error)}): install it into"
            " the image, or remove the line ':type inputs: arrays' from its docstring"
        ) from error


def _resolve(reference: str, role: str) -> Callable[..., Any]:
    """The callable that ``module:name`` or ``module:Class.method`` refers to."""
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # sys.exit() on import is a set-up error, too
        log.write_traceback(error)  # the whole story for the developer, ahead of the one line that sums it up
        raise SetupError(f"{role} {reference}: importing {module_name} failed: {_words(error)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            where = getattr(found, "__file__", None) or getattr(found, "__qualname__", module_name)
            raise SetupError(f"{role} {reference}: there is no {part!r} in {where}") from error
    if not callable(found):
        raise SetupError(f"{role} {reference} is not a function but of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _python_signature(function: Callable[..., Any], reference: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise SetupError(f"inference {reference}: its arguments cannot be read: {error}") from error


def accepted_arguments(
    function: Callable[..., Any], reference: str, inputs: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return which of ARGUMENTS the function takes by name, beside its inputs; all of them if it has ``**kwargs``.
    Raises SetupError."""
    parameters = _python_signature(function, reference).parameters.values()
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if by_position:
        raise SetupError(
            f"inference {reference}: {', '.join(by_position)} must be passable by name, remove the '/'"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in named}
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    accepted = tuple(name for name in ARGUMENTS if everything or name in names)
    if not accepted and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise SetupError(
            f"inference {reference} takes *args alone: arguments are passed by name, take **kwargs"
        )
    _check_outermost(function, (*accepted, *inputs), reference)
    return accepted


def _check_outermost(function: Callable[..., Any], accepted: tuple[str, ...], reference: str) -> None:
    """Check that the decorator itself accepts the arguments: it may show the signature of what it wraps."""
    try:
        inspect.signature(function, follow_wrapped=False).bind(**dict.fromkeys(accepted))
    except TypeError as error:
        raise SetupError(
            f"inference {reference}: its decorator does not take what the function takes ({error}): arguments are"
            " passed by name, so the decorator must take **kwargs and pass them on"
        ) from error


def layers(function: Any) -> Iterator[Any]:
    """The callable, then one after the other what is called by it: through partial, bound methods, instances with
    ``__call__``, and decorators that name what they wrap.
    """
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = _within(function)


def _within(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    wrapped = inspect.getattr_static(function, "__wrapped__", None)
    if wrapped is not None or inspect.isroutine(function) or inspect.isclass(function):
        return wrapped
    call = inspect.getattr_static(type(function), "__call__", None)
    return None if isinstance(call, types.WrapperDescriptorType) else call


def check_callable(function: Any, reference: str) -> None:
    """Raises SetupError for what can be called, but would fail every call."""
    inner = list(layers(function))
    if inspect.isclass(function) and not _makes_results(function):
        example = reference.partition(":")[2].lower()
        raise SetupError(
            f"inference {reference} is a class, every call would make an instance: make one in the module,"
            f" {example!r}, and name that or one of its methods"
        )
    outside = next(
        one for one in inner if not inspect.ismethod(one) and not isinstance(one, functools.partial)
    )
    if getattr(getattr(outside, "__code__", None), "co_filename", "") == contextlib.__file__:
        raise SetupError(
            f"inference {reference} is decorated as a context manager, which is not a result: remove the decorator"
        )
    if hasattr(outside, "dispatch") and hasattr(outside, "registry"):
        raise SetupError(
            f"inference {reference} is made by functools.singledispatch, which takes its first argument by position"
            " alone: name a plain function"
        )
    if isinstance(outside, _CACHED):
        raise SetupError(
            f"inference {reference} is made by functools.lru_cache, which takes no lists, and inputs, parameters and"
            " output_fields are lists: cache a function of what you read from them"
        )


def _makes_results(kind: type) -> bool:
    """May calling the class give something that can be answered?"""
    return (
        issubclass(kind, (Mapping, list, tuple))
        or hasattr(kind, "__await__")
        or kind.__new__ is not object.__new__
        or type(kind).__call__ is not type.__call__
    )


def _described(function: Callable[..., Any], reference: str) -> DescribedFunction:
    """What the function's docstring and hints say. Raises SetupError with file and line of every problem."""
    text, path, line = _docstring(_described_layer(function), reference)
    try:
        return hinted.describe(_hinted(function, reference, path, line), text, path, line)
    except Disagreement as error:
        raise SetupError(f"inference {reference}: {error}") from error


def _hinted(function: Callable[..., Any], reference: str, path: str, line: int) -> HintedFunction:
    """The function as its definition tells; ``path`` and ``line`` are told if it has no source."""
    signature = _python_signature(function, reference)
    parameters = signature.parameters.values()
    if any(p.name == "self" and p.default is p.annotation is p.empty for p in parameters):
        raise SetupError(
            f"inference {reference}: unknown required argument self; for a method, name it by an instance:"
            " module:instance.method"
        )
    *outside, innermost = layers(function)
    code = getattr(innermost, "__code__", None)
    path, line = (path, line) if code is None else (code.co_filename, code.co_firstlineno)
    lines = (
        docstring.argument_lines("".join(linecache.getlines(path)), innermost.__name__, line) if code else {}
    )
    arguments = tuple(
        Argument(p.name, _or_missing(p.annotation), _or_missing(p.default), lines.get(p.name, line))
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        or (p.kind is p.POSITIONAL_ONLY and p.annotation is not p.empty)
    )
    return HintedFunction(
        path,
        line,
        arguments,
        _or_missing(signature.return_annotation),
        lines.get("return", line),
        _is_generator_function(function),
        AnnotationScope(getattr(innermost, "__globals__", {})),
        _member_place,
        any(p.kind is p.VAR_KEYWORD for p in parameters),
        any(inspect.isroutine(one) and not inspect.ismethod(one) for one in outside),
    )


def _or_missing(value: Any) -> Any:
    return MISSING if value is inspect.Parameter.empty else value


def _member_place(member: ClassMember) -> str:
    """File and line of a member of a class."""
    path = getattr(sys.modules.get(member.owner.__module__), "__file__", None) or member.owner.__module__
    source = "".join(linecache.getlines(path))
    line = docstring.member_line(source, member.owner.__qualname__, member.name)
    return f"{path}:{line}" if line else f"{path}: {member.owner.__qualname__}"


def _check_files(signature: Signature, settings: ServingSettings) -> None:
    """Files that cannot come or go: each call would be refused, or its result."""
    files = docstring.required_files(signature)
    if files and not settings.boxes and settings.files_root is None:
        raise SetupError(
            f"inference {settings.inference}: {', '.join(files)}: a FILE needs a box, and none is connected to the"
            " component: add connectedBoxes to its manifest"
        )


def _check_chat(signature: Signature, settings: ServingSettings) -> None:
    """What cannot answer chats would fail each of them."""
    reasons = chat.unfit(signature) if settings.openai else []
    if reasons:
        raise SetupError(
            f"inference {settings.inference} cannot serve openai: chat: {'; '.join(reasons)}; it needs the lines"
            " ':type inputs.messages: dict' and ':type outputs.content: str' in its docstring, or such type hints"
        )


def _check_batches(signature: Signature, yields: bool, settings: ServingSettings) -> None:
    """Functions that do not fit the way in which they are to be called."""
    batched = settings.batch_size is not None
    if batched and yields:
        raise SetupError(
            f"inference {settings.inference} yields its results, so its calls cannot go together: remove"
            " mlService.batch, or return a list with one result a call"
        )
    if batched and signature.by_name:
        raise SetupError(
            f"inference {settings.inference} is described by type hints, which are those of one call, and its calls go"
            " together: describe inputs and outputs in its docstring, or remove mlService.batch"
        )
    if signature.stacked and not batched:
        raise SetupError(
            f"inference {settings.inference}: its docstring has ':type inputs: stacked arrays', which are those of the"
            " calls of a batch: add mlService.batch to the manifest, or write ':type inputs: arrays'"
        )


def _described_layer(function: Any) -> Any:
    """The innermost function that has a docstring, else the class of an instance that is called, else the innermost."""
    inner = list(layers(function))[::-1]
    functions = [one for one in inner if inspect.isroutine(one) or inspect.isclass(one)]
    classes = [type(one) for one in inner if one not in functions and not isinstance(one, functools.partial)]
    return next((one for one in (*functions, *classes) if one.__doc__), inner[0])


def _docstring(function: Any, reference: str) -> tuple[Optional[str], str, int]:
    """The docstring as it stands in the source, its file and line; without a source, the docstring at run
    time.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return inspect.getdoc(function), reference, 1
    source = "".join(linecache.getlines(code.co_filename))
    try:
        found = docstring.find(source, function.__qualname__) if source else None
    except SyntaxError:
        found = None
    if found is None or (found[0] is None and function.__doc__):
        return function.__doc__, code.co_filename, code.co_firstlineno
    return found[0], code.co_filename, found[1]


def _model(settings: ServingSettings, run_async: Callable[[Any], Any]) -> Any:
    """Return what the loader returns for the model's path, or the path itself."""
    if settings.loader is None:
        return settings.model_path
    loader = _resolve(settings.loader, "loader")
    try:
        takes_path = bool(inspect.signature(loader).parameters)
    except (TypeError, ValueError):
        takes_path = True  # a built-in that does not tell
    try:
        model = loader(settings.model_path) if takes_path else loader()
        if is_stream(model):
            raise TypeError("the loader gives a generator: return the model instead of yielding it")
        return run_async(model) if inspect.isawaitable(model) else model
    except BaseException as error:
        log.write_traceback(error)
        raise SetupError(
            f"loader {settings.loader} failed for {settings.model_path!r}: {_words(error)}"
        ) from error


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
