"""`prichal new`: without a platform, an engine or a configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli.main import main
from controller.templates.builtin import NAMES


def run(*arguments: str) -> tuple[int, str, str]:
    with CliRunner().isolation() as (stdout, stderr, _):
        code = main(["new", *arguments])
    return int(code), stdout.getvalue().decode(), stderr.getvalue().decode()


def test_a_new_app(tmp_path: Path) -> None:
    code, _, told = run("function", str(tmp_path / "My_App"), "--set", "path=count")
    assert (code, "has the app my-app" in told) == (0, True)
    assert 'path: "count"' in (tmp_path / "My_App" / "manifests" / "function.yaml").read_text()
    assert (tmp_path / "My_App" / "README.md").read_text().startswith("# my-app")
    assert re.search("is not empty", run("function", str(tmp_path / "My_App"))[2])


def test_the_list() -> None:
    assert run("--list")[1].splitlines()[0].split() == ["NAME", "TITLE", "VARIABLES"]
    documents = json.loads(run("--list", "-o", "json")[1])
    assert [document["name"] for document in documents] == list(NAMES)
    assert run("--list", "-o", "name")[1].split() == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("functoin", "x"), "did you mean 'function'?"),
        (("other", "x"), "there are: function, "),
        (("function",), "give a TEMPLATE and a DIR"),
        (("function", "Имя"), "cannot be the name of an app"),
        (("function", "x", "--app", "Имя"), "cannot be the name of an app"),
        (("function", "x", "--set", "path"), "is not NAME=VALUE"),
        (("function", "x", "--set", "path=/"), "path must match"),
        (("function", "x", "--set", "way=up"), "there is no variable 'way'"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, said = run(*arguments)
    assert (code != 0, told in said) == (True, True), said
    assert list(tmp_path.iterdir()) == []
