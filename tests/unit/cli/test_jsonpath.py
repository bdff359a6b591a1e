"""Paths of `-o jsonpath=PATH`."""

from __future__ import annotations

import pytest

from controller.cli.jsonpath import JsonPath

DOCUMENT = {
    "apps": [{"app": "a", "ready": True}, {"app": "b", "ready": False, "x.y": None}],
    "daemon": {"beat": 1.5},
    "0": "a name",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".daemon.beat", [1.5]),
        ("daemon.beat", [1.5]),
        ("{.daemon.beat}", [1.5]),
        ("$.daemon.beat", [1.5]),
        (".apps[*].app", ["a", "b"]),
        (".apps[0].app", ["a"]),
        (".apps[-1].app", ["b"]),
        (".apps[2].app", []),
        (".apps[-3]", []),
        (".apps[1]['x.y']", [None]),
        ('["daemon"]["beat"]', [1.5]),
        (".daemon.*", [1.5]),
        (".nothing.more", []),
        (".apps.app", []),
        (".0", ["a name"]),
        (".[0]", []),
        ("[0]", []),
        (".", [DOCUMENT]),
        ("$", [DOCUMENT]),
    ],
)
def test_a_path_selects(path: str, found: list[object]) -> None:
    assert list(JsonPath.parse(path).select(DOCUMENT)) == found


@pytest.mark.parametrize(
    "path", ["..app", ".a..b", ".a[", ".a[x]", ".a['b]", ".a[1:2]", ".a[?(@.b)]", ".a b"]
)
def test_what_is_not_a_path_is_refused_with_its_place(path: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        JsonPath.parse(path)
