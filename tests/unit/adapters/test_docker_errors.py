"""Every way the Docker SDK fails becomes a decision of ours."""

from __future__ import annotations

import inspect

import docker.errors
import pytest
import requests
import requests.exceptions
import urllib3.exceptions

from controller.adapters.docker.error_rules import (
    ANSWERS,
    CLASSES,
    RUNTIME_ANSWERS,
    from_answer,
    translate,
    translated,
)
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.secret import Secret
from tests.support.engine_words import IMAGES, STARTS

SDK = [
    cls for _, cls in inspect.getmembers(docker.errors, inspect.isclass) if cls.__module__ == "docker.errors"
]
REQUESTS = [
    cls
    for _, cls in inspect.getmembers(requests.exceptions, inspect.isclass)
    if issubclass(cls, requests.RequestException)
]


def answer(status: int, explanation: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("message", response=response, explanation=explanation)


@pytest.mark.parametrize("cls", SDK, ids=lambda cls: cls.__name__)
def test_every_class_of_the_sdk_has_a_verdict_of_its_own(cls: type[Exception]) -> None:
    assert cls in CLASSES


@pytest.mark.parametrize("cls", REQUESTS, ids=lambda cls: cls.__name__)
def test_bare_errors_of_requests_are_caught(cls: type[Exception]) -> None:
    error = cls("a", "b", 0) if cls is requests.exceptions.JSONDecodeError else cls("broken")
    with pytest.raises(ControllerError, match="cannot do it"), translated("cannot do it"):
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (requests.ConnectionError("refused"), Transient, "EngineUnreachable"),
        (requests.ReadTimeout("slow"), Transient, "EngineTimeout"),
        (urllib3.exceptions.ProtocolError("torn"), Transient, "EngineUnreachable"),
        (urllib3.exceptions.ReadTimeoutError(None, "", "slow"), Transient, "EngineTimeout"),  # type: ignore[arg-type]
        (ConnectionResetError("reset"), Transient, "EngineUnreachable"),
        (docker.errors.InvalidVersion("old"), Stalled, "EngineTooOld"),
        (docker.errors.DockerException("odd"), Transient, "EngineFailed"),
    ],
)
def test_classes(error: Exception, kind: type[ControllerError], reason: str) -> None:
    found = translate(error, "cannot do it")
    assert type(found) is kind
    assert found.reason == reason


def test_what_went_wrong_while_connecting_is_found_inside() -> None:
    try:
        try:
            raise requests.ConnectionError("no socket")
        except requests.ConnectionError as cause:
            raise docker.errors.DockerException("Error while fetching server API version") from cause
    except docker.errors.DockerException as error:
        assert translate(error, "cannot do it").reason == "EngineUnreachable"


def test_a_forbidden_socket_says_what_to_do() -> None:
    inner = urllib3.exceptions.ProtocolError("Connection aborted.", PermissionError(13, "Permission denied"))
    found = translate(requests.ConnectionError(inner), "cannot do it")
    assert found.reason == "EngineForbidden"
    assert "group `docker`" in found.message


#: The engine's own words: Engine 20.10.24 unless said otherwise.
WORDS = {
    'Head "http://127.0.0.1:5099/v2/x/manifests/a": no basic auth credentials': "RegistryDenied",
    "unauthorized: authentication required": "RegistryDenied",
    "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access "
    "to the resource is denied": "RegistryDenied",
    "manifest unknown: manifest unknown": "ImageNotFound",
    "manifest for h/x:zz not found: manifest unknown: manifest unknown": "ImageNotFound",
    "invalid reference format: repository name must be lowercase": "InvalidReference",
    'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused': "RegistryUnreachable",
    'Get "https://r.invalid/v2/": dial tcp: lookup r.invalid on 10.0.0.1:53: no such host': "RegistryUnreachable",
    "x509: certificate signed by unknown authority": "RegistryUntrusted",
    "toomanyrequests: You have reached your pull rate limit": "RegistryLimited",
    "http: server gave HTTP response to HTTPS client": "RegistryUntrusted",
    "No such image: x@sha256:aa": "ImageGone",
    'invalid mount config for type "bind": bind source path does not exist: /state/models/x': "MountGone",
    "No such container: 9fc477": "WorkloadGone",
    "network t-1.app not found": "NetworkGone",
    "error while removing network: network t-1.app id 77 has active endpoints": "NetworkInUse",
    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network": (
        "AddressesExhausted"
    ),
    "all predefined address pools have been fully subnetted": "AddressesExhausted",  # Engine 27
    'could not select device driver "" with capabilities: [[gpu]]': "NoGpu",
    "OCI runtime create failed: nvidia-container-cli: device error: 7: unknown device: unknown": "NoGpu",
    "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown": "NoGpu",
    "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available": "LimitsInvalid",
    "Minimum memory limit allowed is 6MB": "LimitsInvalid",
    "No command specified": "NoCommand",
    'runc create failed: unable to start container process: exec: "x": executable file not found in $PATH': (
        "CommandNotFound"
    ),
    "write /var/lib/docker/tmp/x: no space left on device": "EngineDiskFull",
    "something else": "EngineFailed",
}


