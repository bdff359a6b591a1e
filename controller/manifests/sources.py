"""Checks, without running a module's code, whether the inference function of an MLComponent can serve at all.
Called by `prichal validate`, where the code lies beside the manifests; the set-up of the component finds the
rest (`controller.serving.loading`).

Only what is certain is a problem. A function that is not found, or is decorated, is skipped.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.manifests.components import spec_of
from controller.manifests.reader import ManifestDocument
from controller.serving import docstring
from controller.serving.docstring import Signature

_INFERENCE = ("spec", "mlService", "inference")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)


def code_problems(folder: Path, documents: Iterable[ManifestDocument]) -> Iterator[ManifestProblem]:
    """Return the problems of all MLComponents that are built from this folder or from the repository around it. The
    documents are valid and have their defaults."""
    for document in documents:
        reference = document.get(*_INFERENCE)
        context = document.get("spec", "image", "build", "context")
        built = document.kind is ComponentKind.ML_COMPONENT and isinstance(context, str)
        if not built or not isinstance(reference, str):
            continue
        module, _, name = reference.partition(":")
        found = _find(folder, str(context), module)
        if found is not None:
            yield from _of_function(document, found, name)


def _find(folder: Path, context: str, module: str) -> Path | None:
    """Find the module's file. The build context is relative to the repository, whose root may be above the folder."""
    repository = next((p for p in (folder, *folder.resolve().parents) if (p / ".git").exists()), folder)
    parts = Path(*module.split("."))
    places = [
        root / context / below / name
        for root in (folder, repository)
        for below in ("", "src")
        for name in (parts.with_suffix(".py"), parts / "__init__.py")
    ]
    return next((place for place in places if place.is_file()), None)


def _of_function(document: ManifestDocument, file: Path, name: str) -> Iterator[ManifestProblem]:
    try:
        source = file.read_text("utf-8")
        node = _definition(ast.parse(source), name)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return  # only Python in the image can say whether it can be imported
    if node is None or node.decorator_list:
        return
    where = f"{file.name}:{node.lineno}"
    if any(isinstance(part, (ast.Yield, ast.YieldFrom)) for part in _own_parts(node)):
        message = f"{name} in {where} is a generator function: return the outputs, do not yield them"
        yield document.problem(_INFERENCE, message)
    text = ast.get_docstring(node, clean=False)
    line = node.body[0].lineno if text is not None else node.lineno
    described = docstring.parse(text, line)
    if not isinstance(described, Signature):
        for problem in described:
            yield document.problem(_INFERENCE, f"{file.name}:{problem.line}: {problem.message}")
    elif not spec_of(document).get("connectedBoxes"):
        for variable in docstring.required_files(described):
            message = f"{variable} in {where} is a FILE, and no box is connected: add 'connectedBoxes'"
            yield document.problem(_INFERENCE, message)


def _definition(module: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the function at the top level, if it is defined once and nothing else has its name."""
    named = [
        item for item in module.body if isinstance(item, (*_FUNCTIONS, ast.ClassDef)) and item.name == name
    ]
    assigned = any(isinstance(part, ast.Name) and part.id == name for part in _stores(module))
    found = named[0] if len(named) == 1 and not assigned else None
    return found if isinstance(found, _FUNCTIONS) else None


def _stores(module: ast.Module) -> Iterator[ast.AST]:
    return (
        part for part in ast.walk(module) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    )


def _own_parts(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of nested functions."""
    for part in ast.iter_child_nodes(function):
        yield part
        if not isinstance(part, _SCOPES):
            yield from _own_parts(part)
