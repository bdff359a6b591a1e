"""Results of every kind on both protocols: right and alike on both, or a bad-output that names the output."""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import http
import json
import math
import pathlib
import pickle
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import hypothesis.extra.numpy as arrays
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.serving import jsontext
from controller.serving.datatypes import Datatype
from controller.serving.docstring import parse
from controller.serving.openapi import document
from controller.serving.outputs import BadOutput, OutputEncoder, respond
from controller.serving.signature import Signature, Variable
from controller.serving.streams import NoFilesInStreams
from tests.unit.serving.conftest import Serve
from tests.unit.serving.server import Reply, Server

DOCSTRING = """Return what was pickled.

    :param outputs.FP32: numbers
    :type outputs.FP32: FP32, optional
    :param outputs.FP64: numbers
    :type outputs.FP64: FP64, optional
    :param outputs.INT32: whole numbers
    :type outputs.INT32: INT32, optional
    :param outputs.str: texts
    :type outputs.str: str, optional
    :param outputs.dict: objects
    :type outputs.dict: dict, optional
    :param outputs.any: anything
    :type outputs.any: str or INT32 or FP32 or FP64 or dict, optional
    :param outputs.must: a text
    :type outputs.must: str
    :param outputs.count: numbers
    :type outputs.count: INT32
    """
SOURCE = f'''
import base64
import pickle

def predict(parameters):
    """{DOCSTRING}"""
    (given,) = parameters
    return pickle.loads(base64.b64decode(given["data"]))
'''
NAMES = ("FP32", "FP64", "INT32", "str", "dict", "any")
SIGNATURE = parse(DOCSTRING)
assert isinstance(SIGNATURE, Signature)
DOCUMENT = document(SIGNATURE, "t")
REPLIES = jsonschema.Draft202012Validator(
    {"$ref": "#/components/schemas/Reply", "components": DOCUMENT["components"]}
)
ENDLESS: dict[str, Any] = {}
ENDLESS["itself"] = ENDLESS
LIMITS = {"FP32": 2.0**128 - 2.0**103, "FP64": math.inf, "INT32": 2.0**31}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("results"), SOURCE, component="net").ready()
    yield server
    server.close()


def both(server: Server, result: Any) -> tuple[Reply, Reply]:
    """The replies of /predict and of the Open Inference Protocol."""
    pickled = base64.b64encode(pickle.dumps(result)).decode()
    ours = server.post({"parameters": [{"name": "result", "data": pickled}]})
    return ours, server.post({"inputs": [], "parameters": {"result": pickled}}, "/v2/models/net/infer")


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def checked(server: Server, name: str, value: Any) -> list[Any] | None:
    """The elements that both replies have, flat; None for a bad output, and all that must hold of either."""
    ours, theirs = both(server, {name: value})
    assert ours.status == theirs.status
    if ours.status != 200:
        for reply in (ours, theirs):
            assert reply.json["type"] == "urn:prichal:problem:bad-output", reply.body
            assert f"output {name!r}" in reply.json["detail"]
        assert theirs.json["error"]
        return None
    reply = json.loads(ours.body, parse_constant=no_constant)
    REPLIES.validate(reply)
    if value is None:
        assert reply["outputs"] == theirs.json["outputs"] == []
        return []
    (output,) = reply["outputs"]
    (tensor,) = json.loads(theirs.body, parse_constant=no_constant)["outputs"]
    elements: list[Any] = output["data"] if isinstance(output["data"], list) else [output["data"]]
    assert math.prod(tensor["shape"]) == len(tensor["data"]) == len(elements)
    assert math.prod(output.get("shape", [1])) == len(elements)
    texts = output["datatype"] == "dict"
    assert elements == [
        json.loads(text, parse_constant=no_constant) if texts else text for text in tensor["data"]
    ]
    assert tensor["datatype"] == ("BYTES" if output["datatype"] in ("str", "dict") else output["datatype"])
    return elements


def leaves(value: Any) -> Iterator[Any]:
    """The elements of nested lists and arrays, in order."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | deque | range):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def as_json(value: Any) -> Any:
    """What is expected of a value in a dict."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {
            json.loads(json.dumps({as_json(key): 0}), object_pairs_hook=lambda p: p[0][0]): as_json(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | deque | range):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_right(element: Any, value: Any) -> bool:
    if isinstance(value, str):
        return bool(element == value)
    if isinstance(value, Mapping):
        return bool(element == as_json(value))
    if value is None or not math.isfinite(float(value)):
        return element is None
    return float(element) == float(value)


NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-5, 5),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), 2**40, 10**400, 1e39, 2.0, 2.5, math.nan, math.inf]),
    st.floats(width=32),
    st.floats(),
    st.booleans(),
    st.decimals(),
    st.fractions(),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(np.bool_, st.booleans()),
    st.builds(np.longdouble, st.floats()),
)
TEXTS: st.SearchStrategy[Any] = st.one_of(
    st.text(), st.text(st.characters()), st.builds(np.str_, st.text(max_size=3))
)
KEYS: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=3), st.integers(-3, 3), st.none(), st.booleans(), st.floats(0.25, 0.75), st.just((1, 2))
)
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.complex_numbers(),
    st.frozensets(st.integers(0, 3)),
    st.just(np.datetime64("2024-01-01T00:00", "ns")),
    st.just(np.timedelta64(5, "s")),
    st.just(np.void(b"ab")),
)
DICTS: st.SearchStrategy[Any] = st.dictionaries(
    st.text(max_size=3), st.recursive(NUMBERS | TEXTS | ODD, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    max_size=3,
)  # fmt: skip
SCALARS = st.one_of(NUMBERS, TEXTS, DICTS, st.dictionaries(KEYS, NUMBERS, max_size=2), ODD)
DTYPES = st.one_of(
    arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes(), arrays.boolean_dtypes(),
    arrays.unicode_string_dtypes(max_len=3), arrays.byte_string_dtypes(max_len=3), arrays.complex_number_dtypes(),
    arrays.datetime64_dtypes(), arrays.timedelta64_dtypes(),
)  # fmt: skip
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS: st.SearchStrategy[Any] = st.one_of(
    arrays.arrays(DTYPES, SHAPES), arrays.arrays(np.dtype("O"), SHAPES, elements=SCALARS)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: st.sampled_from([list, tuple, deque]).flatmap(lambda kind: st.lists(inner, max_size=3).map(kind)),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(NAMES), VALUES)
def test_any_value_is_right_on_both_protocols_or_named(server: Server, name: str, value: Any) -> None:
    elements = checked(server, name, value)
    if elements is not None and value is not None:
        expected = list(leaves(value))
        assert len(elements) == len(expected)
        assert all(map(is_right, elements, expected)), (elements, expected)


def matrix(array: Any) -> Any:
    """What sums of sparse matrices are; numpy warns of making one directly."""
    return array.view(np.matrix)


@settings(deadline=None, max_examples=80)
@given(st.data(), st.sampled_from(["FP32", "FP64", "INT32", "any"]))
def test_numbers_that_fit_are_answered_in_every_form(server: Server, data: st.DataObject, name: str) -> None:
    whole = {"FP32": "f4", "FP64": "f8", "INT32": "i4", "any": "i4"}
    array = data.draw(arrays.arrays(whole[name], SHAPES))
    form = data.draw(
        st.sampled_from([np.asarray, np.ndarray.tolist, list, tuple, deque, matrix, np.ma.masked_array])
    )
    if array.ndim == 0 and form in (list, tuple, deque):
        form = np.ndarray.tolist
    if form is matrix and array.ndim != 2:
        form = np.asarray
    elements = checked(server, name, form(array))  # type: ignore[operator]
    assert elements is not None
    assert all(map(is_right, elements, array.reshape(-1).tolist()))


X = [[1.0, 2.0], [3.0, 4.0]]
EXPLICIT = {"name": "FP32", "datatype": "FP32"}


@pytest.mark.parametrize(
    ("result", "datatype", "shape", "data"),
    [
        ({"FP32": [np.array([0.5, 1.0]), np.array([0.25, 2.0])]}, "FP32", [2, 2], [0.5, 1.0, 0.25, 2.0]),
        ({"FP32": matrix(np.array([[1.0], [2.0], [3.0]]))}, "FP32", [3, 1], [1.0, 2.0, 3.0]),
        ({"FP32": [(1.0,), deque([2.0])]}, "FP32", [2, 1], [1.0, 2.0]),
        ({"FP32": np.ma.masked_array([1.0, 2.0], [False, True])}, "FP32", [2], [1.0, None]),
        ({"FP64": [[], []]}, "FP64", [2, 0], []),
        ({"FP64": np.zeros((2, 0, 3))}, "FP64", [2, 0, 3], []),
        ([{**EXPLICIT, "data": X}], "FP32", [2, 2], [1.0, 2.0, 3.0, 4.0]),
        ([{**EXPLICIT, "data": X, "shape": [2, 2]}], "FP32", [2, 2], [1.0, 2.0, 3.0, 4.0]),
        ([{**EXPLICIT, "data": X, "shape": np.array([4, 1])}], "FP32", [4, 1], [1.0, 2.0, 3.0, 4.0]),
        ([{**EXPLICIT, "data": 0.5}], "FP32", [1], [0.5]),
        ([{**EXPLICIT, "datatype": "FP64", "data": [0.5]}], "FP32", [1], [0.5]),
        ({"outputs": ({**EXPLICIT, "data": np.float64(0.5)},)}, "FP32", [1], [0.5]),
        ({"INT32": True}, "INT32", [1], [1]),
        ({"INT32": np.array([True, False])}, "INT32", [2], [1, 0]),
        ({"INT32": np.array([2.0, 3.0])}, "INT32", [2], [2, 3]),
        ({"INT32": range(3)}, "INT32", [3], [0, 1, 2]),
        ({"INT32": decimal.Decimal(7)}, "INT32", [1], [7]),
        ({"FP64": fractions.Fraction(1, 4)}, "FP64", [1], [0.25]),
        ({"FP32": True}, "FP32", [1], [1.0]),
        ({"any": [1, 2.5]}, "FP32", [2], [1, 2.5]),
        ({"any": [1, 2]}, "INT32", [2], [1, 2]),
        ({"any": 1e300}, "FP64", [1], [1e300]),
        ({"any": 2**40}, "FP32", [1], [2**40]),
        ({"str": np.array(["setosa", "virginica"])}, "str", [2], ["setosa", "virginica"]),
        ({"str": ["a", "b"]}, "str", [2], ["a", "b"]),
        ({"str": [["a", "b"]]}, "str", [1, 2], ["a", "b"]),
        ({"str": np.array(["a", "b"], object)}, "str", [2], ["a", "b"]),
        ({"dict": [{"a": 1}, {"b": 2}]}, "dict", [2], [{"a": 1}, {"b": 2}]),
        ({"any": ["a", "b"]}, "str", [2], ["a", "b"]),
    ],
)  # fmt: skip
def test_lists_become_flat_with_their_shape(
    server: Server, result: Any, datatype: str, shape: list[int], data: list[Any]
) -> None:
    ours, theirs = both(server, result)
    (output,), (tensor,) = ours.json["outputs"], theirs.json["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == (datatype, shape, data)
    assert [type(element) for element in output["data"]] == [type(element) for element in data]
    assert tensor["shape"] == shape
    texts = [json.loads(text) for text in tensor["data"]] if datatype == "dict" else tensor["data"]
    assert texts == data


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ({"str": http.HTTPMethod.GET}, "GET"),
        ({"str": np.str_("a")}, "a"),
        ({"str": np.array("a")}, "a"),
        ({"str": "\udcff"}, "\udcff"),
        ({"dict": {"score": math.nan, "n": 1}}, {"score": None, "n": 1}),
        ({"dict": OrderedDict(a=np.int64(1))}, {"a": 1}),
        ({"dict": {np.int64(1): [np.array([1.5, math.inf])], None: deque([1])}}, {"1": [[1.5, None]], "null": [1]}),
        ({"dict": {"long": np.longdouble(1.5), "half": np.float16(1.5)}}, {"long": 1.5, "half": 1.5}),
        ({"dict": {"outputs": [math.inf]}}, {"outputs": [None]}),
        ({"dict": np.array({"a": 1}, object)}, {"a": 1}),
    ],
)  # fmt: skip
def test_single_values(server: Server, result: Any, value: Any) -> None:
    ours, theirs = both(server, result)
    (output,), (tensor,) = ours.json["outputs"], theirs.json["outputs"]
    assert (output["data"], "shape" in output, tensor["shape"]) == (value, False, [1])
    (text,) = tensor["data"]
    assert (json.loads(text) if output["datatype"] == "dict" else text) == value


