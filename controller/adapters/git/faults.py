"""What an error of libgit2 means for us, as data: first the message decides, then the exception's class.

libgit2 tells a wrong password, a missing repository and a dead server apart by their English text only, hence the
patterns; tests provoke each of them against real servers. What no pattern explains is taken for a damaged clone:
that is mended by cloning once more, and what is still unexplained then is tried again later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pygit2

from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.secret import Secret, scrub


class CloneDamaged(Transient):
    """The clone here is at fault, not the server: a fresh one helps."""

    def __init__(self, message: str) -> None:
        super().__init__("CloneDamaged", message)


@dataclass(frozen=True)
class Fault:
    """`advice` says what to do, "" where waiting is all there is to do."""

    kind: type[Transient] | type[Stalled]
    reason: str
    advice: str = ""


UNREACHABLE = Fault(Transient, "FetchFailed")
DAMAGED = Fault(Transient, "CloneDamaged")
UNAUTHENTICATED = Fault(
    Stalled, "AuthenticationFailed", "Check the Secret that the Repository names under spec.credentials."
)
NOT_FOUND = Fault(
    Stalled,
    "RepositoryNotFound",
    "Check spec.url; a private repository without credentials may look like one that is not there.",
)
UNTRUSTED = Fault(
    Stalled,
    "CertificateInvalid",
    "It must be valid for the server's name and issued by an authority that this host (or SSL_CERT_FILE) has.",
)
NOT_GIT = Fault(
    Stalled, "NotAGitServer", "Something answers at spec.url, but it does not speak Git's protocol."
)
MOVED = Fault(Stalled, "RepositoryMoved", "Redirects to another host are not followed; change spec.url.")
BAD_REF = Fault(Stalled, "RefInvalid", "Check spec.ref.")

MESSAGES: tuple[tuple[str, Fault], ...] = (
    (r"unexpected http status code: (404|410)", NOT_FOUND),
    (r"unexpected http status code: (401|403|407)", UNAUTHENTICATED),
    (r"unexpected http status code: ", UNREACHABLE),
    (r"cannot redirect from", MOVED),
    (r"content-type", NOT_GIT),
    (r"authentication (replays|required)|authenticat|failed to retrieve list of SSH auth", UNAUTHENTICATED),
    (
        r"not exported|does not appear to be a git repository|repository not found|no such repository",
        NOT_FOUND,
    ),
    (r"certificate", UNTRUSTED),
    (r"unsupported URL protocol|malformed URL", NOT_FOUND),
    (r"no space left|disk quota", Fault(Transient, "DiskFull", "Make room in the state folder.")),
    (
        r"failed to (connect|resolve)|timed? ?out|could not (read from|write to) socket|connection",
        UNREACHABLE,
    ),
    (
        r"SSL|TLS|SSH session|early EOF|unexpected EOF|disconnect|hung up|request failed|remote error|curl",
        UNREACHABLE,
    ),
)

#: libgit2's error classes (`git_error_t`) that only a conversation with a server has: net, ssl, ssh, http.
NETWORK_CLASSES = frozenset({12, 16, 23, 34})

CLASSES: dict[type[BaseException], Fault] = {
    pygit2.GitError: DAMAGED,
    pygit2.AuthError: UNAUTHENTICATED,
    pygit2.CertificateError: UNTRUSTED,
    pygit2.NotFoundError: DAMAGED,
    pygit2.AlreadyExistsError: DAMAGED,
    pygit2.AmbiguousError: BAD_REF,
    pygit2.InvalidSpecError: BAD_REF,
    pygit2.InvalidError: DAMAGED,
    pygit2.Passthrough: UNAUTHENTICATED,
    OSError: DAMAGED,
    KeyError: DAMAGED,
    ValueError: DAMAGED,
}


def fault_of(error: BaseException) -> Fault:
    """The verdict on an exception that pygit2 raised."""
    for pattern, fault in MESSAGES:
        if re.search(pattern, str(error), re.IGNORECASE):
            return fault
    if getattr(error, "error_class", None) in NETWORK_CLASSES:
        return UNREACHABLE
    return next(CLASSES[c] for c in type(error).__mro__ if c in CLASSES)


def _text(error: BaseException) -> str:
    """str() of a KeyError is its key's repr."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()


def translate(error: BaseException, subject: str, secrets: tuple[Secret, ...] = ()) -> ControllerError:
    """`error` as one of ours. `subject` is what it happened to: "repository demo (https://…)"."""
    fault = fault_of(error)
    text = scrub(_text(error), secrets)
    message = f"{subject}: {text}. {fault.advice}" if fault.advice else f"{subject}: {text}"
    return CloneDamaged(message) if fault is DAMAGED else fault.kind(fault.reason, message)


@contextmanager
def translated(subject: str, secrets: tuple[Secret, ...] = ()) -> Iterator[None]:
    """Within the block only errors of ours leave; those that callbacks raised pass as they are."""
    try:
        yield
    except ControllerError:
        raise
    except tuple(CLASSES) as error:
        raise translate(error, subject, secrets) from error


@contextmanager
def damage(subject: str) -> Iterator[None]:
    """Around reads of a clone, where no server has a part: whatever pygit2 complains of is damage."""
    try:
        yield
    except ControllerError:
        raise
    except tuple(CLASSES) as error:
        raise CloneDamaged(
            f"{subject} is damaged and will be made again: {str(error).strip(chr(39))}"
        ) from error
