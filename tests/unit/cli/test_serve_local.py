"""What `prichal serve-local` gives to Docker; that it works is tested with Docker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.cli.exits import Exit
from controller.config import Settings
from controller.daemon.serve_local import Local, choose, command, components, variables
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.spec import MLComponentSpec
from tests.unit.cli.conftest import Machine

MANIFEST = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: MLComponent
metadata: {name: namer, namespace: pu-ivanov-pa-demo}
spec:
  image: {build: {context: .}}
  servicePort: 9000
  env: [{name: THRESHOLD, value: "0.5"}]
  envFrom: [{secretRef: {name: keys}}]
  mlService: {inference: "app.inference:predict", concurrency: 2}
  resources: {memory: 256Mi, pids: 64}
"""
OWN = """
---
apiVersion: unified-platform.cs.hse.ru/v1
kind: MLComponent
metadata: {name: own}
spec:
  image: {existingImageName: "own:1"}
  mlService: {server: own}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.fixture
def spec(manifest: Path) -> MLComponentSpec:
    return choose(components(Settings(), manifest), None)


def test_a_manifest_file_or_folder(manifest: Path) -> None:
    names = [[spec.name for spec in components(Settings(), place)] for place in (manifest, manifest.parent)]
    assert names == [["namer"], ["namer"]]


def test_one_of_several_has_to_be_chosen(manifest: Path) -> None:
    manifest.write_text(MANIFEST + OWN)
    found = components(Settings(), manifest)
    assert choose(found, "own").name == "own"
    with pytest.raises(Stalled, match="namer, own"):
        choose(found, None)
    with pytest.raises(Stalled, match="namer, own"):
        choose(found, "other")


def test_an_invalid_manifest_is_refused(machine: Machine, manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("inference", "inferenze"))
    with pytest.raises(ManifestInvalid):
        components(Settings(), manifest)
    assert machine.run("serve-local", "image:1", str(manifest)).code == Exit.INVALID


def test_the_container_gets_what_the_platform_would_give(
    manifest: Path, spec: MLComponentSpec, tmp_path: Path
) -> None:
    local = Local("demo:1", manifest, files=tmp_path, model=manifest, env=(("KEY", "s3cret"),), port=8123)
    env = variables(Settings(), local, spec)
    serving = json.loads(env["PRICHAL_SERVING"])
    assert (env["THRESHOLD"], env["KEY"]) == ("0.5", "s3cret")
    assert (serving["inference"], serving["concurrency"], serving["port"]) == (
        "app.inference:predict",
        2,
        9000,
    )
    assert (serving["files_root"], serving["model_path"]) == (
        "/prichal/files",
        "/opt/prichal/model/manifest.yaml",
    )
    assert env["UNIP_MODEL_PATH"] == serving["model_path"]

    line = " ".join(command(Settings(), local, spec, Path("/lib/copy"), "a-name"))
    assert "--publish 127.0.0.1:8123:9000" in line
    assert "--memory 268435456 --pids-limit 64" in line
    assert "source=/lib/copy,target=/opt/prichal/prichal_serving,readonly" in line
    assert f"source={tmp_path},target=/prichal/files " in line
    assert f"source={manifest},target=/opt/prichal/model/manifest.yaml,readonly" in line
    assert line.endswith("--entrypoint python3 demo:1 -m prichal_serving")
    assert "s3cret" not in line, "other users can read command lines"


def test_an_own_server_runs_as_it_is(manifest: Path) -> None:
    manifest.write_text(OWN)
    spec = choose(components(Settings(), manifest), None)
    line = command(Settings(), Local("own:1", manifest), spec, Path("/lib/copy"), "a-name")
    assert line[-1] == "own:1"
    assert not any("prichal_serving" in part for part in line)


def test_variables_are_pairs(machine: Machine, manifest: Path) -> None:
    found = machine.run("serve-local", "image:1", str(manifest), "--env", "NOVALUE")
    assert found.code == Exit.USAGE
    assert "NAME=VALUE" in found.stderr
