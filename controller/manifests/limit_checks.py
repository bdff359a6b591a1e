"""Checks of what an app asks for against the limits of the app and of the platform. They are in the list of all checks
(checks.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.domain.runs.stage_slots import Use, remainder
from controller.domain.units import parse_duration, render_duration, render_size
from controller.manifests.commit import CheckedCommit, containers
from controller.manifests.components import box, resources, spec_of
from controller.manifests.reader import ManifestDocument
from controller.yaml_documents import Path

#: Docker refuses containers with less.
MIN_MEMORY = 6 * 2**20
MIN_SHM = 2**20

T = TypeVar("T", int, float)


def sizes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report containers that ask for more than any container can get."""
    for document in commit.documents:
        for prefix, raw in containers(document):
            wanted = resources(raw, commit.limits)
            if wanted.memory < MIN_MEMORY:
                message = Localizable(
                    "{memory} is too little: at least {min_memory}",
                    memory=render_size(wanted.memory),
                    min_memory=render_size(MIN_MEMORY),
                )
                yield document.problem((*prefix, "resources", "memory"), message)
            if wanted.shm is not None and not MIN_SHM <= wanted.shm <= wanted.memory:
                yield document.problem((*prefix, "resources", "shm"), _unfit_shm(wanted.shm, wanted.memory))
            if raw.get("replicas", 0) > commit.limits.max_replicas:
                message = Localizable(
                    "{raw} is too much: the controller's config allows {max_replicas}",
                    raw=raw["replicas"],
                    max_replicas=commit.limits.max_replicas,
                )
                yield document.problem((*prefix, "replicas"), message)


def _unfit_shm(shm: int, memory: int) -> str:
    if shm < MIN_SHM:
        return Localizable(
            "{shm} is too little: at least {min_shm}", shm=render_size(shm), min_shm=render_size(MIN_SHM)
        )
    return Localizable(
        "{shm} is more than the container's memory ({memory}), against which it counts",
        shm=render_size(shm),
        memory=render_size(memory),
    )


def processes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report components with processes that would never get a call."""
    for document in commit.of(ComponentKind.ML_COMPONENT):
        service = spec_of(document)["mlService"]
        alone = service["server"] == "platform" and "batch" not in service
        if alone and service["processes"] > service["concurrency"]:
            message = Localizable(
                "{service} are more than the calls at once ({service2}), so some would never get "
                "one: raise concurrency to {service} or more",
                service=service["processes"],
                service2=service["concurrency"],
            )
            yield document.problem(("spec", "mlService", "processes"), message)


def batch_delays(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report components whose calls could time out while they wait for others."""
    for document in commit.of(ComponentKind.ML_COMPONENT):
        service = spec_of(document)["mlService"]
        if "batch" in service:
            delay, timeout = map(parse_duration, (service["batch"]["maxDelay"], service["timeout"]))
            if delay >= timeout:
                most = Localizable(
                    "it must be less than the timeout of a call, {timeout}", timeout=render_duration(timeout)
                )
                message = Localizable("{delay} is too long: {most}", delay=render_duration(delay), most=most)
                yield document.problem(("spec", "mlService", "batch", "maxDelay"), message)


def stage_timeouts(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    most = commit.limits.max_stage_timeout
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        for number, stage in enumerate(spec_of(document)["stages"]):
            asked = parse_duration(stage.get("timeout", 0))
            if asked > most:
                allowed = Localizable("the controller's config allows {most}", most=render_duration(most))
                message = Localizable(
                    "{asked} is too long: {allowed}", asked=render_duration(asked), allowed=allowed
                )
                yield document.problem(("spec", "stages", number, "timeout"), message)


def totals(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Compare the sums over all components with the limits of the PlatformApp."""
    limits = commit.app.limits
    workloads = [
        (document, resources(spec_of(document), commit.limits), int(spec_of(document)["replicas"]))
        for document in commit.of(ComponentKind.ML_COMPONENT)
    ]
    cpus = [(document, wanted.cpus * replicas) for document, wanted, replicas in workloads]
    memory = [(document, wanted.memory * replicas) for document, wanted, replicas in workloads]
    containers = [(document, replicas) for document, _, replicas in workloads]
    gpus = [(document, wanted.gpus * replicas) for document, wanted, replicas in workloads]
    storage = [(document, box(document).capacity) for document in commit.of(ComponentKind.DATA_BOX)]
    yield from _over(cpus, limits.cpus, ("spec", "resources", "cpus"), _cpus)
    yield from _over(memory, limits.memory, ("spec", "resources", "memory"), _memory)
    yield from _over(containers, limits.containers, ("spec", "replicas"), _count)
    yield from _over(gpus, limits.gpus, ("spec", "resources", "gpus"), _gpus)
    yield from _over(storage, limits.storage, ("spec", "s3DefaultStorage", "capacity"), _storage)


def _over(
    shares: Sequence[tuple[ManifestDocument, T]], limit: T | None, path: Path, render: Callable[[T], str]
) -> Iterator[ManifestProblem]:
    """Report one problem, where the running sum exceeds the limit; it states the whole sum."""
    if limit is None:
        return
    whole = sum(share for _, share in shares)
    running = 0.0
    for document, share in shares:
        running += share
        if running > limit:
            message = Localizable(
                "all components together ask for {whole}; the limits of the app allow {limit}",
                whole=render(whole),
                limit=render(limit),
            )
            yield document.problem(path, message)
            return


def stage_sizes(commit: CheckedCommit) -> Iterator[ManifestProblem]:
    """Report stages that never fit next to the components: stages wait for each other, but such a stage would wait
    for ever."""
    specs = [spec_of(document) for document in commit.of(ComponentKind.ML_COMPONENT)]
    uses = (Use.of(resources(spec, commit.limits), int(spec["replicas"])) for spec in specs)
    taken, limits = sum(uses, Use()), commit.app.limits
    left = limits if taken.beyond(limits) else remainder(limits, taken)  # else `totals` says it
    for document in commit.of(ComponentKind.EXPERIMENT_PIPELINE):
        for prefix, raw in containers(document):
            wanted = resources(raw, commit.limits)
            for name, asked, allowed, rest, render in (
                ("cpus", wanted.cpus, limits.cpus, left.cpus, _cpus),
                ("memory", wanted.memory, limits.memory, left.memory, _memory),
                ("gpus", wanted.gpus, limits.gpus, left.gpus, _gpus),
            ):
                if rest is not None and asked > rest:
                    yield document.problem(
                        (*prefix, "resources", name), _too_much(render, asked, allowed, rest)
                    )
            if left.containers == 0:
                yield document.problem(prefix, _too_much(_count, 1, limits.containers, 0))


def _too_much(render: Callable[[Any], str], asked: object, allowed: object, rest: object) -> str:
    left = (
        ""
        if allowed == rest
        else Localizable(", and its components leave {rest} for stages", rest=render(rest))
    )
    values = {"asked": render(asked), "allowed": render(allowed), "left": left}
    if render is _cpus:
        return Localizable("{asked} are too much: the limits of the app allow {allowed}{left}", **values)
    return Localizable("{asked} is too much: the limits of the app allow {allowed}{left}", **values)


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number != 1 else ''}"


def _cpus(number: float) -> str:
    return f"{number:g} CPUs"


def _memory(size: int) -> str:
    return Localizable("{size} of memory", size=render_size(size))


def _count(number: int) -> str:
    return f"{number} container{'s' if number != 1 else ''}"


def _storage(size: int) -> str:
    return Localizable("{size} of storage", size=render_size(size))
