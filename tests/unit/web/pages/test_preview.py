"""What is shown of a file, whatever is in it: bounded, escaped, and in the encoding that it has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.web.pages.languages import Language
from controller.web.pages.preview import (
    MOST_CELL,
    MOST_COLUMNS,
    MOST_PICTURE,
    MOST_ROWS,
    MOST_TEXT,
    Preview,
    PreviewKind,
    preview_of,
    preview_of_content,
)
from controller.web.pages.rendering import environment
from tests.support.fake_objects import FakeObjects

HOSTILE = '<script>document.title="taken"</script>'


def of(name: str, content: bytes) -> Preview:
    return preview_of_content(name, content, len(content))


def rendered(preview: Preview, name: str = "file") -> str:
    template = '{% from "preview.html" import shown with context %}{{ shown(preview, name) }}'
    return environment(Language.ENGLISH).from_string(template).render(preview=preview, name=name)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("слово".encode(), "слово"),
        (b"\xef\xbb\xbf" + "слово".encode(), "слово"),
        ("слово".encode("utf-16"), "слово"),
        (b"\xfe\xff" + "слово".encode("utf-16-be"), "слово"),
        ("слово".encode("cp1251"), "слово"),
        ("сло".encode()[:-1], "сл"),
        (b"\x1b[31mred\x1b[0m\r\n", "red\n"),
        (HOSTILE.encode(), HOSTILE),
    ],
)
def test_a_text_is_shown_in_its_encoding(content: bytes, text: str) -> None:
    assert of("группа/a.txt", content) == Preview(PreviewKind.TEXT, text)


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.csv", b"name,price\nred,1\n", (("name", "price"), ("red", "1"))),
        ("a.CSV", "имя;цена\nкрасный;1,5\n".encode("cp1251"), (("имя", "цена"), ("красный", "1,5"))),
        ("a.tsv", b"a,b\tc\n", (("a,b", "c"),)),
        ("a.csv", b'"two\nlines",2\n', (("two\nlines", "2"),)),
    ],
)
def test_a_table_has_cells(name: str, content: bytes, rows: tuple[tuple[str, ...], ...]) -> None:
    assert of(name, content) == Preview(PreviewKind.TABLE, rows=rows)


def test_a_table_is_bounded_in_all_directions() -> None:
    row = ",".join(["x" * (2 * MOST_CELL), *["y"] * 100]) + "\n"
    found = of("a.csv", (row + "1,2\n" * 10_000).encode())
    assert found.is_cut
    assert (len(found.rows), len(found.rows[0]), len(found.rows[0][0])) == (
        MOST_ROWS,
        MOST_COLUMNS,
        MOST_CELL,
    )


def test_half_a_row_at_the_cut_is_left_out() -> None:
    assert preview_of_content("a.csv", b"a,b\n1,2\n3,", 100) == Preview(
        PreviewKind.TABLE, rows=(("a", "b"), ("1", "2")), is_cut=True
    )


def test_a_cell_without_an_end_is_a_text() -> None:
    assert of("a.csv", b'"' + b"x" * 200_000).kind is PreviewKind.TEXT


def test_json_is_laid_out() -> None:
    found = of("a.json", '{"имя":[1,{"b":null}]}'.encode())
    assert found.kind is PreviewKind.JSON
    assert found.text.splitlines()[1] == '  "имя": ['


@pytest.mark.parametrize(
    "content",
    [
        b"[" * MOST_TEXT,
        b"[" * 500 + b"1," * 60_000 + b"1" + b"]" * 500,  # each value behind a thousand spaces
        b"{'a': 1}",
        b"1" * 100_000,
    ],
)
def test_json_that_is_none_or_would_become_too_long_is_a_text(content: bytes) -> None:
    assert of("a.json", content) == Preview(PreviewKind.TEXT, content.decode())


def test_a_half_of_a_character_in_json_can_be_sent() -> None:
    rendered(of("a.json", rb'{"a": "\ud83d"}')).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "The file is empty."), (b"PK\x03\x04\x00", "This kind of file is not shown here")],
)
def test_what_is_no_text_is_not_shown(content: bytes, why: str) -> None:
    found = of("model.bin", content)
    assert found.kind is PreviewKind.NONE
    assert found.why.startswith(why)


def test_a_picture_runs_nothing() -> None:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{HOSTILE}</svg>'.encode()
    html = rendered(of("a.svg", svg), name=f'"><{HOSTILE}')
    assert html.strip().startswith('<img class="shown" src="data:image/svg+xml;base64,')
    assert "<script" not in html


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.json", "a.html", "a.svg", "a"])
def test_nothing_of_a_file_becomes_an_element(name: str) -> None:
    html = rendered(of(name, f"{HOSTILE},{HOSTILE}\n{HOSTILE},{HOSTILE}\n".encode()), HOSTILE)
    assert "<script" not in html


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.json", "a.txt", "a.png", "a", "a."]))
def test_any_file_has_a_preview_that_can_be_sent(content: bytes, name: str) -> None:
    rendered(of(name, content)).encode()
    rendered(preview_of_content(name, content, len(content) + 1)).encode()


class Counting(FakeObjects):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    @contextmanager
    def open(self, bucket: str, key: str, etag: str = "") -> Iterator[Iterator[bytes]]:
        def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                self.read += len(piece)
                yield piece

        with super().open(bucket, key, etag) as pieces:
            yield counted(pieces)


@pytest.mark.parametrize(("name", "most"), [("g/a.txt", 2 * MOST_TEXT), ("g/a.png", 0)])
def test_of_a_large_file_only_a_part_is_read(name: str, most: int) -> None:
    objects = Counting()
    objects.create_bucket("b")
    size = 2 * MOST_PICTURE
    stored = objects.put("b", name, BytesIO(b"x" * size), size)
    found = preview_of(objects, "b", stored)
    assert found.is_cut or found.why
    assert objects.read <= most


def test_json_keeps_its_values() -> None:
    values = {"large": 2**70, "float": 0.1, "none": None, "text": "a\nb"}
    assert json.loads(of("a.json", json.dumps(values).encode()).text) == values
