"""Hints read from source text say what they say at set-up, of every kind in the tables for that."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.manifests.hints import function_of
from controller.serving import hinted
from controller.serving.hinted import Disagreement
from controller.serving.loading import SetupError
from controller.serving.signature import Signature
from tests.unit.serving.test_hints import (
    AGREEING,
    CLASSIC,
    DISAGREEING,
    FUNCTIONS_REFUSED,
    FUTURE,
    HEAD,
    HINTS,
    MEMBERS,
    REFUSED,
    Load,
    beside,
    loading,
    refused,
)

__all__ = ["loading"]

#: What only set-up refuses: how arguments are passed, and how a function is named.
AT_SETUP = ("def predict(text: str, /)", "class Model:")


def by_source(source: str) -> Signature:
    """The signature, without running the source. Raises Disagreement."""
    module = ast.parse(source)
    (node,) = (one for one in module.body if isinstance(one, ast.FunctionDef) and one.name == "predict")
    text = ast.get_docstring(node, clean=False)
    line = node.lineno if text is None else node.body[0].lineno
    return hinted.describe(function_of(module, node, "app.py"), text, "app.py", line).signature


def kinds(signature: Signature) -> list[Any]:
    """What a signature says, but for the classes."""
    return [
        signature.by_name,
        signature.result,
        *(
            (
                *(one.name, one.datatypes, one.optional, one.description, one.default),
                *(
                    (form.rank, form.choices, form.array, form.yielded, type(form.value))
                    for form in one.forms
                ),
            )
            for one in (*signature.inputs, *signature.outputs)
        ),
    ]


def function(hint: str, returns: str) -> str:
    return f"{FUTURE}{HEAD}\ndef predict(\n    y: str,\n    x: {hint},\n) -> {returns}:\n    return None\n"


GOOD = [
    *(function(hint, "str") for hint in HINTS),
    *(function("str", hint) for hint in (*HINTS, *MEMBERS)),
    *(beside(*case, head=FUTURE + HEAD) for case in AGREEING),
    *(beside(*case, "inputs.text str", "outputs.score FP32", head=FUTURE + HEAD) for case in CLASSIC),
    function("str = 'a'", "Iterator[Point]"),
    *(function(f"{hint} = None", "str") for hint in ("int", "Color", "list[int]")),
    ("from typing import NewType\nVector = list[list[float]]\nName = NewType('Name', str)\n"
     "def predict(x: Vector, y: Name) -> Vector: ..."),
    ("import typing as t\nfrom dataclasses import dataclass, field\n@dataclass(order=True)\nclass Base:\n    a: int\n"
     "@dataclass\nclass Out(Base):\n    b: 'list[str]' = field(default_factory=list)\n    c: t.ClassVar[bytes] = b''\n"
     "def predict(x: Out) -> Out: ..."),
    "import numpy\ndef predict(x: numpy.ndarray) -> numpy.ndarray: ...",
]  # fmt: skip


@pytest.mark.parametrize("source", GOOD)
def test_the_source_says_what_set_up_says(loading: Load, source: str) -> None:
    assert kinds(by_source(source)) == kinds(loading(source).signature)


BAD = [
    *(function(hint, "str") for hint in REFUSED),
    *(source for source in FUNCTIONS_REFUSED if not source.startswith(AT_SETUP)),
    *(beside(arguments, returns, *lines, head=FUTURE + HEAD) for arguments, returns, lines, _ in DISAGREEING),
]


@pytest.mark.parametrize("source", BAD)
def test_the_source_is_refused_as_at_set_up(loading: Load, source: str) -> None:
    with pytest.raises(Disagreement) as caught:
        by_source(source)
    told = refused(loading, source).partition("predict: ")[2]
    assert without_modules(str(caught.value)) == without_modules(told)


def without_modules(message: str) -> str:
    """A message without the names of the test's modules; at set-up annotations may be objects, not texts."""
    for module in (
        "collections.abc.",
        "typing.",
        "datetime.",
        "decimal.",
        "np.",
        "numpy.",
        "pathlib.",
        "app.",
    ):
        message = message.replace(module, "")
    return re.sub(r"hinted_\d+\.", "", message)


