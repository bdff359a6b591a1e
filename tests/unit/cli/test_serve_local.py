"""What `prichal serve-local` gives to Docker; that it works is tested with Docker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.docker.local_serving import DIFFERENCES, FILES, HostFolders, local_config
from controller.adapters.docker.mapping import Binds, RestartPolicy, container_config
from controller.cli.exits import Exit
from controller.config import Settings
from controller.domain.apps.spec import BoxLink, MLComponentSpec, OwnServer, Resources
from controller.domain.errors import ManifestInvalid, Stalled
from controller.domain.names import AppName, ComponentName
from controller.local.selection import choose
from controller.local.serve import LocalServeOptions, components, workload
from tests.support.specs import make
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
    local: LocalServeOptions, spec: MLComponentSpec, files: Path | None = None, gpus: tuple[str, ...] = ()
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
    deployed = replace(asked, app=DEMO, replica=1, fingerprint="3:abc", revision="c0ffee", gpus=gpus)
    library = None if isinstance(spec.server, OwnServer) else Path("/lib/copy")
    return ours, container_config(deployed, policy, Binds(library, model), image)


DEMO = AppName("pu-ivanov-pa-demo")
#: Parts of a specification, each of which could make a difference.
PARTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "a root that can be written": {"read_only_root": False},
    "a read-only root": {"read_only_root": True},
    "shared memory": {"resources": make(Resources, cpus=2.5, memory=2**30, shm=2**28)},
    "GPUs": {"resources": make(Resources, gpus=2)},
    "boxes": {"boxes": (make(BoxLink, ComponentName("data")),)},
    "another server": {"server": make(OwnServer)},
}


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, object]]:
    """Every field of a container by its place. A variable is one, too, and so is each setting of the library."""
    if place == "Env":
        value = dict(each.split("=", 1) for each in value)
    if place == "Env.PRICHAL_SERVING":
        value = json.loads(value)
    if not isinstance(value, dict) or not value:
        yield place, value
        return
    for name, each in value.items():
        yield from leaves(each, f"{place}.{name}" if place else name)


def differing(ours: dict[str, Any], platforms: dict[str, Any]) -> set[str]:
    left, right = dict(leaves(ours)), dict(leaves(platforms))
    return {place for place in left.keys() | right.keys() if left.get(place) != right.get(place)}


@pytest.mark.parametrize("part", PARTS)
def test_the_container_is_the_platforms_field_by_field(
    manifest: Path, spec: MLComponentSpec, tmp_path: Path, part: str
) -> None:
    """All of it, whatever the platform may come to set, but for what is listed with its reason."""
    local = LocalServeOptions("demo:1", manifest, model=manifest, env=(("KEY", "s3cret"),))
    given: Any = PARTS[part]
    gpus = ("GPU-1", "GPU-2") if part == "GPUs" else ()
    ours, platforms = made(local, replace(spec, **given), tmp_path, gpus)
    found = differing(ours, platforms)
    unexpected = {place for place in found if not place.startswith(tuple(DIFFERENCES))}
    assert unexpected == set()
    assert {"Labels", "HostConfig.NetworkMode", "HostConfig.Mounts"} <= {
        listed for listed in DIFFERENCES if any(place.startswith(listed) for place in found)
    }
    folders = [
        {mount["Target"] for mount in each["HostConfig"]["Mounts"]} - {FILES} for each in (ours, platforms)
    ]
    assert [{target.removesuffix("/manifest.yaml") for target in each} for each in folders] == [
        folders[1]
    ] * 2
    assert {"KEY=s3cret", "THRESHOLD=0.5", f"UNIP_APP={DEMO}"} < set(ours["Env"])
    assert ours["Labels"] == {}, "no daemon takes it for its own"


def test_every_difference_is_one(manifest: Path, spec: MLComponentSpec, tmp_path: Path) -> None:
    """What stands in the list and does not differ any more has to leave it."""
    lent = replace(spec, resources=make(Resources, gpus=1))
    found = differing(
        *made(LocalServeOptions("demo:1", manifest, model=manifest), lent, tmp_path, ("GPU-1",))
    )
    assert {listed for listed in DIFFERENCES if not any(place.startswith(listed) for place in found)} == set()
    page = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for listed in DIFFERENCES:
        assert any(f"`{listed}`" in row for row in rows), listed


def test_what_differs_on_a_machine_of_ones_own(manifest: Path, spec: MLComponentSpec, tmp_path: Path) -> None:
    ours, platforms = made(LocalServeOptions("demo:1", manifest, model=manifest), spec, tmp_path)
    host = ours["HostConfig"]
    assert host["PortBindings"] == {"9000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8123"}]}
    assert host["NetworkMode"] == "default"
    mounts = {mount["Target"]: mount for mount in host["Mounts"]}
    assert mounts.pop(FILES) == {
        "Type": "bind",
        "Source": str(tmp_path),
        "Target": FILES,
        "ReadOnly": False,
    }
    alone = mounts.pop("/opt/prichal/model/manifest.yaml")  # not what lies beside it
    assert (alone["Source"], alone["ReadOnly"]) == (str(manifest), True)
    others = {mount["Target"]: mount for mount in platforms["HostConfig"]["Mounts"]}
    assert others.pop("/opt/prichal/model")["ReadOnly"]
    assert mounts == others
    assert {"/tmp", "/opt/prichal/prichal_serving"} == set(mounts)


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
