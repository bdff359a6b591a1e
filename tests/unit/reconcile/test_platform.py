"""The platform folder: what it declares becomes the catalog, and requests are made for all affected apps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.spec import (
    GitRef,
    HookProvider,
    PlatformSpec,
    RefKind,
    RepositorySpec,
    SecretSpec,
)
from controller.domain.errors import ControllerError, ManifestInvalid, ManifestProblem, Transient
from controller.domain.names import PLATFORM, AppName, RepositoryName
from controller.domain.reasons import Reason
from controller.reconcile.deps import PassOutcome
from controller.reconcile.platform import PlatformReconciler
from controller.reconcile.reconciliation import reconcile
from tests.support.specs import make
from tests.unit.reconcile.harness import Harness, app, ml, secret

DEMO = make(
    RepositorySpec, RepositoryName("demo"), "https://git.example.org/demo.git", GitRef(RefKind.BRANCH, "main")
)
ONE, TWO = app("one"), app("two")


class Folder:
    """What the platform folder holds; `fault` is raised instead."""

    def __init__(self, harness: Harness) -> None:
        self.spec = PlatformSpec()
        self.revision = ""
        self.fault: Exception | None = None
        self._scene = harness
        self._platform = PlatformReconciler(harness.deps, self.read)

    def read(self) -> tuple[PlatformSpec, str]:
        if self.fault:
            raise self.fault
        return self.spec, self.revision

    def holds(self, *apps: object, secrets: tuple[SecretSpec, ...] = (), **changes: object) -> PassOutcome:
        spec = PlatformSpec((replace(DEMO, **changes),), apps, secrets)  # type: ignore[arg-type]
        return self.becomes(spec)

    def becomes(self, spec: PlatformSpec) -> PassOutcome:
        self.spec = spec
        return self.run()

    def run(self) -> PassOutcome:
        outcome = self._platform.reconcile(self._scene.request(PLATFORM))
        self._scene.check()
        return outcome


@pytest.fixture
def folder(harness: Harness) -> Folder:
    return Folder(harness)


@pytest.fixture
def asked(harness: Harness) -> Callable[[], list[str]]:
    """The apps that are asked for since the last call, sorted; their passes are run."""

    reasons = iter([("start",)])

    def take() -> list[str]:
        found, expected = [], next(reasons, ("platform",))
        while request := harness.store.requests.claim(harness.clock.now()):
            assert request.reasons == expected
            outcome = reconcile(harness.deps, request)
            harness.store.requests.finish(request.id, outcome.name, outcome.message, outcome.revision)
            found.append(request.app)
        return sorted(found)

    return take


def test_every_app_is_asked_for_at_the_start_and_nobody_after_that(
    harness: Harness, folder: Folder, asked: Callable[[], list[str]]
) -> None:
    outcome = folder.holds(ONE, TWO)
    assert (outcome.name, outcome.message) == ("Ready", "2 apps connected")
    assert harness.catalog.known
    assert asked() == ["one", "two"]
    version = harness.status(PLATFORM)
    folder.run()
    assert asked() == []
    assert harness.status(PLATFORM) == version
    assert harness.types(PLATFORM) == [ConditionType.READY]


def test_only_those_that_a_change_concerns_are_asked_for(
    folder: Folder, asked: Callable[[], list[str]]
) -> None:
    folder.holds(ONE, TWO)
    asked()
    folder.holds(ONE, replace(TWO, prune=False))
    assert asked() == ["two"]
    folder.holds(ONE, TWO, app("three"))
    assert asked() == ["three", "two"]
    folder.holds(ONE, TWO, app("three"), url="https://git.example.org/moved.git")
    assert asked() == ["one", "three", "two"]


def test_a_secret_of_one_app_concerns_that_app_alone(folder: Folder, asked: Callable[[], list[str]]) -> None:
    folder.holds(ONE, TWO, secrets=(secret("keys", "one", TOKEN="first"),))
    asked()
    folder.holds(ONE, TWO, secrets=(secret("keys", "one", TOKEN="second"),))
    assert asked() == ["one"]


def test_what_left_the_folder_is_disconnected(
    harness: Harness, folder: Folder, asked: Callable[[], list[str]]
) -> None:
    harness.push(ml())
    folder.holds(ONE, TWO)
    asked()
    assert len(harness.running(app=AppName("two"))) == 1
    folder.holds(ONE)
    assert asked() == ["two"]
    assert harness.running(app=AppName("two")) == []
    assert [status.app for status in harness.store.apps.all()] == [PLATFORM, "one"]


def test_what_the_engine_still_has_of_an_unknown_app_is_cleared_away(
    harness: Harness, folder: Folder, asked: Callable[[], list[str]]
) -> None:
    harness.engine.ensure_network(AppName("ghost"))
    folder.holds(ONE)
    assert asked() == ["ghost", "one"]
    assert harness.engine.apps() == frozenset()


def test_the_web_process_learns_what_it_must_check_and_old_clones_go(
    harness: Harness, folder: Folder
) -> None:
    harness.connect(repositories=["old"])
    folder.holds(
        ONE,
        TWO,
        secrets=(secret("hook", None, token="hook-secret-value"),),
        hook_provider=HookProvider.GITHUB,
        hook_secret="hook",
    )
    (record,) = harness.store.repositories.all()
    assert (record.name, record.apps, record.ref) == ("demo", ("one", "two"), "branch:main")
    assert (record.hook_provider, record.hook_secret) == ("github", "hook-secret-value")
    folder.becomes(
        PlatformSpec(
            (replace(DEMO, name=RepositoryName("other")),),
            (replace(ONE, repository=RepositoryName("other")),),
        )
    )
    assert [r.name for r in harness.store.repositories.all()] == ["other"]
    assert harness.sources.forgotten == ["demo"]


def test_an_empty_folder_disconnects_nobody_until_a_person_confirms(
    harness: Harness, folder: Folder, asked: Callable[[], list[str]]
) -> None:
    harness.push(ml())
    folder.holds(ONE)
    asked()
    outcome = folder.becomes(PlatformSpec())
    assert outcome.name == "Failed"
    assert "prichal approve @platform" in outcome.message
    assert harness.types(PLATFORM) == [ConditionType.READY, ConditionType.PRUNE_PENDING]
    assert asked() == []
    assert harness.catalog.spec.apps == (ONE,)
    folder.run()
    assert harness.events(PLATFORM).count("PrunePending") == 1
    harness.store.apps.approve(PLATFORM, "confirmed")
    assert folder.run().name == "Ready"
    assert asked() == ["one"]
    assert harness.engine.names() == []


def test_a_confirmation_is_good_for_one_time(
    harness: Harness, folder: Folder, asked: Callable[[], list[str]]
) -> None:
    folder.holds(ONE)
    asked()
    harness.store.apps.approve(PLATFORM, "confirmed")
    folder.becomes(PlatformSpec())
    asked()
    folder.holds(ONE)
    asked()
    assert folder.becomes(PlatformSpec()).name == "Failed"


def test_an_empty_folder_of_a_new_platform_is_fine(folder: Folder) -> None:
    assert folder.becomes(PlatformSpec()).name == "Ready"


@pytest.mark.parametrize(
    ("fault", "kind", "retried"),
    [
        (
            ManifestInvalid((ManifestProblem("a.yaml", 3, 1, "spec", "is missing"),)),
            ConditionType.MANIFEST_INVALID,
            False,
        ),
        (Transient(Reason("Unreachable"), "no answer"), ConditionType.APPLY_FAILED, True),
        (ZeroDivisionError("a bug"), ConditionType.APPLY_FAILED, True),
    ],
)
def test_what_cannot_be_read_changes_nothing(
    harness: Harness, folder: Folder, fault: Exception, kind: ConditionType, retried: bool
) -> None:
    folder.holds(ONE)
    folder.fault = fault
    outcome = folder.run()
    assert outcome.name == "Failed"
    assert (outcome.retry_after is not None) is retried
    assert harness.catalog.spec.apps == (ONE,)
    assert harness.types(PLATFORM) == [ConditionType.READY, kind]
    told = harness.events(PLATFORM)
    folder.run()
    assert harness.events(PLATFORM) == told
    folder.fault = None
    assert folder.run().name == "Ready"
    assert not isinstance(fault, ControllerError) or fault.reason in told
