"""Checks, without running a module's code, whether the inference function of an MLComponent can serve at all.
Called by `prichal validate`, where the code lies beside the manifests; the set-up of the component finds the
rest (`controller.serving.loading`).

Only what is certain is a problem. A function that is not found, or is decorated, is skipped, and so is an annotation
that names what another module defines.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.manifests import hints
from controller.manifests.components import spec_of
from controller.manifests.reader import ManifestDocument
from controller.manifests.smoke_files import repository_of
from controller.serving import docstring, hinted
from controller.serving.chat import unfit

_INFERENCE = ("spec", "mlService", "inference")
_OPENAI = ("spec", "mlService", "openai")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


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
    repository = repository_of(folder) or folder
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
        module = ast.parse(file.read_text("utf-8"))
        node = _definition(module, name)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return  # only Python in the image can say whether it can be imported
    if node is None or node.decorator_list:
        return
    try:
        function = hints.function_of(module, node, file.name)
    except RecursionError:
        return
    where = f"{file.name}:{node.lineno}"
    text = ast.get_docstring(node, clean=False)
    line = node.body[0].lineno if text is not None else node.lineno
    try:
        described = hinted.describe(function, text, file.name, line)
    except hinted.Disagreement as disagreement:
        yield from (document.problem(_INFERENCE, problem) for problem in disagreement.problems)
        return
    if not spec_of(document).get("connectedBoxes"):
        for variable in docstring.required_files(described.signature):
            message = Localizable(
                "{variable} in {where} is a FILE, and no box is connected: add 'connectedBoxes'",
                variable=variable,
                where=where,
            )
            yield document.problem(_INFERENCE, message)
    if document.get(*_OPENAI):
        for why in unfit(described.signature):
            yield document.problem(
                _OPENAI,
                Localizable("the function in {where} cannot answer chats: {why}", where=where, why=why),
            )


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
