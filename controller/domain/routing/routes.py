"""The routes of the gateway: for each component, its upstreams and the APIs that lead to them.

The daemon writes routes, the web process reads them; a route changes in one transaction, so no request ever
sees an incomplete rollout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from controller.domain.apps.spec import ApiVariable, CorsSpec, Webhook
from controller.domain.names import AppName, ComponentName


@dataclass(frozen=True)
class Api:
    """One published path. `users` maps a name to a password hash (werkzeug or bcrypt format), `tokens` a name
    to the hash of a bearer token (`sha256:<hex>`), `oidc_claims` a claim to the value that it must have; no
    users, tokens and issuer: everybody may call."""

    path: str
    name: ComponentName
    published: bool
    users: tuple[tuple[str, str], ...] = ()
    tokens: tuple[tuple[str, str], ...] = ()
    oidc_issuer: str | None = None
    oidc_audience: str | None = None
    oidc_client: str | None = None
    oidc_claims: tuple[tuple[str, str], ...] = ()
    oidc_username: str = ""  # the claim that names the caller, if not the usual ones
    pass_identity: bool = False
    cors: CorsSpec | None = None  # None: no page of another origin may call

    @property
    def open_to_all(self) -> bool:
        return not (self.users or self.tokens or self.oidc_issuer)


@dataclass(frozen=True)
class Route:
    """The traffic of one component. `fingerprint` is the version in service, which has been ready once;
    `upstreams` are the `IP:PORT` of its containers. Without one that takes calls, a call waits for `patience` until
    the component has healed, unless the route is `stalled`: then nothing repairs it before something changes. If the
    route is `asleep`, a call starts the component and waits for it."""

    app: AppName
    component: ComponentName
    fingerprint: str
    revision: str
    upstreams: tuple[str, ...]
    apis: tuple[Api, ...]
    timeout: float = 60.0  # seconds for one call as seen by the gateway
    any_path: bool = False  # an own server: every path and method below the API's path is passed on
    asleep: bool = False  # it hibernates: none of its containers runs
    wake_within: float = 0.0  # seconds that a call waits until it has started; 0: it does not hibernate
    patience: float = 0.0  # seconds that a call waits while the component heals; 0: it gets 503 at once
    idempotent: bool = False  # calls may run twice without harm, whatever their method
    stalled: str = ""  # why nobody repairs the component now, for its callers; empty while it is kept up
    ready_path: str = (
        ""  # answers 200 where a container can take calls; empty: one that takes connections can
    )
    boxes: tuple[
        ComponentName, ...
    ] = ()  # where FILE variables of calls lie, the default one first; none: not staged
    async_timeout: float = 600.0  # seconds that the component has for one async call
    concurrency: int = 1  # calls at once in one container
    webhook: Webhook | None = None  # at the end of async calls
    drain: float = 30.0  # seconds until a container is removed that traffic has left

    @property
    def in_service(self) -> bool:
        """Return True if calls are answered, even if the first one has to wait."""
        return self.asleep or bool(self.upstreams)


class ServiceKind(StrEnum):
    FILES = "files"
    PIPELINE = "pipeline"
    PIPELINES = "pipelines"


@dataclass(frozen=True)
class Service:
    """An API that the platform answers itself: files of boxes, runs of one pipeline or of all. `inputs` and `outputs`
    are what the `apiSpec` of a pipeline's API declares."""

    app: AppName
    api: Api
    kind: ServiceKind
    developers: tuple[str, ...] = ()  # files: users who may use the developer area
    pipeline: ComponentName | None = None
    inputs: tuple[ApiVariable, ...] = ()
    outputs: tuple[ApiVariable, ...] = ()
