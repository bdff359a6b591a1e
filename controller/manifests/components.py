"""Builds the values that the rest of the controller uses from documents: with defaults and units resolved.

Pure, and only called with documents that passed their schema and all checks, and have its defaults
(`schema.with_defaults`); nothing is judged here.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping
from typing import Any

from controller.config import DefaultLimits
from controller.domain.apps.spec import (
    ANY_ORIGIN,
    ApiSpec,
    ApiTarget,
    ApiVariable,
    AuthSpec,
    Batching,
    BoxLink,
    BoxSpec,
    BuildImage,
    BuildSecret,
    CorsSpec,
    CronSchedule,
    EnvVar,
    ExistingImage,
    FilesTarget,
    ImageFollow,
    ImageSource,
    MLComponentSpec,
    MLTarget,
    OidcSpec,
    Overlap,
    OwnServer,
    PipelineSpec,
    PipelinesTarget,
    PipelineTarget,
    PipelineVar,
    PlatformServer,
    Reclaim,
    Resources,
    Retries,
    Rollout,
    SecretSpec,
    SmokeTest,
    StageSpec,
    Strategy,
    TagOrder,
    Webhook,
)
from controller.domain.names import AppName, ComponentName
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.routing.origins import serialized
from controller.domain.secret import Secret, without_line_end
from controller.domain.units import parse_duration, parse_size
from controller.manifests.reader import ManifestDocument

Raw = Mapping[str, Any]


def spec_of(document: ManifestDocument) -> Raw:
    """Return the document's `spec`; empty for Secrets, which have none."""
    return _mapping(document.get("spec"))


def ml_component(document: ManifestDocument, limits: DefaultLimits) -> MLComponentSpec:
    spec = spec_of(document)
    service = spec["mlService"]
    rollout = spec["rollout"]
    hibernation = spec.get("hibernation")
    return MLComponentSpec(
        name=ComponentName(document.name),
        image=_image(spec["image"]),
        server=_server(service),
        port=int(spec["servicePort"]),
        env=_env(spec),
        env_from=_env_from(spec),
        boxes=_boxes(spec),
        model_box=service.get("modelBox"),
        model_path=service.get("modelPath"),
        follow_model=service["followModel"],
        package_registry=service.get("packageRegistryName"),
        setup_timeout=parse_duration(service["setupTimeout"]),
        async_timeout=parse_duration(service["asyncTimeout"]),
        resources=resources(spec, limits),
        replicas=int(spec["replicas"]),
        rollout=Rollout(
            strategy=Strategy(rollout["strategy"]),
            drain_timeout=parse_duration(rollout["drainTimeout"]),
            watch=parse_duration(rollout["watch"]) if "watch" in rollout else None,
            max_errors=float(rollout["maxErrors"].rstrip("%")) / 100,
        ),
        patience=parse_duration(service["patience"]),
        idempotent=service["idempotent"],
        idle_after=parse_duration(hibernation["idleAfter"]) if hibernation else None,
        smoke_test=smoke_test(service["smokeTest"]) if "smokeTest" in service else None,
        read_only_root=spec.get("readOnlyRootFilesystem"),
        webhook=_webhook(spec["webhook"]) if "webhook" in spec else None,
        depends_on=tuple(map(ComponentName, spec.get("dependsOn", ()))),
    )


def smoke_test(raw: Raw) -> SmokeTest:
    return SmokeTest(
        path=raw["path"],
        input=posixpath.normpath(raw["input"]),
        output=posixpath.normpath(raw["output"]) if "output" in raw else None,
        shape_only=raw["match"] == "shape",
        tolerance=float(raw["tolerance"]),
    )


def _server(service: Raw) -> PlatformServer | OwnServer:
    timeout = parse_duration(service["timeout"])
    if service["server"] == "own":
        return OwnServer(ready_path=service["readyPath"], timeout=timeout)
    return PlatformServer(
        inference=service["inference"],
        loader=service.get("loader"),
        concurrency=int(service["concurrency"]),
        queue=int(service["queue"]),
        timeout=timeout,
        processes=int(service["processes"]),
        preload=service["preload"],
        openai=service.get("openai"),
        batch=_batching(service["batch"]) if "batch" in service else None,
    )


def _batching(raw: Raw) -> Batching:
    return Batching(
        max_size=int(raw["maxSize"]),
        max_delay=parse_duration(raw["maxDelay"]),
        max_queued=int(raw["maxQueued"]),
        concurrency=int(raw["concurrency"]),
    )


