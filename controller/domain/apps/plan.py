"""A plan is a value: it can be printed, stored and tested as text. Every action says why. No decisions here.

Each action has a line in `describe`, a method that the executor calls and a golden test, found by the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from controller.domain.apps.desired import BuildInput, Workload
from controller.domain.apps.smoke import SmokeCase
from controller.domain.apps.spec import ComponentKind, OwnServer, PlatformServer
from controller.domain.localizable import Localizable, joined
from controller.domain.names import AppName, ComponentName, is_stage, short
from controller.domain.reasons import Reason
from controller.domain.routing.routes import Route, Service
from controller.domain.runs.gpus import GpuRequest
from controller.domain.runs.pipeline import Pipeline
from controller.domain.storage.box import BoxRecord, ModelPin, StorageAccount
from controller.domain.units import about_size


@dataclass(frozen=True)
class EnsureNetwork:
    why: str


@dataclass(frozen=True)
class PullImage:
    component: ComponentName
    reference: str
    why: str


@dataclass(frozen=True)
class BuildImageAction:
    """Is alone in its group: only the resulting image shows whether anything has to be replaced. `fingerprint`
    stands for the version until then."""

    component: ComponentName
    tag: str
    build: BuildInput
    fingerprint: str
    why: str


@dataclass(frozen=True)
class StartWorkload:
    """`heals` means that it replaces one that had served and died; these are counted, so that a crash loop ends."""

    workload: Workload
    name: str
    why: str
    heals: bool = False
    node_lost: bool = False  # why it heals: it is not counted, since no crash loop is behind it


@dataclass(frozen=True)
class AwaitReady:
    """Wait until all `names` answer as ready, at most `deadline` seconds after each was started."""

    component: ComponentName
    fingerprint: str
    names: tuple[str, ...]
    path: str  # asked for readiness
    deadline: float
    why: str


@dataclass(frozen=True)
class RunSmokeTest:
    """Send the request of a smoke test to the first of `names`, which is ready, and compare its answer."""

    component: ComponentName
    fingerprint: str
    names: tuple[str, ...]
    case: SmokeCase
    server: PlatformServer | OwnServer
    why: str


@dataclass(frozen=True)
class SwitchRoute:
    """Put `route` in force; its upstreams are filled in from the addresses of the workloads `names`. No
    names: the component answers 503 until the next switch. In the same step its paths are taken from whatever
    answered them; those in `keeps` are not taken, they stay until something else takes them."""

    route: Route
    names: tuple[str, ...]
    why: str
    keeps: frozenset[str] = frozenset()

    @property
    def takes(self) -> frozenset[str]:
        return frozenset(api.path for api in self.route.apis) - self.keeps


@dataclass(frozen=True)
class WithdrawRoute:
    component: ComponentName
    why: str


@dataclass(frozen=True)
class DrainWorkload:
    """Wait until no gateway has a request under way to it any more, at most `timeout` seconds."""

    component: ComponentName
    name: str
    id: str
    endpoint: str
    timeout: float
    why: str


@dataclass(frozen=True)
class RemoveWorkload:
    component: ComponentName
    name: str
    id: str
    why: str


@dataclass(frozen=True)
class RemoveNetwork:
    why: str


@dataclass(frozen=True)
class CreateBucket:
    """The record is written before the bucket is made, so that no bucket of ours is ever unknown."""

    record: BoxRecord
    why: str


@dataclass(frozen=True)
class CopyBox:
    """Create the bucket if necessary, copy what the box `source` of another app has into it, and let it be a box like
    others. As much as fits into its time: what is left is copied by the next passes."""

    record: BoxRecord
    source: BoxRecord
    why: str


@dataclass(frozen=True)
class UpdateBox:
    """Change the capacity or reclaim policy, or record that the box is declared again."""

    record: BoxRecord
    why: str


@dataclass(frozen=True)
class KeepBucket:
    """Keep the data of a box that the app no longer declares, until a person decides."""

    record: BoxRecord
    why: str


@dataclass(frozen=True)
class RemoveBucket:
    """Remove the bucket with all its data."""

    record: BoxRecord
    why: str


@dataclass(frozen=True)
class EnsureAccount:
    """Create a user of the storage for one component, who can reach only its connected boxes."""

    account: StorageAccount
    why: str


@dataclass(frozen=True)
class RemoveAccount:
    name: str
    why: str


@dataclass(frozen=True)
class StageModel:
    """Fetch the model from its box."""

    component: ComponentName
    model: ModelPin
    why: str


@dataclass(frozen=True)
class PublishPipelines:
    """Publish exactly these pipelines; runs that have started do not change."""

    pipelines: tuple[Pipeline, ...]
    why: str


@dataclass(frozen=True)
class PublishServices:
    """Publish exactly these APIs of the platform itself; `keeps` as for `SwitchRoute`."""

    services: tuple[Service, ...]
    why: str
    keeps: frozenset[str] = frozenset()

    @property
    def takes(self) -> frozenset[str]:
        return frozenset(service.api.path for service in self.services) - self.keeps


StorageAction = (
    CreateBucket
    | CopyBox
    | UpdateBox
    | KeepBucket
    | RemoveBucket
    | EnsureAccount
    | RemoveAccount
    | StageModel
)

#: Groups that only remove consist of these actions.
GOING = (WithdrawRoute, DrainWorkload, RemoveWorkload, RemoveBucket, RemoveAccount)

Action = (
    EnsureNetwork
    | PullImage
    | BuildImageAction
    | StartWorkload
    | AwaitReady
    | RunSmokeTest
    | SwitchRoute
    | WithdrawRoute
    | DrainWorkload
    | RemoveWorkload
    | RemoveNetwork
    | PublishServices
    | PublishPipelines
    | StorageAction
)


def describe(action: Action) -> str:
    """Return one line for people, without the reason. Holds no secret: environments are not shown."""
    match action:
        case EnsureNetwork():
            return Localizable("create network")
        case PullImage(reference=reference):
            return Localizable("pull image {reference}", reference=reference)
        case BuildImageAction(tag=tag):
            return Localizable("build image {tag}", tag=tag)
        case StartWorkload(name=name):
            return Localizable("start {name}", name=name)
        case AwaitReady() | RunSmokeTest():
            return _describe_trial(action)
        case SwitchRoute(route=route, names=names):
            return Localizable(
                "switch route {component} -> {version}",
                component=route.component,
                version=short(route.fingerprint) if names else Localizable("nothing"),
            )
        case WithdrawRoute(component=component):
            return Localizable("withdraw route {component}", component=component)
        case DrainWorkload(name=name):
            return Localizable("drain {name}", name=name)
        case RemoveWorkload(name=name):
            return Localizable("remove {name}", name=name)
        case RemoveNetwork():
            return Localizable("remove network")
        case PublishPipelines() | PublishServices():
            return Localizable("publish {action}", action=_published(action))
        case _:
            return _describe_storage(action)


def _describe_trial(action: AwaitReady | RunSmokeTest) -> str:
    version = f"{action.component}@{short(action.fingerprint)}"
    if isinstance(action, AwaitReady):
        return Localizable("await ready {version} ({count})", version=version, count=len(action.names))
    return Localizable("smoke test {version}", version=version)


def _published(action: PublishPipelines | PublishServices) -> str:
    if isinstance(action, PublishPipelines):
        return ", ".join(pipeline.name for pipeline in action.pipelines) or Localizable("no pipeline")
    return ", ".join(service.api.path for service in action.services) or Localizable("no service")


def _describe_storage(action: StorageAction) -> str:
    match action:
        case CreateBucket(record=record):
            return Localizable(
                "create bucket {bucket} ({capacity})",
                bucket=record.bucket,
                capacity=about_size(record.capacity),
            )
        case CopyBox(record=record, source=source):
            return Localizable(
                "copy box {app}/{box} into bucket {bucket} ({capacity})",
                app=source.app,
                box=source.box,
                bucket=record.bucket,
                capacity=about_size(record.capacity),
            )
        case UpdateBox(record=record):
            return Localizable(
                "update box {box} ({capacity}, {reclaim})",
                box=record.box,
                capacity=about_size(record.capacity),
                reclaim=record.reclaim,
            )
        case KeepBucket(record=record):
            return Localizable("keep bucket {bucket} of box {box}", bucket=record.bucket, box=record.box)
        case RemoveBucket(record=record):
            return Localizable(
                "remove bucket {bucket} with {files} files", bucket=record.bucket, files=record.files
            )
        case EnsureAccount(account=account):
            return Localizable("ensure storage account {account}", account=account.name)
        case RemoveAccount(name=name):
            return Localizable("remove storage account {name}", name=name)
        case StageModel(model=model):
            return Localizable(
                "stage model {model}@{digest} ({size})",
                model=model.name,
                digest=short(model.digest),
                size=about_size(model.size),
            )


def subject(group: tuple[Action, ...]) -> tuple[ComponentKind, ComponentName]:
    """The subject of a group of a plan: a component, a box, the image of a stage; or else a part of the app that
    no component has to itself, which is named by a phrase."""
    about = [_about(action) for action in group]
    return next((found for found in about if found[0] is not ComponentKind.PLATFORM_APP), about[0])


def version_of(group: tuple[Action, ...]) -> str:
    """Return the fingerprint of the version that the group starts; empty if it starts none."""
    return next((a.fingerprint for a in group if isinstance(a, (AwaitReady, BuildImageAction))), "")


def rerouted(group: tuple[Action, ...]) -> tuple[Action, ...]:
    """Return the switches at the beginning of a group that is held, which take dead replicas out of the route and need
    nothing but the route table. One that withdraws the traffic of another version belongs to the removal of that."""
    version = version_of(group)
    return tuple(
        takewhile(lambda a: isinstance(a, SwitchRoute) and version in ("", a.route.fingerprint), group)
    )


def _about(action: Action) -> tuple[ComponentKind, ComponentName]:
    match action:
        case StartWorkload(workload=workload):
            return ComponentKind.ML_COMPONENT, workload.component
        case SwitchRoute(route=route):
            return ComponentKind.ML_COMPONENT, route.component
        case PullImage(component=name) | BuildImageAction(component=name):
            return ComponentKind.EXPERIMENT_PIPELINE if is_stage(name) else ComponentKind.ML_COMPONENT, name
        case (
            StageModel(component=name)
            | AwaitReady(component=name)
            | RunSmokeTest(component=name)
            | WithdrawRoute(component=name)
            | DrainWorkload(component=name)
            | RemoveWorkload(component=name)
        ):
            return ComponentKind.ML_COMPONENT, name
        case CreateBucket() | CopyBox() | UpdateBox() | KeepBucket() | RemoveBucket():
            return ComponentKind.DATA_BOX, action.record.box
        case _:
            return ComponentKind.PLATFORM_APP, ComponentName(_shared_part(action))


def _shared_part(action: Action) -> str:
    match action:
        case EnsureAccount(account=account):
            return Localizable("storage account {account}", account=account.name)
        case RemoveAccount(name=name):
            return Localizable("storage account {name}", name=name)
        case PublishPipelines():
            return Localizable("the pipelines")
        case PublishServices():
            return Localizable("the APIs of the platform")
        case _:
            return Localizable("the network")


def subject_text(kind: ComponentKind, name: str) -> str:
    return name if kind in (ComponentKind.ML_COMPONENT, ComponentKind.PLATFORM_APP) else f"{kind} {name}"


@dataclass(frozen=True)
class Hold:
    """Something that was deliberately not planned, with the reason; shown with the actions."""

    component: ComponentName | None
    reason: Reason
    why: str
    retry_after: float | None = None  # seconds after which the decision may change by itself
    kind: ComponentKind = ComponentKind.ML_COMPONENT
    failed: bool = False  # the last attempt at it failed
    transient: bool = False  # and it is retried

    @property
    def subject(self) -> str:
        """Return the subject of the action; it includes the kind, because names are unique only within a kind."""
        return Localizable("app") if self.component is None else subject_text(self.kind, self.component)


@dataclass(frozen=True)
class Plan:
    """`steps` groups the actions of one component: groups are independent of each other, so that one component's
    failure does not stop its neighbours; actions within a group run in order and stop at the first error. Groups that
    only take away go last, once all others have succeeded. `requests` are the GPUs that held components wait for;
    `paused` are starts that wait for their next attempt, and keep the GPUs that they have been lent."""

    app: AppName
    revision: str
    steps: tuple[tuple[Action, ...], ...] = ()
    holds: tuple[Hold, ...] = ()
    requests: tuple[GpuRequest, ...] = ()
    paused: tuple[StartWorkload, ...] = ()

    @property
    def empty(self) -> bool:
        return not any(self.steps)

    @property
    def actions(self) -> tuple[Action, ...]:
        return tuple(action for group in self.steps for action in group)

    def render(self) -> str:
        """Return the plan as text, for dry runs and for the tests. Equal plans give equal text."""
        lines: list[str] = [
            Localizable("plan {app} @ {revision}", app=self.app, revision=self.revision[:12] or "-")
        ]
        lines += [joined(("  ", describe(action), "  # ", action.why), "") for action in self.actions]
        lines += [
            Localizable("  hold {subject}: {reason}  # {why}", subject=h.subject, reason=h.reason, why=h.why)
            for h in self.holds
        ]
        if self.empty and not self.holds:
            lines.append(Localizable("  nothing to do"))
        return joined(lines, "\n")
