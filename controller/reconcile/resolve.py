"""Turns the manifests' spec into a desired state for planning: pins images to content, fills in secrets, and
computes fingerprints.

This is the edge between Git and the host: it asks the engine for image pins, knows the secrets, and decides
nothing about rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.config.settings import StorageSettings
from controller.domain.apps.desired import (
    BuildInput,
    DesiredComponent,
    DesiredPipeline,
    DesiredStage,
    Unresolved,
)
from controller.domain.apps.environment import variables
from controller.domain.apps.fingerprint import Env, fingerprints
from controller.domain.apps.followed_images import FollowedImage
from controller.domain.apps.observed import ImageOrigin, ImagePin
from controller.domain.apps.plan import subject_text
from controller.domain.apps.smoke import MAX_FILE, SmokeCase, SmokeTestInvalid, case_of
from controller.domain.apps.spec import (
    AppSpec,
    BuildImage,
    ComponentKind,
    ExistingImage,
    ImageSource,
    Limits,
    MLComponentSpec,
    PipelineSpec,
    SecretSpec,
    SmokeTest,
)
from controller.domain.apps.status import AppStatus, ComponentStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName, build_tag, stage_image
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route, Service
from controller.domain.runs.stage_slots import Use, remainder
from controller.domain.secret import Secret, scrub
from controller.domain.storage.accounts import component_account, storage_env
from controller.domain.storage.box import ModelPin, StorageAccount
from controller.manifests.reader import nearest
from controller.ports import Engine, Revision, Sources
from controller.reconcile.api_access import ApiAccess
from controller.reconcile.bugs import as_transient
from controller.reconcile.build_inputs import build_content, build_input, package_index
from controller.reconcile.catalog import Credentials
from controller.reconcile.models import ModelPins, awaiting_model
from controller.reconcile.runnable_pipelines import optional_inputs, runnable, runnable_stage


def smoke_case(sources: Sources, test: SmokeTest, revision: Revision) -> SmokeCase:
    """Return a smoke test with its files. Raises Stalled `SmokeTestInvalid`."""
    try:
        contents = [
            sources.read(revision, path, MAX_FILE) if path else None for path in (test.input, test.output)
        ]
        return case_of(test, contents[0] or b"", contents[1])
    except SmokeTestInvalid as error:
        raise Stalled(
            Reason.SMOKE_TEST_INVALID, Localizable("its smoke test cannot be run: {error}", error=error)
        ) from error
    except Stalled as error:
        if error.reason == Reason.REVISION_GONE:
            raise
        raise Stalled(
            Reason.SMOKE_TEST_INVALID,
            Localizable("its smoke test cannot be run: {error}", error=error.message),
        ) from error


@dataclass(frozen=True)
class Resolved:
    components: tuple[DesiredComponent, ...]
    pipelines: tuple[DesiredPipeline, ...]
    services: tuple[Service, ...]
    unresolved: tuple[Unresolved, ...]
    pins: tuple[tuple[str, str], ...]  # for AppStatus.pins
    model_pins: tuple[tuple[ComponentName, str], ...]  # for AppStatus.models
    setbacks: tuple[tuple[str, Stalled | Transient], ...] = ()  # by subject: to be tried again


@dataclass
class _Found:
    """What is known so far in one pass."""

    pins: dict[str, str]
    model_pins: dict[ComponentName, str]
    built: dict[
        str, str
    ]  # pins of builds of this commit or an earlier one: their tags never change their meaning
    components: list[DesiredComponent] = field(default_factory=list)
    pipelines: list[DesiredPipeline] = field(default_factory=list)
    unresolved: list[Unresolved] = field(default_factory=list)
    setbacks: list[tuple[str, Transient]] = field(default_factory=list)

    def note(self, name: ComponentName, kind: ComponentKind, error: Stalled | Transient) -> None:
        if isinstance(error, Transient):
            self.setbacks.append((subject_text(kind, name), error))

    def miss(self, name: ComponentName, kind: ComponentKind, error: Stalled | Transient, why: str) -> None:
        waiting = error.reason in (Reason.AWAITING_SECRET, Reason.AWAITING_IMAGE)
        self.unresolved.append(
            Unresolved(name, error.reason, why, isinstance(error, Transient), kind, waiting)
        )
        self.note(name, kind, error)


@dataclass(frozen=True)
class Resolver:
    """Resolves one app for one pass. `fallback` returns the spec of a component at an older commit, or None
    if that is no longer available.
    """

    engine: Engine
    sources: Sources
    instance: str
    key: bytes
    storage: StorageSettings
    bucket: Callable[[str], str]  # the bucket of a box
    registries: Credentials
    limits: Limits
    secrets: tuple[Secret, ...]  # values that must not appear in messages about failures
    models: ModelPins
    paused: Mapping[str, Stalled | Transient]  # by subject: recent failures, not to be tried again yet
    secret: Callable[[str], SecretSpec | None]
    secret_names: frozenset[str]
    fallback: Callable[[ComponentName, str], tuple[MLComponentSpec, AppSpec] | None]
    smoke: Callable[[SmokeTest, str], SmokeCase]  # with its files at a commit; raises Stalled
    refused: list[tuple[str, Stalled | Transient]] = field(default_factory=list)
    packages: Credentials = ()  # the package registries that components may name

    def resolve(
        self, spec: AppSpec, revision: Revision, status: AppStatus, routes: tuple[Route, ...], fresh: bool
    ) -> Resolved:
        """Resolve the app. `fresh` resolves tags and models again, without the pins of an earlier pass over
        the same commit. What cannot be resolved stays at its last good version, or is left alone; other parts
        are not affected.
        """
        known = status if status.desired_revision == revision.commit and not fresh else AppStatus(spec.app)
        found = _Found(dict(known.pins), dict(known.models), _built(status.pins))
        serving = {route.component: route for route in routes}
        for component in spec.ml_components:
            self._take_component(component, spec, revision, status, serving.get(component.name), found)
        for pipeline in spec.pipelines:
            self._take_pipeline(pipeline, spec, revision, found)
        services, refused = self._access.services(spec)
        return Resolved(
            tuple(found.components),
            tuple(found.pipelines),
            services,
            (*found.unresolved, *refused),
            tuple(sorted(found.pins.items())),
            tuple(sorted(found.model_pins.items())),
            (*found.setbacks, *self.refused),
        )

    def _take_component(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        revision: Revision,
        status: AppStatus,
        route: Route | None,
        found: _Found,
    ) -> None:
        memory = status.component(component.name) or ComponentStatus(
            component.name, ComponentKind.ML_COMPONENT
        )
        try:
            self._respect_pause(component.name, ComponentKind.ML_COMPONENT)
            with as_transient(spec.app, Localizable("MLComponent {component}", component=component.name)):
                desired = self._component(component, spec, revision, memory, found)
        except (Stalled, Transient) as error:
            why = scrub(error.message, self.secrets)
            if kept := self._last_good(component.name, status, route, error.reason, why):
                found.components.append(kept)
                found.note(component.name, ComponentKind.ML_COMPONENT, error)
            elif error.reason == Reason.MODEL_MISSING and route is None:
                found.unresolved.append(awaiting_model(component, spec))
            elif error.reason == Reason.AWAITING_BOX and route is None:
                found.unresolved.append(Unresolved(component.name, error.reason, why, waiting=True))
            else:
                found.miss(component.name, ComponentKind.ML_COMPONENT, error, why)
            return
        found.components.append(
            self._with_last_good(self._or_last_good(desired, status, route), status, route)
        )

    def _take_pipeline(
        self, pipeline: PipelineSpec, spec: AppSpec, revision: Revision, found: _Found
    ) -> None:
        try:
            self._respect_pause(pipeline.name, ComponentKind.EXPERIMENT_PIPELINE)
            with as_transient(spec.app, Localizable("ExperimentPipeline {pipeline}", pipeline=pipeline.name)):
                found.pipelines.append(self._pipeline(pipeline, spec, revision, found))
        except (Stalled, Transient) as error:
            why = scrub(error.message, self.secrets)
            found.miss(pipeline.name, ComponentKind.EXPERIMENT_PIPELINE, error, why)

    def _respect_pause(self, name: ComponentName, kind: ComponentKind) -> None:
        if error := self.paused.get(subject_text(kind, name)):
            raise error

    @property
    def _access(self) -> ApiAccess:
        return ApiAccess(self.key, self._need)

    def _pipeline(
        self, declared: PipelineSpec, spec: AppSpec, revision: Revision, found: _Found
    ) -> DesiredPipeline:
        """Return the pipeline with its images pinned. A Secret that is missing now would be missing when a
        run needs it.
        """
        stages, images = [], []
        for stage in declared.stages:
            for secret in stage.env_from:
                self._need(secret, spec.app)
            name = stage_image(declared.name, stage.name)
            build, tag = None, ""
            if isinstance(stage.image, BuildImage):
                build = BuildInput(revision.commit, stage.image)
                tag = build_tag(self.instance, spec.app, build_content(self.sources, revision, stage.image))
            pin = self._stage_pin(stage.image, tag, found)
            if build and pin.to_build:
                build = build_input(build.commit, build.source, spec.app, self.secret, self.registries)
            images.append(DesiredStage(name, pin, build))
            stages.append(runnable_stage(stage, pin.deploy))
        pipeline = runnable(declared, spec.app, revision.commit, tuple(stages))
        optional = optional_inputs(declared.name, spec.apis)
        account = self._account(declared, spec.app)
        taken = sum((Use.of(each.resources, each.replicas) for each in spec.ml_components), Use())
        pipeline = replace(pipeline, optional=optional, stage_limits=remainder(self.limits, taken))
        return DesiredPipeline(pipeline, tuple(images), account)

    def _component(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        revision: Revision,
        memory: ComponentStatus,
        found: _Found,
    ) -> DesiredComponent:
        build, tag = None, ""
        if isinstance(component.image, BuildImage):
            build = BuildInput(revision.commit, component.image)
            tag = build_tag(self.instance, spec.app, build_content(self.sources, revision, component.image))
        pin = self._pin(component.image, tag, memory.image, found)
        if build and pin.to_build:
            own = build_input(build.commit, build.source, spec.app, self.secret, self.registries)
            given = {**package_index(component.package_registry, self.packages), **dict(own.secrets)}
            build = replace(own, secrets=tuple(given.items()))
        model = self.models.pin(component, memory.model, found.model_pins)
        return self._desired(component, spec, pin, revision.commit, build, model)

    def _desired(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        pin: ImagePin,
        commit: str,
        build: BuildInput | None = None,
        model: ModelPin | None = None,
    ) -> DesiredComponent:
        account = self._account(component, spec.app)
        env = self._env(component, account, spec.app)
        smoke = self.smoke(component.smoke_test, commit) if component.smoke_test else None
        digests = (model.digest if model else "", smoke.digest if smoke else "")
        return DesiredComponent(
            spec=component,
            pin=pin,
            fingerprints=fingerprints(component, pin.deploy, env, self.key, *digests),
            apis=self._access.apis(component.name, spec),
            env=env,
            build=build,
            account=account,
            model=model,
            smoke=smoke,
            revision=commit,
        )

    def _pin(self, source: ImageSource, tag: str, serving: str, found: _Found) -> ImagePin:
        """Return the pin of an image. An image that has served is on this host; asking for it would cost more
        than all the rest of a quiet pass.
        """
        reference = tag if isinstance(source, BuildImage) else _named_image(source)
        known = found.pins.get(reference) or found.built.get(reference, "")
        origin, _, deploy = known.partition(" ")
        if deploy and (deploy == serving or origin == ImageOrigin.LOCAL):
            found.pins[reference] = known
            return ImagePin(deploy, ImageOrigin(origin), present=True)
        if origin == ImageOrigin.REGISTRY:
            source = ExistingImage(deploy)  # whatever the tag points to now
        pin = self._ask(reference, source, tag)
        found.pins[reference] = f"{pin.origin} {pin.deploy}"
        return pin

    def _ask(self, reference: str, source: ImageSource, tag: str) -> ImagePin:
        """Ask for the pin. After a refusal of the registry later passes ask again, less and less often, since
        the image may be pushed after the commit.
        """
        if error := self.paused.get(Localizable("image {reference}", reference=reference)):
            self.refused.append((Localizable("image {reference}", reference=reference), error))
            raise error
        try:
            return self.engine.pin(source, tag or None, self.registries)
        except Stalled as error:
            self.refused.append((Localizable("image {reference}", reference=reference), error))
            raise

    def _stage_pin(self, source: ImageSource, tag: str, found: _Found) -> ImagePin:
        """Return the pin of a stage's image. Since no container keeps that image here, its presence is
        checked each time.
        """
        if isinstance(source, ExistingImage):
            origin, _, deploy = found.pins.get(source.reference, "").partition(" ")
            if origin == ImageOrigin.LOCAL and not self._is_here(deploy):
                del found.pins[source.reference]
        return self._pin(source, tag, "", found)

    def _is_here(self, image: str) -> bool:
        try:
            return self.engine.pin(ExistingImage(image), None, ()).present
        except Stalled:
            return False

    # --- the last good version ---------------------------------------------------------------------------------

    def _or_last_good(
        self, desired: DesiredComponent, status: AppStatus, route: Route | None
    ) -> DesiredComponent:
        memory = status.component(desired.spec.name)
        if not memory or memory.failed_fingerprint not in desired.fingerprints:
            return desired
        name, why = desired.spec.name, memory.failure
        return self._last_good(name, status, route, memory.failure_reason, why) or desired

    def _with_last_good(
        self, desired: DesiredComponent, status: AppStatus, route: Route | None
    ) -> DesiredComponent:
        """While attempts to start the new version fail, or have to wait for other components, add the version in
        service, so that it is repaired."""
        name = desired.spec.name
        failing = any(setback.subject == name and not setback.resolving for setback in status.setbacks)
        if (
            not (failing or desired.spec.depends_on)
            or route is None
            or route.fingerprint in desired.fingerprints
        ):
            return desired
        return replace(desired, last_good=self._last_good(name, status, route, Reason.NONE, ""))

    def left(
        self, spec: AppSpec, status: AppStatus, routes: tuple[Route, ...]
    ) -> tuple[DesiredComponent, ...]:
        """Return what routes serve of components that left Git. They stay as long as something needs them, or for good
        if the app does not prune, and are repaired meanwhile."""
        declared = {component.name for component in spec.ml_components}
        gone = sorted((r for r in routes if r.component not in declared), key=lambda route: route.component)
        found = (self._last_good(route.component, status, route, Reason.NONE, "") for route in gone)
        return tuple(filter(None, found))

    def _last_good(
        self, name: ComponentName, status: AppStatus, route: Route | None, reason: Reason, failure: str
    ) -> DesiredComponent | None:
        """Return what the route serves, to keep it alive while a newer version is not available."""
        memory = status.component(name)
        if not (route and memory and memory.image):
            return None
        found = self.fallback(name, route.revision)
        if not found:
            return None
        older, spec = found
        pin = ImagePin(memory.image, ImageOrigin.LOCAL, present=True)
        try:
            model = self.models.recall(older, memory.model)
            desired = self._desired(older, spec, pin, route.revision, model=model)
        except (Stalled, Transient):  # its Secret or model is gone
            return None
        if route.fingerprint not in desired.fingerprints:
            return None
        return replace(desired, failure_reason=reason, failure=failure)

    # --- secrets -----------------------------------------------------------------------------------------------

    def _account(self, declared: MLComponentSpec | PipelineSpec, app: AppName) -> StorageAccount | None:
        if not declared.boxes or not self.storage.gives_accounts:
            return None
        buckets = self._buckets(declared).values()
        return component_account(self.instance, app, declared.name, buckets, self.key)

    def _buckets(self, declared: MLComponentSpec | PipelineSpec) -> dict[str, str]:
        return {link.name: self.bucket(link.name) for link in declared.boxes}

    def _env(self, component: MLComponentSpec, account: StorageAccount | None, app: AppName) -> Env:
        env: dict[str, Secret] = {}
        for name in component.env_from:
            env.update(variables(self._need(name, app)))
        env.update((variable.name, Secret(variable.value)) for variable in component.env)
        if account:
            url, region = self.storage.container_url, self.storage.region
            env.update(storage_env(account, self._buckets(component), url, region))
        return tuple(sorted(env.items()))

    def _need(self, name: str, app: AppName) -> SecretSpec:
        secret = self.secret(name)
        if secret is None:
            hint = nearest(name, self.secret_names)
            how = f"prichal secret set {app} {name} KEY"
            message = Localizable(
                "it waits for the Secret {name!r}, which is not set{hint}: set it with: {how}",
                name=name,
                hint=hint or "",
                how=how,
            )
            raise Stalled(Reason.AWAITING_SECRET, message)
        return secret


def _named_image(source: ExistingImage) -> str:
    """Raises Stalled `AwaitingImage` if the manifest names no image, only which ones are followed, and none was found
    yet."""
    if source.follow and FollowedImage("", source.reference, source.follow).is_open:
        told = Localizable(
            "it waits for the first image of {name} that is followed; see: prichal status",
            name=source.reference,
        )
        raise Stalled(Reason.AWAITING_IMAGE, told)
    return source.reference


def _built(pins: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {reference: pin for reference, pin in pins if pin.startswith(f"{ImageOrigin.BUILD} ")}
