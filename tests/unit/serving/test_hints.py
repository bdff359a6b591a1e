"""Signatures by type hints: what each hint is, what disagrees with a docstring, and calls of a real server."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controller.serving import docs_page, openapi
from controller.serving.config import ServingSettings
from controller.serving.datatypes import Datatype
from controller.serving.loading import InferenceFunction, SetupError, load
from controller.serving.outputs import BadOutput, OutputEncoder, encode
from controller.serving.signature import ResultForm, Signature, Variable
from controller.serving.validate import compile_check
from tests.support.pages import ROOT, blocks
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Server

NAMES = (f"hinted_{number}" for number in itertools.count())
HEAD = """
import collections.abc, dataclasses, datetime, decimal, enum, os, pathlib, typing
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, NamedTuple, NewType, Optional, Tuple, TypedDict, Union
import numpy as np
from numpy.typing import NDArray

class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclass
class Point:
    x: float
    y: int = 0
    label: Optional[str] = None

@dataclass
class Shape:
    points: list[Point]
    kind: Literal["line", "area"]

@dataclass
class Node:
    inner: "list[Node]"

Tree = Dict[str, "Tree"]
Rows = List["Rows"]
AnyOf = Union[str, "AnyOf"]
Circle = "Circle"

class Round(TypedDict):
    x: Circle

class Size(TypedDict):
    width: int
    height: "typing.NotRequired[int]"

class Pair(NamedTuple):
    first: str
    second: int = 2

class Loose(TypedDict, total=False):
    note: str

