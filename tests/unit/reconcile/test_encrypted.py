"""Encrypted Secrets of the app's repository: they reach containers, a changed value is one rollout, the same value
encrypted again none, and nothing that people see has a value."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import replace

import pytest

from controller.age import AgeKeys
from controller.domain.apps.age_keys import EncryptedFiles, KeyAction
from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.desired import Workload
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.encryption import SecretKeys
from controller.reconcile.next_pass import preview
from controller.reconcile.secret_sources import run_secret
from tests.support.sops_files import encrypted_document
from tests.unit.reconcile.crashing import ENOUGH, die_at
from tests.unit.reconcile.harness import API_VERSION, APP, Harness, ml
from tests.unit.reconcile.test_secrets import FROM_KEYS, environment_of_starts

pytestmark = pytest.mark.slow

INSTANCE = SecretKeys(b"k" * 32)


@pytest.fixture
def harness(harness: Harness) -> Harness:
    harness.store.secrets.unlock(INSTANCE)
    harness.store.apps.save(AppStatus(APP))
    harness.store.age_keys.ensure(APP)
    harness.connect()
    return harness


def keys_of(harness: Harness, app: AppName = APP) -> AgeKeys:
    found = harness.store.age_keys.of(app)
    assert isinstance(found, AgeKeys)
    return found


def newest(harness: Harness) -> AgeKeys:
    return AgeKeys(APP, keys_of(harness).keys[:1])


def encrypted(harness: Harness, keys: AgeKeys | None = None, **values: str) -> str:
    harness.secrets += [value for value in values.values() if value]
    head = {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": "keys"}}
    return encrypted_document({**head, "stringData": values}, keys or newest(harness))


def change(harness: Harness, action: KeyAction, force: bool = False) -> str:
    """Return what became of it."""
    asked = SecretChange(uuid.uuid4().hex, APP, "", (), "ann", harness.clock.now(), action, force)
    harness.store.secrets.ask(asked)
    with harness.store.transaction():
        pass
    found = harness.store.secrets.change(APP, asked.id)
    assert found is not None
    return f"{found.state}: {found.message}"


def test_a_container_gets_the_values(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    with caplog.at_level(logging.DEBUG):
        assert harness.run().name == "Ready"
    assert env == [{"TOKEN": "hunter2-horse"}]
    assert harness.condition(ConditionType.WARNING) is None
    assert "hunter2" not in caplog.text
    assert b"hunter2" not in b"".join(
        p.read_bytes() for p in harness.database.parent.rglob("*") if p.is_file()
    )


def test_a_changed_value_is_one_rollout_and_the_same_one_encrypted_again_none(harness: Harness) -> None:
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="first-value"))
    harness.run()
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="first-value"))
    assert harness.run().name == "Ready"
    assert len(env) == 1
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="second-value"))
    harness.run()
    assert env == [{"TOKEN": "first-value"}, {"TOKEN": "second-value"}]


def test_files_that_a_secret_names(harness: Harness) -> None:
    env = environment_of_starts(harness)
    head = {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": "keys"}}
    named = json.dumps({**head, "envs": ["secrets/a.json"]})
    keys = newest(harness)

    def content(value: str) -> dict[str, str]:
        harness.secrets.append(value)
        return {"secrets/a.json": encrypted_document({"TOKEN": value}, keys, lambda name: True, rule={})}

    harness.push(ml(**FROM_KEYS), named, **content("first-value"))
    assert harness.run().name == "Ready"
    harness.push(ml(**FROM_KEYS), named, **content("second-value"))  # no manifest has changed
    assert harness.run().name == "Ready"
    assert env == [{"TOKEN": "first-value"}, {"TOKEN": "second-value"}]


def test_what_cannot_be_decrypted_changes_nothing_and_says_where(harness: Harness) -> None:
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    before = harness.running()
    document = json.loads(encrypted(harness, TOKEN="hunter2-horse"))
    document["metadata"]["namespace"] = "demo"
    harness.push(ml(image="demo:2", **FROM_KEYS), json.dumps(document, indent=1))
    harness.run()
    invalid = harness.condition(ConditionType.MANIFEST_INVALID)
    assert invalid is not None
    assert "m1.yaml:" in invalid.message
    assert "sops.mac: the MAC does not match" in invalid.message
    assert harness.running() == before


def test_another_apps_file_is_not_decrypted(harness: Harness) -> None:
    """Somebody pushes a file that they have copied from a repository which they may read."""
    other = AppName("other")
    harness.store.age_keys.ensure(other)
    harness.push(ml(**FROM_KEYS), encrypted(harness, keys_of(harness, other), TOKEN="not-for-demo"))
    assert harness.run().name == "Failed"
    invalid = harness.condition(ConditionType.MANIFEST_INVALID)
    assert invalid is not None
    assert "which demo has no key of" in invalid.message


def test_a_key_is_rotated_and_retired(harness: Harness) -> None:
    """Between the two both keys decrypt, the commit in force too, and nothing is restarted."""
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    change(harness, KeyAction.ROTATE)
    assert harness.run("secret").name == "Ready"
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))  # for the new one
    assert harness.run().name == "Ready"
    change(harness, KeyAction.RETIRE)
    assert harness.run("secret").name == "Ready"
    assert len(env) == 1


def test_a_key_that_is_retired_too_early_stops_nothing_that_runs(harness: Harness) -> None:
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    before = harness.running()
    change(harness, KeyAction.ROTATE)
    assert change(harness, KeyAction.RETIRE, force=True).startswith("applied")
    outcome = harness.run_unchecked("secret")
    assert "prichal secret key demo" in outcome.message
    assert harness.running() == before
    assert harness.route().in_service
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    assert harness.run().name == "Ready"
    assert harness.running() == before


def test_a_key_that_the_commit_in_force_needs_is_kept(harness: Harness) -> None:
    """Whatever Git is like meanwhile: what each commit needs was remembered when it came into force."""
    head = {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": "keys"}}
    named = json.dumps({**head, "envs": ["secrets/a.json"]})
    file = {
        "secrets/a.json": encrypted_document(
            {"TOKEN": "x-value"}, newest(harness), lambda name: True, rule={}
        )
    }
    harness.secrets.append("x-value")
    harness.push(ml(**FROM_KEYS), named, **file)
    harness.run()
    [old] = keys_of(harness).recipients
    change(harness, KeyAction.ROTATE)
    harness.run("secret")
    harness.sources.fault = Transient(Reason.FETCH_FAILED, "the server does not answer")
    told = change(harness, KeyAction.RETIRE)
    assert told.startswith(
        f"refused: the commit of demo in force needs the age key {old}: the newest one cannot decrypt secrets/a.json"
    )
    assert len(keys_of(harness).keys) == 2
    harness.run_unchecked()
    assert change(harness, KeyAction.RETIRE).startswith("refused"), (
        "a pass that reads nothing forgets nothing"
    )


def test_a_key_that_a_commit_needs_which_is_being_applied_is_kept(harness: Harness) -> None:
    """Nothing in force needs the older key until the pass has ended."""
    harness.push(ml())
    harness.run()
    change(harness, KeyAction.ROTATE)
    harness.run("secret")
    old = AgeKeys(APP, keys_of(harness).keys[1:])
    harness.push(ml(image="demo:2", **FROM_KEYS), encrypted(harness, old, TOKEN="hunter2-horse"))
    start, told = harness.engine.start, list[str]()

    def start_and_retire(workload: Workload, name: str) -> None:
        told.append(change(harness, KeyAction.RETIRE))
        start(workload, name)

    harness.engine.start = start_and_retire  # type: ignore[method-assign]
    assert harness.run().name == "Ready"
    assert told
    assert told[0].startswith("refused: the commit of demo in force needs the age key")


def test_a_key_that_a_preview_needs_is_kept(harness: Harness) -> None:
    """It has a status of its own, and its app's keys if it has all Secrets."""
    change(harness, KeyAction.ROTATE)
    new, old = keys_of(harness).recipients
    for files, verdict in (((old,), "refused"), ((old, new), "applied")):
        shown = AppStatus(AppName("demo-x"), encrypted=(EncryptedFiles(files, ("keys.yaml",), 1),))
        harness.store.apps.save(shown)
        told = change(harness, KeyAction.RETIRE)
        assert told.startswith(verdict)
        assert ("the commit of demo-x in force" in told) is (verdict == "refused")


