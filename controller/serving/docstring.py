"""The docstring dialect in which a module describes its inference function: text -> Signature, or every
problem with its line.

For each variable two lines, in either order, and the same with ``outputs.``::

    :param inputs.NAME: DESCRIPTION
    :type inputs.NAME: TYPE1 or TYPE2[, optional]

A line ``:type inputs: arrays`` says that the function takes numbers as arrays of numpy, where it gets lists otherwise;
``:type inputs: stacked arrays``, that it takes those of all calls of a batch as one array.
A description goes on over the following lines up to a blank line or the next field. Other fields (``:param
parameters:``, ``:returns:``) are passed over; what stands before the first field is the summary (first
paragraph) and the description. Pure: used by the worker at set-up and by the platform on a commit's source
text before anything runs.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Optional, Union

from .datatypes import Datatype
from .signature import Signature, Variable


@dataclasses.dataclass(frozen=True)
class DocstringProblem:
    """A problem at a line of the source (1 = its first line), with what would be right."""

    line: int
    message: str


@dataclasses.dataclass
class _DocstringField:
    """The state of parsing one variable; a line is 0 until its field was seen."""

    param_line: int = 0
    type_line: int = 0
    description: str = ""
    type_text: str = ""


# No two neighbours in these can match the same characters, so that each takes linear time.
_FIELD = re.compile(r"\s*:([A-Za-z]+)(?:[ \t]([^:]*))?:(?:[ \t](.*)|$)")
_OURS = re.compile(r"\s*:[A-Za-z]*[ \t].*?\b(inputs|outputs)\.")
_TARGET = re.compile(r"(inputs|outputs)\.([A-Za-z0-9_][A-Za-z0-9_.-]*)")
_TAKES_ARRAYS = re.compile(r"[ \t]*:type[ \t]+inputs:[ \t]*(stacked[ \t]+)?arrays\s*")
_RESULT = ("return", "returns")
_RAISES = ("raise", "raises", "except", "exception")
_STATUS = re.compile(r"4[0-9]{2}")
_NAMES = ", ".join(datatype.value for datatype in Datatype)
_MEANT = {
    "float": "FP64", "float32": "FP32", "float64": "FP64", "double": "FP64", "int": "INT32", "integer": "INT32",
    "int32": "INT32", "int64": "INT64", "long": "INT64", "bool": "BOOL", "boolean": "BOOL", "uint8": "UINT8",
    "float16": "FP16", "half": "FP16", "bfloat16": "BF16",
    "string": "str", "text": "str", "json": "dict", "object": "dict", "path": "FILE",
}  # fmt: skip


def parse(text: Optional[str], first_line: int = 1) -> Union[Signature, list[DocstringProblem]]:
    """Read a docstring whose opening quotes stand on ``first_line``. Never raises, whatever the text."""
    if text is None or not text.strip():
        message = "there is no docstring; describe the function with :param inputs.NAME: and :type inputs.NAME: lines"
        return [DocstringProblem(first_line, message)]
    prose, fields, problems = _fields(text.split("\n"), first_line)
    sides: dict[str, dict[str, _DocstringField]] = {"inputs": {}, "outputs": {}}
    for field in fields:
        entry = sides[field.side].setdefault(field.name, _DocstringField())
        problems += _record(entry, field)
    variables = {side: tuple(_variables(side, entries, problems)) for side, entries in sides.items()}
    if not problems and not any(variables.values()):
        problems = [
            DocstringProblem(first_line, "the docstring describes no inputs.NAME and no outputs.NAME")
        ]
    if problems:
        return sorted(problems, key=lambda problem: problem.line)
    summary, description = _summary(prose)
    arrays = line_of_arrays(text, first_line) is not None
    stacked = any(found[1] for line in text.split("\n") if (found := _TAKES_ARRAYS.fullmatch(line)))
    inputs, outputs = variables["inputs"], variables["outputs"]
    return Signature(inputs, outputs, summary, description, arrays, stacked=stacked)


def line_of_arrays(text: str, first_line: int) -> Optional[int]:
    """The line that says that numbers come as arrays, if there is one."""
    lines = enumerate(text.split("\n"), first_line)
    return next((number for number, line in lines if _TAKES_ARRAYS.fullmatch(line)), None)


def _summary(prose: list[str]) -> tuple[str, str]:
    """The first paragraph, and the rest."""
    summary, _, description = "\n".join(prose).strip().partition("\n\n")
    return " ".join(summary.split()), description.strip()


@dataclasses.dataclass(frozen=True)
class Remarks:
    """What a docstring says of a function without being its specification: the descriptions of its arguments, from
    ``:param NAME:``, and of its result, from ``:returns:``, in one line each."""

    summary: str = ""
    description: str = ""
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    result: str = ""


def remarks(text: Optional[str]) -> Optional[Remarks]:
    """Read a docstring that describes no ``inputs.NAME`` and no ``outputs.NAME``; None for one that does, or tries."""
    lines = (text or "").split("\n")
    prose, fields, problems = _fields(lines, 1)
    if fields or problems:
        return None
    found: dict[str, list[str]] = {}
    current: Optional[list[str]] = None
    for line in lines:
        match = _FIELD.match(line)
        if match:
            *_, target = (match.group(2) or "").split() or [""]  # behind the type, if there is one
            key = target if match.group(1) == "param" else "" if match.group(1) in _RESULT else None
            current = None if key is None else found.setdefault(key, [])
        if current is not None:
            current.append((match.group(3) or "") if match else line)
        if not line.strip():
            current = None
    described = {name: " ".join(" ".join(words).split()) for name, words in found.items()}
    return Remarks(*_summary(prose), described, described.pop("", ""))


def refusals(text: Optional[str]) -> dict[str, str]:
    """The statuses with which a function says that it refuses calls, ``:raises 422: the picture shows no face``, and
    when. Names of exceptions in their place are for readers of the code."""
    found: dict[str, list[str]] = {}
    current: Optional[list[str]] = None
    for line in (text or "").split("\n"):
        match = _FIELD.match(line)
        if match:
            status = (match.group(2) or "").strip()
            is_one = match.group(1) in _RAISES and _STATUS.fullmatch(status)
            current = found.setdefault(status, []) if is_one else None
        if not line.strip():
            current = None
        elif current is not None:
            current.append((match.group(3) or "") if match else line)
    return {status: " ".join(" ".join(words).split()) for status, words in found.items()}


def required_files(signature: Signature) -> list[str]:
    """``inputs.NAME`` and ``outputs.NAME`` of all variables that are files and nothing else."""
    sides = (("inputs", signature.inputs), ("outputs", signature.outputs))
    return [
        f"{side}.{variable.name}"
        for side, variables in sides
        for variable in variables
        if variable.datatypes == (Datatype.FILE,) and not variable.optional
    ]


def takes_arrays(signature: Signature) -> bool:
    """Does the function take arrays of numpy?"""
    return signature.arrays or any(form.array for variable in signature.inputs for form in variable.forms)


def find(source: str, function: str) -> Optional[tuple[Optional[str], int]]:
    """Find the docstring of a top-level function (or ``Class.method``) in source text, and the line where it, or
    else the function, starts. None if there is no such definition. Raises SyntaxError for text that is not Python."""
    node = find_definition(source, function)
    if node is None:
        return None
    text = ast.get_docstring(node, clean=False)
    return text, node.body[0].lineno if text is not None else node.lineno


Definition = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef]


def find_definition(source: str, name: str) -> Optional[Definition]:
    """Find a top-level function or class, or ``Class.method``. Raises SyntaxError for text that is not Python."""
    try:
        body: list[ast.stmt] = ast.parse(source).body
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, a lone surrogate, or nested too deeply
        raise SyntaxError(f"it cannot be parsed: {type(error).__name__}") from error
    node: Optional[Definition] = None
    for part in name.split("."):
        named = [item for item in body if isinstance(item, _DEFINITIONS) and item.name == part]
        if not named:
            return None
        node, body = named[-1], named[-1].body  # the last definition is the one that counts at run time
    return node


def argument_lines(source: str, name: str, first_line: int) -> dict[str, int]:
    """The lines of the arguments of a function that begins in a line, with its decorators, and that of its result as
    ``return``; none if it is not found."""
    try:
        nodes = ast.walk(ast.parse(source))
        node = next(node for node in nodes if _begins(node, name, first_line))
    except (StopIteration, ValueError, SyntaxError, RecursionError, MemoryError):
        return {}
    return lines_of(node)


def lines_of(node: ast.AST) -> dict[str, int]:
    """The lines of the arguments of a definition, and that of its result as ``return``."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return {}
    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    result = node.lineno if node.returns is None else node.returns.lineno
    return {**{argument.arg: argument.lineno for argument in arguments}, "return": result}


