"""What a workload is as a container, without an engine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.docker.connection import has_init
from controller.adapters.docker.mapping import (
    THREADS,
    THREADS_OF_OPENMP,
    Binds,
    RestartPolicy,
    container_config,
    engine_event,
    environment,
    image_environment,
    observed_workload,
    same_workload,
)
from controller.domain import labels
from controller.domain.apps.desired import ModelMount, Workload
from controller.domain.apps.observed import WorkloadState
from controller.domain.apps.spec import PlatformServer, Resources
from controller.domain.secret import Secret
from controller.domain.volumes import StagingArea, Volume
from controller.ports import EngineEvent
from controller.serving import config as serving_config
from tests.support.engines import own_server_workload, platform_workload
from tests.support.specs import make

POLICY = RestartPolicy("prichal", capabilities=("NET_BIND_SERVICE",), log_max_size=1000, max_body=2000)
MODEL = ModelMount(Volume(StagingArea.MODELS, ("abc",)), "resnet")
LIBRARY_COPY = Path("/copies/1")
BINDS = Binds(LIBRARY_COPY)
OWN = own_server_workload("web:1", "demo", fingerprint="1:abc")
PLATFORM = platform_workload("model:1", "demo", "app.inference:predict", {"THRESHOLD": "0.5"})


def test_a_root_file_system_that_cannot_be_written() -> None:
    """Where the manifest says nothing, until it has turned out that it does not start so."""
    for asked, writes, expected, label in (
        (True, False, True, None),
        (True, True, True, None),
        (False, False, False, None),
        (None, False, True, "read-only"),
        (None, True, False, "writable"),
    ):
        workload = replace(PLATFORM, spec=replace(PLATFORM.spec, read_only_root=asked))
        config = container_config(workload, POLICY, BINDS, {}, writes)
        host = config["HostConfig"]
        assert host.get("ReadonlyRootfs", False) is expected
        assert ({"Type": "volume", "Target": "/tmp"} in host["Mounts"]) is expected
        assert any(mount["Target"] == "/opt/prichal/prichal_serving" for mount in host["Mounts"])
        assert config["Labels"].get(labels.ROOT) == label


def test_the_hardening_of_every_container() -> None:
    for workload, binds in ((OWN, Binds()), (PLATFORM, BINDS)):
        host = container_config(workload, POLICY, binds, {})["HostConfig"]
        expected = {
            "NetworkMode": "prichal.demo",
            "RestartPolicy": {"Name": "no"},
            "Init": True,
            "Privileged": False,
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_BIND_SERVICE"],
            "PidsLimit": 32,
            "NanoCpus": 500_000_000,
            "Memory": 67_108_864,
            "MemorySwap": 67_108_864,
            "ShmSize": 67_108_864,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1000", "max-file": "3"}},
        }
        assert {key: host[key] for key in expected} == expected
        assert "PortBindings" not in host
        assert "Binds" not in host


def test_an_own_server_is_run_as_its_image_says() -> None:
    config = container_config(OWN, POLICY, Binds(), {}, writes=True)
    assert not config.keys() & {"Entrypoint", "Cmd", "User", "WorkingDir", "StopSignal", "Healthcheck"}
    assert "Mounts" not in config["HostConfig"]
    ours = [variable for variable in config["Env"] if "THREADS" not in variable]
    assert sorted(ours) == ["UNIP_APP=demo", "UNIP_COMPONENT=web", "UNIP_PORT=8002"]


def test_the_serving_library_is_mounted_and_run() -> None:
    config = container_config(PLATFORM, POLICY, BINDS, {}, writes=True)
    assert (config["Entrypoint"], config["Cmd"]) == (["python3", "-m", "prichal_serving"], [])
    assert config["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/copies/1", "Target": "/opt/prichal/prichal_serving", "ReadOnly": True}
    ]


@pytest.mark.parametrize(("workload", "library"), [(OWN, None), (PLATFORM, LIBRARY_COPY)])
def test_the_model_is_mounted_read_only_under_its_own_name(workload: Workload, library: Path | None) -> None:
    binds = Binds(library, Path("/state/models/abc"))
    config = container_config(replace(workload, model=MODEL), POLICY, binds, {}, writes=True)
    assert config["HostConfig"]["Mounts"][-1] == {
        "Type": "bind",
        "Source": "/state/models/abc",
        "Target": "/opt/prichal/model",
        "ReadOnly": True,
    }
    assert len(config["HostConfig"]["Mounts"]) == (2 if library else 1)
    assert "UNIP_MODEL_PATH=/opt/prichal/model/resnet" in config["Env"]


def test_the_serving_library_understands_its_settings() -> None:
    spec = replace(PLATFORM.spec, setup_timeout=7.0)
    env = environment(replace(PLATFORM, spec=spec, model=MODEL), POLICY, {})
    settings = serving_config.read(env, [])
    server = spec.server
    assert isinstance(server, PlatformServer)
    assert dataclasses.asdict(settings) | json.loads(env["PRICHAL_SERVING"]) == dataclasses.asdict(settings)
    assert (settings.inference, settings.app, settings.component) == (
        "app.inference:predict",
        "demo",
        "model",
    )
    assert (settings.model_path, settings.setup_timeout, settings.max_body) == (
        "/opt/prichal/model/resnet",
        7.0,
        2000,
    )
    assert (settings.concurrency, settings.queue, settings.timeout, settings.processes) == (
        server.concurrency,
        server.queue,
        server.timeout,
        server.processes,
    )


def test_shared_memory_is_as_large_as_asked() -> None:
    spec = replace(OWN.spec, resources=replace(OWN.spec.resources, shm=2**20))
    host = container_config(replace(OWN, spec=spec), POLICY, Binds(), {})["HostConfig"]
    assert host["ShmSize"] == 2**20


@pytest.mark.parametrize(
    ("given", "image", "expected"),
    [
        ({}, {}, "/opt/prichal"),
        ({}, {"PYTHONPATH": "/image"}, "/opt/prichal:/image"),
        ({"PYTHONPATH": "/given"}, {"PYTHONPATH": "/image"}, "/opt/prichal:/given"),
    ],
)
def test_the_modules_own_python_path_is_kept(
    given: dict[str, str], image: dict[str, str], expected: str
) -> None:
    env = environment(platform_workload("i", "a", "m:f", given), POLICY, image)
    assert env["PYTHONPATH"] == expected


def test_output_is_unbuffered_unless_said_otherwise() -> None:
    assert environment(PLATFORM, POLICY, {})["PYTHONUNBUFFERED"] == "1"
    assert "PYTHONUNBUFFERED" not in environment(PLATFORM, POLICY, {"PYTHONUNBUFFERED": ""})
    said = platform_workload("i", "a", "m:f", {"PYTHONUNBUFFERED": ""})
    assert environment(said, POLICY, {})["PYTHONUNBUFFERED"] == ""


ALL_THREADS = {*THREADS, *THREADS_OF_OPENMP}


@pytest.mark.parametrize(("cpus", "count"), [(0.1, "1"), (1.0, "1"), (1.9, "1"), (2.0, "2"), (64.0, "64")])
def test_threads_are_as_many_as_cpus(cpus: float, count: str) -> None:
    for workload in (OWN, PLATFORM):
        sized = replace(workload, spec=replace(workload.spec, resources=make(Resources, cpus=cpus)))
        env = environment(sized, POLICY, {})
        assert {name: env[name] for name in ALL_THREADS} == dict.fromkeys(ALL_THREADS, count)


@given(st.sets(st.sampled_from(sorted(ALL_THREADS))), st.sets(st.sampled_from(sorted(ALL_THREADS))))
def test_threads_that_manifest_or_image_set_are_left(given: set[str], image: set[str]) -> None:
    module = platform_workload("i", "a", "m:f", dict.fromkeys(given, "7"))
    env = environment(module, POLICY, dict.fromkeys(image, "9"))
    assert all(env[name] == "7" for name in given)
    assert not image & env.keys() - given
    if "OMP_NUM_THREADS" in given | image:  # these follow it, and ours would hide it from them
        assert not env.keys() & set(THREADS_OF_OPENMP) - given


def test_a_module_cannot_forge_the_platforms_variables() -> None:
    forged = platform_workload(
        "i", "a", "m:f", {"UNIP_APP": "b", "UNIP_MODEL_PATH": "/b", "PRICHAL_SERVING": "{}"}
    )
    env = environment(replace(forged, model=MODEL), POLICY, {})
    assert (env["UNIP_APP"], env["UNIP_MODEL_PATH"]) == ("a", "/opt/prichal/model/resnet")
    assert json.loads(env["PRICHAL_SERVING"])["app"] == "a"


def test_no_secret_is_in_labels_or_command() -> None:
    workload = replace(PLATFORM, env=(("TOKEN", Secret("hunter22")),))
    config = container_config(workload, POLICY, BINDS, {})
    assert "TOKEN=hunter22" in config.pop("Env")
    assert "hunter22" not in json.dumps(config)


def test_gpus_are_asked_for_only_when_wanted() -> None:
    assert "DeviceRequests" not in container_config(OWN, POLICY, Binds(), {})["HostConfig"]
    workload = replace(OWN, spec=replace(OWN.spec, resources=make(Resources, gpus=2)))
    requests = container_config(workload, POLICY, Binds(), {})["HostConfig"]["DeviceRequests"]
    assert requests == [{"Count": 2, "Capabilities": [["gpu"]]}]


def test_the_gpus_that_were_lent_are_given_and_told_by_a_label() -> None:
    workload = replace(OWN, spec=replace(OWN.spec, resources=make(Resources, gpus=2)), gpus=("0", "GPU-b"))
    config = container_config(workload, POLICY, Binds(), {})
    assert config["HostConfig"]["DeviceRequests"] == [
        {"DeviceIDs": ["0", "GPU-b"], "Capabilities": [["gpu"]]}
    ]
    assert labels.gpus(config["Labels"]) == ("0", "GPU-b")
    assert labels.gpu_share(config["Labels"]) == 1
    shared = replace(workload, spec=replace(OWN.spec, resources=make(Resources, gpus=2, gpu_share=3)))
    assert labels.gpu_share(container_config(shared, POLICY, Binds(), {})["Labels"]) == 3
    assert labels.gpus(labels.of_workload("prichal", OWN)) == ()


@pytest.mark.parametrize("said", ["0", "-1", "1.5", "100", "many", ""])
def test_a_label_that_tells_no_share_means_that_none_is_shared(said: str) -> None:
    assert labels.gpu_share({labels.GPU_SHARE: said}) == 1


@pytest.mark.parametrize("image", [{}, {"NVIDIA_VISIBLE_DEVICES": "all"}])
@pytest.mark.parametrize(
    ("gpus", "expected"), [((), "void"), (("0",), "0"), (("GPU-b", "MIG-c"), "GPU-b,MIG-c")]
)
def test_no_container_sees_a_gpu_that_it_was_not_lent(
    gpus: tuple[str, ...], expected: str, image: dict[str, str]
) -> None:
    """Where NVIDIA's runtime is the engine's default, the variable alone would get it."""
    spec = replace(OWN.spec, resources=make(Resources, gpus=len(gpus)))
    greedy = replace(OWN, spec=spec, gpus=gpus, env=(("NVIDIA_VISIBLE_DEVICES", Secret("all")),))
    assert environment(greedy, POLICY, image)["NVIDIA_VISIBLE_DEVICES"] == expected


@pytest.mark.parametrize("variable", ["NVIDIA_VISIBLE_DEVICES", "CUDA_VERSION", ""])
def test_an_image_gets_no_gpu_by_its_own_variables(variable: str) -> None:
    env = environment(OWN, POLICY, {variable: "all"} if variable else {})
    assert env.get("NVIDIA_VISIBLE_DEVICES") == ("void" if variable else None)


def test_without_a_pool_docker_says_which_gpus_are_seen() -> None:
    workload = replace(OWN, spec=replace(OWN.spec, resources=make(Resources, gpus=1)))
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(workload, POLICY, {})


@pytest.mark.parametrize(
    "label", [labels.INSTANCE, labels.APP, labels.COMPONENT, labels.FINGERPRINT, labels.REPLICA]
)
def test_who_is_adopted(label: str) -> None:
    found = labels.of_workload("prichal", OWN)
    assert same_workload("prichal", OWN, found)
    assert same_workload("prichal", OWN, found | {labels.REVISION: "other"})
    assert not same_workload("prichal", OWN, found | {label: "other"})
    assert not same_workload("prichal", OWN, {k: v for k, v in found.items() if k != label})


def summary(**changes: object) -> dict[str, object]:
    """An entry of the engine's list, as Engine 20.10 gives it."""
    entry: dict[str, object] = {
        "Id": "f" * 64,
        "Names": ["/prichal.demo.web.abc.0"],
        "Labels": labels.of_workload("prichal", OWN),
        "State": "running",
        "Created": 1_700_000_000,
        "NetworkSettings": {"Networks": {"prichal.demo": {"IPAddress": "172.18.0.2"}}},
    }
    return entry | changes


