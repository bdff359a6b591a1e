"""What `prichal validate` sees in a module's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.manifests.validate import validate_folder
from tests.unit.serving.server import ECHO

MANIFEST = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: MLComponent
metadata: {{name: echo}}
spec:
  image: {image}
  mlService: {{inference: "app.inference:predict"}}
"""
BUILT = "{build: {context: .}}"
GENERATOR = ECHO.replace("return", "yield")
FILES = ECHO.replace("text: str", "text: FILE")


def problems(folder: Path, code: str, image: str = BUILT, more: str = "", manifests: str = ".") -> list[str]:
    (folder / manifests).mkdir(exist_ok=True)
    (folder / manifests / "m.yaml").write_text(MANIFEST.format(image=image) + more)
    (folder / "app").mkdir(exist_ok=True)
    (folder / "app" / "inference.py").write_text(code)
    return [problem.message for problem in validate_folder(folder / manifests).problems]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (ECHO.replace("str", "string"), "did you mean str?"),
        ("def predict(inputs): return {}", "there is no docstring"),
        (FILES, "inputs.text in inference.py:2 is a FILE, and no box is connected"),
    ],
)
def test_functions_that_would_fail_every_call(tmp_path: Path, code: str, words: str) -> None:
    assert any(words in problem for problem in problems(tmp_path, code)), problems(tmp_path, code)


@pytest.mark.parametrize(
    "code",
    [
        ECHO,
        ECHO.replace("def", "async def"),
        GENERATOR,
        GENERATOR.replace("def", "async def"),
        ECHO.replace("return", "def inner():\n        yield 1\n    return"),
        ECHO.replace('return {"text": inputs[0]["data"]}', 'return {"text": list(x for x in inputs)}'),
        "@decorated\n" + GENERATOR.strip(),  # it may collect what is yielded
        GENERATOR + "\npredict = collected(predict)\n",
        "if True:\n    predict = print",
        "from elsewhere import predict",
        "this is no Python",
        FILES.replace(":type inputs.text: FILE", ":type inputs.text: FILE, optional").replace(
            ":type outputs.text: FILE", ":type outputs.text: FILE or str"
        ),
    ],
)
def test_what_is_right_or_cannot_be_known_passes(tmp_path: Path, code: str) -> None:
    assert problems(tmp_path, code) == []


def test_a_foreign_image_is_not_judged_by_what_lies_here(tmp_path: Path) -> None:
    assert problems(tmp_path, FILES, image='{existingImageName: "other:1"}') == []


def test_code_above_the_folder_of_manifests(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert problems(tmp_path, FILES, manifests="manifests")
    boxed = (
        "  connectedBoxes: [{name: data}]\n---\napiVersion: unified-platform.cs.hse.ru/v1\nkind: DataBox\n"
        "metadata: {name: data}\nspec: {s3DefaultStorage: {capacity: 1M}}\n"
    )
    assert problems(tmp_path, FILES, more=boxed, manifests="manifests") == []


def test_a_function_that_cannot_answer_chats(tmp_path: Path) -> None:
    manifest = MANIFEST.replace('app.inference:predict"', 'app.inference:predict", openai: chat')
    (tmp_path / "m.yaml").write_text(manifest.format(image=BUILT))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "inference.py").write_text(ECHO)
    assert [problem.message for problem in validate_folder(tmp_path).problems] == [
        "the function in inference.py:2 cannot answer chats: it has no inputs.messages of type dict",
        "the function in inference.py:2 cannot answer chats: it has no outputs.content of type str",
    ]
