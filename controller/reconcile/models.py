"""Models of components: which content of a box a commit stands for, and whether the box holds a newer one.

A model is pinned like a tag of an image: the content that was there when the commit was first tried stays until the
next commit, unless the component follows its model or a person asks. What is pinned and on this host needs no storage.
Called by resolve (pins, the last good version) and by the pass, once it has acted (news).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.domain.conditions import Condition, ConditionType
from controller.domain.errors import Stalled, Transient
from controller.domain.keys import DEVELOPER_AREA
from controller.domain.names import ComponentName, short
from controller.domain.spec import AppSpec, MLComponentSpec
from controller.domain.status import AppStatus
from controller.domain.storage import ModelPin
from controller.ports import Models


def in_use(statuses: Iterable[AppStatus]) -> frozenset[str]:
    """Digests of what runs, is asleep, or is about to be started."""
    digests: set[str] = set()
    for status in statuses:
        digests.update(digest for _, digest in status.models)
        digests.update(component.model for component in status.components if component.model)
    return frozenset(digests)


@dataclass(frozen=True)
class News:
    """What the boxes hold by now: components that follow their model to a newer one, and what to tell of the others."""

    followers: frozenset[ComponentName] = frozenset()
    warnings: Mapping[ComponentName, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPins:
    """For one app. `bucket` names the bucket of a box."""

    models: Models
    bucket: Callable[[str], str]

    def pin(
        self, component: MLComponentSpec, serving: str, pins: dict[ComponentName, str]
    ) -> ModelPin | None:
        """The content that the commit stands for, written down in `pins`; None for a component without a model.
        `serving` is the digest of what is in service: that one is never exchanged silently. Errors as `look`."""
        if component.model_box is None:
            return None
        pinned = pins.get(component.name, "")
        found = self._here(component, pinned) or self.look(component)
        if pinned == serving and pinned not in ("", found.digest) and not component.follow_model:
            raise Stalled(
                "ModelMissing",
                f"the model {short(pinned)} in service is neither on this host nor in the box "
                f"{component.model_box!r} any more, which holds {short(found.digest)}: put it back, or take the "
                "new one with `prichal reconcile`",
            )
        pins[component.name] = found.digest
        return found

    def recall(self, component: MLComponentSpec, digest: str) -> ModelPin | None:
        """Just this content, None for a component without a model. Stalled `ModelMissing` if it is to be had neither
        on this host nor from the box; otherwise errors as `look`."""
        if component.model_box is None:
            return None
        found = self._here(component, digest) or self.look(component)
        if found.digest != digest:
            raise Stalled("ModelMissing", f"the model {short(digest)} is to be had nowhere any more")
        return found

    def look(self, component: MLComponentSpec) -> ModelPin:
        """What the box holds now. Stalled `ModelMissing`, `ModelInvalid`; otherwise as Models."""
        box, path = component.model_box or "", component.model_path or ""
        try:
            return self.models.pin(self.bucket(box), path)
        except Stalled as error:
            if error.reason not in ("ModelMissing", "BucketMissing"):
                raise
            message = f"the developer area of the box {box!r} holds no model at {path!r}: upload it there"
            raise Stalled("ModelMissing", message) from error

    def _here(self, component: MLComponentSpec, digest: str) -> ModelPin | None:
        """The model as it lies on this host, whatever the box holds by now."""
        if not digest or not self.models.has(digest):
            return None
        bucket, key = self.bucket(component.model_box or ""), DEVELOPER_AREA + (component.model_path or "")
        return ModelPin(bucket, key, digest, self.models.folder(digest), present=True)

    def news(self, spec: AppSpec, pins: Mapping[ComponentName, str]) -> News:
        """Compare the boxes with what is pinned. A storage that does not answer has no news."""
        followers: set[ComponentName] = set()
        warnings: dict[ComponentName, Condition] = {}
        for component in spec.ml_components:
            if component.model_box is None or not (pinned := pins.get(component.name)):
                continue
            try:
                found = self.look(component)
            except (Stalled, Transient) as error:
                if isinstance(error, Transient) and error.reason != "ModelIncomplete":
                    break  # nor will it answer for the next one
                warnings[component.name] = Condition(
                    ConditionType.WARNING,
                    True,
                    error.reason,
                    f"{error.message}. The copy on this host is used",
                )
                continue
            if found.digest == pinned:
                continue
            if component.follow_model:
                followers.add(component.name)
            else:
                warnings[component.name] = _newer(component, pinned, found.digest)
        return News(frozenset(followers), warnings)


def _newer(component: MLComponentSpec, pinned: str, found: str) -> Condition:
    message = (
        f"the box {component.model_box!r} holds model {short(found)}, {short(pinned)} is in use: the next commit "
        "takes it, or `prichal reconcile`; with `followModel: true` it comes by itself"
    )
    return Condition(ConditionType.WARNING, True, "NewerModelAvailable", message)
