"""A daemon that starts on a broken platform folder goes on with what was in force before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.cron import CronTicks
from controller.adapters.models import ModelCache
from controller.age import AgeKeys
from controller.config import PlatformSource, Settings
from controller.daemon.platform_folder import PlatformFolder
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.names import PLATFORM, AppName
from controller.encryption import SecretKeys
from controller.reconcile.catalog import PlatformCatalog
from controller.reconcile.deps import ReconcilerDeps
from controller.reconcile.platform import PlatformReconciler
from tests.support.clock import FakeClock
from tests.support.fake_engine import FakeEngine
from tests.support.fake_objects import FakeStorage
from tests.support.fake_prober import FakeProber
from tests.support.fake_sources import FakeSources
from tests.support.sops_files import encrypted_document, some_keys
from tests.support.stores import open_store

VERSION = "unified-platform.cs.hse.ru/v1"
VALUE = "planted-value-of-a-secret"
SEALED = "value-that-sops-has-encrypted"


def document(kind: str, name: str, **fields: object) -> str:
    return json.dumps({"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, **fields}) + "\n---\n"


class Host:
    """A state folder and a platform folder over several lives of the daemon."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "platform"
        self.folder.mkdir()
        self.named = home / "named-by-a-secret"
        self.named.write_text(VALUE)
        self.settings = Settings(state=home / "state", platform=PlatformSource(path=str(self.folder)))
        self.settings.private.mkdir(parents=True)
        self.store = open_store(self.settings.database)
        self.sources = FakeSources()
        self.live()

    def live(self, **settings: object) -> None:
        """The daemon was restarted."""
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        storage, engine = FakeStorage(), FakeEngine()
        self.deps = ReconcilerDeps(
            store=self.store,
            sources=self.sources,
            engine=engine,
            storage=storage,
            models=ModelCache(self.settings.models, storage, 1),
            prober=FakeProber(engine),
            clock=FakeClock(),
            ticks=CronTicks(),
            catalog=PlatformCatalog(),
            settings=self.settings,
            stopping=lambda: False,
            key=b"k" * 32,
        )
        folder = PlatformFolder(self.settings, self.sources, lambda: self.store.age_keys.of(PLATFORM))
        self.platform = PlatformReconciler(self.deps, folder.read, folder.keep, folder.last)

    def declare(self, *apps: str) -> None:
        repository = document(
            "Repository", "demo", spec={"url": "https://git.example.org/d.git", "ref": {"branch": "main"}}
        )
        secret = document("Secret", "keys", files={"token": str(self.named)})
        connected = [document("PlatformApp", app, spec={"repository": "demo"}) for app in apps]
        (self.folder / "all.yaml").write_text("".join((repository, secret, *connected)))

    def check(self) -> str:
        self.store.requests.enqueue(PLATFORM, Trigger.START)
        while request := self.store.requests.claim(1e12):
            outcome = self.platform.reconcile(request) if request.app == PLATFORM else None
            self.store.requests.finish(request.id, Outcome(outcome.name if outcome else "Ready"), "", "")
        held = [each.type for each in self.store.apps.status(PLATFORM).conditions if each.status]
        return next((each for each in held if each != ConditionType.READY), ConditionType.READY)

    @property
    def apps(self) -> list[str]:
        return [app.name for app in self.deps.catalog.spec.apps]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


