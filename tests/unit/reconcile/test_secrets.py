"""Secrets reach containers and nobody else: not the status, not events, plans, routes or logs."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from werkzeug.security import check_password_hash

from controller.domain.desired import Workload
from controller.domain.errors import Transient
from tests.unit.reconcile.scene import API_VERSION, APP, Scene, api, ml, secret

FROM_KEYS: dict[str, Any] = {"envFrom": [{"secretRef": {"name": "keys"}}]}
BASIC: dict[str, Any] = {"auth": {"basic": {"credentials": "users"}}}


def environment_of_starts(scene: Scene) -> list[dict[str, str]]:
    """Grows with every start from now on."""
    seen: list[dict[str, str]] = []
    start = scene.engine.start

    def record(workload: Workload, name: str) -> None:
        seen.append({key: value.reveal() for key, value in workload.env})
        start(workload, name)

    scene.engine.start = record  # type: ignore[method-assign]
    return seen


def test_a_secret_reaches_the_container_and_nothing_that_is_stored(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.secrets = ["hunter2secret", "ann-password", "token-of-ci"]
    scene.connect(
        secrets=[
            secret("keys", TOKEN="hunter2secret"),
            secret("users", ann="ann-password"),
            secret("tokens", ci="token-of-ci"),
        ]
    )
    env = environment_of_starts(scene)
    scene.push(
        ml(**FROM_KEYS, env=[{"name": "THRESHOLD", "value": "0.5"}]),
        api(**BASIC),
        api("ci", path="ci", auth={"token": {"credentials": "tokens"}}),
    )
    with caplog.at_level(logging.DEBUG):
        assert scene.run().name == "Ready"
    assert env == [{"THRESHOLD": "0.5", "TOKEN": "hunter2secret"}]
    assert not any(value in caplog.text for value in scene.secrets)
    ci, image = sorted(scene.route().apis, key=lambda a: a.path)
    ((user, hashed),) = image.users
    assert user == "ann"
    assert check_password_hash(hashed, "ann-password")
    assert ci.tokens[0][1].startswith("sha256:")


def test_the_components_own_variables_win_over_those_of_a_secret(scene: Scene) -> None:
    scene.connect(secrets=[secret("keys", TOKEN="from-the-secret", OTHER="kept")])
    env = environment_of_starts(scene)
    scene.push(ml(**FROM_KEYS, env=[{"name": "TOKEN", "value": "declared"}]))
    scene.run()
    assert env == [{"TOKEN": "declared", "OTHER": "kept"}]


def test_a_changed_secret_rolls_the_component_that_uses_it(scene: Scene) -> None:
    scene.connect(secrets=[secret("keys", TOKEN="first-value")])
    scene.push(ml(**FROM_KEYS), ml("other"))
    scene.run()
    other = scene.running("other")
    scene.connect(secrets=[secret("keys", TOKEN="second-value")])
    assert scene.run("platform").name == "Ready"
    assert len(scene.engine.starts) == 3
    assert scene.running("other") == other


def test_a_changed_password_switches_the_route_and_restarts_nothing(scene: Scene) -> None:
    scene.connect(secrets=[secret("users", ann="first-password")])
    scene.push(ml(), api(**BASIC))
    scene.run()
    scene.connect(secrets=[secret("users", ann="second-password")])
    assert scene.run("platform").name == "Ready"
    assert check_password_hash(scene.route().apis[0].users[0][1], "second-password")
    assert len(scene.engine.starts) == 1


def test_no_app_sees_the_secrets_of_another_one_or_of_the_platform(scene: Scene) -> None:
    scene.connect(
        secrets=[secret("keys", "other", TOKEN="not-for-demo"), secret("keys", None, TOKEN="nor-this")]
    )
    scene.push(ml(**FROM_KEYS))
    outcome = scene.run()
    assert outcome.name == "Failed"
    assert scene.engine.names() == []
    assert "keys" in outcome.message


def test_credentials_that_name_nobody_do_not_open_the_api_to_all(scene: Scene) -> None:
    scene.connect(secrets=[secret("users")])
    scene.push(ml(), api(**BASIC))
    assert scene.run().name != "Ready"
    assert scene.store.routes.of(APP) == ()


def test_a_secret_in_the_modules_own_repository_works_and_is_kept_out_of_texts(scene: Scene) -> None:
    scene.secrets = ["written-into-git"]
    plain = {
        "apiVersion": API_VERSION,
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"TOKEN": "written-into-git"},
    }
    scene.connect()
    env = environment_of_starts(scene)
    scene.push(ml(**FROM_KEYS), json.dumps(plain))
    assert scene.run().name == "Ready"
    assert env == [{"TOKEN": "written-into-git"}]
    scene.engine.start_failures["classify"] = Transient("EngineFailed", "refused: TOKEN=written-into-git")
    scene.engine.vanish(scene.running()[0].id)
    outcome = scene.run("drift")
    assert outcome.message == "refused: TOKEN=***"


def test_what_an_error_quotes_is_blanked(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.secrets = ["git-password"]
    scene.connect(secrets=[secret("demo-git", None, username="ann", password="git-password")])
    scene.sources.fault = Transient("Unreachable", "https://ann:git-password@git.example.org does not answer")
    outcome = scene.run()
    assert "git-password" not in outcome.message + caplog.text
    assert "***" in outcome.message