@pytest.mark.parametrize(("words", "reason"), (STARTS | IMAGES | WORDS).items())
def test_the_engines_words_decide(words: str, reason: str) -> None:
    assert translate(answer(500, words), "cannot do it").reason == reason
    assert from_answer(words, "cannot do it").reason == reason


def test_every_rule_about_words_is_tried() -> None:
    tried = set((STARTS | IMAGES | WORDS).values())
    assert {verdict.reason for _, verdict in (*ANSWERS, *RUNTIME_ANSWERS)} <= tried


@pytest.mark.parametrize("words", STARTS)
def test_no_start_is_taken_for_an_answer_of_a_registry(words: str) -> None:
    assert not from_answer(words, "cannot start it").reason.startswith(("Registry", "Image"))


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Stalled, "EngineRefused"),
        (404, Transient, "EngineObjectGone"),
        (409, Transient, "EngineConflict"),
        (500, Transient, "EngineFailed"),
        (502, Transient, "EngineUnreachable"),
        (503, Transient, "EngineUnreachable"),
    ],
)
def test_else_the_status_decides(status: int, kind: type[ControllerError], reason: str) -> None:
    found = translate(answer(status, "what the fish"), "cannot do it")
    assert (type(found), found.reason) == (kind, reason)
    assert found.message.startswith("cannot do it: what the fish")


@pytest.mark.parametrize("words", ["", "Service Unavailable", "<html><h1>502 Bad Gateway</h1></html>", "x"])
def test_what_stands_before_an_engine_that_is_away(words: str) -> None:
    for status in (502, 503, 504):
        assert translate(answer(status, words), "cannot do it").reason == "EngineUnreachable"


def test_an_answer_that_is_an_error_is_no_engine_that_is_away() -> None:
    """However it was asked for: by the SDK, or by its client without it."""
    response = requests.Response()
    response.status_code, response.reason, response.url = (
        500,
        "Internal Server Error",
        "http+docker://x/archive",
    )
    with pytest.raises(Transient) as caught, translated("cannot look"):
        response.raise_for_status()
    assert caught.value.reason == "EngineFailed"
    assert "500 Server Error" in caught.value.message


@pytest.mark.parametrize(
    "words",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_an_engine_without_networks_gets_better_and_it_is_said_how(words: str) -> None:
    found = translate(answer(500, words), "cannot create network prichal.demo")
    assert isinstance(found, Transient)
    assert "`default-address-pools`" in found.message
    assert "/etc/docker/daemon.json" in found.message


def test_secrets_are_cut_out() -> None:
    secrets = (Secret("hunter22"),)
    with pytest.raises(ControllerError) as caught, translated("cannot do it", secrets):
        raise answer(500, "no luck at https://me:hunter22@hub")
    assert caught.value.message == "cannot do it: no luck at https://me:***@hub"


def test_faults_of_ours_are_not_hidden() -> None:
    with pytest.raises(KeyError), translated("cannot do it"):
        raise KeyError("a bug")


@pytest.mark.parametrize(
    "words",
    [
        r"""environment variable value can't contain null(\x00): "API_KEY=correct-horse\x00battery": unknown""",
        "invalid environment variable: API_KEY=correct-horse\nbattery",
        'setting env var: "API_KEY=correct-horse": invalid argument',
    ],
)
def test_what_an_engine_says_of_the_environment_is_cut(words: str) -> None:
    """Whether or not anybody has told us that it is a secret."""
    for found in (translate(answer(500, words), "cannot start"), from_answer(words, "cannot start")):
        assert "horse" not in found.message
        assert "battery" not in found.message
        assert "its value is not shown" in found.message
