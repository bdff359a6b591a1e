"""GPUs of components on a real engine without any: what is asked of it, what it answers, and what it is known by."""

from __future__ import annotations

from dataclasses import replace

import docker
import pytest

from controller.adapters.docker import DockerEngine, mapping
from controller.config import DockerSettings, Settings
from controller.config.settings import RunSettings
from controller.daemon.doctor import Check, doctor
from controller.domain.apps.desired import Workload
from controller.domain.apps.spec import Resources
from controller.domain.errors import Stalled
from controller.domain.names import AppName
from controller.domain.runs.gpus import Lease
from tests.support.engines import name_of, own_server_workload
from tests.support.specs import make


def with_gpus(image: str, app: AppName, *gpus: str) -> Workload:
    workload = own_server_workload(image, app)
    resources = make(Resources, gpus=len(gpus), gpu_share=3)
    return replace(workload, spec=replace(workload.spec, resources=resources), gpus=gpus)


@pytest.fixture
def without_runtime(client: docker.APIClient) -> None:
    if "nvidia" in client.info()["Runtimes"]:
        pytest.skip("this host may have GPUs")


def test_exactly_those_that_were_lent_are_asked_for_and_known_again(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, image: str
) -> None:
    workload = with_gpus(image, app, "0", "MIG-3a/7:1")
    name = name_of(workload, instance)
    engine.ensure_network(app)
    policy = mapping.policy_of(DockerSettings(), instance, has_init=False)
    config = mapping.container_config(workload, policy, mapping.Binds(), {"NVIDIA_VISIBLE_DEVICES": "all"})
    made = client.create_container_from_config(config, name=name)  # type: ignore[no-untyped-call]
    found = client.inspect_container(made["Id"])
    (asked,) = found["HostConfig"]["DeviceRequests"]
    assert (asked["DeviceIDs"], asked["Count"], asked["Capabilities"]) == (["0", "MIG-3a/7:1"], 0, [["gpu"]])
    assert "NVIDIA_VISIBLE_DEVICES=0,MIG-3a/7:1" in found["Config"]["Env"]
    assert engine.held_gpus() == (Lease(name, app, workload.component, ("0", "MIG-3a/7:1"), 3),)
    (seen,) = engine.observe(app).workloads
    assert (seen.gpus, seen.gpu_share) == (("0", "MIG-3a/7:1"), 3)
    engine.remove(seen.id, 0)
    assert engine.held_gpus() == ()


@pytest.mark.usefixtures("without_runtime")
def test_an_engine_without_a_runtime_for_gpus_says_so_and_nothing_is_left(
    engine: DockerEngine, instance: str, app: AppName, image: str
) -> None:
    workload = with_gpus(image, app, "0")
    engine.ensure_network(app)
    with pytest.raises(Stalled) as caught:
        engine.start(workload, name_of(workload, instance))
    assert caught.value.reason == "NoGpu"
    assert "`runs.gpus`" in caught.value.message
    assert engine.held_gpus() == ()
    assert engine.observe(app).workloads == ()


@pytest.mark.usefixtures("without_runtime")
def test_doctor_finds_the_runtime_missing_where_gpus_are_lent() -> None:
    def check(*gpus: str) -> Check:
        (found,) = doctor(Settings(runs=RunSettings(gpus=gpus)), frozenset({"engine gpus"}))
        return found

    assert check().ok
    missing = check("0")
    assert not missing.ok
    assert "nvidia-ctk runtime configure" in missing.advice
