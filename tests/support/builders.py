"""Builds small values of the domain, with defaults for everything that a test does not need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controller.domain.apps.component_rollout import GATEWAY_MARGIN
from controller.domain.apps.desired import DesiredApp, DesiredComponent
from controller.domain.apps.observed import (
    ImageOrigin,
    ImagePin,
    ObservedApp,
    ObservedWorkload,
    WorkloadState,
)
from controller.domain.apps.spec import (
    ExistingImage,
    MLComponentSpec,
    OwnServer,
    PlatformServer,
    Rollout,
    Strategy,
)
from controller.domain.names import AppName, ComponentName, workload_name
from controller.domain.routing.routes import Api, Route
from controller.domain.storage.box import ModelPin, StoredObject
from controller.domain.volumes import StagingArea, Volume
from tests.support.specs import make

APP = AppName("demo")
COMMIT = "c0ffee" + "0" * 34
PORT = 8002


def fingerprint(version: str) -> str:
    """`v1` → `1:v1v1v1v1…`: shown to people as `v1v1v1v1`."""
    return "1:" + (version * 64)[:64]


def model(digest: str = "1", present: bool = False) -> ModelPin:
    """A file of 97.8 MB; `digest` is repeated to its full length."""
    digest = (digest * 64)[:64]
    file = StoredObject("developer/resnet/model.onnx", 97_801_231, "e" * 32, 0.0)
    volume = Volume(StagingArea.MODELS, (digest,))
    return ModelPin("prichal.demo.weights", file.key, digest, volume, present, () if present else (file,))


def spec(name: str = "classify", **changes: object) -> MLComponentSpec:
    made = make(
        MLComponentSpec, ComponentName(name), ExistingImage("demo:1"), make(PlatformServer, "app:predict")
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def component(
    name: str = "classify",
    version: str = "v1",
    *,
    replicas: int = 1,
    recreate: bool = False,
    present: bool = True,
    apis: Iterable[str] = (),
    **changes: object,
) -> DesiredComponent:
    strategy = Strategy.RECREATE if recreate else Strategy.BLUE_GREEN
    made = DesiredComponent(
        spec=spec(name, replicas=replicas, rollout=make(Rollout, strategy)),
        pin=ImagePin(f"demo@sha256:{version}", ImageOrigin.REGISTRY, present),
        fingerprints=(fingerprint(version),),
        apis=tuple(Api(path, ComponentName(f"{path}-api"), published=True) for path in sorted(apis)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def desired(*components: DesiredComponent, **changes: object) -> DesiredApp:
    made = replace(DesiredApp(APP, COMMIT, components), **changes)  # type: ignore[arg-type]
    holders: list[tuple[str, ComponentName | None]] = [
        (a.path, c.spec.name) for c in components for a in c.apis
    ]
    holders += [(service.api.path, None) for service in made.services]
    return made if made.holders else replace(made, holders=tuple(holders))


def workload(
    name: str = "classify",
    version: str = "v1",
    replica: int = 0,
    state: WorkloadState = WorkloadState.RUNNING,
    **changes: object,
) -> ObservedWorkload:
    """Its address follows from its name, so that two snapshots agree about it."""
    called = workload_name("prichal", APP, ComponentName(name), fingerprint(version), replica)
    made = ObservedWorkload(
        id=f"id-{called}",
        name=called,
        component=ComponentName(name),
        fingerprint=fingerprint(version),
        revision=COMMIT,
        replica=replica,
        port=PORT,
        state=state,
        address=f"ip-{name}-{version}-{replica}" if state is WorkloadState.RUNNING else None,
        exit_code=1 if state is WorkloadState.STOPPED else None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def observed(*workloads: ObservedWorkload, network: bool = True) -> ObservedApp:
    return ObservedApp(APP, tuple(sorted(workloads, key=lambda w: w.name)), network)


def route(to: DesiredComponent, *workloads: ObservedWorkload, **changes: object) -> Route:
    """The route of `to`'s component to these workloads, with its limits and APIs."""
    first = workloads[0].fingerprint if workloads else to.fingerprint
    made = Route(
        app=APP,
        component=to.spec.name,
        fingerprint=first,
        revision=COMMIT,
        upstreams=tuple(w.endpoint for w in workloads if w.endpoint),
        apis=to.apis,
        timeout=to.spec.server.timeout + GATEWAY_MARGIN,
        any_path=isinstance(to.spec.server, OwnServer),
        patience=to.spec.patience,
        idempotent=to.spec.idempotent,
        ready_path=to.spec.server.ready_path,
        async_timeout=to.spec.async_timeout,
        webhook=to.spec.webhook,
        concurrency=1 if isinstance(to.spec.server, OwnServer) else to.spec.server.concurrency,
    )
    return replace(made, **changes)  # type: ignore[arg-type]
