"""Checks that values read from the state are values that the platform can have written: names by the rules of
manifests, keys and paths by those of `keys` and `mounts`, numbers within their bounds. Pure; called for each
decoded value. A row is not trusted because of where it was found: what it names becomes paths, containers and
addresses."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable
from functools import singledispatch

from controller.domain.apps.followed_images import FollowedImage, FollowState
from controller.domain.apps.mounts import unmountable
from controller.domain.apps.orders import AppOrder, OrderKind, OrderRecord, is_order_id
from controller.domain.apps.spec import CronSchedule, EnvVar, Limits, PipelineVar, Resources, Retries, Webhook
from controller.domain.apps.status import (
    AppStatus,
    ComponentStatus,
    Event,
    ReplicaExit,
    ReplicaStatus,
    RepositoryRecord,
)
from controller.domain.apps.usage import TakenShare
from controller.domain.names import PATH_SEGMENT, PLATFORM, is_dns_label
from controller.domain.people.accounts import is_account_name
from controller.domain.people.quotas import AppShare, Quota
from controller.domain.routing.async_calls import AsyncCall, EndedCall, is_call_id
from controller.domain.routing.routes import Api, Route, Service
from controller.domain.runs.pipeline import Pipeline, Stage
from controller.domain.runs.run import Attempt, Run, RunInput, RunOutput, StageRun, Transition
from controller.domain.runs.webhooks import is_url
from controller.domain.storage.box import BoxRecord, PendingUpload
from controller.domain.storage.keys import parse_path
from controller.domain.templates import (
    LONGEST_VALUE,
    TemplateRecord,
    TemplateVariable,
    is_template_name,
    variable_problem,
)
from controller.domain.templates import (
    MOST_VARIABLES as MOST_TEMPLATE_VARIABLES,
)

VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,499}")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_REVISION = re.compile(r"[A-Za-z0-9._-]{0,100}")
_RUN = re.compile(r"[0-9a-z]{1,40}")
_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_-]{0,99}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{0,61}[a-z0-9]")
_UPSTREAM = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
_PROGRESS = re.compile(r"(?:[0-9]{1,12}/[0-9]{1,12})?")
_DATATYPE = re.compile(r"[A-Za-z0-9_]{1,40}")

MOST_STAGES = 100
MOST_VARIABLES = 200
MOST_TEXT = 100_000  # characters of a value of a variable of the environment
MOST_USER = 1000  # characters of a caller's name
MOST_CALL_TEXT = 5000  # characters of what is said about an async call
PRIORITIES = range(-10, 11)


class IntegrityError(ValueError):
    """A value that the platform has not written."""


@singledispatch
def require_integrity(value: object) -> None:
    """Check a value whose parts have been checked. Kinds that name nothing have no rules. Raises IntegrityError."""


def variable(name: str) -> None:
    _require(VARIABLE.fullmatch(name), "the name of a variable", name)


def label(name: str, what: str) -> None:
    _require(is_dns_label(name), what, name)


def _require(sound: object, what: str, found: object) -> None:
    if not sound:
        raise IntegrityError(f"{str(found)[:80]!r} is not {what}")


def _number(value: float | None, what: str, least: float = 0.0, most: float = math.inf) -> None:
    _require(value is None or (math.isfinite(value) and least <= value <= most), what, value)


def _path(text: str, group: bool = False) -> None:
    """ValueError, too, from the rules of keys."""
    _require(text and (parse_path(text).is_group or not group), "the path of files in a box", text)


def _alone(names: Iterable[str], what: str, most: int) -> None:
    found = tuple(names)
    _require(len(set(found)) == len(found) <= most, what, found)


# --- pipelines --------------------------------------------------------------------------------------------------


@require_integrity.register
def _env_var(value: EnvVar) -> None:
    _require(_ENV.fullmatch(value.name), "the name of a variable of the environment", value.name)
    text = "\0" not in value.value and len(value.value) <= MOST_TEXT
    _require(text, "the value of a variable of the environment", value.value)


@require_integrity.register
def _resources(value: Resources) -> None:
    _number(value.cpus, "a number of CPUs", most=1024)
    _number(value.memory, "an amount of memory", least=1)
    _number(value.gpus, "a number of GPUs", most=64)
    _number(value.per_gpu, "a number of containers that share a GPU", least=1, most=64)
    _number(value.pids, "a number of processes", least=1, most=4194304)
    if value.shm is not None:
        _number(value.shm, "an amount of shared memory", least=1)


@require_integrity.register
def _retries(value: Retries) -> None:
    _number(value.limit, "a number of repetitions", most=100)
    _number(value.factor, "a factor", most=100)
    for seconds in (value.backoff, value.cap):
        _number(seconds, "a duration")


@require_integrity.register
def _limits(value: Limits) -> None:
    for limit in (value.cpus, value.memory, value.storage, value.containers, value.gpus):
        _number(limit, "a limit")


@require_integrity.register
def _variable(value: PipelineVar) -> None:
    variable(value.name)
    if value.mount_from is not None:
        label(value.mount_from[0], "the name of a box")
        _path(value.mount_from[1])
    if value.publish_to is not None:
        label(value.publish_to[0], "the name of a box")
        _path(value.publish_to[1], group=True)
    if value.mount_to is not None:
        plain = posixpath.isabs(value.mount_to) and posixpath.normpath(value.mount_to) == value.mount_to
        sound = plain and "\0" not in value.mount_to and not unmountable(value.name, value.mount_to)
        _require(sound, "a path that can be mounted", value.mount_to)


@require_integrity.register
def _stage(value: Stage) -> None:
    label(value.name, "the name of a stage")
    _require(_IMAGE.fullmatch(value.image), "an image", value.image)
    plain = len(value.command) <= 1000 and not any("\0" in part for part in value.command)
    _require(plain, "a command", value.command)
    for name in (*value.inputs, *value.outputs):
        variable(name)
    _alone((*value.inputs, *value.outputs), "a list of different variables", MOST_VARIABLES)
    for name in value.env_from:
        label(name, "the name of a Secret")
    if value.timeout is not None:
        _number(value.timeout, "a timeout", least=1e-9)


@require_integrity.register
def _webhook(value: Webhook) -> None:
    label(value.secret, "the name of a Secret")
    _require(not value.url or is_url(value.url), "the URL of a webhook", value.url)


@require_integrity.register
def _schedule(value: CronSchedule) -> None:
    plain = len(value.cron) <= 200 and value.cron.isprintable()
    _require(plain, "a schedule", value.cron)
    parts = value.timezone.split("/")
    zone = len(value.timezone) <= 100 and all(re.fullmatch(r"[A-Za-z0-9_+-]+", part) for part in parts)
    _require(zone, "a time zone", value.timezone)


@require_integrity.register
def _pipeline(value: Pipeline) -> None:
    label(value.app, "the name of an app")
    label(value.name, "the name of a pipeline")
    _require(_REVISION.fullmatch(value.revision), "a commit", value.revision)
    _alone((stage.name for stage in value.stages), "a list of different stages", MOST_STAGES)
    _alone((var.name for var in value.vars), "a list of different variables", MOST_VARIABLES)
    made = [name for stage in value.stages for name in stage.outputs]
    _alone(made, "a list of different outputs", MOST_STAGES * MOST_VARIABLES)
    for name in value.boxes:
        label(name, "the name of a box")
    for left_out in value.optional:
        variable(left_out)
    if value.continue_with is not None:
        label(value.continue_with, "the name of a pipeline")
    _number(value.concurrency, "a number of runs", least=1, most=1000)
    for seconds in (value.ttl_succeeded, value.ttl_failed):
        _number(seconds, "a duration")


# --- runs -------------------------------------------------------------------------------------------------------


@require_integrity.register
def _transition(value: Transition) -> None:
    _number(value.at, "a moment")


@require_integrity.register
def _attempt(value: Attempt) -> None:
    _number(value.number, "the number of an attempt", least=1)
    for moment in (value.started, value.ended):
        _number(moment, "a moment")
    for gpu in value.gpus:
        _require(gpu and len(gpu) <= 100 and gpu.isprintable() and "," not in gpu, "a GPU", gpu)


@require_integrity.register
def _stage_run(value: StageRun) -> None:
    label(value.name, "the name of a stage")
    _require(not value.reused_from or _RUN.fullmatch(value.reused_from), "a run", value.reused_from)
    _require(_PROGRESS.fullmatch(value.progress), "a progress", value.progress)
    numbers = [attempt.number for attempt in value.attempts]
    _require(numbers == list(range(1, len(numbers) + 1)), "a list of attempts", numbers)
    _number(value.not_before, "a moment")
    _number(value.ticket, "a place in a line")


@require_integrity.register
def _async_call(value: AsyncCall) -> None:
    _require(is_call_id(value.id), "the id of a call", value.id)
    label(value.app, "the name of an app")
    label(value.component, "the name of a component")
    _require(re.fullmatch(PATH_SEGMENT, value.api), "the path of an API", value.api)
    _require(len(value.user) <= MOST_USER and "\0" not in value.user, "the name of a caller", value.user)
    for text in (value.reason, value.message, value.content_type):
        _require(len(text) <= MOST_CALL_TEXT, "a text of a call", text)
    for moment in (value.created, value.started, value.ended):
        _number(moment, "a moment")
    _number(value.status, "a status", most=599)
    _number(value.length, "a size")


@require_integrity.register
def _ended_call(value: EndedCall) -> None:
    _require(value.call.state.terminal, "the state of a call that is over", value.call.state)
    _require(not value.webhook or is_url(value.webhook), "the URL of a webhook", value.webhook)


@require_integrity.register
def _run_input(value: RunInput) -> None:
    variable(value.name)
    _require(_DATATYPE.fullmatch(value.datatype), "a datatype", value.datatype)
    if value.box:
        label(value.box, "the name of a box")
    if value.datatype == "FILE" and value.data:
        _path(value.data)


@require_integrity.register
def _run_output(value: RunOutput) -> None:
    variable(value.name)
    if value.box:
        label(value.box, "the name of a box")
    if value.data:
        _path(value.data.rstrip("/") + "/", group=True)


@require_integrity.register
def _run(value: Run) -> None:
    _require(_RUN.fullmatch(value.id), "a run", value.id)
    _require(value.app == value.pipeline.app, "the app of its pipeline", value.app)
    _require(not value.origin or _RUN.fullmatch(value.origin), "a run", value.origin)
    _require(not value.webhook or is_url(value.webhook), "the URL of a webhook", value.webhook)
    user = value.user or ""
    _require(len(user) <= MOST_USER and "\0" not in user, "the name of a caller", user)
    _require(value.priority in PRIORITIES, "a priority", value.priority)
    _number(value.created, "a moment")
    _number(value.version, "a version")
    stages = [stage.name for stage in value.pipeline.stages]
    _require([stage.name for stage in value.stages] == stages, "the stages of its pipeline", value.id)
    made = set(value.pipeline.made)
    outputs = [output.name for output in value.outputs]
    _alone(outputs, "a list of different outputs", MOST_VARIABLES)
    _require(made.issuperset(outputs), "a list of what its stages make", outputs)
    _require(made.issuperset(value.released), "a list of what its stages make", value.released)
    _alone((given.name for given in value.inputs), "a list of different inputs", MOST_VARIABLES)


# --- what is served and stored ----------------------------------------------------------------------------------


@require_integrity.register
def _api(value: Api) -> None:
    _require(PATH_SEGMENT.fullmatch(value.path), "a path", value.path)
    label(value.name, "the name of an API")


@require_integrity.register
def _route(value: Route) -> None:
    label(value.app, "the name of an app")
    label(value.component, "the name of a component")
    for upstream in value.upstreams:
        _require(_UPSTREAM.fullmatch(upstream), "an address", upstream)
    for name in value.boxes:
        label(name, "the name of a box")


@require_integrity.register
def _service(value: Service) -> None:
    label(value.app, "the name of an app")
    if value.pipeline is not None:
        label(value.pipeline, "the name of a pipeline")


@require_integrity.register
def _repository(value: RepositoryRecord) -> None:
    label(value.name, "the name of a repository")
    for app in (*value.apps, *(watch.app for watch in value.previews)):
        _app(app)


@require_integrity.register
def _component_status(value: ComponentStatus) -> None:
    _require(not value.model or _DIGEST.fullmatch(value.model), "the digest of a model", value.model)


@require_integrity.register
def _replica_status(value: ReplicaStatus) -> None:
    _require(_CONTAINER.fullmatch(value.name), "the name of a container", value.name)
    _number(value.since, "a time")


@require_integrity.register
def _replica_exit(value: ReplicaExit) -> None:
    _require(_CONTAINER.fullmatch(value.name), "the name of a container", value.name)
    _number(value.at, "a time")
    _number(value.code, "an exit code", most=2**32)


@require_integrity.register
def _app_status(value: AppStatus) -> None:
    _app(value.app)
    for _, digest in value.models:
        _require(_DIGEST.fullmatch(digest), "the digest of a model", digest)
    for pair in value.pins:
        for text in pair:
            _require(len(text) <= 1000, "an image", text)
    for images in (value.attempted_images, value.desired_images, value.applied_images):
        for subject, image in images:
            _followed(subject, image)


def _followed(subject: str, image: str) -> None:
    parts = subject.split("/")
    _require(len(parts) <= 2 and all(map(is_dns_label, parts)), "what follows an image", subject)
    _require(_IMAGE.fullmatch(image), "an image", image)


@require_integrity.register
def _followed_image(value: FollowedImage) -> None:
    _followed(value.subject, value.reference)
    _number(value.follow.interval, "an interval")


@require_integrity.register
def _follow_state(value: FollowState) -> None:
    for image in filter(None, (value.image, value.written)):
        _require(_IMAGE.fullmatch(image), "an image", image)
    for number in (value.since, value.asked, value.next, value.failures):
        _number(number, "a moment")


@require_integrity.register
def _event(value: Event) -> None:
    _app(value.app)


@require_integrity.register
def _box(value: BoxRecord) -> None:
    label(value.app, "the name of an app")
    label(value.box, "the name of a box")
    _require(_BUCKET.fullmatch(value.bucket), "a bucket", value.bucket)
    for number in (value.capacity, value.used, value.files, value.measured, value.since, value.changed):
        _number(number, "an amount")


@require_integrity.register
def _pending(value: PendingUpload) -> None:
    _require(_BUCKET.fullmatch(value.bucket), "a bucket", value.bucket)
    _number(value.size, "an amount")
    for moment in (value.created, value.expires):
        _number(moment, "a moment", least=-math.inf)


@require_integrity.register
def _taken_share(value: TakenShare) -> None:
    label(value.app, "the name of an app")
    _number(value.most, "a number", most=2**53)


# --- new apps ---------------------------------------------------------------------------------------------------


@require_integrity.register
def _quota(value: Quota) -> None:
    for number in (value.apps, value.cpus, value.memory, value.storage, value.gpus):
        _number(number, "a quota")


@require_integrity.register
def _order(value: AppOrder) -> None:
    _require(is_order_id(value.id), "the id of an order", value.id)
    label(value.app, "the name of an app")
    _require(not value.by or is_account_name(value.by), "the name of an account", value.by)
    if value.kind is OrderKind.CREATE:
        _require(is_template_name(value.template), "the name of a template", value.template)
        _require(value.limits is not None, "the limits of an app", value.limits)
        _require(value.quota is None or value.by, "somebody's quota", value.by)
    _alone((name for name, _ in value.values), "a list of different variables", MOST_TEMPLATE_VARIABLES)
    for name, text in value.values:
        short = len(name) <= LONGEST_VALUE and len(text) <= LONGEST_VALUE
        _require(short and name.isprintable() and text.isprintable(), "the value of a variable", text)


@require_integrity.register
def _order_record(value: OrderRecord) -> None:
    for moment in (value.created, value.ended):
        _number(moment, "a moment")
    for name in value.files:
        inside = name and not posixpath.isabs(name) and ".." not in name.split("/") and "\0" not in name
        _require(inside, "a file of the platform folder", name)
    _require(not value.repository or is_dns_label(value.repository), "a repository", value.repository)


@require_integrity.register
def _share(value: AppShare) -> None:
    label(value.app, "the name of an app")
    _require(is_account_name(value.owner), "the name of an account", value.owner)


@require_integrity.register
def _template_variable(value: TemplateVariable) -> None:
    problem = variable_problem(value)
    _require(not problem, "the variable of a template", value.name)


@require_integrity.register
def _template(value: TemplateRecord) -> None:
    _require(is_template_name(value.name), "the name of a template", value.name)


def _app(name: str) -> None:
    _require(name == PLATFORM or is_dns_label(name), "the name of an app", name)
