"""What a workload is as a Docker container, and what Docker's answers are as ours. Pure: no call is made here.

The reasons for the hardening are in docs/adr/ and, for module authors, in docs/reference/containers.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from controller.adapters.docker.serving import MOUNT
from controller.domain import labels
from controller.domain.desired import Workload
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.observed import ObservedWorkload, WorkloadState
from controller.domain.spec import Kind, PlatformServer, Resources
from controller.ports import EngineEvent

#: Where a container finds its model, under the model's own name.
MODEL_MOUNT = "/opt/prichal/model"
#: In the container's PYTHONPATH.
LIBRARY = str(PurePosixPath(MOUNT).parent)
LOG_FILES = 3

#: Events that can mean drift. `kill` is not among them: it also tells of harmless signals, and a deadly one is
#: followed by `die`.
EVENTS = ("die", "oom", "stop", "pause", "destroy")

_STATES = {"created": WorkloadState.CREATED, "running": WorkloadState.RUNNING}


@dataclass(frozen=True)
class Policy:
    """What the operator decides about every container of this instance. Sizes in bytes."""

    instance: str
    capabilities: tuple[str, ...] = ()
    log_max_size: int = 10 * 2**20
    max_body: int = 16 * 2**20
    init: bool = True


# --- ours to Docker's -------------------------------------------------------------------------------------------


def container_config(
    workload: Workload, policy: Policy, library: str | None, image_env: Mapping[str, str]
) -> dict[str, Any]:
    """Body of `POST /containers/create`. `library` is the host's folder with the serving library, None for an own
    server; `image_env` the environment in the image's config."""
    network = network_name(policy.instance, workload.app)
    config: dict[str, Any] = {
        "Image": workload.image,
        "Hostname": workload.component,
        "Env": [f"{name}={value}" for name, value in environment(workload, policy, image_env).items()],
        "Labels": workload_labels(policy.instance, workload),
        "HostConfig": host_config(workload, policy, library),
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
    if isinstance(workload.spec.server, PlatformServer):
        config |= {
            "Entrypoint": ["python3", "-m", "prichal_serving"],
            "Cmd": [],
            "StopSignal": "SIGTERM",  # an image's own STOPSIGNAL was meant for the command that is not run
            "Healthcheck": {"Test": ["NONE"]},
        }
    return config


def host_config(workload: Workload, policy: Policy, library: str | None) -> dict[str, Any]:
    config = hardening(workload.app, workload.spec.resources, policy)
    if mounts := _mounts(workload, library):
        config["Mounts"] = mounts
    return config


def hardening(app: AppName, resources: Resources, policy: Policy) -> dict[str, Any]:
    """Limits of every container, and what it may not do. The restart policy is `no` since the controller heals, with a
    backoff and a cap."""
    config: dict[str, Any] = {
        "NetworkMode": network_name(policy.instance, app),
        "RestartPolicy": {"Name": "no"},
        "Init": policy.init,
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": list(policy.capabilities),
        "PidsLimit": resources.pids,
        "NanoCpus": round(resources.cpus * 10**9),
        "Memory": resources.memory,
        "MemorySwap": resources.memory,  # memory and swap together: no swap, a leak ends in OOM and not in a slow host
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(policy.log_max_size), "max-file": str(LOG_FILES)},
        },
    }
    if resources.gpus:
        config["DeviceRequests"] = [{"Count": resources.gpus, "Capabilities": [["gpu"]]}]
    return config


def _mounts(workload: Workload, library: str | None) -> list[dict[str, Any]]:
    """Folders of the host, all of them read-only."""
    folders = [(library, MOUNT)] if library else []
    if workload.model:
        folders.append((str(workload.model.folder), MODEL_MOUNT))
    return [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True} for source, target in folders
    ]


def model_path(workload: Workload) -> str | None:
    """The model's file or folder, as the container sees it."""
    return f"{MODEL_MOUNT}/{workload.model.name}" if workload.model else None


def environment(workload: Workload, policy: Policy, image_env: Mapping[str, str]) -> dict[str, str]:
    """The module's variables, then the platform's, which win: a module cannot pass itself off as another."""
    spec = workload.spec
    env = {name: value.reveal() for name, value in workload.env}
    env |= {"UNIP_APP": workload.app, "UNIP_COMPONENT": workload.component, "UNIP_PORT": str(spec.port)}
    if path := model_path(workload):
        env["UNIP_MODEL_PATH"] = path
    if not isinstance(spec.server, PlatformServer):
        return env
    python_path = env.get("PYTHONPATH", image_env.get("PYTHONPATH", ""))
    env["PYTHONPATH"] = f"{LIBRARY}:{python_path}" if python_path else LIBRARY
    if "PYTHONUNBUFFERED" not in image_env:
        env.setdefault("PYTHONUNBUFFERED", "1")  # else the last lines before a crash are lost
    env["PRICHAL_SERVING"] = json.dumps(serving_settings(workload, spec.server, policy), sort_keys=True)
    return env


