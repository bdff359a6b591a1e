"""Content types by name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.storage.content_types import DEFAULT, content_type_of, sent_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat.png", "image/png"),
        ("CAT.PNG", "image/png"),
        ("users/ann/file_groups/g/table.csv", "text/csv"),
        ("report.json", "application/json"),
        ("rows.jsonl", "application/jsonl"),
        ("rows.parquet", "application/vnd.apache.parquet"),
        ("page.html", "text/html"),
        ("data.tar.gz", "application/gzip"),
        ("log.txt.zst", "application/zstd"),
        ("picture.svgz", "application/gzip"),
        ("model.onnx", DEFAULT),
        ("README", DEFAULT),
        ("folder.png/README", DEFAULT),
        (".png", DEFAULT),
        ("dot.", DEFAULT),
        ("", DEFAULT),
        ("data:text/html,x", DEFAULT),
        ("https://example.org/x.png", "image/png"),
    ],
)
def test_types(name: str, expected: str) -> None:
    assert content_type_of(name) == expected


@given(st.text())
def test_any_name_has_a_type_that_can_be_sent(name: str) -> None:
    assert re.fullmatch(r"[a-z]+/[A-Za-z0-9.+-]+", content_type_of(name))


@pytest.mark.parametrize(
    ("stored", "name", "expected"),
    [
        ("", "table.csv", "text/csv; charset=utf-8"),
        ("binary/octet-stream", "cat.png", "image/png"),
        ("application/octet-stream", "report.json", "application/json"),
        ("application/x-www-form-urlencoded", "notes.md", "text/markdown; charset=utf-8"),
        ("Application/Octet-Stream; x=1", "page.html", "text/html; charset=utf-8"),
        ("application/octet-stream", "model.onnx", DEFAULT),
        ("text/plain", "cat.png", "text/plain; charset=utf-8"),
        ("text/csv;", "table.csv", "text/csv; charset=utf-8"),
        ("text/csv; charset=windows-1251", "table.csv", "text/csv; charset=windows-1251"),
        ("image/webp", "cat.png", "image/webp"),
    ],
)
def test_the_type_with_which_a_file_is_sent(stored: str, name: str, expected: str) -> None:
    assert sent_type(stored, name) == expected
