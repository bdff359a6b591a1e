"""Secrets reach containers and nobody else: not the status, not events, plans, routes or logs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from werkzeug.security import check_password_hash

from controller.domain.apps.desired import Workload
from controller.domain.errors import Transient
from controller.domain.reasons import Reason
from tests.unit.reconcile.harness import API_VERSION, APP, Harness, api, ml, secret

FROM_KEYS: dict[str, Any] = {"envFrom": [{"secretRef": {"name": "keys"}}]}
BASIC: dict[str, Any] = {"auth": {"basic": {"credentials": "users"}}}


def environment_of_starts(harness: Harness) -> list[dict[str, str]]:
    """Grows with every start from now on."""
    seen: list[dict[str, str]] = []
    start = harness.engine.start

    def record(workload: Workload, name: str) -> None:
        seen.append({key: value.reveal() for key, value in workload.env})
        start(workload, name)

    harness.engine.start = record  # type: ignore[method-assign]
    return seen


def test_a_secret_reaches_the_container_and_nothing_that_is_stored(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.secrets = ["hunter2secret", "ann-password", "token-of-ci"]
    harness.connect(
        secrets=[
            secret("keys", TOKEN="hunter2secret"),
            secret("users", ann="ann-password"),
            secret("tokens", ci="token-of-ci"),
        ]
    )
    env = environment_of_starts(harness)
    harness.push(
        ml(**FROM_KEYS, env=[{"name": "THRESHOLD", "value": "0.5"}]),
        api(**BASIC),
        api("ci", path="ci", auth={"token": {"credentials": "tokens"}}),
    )
    with caplog.at_level(logging.DEBUG):
        assert harness.run().name == "Ready"
    assert env == [{"THRESHOLD": "0.5", "TOKEN": "hunter2secret"}]
    assert not any(value in caplog.text for value in harness.secrets)
    ci, image = sorted(harness.route().apis, key=lambda a: a.path)
    ((user, hashed),) = image.users
    assert user == "ann"
    assert check_password_hash(hashed, "ann-password")
    assert ci.tokens[0][1].startswith("sha256:")


def test_the_components_own_variables_win_over_those_of_a_secret(harness: Harness) -> None:
    harness.connect(secrets=[secret("keys", TOKEN="from-the-secret", OTHER="kept")])
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS, env=[{"name": "TOKEN", "value": "declared"}]))
    harness.run()
    assert env == [{"TOKEN": "declared", "OTHER": "kept"}]


def test_a_changed_secret_rolls_the_component_that_uses_it(harness: Harness) -> None:
    harness.connect(secrets=[secret("keys", TOKEN="first-value")])
    harness.push(ml(**FROM_KEYS), ml("other"))
    harness.run()
    other = harness.running("other")
    harness.connect(secrets=[secret("keys", TOKEN="second-value")])
    assert harness.run("platform").name == "Ready"
    assert len(harness.engine.starts) == 3
    assert harness.running("other") == other


def test_a_changed_password_switches_the_route_and_restarts_nothing(harness: Harness) -> None:
    harness.connect(secrets=[secret("users", ann="first-password")])
    harness.push(ml(), api(**BASIC))
    harness.run()
    harness.connect(secrets=[secret("users", ann="second-password")])
    assert harness.run("platform").name == "Ready"
    assert check_password_hash(harness.route().apis[0].users[0][1], "second-password")
    assert len(harness.engine.starts) == 1


def test_no_app_sees_the_secrets_of_another_one_or_of_the_platform(harness: Harness) -> None:
    harness.connect(
        secrets=[secret("keys", "other", TOKEN="not-for-demo"), secret("keys", None, TOKEN="nor-this")]
    )
    harness.push(ml(**FROM_KEYS))
    outcome = harness.run()
    assert outcome.name == "Waiting"
    assert harness.engine.names() == []
    assert "prichal secret set demo keys KEY" in outcome.message


def test_credentials_that_name_nobody_do_not_open_the_api_to_all(harness: Harness) -> None:
    harness.connect(secrets=[secret("users")])
    harness.push(ml(), api(**BASIC))
    assert harness.run().name != "Ready"
    assert harness.store.routes.of(APP) == ()


def test_a_secret_in_the_modules_own_repository_works_and_is_kept_out_of_texts(harness: Harness) -> None:
    harness.secrets = ["written-into-git"]
    plain = {
        "apiVersion": API_VERSION,
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"TOKEN": "written-into-git"},
    }
    harness.connect()
    env = environment_of_starts(harness)
    harness.push(ml(**FROM_KEYS), json.dumps(plain))
    assert harness.run().name == "Ready"
    assert env == [{"TOKEN": "written-into-git"}]
    harness.engine.start_failures["classify"] = Transient(
        Reason.ENGINE_FAILED, "refused: TOKEN=written-into-git"
    )
    harness.engine.vanish(harness.running()[0].id)
    outcome = harness.run("drift")
    assert outcome.message == "classify: 0 of 1 replicas run. refused: TOKEN=***"


def test_what_an_error_quotes_is_blanked(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    harness.secrets = ["git-password"]
    harness.connect(secrets=[secret("demo-git", None, username="ann", password="git-password")])
    harness.sources.fault = Transient(
        Reason("Unreachable"), "https://ann:git-password@git.example.org does not answer"
    )
    outcome = harness.run()
    assert "git-password" not in outcome.message + caplog.text
    assert "***" in outcome.message


def test_users_of_the_platforms_side_who_could_not_call_are_refused_without_their_passwords(
    harness: Harness,
) -> None:
    harness.secrets = ["correct-horse"]
    harness.connect(secrets=[secret("users", ann="good enough")])
    harness.push(ml(), api(**BASIC))
    assert harness.run().name == "Ready"
    harness.connect(secrets=[secret("users", ann="correct-horse\0")])
    assert harness.run("platform").name == "Failed"
    assert harness.running()
    assert "CallersInvalid" in harness.events()
    assert harness.route().apis[0].users, "those who could call before still can"
