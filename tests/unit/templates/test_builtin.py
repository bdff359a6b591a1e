"""The built-in templates: what they make is valid, with each value that their variables take."""

from __future__ import annotations

import ast
import stat
from pathlib import Path

import pytest

from controller.domain.errors import Stalled
from controller.domain.reasons import Reason
from controller.domain.templates import TemplateVariable, VariableType
from controller.manifests.validate import validate_folder
from controller.templates.builtin import NAMES, builtin, made, write_files

#: Values that YAML would read as something other than text, and others that are odd.
ODD = {
    "path": ["true", "123", "0x1f"],
    "pipeline": ["no", "1e5"],
    "model": ["null", "007"],
    "heading": ["Файлы — 1"],
}


def cases() -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for name, loaded in builtin().items():
        found.append((name, {}))
        for variable in loaded.template.variables:
            found += [(name, {variable.name: value}) for value in values(variable)]
    return found


def values(variable: TemplateVariable) -> list[str]:
    options = variable.options if variable.type is VariableType.CHOICE else ()
    return [*options, *ODD.get(variable.name, ())]


@pytest.mark.parametrize(("name", "given"), cases(), ids=str)
def test_what_is_made_is_valid(tmp_path: Path, name: str, given: dict[str, str]) -> None:
    files = made(builtin()[name], "demo", given)
    write_files(tmp_path / "demo", files)
    verdict = validate_folder(tmp_path / "demo" / builtin()[name].template.manifests)
    assert ([str(problem) for problem in verdict.problems], verdict.notes) == ([], ())
    assert verdict.documents > 0
    for file in files:
        assert b"{{" not in file.content, file.path
        if file.path.endswith(".py"):
            ast.parse(file.content)


def test_every_folder_is_a_template_and_complete_in_both_languages() -> None:
    folder = Path(__file__).parents[3] / "controller" / "templates" / "builtin"
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    for loaded in builtin().values():
        words = [loaded.template.title, loaded.template.text, *(v.title for v in loaded.template.variables)]
        assert all(any("а" <= letter <= "я" for letter in each.ru) for each in words)
        assert None not in (
            loaded.template.limits.cpus,
            loaded.template.limits.gpus,
            loaded.template.limits.storage,
        )
        assert "README.md" in {file.path for file in loaded.files}


def test_their_limits_have_room_for_what_they_declare(tmp_path: Path) -> None:
    from controller.config import DefaultLimits
    from controller.domain.apps.spec import PlatformAppSpec
    from controller.domain.names import AppName, RepositoryName
    from controller.manifests.build import examine
    from controller.manifests.validate import read_folder
    from tests.support.specs import make

    for name, loaded in builtin().items():
        write_files(tmp_path / name, made(loaded, "demo", {}))
        app = make(PlatformAppSpec, AppName("demo"), RepositoryName("demo"), limits=loaded.template.limits)
        found = examine(tuple(read_folder(tmp_path / name)), app, False, DefaultLimits())
        assert [str(problem) for problem in found.problems] == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(Stalled) as refused:
        write_files(tmp_path, made(builtin()["function"], "demo", {}))
    assert refused.value.reason == Reason.OUTPUT_EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Stalled):
        write_files(tmp_path / "link", made(builtin()["function"], "demo", {}))


def test_modes_of_files(tmp_path: Path) -> None:
    write_files(tmp_path / "a", made(builtin()["function"], "demo", {}))
    assert not (tmp_path / "a" / "Dockerfile").stat().st_mode & stat.S_IXUSR


def test_wrong_values_are_all_told() -> None:
    with pytest.raises(Stalled, match=r"no variable 'x'.*path must match") as refused:
        made(builtin()["function"], "demo", {"x": "1", "path": "a/b"})
    assert refused.value.reason == Reason.TEMPLATE_VALUES
