"""A workload as a Docker container, and what Docker reports, with our types. Pure: no call is made here.

The reasons for the hardening are in docs/adr/ and, for module authors, in docs/reference/containers.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from controller.adapters.docker.serving import MOUNT
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import Workload
from controller.domain.apps.environment import VISIBLE_GPUS
from controller.domain.apps.mounts import OURS
from controller.domain.apps.observed import LoggedContainer, ObservedWorkload, ScratchUse, WorkloadState
from controller.domain.apps.spec import Batching, ComponentKind, PlatformServer, Resources
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.runs.gpus import Lease
from controller.ports import EngineEvent

#: Where a container finds its model, under the model's own name.
MODEL_MOUNT = f"{OURS}/model"
#: In the container's PYTHONPATH.
LIBRARY = str(PurePosixPath(MOUNT).parent)
LOG_FILES = 3
#: Where containers write that cannot write to their root file system.
SCRATCH = "/tmp"  # noqa: S108 - the container's

#: Events of containers that can mean drift. `kill` is not among them: it also reports harmless signals, and a
#: deadly one is followed by `die`.
EVENTS = ("die", "oom", "stop", "pause", "destroy")
#: The event of a network that a container was taken off, by hand or because it ended.
DISCONNECT = "disconnect"

_STATES = {"created": WorkloadState.CREATED, "running": WorkloadState.RUNNING}


@dataclass(frozen=True)
class RestartPolicy:
    """What the operator decides about every container of this instance. Sizes are in bytes."""

    instance: str
    capabilities: tuple[str, ...] = ()
    log_max_size: int = 10 * 2**20
    max_body: int = 16 * 2**20
    init: bool = True
    files_root: str | None = None  # a folder in the container instead of boxes, without the platform


@dataclass(frozen=True)
class Binds:
    """Folders of the host that a container sees: the serving library, None for an own server, and its model."""

    library: Path | None = None
    model: Path | None = None


def policy_of(
    settings: DockerSettings,
    instance: str,
    has_init: bool,
    max_body: int = RestartPolicy.max_body,
    files_root: str | None = None,
) -> RestartPolicy:
    return RestartPolicy(
        instance=instance,
        capabilities=settings.capabilities,
        log_max_size=settings.log_max_size,
        max_body=max_body,
        init=has_init,
        files_root=files_root,
    )


# --- ours to Docker's -------------------------------------------------------------------------------------------


def container_config(
    workload: Workload,
    policy: RestartPolicy,
    binds: Binds,
    image_env: Mapping[str, str],
    writes: bool = False,
) -> dict[str, Any]:
    """Return the body of `POST /containers/create`. `image_env` is the environment in the image's config; `writes`
    means that it does not start if it cannot write, if the manifest says nothing about that.
    """
    network = network_name(policy.instance, workload.app)
    config: dict[str, Any] = {
        "Image": workload.image,
        "Hostname": workload.component,
        "Env": [f"{name}={value}" for name, value in environment(workload, policy, image_env).items()],
        "Labels": labels.of_workload(policy.instance, workload) | _root_label(workload, writes),
        "HostConfig": host_config(workload, policy, binds, writes),
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


def _root_label(workload: Workload, writes: bool) -> dict[str, str]:
    if workload.spec.read_only_root is not None:
        return {}
    return {labels.ROOT: "writable" if writes else "read-only"}


def host_config(workload: Workload, policy: RestartPolicy, binds: Binds, writes: bool) -> dict[str, Any]:
    config = hardening(workload.app, workload.spec.resources, policy, workload.gpus)
    if mounts := _mounts(binds):
        config["Mounts"] = mounts
    asked = workload.spec.read_only_root
    return with_read_only_root(config) if asked or (asked is None and not writes) else config


def with_read_only_root(config: dict[str, Any]) -> dict[str, Any]:
    """Make the root file system read-only. Temporary files go to a volume that is removed with the container:
    in memory they would count as such.
    """
    mounts = config.get("Mounts", [])
    if all(mount["Target"] != SCRATCH for mount in mounts):
        mounts = [*mounts, {"Type": "volume", "Target": SCRATCH}]
    return config | {"ReadonlyRootfs": True, "Mounts": mounts}


def hardening(
    app: AppName, resources: Resources, policy: RestartPolicy, gpus: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the limits and restrictions of every container. The restart policy is `no`, since the controller
    restarts containers with a backoff and a limit. `gpus` are those that were lent to it; without any, Docker
    chooses the given number.
    """
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
        # Processes share tensors there, and Docker's default of 64 MB causes SIGBUS; its content counts as
        # memory.
        "ShmSize": resources.memory if resources.shm is None else resources.shm,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(policy.log_max_size), "max-file": str(LOG_FILES)},
        },
    }
    if gpus:
        config["DeviceRequests"] = [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
    elif resources.gpus:
        config["DeviceRequests"] = [{"Count": resources.gpus, "Capabilities": [["gpu"]]}]
    return config


def _mounts(binds: Binds) -> list[dict[str, Any]]:
    """Return the folders of the host, which are mounted read-only."""
    return [
        {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
        for source, target in ((binds.library, MOUNT), (binds.model, MODEL_MOUNT))
        if source
    ]


def model_path(workload: Workload) -> str | None:
    """Return the path of the model's file or folder in the container."""
    return f"{MODEL_MOUNT}/{workload.model.name}" if workload.model else None


def environment(workload: Workload, policy: RestartPolicy, image_env: Mapping[str, str]) -> dict[str, str]:
    """Return the module's variables, and those of the platform, which take precedence: a module cannot
    impersonate another.
    """
    spec = workload.spec
    env = {name: value.reveal() for name, value in workload.env}
    env |= {"UNIP_APP": workload.app, "UNIP_COMPONENT": workload.component, "UNIP_PORT": str(spec.port)}
    if path := model_path(workload):
        env["UNIP_MODEL_PATH"] = path
    env |= threads(spec.resources.cpus, env.keys() | image_env.keys())
    env |= visible_gpus(workload.gpus, spec.resources, env.keys() | image_env.keys())
    if not isinstance(spec.server, PlatformServer):
        return env
    python_path = env.get("PYTHONPATH", image_env.get("PYTHONPATH", ""))
    env["PYTHONPATH"] = f"{LIBRARY}:{python_path}" if python_path else LIBRARY
    if "PYTHONUNBUFFERED" not in image_env:
        env.setdefault("PYTHONUNBUFFERED", "1")  # else the last lines before a crash are lost
    env["PRICHAL_SERVING"] = json.dumps(serving_settings(workload, spec.server, policy), sort_keys=True)
    return env


#: If a container has one of these, NVIDIA's runtime may give it GPUs where it is the engine's default.
_GETS_GPUS = frozenset({VISIBLE_GPUS, "CUDA_VERSION"})


def visible_gpus(gpus: Collection[str], resources: Resources, known: Collection[str]) -> dict[str, str]:
    """Return the variable by which NVIDIA's runtime chooses the GPUs of a container, `known` are the others. Manifests
    and images set it, too, those of NVIDIA to `all`: nothing but what a container was lent may get into it. Where
    Docker chooses the GPUs, it sets the variable itself.
    """
    if gpus:
        return {VISIBLE_GPUS: ",".join(gpus)}
    return {VISIBLE_GPUS: "void"} if not resources.gpus and _GETS_GPUS.intersection(known) else {}


#: The number of threads that numeric libraries start; each of them would otherwise start one per CPU of the
#: host.
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
#: Those that use OMP_NUM_THREADS unless their own variable is set.
THREADS_OF_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def threads(cpus: float, known: Collection[str]) -> dict[str, str]:
    """Return variables that limit threads to the CPUs of a container, without the `known` ones of manifest or
    image.
    """
    names = THREADS if "OMP_NUM_THREADS" in known else (*THREADS, *THREADS_OF_OPENMP)
    return {name: str(max(1, int(cpus))) for name in names if name not in known}


def serving_settings(workload: Workload, server: PlatformServer, policy: RestartPolicy) -> dict[str, object]:
    """Return the variable PRICHAL_SERVING, which `controller.serving.config` reads. `pass_user` is always on:
    the gateway removes what a client claims about itself, and sends the caller's name only if the API asks
    for it.
    """
    spec = workload.spec
    files = {"files_root": policy.files_root} if policy.files_root else {}
    return files | {
        "app": workload.app,
        "component": workload.component,
        "inference": server.inference,
        "loader": server.loader,
        "openai": server.openai,
        "model_path": model_path(workload),
        "port": spec.port,
        "concurrency": server.concurrency,
        "queue": server.queue,
        "processes": server.processes,
        "preload": server.preload,
        "timeout": server.timeout,
        "setup_timeout": spec.setup_timeout,
        "max_body": policy.max_body,
        "pass_user": True,
        "boxes": bool(spec.boxes),
        **_batch_settings(server.batch),
    }


def _batch_settings(batch: Batching | None) -> dict[str, object]:
    if batch is None:
        return {}
    return {
        "batch_size": batch.max_size,
        "batch_delay": batch.max_delay,
        "batch_queue": batch.max_queued,
        "batch_concurrency": batch.concurrency,
    }


def same_workload(instance: str, workload: Workload, found: Mapping[str, str]) -> bool:
    """Return whether a container with the labels `found` is exactly this workload. The revision may differ: a
    commit that changes nothing about a component restarts nothing.
    """
    wanted = labels.of_workload(instance, workload)
    keys = (labels.INSTANCE, labels.APP, labels.COMPONENT, labels.FINGERPRINT, labels.REPLICA)
    return all(found.get(key) == wanted[key] for key in keys)


# --- Docker's to ours -------------------------------------------------------------------------------------------


def state_of(summary: Mapping[str, Any]) -> WorkloadState:
    """Return the state. Paused, restarting, removing, exited and dead containers do not answer."""
    return _STATES.get(summary["State"], WorkloadState.STOPPED)


def has_our_name(summary: Mapping[str, Any], instance: str, app: AppName) -> bool:
    """Return whether an entry of `GET /containers/json` has a name of ours. Labels do not suffice: a
    container has those of its image, which its developer sets.
    """
    return any(name.startswith(f"/{instance}.{app}.") for name in summary["Names"] or ())


def scratch_use(summary: Mapping[str, Any], size: int) -> ScratchUse:
    """Map an entry of `GET /containers/json` that has our labels."""
    found = summary["Labels"]
    return ScratchUse(
        AppName(found[labels.APP]),
        ComponentName(found[labels.COMPONENT]),
        summary["Id"],
        summary["Names"][0].lstrip("/"),
        size,
    )


def is_about_ours(event: Mapping[str, Any], instance: str) -> bool:
    """Return the same for an entry of `GET /events` about a container of a component."""
    found = event["Actor"]["Attributes"]
    owned = found.get(labels.INSTANCE) == instance and found.get(labels.KIND) == ComponentKind.ML_COMPONENT
    return owned and str(found.get("name", "")).startswith(f"{instance}.{found.get(labels.APP, '')}.")


def logged_container(summary: Mapping[str, Any]) -> LoggedContainer:
    found = summary["Labels"]
    return LoggedContainer(
        summary["Id"],
        AppName(found[labels.APP]),
        ComponentName(found.get(labels.COMPONENT, "")),
        float(summary["Created"]),
    )


def observed_workload(
    summary: Mapping[str, Any], network: str, details: Mapping[str, Any] | None
) -> ObservedWorkload:
    """Parse an entry of `GET /containers/json`; `details` is the `State` of `GET /containers/<id>/json` for a
    stopped container, whose exit code the list has only as prose.
    """
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
        gpus=labels.gpus(found),
        gpu_share=labels.gpu_share(found),
        root=found.get(labels.ROOT, ""),
    )


def lease(summary: Mapping[str, Any]) -> Lease:
    """Parse the GPUs of an entry of `GET /containers/json` that has our name and labels."""
    found = summary["Labels"]
    app, component = AppName(found[labels.APP]), ComponentName(found.get(labels.COMPONENT, ""))
    name = summary["Names"][0].lstrip("/")
    return Lease(name, app, component, labels.gpus(found), labels.gpu_share(found))


def image_environment(image: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment in the config of an inspected image."""
    pairs = (entry.partition("=") for entry in (image.get("Config") or {}).get("Env") or ())
    return {name: value for name, _, value in pairs}


def engine_event(raw: Mapping[str, Any]) -> EngineEvent:
    """Parse an entry of `GET /events`; containers' labels come as its attributes."""
    actor = raw["Actor"]
    return EngineEvent(
        app=AppName(actor["Attributes"].get(labels.APP, "")),
        component=ComponentName(actor["Attributes"].get(labels.COMPONENT, "")),
        action=raw["Action"],
        workload_id=actor["ID"],
        at=raw["timeNano"] / 1e9,
    )


def number_of(text: str | None) -> int:
    """Return a number, 0 for a label that was tampered with: it must not stop the snapshot, and is replaced
    as drift.
    """
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else 0
