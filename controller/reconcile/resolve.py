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
from controller.domain.errors import Stalled
from controller.domain.fingerprint import Env, fingerprints
from controller.domain.names import AppName, ComponentName, build_tag
from controller.domain.observed import ImageOrigin, ImagePin
from controller.domain.passwords import hash_password, hash_token, is_hash, stable_salt
from controller.domain.routes import Api, Route
from controller.domain.secret import Secret
from controller.domain.spec import ApiSpec, AppSpec, BuildImage, MLComponentSpec, MLTarget, SecretSpec
from controller.domain.status import AppStatus
from controller.ports import Engine, Revision, Sources
from controller.reconcile.directory import Credentials


@dataclass(frozen=True)
class Resolved:
    components: tuple[DesiredComponent, ...]
    unresolved: tuple[Unresolved, ...]
    pins: tuple[tuple[str, str], ...]  # for AppStatus.pins


@dataclass(frozen=True)
class Resolver:
    """For one pass over one app. `fallback` gives the spec of a component at an older commit, None if it cannot be
    had any more."""

    engine: Engine
    sources: Sources
    instance: str
    key: bytes
    registries: Credentials
    secret: Callable[[str], SecretSpec | None]
    fallback: Callable[[ComponentName, str], tuple[MLComponentSpec, AppSpec] | None]

    def resolve(
        self, spec: AppSpec, revision: Revision, status: AppStatus, routes: tuple[Route, ...], fresh: bool
    ) -> Resolved:
        """`fresh`: ask for every tag again instead of trusting the pins of an earlier pass over the same commit."""
        pins = {} if fresh or status.attempted_revision != revision.commit else dict(status.pins)
        by_component = {route.component: route for route in routes}
        components: list[DesiredComponent] = []
        unresolved: list[Unresolved] = []
        for component in spec.ml_components:
            route = by_component.get(component.name)
            try:
                desired = self._component(component, spec, revision, pins)
            except Stalled as error:
                kept = self._last_good(component, status, route, str(error))
                if kept:
                    components.append(kept)
                else:
                    unresolved.append(Unresolved(component.name, error.reason, error.message))
                continue
            components.append(self._or_last_good(desired, status, route))
        return Resolved(tuple(components), tuple(unresolved), tuple(sorted(pins.items())))

    def _component(
        self, component: MLComponentSpec, spec: AppSpec, revision: Revision, pins: dict[str, str]
    ) -> DesiredComponent:
        build, tag = None, ""
        if isinstance(component.image, BuildImage):
            build = BuildInput(revision.commit, component.image)
            tag = build_tag(self.instance, spec.app, component.name, self._content(revision, component.image))
        pin = self._pin(component, tag, pins)
        return self._desired(component, spec, pin, revision.commit, build)

    def _desired(
        self, component: MLComponentSpec, spec: AppSpec, pin: ImagePin, commit: str, build: BuildInput | None = None
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
        return hashlib.sha256(json.dumps([tree, source.dockerfile, source.target, source.args]).encode()).hexdigest()

    def _pin(self, component: MLComponentSpec, tag: str, pins: dict[str, str]) -> ImagePin:
        reference = tag if isinstance(component.image, BuildImage) else component.image.reference
        if known := pins.get(reference):
            origin, _, deploy = known.partition(" ")
            return ImagePin(deploy, ImageOrigin(origin), present=True)
        pin = self.engine.pin(component.image, tag or None, self.registries)
        if pin.present:
            pins[reference] = f"{pin.origin} {pin.deploy}"
        return pin

    # --- the last good version ---------------------------------------------------------------------------------

    def _or_last_good(self, desired: DesiredComponent, status: AppStatus, route: Route | None) -> DesiredComponent:
        memory = status.component(desired.spec.name)
        if not memory or memory.failed_fingerprint not in desired.fingerprints:
            return desired
        return self._last_good(desired.spec, status, route, memory.failure) or desired

    def _last_good(
        self, component: MLComponentSpec, status: AppStatus, route: Route | None, failure: str
    ) -> DesiredComponent | None:
        """What the route serves, so that it is kept alive while a newer version cannot be had."""
        memory = status.component(component.name)
        if not (route and route.upstreams and memory and memory.image):
            return None
        found = self.fallback(component.name, route.revision)
        if not found:
            return None
        older, spec = found
        pin = ImagePin(memory.image, ImageOrigin.LOCAL, present=True)
        desired = replace(self._desired(older, spec, pin, route.revision), failure=failure, apis=route.apis)
        return desired if route.fingerprint in desired.fingerprints else None

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
        ours = [api for api in spec.apis if isinstance(api.target, MLTarget) and api.target.component == component]
        return tuple(self._api(api, spec.app) for api in sorted(ours, key=lambda api: api.path))

    def _api(self, api: ApiSpec, app: AppName) -> Api:
        users = self._need(api.auth.basic).values if api.auth.basic else ()
        tokens = self._need(api.auth.token).values if api.auth.token else ()
        oidc = api.auth.oidc
        return Api(
            path=api.path,
            name=api.name,
            published=api.published,
            users=tuple(sorted((user, self._hashed(app, user, value)) for user, value in users)),
            tokens=tuple(sorted((user, hash_token(value.reveal())) for user, value in tokens)),
            oidc_issuer=oidc.issuer if oidc else None,
            oidc_audience=oidc.audience if oidc else None,
            oidc_claims=oidc.required_claims if oidc else (),
            pass_identity=api.auth.identity_pass_through,
        )

    def _hashed(self, app: AppName, user: str, value: Secret) -> str:
        if is_hash(value.reveal()):
            return value.reveal()
        return _hash_once(value, stable_salt(self.key, app, user, value.reveal()))


@lru_cache(maxsize=4096)
def _hash_once(password: Secret, salt: str) -> str:
    return hash_password(password.reveal(), salt)
