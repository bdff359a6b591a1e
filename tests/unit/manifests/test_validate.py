"""The verdict on folders."""

from __future__ import annotations

from pathlib import Path

from controller.manifests.validate import FolderKind, validate_folder
from tests.support.manifests import VERSION

ML = f"""{VERSION}kind: MLComponent
metadata: {{name: classify, namespace: demo}}
spec:
  image: {{existingImageName: demo:1}}
  mlService: {{inference: app:predict, packageRegistryName: pypi}}
  envFrom: [{{secretRef: {{name: keys}}}}]
"""
REPOSITORY = f"""{VERSION}kind: Repository
metadata: {{name: demo}}
spec: {{url: "https://git.example.org/x.git", ref: {{branch: main}}}}
"""


def written(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_module_may_name_what_the_platform_keeps(tmp_path: Path) -> None:
    written(tmp_path, "a/app.yaml", ML)
    verdict = validate_folder(tmp_path)
    assert (verdict.kind, verdict.documents, verdict.problems) == (FolderKind.MODULE, 1, ())
    rest = "is not in this folder: the platform must have it"
    assert verdict.notes == (
        f"a/app.yaml:7:26: spec.envFrom[0].secretRef.name: the Secret 'keys' {rest}",
        f"a/app.yaml:6:39: spec.mlService.packageRegistryName: 'pypi' {rest}",
    )


def test_problems_of_a_module(tmp_path: Path) -> None:
    written(tmp_path, "app.yaml", ML.replace("inference", "inferense"))
    written(
        tmp_path,
        "box.yml",
        f"{VERSION}kind: DataBox\nmetadata: {{name: b, namespace: other}}\nspec: {{s3DefaultStorage: {{}}}}\n",
    )
    problems = validate_folder(tmp_path).problems
    assert [(p.file, p.field) for p in problems] == [
        ("app.yaml", "spec.mlService"),
        ("app.yaml", "spec.mlService.inferense"),
        ("box.yml", "metadata.namespace"),
    ]


def test_the_name_of_the_app_can_be_given(tmp_path: Path) -> None:
    written(tmp_path, "app.yaml", ML)
    assert validate_folder(tmp_path, "demo").problems == ()
    (problem,) = validate_folder(tmp_path, "other").problems
    assert problem.field == "metadata.namespace"


def test_a_platform_folder_is_recognised(tmp_path: Path) -> None:
    written(tmp_path, "demo.yaml", REPOSITORY)
    verdict = validate_folder(tmp_path)
    assert (verdict.kind, verdict.documents, verdict.problems) == (FolderKind.PLATFORM, 1, ())
    written(tmp_path, "app.yaml", ML)
    (problem,) = validate_folder(tmp_path).problems
    assert problem.message.startswith("MLComponent belongs into the repository of its module")


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    written(tmp_path, "app.yaml", ML)
    written(tmp_path, ".git/x.yaml", ML)
    written(tmp_path, ".draft.yaml", ML)
    assert validate_folder(tmp_path).documents == 1


def test_a_folder_without_manifests_is_told(tmp_path: Path) -> None:
    written(tmp_path, "values.yaml", "a: 1\n")
    (problem,) = validate_folder(tmp_path).problems
    assert str(problem).startswith(f"{tmp_path}: no manifest here")


def test_a_file_that_is_too_large_for_manifests_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, "app.yaml", ML)
    with (tmp_path / "labels.yaml").open("wb") as file:
        file.truncate(17 * 2**20)
    verdict = validate_folder(tmp_path)
    assert (verdict.documents, verdict.problems) == (1, ())
    assert "labels.yaml: has 17.8 MB, which no manifest has: it is passed over" in verdict.notes
