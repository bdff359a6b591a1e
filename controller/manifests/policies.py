"""Checks the manifests of a commit against the operator's policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.domain.apps.policies import Policies
from controller.domain.apps.spec import ComponentKind
from controller.domain.errors import ManifestProblem
from controller.domain.localizable import Localizable
from controller.manifests.commit import CheckedCommit, containers
from controller.manifests.reader import ManifestDocument

#: Kinds whose names appear in addresses and in the names of containers.
_NAMED = (
    ComponentKind.ML_COMPONENT,
    ComponentKind.EXPERIMENT_PIPELINE,
    ComponentKind.API_COMPONENT,
    ComponentKind.DATA_BOX,
)


def policy_problems(commit: CheckedCommit, policies: Policies) -> Iterator[ManifestProblem]:
    """Report what a commit must not have on this platform."""
    for document in commit.documents:
        if document.kind in _NAMED and not policies.allows_name(document.name):
            message = Localizable(
                "{document!r} is no name that this platform allows: it must match {names}",
                document=document.name,
                names=policies.names,
            )
            yield document.problem(("metadata", "name"), message)
        for path, raw in containers(document):
            yield from _image(document, (*path, "image"), raw["image"], policies)
            yield from _resources(document, (*path, "resources"), raw.get("resources", {}), policies)


def _image(
    document: ManifestDocument, path: tuple[str | int, ...], image: dict[str, Any], policies: Policies
) -> Iterator[ManifestProblem]:
    reference = image.get("existingImageName")
    if reference is not None and not policies.allows_image(reference):
        message = Localizable(
            "this platform takes no image {reference!r}: it must come from {sources}",
            reference=reference,
            sources=policies.sources,
        )
        yield document.problem((*path, "existingImageName"), message)
    build = image.get("build") or {}
    for i, cache in enumerate(build.get("cacheFrom", [])):
        if not policies.allows_cache(cache):
            message = Localizable(
                "this platform takes no layers of {image!r} as cache: the operator has to name it in "
                "policies.cacheImages of the configuration",
                image=cache,
            )
            yield document.problem((*path, "build", "cacheFrom", i), message)
    for name in build.get("args", {}):
        if not policies.allows_build_arg(name):
            message = Localizable("this platform allows no build argument {name!r}", name=name)
            yield document.problem((*path, "build", "args", name), message)


def _resources(
    document: ManifestDocument, path: tuple[str | int, ...], resources: dict[str, Any], policies: Policies
) -> Iterator[ManifestProblem]:
    missing = [name for name in ("cpus", "memory") if name not in resources]
    if policies.require_resources and missing:
        names = " and ".join(missing)
        yield document.problem(
            path,
            Localizable("this platform wants resources to be stated: {names} are missing", names=names)
            if len(missing) > 1
            else Localizable("this platform wants resources to be stated: {names} is missing", names=names),
        )
