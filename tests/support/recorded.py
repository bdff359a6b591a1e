"""What a platform in use has in its store: apps in every state, with messages as they occur and as nobody wants them.
Pages are tested and photographed on it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from io import BytesIO
from typing import Any

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.history import AppliedRevision, ManifestText
from controller.domain.apps.observed import WorkloadState
from controller.domain.apps.orders import AppOrder, OrderKind
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.plan import EnsureNetwork, Hold, Plan, RemoveNetwork
from controller.domain.apps.samples import Sample
from controller.domain.apps.secret_uses import SecretUse
from controller.domain.apps.spec import Limits
from controller.domain.apps.status import (
    AppStatus,
    BoxStatus,
    ComponentStatus,
    Event,
    EventType,
    ReplicaExit,
    ReplicaStatus,
)
from controller.domain.apps.usage import Usage
from controller.domain.errors import ManifestInvalid, ManifestProblem
from controller.domain.localizable import Localizable, as_document, joined
from controller.domain.names import PLATFORM, AppName, ComponentName
from controller.domain.notifications.alerts import Alert, AlertType
from controller.domain.notifications.content import document
from controller.domain.notifications.delivery import Digest, Fate, NotificationState, Problem
from controller.domain.notifications.records import check_id, message_id, outgoing
from controller.domain.notifications.spec import Channel, NotificationSpec, Severity
from controller.domain.reasons import Reason
from controller.domain.runs.run import Attempt, Run, RunInput, RunState, Transition, new_run, new_run_id
from controller.domain.runs.webhooks import Message
from controller.domain.secret import Secret
from controller.domain.storage.box import BoxRecord
from controller.domain.storage.keys import DEVELOPER_AREA
from controller.domain.templates import TemplateRecord, Words
from controller.encryption import SecretKeys
from controller.ports import Objects
from controller.store import SqliteStore
from controller.templates.builtin import builtin
from tests.support.gateway import make_api, make_route
from tests.support.runs import make_pipeline, one_pipeline

HOSTILE = """Ошибка «модели» </script><script>document.title = "taken"</script><img src=x onerror="document.title='x'">
вторая строка 'с кавычками' & "знаками" {{ 7 * 7 }} ${7 * 7}"""
REVISION = "7d1c60a0f2b4c5d6e7f8091a2b3c4d5e6f708192"
#: A commit of `demo-colors` that was ready before.
GOOD = "1f0c9a2e77aa4b5c6d7e8f90a1b2c3d4e5f60718"
#: What the daemon writes when it has examined the machine.
_NO_GIT_SERVICE = Localizable(
    "the Git service does not listen at {path}, so pushes over HTTPS fail", path="/run/prichal/git.sock"
)
_START_GIT_SERVICE = Localizable(
    "start it with: prichal git-http, or: systemctl enable --now prichal-git.socket"
)
EXAMINED: dict[str, Any] = {
    "at": "2026-11-29T12:00:00.000Z",
    "checks": [
        {"name": "engine", "ok": True, "detail": "Docker 26.1.5", "advice": ""},
        {"name": "disk space", "ok": False, "detail": HOSTILE, "advice": "remove images: docker image prune"},
        {"name": "git program", "ok": True, "detail": "git version 2.47.3", "advice": ""},
        {
            "name": "git over https",
            "ok": False,
            "detail": _NO_GIT_SERVICE,
            "advice": _START_GIT_SERVICE,
            "told": {"detail": as_document(_NO_GIT_SERVICE), "advice": as_document(_START_GIT_SERVICE)},
        },
    ],
}
MINUTE, HOUR = 60.0, 3600.0
GIT = "https://git.example.org/templates"


#: The bucket of the box `tables` of `demo-colors`.
TABLES = "prichal.demo-colors.tables"


def ready(at: float) -> Condition:
    declared = Localizable("{count} components as declared", count=3)
    message = joined(("7d1c60a0f2b4", declared), ": ")
    return Condition(ConditionType.READY, True, Reason.READY, message, at, REVISION)


def not_ready(at: float, reason: Reason, message: str) -> Condition:
    return Condition(ConditionType.READY, False, reason, message, at, REVISION)


def colors(now: float) -> AppStatus:
    """An app with all that the pages show."""
    serving = Condition(
        ConditionType.READY,
        True,
        Reason.SERVING,
        Localizable("version {fingerprint} serves", fingerprint="1f0c9a2e"),
        now - HOUR,
    )
    stored = Condition(ConditionType.READY, True, Reason.STORED, "", now - HOUR)
    return AppStatus(
        AppName("demo-colors"),
        repository="https://git.example.org/team/colors.git",
        attempted_revision=REVISION,
        applied_revision=REVISION,
        conditions=(ready(now - 5 * MINUTE),),
        components=(
            ComponentStatus(
                ComponentName("namer"),
                "MLComponent",
                fingerprint="1f0c9a2e77aa",
                image="sha256:1f0c",
                conditions=(serving,),
                restarts=(now - HOUR,),
                replicas=(
                    ReplicaStatus(
                        "prichal.demo-colors.namer.0e0e0e0e.0",
                        0,
                        "0e0e0e0e11bb",
                        "c0ffee",
                        WorkloadState.STOPPED,
                        now - 30 * HOUR,
                        "no space left on device",
                    ),
                    ReplicaStatus(
                        "prichal.demo-colors.namer.1f0c9a2e.0",
                        0,
                        "1f0c9a2e77aa",
                        REVISION,
                        WorkloadState.RUNNING,
                        now - HOUR,
                    ),
                ),
                last_exit=ReplicaExit(
                    "prichal.demo-colors.namer.0e0e0e0e.0", "0e0e0e0e11bb", now - HOUR, 137, True
                ),
            ),
            ComponentStatus(ComponentName("colors"), "APIComponent", conditions=(serving,)),
        ),
        boxes=(BoxStatus(ComponentName("tables"), TABLES, 10**8, 34_000_000, 1204, (stored,)),),
        secrets=(
            SecretUse("mail", ("MLComponent namer", "ExperimentPipeline train"), declared=False),
            SecretUse("callers", ("APIComponent colors",), declared=True),
            SecretUse("keys", ("MLComponent namer",), declared=True),
        ),
        plan=PLAN.render(),
    )


def others(now: float) -> list[AppStatus]:
    busy = Condition(
        ConditionType.RECONCILING,
        True,
        Reason.APPLYING,
        Localizable("building {dockerfile} in {context}", dockerfile="Dockerfile", context="."),
        now - 4.0,
    )
    invalid = Condition(
        ConditionType.MANIFEST_INVALID,
        True,
        Reason.MANIFEST_INVALID,
        ManifestInvalid(
            (
                ManifestProblem(
                    "manifests/api.yaml",
                    7,
                    3,
                    "spec.timeout",
                    Localizable("must be one mapping of keys to texts"),
                ),
            )
        ).message,
        now - HOUR,
    )
    pending = Condition(
        ConditionType.PRUNE_PENDING,
        True,
        Reason.PRUNE_PENDING,
        Localizable(
            "the commit declares nothing, {names} would all go; confirm with: prichal approve {app}",
            names="a, b",
            app="old-forecast",
        ),
        now - HOUR,
    )
    hostile = Condition(ConditionType.DEGRADED, True, Reason.DEGRADED, HOSTILE, now - 30.0)
    return [
        AppStatus(
            AppName("lab-speech"), "https://git.example.org/lab/speech.git", REVISION, conditions=(busy,)
        ),
        AppStatus(
            AppName("lab-vision"),
            "ssh://git@git.example.org/лаборатория/«зрение».git",
            REVISION,
            "",
            conditions=(not_ready(now - HOUR, Reason.MANIFEST_INVALID, invalid.message), invalid),
            failures=3,
        ),
        AppStatus(AppName("old-forecast"), "", REVISION, REVISION, conditions=(ready(now - HOUR), pending)),
        AppStatus(
            AppName("paused-search"),
            "",
            REVISION,
            REVISION,
            conditions=(ready(now - 40 * HOUR),),
            suspended=True,
        ),
        AppStatus(
            AppName("strange-words"),
            HOSTILE,
            REVISION,
            "",
            conditions=(not_ready(now - 30.0, Reason.FAILED, HOSTILE), hostile),
            components=(
                ComponentStatus(
                    ComponentName("reader"),
                    "MLComponent",
                    conditions=(not_ready(now, Reason.FAILED, HOSTILE),),
                    failure=HOSTILE,
                ),
            ),
            plan=HOSTILE,
        ),
    ]


def events(app: str, now: float) -> list[Event]:
    told = [
        (Reason.NEW_REVISION, "7d1c60a0f2b4 Name colours", None),
        (
            Reason.BUILDING,
            Localizable("building {dockerfile} in {context}", dockerfile="Dockerfile", context="."),
            None,
        ),
        (
            Reason.STARTED,
            Localizable(
                "started {action}: {why}",
                action="prichal.demo-colors.namer.1f0c9a2e.0",
                why=Localizable("declared, not running"),
            ),
            "namer",
        ),
        (
            Reason.SWITCHED,
            Localizable(
                "traffic goes to {target}: {why}",
                target=Localizable("version {fingerprint}", fingerprint="1f0c9a2e"),
                why=Localizable("the version is ready"),
            ),
            "namer",
        ),
    ]
    return [
        Event(
            AppName(app),
            EventType.NORMAL,
            reason,
            message,
            ComponentName(name) if name else None,
            REVISION,
            now - 60.0 + number,
        )
        for number, (reason, message, name) in enumerate(told)
    ]


#: What the last pass over `demo-colors` did.
PLAN = Plan(
    AppName("demo-colors"),
    REVISION,
    (
        (EnsureNetwork(why=Localizable("the app has no network yet")),),
        (RemoveNetwork(why=Localizable("the app has no component left")),),
    ),
    (
        Hold(
            ComponentName("namer"),
            Reason.BACKOFF,
            Localizable("restart {count} waits for {pause} s", count=2, pause="10"),
        ),
    ),
)


#: Runs of the pipeline `train` of `demo-colors`: one that is in progress, and one that has failed.
RUNNING, FAILED = new_run_id(1_790_000_000.0, 7), new_run_id(1_790_000_000.0, 8)


def runs(now: float) -> list[Run]:
    pipeline = make_pipeline(app=AppName("demo-colors"))
    given = (RunInput("data", "FILE", "tables/paints.csv"), RunInput("note", "str", '"second try"'))
    running = new_run(RUNNING, pipeline, now - 90.0, "person:boss", given)
    fit, tell = running.stages
    fit = replace(fit, state=RunState.RUNNING, attempts=(Attempt(1, now - 60.0),), progress="3/10")
    begun = (Transition(RunState.STARTING, now - 60.0), Transition(RunState.RUNNING, now - 59.0))
    running = replace(running, state=RunState.RUNNING, stages=(fit, tell), history=begun)
    failed = new_run(FAILED, pipeline, now - HOUR, "ivanov", given)
    attempts = (Attempt(1, now - HOUR, now - HOUR + 61.0, 1, Reason.EXITED, HOSTILE),)
    fit = replace(failed.stages[0], state=RunState.FAILED, message=HOSTILE, attempts=attempts)
    end = Transition(RunState.FAILED, now - HOUR + 61.0, Reason.EXITED, HOSTILE)
    started = Transition(RunState.STARTING, now - HOUR)
    failed = replace(
        failed, state=RunState.FAILED, message=HOSTILE, stages=(fit, failed.stages[1]), history=(started, end)
    )
    return [running, failed]


#: An order that made `demo-colors`.
ORDER = AppOrder(
    f"{1:032x}", OrderKind.CREATE, AppName("demo-colors"), "boss", "function", limits=Limits(cpus=1.0)
)


def set_secret(store: SqliteStore, number: int, secret: str, *values: tuple[str, str | None]) -> None:
    """As a person does; the daemon applies it with the next change of the state."""
    pairs = tuple((key, Secret(value) if value is not None else None) for key, value in values)
    store.secrets.ask(
        SecretChange(f"{number:032x}", AppName("demo-colors"), secret, pairs, "boss", time.time())
    )


def receiver(name: str, channel: Channel, **fields: Any) -> NotificationSpec:
    usual: dict[str, Any] = {
        "suspended": False,
        "group_wait": 1.0,
        "group_interval": 1.0,
        "repeat_interval": 0.0,
    }
    return NotificationSpec(ComponentName(name), channel, severity=Severity.WARNING, **{**usual, **fields})


def notify(store: SqliteStore, now: float) -> None:
    """Notifications whose messages arrive, fail, and were given up; others that were never used."""
    colors = AppName("demo-colors")
    team = receiver("team", Channel.EMAIL, to=("team@example.org",))
    url = "https://incidents.example.org/hooks/ml"
    incidents = receiver("incidents", Channel.WEBHOOK, secret="hook", url=url, suspended=True)
    store.notifications.declare(colors, (team, incidents))
    store.notifications.declare(PLATFORM, (receiver("chat", Channel.APPRISE, secret="chat"),))
    problem = Problem(
        Alert(colors, AlertType.NEARLY_FULL, "OverCapacity", Severity.ERROR, "full"), now - HOUR
    )
    digest = Digest(1, now, problems=(problem,))
    body, test = (
        json.dumps(document(each, "team", colors, "https://ml.example.org"))
        for each in (digest, Digest(0, now, is_test=True))
    )

    def sent(number: int, fate: Fate | None, told: str) -> Message:
        message = outgoing(message_id(colors, team.name, number, now), colors, team, body, now)
        store.notifications.record(message, now - 600.0 + number, fate, told)
        return message

    sent(1, Fate.DELIVERED, "")
    sent(2, Fate.GIVEN_UP, HOSTILE)
    waiting = sent(3, None, Localizable("the Secret {secret!r} does not exist", secret="hook"))
    store.notifications.advance(colors, team.name, NotificationState(), waiting)
    store.webhooks.failed(waiting.id, "no", now + 60.0)
    of_test = outgoing(check_id("0" * 32), colors, team, test, now)
    store.notifications.record(of_test, now - 300.0, Fate.DELIVERED)


def record(store: SqliteStore, now: float, upstream: str = "127.0.0.1:1") -> None:
    """`upstream` is where the component answers."""
    store.orders.ask(ORDER)
    template = replace(builtin()["function"].template, name="lab", title=Words("Lab", "Лаборатория"))
    store.templates.replace(
        [
            TemplateRecord(
                "lab",
                template,
                f"{GIT}/lab.git#stable",
                REVISION,
                Localizable("must have one document"),
                now - HOUR,
            ),
            TemplateRecord("strange", None, f"{GIT}/strange.git", problem=HOSTILE),
        ]
    )
    for run in runs(now):
        store.runs.publish(run.app, (run.pipeline,))
        store.runs.submit(run)
        store.routes.publish(run.app, (replace(one_pipeline(), app=run.app),))
    store.apps.save(colors(now), events("demo-colors", now))
    for applied, manifests in history(now):
        store.history.add(applied, [ManifestText("manifests/colors.yaml", manifests)])
    for status in others(now):
        store.apps.save(status)
    store.secrets.unlock(SecretKeys(b"k" * 32))
    store.age_keys.ensure(AppName("demo-colors"))
    set_secret(store, 1, "keys", ("TOKEN", "hunter2-horse"), ("TLS/ca.crt", "-----BEGIN\nMIIB\n-----END\n"))
    set_secret(store, 2, "unused", ("A", "one"))
    set_secret(store, 3, "unused", ("B", None))
    with store.transaction():  # before which the daemon takes them in
        pass
    store.apps.set_suspended(AppName("paused-search"), True)
    strange = AppName("strange-words")
    store.events.add(
        [Event(strange, EventType.WARNING, Reason.FAILED, HOSTILE, ComponentName("reader"), at=now)]
    )
    store.routes.switch(
        make_route(
            make_api("colors"),
            app=AppName("demo-colors"),
            component=ComponentName("namer"),
            any_path=False,
            upstreams=(upstream,),
        )
    )
    store.boxes.save(
        BoxRecord(AppName("demo-colors"), ComponentName("tables"), TABLES, 10**8, used=34_000_000, files=1204)
    )
    store.record_usage(
        [
            Usage(AppName("demo-colors"), "memory", 268435456.0, 2**30),
            Usage(AppName("demo-colors"), "cpus", 1.0, 4.0),
        ]
    )
    notify(store, now)
    for step in range(1, 60):
        store.series.add(now - step * 10, {(AppName("demo-colors"), ComponentName("namer")): sample(step)})


def history(now: float) -> list[tuple[AppliedRevision, str]]:
    """A good commit, one that failed, and the one that is in service, with the manifests of each."""
    entries = (
        (GOOD, "Name colours", "Anna <anna@example.org>", "push", "Ready", "replicas: 1\n"),
        ("b" * 40, HOSTILE, HOSTILE, "webhook", "Degraded", f"replicas: 2\n# {HOSTILE}\n"),
        (REVISION, "Name more colours", "Anna <anna@example.org>", "push", "Ready", "replicas: 2\n"),
    )
    return [
        (
            AppliedRevision(
                AppName("demo-colors"),
                revision,
                subject,
                author,
                (trigger,),
                now - (3 - number) * HOUR,
                now - (3 - number) * HOUR + 2.6,
                outcome,
                "",
                "start namer: declared",
                by="maker",
            ),
            f"kind: MLComponent\nspec:\n  {text}",
        )
        for number, (revision, subject, author, trigger, outcome, text) in enumerate(entries)
    ]


def sample(step: int) -> Sample:
    """Calls that come and go."""
    calls = 20 + step % 7 * 5
    buckets = (0, 0, 0, calls - 3, 0, 2, 1, *[0] * 9)
    return Sample(
        10,
        requests=calls,
        refused=step % 5,
        failed=step % 3,
        in_flight=step % 4,
        cpu=0.2 + step % 6 / 10,
        memory=(120 + step) * 2**20,
        running=step % 4,
        queued=step % 2,
        overdue=0,
        restarted=0,
        buckets=buckets,
    )


#: The name of a file as people give them.
NAME = "paints/«цвета» <i>\"1\"<i> 100% 'x'&amp;.txt"
#: Files of the box `tables`, in the developer area.
STORED = {
    "paints/colors.csv": "name;rgb\nохра;#cc7722\nteal;#008080\n".encode(),
    "paints/notes.json": b'{"made": ["by", "hand"], "count": 2}',
    NAME: HOSTILE.encode(),
    "paints/page.html": b"<script>document.title = 'taken'</script>",
    "paints/old/one.txt": b"old",
}


def record_files(objects: Objects) -> None:
    objects.create_bucket(TABLES)
    for name, content in STORED.items():
        objects.put(TABLES, DEVELOPER_AREA + name, BytesIO(content), len(content))
