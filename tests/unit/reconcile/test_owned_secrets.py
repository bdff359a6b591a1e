"""Secrets that people set reach the containers that use them, with one rollout for each change; who needs one that
is not set waits and says what to run."""

from __future__ import annotations

import configparser
import json
import logging
import tomllib
import uuid
from dataclasses import replace
from typing import Any

import pytest
from werkzeug.security import check_password_hash

from controller.domain.apps.conditions import ConditionType
from controller.domain.apps.owned_secrets import SecretChange
from controller.domain.apps.policies import Policies
from controller.domain.apps.spec import Registry, SecretSpec
from controller.domain.apps.status import AppStatus
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.encryption import SecretKeys
from controller.reconcile.secret_sources import run_secret
from tests.unit.reconcile.harness import API_VERSION, APP, Harness, api, app, built, manifest, ml, secret
from tests.unit.reconcile.test_secrets import BASIC, FROM_KEYS, environment_of_starts

#: Together they take seconds.
pytestmark = pytest.mark.slow

KEYS = SecretKeys(b"k" * 32)


@pytest.fixture
def harness(harness: Harness) -> Harness:
    harness.store.secrets.unlock(KEYS)
    harness.store.apps.save(AppStatus(APP))
    return harness


def put(harness: Harness, secret: str = "keys", app: AppName = APP, /, **values: str | None) -> None:
    """What `prichal secret set` does, and the pass that follows, if one does."""
    found = tuple((key, None if value is None else Secret(value)) for key, value in values.items())
    harness.store.secrets.ask(SecretChange(uuid.uuid4().hex, app, secret, found, "ann", harness.clock.now()))
    harness.secrets += [value for value in values.values() if value]
    while request := harness.store.requests.claim(harness.clock.now()):
        if request.app == APP:
            harness.run(*request.reasons)
        harness.store.requests.finish(request.id, harness.outcome.name, "", "")


def in_git(**values: str) -> str:
    return json.dumps(
        {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": "keys"}, "stringData": values}
    )


def test_who_needs_one_waits_says_what_to_run_and_starts_when_it_comes(harness: Harness) -> None:
    harness.connect()
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), ml("other"))
    assert harness.run().name == "Waiting"
    assert harness.running("other"), "who does not need it starts"
    assert env == [{}]
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == Reason.AWAITING_SECRET
    assert (
        "it waits for the Secret 'keys', which is not set: set it with: prichal secret set demo keys"
        in ready.message
    )
    assert harness.types() == [ConditionType.READY], "nothing is wrong"
    put(harness, TOKEN="hunter2-horse")
    assert harness.outcome.name == "Ready"
    assert env == [{}, {"TOKEN": "hunter2-horse"}]


def test_a_similar_name_is_suggested(harness: Harness) -> None:
    harness.connect(secrets=[secret("keyz", TOKEN="x")])
    harness.push(ml(**FROM_KEYS))
    assert "did you mean 'keyz'?" in harness.run().message


def test_a_change_is_one_rollout_of_who_uses_it(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.connect()
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), ml("other"))
    put(harness, A="first-value", B="other-value")
    other, before = harness.running("other"), harness.route()
    with caplog.at_level(logging.DEBUG):
        put(harness, A="second-value", B="new-value")
    assert harness.outcome.name == "Ready"
    assert [found for found in env if found] == [
        {"A": "first-value", "B": "other-value"},
        {"A": "second-value", "B": "new-value"},
    ]
    assert harness.running("other") == other
    assert harness.route().fingerprint != before.fingerprint
    assert "second-value" not in caplog.text
    starts = len(env)
    put(harness, A="second-value")
    assert len(env) == starts, "an equal value changes nothing"
    assert harness.events().count(Reason.SECRET_CHANGED) == 2


def test_users_of_an_api_can_be_set(harness: Harness) -> None:
    harness.connect()
    harness.push(
        ml(), api(**BASIC), manifest("APIComponent", "all", pipelines={}, published=True, restfulApi=BASIC)
    )
    assert harness.run().name == "Waiting"
    assert harness.store.routes.services(APP) == (), "never open to all by accident"
    put(harness, "users", ann="good enough")
    assert harness.outcome.name == "Ready"
    for found in (harness.route().apis[0], harness.store.routes.services(APP)[0].api):
        assert check_password_hash(found.users[0][1], "good enough")
    starts = len(harness.engine.starts)
    put(harness, "users", ann="another one")
    assert check_password_hash(harness.route().apis[0].users[0][1], "another one")
    assert len(harness.engine.starts) == starts, "passwords restart nothing"


def test_a_pipeline_waits_for_its_secret(harness: Harness) -> None:
    stage = {"name": "fit", "image": {"existingImageName": "demo:1"}, "command": ["fit"], **FROM_KEYS}
    harness.connect()
    harness.push(manifest("ExperimentPipeline", "train", stages=[stage]))
    assert harness.run().name == "Waiting"
    assert harness.store.runs.pipelines(APP) == ()
    put(harness, TOKEN="hunter2-horse")
    assert harness.outcome.name == "Ready"
    (pipeline,) = harness.store.runs.pipelines(APP)
    found = run_secret(harness.deps, APP, "keys", pipeline.revision)
    assert found is not None
    assert dict(found.values)["TOKEN"].reveal() == "hunter2-horse"