NESTED: Any = 1.0
for _ in range(40):
    NESTED = [NESTED]
#: Of little memory, and 2 ** level values.
DOUBLED: list[Any] = [[1.0]]
for _ in range(100):
    DOUBLED.append([DOUBLED[-1], DOUBLED[-1]])
RING: list[Any] = []
RING += [RING, RING]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"FP32": [np.array([0.1, 0.9]), np.array([0.3])]}, "'FP32' is a list of lists of different lengths"),
        ({"FP32": [1.0, [2.0, 3.0]]}, "'FP32' is a list of lists of different lengths"),
        ({"str": ["a", ["b"]]}, "'str' is a list of lists of different lengths"),
        ({"FP32": NESTED}, "'FP32' is nested deeper than 32 levels"),
        ({"FP32": RING}, "'FP32' is nested deeper than 32 levels"),
        ([{**EXPLICIT, "shape": [3], "data": X}], "'FP32' states a shape that its 4 elements do not have"),
        ([{**EXPLICIT, "shape": 4, "data": X}], "'FP32' states a shape"),
        ([{**EXPLICIT, "shape": ["a"], "data": X}], "'FP32' states a shape"),
        ([{**EXPLICIT, "datatype": "float32", "data": 1.0}], "'FP32' has the datatype 'float32'; there are FP32"),
        ([{"name": "INT32", "datatype": "INT128", "data": 1}], "'INT32' has the datatype 'INT128'"),
        ([{"name": "INT32", "datatype": ["INT32"], "data": 1}], "'INT32' has the datatype ['INT32']"),
        ({"INT32": 2**40}, "it is 1099511627776, not an integer within -2147483648..2147483647"),
        ({"INT32": [1, 2.5]}, "'INT32' cannot be written as INT32: element 1 is 2.5"),
        ({"INT32": np.array([2**40])}, "element 0 is 1099511627776"),
        ({"INT32": np.array([1, 2**32 - 1], "u4")}, "element 1 is 4294967295"),
        ({"INT32": "seven"}, "'INT32' cannot be written as INT32: it is a string"),
        ({"INT32": {"a": 1}}, "'INT32' cannot be written as INT32: it is an object"),
        ({"FP32": 1e39}, "it is 1e+39, not a 32-bit floating-point number"),
        ({"FP32": np.array([1e39])}, "element 0 is 1e+39"),
        ({"FP64": 10**400}, "it is a number of 401 digits"),
        ({"FP64": 1j}, "a value of type complex is not JSON"),
        ({"FP64": np.array([1j])}, "numpy's type complex128"),
        ({"FP64": np.array(["2024-01-01"], "M8[ns]")}, "numpy's type datetime64[ns]"),
        ({"FP64": datetime.timedelta(1)}, "a value of type timedelta is not JSON"),
        ({"FP64": {1, 2}}, "'FP64' cannot be written as JSON: a value of type set is not JSON"),
        ({"str": b"abc"}, "'str' cannot be written as JSON: a value of type bytes is not JSON"),
        ({"str": np.array([b"abc"])}, "a value of type bytes is not JSON (element 0)"),
        ({"must": None}, "'must' cannot be written as str: it is null"),
        ({"str": 7}, "it is 7, not a string"),
        ({"str": datetime.date(2024, 1, 1)}, "a value of type date is not JSON"),
        ({"dict": [1]}, "'dict' cannot be written as dict: element 0 is 1, not an object"),
        ({"dict": {"at": datetime.datetime(2024, 1, 1)}}, "output 'dict' cannot be written as JSON"),
        ({"dict": {"at": np.datetime64("2024-01-01", "ns")}}, "output 'dict' cannot be written as JSON"),
        ({"dict": {(1, 2): 3}}, "cannot be written as JSON: keys must be str, int, float, bool or None, not tuple"),
        ({"dict": ENDLESS}, "output 'dict' cannot be written as JSON: it is nested too deeply, or holds itself"),
        ({"dict": {"a": {1}}}, "output 'dict' cannot be written as JSON"),
        ({"dict": [{"a": 1}, {"a": b""}]}, "output 'dict' cannot be written as JSON"),
        ({"INT32": range(10**9)}, "'INT32' has more than 67108864 values in all"),
        ({"INT32": [range(10**7)] * 10}, "'INT32' has more than 67108864 values in all"),
        ({"FP64": DOUBLED[30]}, "'FP64' has more than 67108864 values in all"),
        ({"str": range(10**9)}, "'str' has more than 67108864 values in all"),
        ({"dict": {"a": range(10**9)}}, "output 'dict' has more than 67108864 values in all"),
        ({"dict": {"a": DOUBLED[100]}}, "output 'dict' has more than 67108864 values in all"),
        ({"dict": [{"a": "x" * 10**6}] * 1000}, "output 'dict' has more than 536870912 characters in all"),
        ({"FP64": iter([1.0])}, "a value of type list_iterator is not JSON"),
        ({"FP64": [iter([1.0]), iter([2.0])]}, "a value of type list_iterator is not JSON"),
        ({"dict": {"a": iter([1.0])}}, "output 'dict' cannot be written as JSON: a value of type list_iterator"),
        ([{"name": "FP32", "data": 1.0}, {"name": "FP32", "data": 2.0}], "output 'FP32' is given twice"),
        ({"any": b""}, "'any' cannot be written as"),
        ({"nothing": 1}, "'nothing' is not in the docstring"),
        ({7: 1}, "output 7 is not in the docstring"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_named(server: Server, result: Any, words: str) -> None:
    for reply in both(server, result):
        assert reply.status == 500, reply.body
        assert reply.json["type"] == "urn:prichal:problem:bad-output"
        assert words in reply.json["detail"]


class OldOrjson:
    """orjson 3.10.0, as far as it writes arrays: it takes every number for one in the processor's order."""

    OPT_SERIALIZE_NUMPY = 1

    @staticmethod
    def dumps(array: np.ndarray[Any, Any], option: int) -> bytes:
        read = np.frombuffer(array.tobytes(), array.dtype.newbyteorder("="))
        return json.dumps(read.tolist()).encode()


@pytest.mark.parametrize("kind", [">i4", "<i4", ">u2", ">f4", ">f8"])
def test_many_numbers_in_any_order_of_bytes(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(jsontext, "_orjson", OldOrjson)
    numbers = np.arange(jsontext.LARGE).astype(kind)
    assert json.loads(jsontext.encode_numbers(numbers)) == list(range(jsontext.LARGE))


ODD_NUMBERS: list[Any] = [
    np.float64(1.5), np.float32(0.1), np.int64(7), np.uint64(2**64 - 1), np.bool_(True), True, None, math.nan,
    -math.inf, 2**70, decimal.Decimal("1.5"), fractions.Fraction(1, 3), 1j, "x", b"x", datetime.date(2026, 1, 1),
    np.datetime64("2026"), [1.0], (1.0,), {}, np.array(1.5), np.array([1.5]), 1e39, -0.0, 7.5, np.longdouble("0.1"),
    http.HTTPStatus.OK, pathlib.PurePath("x"),
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_NUMBERS, ids=repr)
@pytest.mark.parametrize("usual", [0.5, 1])
def test_an_odd_value_among_many_is_answered_as_one_among_few(odd: Any, usual: Any) -> None:
    """Many numbers are looked at and written at once, or else one by one."""

    def answered(count: int, datatype: Datatype) -> Any:
        numbers = [usual] * count
        numbers[count // 2] = odd
        described = Signature((), (Variable("x", (datatype,), False, ""),), "", "")
        try:
            outputs = OutputEncoder(described).collect({"x": numbers}, [], NoFilesInStreams(), "id")
            response = respond({"outputs": outputs})
        except BadOutput as error:
            return re.sub(r"element \d+", "element", str(error))
        (output,) = json.loads(b"".join([response.body, *response.more]))["outputs"]
        assert output["shape"] == [count]
        return output["data"][count // 2], type(output["data"][count // 2])

    for datatype in (Datatype.FP32, Datatype.FP64, Datatype.INT64, Datatype.UINT8):
        assert answered(4, datatype) == answered(2 * jsontext.LARGE, datatype)


def test_a_deep_dict_is_answered(server: Server) -> None:
    deep: Any = {}
    for _ in range(300):  # pickle takes hardly more
        deep = {"a": deep}
    ours, theirs = both(server, {"dict": deep})
    assert ours.status == theirs.status == 200


def test_none_leaves_out_what_is_optional(server: Server) -> None:
    given = [{"name": name, "data": None} for name in (*NAMES, "count")]
    ours, theirs = both(server, given)
    assert [output["name"] for output in ours.json["outputs"]] == ["count"]
    assert ours.json["outputs"] == theirs.json["outputs"]
    assert ours.json["outputs"][0]["data"] == [None]
    ours, theirs = both(server, {"FP32": None, "must": "x"})
    assert ours.outputs == {"must": "x"}
    assert theirs.outputs == {"must": ["x"]}


def test_another_datatype_than_the_docstrings_is_told_the_developer(server: Server) -> None:
    for reply in both(server, [{"name": "FP32", "datatype": "FP64", "data": 0.5}]):
        assert reply.status == 200
    assert server.wait_for("returns output 'FP32' as FP64, its docstring says FP32")
    ours, _ = both(server, [{"name": "str", "datatype": "dict", "data": {"a": 1}}])
    assert ours.json["outputs"] == [{"name": "str", "datatype": "dict", "data": {"a": 1}}]
    assert server.wait_for("returns output 'str' as dict, its docstring says str")


def test_mappings_of_any_type(serve: Serve) -> None:
    source = '''
from types import MappingProxyType

def predict():
    """Return a view.

    :param outputs.d: an object
    :type outputs.d: dict
    """
    return MappingProxyType({"d": MappingProxyType({"a": MappingProxyType({"b": float("nan")})})})
'''
    assert isinstance(MappingProxyType({}), Mapping)
    assert serve(source).ready().post({}).outputs == {"d": {"a": {"b": None}}}
