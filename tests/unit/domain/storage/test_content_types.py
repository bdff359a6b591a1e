"""Content types by name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.storage.content_types import DEFAULT, content_type_of


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
