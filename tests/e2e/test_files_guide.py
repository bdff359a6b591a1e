"""The guide to files is typed into a shell, against a running platform with the apps that it speaks of."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.support.pages import ROOT, Block, blocks
from tests.support.platform import Module, Platform
from tests.support.shell import Told, run

PAGE = ROOT / "docs" / "guide" / "files.md"
PASSWORD = "s3cret"
#: What the page takes for granted: its reader's own files.
BEFORE = Block(
    PAGE,
    0,
    "sh",
    'cd "$HOME"\nprintf cat > cat.png; printf note > notes:2026.txt; printf onnx > model.onnx\n'
    "mkdir photos; printf dog > photos/dog.png\n",
)
SHOWN = (BEFORE, *blocks(PAGE, "sh"))
DEMO, OTHER = "pu-ivanov-pa-demo", "pu-ivanov-pa-other"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told(platform: Platform, home: Path) -> Told:
    for app, boxes in ((DEMO, ("userdata", "weights")), (OTHER, ("archive",))):
        module = Module(platform.home / app)
        for box in boxes:
            module.box(box)
        module.files_api(("ivanov",), auth={"basic": {"credentials": "people"}})
        revision = module.push()
        platform.connect(module, app, {"people": {"anna": PASSWORD, "ivanov": PASSWORD}})
        platform.until_ready(app, revision)
    anna = {"Authorization": f"Basic {base64.b64encode(f'anna:{PASSWORD}'.encode()).decode()}"}
    assert platform.put_file(DEMO, "userdata/results/r.txt", b"result", headers=anna).status == 200
    here = {
        "https://models.example.org": f"http://127.0.0.1:{platform.port}",
        "-u anna ": f"-u anna:{PASSWORD} ",
    }
    return run(SHOWN, home, here, PRICHAL_PASSWORD=PASSWORD)


def test_a_file_there_and_back(told: Told, home: Path) -> None:
    first = told.of("file put cat.png", SHOWN)
    assert "cat.png" in first
    assert "3 bytes" in first
    assert "userdata" in told.of("file ls pu-ivanov-pa-demo:", SHOWN)
    assert (home / "copy.png").read_text() == "cat", "as curl has fetched it"
    assert told.of("-o copy.png", SHOWN).splitlines() == ["cat.png", "dog.png"]


def test_folders_there_and_back(told: Told, home: Path) -> None:
    assert told.of("cp -r photos/", SHOWN).count("1 file copied") == 3
    assert (home / "results" / "r.txt").read_text() == "result"


def test_odd_names_and_the_developers_area(told: Told) -> None:
    assert "notes:2026.txt" in told.of("./notes:2026.txt", SHOWN)
    assert "model.onnx" in told.of("--area developer", SHOWN)
