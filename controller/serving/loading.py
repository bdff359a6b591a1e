"""Set-up in the worker: the developer's function, its docstring and the model, or a SetupError that says in
words what to change.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Optional

from . import docstring, log
from .config import Settings
from .docstring import DocstringProblem, Signature

ARGUMENTS = ("parameters", "inputs", "output_fields", "model", "context")


class SetupError(Exception):
    """Why the component cannot serve, for the developer."""


@dataclasses.dataclass(frozen=True)
class Inference:
    """The function, which of ARGUMENTS it takes, and what its docstring says."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool
    signature: Signature
    model: Any


def load(settings: Settings, run_async: Callable[[Any], Any]) -> Inference:
    """Import the function and call the loader. ``run_async`` runs a coroutine to its end. Raises
    SetupError.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    function = _resolve(settings.inference, "inference")
    signature = _described(function, settings.inference)
    arguments = accepted_arguments(function, settings.inference)
    model = _model(settings, run_async)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    return Inference(settings.inference, function, arguments, is_async, signature, model)


def _resolve(reference: str, role: str) -> Callable[..., Any]:
    """The callable that ``module:name`` or ``module:Class.method`` refers to."""
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # sys.exit() on import is a set-up error, too
        log.tell_traceback(error)  # the whole story for the developer, ahead of the one line that sums it up
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


def accepted_arguments(function: Callable[..., Any], reference: str) -> tuple[str, ...]:
    """Which of ARGUMENTS the function takes by name; all of them if it has ``**kwargs``. Raises
    SetupError.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SetupError(f"inference {reference}: its arguments cannot be read: {error}") from error
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if by_position:
        raise SetupError(
            f"inference {reference}: {', '.join(by_position)} must be passable by name, remove the '/'"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [p.name for p in named if p.default is p.empty and p.name not in ARGUMENTS]
    if unknown:
        known = ", ".join(ARGUMENTS)
        raise SetupError(
            f"inference {reference}: unknown required argument {', '.join(unknown)}; known are {known}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return ARGUMENTS
    names = {p.name for p in named}
    return tuple(name for name in ARGUMENTS if name in names)


def _described(function: Callable[..., Any], reference: str) -> Signature:
    """The signature in the function's docstring. Raises SetupError with file and line of every problem."""
    text, path, line = _docstring(inspect.unwrap(function), reference)
    parsed = docstring.parse(text, line)
    if isinstance(parsed, Signature):
        return parsed
    raise SetupError(f"inference {reference}: " + "; ".join(_placed(problem, path) for problem in parsed))


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


def _placed(problem: DocstringProblem, path: str) -> str:
    return f"{path}:{problem.line}: {problem.message}"


def _model(settings: Settings, run_async: Callable[[Any], Any]) -> Any:
    """What the loader makes of the model's path, or the path itself."""
    if settings.loader is None:
        return settings.model_path
    loader = _resolve(settings.loader, "loader")
    try:
        takes_path = bool(inspect.signature(loader).parameters)
    except (TypeError, ValueError):
        takes_path = True  # a built-in that does not tell
    try:
        model = loader(settings.model_path) if takes_path else loader()
        return run_async(model) if inspect.iscoroutine(model) else model
    except BaseException as error:
        log.tell_traceback(error)
        raise SetupError(
            f"loader {settings.loader} failed for {settings.model_path!r}: {_words(error)}"
        ) from error


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
