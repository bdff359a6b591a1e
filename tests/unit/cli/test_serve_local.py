"""What `prichal serve-local` gives to Docker; that it works is tested with Docker."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.docker.local_serving import FILES, HostFolders, local_config
from controller.adapters.docker.mapping import Binds, RestartPolicy, container_config
from controller.cli.exits import Exit
from controller.config import Settings
from controller.domain.apps.spec import MLComponentSpec
from controller.domain.errors import ManifestInvalid, Stalled
from controller.local.selection import choose
from controller.local.serve import LocalServeOptions, components, workload
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
    return choose(components(Settings(), manifest), None, "MLComponent", "--component")


def test_a_manifest_file_or_folder(manifest: Path) -> None:
    names = [[spec.name for spec in components(Settings(), place)] for place in (manifest, manifest.parent)]
    assert names == [["namer"], ["namer"]]


def test_one_of_several_has_to_be_chosen(manifest: Path) -> None:
    manifest.write_text(MANIFEST + OWN)
    found = components(Settings(), manifest)
    assert choose(found, "own", "MLComponent", "--component").name == "own"
    with pytest.raises(Stalled, match="namer, own"):
        choose(found, None, "MLComponent", "--component")
    with pytest.raises(Stalled, match="namer, own"):
        choose(found, "other", "MLComponent", "--component")


def test_an_invalid_manifest_is_refused(machine: Machine, manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("inference", "inferenze"))
    with pytest.raises(ManifestInvalid):
        components(Settings(), manifest)
    assert machine.run("serve-local", "image:1", str(manifest)).code == Exit.INVALID


def made(
    local: LocalServeOptions, spec: MLComponentSpec, files: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The container of serve-local, and the one that the platform makes of the same."""
    image = {"PYTHONPATH": "/code/src", "OMP_NUM_THREADS": "3"}
    asked = workload(local, spec)
    policy = RestartPolicy("prichal", max_body=1000)
    model = local.model.resolve().parent if local.model else None
    ours = local_config(
        asked,
        replace(policy, files_root=FILES if files else None),
        Path("/lib/copy"),
        image,
        HostFolders(8123, files, model),
    )
    return ours, container_config(asked, policy, Binds(Path("/lib/copy"), model), image)


def test_the_container_is_the_platforms(manifest: Path, spec: MLComponentSpec, tmp_path: Path) -> None:
    """All of it, whatever the platform may come to set, but for what a person's own machine needs otherwise."""
    local = LocalServeOptions("demo:1", manifest, model=manifest, env=(("KEY", "s3cret"),))
    ours, platforms = made(local, spec)
    differing = {"Labels", "NetworkingConfig", "ExposedPorts", "HostConfig"}
    assert {k: v for k, v in ours.items() if k not in differing} == {
        k: v for k, v in platforms.items() if k not in differing
    }
    host = {"NetworkMode", "AutoRemove", "PortBindings", "Mounts"}
    assert {k: v for k, v in ours["HostConfig"].items() if k not in host} == {
        k: v for k, v in platforms["HostConfig"].items() if k not in host
    }
    assert {"KEY=s3cret", "THRESHOLD=0.5", "PYTHONPATH=/opt/prichal:/code/src"} < set(ours["Env"])
    assert ours["Labels"] == {}, "no daemon takes it for its own"


def test_what_differs_on_a_machine_of_ones_own(manifest: Path, spec: MLComponentSpec, tmp_path: Path) -> None:
    ours, _ = made(LocalServeOptions("demo:1", manifest, model=manifest), spec, tmp_path)
    host = ours["HostConfig"]
    assert host["PortBindings"] == {"9000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8123"}]}
    assert host["NetworkMode"] == "default"
    assert {"Type": "volume", "Target": "/tmp"} in host["Mounts"]
    binds = [mount for mount in host["Mounts"] if mount["Type"] == "bind"]
    mounts = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in binds}
    assert mounts == {
        "/opt/prichal/prichal_serving": ("/lib/copy", True),
        "/opt/prichal/model/manifest.yaml": (str(manifest), True),  # not what lies beside it
        "/prichal/files": (str(tmp_path), False),
    }
    serving = json.loads(next(v.partition("=")[2] for v in ours["Env"] if v.startswith("PRICHAL_SERVING=")))
    assert serving["files_root"] == "/prichal/files"
    assert serving["model_path"] == "/opt/prichal/model/manifest.yaml"


def test_an_own_server_runs_as_it_is(manifest: Path) -> None:
    manifest.write_text(OWN)
    spec = choose(components(Settings(), manifest), None, "MLComponent", "--component")
    local = LocalServeOptions("own:1", manifest)
    config = container_config(workload(local, spec), RestartPolicy("prichal"), Binds(), {})
    assert not config.keys() & {"Entrypoint", "Cmd"}


def test_variables_are_pairs(machine: Machine, manifest: Path) -> None:
    found = machine.run("serve-local", "image:1", str(manifest), "--env", "NOVALUE")
    assert found.code == Exit.USAGE
    assert "NAME=VALUE" in found.stderr