BREAKS: dict[str, Callable[[Host], object]] = {
    "a mistake in a file": lambda host: (host.folder / "all.yaml").write_text("kind: [\n"),
    "a further file with a mistake": lambda host: (host.folder / "b.yaml").write_text(
        document("Repository", "x", spec={})
    ),
    "a file that is cut off": lambda host: (host.folder / "all.yaml").write_text(
        (host.folder / "all.yaml").read_text()[:-40]
    ),
    "no text": lambda host: (host.folder / "all.yaml").write_bytes(b"\xff\xfe\x00"),
    "a Secret's file is gone": lambda host: host.named.unlink(),
    "an empty folder": lambda host: (host.folder / "all.yaml").unlink(),
    "no folder": lambda host: shutil.rmtree(host.folder),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_what_was_connected_stays_so_over_a_restart(host: Host, broken: str) -> None:
    host.declare("one", "two")
    assert host.check() == ConditionType.READY
    BREAKS[broken](host)
    for _ in range(2):  # also the second start
        host.live()
        assert not host.deps.catalog.known
        assert host.check() != ConditionType.READY, "and the status reports it"
        assert host.apps == ["one", "two"]
        secret = host.deps.catalog.secret("keys", AppName("one"))
        assert secret is not None
        assert secret.values[0][1].reveal() == VALUE
    host.folder.mkdir(exist_ok=True)
    host.named.write_text(VALUE)
    for path in host.folder.iterdir():
        path.unlink()
    host.declare("two", "three")
    assert host.check() == ConditionType.READY
    assert host.apps == ["two", "three"] or host.apps == ["three", "two"]


def test_a_first_start_on_a_broken_folder_connects_nobody(host: Host) -> None:
    host.declare("one")
    BREAKS["a mistake in a file"](host)
    assert host.check() == ConditionType.MANIFEST_INVALID
    assert not host.deps.catalog.known, "nobody is taken for disconnected"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"files": 1}', b'{"files": [], "host": []}', b"\xff"]
)
def test_what_is_kept_may_be_damaged(host: Host, content: bytes) -> None:
    host.declare("one")
    host.check()
    (host.settings.private / "platform.json").write_bytes(content)
    BREAKS["a mistake in a file"](host)
    host.live()
    assert host.check() == ConditionType.MANIFEST_INVALID
    assert not host.deps.catalog.known


def test_what_the_configuration_allows_no_more_is_not_connected(host: Host) -> None:
    local = {"url": "/srv/git/demo.git", "ref": {"branch": "main"}}
    host.settings = replace(host.settings, git=replace(host.settings.git, allowed_paths=(Path("/srv/git"),)))
    host.live()
    (host.folder / "all.yaml").write_text(
        document("Repository", "demo", spec=local)
        + document("PlatformApp", "one", spec={"repository": "demo"})
    )
    assert host.check() == ConditionType.READY
    BREAKS["a further file with a mistake"](host)
    host.live(git=replace(host.settings.git, allowed_paths=()))
    assert host.check() == ConditionType.MANIFEST_INVALID
    assert host.apps == []


def test_secrets_lie_in_the_private_folder_alone(host: Host) -> None:
    host.declare("one")
    host.check()
    kept = host.settings.private / "platform.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    BREAKS["a Secret's file is gone"](host)
    host.live()
    host.check()
    rest = [path for path in host.settings.state.rglob("*") if path.is_file() and path != kept]
    assert rest
    assert all(VALUE.encode() not in path.read_bytes() for path in rest)


def test_encrypted_secrets_stay_encrypted_in_what_is_kept(host: Host) -> None:
    """A start on a broken folder decrypts them again, with the platform's key."""
    host.store.secrets.unlock(SecretKeys(b"k" * 32))
    host.store.age_keys.ensure(PLATFORM)
    keys = host.store.age_keys.of(PLATFORM)
    assert isinstance(keys, AgeKeys)
    secret = {"apiVersion": VERSION, "kind": "Secret", "metadata": {"name": "token"}}
    (host.folder / "token.yaml").write_text(
        encrypted_document({**secret, "stringData": {"token": SEALED}}, keys)
    )
    host.declare("one")
    assert host.check() == ConditionType.READY
    (host.folder / "token.yaml").write_text("{broken")
    host.live()
    assert host.check() == ConditionType.MANIFEST_INVALID
    found = next(secret for secret in host.deps.catalog.spec.secrets if secret.name == "token")
    assert [(key, value.reveal()) for key, value in found.values] == [("token", SEALED)]
    kept = b"".join(path.read_bytes() for path in host.settings.state.rglob("*") if path.is_file())
    assert SEALED.encode() not in kept


def test_a_file_for_another_key_changes_nothing(host: Host) -> None:
    host.store.secrets.unlock(SecretKeys(b"k" * 32))
    host.store.age_keys.ensure(PLATFORM)
    host.declare("one")
    assert host.check() == ConditionType.READY
    secret = {"apiVersion": VERSION, "kind": "Secret", "metadata": {"name": "token"}}
    text = encrypted_document({**secret, "stringData": {"token": SEALED}}, some_keys())
    (host.folder / "token.yaml").write_text(text)
    assert host.check() == ConditionType.MANIFEST_INVALID
    assert host.apps == ["one"]
    invalid = next(each for each in host.store.apps.status(PLATFORM).conditions if each.message)
    assert "prichal secret key @platform" in invalid.message
