"""What a job is as a Docker container, and what Docker tells of one as ours. Pure: no call is made here.

Called by `jobs`. Limits and hardening are those of `mapping`: a job may do no more than a workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from controller.adapters.docker.mapping import Policy, hardening, image_environment, number_of
from controller.domain import labels
from controller.domain.names import AppName, network_name
from controller.domain.spec import Kind
from controller.ports import Job, JobMount, JobState, ObservedJob

JOBS = f"{labels.KIND}={Kind.EXPERIMENT_PIPELINE}"

_STATES = {"created": JobState.CREATED, "exited": JobState.ENDED, "dead": JobState.ENDED}


# --- ours to Docker's -------------------------------------------------------------------------------------------


def job_config(job: Job, policy: Policy) -> dict[str, Any]:
    """Body of `POST /containers/create`. `job.command` stands in place of ENTRYPOINT and CMD together."""
    host = hardening(job.app, replace(job.resources, gpus=0), policy) | {
        "Mounts": [_mount(mount) for mount in job.mounts],
        # Processes of one stage share tensors there, Docker's 64 MB end in SIGBUS; what lies there counts as memory.
        "ShmSize": job.resources.memory,
    }
    if job.gpus:  # these and no others: `resources` only say how many
        host["DeviceRequests"] = [{"DeviceIDs": list(job.gpus), "Capabilities": [["gpu"]]}]
    config: dict[str, Any] = {
        "Image": job.image,
        "Hostname": job.stage,
        "Env": [f"{name}={value.reveal()}" for name, value in job.env],
        "Labels": job_labels(policy.instance, job),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {network_name(policy.instance, job.app): {}}},
    }
    if job.command:
        config |= {"Entrypoint": list(job.command), "Cmd": []}
    return config


def _mount(mount: JobMount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    }


def job_labels(instance: str, job: Job) -> dict[str, str]:
    return {
        labels.INSTANCE: instance,
        labels.APP: job.app,
        labels.KIND: Kind.EXPERIMENT_PIPELINE,
        labels.RUN: job.run,
        labels.STAGE: job.stage,
        labels.ATTEMPT: str(job.attempt),
    }


# --- Docker's to ours -------------------------------------------------------------------------------------------


def is_job(instance: str, details: Mapping[str, Any]) -> bool:
    """Whether an inspected container is one of ours."""
    found = details["Config"]["Labels"] or {}
    return (found.get(labels.INSTANCE), found.get(labels.KIND)) == (instance, Kind.EXPERIMENT_PIPELINE)


def is_attempt(instance: str, job: Job, details: Mapping[str, Any]) -> bool:
    """Whether an inspected container is this very attempt."""
    return job_labels(instance, job).items() <= (details["Config"]["Labels"] or {}).items()


def is_going(details: Mapping[str, Any]) -> bool:
    """Somebody is removing it: its end is no result."""
    return bool(details["State"]["Status"] == "removing")


def observed_job(details: Mapping[str, Any]) -> ObservedJob:
    """`GET /containers/<id>/json` of one of ours. Paused and restarting ones have not ended."""
    state, found = details["State"], details["Config"]["Labels"]
    seen = _STATES.get(state["Status"], JobState.RUNNING)
    ended = seen is JobState.ENDED
    return ObservedJob(
        id=details["Id"],
        name=details["Name"].lstrip("/"),
        app=AppName(found.get(labels.APP, "")),
        run=found.get(labels.RUN, ""),
        stage=found.get(labels.STAGE, ""),
        attempt=number_of(found.get(labels.ATTEMPT)),
        state=seen,
        started=_unix(state["StartedAt"]),
        ended=_unix(state["FinishedAt"]) if ended else 0.0,
        exit_code=state["ExitCode"] if ended else None,
        oom_killed=ended and state["OOMKilled"],
    )


_RESTORED = 10.0  # seconds that an engine which starts may take to see what has died with the one before


def may_be_interrupted(job: ObservedJob) -> bool:
    """Whether it is worth asking since when the engine is there. One that is stopped sends SIGTERM, upon which commands
    end with any code they like: all but success is put down to it."""
    return job.exit_code not in (None, 0) and not job.oom_killed


def interrupted(job: ObservedJob, engine_since: float) -> bool:
    """Whether a job that may be interrupted has ended with an engine before the present one."""
    return job.started < engine_since and job.ended < engine_since + _RESTORED


def engine_since(networks: Iterable[Mapping[str, Any]]) -> float | None:
    """When the engine was started, Unix seconds, from its list of networks: it makes the one called `bridge` anew each
    time, unless containers are kept alive over its restart, which then interrupts none. None where it has no such
    network."""
    found = (network["Created"] for network in networks if network["Name"] == "bridge")
    return next((_unix(created) for created in found), None)


def _unix(text: str) -> float:
    """RFC 3339 in UTC; the engine's zero time is ours."""
    return max(0.0, datetime.fromisoformat(text).timestamp())


def programs(details: Mapping[str, Any]) -> list[str]:
    """Where in an inspected container its program may lie: one path, or one for each folder of PATH."""
    program = details["Path"]
    folder = PurePosixPath(details["Config"]["WorkingDir"] or "/")
    if "/" in program:
        return [str(folder / program)]
    path = image_environment(details).get("PATH", "")
    return [str(folder / entry / program) for entry in path.split(":") if entry]
