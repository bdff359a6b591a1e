"""Where files lie: paths that people write, and areas that nobody can leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.storage.keys import (
    ANONYMOUS,
    FileKeyInvalid,
    FilePath,
    ancestors,
    encode_user,
    parse_path,
    user_area,
)


@pytest.mark.parametrize(
    ("path", "text", "is_group"),
    [
        ("", "", True),
        ("group", "group/", True),
        ("group/", "group/", True),
        ("group.csv", "group.csv/", True),
        ("group/cat.png", "group/cat.png", False),
        ("group/sub/", "group/sub/", True),
        ("group/sub/cat", "group/sub/cat", False),
        ("группа/кот #1?+%.png", "группа/кот #1?+%.png", False),
        ("g/...", "g/...", False),
    ],
)
def test_one_segment_or_a_closing_slash_is_a_group(path: str, text: str, is_group: bool) -> None:
    assert parse_path(path) == FilePath(text, is_group)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "empty segment"),
        ("/group/file", "empty segment"),
        ("group//file", "empty segment"),
        ("group/file//", "empty segment"),
        ("../other/file", "'..'"),
        ("group/../../other", "'..'"),
        ("group/./file", "'.'"),
        ("..", "'..'"),
        ("a/ . /b", "' . '"),
        ("group/fi\0le", "control character"),
        ("group/fi\x7fle", "control character"),
        ("group/fi\nle", "control character"),
        ("group/\ud800", "not valid UTF-8"),
        ("group\\file", "backslash"),
        ("g/" + "x" * 256, "255 bytes"),
        ("g/" + "ж" * 128, "255 bytes"),
        ("/".join(["x" * 99] * 10), "900 bytes"),
    ],
)
def test_what_names_nothing_is_told(path: str, says: str) -> None:
    with pytest.raises(FileKeyInvalid, match=says):
        parse_path(path)


def test_the_longest_path() -> None:
    path = "/".join(["x" * 89] * 9) + "/" + "x" * 90
    assert len(path) == 900
    assert parse_path(path).text == path


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_users_never_share_an_area(one: str, other: str) -> None:
    one, other = (name.encode(errors="replace").decode() for name in (one, other))
    assert (user_area(one) == user_area(other)) == (one == other)


@given(st.text(min_size=1))
def test_no_name_leads_out_of_the_users(name: str) -> None:
    encoded = encode_user(name.encode(errors="replace").decode())
    assert encoded.isascii()
    assert "/" not in encoded
    assert encoded.strip(".")
    assert encoded != ANONYMOUS


def test_plain_names_stay_readable() -> None:
    assert user_area("ivanov@example.org") == "users/ivanov@example.org/file_groups/"
    assert user_area("Иван") == "users/%D0%98%D0%B2%D0%B0%D0%BD/file_groups/"
    assert user_area("..") == "users/%2E%2E/file_groups/"
    assert user_area(None) == "users/%anonymous/file_groups/"


def test_what_must_not_be_a_file() -> None:
    assert ancestors("a/b/c") == ("a", "a/b")
    assert ancestors("a/b/") == ("a",)
    assert ancestors("a") == ()
