"""YAML with positions: the values of YAML 1.2, the places of keys and values, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.yaml_documents import MAX_DEPTH, MAX_PROBLEMS, MAX_SIZE, MAX_VALUES, Json, Node, parse

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), max_size=20)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def one(text: str) -> Node:
    parsed = parse("f", text.encode())
    assert parsed.problems == ()
    (node,) = parsed.documents
    return node


def problem(text: str | bytes) -> str:
    parsed = parse("f", text.encode() if isinstance(text, str) else text)
    (found,) = parsed.problems
    return str(found)


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),  # octal in YAML 1.1 only
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # sexagesimal in YAML 1.1 only
        ("1.5e3", 1500),
        ("1.34217728e+08", 134217728),
        ("2e9", 2_000_000_000),
        ("8e9", 8_000_000_000),
        ("1.0", 1),
        ("-0.0", 0),
        ("1e300", 1e300),
        (".5", 0.5),
        ("1.2.3", "1.2.3"),
        ("true", True),
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("2026-01-02", "2026-01-02"),
        ("'7'", "7"),
        ('"true"', "true"),
        ("!!str 7", "7"),
        ("a: ", {"a": None}),
        ("{8002: x}", {"8002": "x"}),
        ("{true: x}", {"true": "x"}),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Json) -> None:
    assert one(text).value == value


@given(values)
def test_json_is_read_as_json(value: Json) -> None:
    assert one(json.dumps(value, ensure_ascii=False)).value == value


def test_documents_are_told_apart() -> None:
    parsed = parse("f", b"a: 1\n---\n---\nb: 2\n...\n")
    assert [node.value for node in parsed.documents] == [{"a": 1}, None, {"b": 2}]


def test_an_alias_stands_for_its_anchor() -> None:
    assert one("a: &x {b: [1]}\nc: *x\n").value == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse("f", b"\xef\xbb\xbfa: 1\r\nb: 2\r\n").documents[0].value == {"a": 1, "b": 2}


# --- places -----------------------------------------------------------------------------------------------------


def test_places_are_those_of_keys_and_else_of_values() -> None:
    node = one("a: 1\nb:\n  - x\n  - {c: [y, z]}\n")
    assert node.place([]) == (1, 1)
    assert node.place(["a"]) == (1, 1)
    assert node.place(["b"]) == (2, 1)
    assert node.place(["b", 0]) == (3, 5)
    assert node.place(["b", 1, "c"]) == (4, 6)
    assert node.place(["b", 1, "c", 1]) == (4, 13)


def test_what_is_not_there_is_placed_at_what_should_hold_it() -> None:
    node = one("a: 1\nb:\n  c: {}\n")
    assert node.place(["b", "c", "d", "e"]) == (3, 6)
    assert node.at(["b", "x"]).value == {"c": {}}


# --- refusals ---------------------------------------------------------------------------------------------------


def test_a_broken_document_does_not_hide_those_before_it() -> None:
    parsed = parse("f", b"a: 1\n---\nb: [\n")
    assert [node.value for node in parsed.documents] == [{"a": 1}]
    assert [problem.line for problem in parsed.problems] == [4]


def test_all_harmless_mistakes_are_reported() -> None:
    parsed = parse("f", b"a: !x 1\na: 2\n<<: {}\nb: .inf\n")
    assert [(p.line, p.column) for p in parsed.problems] == [(1, 4), (2, 1), (3, 1), (4, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "token: !hunter2",
        "token: *hunter2",
        "token: !hun!ter2 x",
        "token: [hunter2",
        "token: @hunter2",
        "token: a: hunter2",
    ],
)
def test_problems_do_not_quote_texts(text: str) -> None:
    assert "hunter2" not in problem(text)
    assert "ter2" not in problem(text)


def test_a_file_may_only_be_so_large() -> None:
    assert parse("f", b"#" * MAX_SIZE).problems == ()
    assert problem(b"#" * (MAX_SIZE + 1)) == "f: is larger than 1 MiB: split it"


def test_depth_is_bounded() -> None:
    assert parse("f", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).problems == ()
    assert problem("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == "f:1:33: is nested deeper than 32 levels"


def test_deep_nesting_costs_nothing() -> None:
    assert "nested deeper" in problem("[" * (MAX_SIZE - 1))


def test_depth_counts_what_aliases_stand_for() -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, MAX_DEPTH))]
    assert "nested deeper" in problem("\n".join(lines))


def test_aliases_may_only_stand_for_so_much() -> None:
    hundred = f"a: &a [{'x,' * 99}]\n"
    assert parse("f", f"{hundred}b: [{'*a,' * 198}]\n".encode()).problems == ()
    assert f"more than {MAX_VALUES} values" in problem(f"{hundred}b: [{'*a,' * 200}]\n")


def test_values_are_bounded() -> None:
    assert f"more than {MAX_VALUES} values" in problem(f"[{'a,' * MAX_VALUES}]")


def test_problems_are_bounded() -> None:
    parsed = parse("f", b"a: 1\n" * 1000)
    assert len(parsed.problems) == MAX_PROBLEMS + 1
    assert "too many problems" in str(parsed.problems[-1])


def test_an_alias_may_not_contain_itself() -> None:
    assert "inside of what it stands for" in problem("a: &a [*a]")


def test_anchors_end_with_their_document() -> None:
    assert "without its anchor" in problem("a: &a 1\n---\nb: *a\n")


def test_a_number_beyond_json_is_refused() -> None:
    assert "JSON" in problem("a: " + "9" * 5000)


@given(st.binary(max_size=200) | st.text("{}[]:,-?&*!|>'\"%@`# \n\tab1.~<", max_size=60).map(str.encode))
def test_anything_is_read_or_refused(content: bytes) -> None:
    parsed = parse("f", content)
    for found in parsed.problems:
        assert found.line >= 1
        assert found.column >= 1
    for node in parsed.documents:
        json.dumps(node.value, allow_nan=False)


# --- whole numbers and halves of characters -----------------------------------------------------------------------


@given(st.integers(-(10**15), 10**15), st.sampled_from(["{}", "{:e}", "{:.15e}", "{}.0", "{:g}", "{:+.17g}"]))
def test_a_whole_number_is_one_however_it_is_written(number: int, form: str) -> None:
    text = form.format(number)
    value = one(text).value
    if float(text) == number:
        assert (value, type(value)) == (number, int)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "-1e999", "9" * 31])
def test_what_is_no_number_of_json_is_refused(text: str) -> None:
    assert "is not a number that JSON could hold" in problem(f"a: {text}")


def test_two_escapes_of_one_character_are_that_character() -> None:
    node = one(r"""{"\ud83d\ude00": "caf\u00e9 \ud83d\ude00"}""")
    assert node.value == {"\N{GRINNING FACE}": "café \N{GRINNING FACE}"}
    assert node.place(["\N{GRINNING FACE}"]) == (1, 2)


@pytest.mark.parametrize(
    "text", [r'a: "\ud83d"', r'"\ude00": 1', r'a: "\ude00\ud83d"', r'a: "x\0y"', r'"\0": 1']
)
def test_half_of_a_character_and_nul_are_refused_with_their_place(text: str) -> None:
    said = problem(text)
    assert said.startswith("f:1:")
    assert "holds NUL or half of a character" in said


@given(st.text(st.characters(), max_size=20))
def test_whatever_is_read_can_be_written(text: str) -> None:
    for written in (json.dumps([text, {text: 1}]), json.dumps([text], ensure_ascii=False)):
        parsed = parse("f", written.encode("utf-8", "surrogatepass"))
        for document in parsed.documents:
            json.dumps(document.value, ensure_ascii=False).encode()
        for found in parsed.problems:
            str(found).encode()