def test_a_status_of_an_earlier_release_does_not_tell(harness: Harness) -> None:
    harness.push(ml())
    harness.run()
    harness.store.apps.save(replace(harness.status(), encrypted=None))
    change(harness, KeyAction.ROTATE)
    assert "is not known before the daemon's next pass" in change(harness, KeyAction.RETIRE)
    harness.run()
    assert change(harness, KeyAction.RETIRE).startswith("applied")


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_the_daemon_dies_at_each_call_while_a_key_is_replaced(harness: Harness, after: bool) -> None:
    """Each life begins with another key and a commit for it; what runs has the value of the last commit."""
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="value-0"))
    harness.run()
    for number in range(1, ENOUGH):
        change(harness, KeyAction.ROTATE)
        harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN=f"value-{number}"))
        died = die_at(harness, number, after)
        change(harness, KeyAction.RETIRE)  # may be refused: the commit before may still be in force
        while harness.run_unchecked().retry_after:
            harness.clock.advance(60.0)
        harness.check()
        (running,) = harness.running()
        assert harness.route().in_service
        assert harness.route().fingerprint == running.fingerprint
        assert env[-1] == {"TOKEN": f"value-{number}"}
        assert not change(harness, KeyAction.RETIRE).startswith("refused")
        if not died:
            return
    raise AssertionError("a pass makes more calls than are tried here")


def test_what_people_see_has_no_value(harness: Harness) -> None:
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-donkey", OTHER="x1"))
    found = preview(harness.deps, APP)
    shown = "".join(each.text for each in found.manifests)
    assert "hunter2" not in shown + found.plan.render()
    assert "# TOKEN: " in shown
    assert "# OTHER: " in shown
    assert "ENC[" not in shown


def test_runs_get_the_values_of_their_commit(harness: Harness) -> None:
    commit = harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    found = run_secret(harness.deps, APP, "keys", commit)
    assert found is not None
    assert dict(found.values)["TOKEN"].reveal() == "hunter2-horse"


def test_an_app_that_comes_back_has_another_key(harness: Harness) -> None:
    """The owner of the next app of this name cannot decrypt what was pushed for this one."""
    before = encrypted(harness, TOKEN="hunter2-horse")
    harness.push(ml(**FROM_KEYS), before)
    harness.run()
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    harness.connect()
    assert harness.run("platform").name == "Failed"
    assert len(keys_of(harness).keys) == 1


def test_without_the_key_of_the_instance_the_status_says_what_to_do(harness: Harness) -> None:
    harness.push(ml(**FROM_KEYS), encrypted(harness, TOKEN="hunter2-horse"))
    harness.run()
    before = harness.running()
    harness.store.secrets.unlock(SecretKeys(b"o" * 32))
    assert "private/instance.key" in harness.run_unchecked("start").message
    assert harness.running() == before
    with pytest.raises(Stalled, match=r"instance\.key") as caught:
        run_secret(harness.deps, APP, "keys", harness.status().desired_revision)
    assert caught.value.reason == Reason.MANIFEST_INVALID