def _begins(node: ast.AST, name: str, line: int) -> bool:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != name:
        return False
    return min([node.lineno, *(one.lineno for one in node.decorator_list)]) == line


def member_line(source: str, kind: str, name: str) -> int:
    """The line of a member of a class; that of the class, or 0, if it is not found."""
    try:
        node = find_definition(source, kind)
    except SyntaxError:
        return 0
    if node is None:
        return 0
    lines = {
        item.target.id: item.lineno
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    return lines.get(name, node.lineno)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclasses.dataclass
class _Field:
    line: int
    keyword: str
    side: str
    name: str
    lines: list[str]

    @property
    def text(self) -> str:
        return " ".join(line for line in self.lines if line)


def _fields(lines: Iterable[str], first_line: int) -> tuple[list[str], list[_Field], list[DocstringProblem]]:
    """Split into the prose before the first field, the fields about variables, and what looks like one but is
    not.
    """
    prose: list[str] = []
    fields: list[_Field] = []
    problems: list[DocstringProblem] = []
    current: Optional[_Field] = None
    in_prose = True
    for number, line in enumerate(lines, first_line):
        match = _FIELD.match(line)
        if match or _OURS.match(line):
            in_prose, current = False, None
            found = _field(number, line, match)
            if isinstance(found, _Field):
                current = found
                fields.append(found)
            elif found:
                problems.append(found)
        elif in_prose:
            prose.append(line.strip())
        elif not line.strip():
            current = None
        elif current:
            current.lines.append(line.strip())
    return prose, fields, problems


def _field(number: int, line: str, match: Optional[re.Match[str]]) -> Union[_Field, DocstringProblem, None]:
    if not _OURS.match(line):
        return None  # a field of another variable than ours
    target = _TARGET.fullmatch((match.group(2) or "").strip(" \t")) if match else None
    if match and target and match.group(1) in ("param", "type"):
        return _Field(
            number, match.group(1), target.group(1), target.group(2), [(match.group(3) or "").strip()]
        )
    if not line.lstrip().startswith((":param", ":type")) and not (match and target):
        return None  # prose inside another field, such as ":returns: inputs.x squared"
    right = "':param inputs.NAME: DESCRIPTION' or ':type inputs.NAME: TYPE'"
    message = f"{line.strip()!r} is not understood; write {right}"
    return DocstringProblem(number, message)


def _record(entry: _DocstringField, field: _Field) -> Iterator[DocstringProblem]:
    earlier = entry.param_line if field.keyword == "param" else entry.type_line
    if earlier:
        message = f":{field.keyword} {field.side}.{field.name}: is given twice, first in line {earlier}"
        yield DocstringProblem(field.line, message)
    elif field.keyword == "param":
        entry.param_line, entry.description = field.line, field.text
    else:
        entry.type_line, entry.type_text = field.line, field.text


def _variables(
    side: str, entries: dict[str, _DocstringField], problems: list[DocstringProblem]
) -> Iterator[Variable]:
    """The variables of one side; what is wrong with one is added to ``problems``."""
    for name, entry in entries.items():
        if not entry.type_line:
            problems.append(
                DocstringProblem(entry.param_line, f"{side}.{name} has no ':type {side}.{name}:' line")
            )
            continue
        if not entry.param_line:
            problems.append(
                DocstringProblem(entry.type_line, f"{side}.{name} has no ':param {side}.{name}:' line")
            )
        words, comma, flag = entry.type_text.partition(",")
        if comma and flag.strip() != "optional":
            message = f"after the types only ', optional' may stand, not {flag.strip()!r}"
            problems.append(DocstringProblem(entry.type_line, message))
        datatypes = tuple(_datatypes(words, entry.type_line, problems))
        if len(set(datatypes)) < len(datatypes):
            problems.append(DocstringProblem(entry.type_line, f"{side}.{name} names a type twice"))
        yield Variable(name, datatypes, bool(comma), entry.description, line=entry.type_line)


def _datatypes(words: str, line: int, problems: list[DocstringProblem]) -> Iterator[Datatype]:
    for word in " ".join(words.split()).split(" or "):
        try:
            yield Datatype(word)
        except ValueError:
            meant = _MEANT.get(word.lower(), "")
            hint = f"; did you mean {meant}?" if meant else ""
            problems.append(
                DocstringProblem(line, f"unknown type {word!r}, use one of {_NAMES}, joined by 'or'{hint}")
            )
