"""Resolves APIs: who may call each of them, from the Secrets that its manifest names. An API whose callers are not
known is never published, since it would be open to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from controller.domain.apps.desired import Unresolved
from controller.domain.apps.fingerprint import Env
from controller.domain.apps.spec import (
    ApiSpec,
    AppSpec,
    ComponentKind,
    FilesTarget,
    MLTarget,
    PipelineTarget,
    SecretSpec,
)
from controller.domain.errors import Stalled
from controller.domain.localizable import Localizable
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.routing.callers import unusable_passwords, unusable_tokens
from controller.domain.routing.passwords import cost_problem, hash_password, hash_token, is_hash, stable_salt
from controller.domain.routing.routes import Api, Service, ServiceKind
from controller.domain.secret import Secret


class ApiAccess:
    """`need` returns a Secret of the app by its name, or raises Stalled `AwaitingSecret`."""

    def __init__(self, key: bytes, need: Callable[[str, AppName], SecretSpec]) -> None:
        self._key = key
        self._need = need

    def services(self, spec: AppSpec) -> tuple[tuple[Service, ...], tuple[Unresolved, ...]]:
        """Return the services. A service whose access rules are not available is not published, since it must
        never be open to all by accident.
        """
        services, refused = [], []
        for api in sorted(spec.apis, key=lambda api: api.path):
            if isinstance(api.target, MLTarget):
                continue
            try:
                found = self._api(api, spec.app)
            except Stalled as error:
                waiting, kind = error.reason == Reason.AWAITING_SECRET, ComponentKind.API_COMPONENT
                refused.append(Unresolved(api.name, error.reason, error.message, kind=kind, waiting=waiting))
                continue
            services.append(_service(spec.app, found, api))
        return tuple(services), tuple(refused)

    def apis(self, component: ComponentName, spec: AppSpec) -> tuple[Api, ...]:
        ours = [
            api for api in spec.apis if isinstance(api.target, MLTarget) and api.target.component == component
        ]
        return tuple(self._api(api, spec.app) for api in sorted(ours, key=lambda api: api.path))

    def _api(self, api: ApiSpec, app: AppName) -> Api:
        users = self._callers(api.auth.basic, app, unusable_passwords) if api.auth.basic else ()
        tokens = self._callers(api.auth.token, app, unusable_tokens) if api.auth.token else ()
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
            oidc_username=oidc.username_claim if oidc else "",
            pass_identity=api.auth.identity_pass_through,
            cors=api.cors,
        )

    def _callers(self, name: str, app: AppName, unusable: Callable[[SecretSpec], Iterable[str]]) -> Env:
        """Return the callers, which are never empty: an API without callers would be taken for one open to
        all.
        """
        found = self._need(name, app)
        if not found.values:
            raise Stalled(
                Reason.SECRET_EMPTY,
                Localizable("the Secret {name!r} names no callers; add `user: password hash`", name=name),
            )
        for why in unusable(found):
            raise Stalled(Reason.CALLERS_INVALID, why)
        return found.values

    def _hashed(self, app: AppName, user: str, value: Secret) -> str:
        if is_hash(value.reveal()):
            if problem := cost_problem(value.reveal()):
                advice = Localizable("create one with `prichal password hash`")
                text = Localizable(
                    "the password hash of {user!r} takes too long to check: {problem}; {advice}",
                    user=user,
                    problem=problem,
                    advice=advice,
                )
                raise Stalled(Reason.PASSWORD_HASH_TOO_COSTLY, text)
            return value.reveal()
        return _hash_once(value, stable_salt(self._key, app, user, value.reveal()))


def _service(app: AppName, api: Api, declared: ApiSpec) -> Service:
    match declared.target:
        case FilesTarget(developers=developers):
            return Service(app, api, ServiceKind.FILES, developers)
        case PipelineTarget(pipeline=pipeline):
            inputs, outputs = declared.inputs, declared.outputs
            return Service(app, api, ServiceKind.PIPELINE, pipeline=pipeline, inputs=inputs, outputs=outputs)
        case _:
            return Service(app, api, ServiceKind.PIPELINES)


@lru_cache(maxsize=4096)
def _hash_once(password: Secret, salt: str) -> str:
    return hash_password(password.reveal(), salt)