def pipeline(document: ManifestDocument, limits: DefaultLimits) -> PipelineSpec:
    spec = spec_of(document)
    return PipelineSpec(
        name=ComponentName(document.name),
        vars=tuple(_variable(var) for var in spec.get("vars", [])),
        stages=tuple(_stage(stage, limits) for stage in spec["stages"]),
        boxes=_boxes(spec),
        continue_with=spec["continueWith"]["pipeline"] if "continueWith" in spec else None,
        schedule=_schedule(spec["schedule"]) if "schedule" in spec else None,
        concurrency=int(spec["concurrency"]),
        ttl_succeeded=parse_duration(spec["ttl"]["succeeded"]),
        ttl_failed=parse_duration(spec["ttl"]["failed"]),
        webhook=_webhook(spec["webhook"]) if "webhook" in spec else None,
    )


def _variable(raw: Raw) -> PipelineVar:
    source, target = raw.get("mountFrom"), raw.get("publishTo")
    return PipelineVar(
        name=raw["name"],
        mount_from=(source["box"], source["path"]) if source else None,
        mount_to=posixpath.normpath(raw["mountTo"]) if "mountTo" in raw else None,
        publish_to=(target["box"], target["path"]) if target else None,
    )


def _stage(raw: Raw, limits: DefaultLimits) -> StageSpec:
    retries = raw["retries"]
    return StageSpec(
        name=raw["name"],
        image=_image(raw["image"]),
        command=tuple(raw.get("command", ())),
        inputs=names(raw.get("inputs", [])),
        outputs=names(raw.get("outputs", [])),
        env=_env(raw),
        env_from=_env_from(raw),
        resources=resources(raw, limits),
        timeout=limits.of_stage(parse_duration(raw["timeout"]) if "timeout" in raw else None),
        read_only_root=raw["readOnlyRootFilesystem"],
        retries=Retries(
            limit=int(retries["limit"]),
            backoff=parse_duration(retries["backoff"]),
            factor=float(retries["factor"]),
            cap=parse_duration(retries["cap"]),
        ),
    )


def _schedule(raw: Raw) -> CronSchedule:
    return CronSchedule(
        cron=" ".join(raw["cron"].split()),
        timezone=raw["timezone"],
        overlap=Overlap(raw["concurrencyPolicy"]),
    )


def _webhook(raw: Raw) -> Webhook:
    return Webhook(raw["secret"], raw.get("url", ""))


def api(document: ManifestDocument) -> ApiSpec:
    spec = spec_of(document)
    restful, described = spec["restfulApi"], spec.get("apiSpec", {})
    return ApiSpec(
        name=ComponentName(document.name),
        target=_target(spec),
        path=api_path(spec),
        published=spec["published"],
        auth=_auth(restful["auth"]),
        cors=_cors(restful["cors"]) if "cors" in restful else None,
        inputs=tuple(_api_variable(raw) for raw in described.get("inputs", [])),
        outputs=tuple(_api_output(raw) for raw in described.get("outputs", [])),
    )


def api_path(spec: Raw) -> str:
    """Return the URL segment, for which two targets have a default."""
    default = next((target for target in ("files", "pipelines") if target in spec), "")
    path: str = spec["restfulApi"].get("path", default)
    return path


def _target(spec: Raw) -> ApiTarget:
    if "mlComponent" in spec:
        return MLTarget(ComponentName(spec["mlComponent"]["name"]))
    if "experimentPipeline" in spec:
        return PipelineTarget(ComponentName(spec["experimentPipeline"]["name"]))
    if "files" in spec:
        return FilesTarget(tuple(sorted(spec["files"].get("developers", ()))))
    return PipelinesTarget()


def _auth(raw: Raw) -> AuthSpec:
    oidc = raw.get("oidc")
    return AuthSpec(
        basic=raw["basic"]["credentials"] if "basic" in raw else None,
        token=raw["token"]["credentials"] if "token" in raw else None,
        oidc=_oidc(oidc) if oidc else None,
        identity_pass_through=raw["identityPassThrough"],
    )


def _oidc(raw: Raw) -> OidcSpec:
    return OidcSpec(
        issuer=raw["issuer"],
        audience=raw["audience"],
        client_id=raw.get("clientId"),
        required_claims=tuple(sorted(raw.get("requiredClaims", {}).items())),
        username_claim=raw.get("usernameClaim", ""),
    )


def _cors(raw: Raw) -> CorsSpec:
    return CorsSpec(
        origins=tuple(
            sorted({origin if origin == ANY_ORIGIN else serialized(origin) for origin in raw["origins"]})
        ),
        credentials=raw["credentials"],
        max_age=parse_duration(raw["maxAge"]),
        expose_headers=tuple(raw.get("exposeHeaders", ())),
    )


