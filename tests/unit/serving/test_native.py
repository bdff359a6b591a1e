"""Which orjson is found, in images of all kinds: the interpreters are those of this machine, the files real ones."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.serving import native
from tests.unit.serving.conftest import Serve
from tests.unit.serving.kept import kept_folder, library_without
from tests.unit.serving.server import LIBRARY
from tests.unit.serving.test_hints_elsewhere import VERSIONS, interpreter

OTHER_MACHINE = "aarch64" if platform.machine() == "x86_64" else "x86_64"
OTHER_LIBC = "musl" if native.tag().endswith("gnu") else "gnu"
FIND = """
import importlib.util, json, sys
from pathlib import Path
from prichal_serving import jsontext, native

found = native.find(Path(sys.argv[1]))
jsontext.accelerate()
values = [0.5, 1e300, 2**70, -1, None, "\\u00e9", [True]] * 20_000
try:
    import orjson
    imported = orjson.__name__
except Exception as error:
    imported = type(error).__name__
json.dump({
    "tag": native.tag(),
    "origin": found.origin,
    "reason": found.reason,
    "same": jsontext.read_bytes(json.dumps(values).encode()) == values,
    "imported": imported,
    "modules": sorted(name for name in sys.modules if "orjson" in name),
}, sys.stdout)
"""


#: Why a file is not loaded at all: it could be cut off, and end the process.
CHANGED = "it is not the file that was installed"


def found(folder: Path, kept: Path, python: str | Path = sys.executable, *paths: Path) -> dict[str, Any]:
    """What an interpreter finds, which has these folders of modules beside ours."""
    mount = folder / "mount"
    mount.mkdir(exist_ok=True)
    (mount / "prichal_serving").symlink_to(LIBRARY)
    path = os.pathsep.join(map(str, (mount, *paths)))
    command = [str(python), "-S", "-c", FIND, str(kept)]  # -S: without what is installed
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_interpreter_has_its_own(tmp_path: Path, version: str) -> None:
    seen = found(tmp_path, kept_folder(), interpreter(version))
    assert seen.pop("tag").startswith(f"cp{version.replace('.', '')}-")
    assert seen == {
        "origin": "kept",
        "reason": "",
        "same": True,
        "imported": "ModuleNotFoundError",
        "modules": [],
    }


def of(machine: str = platform.machine(), libc: str = native.tag().rpartition("-")[2]) -> bytes:
    """The kept file for this Python, and another machine or libc."""
    version = "".join(map(str, sys.version_info[:2]))
    return (kept_folder() / f"cp{version}-{machine}-{libc}.so").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: None, ""),
        (lambda: b"", "ImportError"),
        (lambda: b"this is not native code", "ImportError"),
        (lambda: of()[:100_000], CHANGED),
        (lambda: of(machine=OTHER_MACHINE), "ImportError"),
        (lambda: of(libc=OTHER_LIBC), "ImportError"),
        (lambda: Path("/lib/x86_64-linux-gnu/libc.so.6").read_bytes(), "PyInit_"),
    ],
    ids=["none", "empty", "other bytes", "cut off", "other processor", "other libc", "another library"],
)  # fmt: skip
def test_what_does_not_fit_is_as_good_as_none(tmp_path: Path, content: Any, words: str) -> None:
    kept = tmp_path / "orjson"
    kept.mkdir()
    if (given := content()) is not None:
        name = f"{native.tag()}.so"
        (kept / name).write_bytes(given)
        installed = of() if words == CHANGED else given
        (kept / native.SUMS).write_text(f"{hashlib.sha256(installed).hexdigest()}  {name}\n")
    seen = found(tmp_path, kept)
    assert (seen["origin"], seen["same"], seen["imported"]) == ("python", True, "ModuleNotFoundError")
    assert words in seen["reason"]


def image_with(folder: Path, source: str | None) -> Path:
    """A folder of modules with such an orjson; None: a folder of that name, which is none."""
    image = folder / "image"
    image.mkdir()
    if source is None:
        (image / "orjson").mkdir()
    else:
        (image / "orjson.py").write_text(source)
    return image


WORKS = """
from json import dumps as written, loads
OPT_SERIALIZE_NUMPY = 16
dumps = lambda value, option=None: written(value).encode()
"""


def test_the_images_own_goes_before(tmp_path: Path) -> None:
    seen = found(tmp_path, kept_folder(), sys.executable, image_with(tmp_path, WORKS))
    assert (seen["origin"], seen["imported"], seen["modules"]) == ("image", "orjson", ["orjson"])


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("raise RuntimeError('no')", "RuntimeError"),
        ("", "orjson"),
        (WORKS.replace("OPT_SERIALIZE_NUMPY", "OPT_OTHER"), "orjson"),  # before 3.0
        (WORKS.replace("written(value)", "written(None)"), "orjson"),
        (None, "orjson"),
    ],
    ids=["it raises", "empty", "too old", "it writes something else", "a folder of that name"],
)
def test_a_broken_one_of_the_image_stays_broken_for_its_code(
    tmp_path: Path, source: str | None, imported: str
) -> None:
    seen = found(tmp_path, kept_folder(), sys.executable, image_with(tmp_path, source))
    assert (seen["origin"], seen["same"], seen["imported"]) == ("kept", True, imported)


@pytest.mark.parametrize(("changed", "value"), [("abiflags", "t"), ("abiflags", "d"), ("maxsize", 2**31 - 1)])
def test_kinds_of_interpreters_that_have_none(
    monkeypatch: pytest.MonkeyPatch, changed: str, value: object
) -> None:
    assert native.tag()
    monkeypatch.setattr(sys, changed, value)
    assert native.tag() == ""


def test_each_wheel_is_there_with_its_license() -> None:
    versions, machines = ("39", "310", "311", "312", "313", "314"), ("x86_64", "aarch64")
    names = {
        f"cp{version}-{machine}-{libc}.so"
        for version in versions
        for machine in machines
        for libc in ("gnu", "musl")
    }
    present = {path.name for path in kept_folder().iterdir()}
    assert names == {name for name in present if name.endswith(".so")}
    assert {"LICENSE-APACHE", "LICENSE-MIT", "LICENSE-MPL-2.0", native.SUMS} <= present
    (old, new) = sorted(name for name in present if re.fullmatch(r"orjson-[0-9.]+\.txt", name))
    assert "Requires-Python: >=3.9" in (kept_folder() / old).read_text()
    assert "https://github.com/ijl/orjson" in (kept_folder() / new).read_text()


def codec(text: str) -> str:
    (line,) = (
        line
        for line in text.splitlines()
        if line.startswith("prichal_serving_json_codec") and line[-1] == "1"
    )
    return line.split('"')[1]


def test_metrics_say_which_is_used(serve: Serve) -> None:
    kept_folder()
    assert codec(serve().ready().get("/metrics").body.decode()) == "kept"


def test_a_library_without_it_serves(serve: Serve, tmp_path: Path) -> None:
    library_without(tmp_path)
    assert codec(serve().ready().get("/metrics").body.decode()) == "python"


def test_one_that_cannot_be_loaded_is_told_in_the_log(serve: Serve, tmp_path: Path) -> None:
    library_without(tmp_path)
    broken = tmp_path / "mount" / "prichal_serving" / "orjson"
    broken.mkdir()
    (broken / f"{native.tag()}.so").write_text("this is not native code")
    (broken / native.SUMS).write_text("")
    server = serve().ready()
    assert server.wait_for("large JSON is slow, as the kept orjson cannot be used")
    assert codec(server.get("/metrics").body.decode()) == "python"
    shutil.rmtree(broken)
