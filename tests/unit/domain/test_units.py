"""Durations and sizes are read exactly, written shortly, and refused when ambiguous."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.units import (
    LONGEST,
    SIZE,
    about_duration,
    about_size,
    parse_duration,
    parse_size,
    render_duration,
    render_size,
    rfc3339,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("0.5s", 0.5), ("7d", 604800), ("5m1ms", 300.001),
     (0, 0), (1.5, 1.5)],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "10", "m", "-1s", "30s10m", "1 h", "10min", "1e3s", "1w", "s10", "10m\n",
     True, -1, float("nan"), float("inf")],
)  # fmt: skip
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1Gi", 2**30), ("20G", 20 * 10**9), ("1GB", 10**9), ("0.5Mi", 2**19), ("100", 100), (100, 100),
     ("1k", 1000), ("1KiB", 1024), ("0.000001M", 1), ("1.1P", 1_100_000_000_000_000)],
)  # fmt: skip
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "1g", "512m", "Gi", "-1G", "1 G", "1e3", "1Gb", "1iB", "1G\n", True, -1, 10**18]
)
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_durations_survive_a_round_trip(milliseconds: int) -> None:
    assert parse_duration(render_duration(milliseconds / 1000)) == round(milliseconds / 1000, 3)


@given(st.integers(0, 10**17))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(render_size(size)) == size


def test_rendering_is_short() -> None:
    assert [render_duration(s) for s in (0, 90, 600, 0.25)] == ["0s", "1m30s", "10m", "250ms"]
    assert [render_size(s) for s in (0, 2**30, 10**9, 1536, 1001)] == ["0", "1Gi", "1G", "1536", "1001"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (20 * 10**9, "20 GB"),
        (10**18, "1e+03 PB"),
    ],
)
def test_about_how_much(size: int, text: str) -> None:
    assert about_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (59.9, "59s"),
        (60, "1m 00s"),
        (200, "3m 20s"),
        (3 * 3600 + 65, "3h 01m"),
        (51 * 3600, "2d 03h"),
    ],
)
def test_about_how_long(seconds: float, text: str) -> None:
    assert about_duration(seconds) == text


@given(st.from_regex(re.compile(SIZE.replace("$", r"\Z"), re.ASCII)) | st.integers(0, 10**18 - 1))
def test_every_size_fits_into_the_database(value: str | int) -> None:
    assert 0 <= parse_size(value) < 2**63


@given(st.integers(0, 9_999_999), st.sampled_from(["d", "h", "m", "s", "ms"]))
def test_every_duration_can_be_waited_for_and_told(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert seconds <= LONGEST
    assert rfc3339(2e9 + seconds)


@pytest.mark.parametrize("at", [-1e300, -1.0, 0.0, 1e12, 1e300, math.inf])
def test_every_moment_can_be_told(at: float) -> None:
    assert (rfc3339(at) or "").endswith("Z")


@pytest.mark.parametrize(("value", "size"), [(1.34217728e08, 134217728), (8e9, 8_000_000_000), (0.5, 0)])
def test_sizes_of_tools_that_go_through_floats(value: float, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e18, -1.0, 10**40, True])
def test_numbers_that_are_no_sizes(value: float) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(value)