Meters = NewType("Meters", float)
"""
FUTURE = "from __future__ import annotations\n"
Load = Callable[..., InferenceFunction]


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load the source of a module that has ``predict``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def start(source: str, **settings: Any) -> InferenceFunction:
        made.append(next(NAMES))
        (tmp_path / f"{made[-1]}.py").write_text(source)
        importlib.invalidate_caches()
        return load(ServingSettings(f"{made[-1]}:predict", **settings), lambda awaitable: awaitable)

    yield start
    for name in made:
        sys.modules.pop(name, None)


def refused(loading: Load, source: str) -> str:
    with pytest.raises(SetupError) as caught:
        loading(source)
    return re.sub(r"\S*/hinted_\d+\.py", "app.py", str(caught.value))


def variable(signature: Signature, name: str) -> Variable:
    return next(one for one in (*signature.inputs, *signature.outputs) if one.name == name)


# --- what a hint is --------------------------------------------------------------------------------------------

FLOATS = ["FP64", "FP32", "FP16", "BF16"]
INTEGERS = [f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (64, 32, 16, 8)]
ANY = [*FLOATS, *INTEGERS, "BOOL"]
#: A hint, its datatypes, its rank, whether it is optional.
HINTS: dict[str, tuple[list[str], int | None, bool]] = {
    "str": (["str"], 0, False),
    "int": (["INT64"], 0, False),
    "float": (["FP64"], 0, False),
    "bool": (["BOOL"], 0, False),
    "Path": (["FILE"], 0, False),
    "os.PathLike[str]": (["FILE"], 0, False),
    "dict": (["dict"], 0, False),
    "dict[str, Any]": (["dict"], 0, False),
    "Dict[str, float]": (["dict"], 0, False),
    "Mapping[str, list[int]]": (["dict"], 0, False),
    "list[float]": (["FP64"], 1, False),
    "List[int]": (["INT64"], 1, False),
    "Sequence[str]": (["str"], 1, False),
    "tuple[bool, ...]": (["BOOL"], 1, False),
    "Tuple[int, ...]": (["INT64"], 1, False),
    "list[list[float]]": (["FP64"], 2, False),
    "list[list[list[str]]]": (["str"], 3, False),
    "list[dict]": (["dict"], 1, False),
    "list[Point]": (["dict"], 1, False),
    "Point": (["dict"], 0, False),
    "Shape": (["dict"], 0, False),
    "Size": (["dict"], 0, False),
    "Pair": (["dict"], 0, False),
    "Color": (["str"], 0, False),
    "Literal['a', 'b']": (["str"], 0, False),
    "Literal[1, 2]": (["INT64"], 0, False),
    "Literal['a', 1, True]": (["str", "INT64", "BOOL"], 0, False),
    "list[Literal['a', 'b']]": (["str"], 1, False),
    "Literal['a', None]": (["str"], 0, True),
    "Optional[int]": (["INT64"], 0, True),
    "Union[int, str]": (["INT64", "str"], 0, False),
    "Union[int, float, None]": (["INT64", "FP64"], 0, True),
    "Union[str, Path]": (["str", "FILE"], 0, False),
    "Optional[list[float]]": (["FP64"], 1, True),
    "Annotated[float, 'how warm']": (["FP64"], 0, False),
    "Meters": (["FP64"], 0, False),
    "np.float32": (["FP32"], 0, False),
    "np.int64": (["INT64"], 0, False),
    "np.bool_": (["BOOL"], 0, False),
    "np.ndarray": (ANY, None, False),
    "NDArray[np.float32]": (["FP32"], None, False),
    "NDArray[np.uint8]": (["UINT8"], None, False),
    "NDArray[np.floating]": (FLOATS, None, False),
    "NDArray[Any]": (ANY, None, False),
    "NDArray": (ANY, None, False),
    "np.ndarray[tuple[int, int], np.dtype[np.float64]]": (["FP64"], 2, False),
    "Optional[NDArray[np.int32]]": (["INT32"], None, True),
}


@pytest.mark.parametrize("future", ["", FUTURE], ids=["objects", "texts"])
@pytest.mark.parametrize("hint", HINTS)
def test_what_an_argument_is(loading: Load, hint: str, future: str) -> None:
    datatypes, rank, optional = HINTS[hint]
    inference = loading(f"{future}{HEAD}\ndef predict(x: {hint}) -> str:\n    return ''\n")
    (x,) = inference.signature.inputs
    assert ([datatype.value for datatype in x.datatypes], x.optional) == (datatypes, optional)
    assert {form.rank for form in x.forms} == {rank}
    assert inference.signature.by_name
    assert inference.absent == (("x",) if optional else ())
    assert (inference.numpy is not None) == any(form.array for form in x.forms)


@pytest.mark.parametrize("hint", [hint for hint in HINTS if "Path" not in hint or hint == "Path"])
def test_what_a_result_is(loading: Load, hint: str) -> None:
    datatypes, _, optional = HINTS[hint]
    signature = loading(f"{HEAD}\ndef predict(x: str) -> {hint}:\n    return ''\n").signature
    if hint in ("Point", "Shape", "Size", "Pair"):
        assert signature.result is ResultForm.MEMBERS
        return
    (result,) = signature.outputs
    assert (result.name, signature.result) == ("result", ResultForm.SINGLE)
    assert ([datatype.value for datatype in result.datatypes], result.optional) == (datatypes, optional)


@pytest.mark.parametrize(
    ("hint", "yields"),
    [
        ("Iterator[int]", True),
        ("collections.abc.Generator[int, None, None]", True),
        ("AsyncIterator[int]", True),
        ("Awaitable[int]", False),
        ("collections.abc.Coroutine[Any, Any, int]", False),
    ],
)
def test_what_is_awaited_or_yielded(loading: Load, hint: str, yields: bool) -> None:
    inference = loading(f"{HEAD}\ndef predict(x: str) -> {hint}:\n    return None\n")
    (result,) = inference.signature.outputs
    assert (result.datatypes, inference.yields) == ((Datatype.INT64,), yields)


MEMBERS = {
    "Point": [("x", "FP64", False), ("y", "INT64", False), ("label", "str", True)],
    "Size": [("width", "INT64", False), ("height", "INT64", True)],
    "Pair": [("first", "str", False), ("second", "INT64", False)],
    "Loose": [("note", "str", True)],
    "Iterator[Pair]": [("first", "str", False), ("second", "INT64", False)],
}


@pytest.mark.parametrize("future", ["", FUTURE], ids=["objects", "texts"])
@pytest.mark.parametrize("hint", MEMBERS)
def test_members_of_a_class_are_outputs(loading: Load, hint: str, future: str) -> None:
    signature = loading(f"{future}{HEAD}\ndef predict(x: str) -> {hint}:\n    return None\n").signature
    found = [(one.name, one.datatypes[0].value, one.optional) for one in signature.outputs]
    assert found == MEMBERS[hint]


def test_texts_of_the_docstring_without_a_specification(loading: Load) -> None:
    source = f'''{HEAD}
def predict(text: str, least: Annotated[int, "Only words so long"] = 1, *, _cache={{}}) -> list[int]:
    """Count words.

    All of them.

    :param text: The text
        to look at
    :param int least: not this
    :type text: str
    :returns: How long they are
    """
    return []
'''
    signature = loading(source).signature
    assert (signature.summary, signature.description) == ("Count words.", "All of them.")
    assert [one.description for one in signature.inputs] == ["The text to look at", "Only words so long"]
    assert [one.default for one in signature.inputs] == [None, 1]
    assert signature.outputs[0].description == "How long they are"


# --- what is refused -------------------------------------------------------------------------------------------

REFUSED = {
    "bytes": "write pathlib.Path for a file, or str for a text",
    "set[int]": "write list",
    "datetime.datetime": "write str and convert it",
    "decimal.Decimal": "write float or str",
    "complex": "write list[float]",
    "list": "does not say what its elements are: write for example list[float]",
    "list[Any]": "does not say what its elements are",
    "tuple[int, str]": "a tuple of a fixed length: write tuple[X, ...]",
    "list[Path]": "a list of files: write an argument or output for each",
    "list[np.ndarray]": "a list of arrays: write numpy.ndarray",
    "list[list[dict]]": "nested too deeply",
    "list[Optional[int]]": "elements that may be None",
    "Union[float, list[float]]": "both FP64 and cannot be told apart",
    "Union[Point, Size]": "both dict",
    "dict[int, str]": "keys other than str",
    "dict[str]": "does not say what its keys and values are",
    "dict[str, Path]": "arrays and files are arguments and outputs of their own",
    "dict[str, np.ndarray]": "arrays and files are arguments",
    "Node": "has Node within itself: write dict there",
    "Tree": "has itself within itself",
    "Rows": "has itself within itself",
    "dict[str, AnyOf]": "has itself within itself",
    "AnyOf": "has itself within itself",
    "Circle": "has itself within itself",
    "Round": "has itself within itself",
    "Literal[b'a']": "its values must be texts, integers or truth values",
    "None": "is None alone",
    "Any": "does not say what it is",
    "object": "does not say what it is",
    "typing.Callable[[int], int]": "which is not understood: known are str, int",
    "NDArray[np.complex64]": "write for example numpy.float32",
    "'Nowhere'": "cannot be evaluated (NameError: name 'Nowhere' is not defined)",
    "'list['": "cannot be evaluated (SyntaxError",
    "{'a': 1}": "which is not a type",
    "7": "which is not understood",
}


@pytest.mark.parametrize("future", ["", FUTURE], ids=["objects", "texts"])
@pytest.mark.parametrize("hint", REFUSED)
def test_hints_that_are_not_understood_are_refused(loading: Load, hint: str, future: str) -> None:
    message = refused(
        loading, f"{future}{HEAD}\ndef predict(\n    y: str,\n    x: {hint},\n) -> str:\n    return ''\n"
    )
    line = len(f"{future}{HEAD}\n".splitlines()) + 4
    assert f"app.py:{line}: argument x" in message or f"app.py:{line - 1}: argument x" in message
    assert REFUSED[hint] in message


FUNCTIONS_REFUSED = {
    "def predict(text) -> str: ...": "app.py:1: argument text has no type hint: write for example 'text: str'",
    "def predict(text: str, least=1) -> str: ...": "argument least has no type hint",
    "def predict(text: str): ...": "app.py:1: the function has no return annotation: write for example '-> str'",
    "def predict(text: str) -> None: ...": "the return annotation None is None alone",
    "def predict(text: str) -> list: ...": "the return annotation list does not say what its elements are",
    "def predict(text: str) -> object: ...": "does not say what the result is",
    "def predict(text: str, context: str) -> str: ...": "context is str, but the function gets facts about the call",
    "def predict(text: str, parameters: dict) -> str: ...": "gets the request's list of parameters by this name",
    "def predict(text: str, /) -> str: ...": "must be passable by name, remove the '/'",
    "def predict(text: str, **more) -> str: ...": "there is no docstring",
    "def predict(inputs, text: str) -> str:\n    ''':param inputs.text: A\n    :type inputs.text: str'''": (
        "unknown required argument text; known are"
    ),
    "def predict(größe: str) -> str: ...": "names of inputs are of A-Z, a-z, 0-9 and _",
    "def predict(text: str) -> str:\n    yield text": "write Iterator[...] around it",
    "from typing import Iterator\nfrom pathlib import Path\ndef predict(text: str) -> Iterator[Path]: ...": (
        "app.py:3: output result is a FILE, which cannot be yielded"
    ),
    "class Model:\n    def predict(self, text: str) -> str: ...\npredict = Model.predict": "name it by an instance",
    "from typing import TypedDict\nclass Out(TypedDict):\n    a: str\n    b: bytes\ndef predict(x: str) -> Out: ...": (
        "app.py:4: output b of Out: its type hint bytes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", FUNCTIONS_REFUSED)
def test_functions_that_are_refused(loading: Load, source: str) -> None:
    assert FUNCTIONS_REFUSED[source] in refused(loading, source)


# --- beside a docstring ----------------------------------------------------------------------------------------


def beside(arguments: str, returns: str, *lines: str, head: str = HEAD) -> str:
    """A function with hints and a docstring; a line is ``inputs.NAME TYPE``."""
    fields = "".join(
        f"    :param {name}: about {name}\n    :type {name}: {kind}\n"
        for name, _, kind in (line.partition(" ") for line in lines)
    )
    arrow = f" -> {returns}" if returns else ""
    return f'{head}\ndef predict({arguments}){arrow}:\n    """Do it.\n\n{fields}    """\n    return None\n'


AGREEING = [
    ("x: float", "float", "inputs.x FP32", "outputs.y FP64"),
    ("x: float", "str", "inputs.x FP32 or INT32", "outputs.y str"),
    ("x: float = 1", "str", "inputs.x FP32 or INT32, optional", "outputs.y str"),
    ("x: Optional[int]", "Optional[str]", "inputs.x INT32, optional", "outputs.y str, optional"),
    ("x: Union[int, str]", "dict", "inputs.x str or INT8", "outputs.y str", "outputs.z dict"),
    ("x: np.ndarray", "dict[str, float]", "inputs.x FP32", "outputs.y FP32", "outputs.z FP64"),
    ("x: np.ndarray", "dict[str, float]", "inputs.x UINT8", "outputs.scores dict"),
    ("x: Path", "Path", "inputs.x FILE", "outputs.y FILE"),
    ("x", "dict[str, Any]", "inputs.x FP32 or str", "outputs.y str"),
    ("x: Any", "", "inputs.x FILE", "outputs.y str"),
    ("x: Point", "Point", "inputs.x dict", "outputs.x FP32", "outputs.y INT32", "outputs.label str, optional"),
    ("x: list[int]", "list[dict[str, Any]]", "inputs.x INT32", "outputs.y str", "outputs.z str"),
    ("x: str, model, context, parameters: list", "Iterator[str]", "inputs.x str", "outputs.y str"),
    ("x: Literal['a', 'b']", "Union[str, float]", "inputs.x str", "outputs.y str or FP32"),
]  # fmt: skip


@pytest.mark.parametrize("case", AGREEING, ids=str)
def test_hints_that_agree_with_the_docstring(loading: Load, case: tuple[str, ...]) -> None:
    signature = loading(beside(*case)).signature
    assert signature.by_name
    described = [f"inputs.{one.name}" for one in signature.inputs]
    described += [f"outputs.{one.name}" for one in signature.outputs]
    assert described == [line.partition(" ")[0] for line in case[2:]]
    for one in (*signature.inputs, *signature.outputs):
        assert one.description.startswith("about")
        assert len(one.forms) in (0, len(one.datatypes))


#: Arguments, result, lines of the docstring, words of the message: {f} is the function's line, {d+0} the docstring's
DISAGREEING: list[tuple[str, str, list[str], str]] = [
    ("x: float", "str", ["inputs.x INT32", "outputs.y str"],
     "app.py:{f}: argument x is float by its type hint, and INT32 by the docstring in app.py:{d+3}: write int here"),
    ("x: str", "str", ["inputs.x FILE", "outputs.y str"], "write pathlib.Path here, or str there"),
    ("x: int", "str", ["inputs.x INT32 or str", "outputs.y str"], "write int | str here, or INT64 there"),
    ("x: Union[int, str]", "str", ["inputs.x INT32", "outputs.y str"], "write int here, or INT64 or str there"),
    ("x: bool", "str", ["inputs.x INT32", "outputs.y str"], "write int here, or BOOL there"),
    ("x: NDArray[np.float64]", "str", ["inputs.x FP32", "outputs.y str"], "FP32 by the docstring"),
    ("x: Point", "str", ["inputs.x str", "outputs.y str"], "write str here, or dict there"),
    ("x: str, z: int = 1", "str", ["inputs.x str", "outputs.y str"],
     "app.py:{f}: argument z is not described in the docstring in app.py:{d+0}: add ':param inputs.z:'"),
    ("x: str", "str", ["inputs.x str", "inputs.z str", "outputs.y str"],
     "app.py:{d+5}: the docstring describes inputs.z, but the function in app.py:{f} has no such argument"),
    ("x: str", "str", ["inputs.x str", "inputs.top-k INT32", "outputs.y str"], "an argument cannot have this name"),
    ("x: str", "str", ["inputs.x str", "inputs.model str", "outputs.y str"], "model is an argument of every call"),
    ("x: str = ''", "str", ["inputs.x str", "outputs.y str"],
     "argument x is optional by its type hint or default, and required by the docstring in app.py:{d+3}: add"),
    ("x: Optional[str]", "str", ["inputs.x str", "outputs.y str"], "argument x is optional by its type hint"),
    ("x: str", "str", ["inputs.x str, optional", "outputs.y str"], "give it a default, or write Optional[...] here"),
    ("x: str", "int", ["inputs.x str", "outputs.y str"],
     "app.py:{f}: output y is int by its type hint, and str by the docstring in app.py:{d+5}: write str here"),
    ("x: str", "Optional[str]", ["inputs.x str", "outputs.y str"], "output y is optional by its type hint"),
    ("x: str", "str", ["inputs.x str", "outputs.y str, optional"], "write Optional[...] here"),
    ("x: str", "str", ["inputs.x str", "outputs.y str", "outputs.z str"], "is one output, but the docstring"),
    ("x: str", "str", ["inputs.x str"], "describes no outputs"),
    ("x: str", "str", ["outputs.y str"], "argument x is not described"),
    ("x: str", "dict[str, float]", ["inputs.x str", "outputs.y FP32", "outputs.z str"], "output z is float"),
    ("x: str", "Pair", ["inputs.x str", "outputs.first str"],
     "app.py:{second}: output second is not described in the docstring in app.py:{d+0}"),
    ("x: str", "Pair", ["inputs.x str", "outputs.first str", "outputs.second INT32", "outputs.third str"],
     "app.py:{d+9}: the docstring describes outputs.third, but Pair, which the function in app.py:{f} returns"),
    ("x: str", "Size", ["inputs.x str", "outputs.width INT32", "outputs.height INT32"], "output height is optional"),
    ("x: str", "Iterator[int]", ["inputs.x str", "outputs.y str"], "output y is int by its type hint, and str"),
    ("x: str, y", "str", ["inputs.x str", "outputs.y str"], "argument y is not described"),
    ("x: bytes", "str", ["inputs.x str", "outputs.y str"], "app.py:{f}: argument x: its type hint bytes is bytes"),
]  # fmt: skip


@pytest.mark.parametrize("future", ["", FUTURE], ids=["objects", "texts"])
@pytest.mark.parametrize("case", DISAGREEING, ids=str)
def test_disagreements_have_both_places(
    loading: Load, case: tuple[str, str, list[str], str], future: str
) -> None:
    arguments, returns, lines, words = case
    message = refused(loading, beside(arguments, returns, *lines, head=future + HEAD))
    lines_before = (future + HEAD).splitlines()
    places = {
        "{f}": len(lines_before) + 2,
        "{second}": lines_before.index("    second: int = 2") + 1,
        **{f"{{d+{more}}}": len(lines_before) + 3 + more for more in (0, 3, 5, 9)},
    }
    for text, number in places.items():
        words = words.replace(text, str(number))
    assert words in message


def test_all_disagreements_are_told_at_once(loading: Load) -> None:
    message = refused(
        loading, beside("a: int, b: str = ''", "int", "inputs.a str", "inputs.b str", "outputs.c str")
    )
    assert [part in message for part in ("argument a", "argument b", "output c")] == [True] * 3


def test_lists_beside_the_line_for_arrays(loading: Load) -> None:
    source = beside(
        "x: list[float], y: float, z",
        "str",
        "inputs.x FP32",
        "inputs.y FP32",
        "inputs.z FP32",
        "outputs.o str",
    )
    source = source.replace("    :param inputs.x", "    :type inputs: arrays\n    :param inputs.x")
    assert (
        "argument x is list[float] by its type hint, and an array by ':type inputs: arrays' in app.py"
        in refused(loading, source)
    )
    assert loading(source.replace("list[float]", "np.ndarray")).numpy is not None


CLASSIC = [
    ("inputs", ""),
    ("inputs: list, threshold: float = 0.5", "dict[str, int]"),
    ("inputs: 'Nowhere', context: 'Nowhere' = None", "'Nowhere'"),
    ("inputs, model: bytes", "bytes"),
    ("model, threshold=0.5", ""),
    ("**given: int", "Loose"),
    ("inputs: list[dict[str, Any]]", "Size"),
    ("parameters, model", "dict"),
]


@pytest.mark.parametrize("future", ["", FUTURE], ids=["objects", "texts"])
@pytest.mark.parametrize(("arguments", "returns"), CLASSIC)
def test_functions_of_lists_are_described_by_their_docstring_alone(
    loading: Load, arguments: str, returns: str, future: str
) -> None:
    source = beside(arguments, returns, "inputs.text str", "outputs.score FP32", head=future + HEAD)
    signature = loading(source).signature
    assert not signature.by_name
    assert signature.result is ResultForm.LISTED
    assert [one.forms for one in (*signature.inputs, *signature.outputs)] == [(), ()]


def test_a_function_of_lists_may_return_a_dataclass(loading: Load) -> None:
    lines = ("inputs.text str", "outputs.x FP32", "outputs.y INT32")
    assert loading(beside("inputs", "Point", *lines, "outputs.label str, optional")).signature.result is (
        ResultForm.MEMBERS
    )
    assert "output label is not described" in refused(loading, beside("inputs", "Point", *lines))


@pytest.mark.parametrize("page", ["reference/serving.md", "guide/module.md"])
def test_functions_of_the_documentation_are_described(loading: Load, page: str) -> None:
    sources = [block.text for block in blocks(ROOT / "docs" / page) if block.language == "python"]
    hinted = [source for source in sources if "def predict(" in source and "->" in source]
    assert hinted
    for source in hinted:
        signature = loading(source).signature
        assert (signature.inputs, signature.outputs) != ((), ())


# --- checks and descriptions -----------------------------------------------------------------------------------


def item(datatype: str, data: Any, shape: Any = None) -> dict[str, Any]:
    given = {"name": "x", "datatype": datatype, "data": data}
    return given if shape is None else {**given, "shape": shape}


POINT = {"x": 1, "y": 2}
#: A hint, an input, and what the function gets, or the pointer and words of its fault.
CALLS: list[tuple[str, dict[str, Any], Any]] = [
    ("float", item("FP64", 1), "1.0"),
    ("float", item("FP64", [0.5], [1, 1]), "0.5"),
    ("float", item("FP64", [1, 2], [2]), "/data must be one value, not 2"),
    ("int", item("INT64", 7.0), "7"),
    ("int", item("INT64", "7"), "/data must be an integer within"),
    ("int", item("INT32", 7), "/datatype 'INT32' is not a datatype of 'x'"),
    ("bool", item("BOOL", True), "True"),
    ("str", item("str", "a", 7), "'a'"),
    ("str", item("str", ["a"], [1]), "'a'"),
    ("str", item("str", ["a", "b"], [2]), "/data must be one value, not 2"),
    ("list[float]", item("FP64", [1, 0.5]), "[1.0, 0.5]"),
    ("list[float]", item("FP64", 1), "/data must be a flat array, not a number"),
    ("list[float]", item("FP64", [1, 2], [1, 2]), "/shape must have 1 dimension, not 2"),
    ("list[str]", item("str", ["a", "b"]), "['a', 'b']"),
    ("list[str]", item("str", ["a", "b"], 0), "['a', 'b']"),
    ("list[str]", item("str", "a"), "/data must be a flat array, not a string"),
    ("list[str]", item("str", ["a", 1]), "/data/1 must be a string, not 1"),
    ("tuple[int, ...]", item("INT64", [1, 2]), "(1, 2)"),
    ("list[list[int]]", item("INT64", [1, 2, 3, 4, 5, 6], [2, 3]), "[[1, 2, 3], [4, 5, 6]]"),
    ("list[list[int]]", item("INT64", [], [2, 0]), "[[], []]"),
    ("list[list[int]]", item("INT64", [], [2000000000, 0]), "/shape has more than 1000 empty lists"),
    ("list[list[int]]", item("INT64", [1]), "/shape is missing: the list has 2 dimensions"),
    ("list[list[int]]", item("INT64", [1], [1]), "/shape must have 2 dimensions, not 1"),
    ("list[list[str]]", item("str", ["a", "b"], [1, 2]), "[['a', 'b']]"),
    ("list[list[str]]", item("str", ["a", "b"], [1, 3]), "/shape [1, 3] needs 3 elements"),
    ("list[list[str]]", item("str", ["a", "b"], "odd"), "/shape must be an array of sizes"),
    ("tuple[list[int], ...]", item("INT64", [1, 2], [2, 1]), "([1], [2])"),
    ("Literal['a', 'b']", item("str", "a"), "'a'"),
    ("Literal['a', 'b']", item("str", "c"), "/data must be one of \"a\", \"b\", not 'c'"),
    ("Literal[1, 2]", item("INT64", 2.0), "2"),
    ("Literal[1, 2]", item("INT64", 3), "/data must be one of 1, 2, not 3"),
    ("list[Literal['a', 'b']]", item("str", ["a", "x"]), "/data/1 must be one of"),
    ("Color", item("str", "red"), "<Color.RED: 'red'>"),
    ("Color", item("str", "RED"), "/data must be one of \"red\", \"blue\", not 'RED'"),
    ("Union[int, str]", item("INT64", 1), "1"),
    ("Union[int, str]", item("str", "1"), "'1'"),
    ("dict", item("dict", {"a": [1]}), "{'a': [1]}"),
    ("dict[str, float]", item("dict", {"a": 1}), "{'a': 1.0}"),
    ("dict[str, float]", item("dict", {"a": 1, "b/c": "x"}), "/data/b~1c must be a 64-bit"),
    ("dict[str, float]", item("dict", {"a": 10**400}), "/data/a must be a 64-bit"),
    ("dict[str, Optional[bool]]", item("dict", {"a": None, "b": True}), "{'a': None, 'b': True}"),
    ("dict[str, Union[int, list[int]]]", item("dict", {"a": [1, "b"]}), "/data/a/1 must be an integer, not a string"),
    ("Point", item("dict", POINT), "Point(x=1.0, y=2, label=None)"),
    ("Point", item("dict", {"x": 1, "label": None}), "Point(x=1.0, y=0, label=None)"),
    ("Point", item("dict", {"y": 1}), "/data member 'x' is missing"),
    ("Point", item("dict", {**POINT, "z": 1}), "/data/z unknown member 'z'; known are x, y, label"),
    ("Point", item("dict", {**POINT, "y": 1.5}), "/data/y must be an integer, not 1.5"),
    ("Point", item("dict", {**POINT, "y": True}), "/data/y must be an integer, not a boolean"),
    ("Point", item("dict", [POINT], [1]), "Point(x=1.0, y=2, label=None)"),
    ("list[Point]", item("dict", [POINT, POINT]), "[Point(x=1.0, y=2, label=None), Point(x=1.0, y=2, label=None)]"),
    ("list[Point]", item("dict", [POINT, {}]), "/data/1 member 'x' is missing"),
    ("Shape", item("dict", {"points": [POINT], "kind": "area"}),
     "Shape(points=[Point(x=1.0, y=2, label=None)], kind='area')"),
    ("Shape", item("dict", {"points": [{"x": "a"}], "kind": "area"}),
     "/data/points/0/x must be a 64-bit floating-point number, not a string"),
    ("Shape", item("dict", {"points": [], "kind": "dot"}), "/data/kind must be one of \"line\", \"area\", not 'dot'"),
    ("Shape", item("dict", {"points": 1, "kind": "line"}), "/data/points must be an array, not a number"),
    ("Size", item("dict", {"width": 1}), "{'width': 1}"),
    ("Size", item("dict", {"height": 1}), "/data member 'width' is missing"),
    ("Pair", item("dict", {"first": "a"}), "Pair(first='a', second=2)"),
    ("np.float32", item("FP32", 0.5), repr(__import__("numpy").float32(0.5))),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "given", "outcome"), CALLS, ids=str)
def test_what_the_function_gets(loading: Load, hint: str, given: dict[str, Any], outcome: str) -> None:
    inference = loading(f"{HEAD}\ndef predict(x: {hint}) -> str:\n    return ''\n")
    body = {"inputs": [given]}
    fits = Draft202012Validator(whole_schema(inference.signature)).is_valid(body)
    body = json.loads(json.dumps(body))
    faults = compile_check(inference.signature)(body)
    if faults:
        (fault,) = faults
        assert f"{fault.pointer.removeprefix('/inputs/0')} {fault.detail}".startswith(outcome)
    else:
        (checked,) = body["inputs"]
        form = inference.signature.inputs[0].form(Datatype(checked["datatype"]))
        assert form is not None
        assert repr(form.python(checked)) == outcome
    # JSON Schema cannot compare the product of dimensions with a length, and has numbers of any size.
    assert (
        fits is not bool(faults)
        or any(word in outcome for word in ("needs", "empty lists"))
        or ("data/a must" in outcome)
    )


@pytest.mark.parametrize("hint", ["list[Literal['a']]", "list[Point]", "dict[str, list[int]]"])
def test_what_is_told_of_a_request_is_bounded(loading: Load, hint: str) -> None:
    signature = loading(f"{HEAD}\ndef predict(x: {hint}) -> str: ...\n").signature
    many = ["b"] * 10_000
    data: Any = {"a": many} if hint.startswith("dict") else [{"x": "b"}] * 10_000 if "Point" in hint else many
    body = {"inputs": [item("str" if "Literal" in hint else "dict", data)]}
    assert len(compile_check(signature)(body)) == 100


def whole_schema(signature: Signature) -> dict[str, Any]:
    description = openapi.document(signature, "title")
    return {"$ref": "#/components/schemas/Request", "components": description["components"]}


@pytest.mark.parametrize("hint", [hint for hint in HINTS if HINTS[hint][0] != ["FILE"]])
def test_the_example_of_the_description_is_accepted(loading: Load, hint: str) -> None:
    signature = loading(f"{HEAD}\ndef predict(x: {hint}) -> {hint}:\n    return ''\n").signature
    document = openapi.document(signature, "title")
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert list(Draft202012Validator(whole_schema(signature)).iter_errors(example)) == []
    assert compile_check(signature)(copy.deepcopy(example)) == []
    assert "<td><code>x</code>" in docs_page.render(document)


def test_choices_and_defaults_are_in_the_description(loading: Load) -> None:
    source = f"{HEAD}\ndef predict(x: Literal['a', 'b'] = 'b', y: float = 0.5, z: Color = Color.RED) -> Color:\n    ..."
    signature = loading(source).signature
    document = openapi.document(signature, "title")
    data = {
        name: document["components"]["schemas"][f"Input.{name}"]["properties"]["data"]
        for name in ("x", "y", "z")
    }
    assert (data["x"]["oneOf"][0], data["x"]["default"]) == ({"enum": ["a", "b"]}, "b")
    assert data["y"]["default"] == 0.5
    assert data["z"]["default"] == "red"
    assert "One of &quot;a&quot;, &quot;b&quot;. &quot;b&quot; if it is left out." in docs_page.render(
        document
    )


# --- classes within classes -------------------------------------------------------------------------------------


def nested(levels: int, members: int, style: str = "list[{}]") -> str:
    """Classes in which each has several members of the one before."""
    classes = ["@dataclass\nclass C0:\n    x: int\n"]
    for level in range(1, levels):
        fields = "".join(f"    m{index}: {style.format(f'C{level - 1}')}\n" for index in range(members))
        classes.append(f"@dataclass\nclass C{level}:\n{fields}")
    return "\n".join(classes)


@pytest.mark.parametrize("style", ["{}", "list[{}]", "Optional[{}]", "dict[str, {}]"])
def test_setting_up_classes_within_classes_takes_as_long_as_there_are_classes(
    loading: Load, style: str
) -> None:
    """With two members of one class in each of 24, reading each of them would take minutes, and the description would
    have some millions of lines."""
    levels = 20 if "[" in style else 24
    source = f"{HEAD}\n{nested(levels, 2, style)}\n"
    signature = loading(f"{source}def predict(x: C{levels - 1}) -> C{levels - 1}: ...\n").signature
    document = openapi.document(signature, "title")
    schemas = document["components"]["schemas"]
    expected = {f"Model.Input.x.C{level}" for level in range(levels - 1)}
    expected |= {f"Model.Output.m{index}.C{level}" for index in (0, 1) for level in range(levels - 2)}
    assert {name for name in schemas if name.startswith("Model.")} == expected
    assert len(json.dumps(document)) < 100_000
    assert docs_page.render(document)


@pytest.mark.parametrize(("levels", "members"), [(2, 2), (3, 3), (5, 2)])
@pytest.mark.parametrize("style", ["{}", "list[{}]", "Optional[{}]", "dict[str, {}]"])
def test_a_description_with_references_means_the_same(
    loading: Load, levels: int, members: int, style: str
) -> None:
    """What the description takes, the check takes, and the other way round."""
    source = f"{HEAD}\n{nested(levels, members, style)}\n"
    signature = loading(f"{source}def predict(x: C{levels - 1}) -> str: ...\n").signature
    validator = Draft202012Validator(whole_schema(signature))

    def value(level: int, leaf: object) -> Any:
        if not level:
            return {"x": leaf}
        inner = value(level - 1, leaf)
        filled = {"list[{}]": [inner, inner], "dict[str, {}]": {"a": inner}}.get(style, inner)
        return {f"m{index}": filled for index in range(members)}

    for leaf, right in ((1, True), ("text", False), ({"x": 1}, False)):
        body = {"inputs": [item("dict", value(levels - 1, leaf))]}
        assert (not list(validator.iter_errors(body))) is right
        assert (not compile_check(signature)(copy.deepcopy(body))) is right


def test_classes_of_one_name_are_described_each(loading: Load) -> None:
    source = f"""{HEAD}
