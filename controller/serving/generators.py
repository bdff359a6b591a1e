"""Finds out, without calling it, whether a callable returns a generator, which cannot answer a call.

A generator function is recognised directly. One behind another function is recognised from the source of that
function's return values: the call of a generator function, as it is or by way of a variable, found by its
name, as an attribute of a module or an object, or in a table. A wrapper that takes a generator apart
(``list(rows(...))``, a loop over it) gives something else, and passes."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import types
from collections.abc import Iterator
from typing import Any, Optional, Union

_Function = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.For, ast.AsyncFor, ast.comprehension)
_YIELDS = (ast.Yield, ast.YieldFrom)
#: Python's own classes whose instances cannot answer a call, either.
_LAZY = (map, filter, zip, enumerate, reversed, iter)
_MANY = 100  # entries of a table that are examined


def yields(value: Any) -> bool:
    """A generator function or a generator, async or not."""
    return (
        inspect.isgeneratorfunction(value)
        or inspect.isasyncgenfunction(value)
        or inspect.isgenerator(value)
        or inspect.isasyncgen(value)
    )


def gives_generator(function: Any) -> bool:
    """Does every call of it give a generator, as far as that can be known?"""
    return _gives(function, frozenset())


def _gives(function: Any, seen: frozenset[int]) -> bool:
    """Return True if the function returns a generator. One that wraps a generator function
    (``functools.wraps``) must visibly consume the generator or return something else."""
    wraps, instance = _wraps(function), _instance(function)
    function = _bare(function)
    if yields(function) or any(function is lazy for lazy in _LAZY):
        return True
    node = _source(function)
    if node is None or id(function) in seen:
        return wraps
    known = {**vars(builtins), **getattr(function, "__globals__", {}), **_enclosed(function)}
    look = _Look(node, known, seen | {id(function)}, instance)
    verdict = look.verdict()
    return (wraps and not look.takes_apart()) if verdict is None else verdict


def _wraps(function: Any) -> bool:
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        function = inspect.getattr_static(_bare(function), "__wrapped__", None)
        if yields(function):
            return True
    return False


def _bare(function: Any) -> Any:
    """Return the function without partial and without the instance of a method."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif not inspect.isroutine(function) and not inspect.isclass(function) and callable(function):
            call = inspect.getattr_static(type(function), "__call__", None)
            if not inspect.isfunction(call):
                return function
            function = call
        else:
            return function


def _instance(function: Any) -> Any:
    """Return the first argument of the bare function, or None if it is unknown."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.ismethod(function):
        return function.__self__
    return None if inspect.isroutine(function) or inspect.isclass(function) else function


def _enclosed(function: Any) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(function.__code__.co_freevars, cells):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _source(function: Any) -> Optional[_Function]:
    """The one definition that begins at the function's line."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError, RecursionError):
        return None
    found = [
        node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and _line(node) == code.co_firstlineno
    ]
    return found[0] if len(found) == 1 else None


def _line(node: _Function) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


