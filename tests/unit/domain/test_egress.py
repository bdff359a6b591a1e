from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.egress import Allowed, read_allowed


@pytest.mark.parametrize(
    ("text", "expected", "family"),
    [
        ("10.1.0.0/16", Allowed("10.1.0.0/16"), 4),
        ("10.0.0.5", Allowed("10.0.0.5/32"), 4),
        ("10.0.0.5:5432", Allowed("10.0.0.5/32", 5432), 4),
        ("fd00::/8", Allowed("fd00::/8"), 6),
        ("[fd00::5]:443", Allowed("fd00::5/128", 443), 6),
    ],
)
def test_what_is_understood(text: str, expected: Allowed, family: int) -> None:
    assert read_allowed(text) == expected
    assert expected.family == family


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "10.0.0.5:0",
        "10.0.0.5:65536",
        "10.1.0.1/16",
        "10.0.0.5:80/tcp",
        "[10.0.0.5:1",
        "fd00::5]:1",
        "fe80::1%eth0",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_allowed(text)


@given(st.text())
def test_nothing_else_gets_into_a_rule(text: str) -> None:
    """It is read as root, by a shell."""
    try:
        found = read_allowed(text)
    except ValueError:
        return
    assert set(found.match) <= set("0123456789abcdef.:/- dport tcp")