def serving_settings(workload: Workload, server: PlatformServer, policy: Policy) -> dict[str, object]:
    """The variable PRICHAL_SERVING; read by `controller.serving.config`. `pass_user` is always on: the gateway drops
    what a client claims about itself, and sends the caller's name only where the API asks for it."""
    spec = workload.spec
    return {
        "app": workload.app,
        "component": workload.component,
        "inference": server.inference,
        "loader": server.loader,
        "model_path": model_path(workload),
        "port": spec.port,
        "concurrency": server.concurrency,
        "queue": server.queue,
        "timeout": server.timeout,
        "setup_timeout": spec.setup_timeout,
        "max_body": policy.max_body,
        "pass_user": True,
    }


def workload_labels(instance: str, workload: Workload) -> dict[str, str]:
    return {
        labels.INSTANCE: instance,
        labels.APP: workload.app,
        labels.COMPONENT: workload.component,
        labels.KIND: Kind.ML_COMPONENT,
        labels.FINGERPRINT: workload.fingerprint,
        labels.REVISION: workload.revision,
        labels.REPLICA: str(workload.replica),
        labels.PORT: str(workload.spec.port),
    }


def network_labels(instance: str, app: AppName) -> dict[str, str]:
    return {labels.INSTANCE: instance, labels.APP: app}


def same_workload(instance: str, workload: Workload, found: Mapping[str, str]) -> bool:
    """Whether a container with the labels `found` is this very workload. The revision may differ: a commit that
    changes nothing about a component restarts nothing."""
    wanted = workload_labels(instance, workload)
    keys = (labels.INSTANCE, labels.APP, labels.COMPONENT, labels.FINGERPRINT, labels.REPLICA)
    return all(found.get(key) == wanted[key] for key in keys)


# --- Docker's to ours -------------------------------------------------------------------------------------------


def state_of(summary: Mapping[str, Any]) -> WorkloadState:
    """Paused, restarting, removing, exited, dead: none of them answers."""
    return _STATES.get(summary["State"], WorkloadState.STOPPED)


def observed_workload(
    summary: Mapping[str, Any], network: str, details: Mapping[str, Any] | None
) -> ObservedWorkload:
    """One entry of `GET /containers/json`; `details` is the `State` of `GET /containers/<id>/json` for what has
    stopped, whose exit code the list has only as prose."""
    found = summary["Labels"]
    state = state_of(summary)
    endpoint = summary["NetworkSettings"]["Networks"].get(network) or {}
    return ObservedWorkload(
        id=summary["Id"],
        name=summary["Names"][0].lstrip("/") if summary["Names"] else summary["Id"][:12],
        component=ComponentName(found.get(labels.COMPONENT, "")),
        fingerprint=found.get(labels.FINGERPRINT, ""),
        revision=found.get(labels.REVISION, ""),
        replica=number_of(found.get(labels.REPLICA)),
        port=number_of(found.get(labels.PORT)),
        state=state,
        address=(endpoint.get("IPAddress") or None) if state is WorkloadState.RUNNING else None,
        created=float(summary["Created"]),
        exit_code=details["ExitCode"] if details else None,
        oom_killed=bool(details and details["OOMKilled"]),
    )


def image_environment(image: Mapping[str, Any]) -> dict[str, str]:
    """Environment in the config of an inspected image."""
    pairs = (entry.partition("=") for entry in (image.get("Config") or {}).get("Env") or ())
    return {name: value for name, _, value in pairs}


def engine_event(raw: Mapping[str, Any]) -> EngineEvent:
    """One entry of `GET /events`; containers' labels come as its attributes."""
    actor = raw["Actor"]
    return EngineEvent(
        app=AppName(actor["Attributes"].get(labels.APP, "")),
        component=ComponentName(actor["Attributes"].get(labels.COMPONENT, "")),
        action=raw["Action"],
        workload_id=actor["ID"],
        at=raw["timeNano"] / 1e9,
    )


def number_of(text: str | None) -> int:
    """Labels that were tampered with must not stop the snapshot: what they name is replaced as drift."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else 0
