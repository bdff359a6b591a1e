"""What a job is as a container, without an engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.docker.job_mapping import (
    LOG_FILES,
    engine_since,
    interrupted,
    is_attempt,
    is_going,
    is_job,
    job_config,
    job_labels,
    may_be_interrupted,
    observed_job,
    programs,
)
from controller.adapters.docker.mapping import Binds, RestartPolicy, container_config
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.names import AppName
from controller.domain.secret import Secret
from controller.domain.volumes import StagingArea, Volume
from controller.ports import Job, JobMount, JobState, ObservedJob
from tests.support.engines import own_server_workload

POLICY = RestartPolicy("prichal", capabilities=("NET_BIND_SERVICE",), log_max_size=1000)
WORKLOAD = own_server_workload("web:1", "demo")
SOURCES = (Path("/state/in"), Path("/state/out"))
JOB = Job(
    name="prichal.demo.0123.train.1",
    app=AppName("demo"),
    run="0123",
    stage="train",
    attempt=1,
    image="train@sha256:1",
    mounts=(
        JobMount(Volume(StagingArea.RUNS, ("0123", "in")), "/unip/data", read_only=True),
        JobMount(Volume(StagingArea.RUNS, ("0123", "out")), "/unip/model", read_only=False),
    ),
    resources=WORKLOAD.spec.resources,
    read_only_root=False,
)


def inspected(status: str = "exited", **state: object) -> dict[str, Any]:
    """What Engine 20.10 answers, in part."""
    return {
        "Id": "f" * 64,
        "Name": f"/{JOB.name}",
        "Path": "python3",
        "State": {
            "Status": status,
            "OOMKilled": False,
            "ExitCode": 3,
            "StartedAt": "2026-11-22T18:12:06.872935864Z",
            "FinishedAt": "2026-11-22T18:12:07.5Z",
            **state,
        },
        "Config": {"Labels": job_labels("prichal", JOB), "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": ""},
    }


def test_a_stage_writes_where_it_likes_unless_it_says_not() -> None:
    assert "ReadonlyRootfs" not in job_config(JOB, POLICY, {}, SOURCES)["HostConfig"]
    host = job_config(replace(JOB, read_only_root=True), POLICY, {}, SOURCES)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert [mount["Target"] for mount in host["Mounts"]] == ["/unip/data", "/unip/model", "/tmp"]
    mount = JobMount(Volume(StagingArea.RUNS), "/tmp", read_only=False)
    host = job_config(replace(JOB, read_only_root=True, mounts=(mount,)), POLICY, {}, SOURCES[1:])[
        "HostConfig"
    ]
    assert [mount["Source"] for mount in host["Mounts"]] == ["/state/out"]


def test_a_job_is_hardened_as_a_workload_is() -> None:
    host = job_config(JOB, POLICY, {}, SOURCES)["HostConfig"]
    expected = container_config(WORKLOAD, POLICY, Binds(), {}, writes=True)["HostConfig"]
    assert host.pop("LogConfig")["Config"] == {
        "max-size": str(POLICY.log_max_size),
        "max-file": str(LOG_FILES),
    }
    del expected["LogConfig"]
    assert host.items() >= expected.items()

    assert "AutoRemove" not in host
    assert host["ShmSize"] == host["Memory"]


def test_the_log_holds_what_may_be_written_before_it_is_read() -> None:
    """2.2 MB of empty lines, which take 71 bytes each."""
    assert (LOG_FILES - 1) * DockerSettings().log_max_size >= 2_200_000 * 71


def test_the_gpus_that_were_lent_are_given_and_no_others() -> None:
    wanted = replace(JOB, resources=replace(JOB.resources, gpus=2), gpus=("0", "GPU-b"))
    host = job_config(wanted, POLICY, {}, SOURCES)["HostConfig"]
    assert host["DeviceRequests"] == [{"DeviceIDs": ["0", "GPU-b"], "Capabilities": [["gpu"]]}]
    assert "DeviceRequests" not in job_config(replace(wanted, gpus=()), POLICY, {}, SOURCES)["HostConfig"]


@pytest.mark.parametrize(("gpus", "expected"), [((), "void"), (("0", "GPU-b"), "0,GPU-b")])
def test_no_stage_sees_a_gpu_that_it_was_not_lent(gpus: tuple[str, ...], expected: str) -> None:
    greedy = replace(JOB, gpus=gpus, env=(("NVIDIA_VISIBLE_DEVICES", Secret("all")),))
    env = job_config(greedy, POLICY, {"NVIDIA_VISIBLE_DEVICES": "all"}, SOURCES)["Env"]
    assert [entry for entry in env if entry.startswith("NVIDIA_")] == [f"NVIDIA_VISIBLE_DEVICES={expected}"]


def test_threads_are_kept_within_the_cpus() -> None:
    job = replace(JOB, resources=replace(JOB.resources, cpus=2.5), env=(("MKL_NUM_THREADS", Secret("8")),))
    env = job_config(job, POLICY, {"OPENBLAS_NUM_THREADS": "1"}, SOURCES)["Env"]
    assert {"OMP_NUM_THREADS=2", "NUMEXPR_NUM_THREADS=2", "MKL_NUM_THREADS=8"} < set(env)
    assert not any(variable.startswith("OPENBLAS") for variable in env), "the image has set it"


def test_folders_are_mounted() -> None:
    assert job_config(JOB, POLICY, {}, SOURCES)["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/state/in", "Target": "/unip/data", "ReadOnly": True},
        {"Type": "bind", "Source": "/state/out", "Target": "/unip/model", "ReadOnly": False},
    ]


def test_the_images_own_command_runs_unless_another_is_given() -> None:
    config = job_config(JOB, POLICY, {}, SOURCES)
    assert not config.keys() & {"Entrypoint", "Cmd", "User", "WorkingDir"}
    config = job_config(replace(JOB, command=("python", "train.py")), POLICY, {}, SOURCES)
    assert (config["Entrypoint"], config["Cmd"]) == (["python", "train.py"], [])


def test_no_secret_is_beside_the_environment() -> None:
    config = job_config(replace(JOB, env=(("TOKEN", Secret("hunter22")),)), POLICY, {}, SOURCES)
    assert "TOKEN=hunter22" in config.pop("Env")
    assert "hunter22" not in json.dumps(config)


def test_what_is_seen_of_one_that_ended() -> None:
    seen = observed_job(inspected())
    assert (seen.name, seen.app, seen.run, seen.stage, seen.attempt) == (JOB.name, "demo", "0123", "train", 1)
    assert (seen.state, seen.exit_code, seen.oom_killed) == (JobState.ENDED, 3, False)
    assert seen.started == pytest.approx(1795371126.872936, abs=1e-5)
    assert seen.ended == 1795371127.5


def test_what_is_seen_of_one_that_never_began() -> None:
    never = "0001-01-01T00:00:00Z"
    seen = observed_job(inspected("created", StartedAt=never, FinishedAt=never))
    assert (seen.state, seen.started, seen.ended, seen.exit_code) == (JobState.CREATED, 0.0, 0.0, None)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", JobState.RUNNING),
        ("paused", JobState.RUNNING),
        ("restarting", JobState.RUNNING),
        ("dead", JobState.ENDED),
    ],
)
def test_states(status: str, state: JobState) -> None:
    seen = observed_job(inspected(status))
    assert seen.state is state
    assert (seen.exit_code is None) == (state is JobState.RUNNING)


def test_a_removal_under_way() -> None:
    assert is_going(inspected("removing"))
    assert not is_going(inspected("exited"))


@pytest.mark.parametrize(
    "label", [labels.INSTANCE, labels.APP, labels.KIND, labels.RUN, labels.STAGE, labels.ATTEMPT]
)
def test_who_is_adopted(label: str) -> None:
    details = inspected()
    assert is_attempt("prichal", JOB, details)
    details["Config"]["Labels"][label] = "other"
    assert not is_attempt("prichal", JOB, details)
    del details["Config"]["Labels"][label]
    assert not is_attempt("prichal", JOB, details)


def test_who_is_ours() -> None:
    details = inspected()
    assert is_job("prichal", details)
    assert not is_job("other", details)
    details["Config"]["Labels"] = container_config(WORKLOAD, POLICY, Binds(), {})["Labels"]
    assert not is_job("prichal", details)
    details["Config"]["Labels"] = None
    assert not is_job("prichal", details)


@pytest.mark.parametrize(
    ("program", "folder", "paths"),
    [
        ("python3", "", ["/usr/bin/python3", "/bin/python3"]),
        ("/opt/run", "/work", ["/opt/run"]),
        ("./run", "/work", ["/work/run"]),
        ("bin/run", "", ["/bin/run"]),
    ],
)
def test_where_a_program_may_lie(program: str, folder: str, paths: list[str]) -> None:
    details = inspected() | {"Path": program}
    details["Config"]["WorkingDir"] = folder
    assert programs(details) == paths


# --- the end of the engine ------------------------------------------------------------------------------------------


def ended(code: int, started: float = 100.0, at: float = 200.0, oom_killed: bool = False) -> ObservedJob:
    return ObservedJob(
        "id", "name", AppName("demo"), "r", "s", 1, JobState.ENDED, started, at, code, oom_killed
    )


def test_what_an_engine_may_have_ended() -> None:
    assert [code for code in range(256) if not may_be_interrupted(ended(code))] == [0]
    assert not may_be_interrupted(ended(137, oom_killed=True))


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (201.0, True),  # stopped, and started again
        (500.0, True),
        (195.0, True),  # crashed: the new one saw it a moment after its start
        (150.0, False),  # long after the start
        (50.0, False),  # the same engine all the time
    ],
)
def test_whether_it_ended_with_the_engine_before(since: float, expected: bool) -> None:
    assert interrupted(ended(137), since) == expected


def test_since_when_the_engine_is_there() -> None:
    networks = [
        {"Name": "other-bridge", "Created": "2026-01-01T00:00:00Z"},
        {"Name": "bridge", "Created": "2026-11-22T19:17:47.959448087Z"},
    ]
    assert engine_since(networks) == pytest.approx(1795375067.959448)
    assert engine_since(networks[:1]) is None
