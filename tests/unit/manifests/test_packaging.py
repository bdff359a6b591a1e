"""An installed prichal has its schemas: they lie in `manifests-schema/` for people and are linked into the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
SOURCES = ("controller", "manifests-schema", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
USE = """
import sys
sys.path.insert(0, sys.argv[1])
from controller.domain.apps.spec import ComponentKind
from controller.manifests import schema
from controller.web.api.descriptions import description
assert schema.__file__.startswith(sys.argv[1])
assert description("controller.web.api.files")["paths"] and description("controller.web.api.runs")["runs"]
print([schema.schema(kind)["title"] for kind in ComponentKind])
"""


def run(folder: Path, program: str, *arguments: str) -> str:
    """In a process of its own: setuptools works on the current folder, and imports must not find the checkout."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_wheel_has_the_schemas(tmp_path: Path) -> None:
    for name in SOURCES:
        source, target = ROOT / name, tmp_path / "checkout" / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    run(tmp_path / "checkout", BUILD, str(tmp_path))
    (wheel,) = tmp_path.glob("prichal-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {Path(name).name: archive.read(name) for name in archive.namelist() if "/schemas/" in name}
        archive.extractall(tmp_path / "installed")
    assert inside == {path.name: path.read_bytes() for path in (ROOT / "manifests-schema").glob("*.json")}
    kinds = run(tmp_path, USE, str(tmp_path / "installed"))
    assert "'MLComponent', 'ExperimentPipeline', 'APIComponent'" in kinds
