"""A job as a Docker container, and what Docker reports of one, with our types. Pure: no call is made here.

Called by `jobs`. Limits and hardening are those of `mapping`: a job has no more rights than a workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from controller.adapters.docker.mapping import (
    RestartPolicy,
    hardening,
    image_environment,
    number_of,
    threads,
    visible_gpus,
    with_read_only_root,
)
from controller.domain import labels
from controller.domain.apps.spec import ComponentKind
from controller.domain.names import AppName, network_name
from controller.ports import Job, JobMount, JobState, ObservedJob

JOBS = f"{labels.KIND}={ComponentKind.EXPERIMENT_PIPELINE}"

#: If a container writes faster than its log is read, it is stopped once buffers of the engine and of a socket
#: are full: 2.2 MB. In the worst case, empty lines, the log has 71 bytes per line, and so much must be kept.
LOG_FILES = 18

_STATES = {"created": JobState.CREATED, "exited": JobState.ENDED, "dead": JobState.ENDED}


# --- ours to Docker's -------------------------------------------------------------------------------------------


def job_config(
    job: Job, policy: RestartPolicy, image_env: Mapping[str, str], sources: Sequence[Path] = ()
) -> dict[str, Any]:
    """Return the body of `POST /containers/create`. `job.command` replaces ENTRYPOINT and CMD together;
    `image_env` is the environment in the image's config; `sources` are the host's paths of `job.mounts`.
    """
    # Only the GPUs that it was lent: `resources` has just their number.
    resources = replace(job.resources, gpus=0)
    host = hardening(job.app, resources, policy, job.gpus) | {
        "Mounts": [_mount(mount, source) for mount, source in zip(job.mounts, sources, strict=True)],
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(policy.log_max_size), "max-file": str(LOG_FILES)},
        },
    }
    if job.read_only_root:
        host = with_read_only_root(host)
    env = {name: value.reveal() for name, value in job.env}
    env |= threads(job.resources.cpus, env.keys() | image_env.keys())
    env |= visible_gpus(job.gpus, resources, env.keys() | image_env.keys())
    config: dict[str, Any] = {
        "Image": job.image,
        "Hostname": job.stage,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": job_labels(policy.instance, job),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {network_name(policy.instance, job.app): {}}},
    }
    if job.command:
        config |= {"Entrypoint": list(job.command), "Cmd": []}
    return config


def _mount(mount: JobMount, source: Path) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
    }


def job_labels(instance: str, job: Job) -> dict[str, str]:
    return labels.of_job(instance, job.app, job.run, job.stage, job.attempt)


# --- Docker's to ours -------------------------------------------------------------------------------------------


def is_job(instance: str, details: Mapping[str, Any]) -> bool:
    """Return whether a container is ours, also by its name, since an image may have any labels."""
    found = details["Config"]["Labels"] or {}
    if not details["Name"].startswith(f"/{instance}.{found.get(labels.APP, '')}."):
        return False
    return (found.get(labels.INSTANCE), found.get(labels.KIND)) == (
        instance,
        ComponentKind.EXPERIMENT_PIPELINE,
    )


def is_attempt(instance: str, job: Job, details: Mapping[str, Any]) -> bool:
    """Return whether a container is exactly this attempt."""
    return job_labels(instance, job).items() <= (details["Config"]["Labels"] or {}).items()


def is_going(details: Mapping[str, Any]) -> bool:
    """Return whether a container is being removed, so that its end is not a result."""
    return bool(details["State"]["Status"] == "removing")


def observed_job(details: Mapping[str, Any]) -> ObservedJob:
    """Parse `GET /containers/<id>/json` of a job. Paused and restarting ones have not ended."""
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


_RESTORED = 10.0  # seconds that a starting engine may need to see what has died with the previous one


def may_be_interrupted(job: ObservedJob) -> bool:
    """Return whether the start of the engine matters. An engine that stops sends SIGTERM, after which
    commands end with any code: all but success is attributed to it.
    """
    return job.exit_code not in (None, 0) and not job.oom_killed


def interrupted(job: ObservedJob, engine_since: float) -> bool:
    """Return whether the job has ended with an earlier engine."""
    return job.started < engine_since and job.ended < engine_since + _RESTORED


def engine_since(networks: Iterable[Mapping[str, Any]]) -> float | None:
    """Return when the engine was started, in Unix seconds: it creates the network `bridge` again each time,
    unless containers survive its restart, which then interrupts none. None without such a network.
    """
    found = (network["Created"] for network in networks if network["Name"] == "bridge")
    return next((_unix(created) for created in found), None)


def _unix(text: str) -> float:
    """Parse a time in RFC 3339, UTC; the engine's zero time becomes ours."""
    return max(0.0, datetime.fromisoformat(text).timestamp())


def programs(details: Mapping[str, Any]) -> list[str]:
    """Return where the program of a container may be: one path, or one for each folder of PATH."""
    program = details["Path"]
    folder = PurePosixPath(details["Config"]["WorkingDir"] or "/")
    if "/" in program:
        return [str(folder / program)]
    path = image_environment(details).get("PATH", "")
    return [str(folder / entry / program) for entry in path.split(":") if entry]
