"""What the Docker SDK raises, as decisions of ours. Data: two tables, and one context manager that applies them.

The engine answers most failures with 500 and a sentence, so its words decide (`ANSWERS`), then the status. The SDK
also lets errors of `requests` and `urllib3` through from any call, and raises some classes of its own (`CLASSES`).
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker.errors
import requests.exceptions
import urllib3.exceptions

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.secret import Secret, scrub

Kind = type[Stalled] | type[Transient]


@dataclass(frozen=True)
class Verdict:
    """`advice` is what a person can do, "" where waiting is all."""

    kind: Kind
    reason: str
    advice: str = ""

    def error(self, doing: str, text: str, secrets: tuple[Secret, ...] = ()) -> ControllerError:
        sentence = f"{doing}: {scrub(text, secrets).strip().rstrip('.')}"
        return self.kind(self.reason, f"{sentence}. {self.advice}" if self.advice else sentence)


UNREACHABLE = Verdict(Transient, "EngineUnreachable", "Is Docker running? See `systemctl status docker`")
FAILED = Verdict(Transient, "EngineFailed")
REFUSED = Verdict(Stalled, "EngineRefused")
MISUSED = Verdict(Stalled, "EngineMisused", "This is a fault of prichal; please report it")

REGISTRY_DENIED = Verdict(
    Stalled,
    "RegistryDenied",
    "Check that the image exists, and the credentials under `registries` of the PlatformApp",
)
REGISTRY_UNREACHABLE = Verdict(Transient, "RegistryUnreachable", "Tried again by itself")
IMAGE_NOT_FOUND = Verdict(Stalled, "ImageNotFound", "Push the image, or correct its name and tag")
MADE_HERE = Verdict(
    Stalled,
    IMAGE_NOT_FOUND.reason,
    "What is built from a commit is built again by itself: once the app is Ready, submit the run anew. An image that "
    "was loaded by hand has to be loaded again",
)
NO_PYTHON = Verdict(
    Stalled,
    "NoPython",
    "The serving library needs Python 3.9 or newer in the image: install python3 there, or bring a server of your "
    "own with `mlService: {server: own}`",
)
COMMAND_NOT_FOUND = Verdict(
    Stalled,
    "CommandNotFound",
    "Check `command`, CMD and ENTRYPOINT of the image, and its architecture",
)
NAME_TAKEN = Verdict(Stalled, "NameTaken", "Remove or rename it by hand")
NOT_OURS = Verdict(Stalled, "NotOurs")

#: First match wins. The left side is searched in the engine's words, without regard to case. Its texts have been the
#: same from Engine 20.10 on; what a newer one words differently falls to its status, which is retried.
ANSWERS: tuple[tuple[str, Verdict], ...] = (
    (
        r"no basic auth credentials|unauthorized|access denied|\bdenied:|authentication required",
        REGISTRY_DENIED,
    ),
    (r"manifest unknown|name unknown|manifest for .* not found|not found: manifest", IMAGE_NOT_FOUND),
    (
        r"invalid reference format|invalid repository name",
        Verdict(Stalled, "InvalidReference", "An image is named as `docker pull` takes it"),
    ),
    (r"no such image", Verdict(Transient, "ImageGone", "It is fetched or built anew")),
    (
        r"bind source path does not exist",
        Verdict(Transient, "MountGone", "What was removed from the state folder is brought there anew"),
    ),
    (r"no such container", Verdict(Transient, "WorkloadGone")),
    (r"network .* not found|no such network", Verdict(Transient, "NetworkGone", "It is made anew")),
    (r"has active endpoints", Verdict(Transient, "NetworkInUse")),
    (
        r"non-overlapping ipv4 address pool|all predefined address pools",
        Verdict(
            Stalled,
            "AddressesExhausted",
            "Docker has no subnet left for another app: add `default-address-pools` to /etc/docker/daemon.json",
        ),
    ),
    (
        r"could not select device driver|nvidia-container-cli: (device|initialization) error",
        Verdict(
            Stalled,
            "NoGpu",
            "This host has no such GPU, or no GPU runtime: set `resources.gpus: 0`, correct `runs.gpus` or install one",
        ),
    ),
    (
        r"range of cpus|minimum memory limit",
        Verdict(Stalled, "LimitsInvalid", "Change `resources` of the component"),
    ),
    (r"no command specified", Verdict(Stalled, "NoCommand", "Give the image a CMD or ENTRYPOINT")),
    (r"executable file not found|exec format error", COMMAND_NOT_FOUND),
    (
        r"no space left on device",
        Verdict(Transient, "EngineDiskFull", "Make room on the disk below /var/lib/docker"),
    ),
    (
        (
            r"dial tcp|no such host|connection re(fused|set)|i/o timeout|tls handshake|certificate|client\.timeout"
            r"|deadline exceeded|toomanyrequests|too many requests|server gave http response|service unavailable"
            r"|bad gateway|gateway time-?out|: EOF\b|request canceled"
        ),
        REGISTRY_UNREACHABLE,
    ),
)

STATUS: dict[int, Verdict] = {
    400: REFUSED,
    403: REFUSED,
    404: Verdict(Transient, "EngineObjectGone"),
    409: Verdict(Transient, "EngineConflict"),
}

#: The nearest class of an exception's method resolution order decides.
CLASSES: dict[type[BaseException], Verdict] = {
    docker.errors.DockerException: FAILED,
    docker.errors.APIError: FAILED,
    docker.errors.NotFound: STATUS[404],
    docker.errors.ImageNotFound: Verdict(Transient, "ImageGone", "It is fetched or built anew"),
    docker.errors.InvalidVersion: Verdict(Stalled, "EngineTooOld", "Docker Engine 20.10 or newer is needed"),
    docker.errors.InvalidRepository: Verdict(Stalled, "InvalidReference"),
    docker.errors.InvalidConfigFile: Verdict(Stalled, "EngineConfig", "Correct ~/.docker/config.json"),
    docker.errors.TLSParameterError: Verdict(Stalled, "EngineConfig", "Correct `docker.host` of the config"),
    docker.errors.InvalidArgument: MISUSED,
    docker.errors.DeprecatedMethod: MISUSED,
    docker.errors.NullResource: MISUSED,
    docker.errors.ContainerError: FAILED,
    docker.errors.StreamParseError: FAILED,
    docker.errors.BuildError: Verdict(Stalled, "BuildFailed"),
    docker.errors.ImageLoadError: FAILED,
    docker.errors.MissingContextParameter: Verdict(Stalled, "EngineConfig"),
    docker.errors.ContextAlreadyExists: Verdict(Stalled, "EngineConfig"),
    docker.errors.ContextException: Verdict(Stalled, "EngineConfig"),
    docker.errors.ContextNotFound: Verdict(Stalled, "EngineConfig"),
    requests.exceptions.RequestException: UNREACHABLE,
    requests.exceptions.Timeout: Verdict(Transient, "EngineTimeout"),
    requests.exceptions.JSONDecodeError: FAILED,
    urllib3.exceptions.HTTPError: UNREACHABLE,
    urllib3.exceptions.TimeoutError: Verdict(Transient, "EngineTimeout"),
    http.client.HTTPException: UNREACHABLE,
    ConnectionError: UNREACHABLE,
    TimeoutError: Verdict(Transient, "EngineTimeout"),
}
_CAUGHT = tuple(CLASSES)
_FORBIDDEN = Verdict(
    Transient,
    "EngineForbidden",
    "The daemon's user may not use the Docker socket: add it to the group `docker`",
)


@contextmanager
def translated(doing: str, secrets: tuple[Secret, ...] = ()) -> Iterator[None]:
    """Errors of the SDK leave this block as Stalled or Transient; `doing` begins their text ("cannot start x")."""
    try:
        yield
    except _CAUGHT as error:
        raise translate(error, doing, secrets) from error


def translate(error: BaseException, doing: str, secrets: tuple[Secret, ...] = ()) -> ControllerError:
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return _FORBIDDEN.error(doing, "permission denied", secrets)
    if isinstance(error, docker.errors.APIError):
        return from_answer(error.explanation or str(error), doing, error.status_code, secrets)
    # Connecting raises a bare DockerException around what really happened.
    known = next((cause for cause in causes if type(cause) is not docker.errors.DockerException), error)
    if isinstance(known, docker.errors.APIError):
        return from_answer(known.explanation or str(known), doing, known.status_code, secrets)
    verdict = next((CLASSES[base] for base in type(known).__mro__ if base in CLASSES), FAILED)
    return verdict.error(doing, str(error) or type(error).__name__, secrets)


def from_answer(
    text: str, doing: str, status: int | None = None, secrets: tuple[Secret, ...] = ()
) -> ControllerError:
    """The decision for the engine's own words, be they an HTTP answer or a line in a progress stream."""
    for pattern, verdict in ANSWERS:
        if re.search(pattern, text, re.IGNORECASE):
            return verdict.error(doing, text, secrets)
    return STATUS.get(status or 500, FAILED).error(doing, text, secrets)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, then the arguments that urllib3 wraps its cause in."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop(0)
        if current is None or any(current is other for other in seen):
            continue
        seen.append(current)
        yield current
        wrapped = [argument for argument in current.args if isinstance(argument, BaseException)]
        pending += [current.__cause__, *wrapped]