def _api_variable(raw: Raw) -> ApiVariable:
    return ApiVariable(
        name=raw["name"],
        description=raw.get("description", ""),
        required=raw["required"],
        datatypes=tuple(raw["type"]["datatypes"]),
    )


def _api_output(raw: Raw) -> ApiVariable:
    """Return an output of a pipeline: all of them are files, and none is left out."""
    return ApiVariable(
        name=raw["name"], description=raw.get("description", ""), required=True, datatypes=("FILE",)
    )


def box(document: ManifestDocument) -> BoxSpec:
    spec = spec_of(document)
    return BoxSpec(
        name=ComponentName(document.name),
        capacity=parse_size(spec["s3DefaultStorage"]["capacity"]),
        reclaim=Reclaim(spec["reclaimPolicy"]),
    )


def notification(document: ManifestDocument) -> NotificationSpec:
    spec = spec_of(document)
    channel = next(each for each in Channel if each in spec)
    receiver = spec[channel]
    return NotificationSpec(
        name=ComponentName(document.name),
        channel=channel,
        secret=receiver.get("secret", ""),
        url=receiver.get("url", ""),
        to=tuple(receiver.get("to", ())),
        severity=Severity(spec["severity"]),
        reasons=tuple(spec.get("reasons", ())),
        except_reasons=tuple(spec.get("exceptReasons", ())),
        apps=tuple(spec.get("apps", ())),
        group_wait=parse_duration(spec["groupWait"]),
        group_interval=parse_duration(spec["groupInterval"]),
        repeat_interval=parse_duration(spec["repeatInterval"]),
        suspended=spec["suspend"],
    )


def secret(
    document: ManifestDocument, app: AppName | None, files: Mapping[str, str] | None = None
) -> SecretSpec:
    """Return the Secret; `files` has the content of the host's files by key. All ways to give a value are treated
    alike."""
    values: dict[str, str] = dict(files or document.contents)
    for key, text in _mapping(document.get("data")).items():
        values[key] = base64.b64decode("".join(text.split())).decode()
    values.update(_mapping(document.get("stringData")))
    sealed = tuple(sorted((key, Secret(without_line_end(value))) for key, value in values.items()))
    return SecretSpec(document.name, sealed, app)


def resources(raw: Raw, limits: DefaultLimits) -> Resources:
    """Return the resources of a container: those of its manifest, else those of the configuration."""
    own = raw["resources"]
    return Resources(
        cpus=float(own.get("cpus", limits.cpus)),
        memory=parse_size(own.get("memory", limits.memory)),
        gpus=int(own["gpus"]),
        pids=int(own.get("pids", limits.pids)),
        shm=parse_size(own["shm"]) if "shm" in own else None,
        gpu_share=own["gpuShare"] if own.get("gpuShare", 0) > 1 else None,
    )


def names(entries: list[Raw]) -> tuple[str, ...]:
    return tuple(entry["name"] for entry in entries)


def _mapping(value: object) -> Raw:
    return value if isinstance(value, dict) else {}


def _image(raw: Raw) -> ImageSource:
    if "existingImageName" in raw:
        return ExistingImage(raw["existingImageName"], _follow(raw["follow"]) if "follow" in raw else None)
    build = raw["build"]
    return BuildImage(
        context=posixpath.normpath(build["context"]),
        dockerfile=posixpath.normpath(build["dockerfile"]),
        target=build.get("target"),
        args=tuple(sorted(build.get("args", {}).items())),
        secrets=tuple(BuildSecret(one["id"], one["secret"], one["key"]) for one in build.get("secrets", [])),
        cache_from=tuple(build.get("cacheFrom", ())),
    )


def _follow(raw: Raw) -> ImageFollow:
    return ImageFollow(
        semver=raw.get("semver", ""),
        pattern=raw.get("pattern", ""),
        order=TagOrder(raw["order"]),
        digest=raw.get("digest", False),
        interval=parse_duration(raw["interval"]),
        write_back=raw["writeBack"],
    )


def _env(raw: Raw) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(entry["name"], entry["value"]) for entry in raw.get("env", []))


def _env_from(raw: Raw) -> tuple[str, ...]:
    return tuple(entry["secretRef"]["name"] for entry in raw.get("envFrom", []))


def _boxes(raw: Raw) -> tuple[BoxLink, ...]:
    return tuple(BoxLink(entry["name"], entry["default"]) for entry in raw.get("connectedBoxes", []))