def test_what_serves_goes_on_when_its_secret_is_removed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(**FROM_KEYS))
    put(harness, TOKEN="hunter2-horse")
    before = harness.running()
    put(harness)
    assert harness.running() == before
    assert harness.route().in_service
    assert "prichal secret set demo keys" in harness.outcome.message
    put(harness, TOKEN="hunter2-horse")
    assert (harness.outcome.name, harness.running()) == ("Ready", before)


def test_a_new_commit_that_needs_another_one_waits_beside_what_serves(harness: Harness) -> None:
    harness.connect()
    harness.push(ml())
    assert harness.run().name == "Ready"
    before = harness.running()
    harness.push(ml(image="demo:2", **FROM_KEYS))
    outcome = harness.run()
    assert "keeps serving. it waits for the Secret 'keys'" in outcome.message
    assert harness.running() == before
    put(harness, TOKEN="hunter2-horse")
    assert harness.outcome.name == "Ready"
    assert harness.running() != before


def test_the_owners_replaces_those_of_manifests_as_a_whole(harness: Harness) -> None:
    """The nearer to the owner, the more it counts, for components and runs alike."""
    harness.connect(secrets=[secret("keys", TOKEN="of-the-platform", OTHER="of-the-platform-too")])
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS))
    harness.run()
    commit = harness.push(ml(**FROM_KEYS), in_git(TOKEN="of-the-repository"))
    harness.run()
    assert env[-1] == {"TOKEN": "of-the-repository"}
    found = run_secret(harness.deps, APP, "keys", commit)
    assert found is not None
    assert dict(found.values)["TOKEN"].reveal() == "of-the-repository"
    put(harness, TOKEN="of-the-owner")
    assert env[-1] == {"TOKEN": "of-the-owner"}
    found = run_secret(harness.deps, APP, "keys", commit)
    assert found is not None
    assert dict(found.values)["TOKEN"].reveal() == "of-the-owner"
    warning = harness.condition(ConditionType.WARNING)
    assert warning is not None
    for place in ("in the app's repository", "in the platform folder"):
        assert f"so the one that is declared {place} does not count" in warning.message
    put(harness)
    assert env[-1] == {"TOKEN": "of-the-repository"}


def test_the_platforms_own_references_stay_with_manifests(harness: Harness) -> None:
    """A developer of an app cannot say who may sign its commits, nor how the platform signs in at Git."""
    harness.connect(secrets=[secret("signers", ann="key-of-ann")])
    put(harness, "signers", mallory="key-of-mallory")
    (app,) = harness.catalog.spec.apps
    (repository,) = harness.catalog.spec.repositories
    for name in ("signers", "hidden"):
        put(harness, name, mallory="key-of-mallory")
        found = harness.catalog.repository_secret(repository, name)
        assert (found and [key for key, _ in found.values]) == (["ann"] if name == "signers" else None)
    assert harness.catalog.registries(app) == ()


def test_no_app_sees_those_of_another(harness: Harness) -> None:
    other = AppName("other")
    harness.connect()
    harness.push(ml(**FROM_KEYS))
    assert harness.run().name == "Waiting"
    harness.store.apps.save(AppStatus(other))
    put(harness, "keys", other, TOKEN="not-for-demo")
    assert harness.store.secrets.listed(other)
    assert harness.run_unchecked().name == "Waiting"


