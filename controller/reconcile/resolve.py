"""From the manifests' spec to what can be planned: images nailed to content, secrets filled in, fingerprints made.

The edge between Git and the host: asks the engine for image pins, knows the secrets, decides nothing about rollouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from controller.domain.desired import BuildInput, DesiredComponent, Unresolved
from controller.domain.errors import Stalled, Transient
from controller.domain.fingerprint import Env, fingerprints
from controller.domain.names import AppName, ComponentName, build_tag
from controller.domain.observed import ImageOrigin, ImagePin
from controller.domain.passwords import hash_password, hash_token, is_hash, stable_salt
from controller.domain.routes import Api, Route
from controller.domain.secret import Secret, scrub
from controller.domain.spec import (
    ApiSpec,
    AppSpec,
    BuildImage,
    ExistingImage,
    MLComponentSpec,
    MLTarget,
    SecretSpec,
)
from controller.domain.status import AppStatus, ComponentStatus
from controller.ports import Engine, Revision, Sources
from controller.reconcile.directory import Credentials
from controller.reconcile.unsupported import require_supported


@dataclass(frozen=True)
class Resolved:
    components: tuple[DesiredComponent, ...]
    unresolved: tuple[Unresolved, ...]
    pins: tuple[tuple[str, str], ...]  # for AppStatus.pins
    setbacks: tuple[Transient, ...] = ()  # to be tried again


@dataclass(frozen=True)
class Resolver:
    """For one pass over one app. `fallback` gives the spec of a component at an older commit, None if it cannot be
    had any more."""

    engine: Engine
    sources: Sources
    instance: str
    key: bytes
    registries: Credentials
    secrets: tuple[Secret, ...]  # that must not appear in what is said about failures
    secret: Callable[[str], SecretSpec | None]
    fallback: Callable[[ComponentName, str], tuple[MLComponentSpec, AppSpec] | None]

    def resolve(
        self, spec: AppSpec, revision: Revision, status: AppStatus, routes: tuple[Route, ...], fresh: bool
    ) -> Resolved:
        """`fresh`: ask for every tag again instead of trusting the pins of an earlier pass over the same commit.
        What cannot be resolved is left at its last good version, or alone; its neighbours do not suffer."""
        pins = {} if fresh or status.desired_revision != revision.commit else dict(status.pins)
        by_component = {route.component: route for route in routes}
        components: list[DesiredComponent] = []
        unresolved: list[Unresolved] = []
        setbacks: list[Transient] = []
        for component in spec.ml_components:
            route = by_component.get(component.name)
            try:
                desired = self._component(component, spec, revision, status.component(component.name), pins)
            except (Stalled, Transient) as error:
                transient = isinstance(error, Transient)
                why = scrub(error.message, self.secrets)
                kept = self._last_good(component, status, route, error.reason, why)
                if kept:
                    components.append(kept)
                else:
                    unresolved.append(Unresolved(component.name, error.reason, why, transient))
                if isinstance(error, Transient):
                    setbacks.append(error)
                continue
            components.append(self._or_last_good(desired, status, route))
        return Resolved(tuple(components), tuple(unresolved), tuple(sorted(pins.items())), tuple(setbacks))

    def _component(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        revision: Revision,
        memory: ComponentStatus | None,
        pins: dict[str, str],
    ) -> DesiredComponent:
        require_supported(component)
        build, tag = None, ""
        if isinstance(component.image, BuildImage):
            build = BuildInput(revision.commit, component.image)
            tag = build_tag(self.instance, spec.app, component.name, self._content(revision, component.image))
        pin = self._pin(component, tag, memory.image if memory else "", pins)
        return self._desired(component, spec, pin, revision.commit, build)

    def _desired(
        self,
        component: MLComponentSpec,
        spec: AppSpec,
        pin: ImagePin,
        commit: str,
        build: BuildInput | None = None,
    ) -> DesiredComponent:
        env = self._env(component)
        return DesiredComponent(
            spec=component,
            pin=pin,
            fingerprints=fingerprints(component, pin.deploy, env, self.key),
            apis=self._apis(component.name, spec),
            env=env,
            build=build,
            revision=commit,
        )

    def _content(self, revision: Revision, source: BuildImage) -> str:
        tree = self.sources.content_id(revision, source.context)
        return hashlib.sha256(
            json.dumps([tree, source.dockerfile, source.target, source.args]).encode()
        ).hexdigest()

    def _pin(self, component: MLComponentSpec, tag: str, serving: str, pins: dict[str, str]) -> ImagePin:
        """An image that has served is on this host; asking for it costs more than all the rest of a quiet pass."""
        source = component.image
        reference = tag if isinstance(source, BuildImage) else source.reference
        origin, _, deploy = pins.get(reference, "").partition(" ")
        if deploy and (deploy == serving or origin == ImageOrigin.LOCAL):
            return ImagePin(deploy, ImageOrigin(origin), present=True)
        if origin == ImageOrigin.REGISTRY:
            source = ExistingImage(deploy)  # wherever the tag points by now
        pin = self.engine.pin(source, tag or None, self.registries)
        pins[reference] = f"{pin.origin} {pin.deploy}"
        return pin

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
            desired = self._desired(older, spec, pin, route.revision)
        except Stalled:  # a Secret of its is gone
            return None
        if route.fingerprint not in desired.fingerprints:
            return None
        return replace(desired, failure_reason=reason, failure=failure)

    # --- secrets -----------------------------------------------------------------------------------------------

    def _env(self, component: MLComponentSpec) -> Env:
        env: dict[str, Secret] = {}
        for name in component.env_from:
            env.update(self._need(name).values)
        env.update((variable.name, Secret(variable.value)) for variable in component.env)
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


@lru_cache(maxsize=4096)
def _hash_once(password: Secret, salt: str) -> str:
    return hash_password(password.reveal(), salt)