def made(kind):
    return dataclasses.make_dataclass("Same", [("x", kind)])
A, B = made(int), made(str)
@dataclass
class Pair:
    a: A
    b: B
@dataclass
class Pairs:
    one: Pair
    two: Pair
    a: A
    b: B
def predict(x: Pairs) -> str: ...
"""
    schemas = openapi.document(loading(source).signature, "title")["components"]["schemas"]
    kinds = [schemas[f"Model.Input.x.Same{end}"]["properties"]["x"]["type"] for end in ("", "-2")]
    assert sorted(kinds) == ["integer", "string"]


def test_levels_are_bounded_however_a_class_is_reached(loading: Load) -> None:
    """The first member is read at a depth at which it fits, the second one deeper: it is the same class."""
    source = f"{HEAD}\n{nested(30, 1, '{}')}\n{'list[' * 25}C29{']' * 25}"
    for first in ("", "a: C29\n    "):
        deep = f"@dataclass\nclass Deep:\n    {first}b: {'list[' * 25}C29{']' * 25}\n"
        with pytest.raises(SetupError, match="more than 50 levels"):
            loading(f"{source}\n{deep}def predict(x: Deep) -> str: ...\n")


# --- calls of a real server ------------------------------------------------------------------------------------

SOURCE = (
    FUTURE
    + HEAD
    + '''
@dataclass
class Answer:
    seen: dict[str, str]
    array: NDArray[np.float32] | None
    where: Point
    color: Color
    user: str | None = None

def predict(
    context,
    text: str,
    point: Point | None = None,
    image: np.ndarray | None = None,
    pixels: list[list[int]] = [],
    file: Path | None = None,
    color: Color = Color.BLUE,
    mode: Literal["fast", "wrong", "choice"] = "fast",
    *,
    count: Optional[int],
) -> Answer:
    """Show what it got."""
    given = {"text": text, "point": point, "image": image, "pixels": pixels, "file": file and file.read_bytes(),
        "color": color, "count": count}
    seen = {name: repr(value) for name, value in given.items()}
    if mode == "wrong":
        return {"seen": seen, "array": None, "where": 7, "color": "red"}
    if mode == "choice":
        return Answer(seen, image, Point(1), "green")
    return Answer(seen, image, Point(np.float64(0.5), 2), color, context.request_id and None)
'''
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hinted")
    (folder / "box" / "group").mkdir(parents=True)
    (folder / "box" / "group" / "cat.png").write_bytes(b"cat")
    server = Server(folder, SOURCE, component="net", files_root=str(folder / "box")).ready()
    yield server
    server.close()


def request(**inputs: tuple[str, Any]) -> dict[str, Any]:
    items = [{"name": name, "datatype": kind, "data": data} for name, (kind, data) in inputs.items()]
    return {"inputs": [{"name": "text", "datatype": "str", "data": "hi"}, *items]}


def test_what_is_left_out_has_its_default(server: Server) -> None:
    reply = server.post(request())
    assert reply.outputs == {
        "seen": {
            "text": "'hi'",
            "point": "None",
            "image": "None",
            "pixels": "[]",
            "file": "None",
            "color": "<Color.BLUE: 'blue'>",
            "count": "None",
        },
        "where": {"x": 0.5, "y": 2, "label": None},
        "color": "blue",
    }


def test_inputs_are_arguments(server: Server) -> None:
    body = request(
        point=("dict", {"x": 1}), file=("FILE", "group/cat.png"), color=("str", "red"), count=("INT64", 3)
    )
    body["inputs"] += [
        {"name": "image", "datatype": "FP32", "data": [1, 2], "shape": [2, 1]},
        {"name": "pixels", "datatype": "INT64", "data": [1, 2], "shape": [1, 2]},
    ]
    reply = server.post(body)
    assert reply.outputs["seen"] == {
        "text": "'hi'",
        "point": "Point(x=1.0, y=0, label=None)",
        "image": "array([[1.],\n       [2.]], dtype=float32)",
        "pixels": "[[1, 2]]",
        "file": "b'cat'",
        "color": "<Color.RED: 'red'>",
        "count": "3",
    }
    assert {"name": "array", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]} in reply.json["outputs"]


def test_a_request_that_does_not_fit_the_hints(server: Server) -> None:
    reply = server.post(request(point=("dict", {"x": 1, "y": "a"}), color=("str", "pink"), more=("str", "a")))
    assert reply.status == 422
    assert [error["pointer"] for error in reply.json["errors"]] == [
        "/inputs/1/data/y",
        "/inputs/2/data",
        "/inputs/3/name",
    ]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("wrong", "output 'where' is of type int, not a Point"),
        ("choice", "output 'color' is 'green', not one of \"red\", \"blue\", as its type hint says"),
    ],
)
def test_a_result_that_does_not_fit_the_hints(server: Server, mode: str, words: str) -> None:
    reply = server.post(request(mode=("str", mode)))
    assert reply.status == 500
    assert words in reply.json["detail"]


def test_the_open_inference_protocol(server: Server) -> None:
    metadata = server.get("/v2/models/net").json
    assert {one["name"]: (one["datatype"], one["shape"]) for one in metadata["inputs"]} == {
        "text": ("BYTES", [1]),
        "point": ("BYTES", [1]),
        "image": ("FP64", [-1]),
        "pixels": ("INT64", [-1, -1]),
        "file": ("FILE", [1]),
        "color": ("BYTES", [1]),
        "mode": ("BYTES", [1]),
        "count": ("INT64", [1]),
    }
    tensors = [
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hi"]},
        {"name": "pixels", "datatype": "INT32", "shape": [2, 1], "data": [[1], [2]]},
        {"name": "point", "datatype": "BYTES", "shape": [1], "data": ['{"x": 2}']},
        {"name": "count", "datatype": "UINT8", "shape": [1], "data": [4]},
    ]
    reply = server.post({"inputs": tensors}, "/v2/models/net/infer")
    seen = json.loads(next(one["data"][0] for one in reply.json["outputs"] if one["name"] == "seen"))
    assert (seen["pixels"], seen["point"], seen["count"]) == (
        "[[1], [2]]",
        "Point(x=2.0, y=0, label=None)",
        "4",
    )


@pytest.mark.slow
def test_a_function_that_yields(serve: Serve) -> None:
    source = f"""{FUTURE}{HEAD}
