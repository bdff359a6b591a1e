"""Which Secrets the manifests of an app name, and what uses each. So people see what they still have to set. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from controller.domain.apps.spec import AppSpec, BuildImage, ComponentKind, ImageSource

MOST_USES = 100  # of an app that are kept; the status of an app stays small
MOST_USERS = 10  # of a Secret that are kept


@dataclass(frozen=True)
class SecretUse:
    """`users` are the kinds and names of what names the Secret. `declared`: a manifest of the repository or of the
    platform folder has it, so it need not be set by people."""

    name: str
    users: tuple[str, ...]
    declared: bool


def secret_uses(spec: AppSpec, declared: Collection[str]) -> tuple[SecretUse, ...]:
    """Return the uses by name of the Secret. `declared` are the names of Secrets that manifests have."""
    found: dict[str, dict[str, None]] = {}
    for name, kind, user in _named(spec):
        found.setdefault(name, {})[f"{kind} {user}"] = None
    uses = (SecretUse(name, tuple(users)[:MOST_USERS], name in declared) for name, users in found.items())
    return tuple(sorted(uses, key=lambda use: (use.declared, use.name))[:MOST_USES])


def _named(spec: AppSpec) -> Iterator[tuple[str, ComponentKind, str]]:
    for component in spec.ml_components:
        yield from (
            (name, ComponentKind.ML_COMPONENT, component.name)
            for name in (*component.env_from, *_of_build(component.image))
        )
        if component.webhook:
            yield component.webhook.secret, ComponentKind.ML_COMPONENT, component.name
    for pipeline in spec.pipelines:
        for stage in pipeline.stages:
            yield from (
                (name, ComponentKind.EXPERIMENT_PIPELINE, pipeline.name)
                for name in (*stage.env_from, *_of_build(stage.image))
            )
        if pipeline.webhook:
            yield pipeline.webhook.secret, ComponentKind.EXPERIMENT_PIPELINE, pipeline.name
    for notification in spec.notifications:
        if notification.secret:
            yield notification.secret, ComponentKind.NOTIFICATION, notification.name
    for api in spec.apis:
        for name in (api.auth.basic, api.auth.token):
            if name:
                yield name, ComponentKind.API_COMPONENT, api.name


def _of_build(image: ImageSource) -> tuple[str, ...]:
    return tuple(one.secret for one in image.secrets) if isinstance(image, BuildImage) else ()
