"""Hints mean the same under every version of Python that images may have, without numpy, too: the tables for hints
are read by each interpreter that this machine has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.server import LIBRARY
from tests.unit.serving.test_hints import FUTURE, HEAD, HINTS, REFUSED

pytestmark = pytest.mark.slow

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: Of this version's typing, or of numpy.
NEWER = ("np.", "NDArray", "Size")
READ = """
import importlib, json, sys
from prichal_serving.config import ServingSettings
from prichal_serving.loading import SetupError, load

found = []
for name in json.load(sys.stdin):
    try:
        inference = load(ServingSettings(name + ":predict"), lambda awaitable: awaitable)
    except SetupError as error:
        found.append(str(error).partition("predict: ")[2].partition(": ")[2])
        continue
    (x,) = inference.signature.inputs
    found.append([[one.value for one in x.datatypes], [form.rank for form in x.forms], x.optional])
json.dump(["numpy" in sys.modules, found], sys.stdout)
"""


def head() -> str:
    lines = HEAD.replace("typing.NotRequired[int]", "int").splitlines()
    return "\n".join(line for line in lines if "numpy" not in line)


def interpreter(version: str) -> str:
    """The path of an interpreter of a version. Skips the test if there is none."""
    found = sorted(
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python")
    )
    which = (
        [sys.executable]
        if sys.version.startswith(f"{version}.")
        else [shutil.which(f"python{version}"), *found]
    )
    for python in map(str, filter(None, which)):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"there is no Python {version}")


def read(folder: Path, python: str, sources: list[str]) -> tuple[bool, list[Any]]:
    mount = folder / "mount"
    mount.mkdir()
    (mount / "prichal_serving").symlink_to(LIBRARY)
    for number, source in enumerate(sources):
        (folder / f"case_{number}.py").write_text(source)
    names = json.dumps([f"case_{number}" for number in range(len(sources))])
    environ = {**os.environ, "PYTHONPATH": str(mount), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-c", READ],
        input=names,
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    has_numpy, found = json.loads(done.stdout)
    return has_numpy, found


def sources(hints: list[str]) -> list[str]:
    return [f"{FUTURE}{head()}\ndef predict(x: {hint}) -> str:\n    return ''\n" for hint in hints]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_reads_and_refuses_the_same(tmp_path: Path, version: str) -> None:
    unions: dict[str, tuple[list[str], Any, bool]] = {
        "int | None": (["INT64"], 0, True),
        "list[int] | dict[str, int | None] | None": (["INT64", "dict"], [1, 0], True),
    }
    wanted = {
        hint: what for hint, what in (HINTS | unions).items() if not any(word in hint for word in NEWER)
    }
    refused = {hint: words for hint, words in REFUSED.items() if not any(word in hint for word in NEWER)}
    has_numpy, found = read(tmp_path, interpreter(version), sources([*wanted, *refused]))
    assert not has_numpy
    for (hint, (datatypes, rank, optional)), what in zip(wanted.items(), found, strict=False):
        ranks = rank if isinstance(rank, list) else [rank] * len(datatypes)
        assert what == [datatypes, ranks, optional], hint
    for (hint, words), what in zip(refused.items(), found[len(wanted) :], strict=True):
        assert words in str(what), hint
