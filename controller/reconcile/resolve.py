"""From the manifests' spec to what can be planned: images nailed to content, secrets filled in, fingerprints made.

The edge between Git and the host: asks the engine for image pins, knows the secrets, decides nothing about rollouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from controller.config.settings import StorageSettings
from controller.domain.accounts import component_account, storage_env
from controller.domain.desired import (
    BuildInput,
    DesiredComponent,
    DesiredPipeline,
    DesiredStage,
    Unresolved,
)
from controller.domain.errors import Stalled, Transient
from controller.domain.fingerprint import Env, fingerprints
from controller.domain.names import AppName, ComponentName, build_tag
from controller.domain.observed import ImageOrigin, ImagePin
from controller.domain.passwords import hash_password, hash_token, is_hash, stable_salt
from controller.domain.pipelines import Pipeline, Stage
from controller.domain.routes import Api, Route, Service, ServiceKind
from controller.domain.secret import Secret, scrub
from controller.domain.spec import (
    ApiSpec,
    AppSpec,
    BuildImage,
    ExistingImage,
    FilesTarget,
    ImageSource,
    Kind,
    MLComponentSpec,
    MLTarget,
    PipelineSpec,
    PipelineTarget,
    SecretSpec,
    StageSpec,
)
from controller.domain.status import AppStatus, ComponentStatus
from controller.domain.storage import Account, ModelPin
from controller.ports import Engine, Revision, Sources
from controller.reconcile.directory import Credentials
from controller.reconcile.models import ModelPins


@dataclass(frozen=True)
class Resolved:
    components: tuple[DesiredComponent, ...]
    pipelines: tuple[DesiredPipeline, ...]
    services: tuple[Service, ...]
    unresolved: tuple[Unresolved, ...]
    pins: tuple[tuple[str, str], ...]  # for AppStatus.pins
    model_pins: tuple[tuple[ComponentName, str], ...]  # for AppStatus.models
    setbacks: tuple[Transient, ...] = ()  # to be tried again


@dataclass
class _Found:
    """What is known so far in one pass."""

    pins: dict[str, str]
    model_pins: dict[ComponentName, str]
    components: list[DesiredComponent] = field(default_factory=list)
    pipelines: list[DesiredPipeline] = field(default_factory=list)
    unresolved: list[Unresolved] = field(default_factory=list)
    setbacks: list[Transient] = field(default_factory=list)

    def note(self, error: Stalled | Transient) -> None:
        if isinstance(error, Transient):
            self.setbacks.append(error)

    def miss(self, name: ComponentName, kind: Kind, error: Stalled | Transient, why: str) -> None:
        self.unresolved.append(Unresolved(name, error.reason, why, isinstance(error, Transient), kind))
        self.note(error)


@dataclass(frozen=True)
class Resolver:
    """For one pass over one app. `fallback` gives the spec of a component at an older commit, None if it cannot be
    had any more."""

    engine: Engine
    sources: Sources
    instance: str
    key: bytes
    storage: StorageSettings
    bucket: Callable[[str], str]  # of a box
    registries: Credentials
    secrets: tuple[Secret, ...]  # that must not appear in what is said about failures
    models: ModelPins
    secret: Callable[[str], SecretSpec | None]
    fallback: Callable[[ComponentName, str], tuple[MLComponentSpec, AppSpec] | None]

    def resolve(
        self, spec: AppSpec, revision: Revision, status: AppStatus, routes: tuple[Route, ...], fresh: bool
    ) -> Resolved:
        """`fresh`: ask for tags and models again instead of trusting the pins of an earlier pass over the same commit.
        What cannot be resolved is left at its last good version, or alone; its neighbours do not suffer."""
        known = status if status.desired_revision == revision.commit and not fresh else AppStatus(spec.app)
        found = _Found(dict(known.pins), dict(known.models))
        serving = {route.component: route for route in routes}
        for component in spec.ml_components:
            self._take_component(component, spec, revision, status, serving.get(component.name), found)
        for pipeline in spec.pipelines:
            self._take_pipeline(pipeline, spec, revision, found)
        services, refused = self._services(spec)
        return Resolved(
            tuple(found.components),
            tuple(found.pipelines),
            services,
            (*found.unresolved, *refused),
            tuple(sorted(found.pins.items())),
            tuple(sorted(found.model_pins.items())),
            tuple(found.setbacks),
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
        memory = status.component(component.name) or ComponentStatus(component.name, Kind.ML_COMPONENT)
        try:
            desired = self._component(component, spec, revision, memory, found.pins, found.model_pins)
        except (Stalled, Transient) as error:
            why = scrub(error.message, self.secrets)
            if kept := self._last_good(component, status, route, error.reason, why):
                found.components.append(kept)
                found.note(error)
            else:
                found.miss(component.name, Kind.ML_COMPONENT, error, why)
            return
        found.components.append(self._or_last_good(desired, status, route))

    def _take_pipeline(
        self, pipeline: PipelineSpec, spec: AppSpec, revision: Revision, found: _Found
    ) -> None:
        try:
            found.pipelines.append(self._pipeline(pipeline, spec, revision, found.pins))
        except (Stalled, Transient) as error:
            why = scrub(error.message, self.secrets)
            found.miss(pipeline.name, Kind.EXPERIMENT_PIPELINE, error, why)

    def _services(self, spec: AppSpec) -> tuple[tuple[Service, ...], tuple[Unresolved, ...]]:
        """One whose rules of access cannot be had is not published: open to all it must never be by accident."""
        services, refused = [], []
        for api in sorted(spec.apis, key=lambda api: api.path):
            if isinstance(api.target, MLTarget):
                continue
            try:
                found = self._api(api, spec.app)
            except Stalled as error:
                refused.append(Unresolved(api.name, error.reason, error.message, kind=Kind.API_COMPONENT))
                continue
            services.append(_service(spec.app, found, api))
        return tuple(services), tuple(refused)

    def _pipeline(
        self, declared: PipelineSpec, spec: AppSpec, revision: Revision, pins: dict[str, str]
    ) -> DesiredPipeline:
        """Its images nailed to content. A Secret that is missing now would be missing when a run needs it."""
        stages, images = [], []
        for stage in declared.stages:
            for secret in stage.env_from:
                self._need(secret)
            name = ComponentName(f"{declared.name}.{stage.name}")
            build, tag = None, ""
            if isinstance(stage.image, BuildImage):
                build = BuildInput(revision.commit, stage.image)
                tag = build_tag(self.instance, spec.app, name, self._content(revision, stage.image))
            pin = self._stage_pin(stage.image, tag, pins)
            images.append(DesiredStage(name, pin, build))
            stages.append(runnable_stage(stage, pin.deploy))
        pipeline = runnable(declared, spec.app, revision.commit, tuple(stages))
        optional = optional_inputs(declared.name, spec.apis)
        account = self._account(declared, spec.app)
        return DesiredPipeline(replace(pipeline, optional=optional), tuple(images), account)

    def _component(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        revision: Revision,
        memory: ComponentStatus,
        pins: dict[str, str],
        model_pins: dict[ComponentName, str],
    ) -> DesiredComponent:
        build, tag = None, ""
        if isinstance(component.image, BuildImage):
            build = BuildInput(revision.commit, component.image)
            tag = build_tag(self.instance, spec.app, component.name, self._content(revision, component.image))
        pin = self._pin(component.image, tag, memory.image, pins)
        model = self.models.pin(component, memory.model, model_pins)
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
        env = self._env(component, account)
        return DesiredComponent(
            spec=component,
            pin=pin,
            fingerprints=fingerprints(component, pin.deploy, env, self.key, model.digest if model else ""),
            apis=self._apis(component.name, spec),
            env=env,
            build=build,
            account=account,
            model=model,
            revision=commit,
        )

    def _content(self, revision: Revision, source: BuildImage) -> str:
        tree = self.sources.content_id(revision, source.context)
        return hashlib.sha256(
            json.dumps([tree, source.dockerfile, source.target, source.args]).encode()
        ).hexdigest()

    def _pin(self, source: ImageSource, tag: str, serving: str, pins: dict[str, str]) -> ImagePin:
        """An image that has served is on this host; asking for it costs more than all the rest of a quiet pass."""
        reference = tag if isinstance(source, BuildImage) else source.reference
        origin, _, deploy = pins.get(reference, "").partition(" ")
        if deploy and (deploy == serving or origin == ImageOrigin.LOCAL):
            return ImagePin(deploy, ImageOrigin(origin), present=True)
        if origin == ImageOrigin.REGISTRY:
            source = ExistingImage(deploy)  # wherever the tag points by now
        pin = self.engine.pin(source, tag or None, self.registries)
        pins[reference] = f"{pin.origin} {pin.deploy}"
        return pin

    def _stage_pin(self, source: ImageSource, tag: str, pins: dict[str, str]) -> ImagePin:
        """No container keeps the image of a stage here: one that only this host has is looked for each time."""
        if isinstance(source, ExistingImage):
            origin, _, deploy = pins.get(source.reference, "").partition(" ")
            if origin == ImageOrigin.LOCAL and not self._is_here(deploy):
                del pins[source.reference]
        return self._pin(source, tag, "", pins)

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
        return self._last_good(desired.spec, status, route, memory.failure_reason, memory.failure) or desired

    def _last_good(
        self, component: MLComponentSpec, status: AppStatus, route: Route | None, reason: str, failure: str
    ) -> DesiredComponent | None:
        """What the route serves, so that it is kept alive while a newer version cannot be had."""
        memory = status.component(component.name)
        if not (route and memory and memory.image):
            return None
        found = self.fallback(component.name, route.revision)
        if not found:
            return None
        older, spec = found
        pin = ImagePin(memory.image, ImageOrigin.LOCAL, present=True)
        try:
            model = self.models.recall(older, memory.model)
            desired = self._desired(older, spec, pin, route.revision, model=model)
        except (Stalled, Transient):  # a Secret or the model of its is gone
            return None
        if route.fingerprint not in desired.fingerprints:
            return None
        return replace(desired, failure_reason=reason, failure=failure)

    # --- secrets -----------------------------------------------------------------------------------------------

    def _account(self, declared: MLComponentSpec | PipelineSpec, app: AppName) -> Account | None:
        if not declared.boxes or not self.storage.gives_accounts:
            return None
        buckets = self._buckets(declared).values()
        return component_account(self.instance, app, declared.name, buckets, self.key)

    def _buckets(self, declared: MLComponentSpec | PipelineSpec) -> dict[str, str]:
        return {link.name: self.bucket(link.name) for link in declared.boxes}

    def _env(self, component: MLComponentSpec, account: Account | None) -> Env:
        env: dict[str, Secret] = {}
        for name in component.env_from:
            env.update(self._need(name).values)
        env.update((variable.name, Secret(variable.value)) for variable in component.env)
        if account:
            url, region = self.storage.container_url, self.storage.region
            env.update(storage_env(account, self._buckets(component), url, region))
        return tuple(sorted(env.items()))

    def _need(self, name: str) -> SecretSpec:
        secret = self.secret(name)
        if secret is None:
            raise Stalled("SecretMissing", f"the Secret {name!r} is not there")
        return secret

    def _apis(self, component: ComponentName, spec: AppSpec) -> tuple[Api, ...]:
        ours = [
            api for api in spec.apis if isinstance(api.target, MLTarget) and api.target.component == component
        ]
        return tuple(self._api(api, spec.app) for api in sorted(ours, key=lambda api: api.path))

    def _api(self, api: ApiSpec, app: AppName) -> Api:
        users = self._callers(api.auth.basic) if api.auth.basic else ()
        tokens = self._callers(api.auth.token) if api.auth.token else ()
        oidc = api.auth.oidc
        return Api(
            path=api.path,
            name=api.name,
            published=api.published,
            users=tuple(sorted((user, self._hashed(app, user, value)) for user, value in users)),
            tokens=tuple(sorted((user, hash_token(value.reveal())) for user, value in tokens)),
            oidc_issuer=oidc.issuer if oidc else None,
            oidc_audience=oidc.audience if oidc else None,
            oidc_client=oidc.client_id if oidc else None,
            oidc_claims=oidc.required_claims if oidc else (),
            pass_identity=api.auth.identity_pass_through,
        )

    def _callers(self, name: str) -> Env:
        """Never empty: an API without callers would be taken for one that is open to all."""
        found = self._need(name).values
        if not found:
            raise Stalled(
                "SecretEmpty", f"the Secret {name!r} names nobody who may call; add `user: password hash`"
            )
        return found

    def _hashed(self, app: AppName, user: str, value: Secret) -> str:
        if is_hash(value.reveal()):
            return value.reveal()
        return _hash_once(value, stable_salt(self.key, app, user, value.reveal()))


def _service(app: AppName, api: Api, declared: ApiSpec) -> Service:
    match declared.target:
        case FilesTarget(developers=developers):
            return Service(app, api, ServiceKind.FILES, developers)
        case PipelineTarget(pipeline=pipeline):
            inputs, outputs = declared.inputs, declared.outputs
            return Service(app, api, ServiceKind.PIPELINE, pipeline=pipeline, inputs=inputs, outputs=outputs)
        case _:
            return Service(app, api, ServiceKind.PIPELINES)


def optional_inputs(pipeline: ComponentName, apis: Iterable[ApiSpec]) -> tuple[str, ...]:
    """Inputs of the pipeline that callers of at least one of its APIs may leave out, sorted."""
    target = PipelineTarget(pipeline)
    return tuple(
        sorted({v.name for api in apis if api.target == target for v in api.inputs if not v.required})
    )


def runnable_stage(declared: StageSpec, image: str) -> Stage:
    """`image` is what containers are created from."""
    return Stage(
        declared.name,
        image,
        declared.command,
        declared.inputs,
        declared.outputs,
        declared.env,
        declared.env_from,
        declared.resources,
        declared.timeout,
        declared.retries,
    )


def runnable(declared: PipelineSpec, app: AppName, commit: str, stages: tuple[Stage, ...]) -> Pipeline:
    boxes = sorted(declared.boxes, key=lambda link: not link.default)
    return Pipeline(
        app,
        declared.name,
        commit,
        stages,
        declared.vars,
        tuple(ComponentName(link.name) for link in boxes),
        ComponentName(declared.continue_with) if declared.continue_with else None,
        declared.concurrency,
        declared.ttl_succeeded,
        declared.ttl_failed,
        webhook=declared.webhook,
        schedule=declared.schedule,
    )


@lru_cache(maxsize=4096)
def _hash_once(password: Secret, salt: str) -> str:
    return hash_password(password.reveal(), salt)