def test_what_an_error_quotes_is_blanked(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.connect()
    harness.push(ml(**FROM_KEYS))
    put(harness, TOKEN="hunter2-horse")
    harness.engine.start_failures["classify"] = Transient(
        Reason.ENGINE_FAILED, "refused: TOKEN=hunter2-horse"
    )
    harness.engine.vanish(harness.running()[0].id)
    assert harness.run("drift").message == "classify: 0 of 1 replicas run. refused: TOKEN=***"
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("key", ["1X", "UNIP_MINE", "LD_PRELOAD"])
def test_keys_that_no_variable_may_have_stop_who_uses_them_alone(harness: Harness, key: str) -> None:
    harness.connect()
    harness.push(ml(**FROM_KEYS), ml("other"))
    put(harness, **{key: "hunter2-horse"})
    assert harness.outcome.name == "Failed"
    assert f"{key}" in harness.outcome.message
    assert harness.running("other")
    assert not harness.running()


def test_with_another_key_what_runs_goes_on_and_the_status_says_what_to_do(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(**FROM_KEYS), ml("other"))
    put(harness, TOKEN="hunter2-horse")
    before = harness.running()
    harness.store.secrets.unlock(SecretKeys(b"o" * 32))
    outcome = harness.run("start")
    assert "Restore private/instance.key from the backup" in outcome.message
    assert harness.running() == before
    assert harness.route().in_service
    stalled = harness.condition(ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == Reason.SECRET_UNREADABLE
    with pytest.raises(Stalled, match=r"instance\.key"):
        run_secret(harness.deps, APP, "keys", "")
    harness.store.secrets.unlock(KEYS)
    assert harness.run("drift").name == "Ready"
    assert harness.running() == before


def test_an_app_that_is_disconnected_loses_them(harness: Harness) -> None:
    """The next app of this name may be somebody else's."""
    harness.connect()
    harness.push(ml(**FROM_KEYS))
    put(harness, TOKEN="hunter2-horse")
    harness.disconnect()
    assert harness.run("platform").name == "Removed"
    assert harness.store.secrets.listed(APP) == ()
    harness.connect()
    assert harness.run("platform").name == "Waiting"


def test_a_suspended_app_takes_it_when_it_is_resumed(harness: Harness) -> None:
    harness.connect()
    harness.push(ml(**FROM_KEYS))
    put(harness, TOKEN="first-value")
    harness.store.apps.set_suspended(APP, True)
    put(harness, TOKEN="second-value")
    assert (harness.outcome.name, len(harness.engine.starts)) == ("Suspended", 1)
    harness.store.apps.set_suspended(APP, False)
    assert harness.run("manual").name == "Ready"
    assert len(harness.engine.starts) == 2


PIP = {"id": "pip", "secret": "keys", "key": "token"}


def test_a_build_waits_for_its_secret_and_gets_its_value(harness: Harness) -> None:
    """As do the stages of a pipeline. Another value builds nothing again."""
    harness.connect()
    harness.push(built(secrets=[PIP]), ml("other"), Dockerfile="FROM base")
    assert harness.run().name == "Waiting"
    assert harness.engine.builds == []
    assert harness.running("other"), "who does not need it starts"
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == Reason.AWAITING_SECRET
    assert "set it with: prichal secret set demo keys token" in ready.message
    put(harness, other="hunter2-horse")
    ready = harness.condition(ConditionType.READY)
    assert ready is not None
    assert "its build waits for the key 'token' of the Secret 'keys'" in ready.message
    put(harness, token="battery-staple")
    assert harness.outcome.name == "Ready"
    ((tag, values),) = harness.engine.build_secrets.items()
    assert values == {"pip": "battery-staple"}
    assert harness.engine.builds == [tag]
    put(harness, token="another-staple")
    assert harness.engine.builds == [tag]
    assert b"battery-staple" not in harness.all_stored()


def test_secrets_of_builds_are_used_by_their_components(harness: Harness) -> None:
    harness.connect()
    harness.push(built(secrets=[PIP]), Dockerfile="FROM base")
    harness.run()
    (use,) = harness.status().secrets
    assert (use.name, use.users) == ("keys", ("MLComponent classify",))


@pytest.mark.parametrize("account", [True, False])
def test_builds_get_the_package_registry_of_their_component(harness: Harness, account: bool) -> None:
    """As files of pip and uv, which read them as they are written."""
    credentials = SecretSpec("index", (("username", Secret("ann")), ("password", Secret("p%/@w-horse"))), APP)
    registry = Registry("pypi", "https://packages.example.org/simple", "index" if account else None)
    harness.connect(app(package_registries=(registry,)), secrets=[credentials] * account)
    service = {"inference": "app:predict", "packageRegistryName": "pypi"}
    harness.push(ml(image={"build": {}}, mlService=service), Dockerfile="FROM base")
    assert harness.run().name == "Ready"
    (files,) = harness.engine.build_secrets.values()
    place = "ann:p%25%2F%40w-horse@" if account else ""
    url = f"https://{place}packages.example.org/simple"
    pip = configparser.ConfigParser()
    pip.read_string(files["pip.conf"])
    assert pip["global"]["index-url"] == url
    assert tomllib.loads(files["uv.toml"]) == {"index": [{"url": url, "default": True}]}


@pytest.mark.parametrize("cache", [True, False])
def test_builds_that_use_images_as_cache_get_the_registries_of_their_app(
    harness: Harness, cache: bool
) -> None:
    """With their accounts; others need none."""
    settings = replace(harness.settings, policies=Policies(cache_images=("*",)))
    harness.deps = replace(harness.deps, settings=settings)
    harness.connect(app(registries=(Registry("hub", "hub.example.org", None),)))
    source: dict[str, Any] = {"cacheFrom": ["hub.example.org/team/x:1"]} if cache else {}
    harness.push(built(**source), Dockerfile="FROM base")
    harness.run()
    assert list(harness.engine.build_registries.values()) == [["hub.example.org"] * cache]


def test_a_package_registry_needs_the_whole_account(harness: Harness) -> None:
    credentials = SecretSpec("index", (("username", Secret("ann")),), APP)
    registry = Registry("pypi", "https://packages.example.org/simple", "index")
    harness.connect(app(package_registries=(registry,)), secrets=[credentials])
    service = {"inference": "app:predict", "packageRegistryName": "pypi"}
    harness.push(ml(image={"build": {}}, mlService=service), Dockerfile="FROM base")
    harness.run()
    assert Reason.REGISTRY_CREDENTIALS in {found.reason for found in harness.status().conditions}
