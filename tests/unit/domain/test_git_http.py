"""What the Git service takes for a request, and which repositories are hosted here."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.git_http import (
    LONGEST,
    PREFIX,
    TOKEN_HOLDER,
    GitExchange,
    GitService,
    hosted_name,
    known_protocol,
    read_exchange,
    write_exchange,
)

PUSH = GitExchange("demo", GitService.RECEIVE_PACK, False, "ivanov", "version=2")
ANY = "."  # it is logged as it is
FOLDER = PurePath("/var/lib/prichal/git")


@pytest.mark.parametrize(
    "exchange",
    [
        PUSH,
        GitExchange("a" * 63, GitService.UPLOAD_PACK, True, TOKEN_HOLDER),
        GitExchange("d", GitService.UPLOAD_PACK, True, "a" * 63, "v" * 64),
        GitExchange("d", GitService.RECEIVE_PACK, False, "a" * 63, "v" * 64, "0f" * 16),
    ],
)
def test_what_is_written_is_read(exchange: GitExchange) -> None:
    written = write_exchange(exchange)
    assert PREFIX.unpack(written[: PREFIX.size]) == (len(written) - PREFIX.size,)
    assert len(written) <= LONGEST
    assert read_exchange(written[PREFIX.size :]) == exchange


@pytest.mark.parametrize(
    "changed",
    [
        {"repository": "../demo"},
        {"repository": "demo.git"},
        {"repository": "Demo"},
        {"repository": ""},
        {"repository": 1},
        {"repository": None},
        {"service": "git-upload-archive"},
        {"service": "git-receive-pack "},
        {"push": "0f" * 15},
        {"push": "0F" * 16},
        {"push": "0f" * 16 + "\n"},
        {"push": 1},
        {"large": 1},
        {"advertises": 1},
        {"advertises": "true"},
        {"user": ""},
        {"user": "ivanov\n"},
        {"user": "a" * 64},
        {"user": "Иванов"},
        {"path": "/etc"},
        {"protocol": 2},
    ],
)
def test_what_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=ANY):
        read_exchange(json.dumps({**asdict(PUSH), **changed}).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=ANY):
        read_exchange(content)


@pytest.mark.parametrize("text", ["", "version=1", "version=2", "version=2:agent"])
def test_versions_of_the_protocol(text: str) -> None:
    assert known_protocol(text) == text


@pytest.mark.parametrize("text", ["version=2\n", "A=1", "x" * 65, "версия=2", "$(id)"])
def test_other_words_mean_the_oldest_version(text: str) -> None:
    assert known_protocol(text) == ""


@pytest.mark.parametrize(
    "url",
    [
        "/var/lib/prichal/git/demo.git",
        "file:///var/lib/prichal/git/demo.git",
        "file:///var/lib/prichal/git/%64emo.git",
    ],
)
def test_hosted_repositories(url: str) -> None:
    assert hosted_name(url, FOLDER) == "demo"


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/var/lib/prichal/git/demo.git",
        "/srv/git/demo.git",
        "/var/lib/prichal/git/demo",
        "/var/lib/prichal/git/Demo.git",
        "/var/lib/prichal/git/a/demo.git",
        "/var/lib/prichal/git/../git/demo.git",
        "/var/lib/prichal/git/.git",
        "ssh://host/var/lib/prichal/git/demo.git",
        "host:/var/lib/prichal/git/demo.git",
        "",
    ],
)
def test_all_others_are_not_hosted(url: str) -> None:
    assert hosted_name(url, FOLDER) == ""


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="deep"):
        read_exchange(b"[" * LONGEST)
