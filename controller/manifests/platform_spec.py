"""The specification of the platform, from manifests that are valid."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.config import DefaultLimits
from controller.domain.apps.branch_previews import part_of
from controller.domain.apps.deploy_gate import DeployRules, DeployWindow
from controller.domain.apps.spec import (
    CommitStatusSpec,
    ComponentKind,
    GitRef,
    GivenSecrets,
    HookProvider,
    Limits,
    PlatformAppSpec,
    PlatformSpec,
    PreviewRules,
    RefKind,
    Registry,
    RepositorySpec,
    StatusProvider,
)
from controller.domain.names import AppName, RepositoryName
from controller.domain.units import parse_duration, parse_size
from controller.manifests import components
from controller.manifests.components import spec_of
from controller.manifests.platform_documents import LoadedPlatform
from controller.manifests.reader import ManifestDocument


def build_spec(platform: LoadedPlatform, warnings: tuple[str, ...], limits: DefaultLimits) -> PlatformSpec:
    repositories = [repository(document) for document in platform.of(ComponentKind.REPOSITORY)]
    apps = [app(document, limits) for document in platform.of(ComponentKind.PLATFORM_APP)]
    secrets = [secret for secret in platform.secrets.values() if secret]
    notifications = [components.notification(d) for d in platform.of(ComponentKind.NOTIFICATION)]
    return PlatformSpec(
        repositories=tuple(sorted(repositories, key=lambda r: r.name)),
        apps=tuple(sorted(apps, key=lambda a: a.name)),
        secrets=tuple(sorted(secrets, key=lambda s: (s.app or "", s.name))),
        notifications=tuple(sorted(notifications, key=lambda n: n.name)),
        warnings=warnings,
    )


def repository(document: ManifestDocument) -> RepositorySpec:
    spec = spec_of(document)
    ((kind, value),) = spec["ref"].items()
    webhook = spec.get("webhook")
    return RepositorySpec(
        name=RepositoryName(document.name),
        url=spec["url"],
        ref=GitRef(RefKind(kind), value),
        interval=parse_duration(spec["interval"]),
        credentials=spec.get("credentials"),
        hook_provider=HookProvider(webhook["provider"]) if webhook else None,
        hook_secret=webhook["secret"] if webhook else None,
        signers=spec["verify"]["signers"] if "verify" in spec else None,
        commit_status=status_spec(spec),
    )


def status_spec(spec: Mapping[str, Any]) -> CommitStatusSpec | None:
    raw = spec.get("commitStatus")
    if raw is None:
        return None
    return CommitStatusSpec(StatusProvider(raw["provider"]), raw["credentials"], raw.get("url", ""))


def app(document: ManifestDocument, defaults: DefaultLimits) -> PlatformAppSpec:
    spec = spec_of(document)
    limits = _share(defaults.of_app(_limits(spec.get("limits", {}))), spec.get("owner", ""))
    return PlatformAppSpec(
        name=AppName(document.name),
        repository=RepositoryName(spec["repository"]),
        path=posixpath.normpath(spec["path"]),
        prune=spec["prune"],
        suspend=spec["suspend"],
        deploy=_deploy(spec["deploy"]),
        depends_on=tuple(AppName(name) for name in spec.get("dependsOn", [])),
        limits=limits,
        owner=spec.get("owner", ""),
        registries=tuple(_registry(raw) for raw in spec.get("registries", [])),
        package_registries=tuple(_registry(raw) for raw in spec.get("packageRegistries", [])),
        previews=_previews(spec["previews"], limits) if "previews" in spec else None,
    )


def _previews(raw: Mapping[str, Any], share: Limits) -> PreviewRules:
    branches, secrets, most = raw["branches"], raw["secrets"], int(raw["max"])
    given = {name: n for name, n in vars(_limits(raw.get("limits", {}))).items() if n is not None}
    return PreviewRules(
        branches=(branches,) if isinstance(branches, str) else tuple(branches),
        ttl=parse_duration(raw["ttl"]),
        most=most,
        limits=replace(part_of(share, most), **given),
        pull_requests="pullRequests" in raw,
        forks=raw.get("pullRequests") == "forks",
        copies_boxes=raw["boxes"] == "copy",
        secrets=GivenSecrets(
            all=secrets == "inherit", names=frozenset(() if secrets in ("none", "inherit") else secrets)
        ),
    )


def _deploy(raw: Mapping[str, Any]) -> DeployRules:
    windows = tuple(
        DeployWindow(each["cron"], each["timezone"], parse_duration(each["duration"]))
        for each in raw.get("windows", [])
    )
    return DeployRules(frozen=raw["frozen"], approval=raw["approval"] == "required", windows=windows)


def _limits(raw: Mapping[str, Any]) -> Limits:
    return Limits(
        cpus=float(raw["cpus"]) if "cpus" in raw else None,
        memory=parse_size(raw["memory"]) if "memory" in raw else None,
        storage=parse_size(raw["storage"]) if "storage" in raw else None,
        containers=int(raw["containers"]) if "containers" in raw else None,
        gpus=int(raw["gpus"]) if "gpus" in raw else None,
    )


def _share(limits: Limits, owner: str) -> Limits:
    """What counts against a quota has a bound; nobody is given GPUs by leaving them out."""
    return replace(limits, gpus=0) if owner and limits.gpus is None else limits


def _registry(raw: Mapping[str, Any]) -> Registry:
    return Registry(raw["name"], re.sub(r"/$", "", raw["url"]), raw.get("credentials"))
