"""Models of components: which content of a box a commit stands for, and whether the box has a newer one.

A model is pinned like the tag of an image: the content that was there when the commit was first tried stays
until the next commit, unless the component follows its model or a person asks for the new one. A pinned model
on this host needs no storage. Called by resolve (pins, the last good version) and by the pass at its end
(news).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.desired import Unresolved
from controller.domain.apps.spec import AppSpec, MLComponentSpec, PipelineTarget
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import ComponentName, short
from controller.domain.reasons import Reason
from controller.domain.storage.box import ModelPin
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.ports import Models


def in_use(statuses: Iterable[AppStatus]) -> frozenset[str]:
    """Return the digests of models that are running, asleep or about to be started."""
    digests: set[str] = set()
    for status in statuses:
        digests.update(digest for _, digest in status.models)
        digests.update(component.model for component in status.components if component.model)
    return frozenset(digests)


@dataclass(frozen=True)
class ModelUpdate:
    """What the boxes contain now: components that follow their model to a newer one, and warnings about
    others.
    """

    followers: frozenset[ComponentName] = frozenset()
    warnings: Mapping[ComponentName, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPins:
    """The models of one app. `bucket` returns the name of a box's bucket."""

    models: Models
    bucket: Callable[[str], str]

    def pin(
        self, component: MLComponentSpec, serving: str, pins: dict[ComponentName, str]
    ) -> ModelPin | None:
        """Return the content that the commit stands for, and record it in `pins`; None for a component
        without a model. The model with digest `serving` is in service and is never replaced silently. Raises
        errors as `look`.
        """
        if component.model_box is None:
            return None
        pinned = pins.get(component.name, "")
        found = self._here(component, pinned) or self.find(component)
        if pinned == serving and pinned not in ("", found.digest) and not component.follow_model:
            raise Stalled(
                Reason.MODEL_MISSING,
                Localizable(
                    "the model {pinned} in service is no longer on this host or in the box "
                    "{model_box!r}, which has {digest}: upload it again, or take the new one with "
                    "`prichal reconcile`",
                    pinned=short(pinned),
                    model_box=component.model_box,
                    digest=short(found.digest),
                ),
            )
        pins[component.name] = found.digest
        return found

    def recall(self, component: MLComponentSpec, digest: str) -> ModelPin | None:
        """Return exactly this content; None for a component without a model. Raises Stalled `ModelMissing` if
        neither this host nor the box has it; otherwise errors as `look`.
        """
        if component.model_box is None:
            return None
        found = self._here(component, digest) or self.find(component)
        if found.digest != digest:
            raise Stalled(
                Reason.MODEL_MISSING,
                Localizable(
                    "the model {digest} is neither in the cache nor in the box", digest=short(digest)
                ),
            )
        return found

    def find(self, component: MLComponentSpec) -> ModelPin:
        """Return what the box contains now. Raises Stalled `ModelMissing` or `ModelInvalid`; otherwise errors
        as Models.
        """
        box, path = component.model_box or "", component.model_path or ""
        try:
            return self.models.pin(self.bucket(box), path)
        except Stalled as error:
            if error.reason not in (Reason.MODEL_MISSING, Reason.BUCKET_MISSING):
                raise
            message = Localizable(
                "the developer area of the box {box!r} has no model at {path!r}: upload it there",
                box=box,
                path=path,
            )
            raise Stalled(Reason.MODEL_MISSING, message) from error

    def _here(self, component: MLComponentSpec, digest: str) -> ModelPin | None:
        """Return the model on this host, whatever the box contains now."""
        if not digest or not self.models.has(digest):
            return None
        bucket, key = self.bucket(component.model_box or ""), DEVELOPER_AREA + (component.model_path or "")
        return ModelPin(bucket, key, digest, self.models.volume(digest), present=True)

    def updates(self, spec: AppSpec, pins: Mapping[ComponentName, str]) -> ModelUpdate:
        """Compare the boxes with the pins. If the storage does not answer, the result is empty."""
        followers: set[ComponentName] = set()
        warnings: dict[ComponentName, Condition] = {}
        for component in spec.ml_components:
            if component.model_box is None or not (pinned := pins.get(component.name)):
                continue
            try:
                found = self.find(component)
            except (Stalled, Transient) as error:
                if isinstance(error, Transient) and error.reason != Reason.MODEL_INCOMPLETE:
                    break  # it will not answer for the next one either
                warnings[component.name] = Condition(
                    ConditionType.WARNING,
                    True,
                    error.reason,
                    Localizable("{error}. The copy on this host is used", error=error.message),
                )
                continue
            if found.digest == pinned:
                continue
            if component.follow_model:
                followers.add(component.name)
            else:
                warnings[component.name] = _newer(component, pinned, found.digest)
        return ModelUpdate(frozenset(followers), warnings)


def awaiting_model(component: MLComponentSpec, spec: AppSpec) -> Unresolved:
    """Return a component that has never served, because its first model does not exist yet: this is not a
    failure, but something to do.
    """
    box, path = component.model_box or "", component.model_path or ""
    makers = sorted(
        {p.name for p in spec.pipelines for var in p.vars if _publishes(var.publish_to, box, path)}
    )
    paths = [
        api.path
        for api in spec.apis
        if isinstance(api.target, PipelineTarget) and api.target.pipeline in makers
    ]
    upload = Localizable(
        "upload it with `prichal file put --area developer FILE {app}:{box}/{path}`",
        app=spec.app,
        box=box,
        path=path,
    )
    run = Localizable("run the pipeline {makers}, which creates it", makers=makers[0]) if makers else ""
    if paths:
        run = Localizable("{run}: `prichal run start {app}/{paths}`", run=run, app=spec.app, paths=paths[0])
    how = Localizable("{run}; or {upload}", run=run, upload=upload) if run else upload
    why = Localizable(
        "it waits for its first model, {path!r} in the box {box!r}: {how}", path=path, box=box, how=how
    )
    return Unresolved(component.name, Reason.AWAITING_MODEL, why, waiting=True)


def _publishes(target: tuple[str, str] | None, box: str, path: str) -> bool:
    return target is not None and target[0] == box and f"{path}/".startswith(target[1])


def _newer(component: MLComponentSpec, pinned: str, found: str) -> Condition:
    message = Localizable(
        "the box {model_box!r} has model {found}, but {pinned} is in use: the next commit or "
        "`prichal reconcile` takes the new one; `followModel: true` takes new models automatically",
        model_box=component.model_box,
        found=short(found),
        pinned=short(pinned),
    )
    return Condition(ConditionType.WARNING, True, Reason.NEWER_MODEL_AVAILABLE, message)