UNKNOWN = {
    "another module's": "from elsewhere import Thing\n",
    "a star's": "from elsewhere import *\n",
    "a relative one": "from . import Thing\n",
    "bound twice": "from dataclasses import dataclass\nThing = int\nThing = str\n",
    "conditional": "try:\n    from elsewhere import Thing\nexcept ImportError:\n    Thing = str\n",
    "computed": "Thing = make()\n",
    "decorated": "@elsewhere\nclass Thing: ...\n",
    "of a base that is not known": "from elsewhere import Base\nclass Thing(Base):\n    x: int\n",
    "a computed enumeration": "import enum\nclass Thing(enum.Enum):\n    A = enum.auto()\n",
    "a variable": "Thing: type\n",
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_left_to_set_up(case: str) -> None:
    for arguments, returns in (
        ("x: Thing", "str"),
        ("x: list[Thing]", "Thing"),
        ("x: Thing.inner", "list[Thing]"),
    ):
        by_source(f"{UNKNOWN[case]}def predict({arguments}) -> {returns}: ...")


def test_what_is_known_beside_it_is_checked() -> None:
    source = "from elsewhere import Thing\ndef predict(x: Thing, y: bytes) -> Thing: ..."
    with pytest.raises(Disagreement, match="argument y"):
        by_source(source)
    with pytest.raises(Disagreement, match="argument x is optional"):
        by_source(
            beside(
                "x: Thing = None",
                "Thing",
                "inputs.x str",
                "outputs.y str",
                head="from elsewhere import Thing\n",
            )
        )


MODEL = """
import pydantic
from pydantic import BaseModel, Field
class Base(BaseModel):
    a: int
class Out(Base):
    model_config = {}
    b: str | None = Field(None, description="B")
    _c: bytes = b""
@pydantic.dataclasses.dataclass
class Box:
    width: float = Field(gt=0)
"""


def test_models_of_pydantic() -> None:
    signature = by_source(f"{MODEL}def predict(x: Out, y: list[Base], z: Box) -> Out: ...")
    assert [one.datatypes[0].value for one in signature.inputs] == ["dict"] * 3
    assert [(one.name, one.optional) for one in signature.outputs] == [("a", False), ("b", True)]
    with pytest.raises(Disagreement, match=r"app\.py:8: output b is not described"):
        by_source(beside("x: Out", "Out", "inputs.x dict", "outputs.a INT32", head=MODEL))


LEAVES = st.sampled_from(
    [
        *(
            "str",
            "int",
            "float",
            "bool",
            "None",
            "Any",
            "object",
            "bytes",
            "dict",
            "list",
            "tuple",
            "Path",
            "Color",
        ),
        *(
            "Point",
            "Shape",
            "Size",
            "Pair",
            "Node",
            "Nowhere",
            "np.ndarray",
            "np.float32",
            "np.floating",
            "Meters",
        ),
        *("NDArray[np.uint8]", "Literal['a', 1]", "Literal[None]", "'Point'", "7", "decimal.Decimal"),
    ]
)
ONE = (
    "list[{}]",
    "Optional[{}]",
    "tuple[{}, ...]",
    "Annotated[{}, 'x']",
    "Iterator[{}]",
    "NDArray[{}]",
    "Awaitable[{}]",
)
TWO = ("Union[{}, {}]", "{} | {}", "dict[{}, {}]", "tuple[{}, {}]", "Mapping[{}, {}]")
HINT = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(str.format, st.sampled_from(ONE), inner)
        | st.builds(str.format, st.sampled_from(TWO), inner, inner)
    ),
    max_leaves=4,
)


@pytest.mark.slow
@given(hint=HINT, returns=HINT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_any_hint_is_read_as_at_set_up(loading: Load, hint: str, returns: str) -> None:
    """But for those that Python itself refuses to evaluate."""
    outcome: Any
    source = function(hint, returns)
    try:
        expected: Any = kinds(loading(source).signature)
    except SetupError as error:
        expected = re.sub(r"\S*/hinted_\d+\.py", "app.py", str(error)).partition("predict: ")[2]
    try:
        outcome = kinds(by_source(source))
    except Disagreement as error:
        outcome = str(error)
    if not re.search(r"cannot be evaluated \((?!NameError)", str(expected)):
        assert without_modules(str(outcome)) == without_modules(str(expected))


def test_names_that_each_use_the_one_before_twice_take_no_time() -> None:
    """The daemon reads commits: 60 lines must not keep it busy for hours. What is that large is left to set-up."""
    lines = [f"A{n} = Union[List[A{n - 1}], Dict[str, A{n - 1}]]" for n in range(1, 60)]
    head = "\n".join(["from typing import Dict, List, Union", "A0 = Dict[str, int]", *lines])
    with pytest.raises(Disagreement, match="cannot be told apart"):
        by_source(f"{head}\ndef predict(x: A3) -> str: ...")
    by_source(f"{head}\ndef predict(x: A59) -> str: ...")


def test_nothing_of_the_source_runs() -> None:
    source = (
        "import os\nclass Out(print('run')):\n    x: exit()\n"
        "def predict(x: os.system('exit 1'), y: [].append(1), z: Out) -> str: ..."
    )
    by_source(source)