def test_a_running_container() -> None:
    seen = observed_workload(summary(), "prichal.demo", None)
    assert (seen.name, seen.component, seen.fingerprint) == ("prichal.demo.web.abc.0", "web", "1:abc")
    assert (seen.state, seen.endpoint, seen.created) == (WorkloadState.RUNNING, "172.18.0.2:8002", 1.7e9)


@pytest.mark.parametrize(
    "state", ["exited", "dead", "paused", "restarting", "removing", "new in some engine"]
)
def test_what_does_not_answer_is_stopped_and_has_no_address(state: str) -> None:
    seen = observed_workload(summary(State=state), "prichal.demo", {"ExitCode": 3, "OOMKilled": True})
    assert (seen.state, seen.address) == (WorkloadState.STOPPED, None)
    assert (seen.exit_code, seen.oom_killed) == (3, True)


def test_a_container_taken_off_its_network_has_no_address() -> None:
    for networks in ({}, {"bridge": {"IPAddress": "172.17.0.9"}}, {"prichal.demo": {"IPAddress": ""}}):
        seen = observed_workload(summary(NetworkSettings={"Networks": networks}), "prichal.demo", None)
        assert seen.address is None


def test_labels_that_were_tampered_with_do_not_stop_the_snapshot() -> None:
    tampered = {labels.INSTANCE: "prichal", labels.APP: "demo", labels.PORT: "-1", labels.REPLICA: "x"}
    seen = observed_workload(summary(Labels=tampered, Names=[]), "prichal.demo", None)
    assert (seen.component, seen.fingerprint, seen.port, seen.replica) == ("", "", 0, 0)
    assert seen.name == "f" * 12


def test_an_event() -> None:
    raw = {
        "Action": "die",
        "timeNano": 1_700_000_000_500_000_000,
        "Actor": {"ID": "f" * 64, "Attributes": labels.of_workload("prichal", OWN) | {"exitCode": "137"}},
    }
    assert engine_event(raw) == EngineEvent(OWN.app, OWN.component, "die", "f" * 64, 1_700_000_000.5)


@pytest.mark.parametrize("image", [{}, {"Config": None}, {"Config": {"Env": None}}])
def test_an_image_without_environment(image: dict[str, object]) -> None:
    assert image_environment(image) == {}


def test_an_images_environment() -> None:
    assert image_environment({"Config": {"Env": ["A=b=c", "EMPTY="]}}) == {"A": "b=c", "EMPTY": ""}


def test_whether_the_engine_has_an_init_process() -> None:
    def version(init: str) -> dict[str, object]:
        return {
            "Components": [
                {"Name": "Engine", "Version": "20.10.24"},
                {"Name": "docker-init", "Version": init},
            ]
        }

    assert has_init(version("0.19.0"))
    assert not has_init(version("N/A"))
    assert not has_init(version(""))
    assert not has_init({"Version": "20.10.24"})
