"""`spec.url` taken apart, and local paths refused that no configuration allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.git.locations import Location, UrlScheme, locate
from controller.domain.errors import Stalled
from controller.domain.secret import Secret


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a.git", Location(UrlScheme.HTTPS, "https://h/a.git", "h")),
        ("http://h:81/a.git", Location(UrlScheme.HTTP, "http://h:81/a.git", "h", 81)),
        ("git://h/a", Location(UrlScheme.GIT, "git://h/a", "h")),
        ("ssh://me@h:22/a", Location(UrlScheme.SSH, "ssh://me@h:22/a", "h", 22, "me")),
        ("me@h:team/a.git", Location(UrlScheme.SSH, "me@h:team/a.git", "h", None, "me")),
        ("h:team/a.git", Location(UrlScheme.SSH, "h:team/a.git", "h")),
        (
            "https://me:pa%40ss@h/a",
            Location(UrlScheme.HTTPS, "https://h/a", "h", None, "me", Secret("pa@ss")),
        ),
        ("ssh://me:word@h/a", Location(UrlScheme.SSH, "ssh://me@h/a", "h", None, "me", Secret("word"))),
    ],
)
def test_addresses(url: str, expected: Location) -> None:
    assert locate(url, ()) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a",
        "relative/path",
        "",
        "https:///a",
        "ext::sh -c id",
        "http://h:port/a",
        "https://u:geheim@/a",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Stalled) as caught:
        locate(url, ())
    assert caught.value.reason == "UrlInvalid"
    assert "geheim" not in str(caught.value)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("allowed/demo.git", "allowed-not/demo.git", "elsewhere/demo.git"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed" / "link.git").symlink_to(tmp_path / "elsewhere" / "demo.git")
    (tmp_path / "alias").symlink_to(tmp_path / "allowed")
    return tmp_path


def test_a_local_path_below_an_allowed_folder(folders: Path) -> None:
    real = folders / "allowed" / "demo.git"
    for url in (str(real), f"file://{real}", f"{folders}/alias/demo.git"):
        for allowed in (folders / "allowed", folders / "alias"):
            assert locate(url, [allowed]) == Location(UrlScheme.LOCAL, str(real))


@pytest.mark.parametrize(
    "path",
    ["allowed-not/demo.git", "elsewhere/demo.git", "allowed/link.git", "allowed/../elsewhere/demo.git"],
)
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_other_local_paths_are_refused(folders: Path, path: str, form: str) -> None:
    with pytest.raises(Stalled) as caught:
        locate(form.format(folders / path), [folders / "allowed"])
    assert caught.value.reason == "PathNotAllowed"
    assert "git.allowedPaths" in caught.value.message


def test_an_allowed_path_without_a_repository(folders: Path) -> None:
    with pytest.raises(Stalled) as caught:
        locate(str(folders / "allowed" / "none.git"), [folders / "allowed"])
    assert caught.value.reason == "RepositoryNotFound"
