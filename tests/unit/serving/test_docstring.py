"""The docstring dialect: what it says, and every way to get it wrong with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serving.datatypes import Datatype
from controller.serving.docstring import DocstringProblem, find, parse
from controller.serving.signature import Signature, Variable

FULL = """Tell what is in an image.

    Works best on photographs.

    Twice the size, twice the time.

    :param parameters: Not looked at
    :type parameters: list
    :param inputs.image: The image,
        as a file in the box,
        or its pixels
    :type inputs.image: FILE or FP32
    :type inputs.top-k: INT32, optional
    :param inputs.top-k: How many labels

    Not part of a description.

    :param outputs.label: The label: with a colon
    :type outputs.label: str
    :param outputs.meta:
    :type outputs.meta: dict , optional
    :returns: outputs.label and more
    :rtype: list
    """


def parsed(text: str, line: int = 1) -> Signature:
    signature = parse(text, line)
    assert isinstance(signature, Signature), signature
    return signature


def test_a_whole_docstring() -> None:
    signature = parsed(FULL)
    assert signature == Signature(
        inputs=(
            Variable(
                "image",
                (Datatype.FILE, Datatype.FP32),
                False,
                "The image, as a file in the box, or its pixels",
            ),
            Variable("top-k", (Datatype.INT32,), True, "How many labels"),
        ),
        outputs=(
            Variable("label", (Datatype.STR,), False, "The label: with a colon"),
            Variable("meta", (Datatype.DICT,), True, ""),
        ),
        summary="Tell what is in an image.",
        description="Works best on photographs.\n\nTwice the size, twice the time.",
    )


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype(datatype: Datatype) -> None:
    signature = parsed(f":param inputs.x: X\n:type inputs.x: {datatype.value}")
    assert signature.inputs[0].datatypes == (datatype,)


X = ":param inputs.x: X\n"
PROBLEMS = {
    "none": (None, 10, "there is no docstring"),
    "blank": ("  \n ", 10, "there is no docstring"),
    "prose only": ("Just words.", 10, "describes no inputs.NAME and no outputs.NAME"),
    "other fields only": (":param inputs: The inputs", 10, "describes no inputs.NAME"),
    "no type": ("\n" + X, 11, "inputs.x has no ':type inputs.x:' line"),
    "no param": ("\n:type outputs.x: str", 11, "outputs.x has no ':param outputs.x:' line"),
    "unknown type": (X + ":type inputs.x: string", 11, "unknown type 'string', use one of FP32"),
    "hint": (X + ":type inputs.x: float", 11, "did you mean FP64?"),
    "case": (X + ":type inputs.x: fp32", 11, "unknown type 'fp32'"),
    "empty type": (X + ":type inputs.x:", 11, "unknown type ''"),
    "comma for or": (X + ":type inputs.x: str, dict", 11, "only ', optional' may stand, not 'dict'"),
    "bar for or": (X + ":type inputs.x: str | dict", 11, "unknown type 'str | dict'"),
    "type twice in a line": (X + ":type inputs.x: str or str", 11, "names a type twice"),
    "param twice": (X + X + ":type inputs.x: str", 11, ":param inputs.x: is given twice, first in line 10"),
    "type twice": (X + ":type inputs.x: str\n:type inputs.x: str", 12, ":type inputs.x: is given twice"),
    "no second colon": (":param inputs.x X\n", 10, "is not understood; write ':param inputs.NAME"),
    "typed param": (":param str inputs.x: X\n", 10, "is not understood"),
    "misspelled": (":parm inputs.x: X\n", 10, "is not understood"),
    "no name": (":param inputs.: X\n", 10, "is not understood"),
    "blank in name": (":param inputs.a b: X\n", 10, "is not understood"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_problems_have_their_line(case: str) -> None:
    text, line, words = PROBLEMS[case]
    problems = parse(text, 10)
    assert isinstance(problems, list)
    assert problems[0].line == line
    assert words in problems[0].message


def test_all_problems_are_told_in_the_order_of_lines() -> None:
    text = "A.\n\n:type inputs.a: text\n:param inputs.b: B\n:param outputs.c C\n"
    problems = parse(text)
    assert isinstance(problems, list)
    assert [problem.line for problem in problems] == [3, 3, 4, 5]


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
WORDS = st.lists(st.from_regex(r"[A-Za-z0-9,;()]{1,9}", fullmatch=True), max_size=6).map(" ".join)
VARIABLES = st.builds(
    Variable,
    NAMES,
    st.lists(st.sampled_from(Datatype), min_size=1, max_size=6, unique=True).map(tuple),
    st.booleans(),
    WORDS,
)
SIDES = st.lists(VARIABLES, max_size=4, unique_by=lambda variable: variable.name).map(tuple)


@pytest.mark.slow
@given(SIDES, SIDES, st.booleans())
def test_what_is_written_is_read(
    inputs: tuple[Variable, ...], outputs: tuple[Variable, ...], types_first: bool
) -> None:
    if not inputs and not outputs:
        return
    lines = ["Summary.", ""]
    for side, variables in (("inputs", inputs), ("outputs", outputs)):
        for variable in variables:
            types = " or ".join(datatype.value for datatype in variable.datatypes)
            pair = [
                f"    :param {side}.{variable.name}: {variable.description}",
                f"    :type {side}.{variable.name}: {types}{', optional' if variable.optional else ''}",
            ]
            lines += reversed(pair) if types_first else pair
    assert parsed("\n".join(lines)) == Signature(inputs, outputs, "Summary.", "")


PIECES = st.sampled_from(
    [
        ":param",
        ":type",
        " inputs.",
        "outputs.x",
        ":",
        " ",
        "\n",
        "str",
        "or",
        ",",
        "optional",
        "x",
        "\r",
        "\t",
        "\x00",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)), st.integers(1, 1000))
def test_no_text_crashes_it_and_lines_lie_within(text: str, line: int) -> None:
    result = parse(text, line)
    if isinstance(result, list):
        assert result
        assert all(isinstance(problem, DocstringProblem) for problem in result)
        assert all(line <= problem.line <= line + text.count("\n") for problem in result)


SOURCE = '''
import os

def predict():
    return 1

class Net:
    """A net."""

    async def predict(self):
        # a comment
        """Says
        much."""

def other():
    """Other."""

def predict(x):
    "Second."
'''


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("predict", ("Second.", 19)),
        ("Net.predict", ("Says\n        much.", 12)),
        ("Net", ("A net.", 8)),
        ("missing", None),
        ("Net.missing", None),
        ("other.inner", None),
    ],
)
def test_find_in_source(name: str, found: tuple[str, int] | None) -> None:
    assert find(SOURCE, name) == found


def test_find_a_function_without_docstring() -> None:
    assert find("def predict():\n    pass\n", "predict") == (None, 1)
    with pytest.raises(SyntaxError):
        find("def", "predict")
