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
    how = "prichal secret set APP keys KEY"
    assert verdict.notes == (
        f"a/app.yaml:7:26: spec.envFrom[0].secretRef.name: the Secret 'keys' {rest}, or set it with: {how}",
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


SMOKE = ML.replace(
    "packageRegistryName: pypi", "smokeTest: {input: smoke/in.json, output: smoke/out.json}"
).replace("  envFrom: [{secretRef: {name: keys}}]\n", "")


def test_files_of_smoke_tests_are_checked(tmp_path: Path) -> None:
    written(tmp_path, ".git/HEAD", "")
    written(tmp_path, "manifests/app.yaml", SMOKE)

    def told() -> list[str]:
        return [f"{p.line}: {p.field}: {p.message}" for p in validate_folder(tmp_path / "manifests").problems]

    place = "6: spec.mlService.smokeTest: "
    assert told() == [f"{place}there is no file smoke/in.json in this repository"]
    written(tmp_path, "smoke/in.json", "{")
    assert told() == [f"{place}there is no file smoke/out.json in this repository"]
    written(tmp_path, "smoke/out.json", " " * 1_000_001)
    assert told() == [f"{place}smoke/out.json has 1000001 bytes, 1000000 are allowed"]
    written(tmp_path, "smoke/out.json", "{}")
    assert told()[0].startswith(f"{place}smoke/in.json is not JSON: ")
    written(tmp_path, "smoke/in.json", '{"inputs": []}')
    assert told() == []


def test_a_folder_within_a_repository_may_be_one_later(tmp_path: Path) -> None:
    written(tmp_path, ".git/HEAD", "")
    written(tmp_path, "examples/a/manifests/app.yaml", SMOKE)
    written(tmp_path, "examples/a/smoke/in.json", "{}")
    written(tmp_path, "examples/a/smoke/out.json", "{}")
    assert validate_folder(tmp_path / "examples" / "a" / "manifests").problems == ()
    written(tmp_path, "smoke/out.json", "{")
    (problem,) = validate_folder(tmp_path / "examples" / "a" / "manifests").problems
    assert "smoke/out.json is not JSON" in problem.message, "the repository is what the daemon reads"


def test_a_folder_without_a_repository_may_lack_them(tmp_path: Path) -> None:
    written(tmp_path, "app.yaml", SMOKE)
    verdict = validate_folder(tmp_path)
    assert verdict.problems == ()
    assert [note.partition(": ")[2] for note in verdict.notes] == [
        "spec.mlService.smokeTest: there is no file smoke/in.json in this folder: the repository must have it"
    ]
