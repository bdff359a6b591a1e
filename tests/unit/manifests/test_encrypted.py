"""Encrypted manifests and the files that Secrets name, as the daemon reads them with an app's key, and as
`prichal validate` does without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.age import AgeKeys
from controller.domain.apps.spec import AppSpec
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.reasons import Reason
from controller.manifests import load_app
from controller.manifests.encrypted import FileAccess
from controller.manifests.platform import load_platform
from controller.manifests.reader import API_VERSION
from controller.manifests.validate import validate_folder
from controller.ports import SourceFile
from tests.support.manifests import APP, LIMITS, SETTINGS, read_file
from tests.support.sops_files import FIXTURES, encrypted_document, recorded_keys, some_keys

KEYS = some_keys()
HEAD = {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": "keys"}}


def secret(**fields: Any) -> dict[str, Any]:
    return {**HEAD, **fields}


def read_from(repository: Mapping[str, bytes]) -> Any:
    def read(path: str) -> bytes:
        if path not in repository:
            raise Stalled(Reason.PATH_NOT_FOUND, f"there is no file {path} in this commit")
        return repository[path]

    return read


def loaded(*texts: str, keys: AgeKeys | None = KEYS, **repository: bytes) -> AppSpec:
    """`repository` has other files, `__` for a dot in their names."""
    files = {name.replace("__", "."): content for name, content in repository.items()}
    access = FileAccess(keys, read_from(files))
    sources = [SourceFile(f"f{i}.yaml", text.encode()) for i, text in enumerate(texts)]
    return load_app(sources, APP, True, LIMITS, access)


def problems(*texts: str, keys: AgeKeys | None = KEYS, **repository: bytes) -> list[str]:
    with pytest.raises(ManifestInvalid) as caught:
        loaded(*texts, keys=keys, **repository)
    return [str(problem) for problem in caught.value.problems]


def values(spec: AppSpec) -> dict[str, str]:
    return {key: value.reveal() for found in spec.secrets for key, value in found.values}


# --- manifests -----------------------------------------------------------------------------------------------------


def test_an_encrypted_secret_has_its_values_and_no_warning() -> None:
    data = {"BASE64": "Y29ycmVjdC1ob3JzZQ=="}
    spec = loaded(encrypted_document(secret(stringData={"TOKEN": "hunter2-horse"}, data=data), KEYS))
    assert values(spec) == {"TOKEN": "hunter2-horse", "BASE64": "correct-horse"}
    assert spec.warnings == ()


@pytest.mark.parametrize("name", ["secret.yaml", "whole.yaml", "mac-only.yaml"])
def test_files_of_the_real_program(name: str) -> None:
    text = (FIXTURES / name).read_text()
    if name == "whole.yaml":  # the DataBox beside it is encrypted, too
        [told] = problems(text, keys=recorded_keys())
        assert "apiVersion: is encrypted, and values of a DataBox are shown in plans" in told
        return
    spec = loaded(text, keys=recorded_keys())
    assert values(spec)["TOKEN"] == "hunter2-horse"
    assert [box.name for box in spec.boxes] == ["weights"]


def test_a_secret_whose_kind_is_encrypted_is_ours_if_the_key_is() -> None:
    text = encrypted_document(secret(stringData={"A": "hunter2"}), KEYS, lambda name: True, rule={})
    assert values(loaded(text)) == {"A": "hunter2"}
    foreign = loaded(text, keys=some_keys())
    assert foreign.secrets == ()
    assert "its apiVersion is encrypted, and not for a key that is known here" in foreign.warnings[0]


def test_files_of_other_tools_are_left_alone() -> None:
    text = encrypted_document({**secret(data={"a": "x"}), "apiVersion": "v1"}, some_keys())
    assert loaded(text).secrets == ()


def test_another_apps_file_is_not_decrypted() -> None:
    """Somebody has copied it from a repository that they may read."""
    theirs = some_keys("other")
    [told] = problems(encrypted_document(secret(stringData={"A": "hunter2"}), theirs))
    assert told.startswith("f0.yaml:")
    assert f"it is encrypted for {theirs.recipients[0]}, which demo has no key of" in told
    assert "prichal secret key demo" in told


def test_what_cannot_be_decrypted_stops_the_commit_with_its_place() -> None:
    document = json.loads(encrypted_document(secret(stringData={"A": "hunter2"}), KEYS))
    document["stringData"]["B"] = "by-hand"
    [told] = problems(json.dumps(document, indent=1))
    assert told.startswith("f0.yaml:9:3: stringData.B: is not encrypted")
    del document["stringData"]["B"]
    document["metadata"]["namespace"] = "demo"
    [told] = problems(json.dumps(document, indent=1))
    assert "sops.mac: the MAC does not match" in told


def test_a_value_of_another_kind_must_not_be_encrypted() -> None:
    box = {"apiVersion": API_VERSION, "kind": "DataBox", "metadata": {"name": "b"}}
    document = {**box, "spec": {"s3DefaultStorage": {"capacity": "12345"}}}
    [told] = problems(
        encrypted_document(document, KEYS, lambda n: n == "capacity", {"encrypted_regex": "capacity"})
    )
    assert "spec.s3DefaultStorage.capacity: is encrypted, and values of a DataBox are shown" in told
    assert "12345" not in told


def test_no_problem_quotes_a_decrypted_value() -> None:
    document = secret(stringData={"A": "x"}, metadata={"name": "hunter2 horse"})
    rule = {"encrypted_regex": "^(metadata|stringData)$"}
    told = problems(encrypted_document(document, KEYS, lambda n: n in ("metadata", "stringData"), rule))
    assert told
    assert "hunter2" not in "".join(told)


def test_a_half_encrypted_secret_warns_of_the_rest() -> None:
    rule = {"encrypted_regex": "^A$"}
    text = encrypted_document(secret(stringData={"A": "x", "B": "in-plain"}), KEYS, lambda n: n == "A", rule)
    [told] = loaded(text).warnings
    assert "lies in plain text in the module's repository (B)" in told


def test_a_plain_secret_goes_on_to_warn() -> None:
    [told] = loaded(json.dumps(secret(stringData={"A": "x"}))).warnings
    assert "the Secret 'keys' lies in plain text" in told
    assert "encrypt it with sops (prichal secret key demo)" in told


def test_a_file_with_an_unreadable_document_beside_it() -> None:
    text = encrypted_document(secret(stringData={"A": "x"}), KEYS) + "\n---\na: !template {x}\nsops: 1\n"
    [told] = problems(text)
    assert "the MAC covers all documents, and not all of them can be read" in told


# --- files of the repository ---------------------------------------------------------------------------------------


def test_dotenv_json_and_binary_files() -> None:
    fixtures = {name: (FIXTURES / name).read_bytes() for name in ("values.env", "client.key")}
    spec = loaded(
        json.dumps(
            secret(envs=["values.env"], fromFiles={"KEY": "client.key"}, stringData={"D": "", "A": "2"})
        ),
        keys=recorded_keys(),
        values__env=fixtures["values.env"],
        client__key=fixtures["client.key"],
    )
    assert values(spec) == {
        "A": "2",
        "B": "two words",
        "C": "multi\nline",
        "D": "",
        "E": "'q'",
        "F": "a=b",
        "KEY": "-----BEGIN KEY-----\nhorse é\n-----END KEY-----\n",
    }
    assert "(A)" in spec.warnings[0], "what is beside the files is in plain"


def test_numbers_and_texts_of_json() -> None:
    text = encrypted_document({"A": 1, "B": 2.5, "C": "x", "D": 1e3}, KEYS, lambda name: True, rule={})
    assert values(loaded(json.dumps(secret(envs=["a.json"])), a__json=text.encode())) == {
        "A": "1",
        "B": "2.5",
        "C": "x",
        "D": "1000",
    }


def test_files_in_plain_warn() -> None:
    spec = loaded(json.dumps(secret(envs=["a.env", "b.env"])), a__env=b"A=1\r\nB=2\n", b__env=b"A=3\n")
    assert values(spec) == {"A": "3", "B": "2"}
    assert "(a.env, b.env)" in spec.warnings[0]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"envs": ["missing.env"]}, "envs[0]: there is no file missing.env in this commit"),
        ({"fromFiles": {"K": "missing"}}, "fromFiles.K: there is no file missing"),
        ({"envs": ["bad.env"]}, "envs[0]: bad.env:2: the line is not KEY=value"),
        ({"envs": ["keys.env"]}, "envs[0]: keys.env:1: holds a key with blanks"),
        ({"envs": ["nested.json"]}, "envs[0]: nested.json: A: must be text or a number"),
        ({"envs": ["list.json"]}, "envs[0]: list.json: must be one mapping of keys to texts"),
        ({"envs": ["binary"]}, "envs[0]: binary: is not a list of keys with values"),
        ({"fromFiles": {"K": "broken.json"}}, "fromFiles.K: broken.json:1: is not valid JSON"),
        ({"fromFiles": {"K": "theirs.json"}}, "which demo has no key of"),
        ({"envs": []}, "envs"),
        ({"envs": ["/etc/passwd"]}, "envs[0]: '/etc/passwd' is not a path without a leading slash"),
        (
            {"fromFiles": {"K": "../x"}},
            "fromFiles.K: '../x' is not a path without a leading slash and without '..'",
        ),
    ],
)
def test_files_that_cannot_be_used(fields: dict[str, Any], told: str) -> None:
    found = problems(
        json.dumps(secret(**fields)),
        bad__env=b"A=1\nB\n",
        keys__env=b"A B=1\n",
        nested__json=b'{"A": {"B": 1}}',
        list__json=b"[1]",
        binary=b"x",
        broken__json=b"{",
        theirs__json=encrypted_document({"A": "x"}, some_keys(), lambda n: True, rule={}).encode(),
    )
    assert any(told in problem for problem in found), found


def test_the_values_of_files_are_checked_as_others_are() -> None:
    component = {
        "apiVersion": API_VERSION,
        "kind": "MLComponent",
        "metadata": {"name": "classify"},
        "spec": {
            "image": {"existingImageName": "demo"},
            "mlService": {"inference": "app:predict"},
            "envFrom": [{"secretRef": {"name": "keys"}}],
        },
    }
    [told] = problems(json.dumps(component), json.dumps(secret(envs=["a.env"])), a__env=b"PATH=hunter2\n")
    assert "spec.envFrom[0].secretRef.name: the Secret 'keys' cannot become environment" in told


# --- the platform folder -------------------------------------------------------------------------------------------


def platform(text: str, keys: AgeKeys | None) -> dict[str, str]:
    spec = load_platform([SourceFile("f.yaml", text.encode())], SETTINGS, read_file, keys)
    return {key: value.reveal() for found in spec.secrets for key, value in found.values}


def test_secrets_of_the_platform_folder() -> None:
    keys = some_keys("@platform")
    text = encrypted_document(secret(stringData={"token": "hunter2"}), keys)
    assert platform(text, keys) == {"token": "hunter2"}
    with pytest.raises(ManifestInvalid, match="prichal secret key @platform"):
        platform(text, some_keys("@platform"))
    assert platform(text, None) == {"token": "not decrypted"}


def test_files_of_the_repository_are_for_modules() -> None:
    with pytest.raises(ManifestInvalid, match="only Secrets in the repository of a module have it"):
        platform(json.dumps(secret(envs=["a.env"])), None)


# --- without keys --------------------------------------------------------------------------------------------------


def test_validate_checks_the_structure_and_says_what_it_did_not(tmp_path: Path) -> None:
    document = secret(stringData={"PATH": "hunter2"}, envs=["secrets/a.env"])
    (tmp_path / "m.yaml").write_text(encrypted_document(document, KEYS))
    (tmp_path / "box.yaml").write_text(
        f"apiVersion: {API_VERSION}\nkind: DataBox\nmetadata: {{name: b}}\n"
        "spec: {s3DefaultStorage: {capacity: 1M}}\n"
    )
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.env").write_bytes((FIXTURES / "values.env").read_bytes())
    found = validate_folder(tmp_path)
    assert found.problems == ()
    [note] = found.notes
    assert "its encrypted values were not checked: only the daemon has the key" in note
    (tmp_path / "secrets" / "a.env").unlink()
    assert "envs[0]: there is no file secrets/a.env in this repository" in str(
        validate_folder(tmp_path).problems[0]
    )


def test_validate_refuses_a_broken_structure(tmp_path: Path) -> None:
    document = json.loads(encrypted_document(secret(stringData={"A": "x"}), KEYS))
    del document["sops"]["mac"]
    (tmp_path / "m.yaml").write_text(json.dumps(document))
    [problem] = validate_folder(tmp_path, "demo").problems
    assert problem.field == "sops.mac"
