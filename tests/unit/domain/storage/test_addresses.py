"""Addresses of boxes, groups and files, and what is a path on this machine instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.storage.addresses import AddressInvalid, BoxAddress, is_address, parse_address
from controller.domain.storage.keys import FileKeyInvalid, FilePath, parse_path


@pytest.mark.parametrize(
    ("text", "box", "path"),
    [
        ("demo:", "", FilePath("", True)),
        ("demo:data", "data", FilePath("", True)),
        ("demo:data/", "data", FilePath("", True)),
        ("demo:data/cats", "data", FilePath("cats/", True)),
        ("demo:data/cats/", "data", FilePath("cats/", True)),
        ("demo:data/cats/a b:c%20.png", "data", FilePath("cats/a b:c%20.png", False)),
        ("demo:data/cats/small/", "data", FilePath("cats/small/", True)),
    ],
)
def test_the_path_rules_are_those_of_the_api(text: str, box: str, path: FilePath) -> None:
    assert is_address(text)
    found = parse_address(text)
    assert found == BoxAddress("demo", box, path)
    assert parse_address(str(found)) == found


@pytest.mark.parametrize("text", ["file", "./a:b", "/a:b", "dir/a:b", ".", "..", "~/x", "a/b:c/d"])
def test_all_else_is_a_path_of_this_machine(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(AddressInvalid, match="not an address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("De mo:data/g/f", "./De mo:data/g/f"),
        (":data/g/f", "cannot be an app"),
        ("demo:/g/f", "cannot be a box"),
        ("demo:Data/g/f", "cannot be a box"),
        ("demo:data/g//f", "empty segment"),
        ("demo:data/../f", r"'\.\.'"),
        ("demo:data/g/a\nb", "control character"),
        ("https://h/demo/data/g/f", "/APP/files/"),
        ("ftp://h/demo/files/data/g/f", "/APP/files/"),
        ("https://anna:pw@h/demo/files/data/g/f", "credentials"),
        ("https://h/demo/files/data/g/f?upload=1", "query"),
        ("https://h/demo/files/data/g%2F..%2Ff", r"'\.\.'"),
    ],
)
def test_what_is_no_address_says_why(text: str, problem: str) -> None:
    with pytest.raises(AddressInvalid, match=problem):
        parse_address(text)


def test_a_url_of_the_api_is_an_address() -> None:
    found = parse_address("https://ml.example.org:8443/lab/demo/files/data/g/a%20b%3F.png?area=developer")
    assert found == BoxAddress(
        "demo", "data", FilePath("g/a b?.png", False), "https://ml.example.org:8443/lab", developer=True
    )
    assert found.url == "https://ml.example.org:8443/lab/demo/files/data/g/a%20b%3F.png"
    assert parse_address("http://h/files/files/files/files/x").url == "http://h/files/files/files/files/x"
    assert parse_address("http://h/demo/files").url == "http://h/demo/files"


def test_files_below_a_group() -> None:
    group = parse_address("demo:data/cats/")
    assert str(group.below("small/a.png")) == "demo:data/cats/small/a.png"
    assert str(parse_address("demo:data/a/b").as_group()) == "demo:data/a/b/"
    for name in ("../x", "a//b", "/etc/passwd", "", "a/"):
        with pytest.raises(AddressInvalid):
            group.below(name)
    with pytest.raises(AddressInvalid, match="GROUP"):
        parse_address("demo:data").below("x")


@given(st.text(max_size=30))
def test_a_url_leads_back_to_its_address(path: str) -> None:
    try:
        expected = parse_path(path)
    except FileKeyInvalid:
        return
    address = BoxAddress("demo", "data", expected, "http://h")
    assert parse_address(address.url) == address