class _Look:
    """Examines one function. ``known``: values of its free names; ``instance``: value of its first argument."""

    def __init__(
        self, node: _Function, known: dict[str, Any], seen: frozenset[int], instance: Any = None
    ) -> None:
        self._node, self._seen = node, seen
        self._parts = list(_own_parts(node))
        self._local: dict[str, list[ast.AST]] = {}
        self._stores = [part.id for part in self._parts if isinstance(part, ast.Name) and _stores(part)]
        for part in self._parts:
            self._note(part)
        own = [argument.arg for argument in _arguments(node.args)]
        hidden = {*own, *self._stores, *self._local}
        self._known = {name: value for name, value in known.items() if name not in hidden}
        if instance is not None and own:
            self._known[own[0]] = instance

    def _note(self, part: ast.AST) -> None:
        """Record assignments to local names."""
        if isinstance(part, ast.Assign) and len(part.targets) == 1 and isinstance(part.targets[0], ast.Name):
            self._local.setdefault(part.targets[0].id, []).append(part.value)
        elif (
            isinstance(part, (ast.AnnAssign, ast.NamedExpr))
            and isinstance(part.target, ast.Name)
            and part.value
        ):
            self._local.setdefault(part.target.id, []).append(part.value)
        elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._local.setdefault(part.name, []).append(part)
            self._stores.append(part.name)

    def verdict(self) -> Optional[bool]:
        """Does every result hand out a generator? Return None if it cannot be known."""
        if any(isinstance(part, _YIELDS) for part in self._parts):
            return True
        results = [part.value for part in self._parts if isinstance(part, ast.Return) and part.value]
        body = [self._node.body] if isinstance(self._node, ast.Lambda) else []
        verdicts = list(map(self.is_generator, [*body, *results]))
        return _all(verdicts) if verdicts else False

    def is_generator(self, value: ast.AST) -> Optional[bool]:
        """Return None if it cannot be known."""
        if isinstance(value, ast.Await):
            value = value.value
        if isinstance(value, ast.GeneratorExp):
            return True
        if isinstance(value, ast.IfExp):
            return _all([self.is_generator(value.body), self.is_generator(value.orelse)])
        if isinstance(value, ast.Name) and value.id in self._local:
            given = self._given(value.id)
            return _all(list(map(self.is_generator, given))) if given else None
        if isinstance(value, ast.Call):
            return self._call(value)
        return None if isinstance(value, (ast.Name, ast.Attribute, ast.Subscript)) else False

    def _given(self, name: str) -> list[ast.AST]:
        """Return all possible values of a local name; empty if they are unknown."""
        given = self._local.get(name, [])
        return given if self._stores.count(name) == len(given) else []

    def _call(self, call: ast.Call) -> Optional[bool]:
        """Return True if the call of any possible target returns a generator."""
        verdicts = [self._called(one) for one in self._meant(call.func)]
        return _all(verdicts) if verdicts else None

    def _called(self, one: Any) -> Optional[bool]:
        if isinstance(one, _FUNCTIONS):
            plain = isinstance(one, ast.Lambda) or not one.decorator_list
            return _Look(one, self._known, self._seen).verdict() if plain else None
        bare = _bare(one)
        known = hasattr(bare, "__code__") or any(bare is lazy for lazy in _LAZY)
        return _gives(one, self._seen) if known else None

    def _meant(self, node: ast.AST) -> list[Any]:
        """Return all possible values of an expression: objects, and functions that are defined here; empty if they
        are unknown."""
        if isinstance(node, _FUNCTIONS):
            return [node]
        if isinstance(node, ast.IfExp):
            both = [self._meant(node.body), self._meant(node.orelse)]
            return [one for found in both for one in found] if all(both) else []
        if isinstance(node, ast.Name):
            if node.id in self._known:
                return [self._known[node.id]]
            given = [self._meant(each) for each in self._given(node.id)]
            return [one for found in given for one in found] if all(given) else []
        if isinstance(node, ast.Attribute):
            return [found for base in self._meant(node.value) for found in _attribute(base, node.attr)]
        if isinstance(node, ast.Subscript):
            return [found for base in self._meant(node.value) for found in _entries(base, node.slice)]
        return self._made(node) if isinstance(node, ast.Call) else []

    def _made(self, call: ast.Call) -> list[Any]:
        """Return the result of a call that is itself called, or is an object with methods."""
        method = call.func
        if isinstance(method, ast.Attribute) and method.attr == "get" and call.args:
            return [one for base in self._meant(method.value) for one in _entries(base, call.args[0])]
        for called in self._meant(call.func):
            if called is functools.partial and call.args:
                return self._meant(call.args[0])
            if called is getattr and len(call.args) == 2 and isinstance(call.args[1], ast.Constant):
                name = str(call.args[1].value)
                return [one for base in self._meant(call.args[0]) for one in _attribute(base, name)]
            if inspect.isclass(called) and type(called) is type:
                return [called]  # for its methods
        return []

    def _gives(self, value: ast.AST) -> bool:
        """Return True if it is the call of a function that hands out a generator."""
        return isinstance(value, ast.Call) and self._call(value) is True

    def takes_apart(self) -> bool:
        """Return True if something is done with what a call gives, or with a name that it was given."""
        for part in self._parts:
            used: list[ast.AST] = []
            if isinstance(part, ast.Call):
                used = [*part.args, *(keyword.value for keyword in part.keywords)]
            elif isinstance(part, _LOOPS):
                used = [part.iter]
            elif isinstance(part, (ast.Starred, ast.YieldFrom)):
                used = [part.value]
            if any(self._gives(each) or self._is_given(each) for each in used):
                return True
        return False

    def _is_given(self, value: ast.AST) -> bool:
        given = self._local.get(value.id, []) if isinstance(value, ast.Name) else []
        return any(map(self._gives, given))


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    more = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *more]


def _attribute(base: Any, name: str) -> list[Any]:
    """Look up an attribute without running any code. A method stays bound to its object."""
    found = inspect.getattr_static(base, name, None)
    if isinstance(found, staticmethod):
        found = found.__func__
    elif isinstance(found, classmethod):
        found = types.MethodType(found.__func__, base if inspect.isclass(base) else type(base))
    elif inspect.isfunction(found) and not inspect.isclass(base) and not inspect.ismodule(base):
        of_class = inspect.getattr_static(type(base), name, None) is found
        found = types.MethodType(found, base) if of_class else found
    return [] if found is None or isinstance(found, property) else [found]


def _entries(table: Any, key: ast.AST) -> list[Any]:
    """The entry of a table, or all of them where the key is not known."""
    if type(table) not in (dict, list, tuple):
        return []
    entries = table if isinstance(table, dict) else dict(enumerate(table))
    if isinstance(key, ast.Constant):
        return [entries[key.value]] if key.value in entries else []
    return list(entries.values()) if len(entries) <= _MANY else []


def _all(verdicts: list[Optional[bool]]) -> Optional[bool]:
    return False if False in verdicts else None if None in verdicts else True


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of nested functions."""
    for part in ast.iter_child_nodes(node):
        yield part
        if not isinstance(part, (*_FUNCTIONS, ast.ClassDef)):
            yield from _own_parts(part)
