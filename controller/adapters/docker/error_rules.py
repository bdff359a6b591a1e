"""Translates errors of the Docker SDK into ours. Data: tables, and one context manager that applies them.

The engine answers most failures with 500 and a sentence, so its words decide (`RUNTIME_ANSWERS` for what the
runtime reports, otherwise `ANSWERS`), then the status. The SDK also lets errors of `requests` and `urllib3`
through from any call, and raises some classes of its own (`CLASSES`).
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

import docker.errors
import requests.exceptions
import urllib3.exceptions

from controller.domain.error_table import MAX_TEXT, ErrorRule, ErrorTable, Words, rule_by_words
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret
from controller.domain.text import excerpt

_ENVIRONMENT = re.compile(r"\benv(?:ironment)? ?var(?:iable)?s?\b", re.IGNORECASE)


def _without_environment(text: str) -> str:
    """Remove the value that an engine quotes in errors about a variable, since it may be a secret."""
    named = _ENVIRONMENT.search(text)
    colon = text.find(":", named.end()) if named else -1
    return text if colon < 0 else Localizable("{text} (its value is not shown)", text=text[: colon + 1])


BUILD_OF_AN_APP = ErrorRule(
    Stalled,
    Reason.IMAGE_REFUSED,
    Localizable("Name an image of a registry, or let this app build its own (`build`)"),
)
EGRESS_OPEN = ErrorRule(
    Transient,
    Reason.EGRESS_OPEN,
    Localizable("The engine's host needs iptables, or `docker.egress` another value; see `prichal doctor`"),
)
IMAGE_ID = ErrorRule(
    Stalled, Reason.IMAGE_REFUSED, Localizable("Name the image by its tag, or by its registry and digest")
)
UNREACHABLE = ErrorRule(
    Transient, Reason.ENGINE_UNREACHABLE, Localizable("Is Docker running? See `systemctl status docker`")
)
FAILED = ErrorRule(Transient, Reason.ENGINE_FAILED)
HOST_FAILED = ErrorRule(
    Transient,
    FAILED.reason,
    Localizable(
        "This has to be corrected on this host, not in the image: see `journalctl -u docker -u containerd`"
    ),
)
REFUSED = ErrorRule(Stalled, Reason.ENGINE_REFUSED)
MISUSED = ErrorRule(
    Stalled, Reason.ENGINE_MISUSED, Localizable("This is an error in prichal; please report it")
)

REGISTRY_DENIED = ErrorRule(
    Stalled,
    Reason.REGISTRY_DENIED,
    Localizable("Check that the image exists, and the credentials under `registries` of the PlatformApp"),
)
REGISTRY_UNREACHABLE = ErrorRule(
    Transient, Reason.REGISTRY_UNREACHABLE, Localizable("It is tried again automatically")
)
REGISTRY_LIMITED = ErrorRule(
    Transient,
    Reason.REGISTRY_LIMITED,
    Localizable(
        "It is tried again automatically. Credentials under `registries` of the PlatformApp often raise the limit"
    ),
)
REGISTRY_UNTRUSTED = ErrorRule(
    Transient,
    Reason.REGISTRY_UNTRUSTED,
    Localizable(
        "Put the certificate of its authority into /etc/docker/certs.d/HOST/ca.crt; a registry without TLS "
        "has to be listed under `insecure-registries` in /etc/docker/daemon.json"
    ),
)
IMAGE_UNUSABLE = ErrorRule(
    Stalled,
    Reason.IMAGE_UNUSABLE,
    Localizable("Build and push the image for this host's platform, in a current format"),
)
IMAGE_NOT_FOUND = ErrorRule(
    Stalled, Reason.IMAGE_NOT_FOUND, Localizable("Push the image, or correct its name and tag")
)
MADE_HERE = ErrorRule(
    Stalled,
    IMAGE_NOT_FOUND.reason,
    Localizable(
        "An image from a commit is built again automatically: submit the run again once the app is Ready. An "
        "image that was loaded by hand has to be loaded again"
    ),
)
NO_PYTHON = ErrorRule(
    Stalled,
    Reason.NO_PYTHON,
    Localizable(
        "The serving library needs Python 3.9 or newer in the image: install python3 there, or bring a "
        "server of your own with `mlService: {server: own}`"
    ),
)
COMMAND_NOT_FOUND = ErrorRule(
    Stalled,
    Reason.COMMAND_NOT_FOUND,
    Localizable("Check `command`, CMD and ENTRYPOINT of the image, and its architecture"),
)
COMMAND_DENIED = ErrorRule(
    Stalled,
    Reason.COMMAND_DENIED,
    Localizable(
        "Its user cannot execute the image's command: make it executable (`RUN chmod +x …`), and name a file"
    ),
)
USER_NOT_FOUND = ErrorRule(
    Stalled,
    Reason.USER_NOT_FOUND,
    Localizable(
        "The image's USER does not exist in it: create it in the Dockerfile (`RUN useradd …`), or give a number"
    ),
)
WORKDIR_INVALID = ErrorRule(
    Stalled,
    Reason.WORKDIR_INVALID,
    Localizable("The image's WORKDIR has to be an absolute path to a folder that its user may enter"),
)
ENVIRONMENT_INVALID = ErrorRule(
    Stalled,
    Reason.ENVIRONMENT_INVALID,
    Localizable("Correct `env`, `envFrom` and the values of the Secrets; they may be too long"),
)
MOUNT_INVALID = ErrorRule(
    Stalled,
    Reason.MOUNT_INVALID,
    Localizable(
        "A file cannot be mounted onto a folder of the image or the reverse, and nothing below /proc or "
        "/sys: choose another path"
    ),
)
MOUNT_GONE = ErrorRule(
    Transient, Reason.MOUNT_GONE, Localizable("What was removed from the state folder is put there again")
)
LIMITS_INVALID = ErrorRule(Stalled, Reason.LIMITS_INVALID, Localizable("Change `resources` of the component"))
NO_GPU = ErrorRule(
    Stalled,
    Reason.NO_GPU,
    Localizable(
        "This host has no such GPU, or no GPU runtime: set `resources.gpus: 0`, correct `runs.gpus` or install one"
    ),
)
DISK_FULL = ErrorRule(
    Transient, Reason.ENGINE_DISK_FULL, Localizable("Free some space on the disk below /var/lib/docker")
)
NAME_TAKEN = ErrorRule(Stalled, Reason.NAME_TAKEN, Localizable("Remove or rename it by hand"))
NOT_OURS = ErrorRule(Stalled, Reason.NOT_OURS)

#: The first match wins, without regard to case. What reports a failure is recognized before its words are
#: read: a runtime that is denied an executable, or the command of a build step, may use the words with which
#: registries refuse. The tests have texts of engines from 20.10 to 29, of runc and of crun; newer wordings
#: fall back to the status.
#: A step of a build ran and failed; the text quotes its command.
STEP = r"^the command '|^process \"|executor failed running"
STEP_FAILED = ErrorRule(Stalled, Reason.BUILD_FAILED)

#: The container was created, but the runtime (runc, crun, through containerd's shim) could not start it.
RUNTIME = (
    r"oci runtime|runc create|\bcrun\b|container_linux\.go|starting container process"
    r"|failed to (create|start) (shim|task)|containerd(-shim|\.sock)|apparmor enabled on system"
)
RUNTIME_ANSWERS: Words = (
    (r"nvidia-container-|unresolvable cdi device|cdi device injection failed", NO_GPU),
    # What the runtime itself lacks, and what it mounts and sets in every container:
    (
        r"unable to retrieve oci runtime error|apparmor|selinux|seccomp|/attr/|setting rlimit|error mounting \"[a-z]",
        HOST_FAILED,
    ),
    (r"no space left on device|disk quota exceeded", DISK_FULL),
    (
        (
            r"container init was oom-killed|memory limit too low|unable to set memory limit to"
            r"|failed to write .*(memory\.(max|limit_in_bytes)|cpu\.(max|cfs_quota_us))"
        ),
        LIMITS_INVALID,
    ),
    (r"unable to find (user|group)|no matching entries in (passwd|group)|setgroups: invalid", USER_NOT_FOUND),
    (r"chdir to cwd|\bchdir\b|mkdir .*working dir", WORKDIR_INVALID),
    (r"environment variable|argument list too long", ENVIRONMENT_INVALID),
    (r"mounting .*no such file or directory|fulfil mount request: .*no such file", MOUNT_GONE),
    (
        (
            r"are you trying to mount a directory onto a file|cannot be mounted because|error mounting|mountpoint"
            r"|rootfs_linux\.go|fulfil mount request"
            r"|mount .* to .*: (not a directory|read-only|permission|no such file|invalid argument)"
        ),
        MOUNT_INVALID,
    ),
    (r"(exec\w*:? .*|open executable: )(permission denied|operation not permitted)", COMMAND_DENIED),
    (
        (
            r"executable file .*not found|exec format error|exec:? .*no such file or directory|stat .*no such file"
            r"|command that was not found|exec:? .*is a directory|open executable: no such file"
            r"|cannot run executable found relative"
        ),
        COMMAND_NOT_FOUND,
    ),
)

#: The engine's own words, or those of a registry that it passes on.
ANSWERS: Words = (
    (r"toomanyrequests|too many requests|rate ?limit|rate exceeded", REGISTRY_LIMITED),
    (r"x509:|server gave http response to https client|tls: failed to verify", REGISTRY_UNTRUSTED),
    (
        (
            r"no basic auth credentials|unauthorized|access denied|(?<!permission )\bdenied:|registry: denied"
            r"|authentication required|insufficient_scope|authorization failed|incorrect username or password"
            r"|403 forbidden|access forbidden|access to the resource is denied|does not exist or no pull access"
        ),
        REGISTRY_DENIED,
    ),
    (
        (
            r"no matching manifest for|no match for platform in manifest|cannot be used on this platform"
            r"|does not (match|provide) the specified platform|docker image format v1|schema ?1|missing signature key"
            r"|no longer supported since containerd|no supported platform found|unsupported manifest media type"
        ),
        IMAGE_UNUSABLE,
    ),
    (
        (
            r"manifest unknown|name unknown|manifest for .* not found|not found: manifest|name_unknown|manifest_unknown"
            r"|failed to resolve reference .*: not found"
        ),
        IMAGE_NOT_FOUND,
    ),
    (
        r"invalid reference format|invalid repository name|invalid tag format",
        ErrorRule(
            Stalled, Reason.INVALID_REFERENCE, Localizable("An image is named as `docker pull` takes it")
        ),
    ),
    (r"no such image", ErrorRule(Transient, Reason.IMAGE_GONE, Localizable("It is pulled or built again"))),
    (r"bind source path does not exist", MOUNT_GONE),
    (r"invalid mount config|duplicate mount point|invalid mount path", MOUNT_INVALID),
    (r"no such container", ErrorRule(Transient, Reason.WORKLOAD_GONE)),
    (r"container name .* is already in use", NAME_TAKEN),
    (
        r"network .* not found|no such network",
        ErrorRule(Transient, Reason.NETWORK_GONE, Localizable("It is created again")),
    ),
    (r"has active endpoints", ErrorRule(Transient, Reason.NETWORK_IN_USE)),
    (
        r"endpoint with name .* already exists",
        ErrorRule(
            Transient,
            Reason.ENGINE_CONFLICT,
            Localizable(
                "Docker still reserves the place of a removed container: `docker network disconnect -f NETWORK NAME`"
            ),
        ),
    ),
    (
        r"non-overlapping ipv4 address pool|all predefined address pools",
        ErrorRule(
            Transient,
            Reason.ADDRESSES_EXHAUSTED,
            Localizable(
                "Docker has no subnet left for the network of another app: add `default-address-pools` to "
                "/etc/docker/daemon.json and restart Docker, or remove unused networks (`docker network "
                "prune`). It is tried again automatically"
            ),
        ),
    ),
    (
        r"port is already allocated|address already in use",
        ErrorRule(
            Transient,
            Reason.PORT_TAKEN,
            Localizable("Another program on this host has the port: stop it, or change the port"),
        ),
    ),
    (
        (
            r"could not select device driver|nvidia-container-cli: (device|initialization) error|no known gpu vendor"
            r"|unresolvable cdi device|cdi device injection failed|unknown or invalid runtime name"
        ),
        NO_GPU,
    ),
    (
        (
            r"range of cpus|requested cpus are not available|minimum memory(swap)? limit|nanocpus can not be set"
            r"|memory limit should be|kernel does not support .*(cpu|memory)"
        ),
        LIMITS_INVALID,
    ),
    (
        r"no command specified",
        ErrorRule(Stalled, Reason.NO_COMMAND, Localizable("Give the image a CMD or ENTRYPOINT")),
    ),
    (
        r"unable to find (user|group)|no matching entries in (passwd|group)|uids and gids must be in range",
        USER_NOT_FOUND,
    ),
    (r"the working directory '.*' is invalid|cannot mkdir: .* is not a directory", WORKDIR_INVALID),
    (r"invalid environment variable", ENVIRONMENT_INVALID),
    (r"executable file not found|exec format error", COMMAND_NOT_FOUND),
    (r"no space left on device|disk quota exceeded", DISK_FULL),
    (
        (
            r"dial tcp|no such host|connection re(fused|set)|i/o timeout|tls handshake|certificate|client\.timeout"
            r"|deadline exceeded|service unavailable|bad gateway|gateway time-?out|: EOF\b|unexpected EOF"
            r"|request canceled|error parsing http \d+ response body"
            r"|unexpected status.*: 5\d\d|received unexpected http status: 5\d\d"
            r"|temporary failure in name resolution|server misbehaving|no route to host|network is unreachable"
        ),
        REGISTRY_UNREACHABLE,
    ),
)

STATUS: dict[int, ErrorRule] = {
    400: REFUSED,
    403: REFUSED,
    404: ErrorRule(Transient, Reason.ENGINE_OBJECT_GONE),
    409: ErrorRule(Transient, Reason.ENGINE_CONFLICT),
    502: UNREACHABLE,  # from a proxy in front of an engine that is away
    503: UNREACHABLE,
    504: UNREACHABLE,
}
#: The whole text of such a response: the engine itself would name a registry.
_AWAY = re.compile(
    r"\W*(service unavailable|bad gateway|gateway time-?out)\W*|\s*<.*", re.IGNORECASE | re.DOTALL
)

#: The nearest class in the method resolution order of an exception decides.
CLASSES: dict[type[BaseException], ErrorRule] = {
    docker.errors.DockerException: FAILED,
    docker.errors.APIError: FAILED,
    docker.errors.NotFound: STATUS[404],
    docker.errors.ImageNotFound: ErrorRule(
        Transient, Reason.IMAGE_GONE, Localizable("It is pulled or built again")
    ),
    docker.errors.InvalidVersion: ErrorRule(
        Stalled, Reason.ENGINE_TOO_OLD, Localizable("Docker Engine 20.10 or newer is needed")
    ),
    docker.errors.InvalidRepository: ErrorRule(Stalled, Reason.INVALID_REFERENCE),
    docker.errors.InvalidConfigFile: ErrorRule(
        Stalled, Reason.ENGINE_CONFIG, "Correct ~/.docker/config.json"
    ),
    docker.errors.TLSParameterError: ErrorRule(
        Stalled, Reason.ENGINE_CONFIG, Localizable("Correct `docker.host` of the config")
    ),
    docker.errors.InvalidArgument: MISUSED,
    docker.errors.DeprecatedMethod: MISUSED,
    docker.errors.NullResource: MISUSED,
    docker.errors.ContainerError: FAILED,
    docker.errors.StreamParseError: FAILED,
    docker.errors.BuildError: ErrorRule(Stalled, Reason.BUILD_FAILED),
    docker.errors.ImageLoadError: FAILED,
    docker.errors.MissingContextParameter: ErrorRule(Stalled, Reason.ENGINE_CONFIG),
    docker.errors.ContextAlreadyExists: ErrorRule(Stalled, Reason.ENGINE_CONFIG),
    docker.errors.ContextException: ErrorRule(Stalled, Reason.ENGINE_CONFIG),
    docker.errors.ContextNotFound: ErrorRule(Stalled, Reason.ENGINE_CONFIG),
    requests.exceptions.RequestException: UNREACHABLE,
    requests.exceptions.Timeout: ErrorRule(Transient, Reason.ENGINE_TIMEOUT),
    requests.exceptions.JSONDecodeError: FAILED,
    urllib3.exceptions.HTTPError: UNREACHABLE,
    urllib3.exceptions.TimeoutError: ErrorRule(Transient, Reason.ENGINE_TIMEOUT),
    http.client.HTTPException: UNREACHABLE,
    ConnectionError: UNREACHABLE,
    TimeoutError: ErrorRule(Transient, Reason.ENGINE_TIMEOUT),
}
_TABLE = ErrorTable(FAILED, FAILED, words=ANSWERS, status=STATUS, classes=CLASSES)
_FORBIDDEN = ErrorRule(
    Transient,
    Reason.ENGINE_FORBIDDEN,
    Localizable("The daemon's user may not use the Docker socket: add it to the group `docker`"),
)


def translated(doing: str, secrets: tuple[Secret, ...] = ()) -> AbstractContextManager[None]:
    """Translate errors of the SDK to Stalled or Transient; `doing` begins their text ("cannot start x")."""
    return _TABLE.translated(partial(translate, doing=doing, secrets=secrets))


def translate(error: BaseException, doing: str, secrets: tuple[Secret, ...] = ()) -> ControllerError:
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return _FORBIDDEN.error(doing, Localizable("permission denied"), secrets)
    # Connecting raises a bare DockerException around the cause.
    known = next((cause for cause in causes if type(cause) is not docker.errors.DockerException), error)
    if isinstance(known, requests.exceptions.HTTPError) and known.response is not None:
        text = getattr(known, "explanation", None) or str(known)
        return from_answer(text, doing, known.response.status_code, secrets)
    text = _without_environment(str(error)) or type(error).__name__
    return _TABLE.of_exception(known).error(doing, text, secrets)


def from_answer(
    text: str, doing: str, status: int | None = None, secrets: tuple[Secret, ...] = ()
) -> ControllerError:
    """Return the error for the engine's own words, from an HTTP response or a line in a progress stream."""
    if STATUS.get(status or 500) is UNREACHABLE and _AWAY.fullmatch(excerpt(text, MAX_TEXT)):
        return UNREACHABLE.error(doing, Localizable("answer {status}", status=status), secrets)
    return _rule(text, status or 500).error(doing, _without_environment(text), secrets)


def _rule(text: str, status: int) -> ErrorRule:
    judged = excerpt(text, MAX_TEXT)
    if re.search(STEP, judged, re.IGNORECASE):
        return STEP_FAILED
    if re.search(RUNTIME, judged, re.IGNORECASE):
        return rule_by_words(RUNTIME_ANSWERS, judged) or FAILED
    return _TABLE.of_response(status, text=judged)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what it was raised from, then the arguments in which urllib3 wraps its cause."""
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
