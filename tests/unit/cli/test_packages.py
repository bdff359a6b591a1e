"""The commands for a platform elsewhere run with the packages of `pip install prichal` alone, and on systems that are
not Linux; the others say what is missing. Each command runs in a process in which everything else cannot be imported.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from threading import Thread

import pytest

from controller.cli.exits import Exit
from controller.cli.packages import LOCAL, UNIX, missing_package

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "examples/colors/manifests"

RUN = """
import sys
allowed = set(sys.argv[1].split(","))
class Absent:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        known = root in allowed or root in sys.stdlib_module_names or root.startswith("_")
        if not known or root in {unix}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from controller.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def _names(requirements: list[str]) -> set[str]:
    """The distributions that these requirements bring, theirs included."""
    found: set[str] = set()
    for text in requirements:
        name = normal(re.split(r"[^\w.-]", text)[0])
        if "extra ==" not in text and name not in found:
            found |= {name} | _names(requires(name) or [])
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(section: str) -> list[str]:
    """What setup.cfg names: without an extra for "", else of that extra."""
    config = RawConfigParser()
    config.read(ROOT / "setup.cfg")
    text = config["options.extras_require"][section] if section else config["options"]["install_requires"]
    return [line for line in text.splitlines() if line and "%(" not in line]


@functools.cache
def modules(*names: str) -> frozenset[str]:
    """The modules that these distributions install, private ones not included."""
    return frozenset(
        module
        for module, places in packages_distributions().items()
        if not module.startswith("_") and set(names) & set(map(normal, places))
    )


@functools.cache
def client_modules() -> frozenset[str]:
    return modules(*sorted(_names(packages(""))))


def run(*arguments: str, unix: bool = False) -> tuple[int, str]:
    allowed = ",".join({"controller", *client_modules()})
    program = RUN.format(unix=set() if unix else set(UNIX))
    command = [sys.executable, "-c", program, allowed, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT, check=False
    )
    return done.returncode, done.stdout + done.stderr


class Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """The test says what went wrong."""


@pytest.fixture
def server() -> Iterator[str]:
    """A server at which nothing is found."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as found:
        Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], Exit.OK, "Without the platform"),
        (["validate", str(MANIFESTS)], Exit.OK, "no problems"),
        (["completion", "bash"], Exit.OK, "complete"),
        (["file", "ls", "SERVER/demo/files/box/"], Exit.NOT_FOUND, "404"),
        (["run", "ls", "SERVER/demo/train/runs"], Exit.NOT_FOUND, "404"),
    ],
)
def test_commands_for_a_platform_elsewhere(arguments: list[str], code: Exit, text: str, server: str) -> None:
    found, output = run(*(each.replace("SERVER", server) for each in arguments))
    assert (found, text in output) == (code, True), output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve-local", "demo:1", str(MANIFESTS)], "prichal[local]"),
        (["run-local", str(MANIFESTS)], "prichal[local]"),
        (["web"], "prichal["),
    ],
)
def test_others_say_what_to_install(arguments: list[str], extra: str) -> None:
    code, output = run(*arguments, unix=True)
    assert (code, "PackagesMissing" in output, extra in output) == (Exit.FAILED, True, True), output


@pytest.mark.parametrize("program", ["daemon", "web", "git-http", "up"])
def test_other_systems_are_told(program: str) -> None:
    code, output = run(program)
    assert (code, "SystemUnsupported" in output) == (Exit.FAILED, True), output


def test_a_module_of_ours_that_is_missing_is_a_bug() -> None:
    assert missing_package(ModuleNotFoundError("no", name="controller.cli.nothing")) is None


def test_the_extra_that_is_named_has_the_package() -> None:
    assert modules(*(re.split(r"[<>=\[]", text)[0] for text in packages("local"))) <= LOCAL
    assert LOCAL & client_modules() == set()