async def predict(text: str) -> AsyncIterator[Pair]:
    for index, word in enumerate(text.split()):
        yield Pair(word, index)
"""
    server = serve(source).ready()
    body = {"inputs": [{"name": "text", "datatype": "str", "data": "to be"}]}
    events = server.post(body, Accept="text/event-stream").body.decode().split("\n\n")
    assert [json.loads(event[6:])["outputs"][0]["data"] for event in events if event] == ["to", "be"]
    assert server.post(body).outputs == {"first": ["to", "be"], "second": [0, 1]}


RESULTS = [
    ("float", "1", {"datatype": "FP64", "shape": [1], "data": [1]}),
    ("float", "np.float32(0.5)", {"datatype": "FP64", "shape": [1], "data": [0.5]}),
    ("float", "[0.5, 1]", "output 'result' has 2 values, its type hint says one"),
    ("int", "0.5", "cannot be written as INT64"),
    ("list[float]", "np.ones(2)", {"datatype": "FP64", "shape": [2], "data": [1, 1]}),
    ("list[float]", "1.0", {"datatype": "FP64", "shape": [1], "data": [1]}),
    ("list[list[int]]", "[1, 2]", "has 1 dimension, its type hint says 2"),
    ("list[list[int]]", "[]", {"datatype": "INT64", "shape": [0], "data": []}),
    ("np.ndarray", "np.ones((1, 2), 'f4')", {"datatype": "FP32", "shape": [1, 2], "data": [1, 1]}),
    ("np.ndarray", "np.ones(1, 'u1')", {"datatype": "UINT8", "shape": [1], "data": [1]}),
    ("NDArray[np.float32]", "np.ones(1, 'f8')", {"datatype": "FP32", "shape": [1], "data": [1]}),
    ("str", "None", "cannot be written as"),
    ("str", "['a']", {"datatype": "str", "shape": [1], "data": ["a"]}),
    ("str", "['a', 'b']", "output 'result' has 2 values, its type hint says one"),
    ("Color", "Color.RED", {"datatype": "str", "data": "red"}),
    ("list[Color]", "[Color.RED, 'blue']", {"datatype": "str", "shape": [2], "data": ["red", "blue"]}),
    ("Literal['a']", "'b'", "is 'b', not \"a\", as its type hint says"),
    ("Optional[int]", "None", None),
    ("dict[str, float]", "{'a': np.float64(1)}", {"datatype": "dict", "data": {"a": 1}}),
    ("dict[str, float]", "{'a': 'b'}", "has member 'a', which is of type str, not a 64-bit floating-point number"),
    ("dict[str, Any]", "{'a': np.ones(1)}", {"datatype": "dict", "data": {"a": [1]}}),
    ("dict[str, Optional[Point]]", "{'a': Point(1), 'b': None}",
     {"datatype": "dict", "data": {"a": {"x": 1, "y": 0, "label": None}, "b": None}}),
    ("list[Size]", "[{'width': 1}]", {"datatype": "dict", "shape": [1], "data": [{"width": 1}]}),
    ("list[Size]", "[{'width': 1, 'depth': 2}]", "has a member 'depth', which Size does not have"),
    ("list[Size]", "{'width': 1}", "is not a list, as its type hint says"),
    ("Union[int, str]", "'a'", {"datatype": "str", "data": "a"}),
    ("Union[int, str]", "7", {"datatype": "INT64", "shape": [1], "data": [7]}),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value", "outcome"), RESULTS)
def test_what_becomes_of_a_result(loading: Load, hint: str, value: str, outcome: Any) -> None:
    inference = loading(f"{HEAD}\ndef predict() -> {hint}:\n    return {value}\n")
    encoder = OutputEncoder(inference.signature)
    if isinstance(outcome, str):
        with pytest.raises(BadOutput) as caught:
            encoder.collect(inference.function(), [], NoFiles(), "id")
        assert outcome in str(caught.value)
        return
    reply = json.loads(encode({"outputs": encoder.collect(inference.function(), [], NoFiles(), "id")}))
    assert reply["outputs"] == ([] if outcome is None else [{"name": "result", **outcome}])
    document = openapi.document(inference.signature, "title")
    schema = {"$ref": "#/components/schemas/Reply", "components": document["components"]}
    assert value == "[]" or list(Draft202012Validator(schema).iter_errors(reply)) == []


class NoFiles:
    """No result here is a file."""

    def fetch(self, index: int, key: str) -> str:
        raise NotImplementedError

    def store(self, path: str, index: int, name: str, call_id: str) -> str:
        raise NotImplementedError


@pytest.mark.slow
def test_what_a_class_refuses(serve: Serve) -> None:
    source = f"""{HEAD}
@dataclass
class Range:
    low: float
    high: float
    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")
        if self.low == -2:
            raise SystemExit("odd")
        if self.low < 0:
            raise KeyError("odd")

def predict(within: Range, file: Optional[Path] = None) -> float:
    return within.high - within.low
"""
    server = serve(source).ready()

    def call(low: float, high: float) -> Any:
        data = {"low": low, "high": high}
        return server.post({"inputs": [{"name": "within", "datatype": "dict", "data": data}]})

    assert call(1, 3).json["outputs"] == [{"name": "result", "datatype": "FP64", "shape": [1], "data": [2]}]
    refused = call(3, 1)
    assert (refused.status, refused.json["errors"]) == (
        422,
        [{"pointer": "/inputs/0/data", "detail": "low is above high"}],
    )
    for low, kind in ((-1, "KeyError"), (-2, "SystemExit")):
        failed = call(low, 1)
        assert (failed.status, failed.json["exception"]["type"]) == (500, kind)
