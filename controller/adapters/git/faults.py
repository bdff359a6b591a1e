"""The meaning of libgit2's errors, as data: first the message decides, then the exception's class.

libgit2 distinguishes a wrong password, a missing repository and a dead server only by English text, hence the
patterns; tests provoke each of them with real servers. What no pattern explains is considered a damaged
clone: cloning again repairs that, and what is still unexplained then is tried again later.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

import pygit2

from controller.domain.error_table import ErrorRule, ErrorTable, Words, rule_by_words
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret


class CloneDamaged(Transient):
    """The local clone is damaged, rather than the server: a new clone helps."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CLONE_DAMAGED, message)


UNREACHABLE = ErrorRule(Transient, Reason.FETCH_FAILED)
DAMAGED = ErrorRule(Transient, Reason.CLONE_DAMAGED)
UNAUTHENTICATED = ErrorRule(
    Stalled,
    Reason.AUTHENTICATION_FAILED,
    Localizable("Check the Secret that the Repository names under spec.credentials."),
)
NOT_FOUND = ErrorRule(
    Stalled,
    Reason.REPOSITORY_NOT_FOUND,
    Localizable("Check spec.url; without credentials a private repository may look like a missing one."),
)
UNTRUSTED = ErrorRule(
    Stalled,
    Reason.CERTIFICATE_INVALID,
    Localizable(
        "It must be valid for the server's name and issued by an authority that this host (or SSL_CERT_FILE) has."
    ),
)
NOT_GIT = ErrorRule(
    Stalled,
    Reason.NOT_A_GIT_SERVER,
    Localizable("Something answers at spec.url, but it does not speak Git's protocol."),
)
MOVED = ErrorRule(
    Stalled,
    Reason.REPOSITORY_MOVED,
    Localizable("Redirects to another host are not followed; change spec.url."),
)
BAD_REF = ErrorRule(Stalled, Reason.REF_INVALID, Localizable("Check spec.ref."))

MESSAGES: Words = (
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
    (
        r"no space left|disk quota",
        ErrorRule(Transient, Reason.DISK_FULL, Localizable("Free some space in the state folder.")),
    ),
    (
        r"failed to (connect|resolve)|timed? ?out|could not (read from|write to) socket|connection",
        UNREACHABLE,
    ),
    (
        r"SSL|TLS|SSH session|early EOF|unexpected EOF|disconnect|hung up|request failed|remote error|curl",
        UNREACHABLE,
    ),
)

#: libgit2's error classes (`git_error_t`) that only occur with a server: net, ssl, ssh, http.
NETWORK_CLASSES = frozenset({12, 16, 23, 34})

CLASSES: dict[type[BaseException], ErrorRule] = {
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
_TABLE = ErrorTable(DAMAGED, UNREACHABLE, words=MESSAGES, classes=CLASSES)


def rule_of(error: BaseException) -> ErrorRule:
    """Return the rule of an exception raised by pygit2."""
    if (found := rule_by_words(MESSAGES, str(error))) is not None:
        return found
    from_server = getattr(error, "error_class", None) in NETWORK_CLASSES
    return UNREACHABLE if from_server else _TABLE.of_exception(error)


def _text(error: BaseException) -> str:
    """Return the text; str() of a KeyError is its key's repr."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()


def translate(error: BaseException, subject: str, secrets: tuple[Secret, ...] = ()) -> ControllerError:
    """Translate `error`. `subject` is what it happened to: "repository demo (https://…)"."""
    rule = rule_of(error)
    found = rule.error(subject, _text(error), secrets)
    return CloneDamaged(found.message) if rule is DAMAGED else found


def translated(subject: str, secrets: tuple[Secret, ...] = ()) -> AbstractContextManager[None]:
    """Translate errors within the block; our own, raised by callbacks, pass unchanged."""
    return _TABLE.translated(partial(translate, subject=subject, secrets=secrets))


def damage(subject: str) -> AbstractContextManager[None]:
    """Translate errors of reading a clone, without a server: all errors of pygit2 are damage."""
    return _TABLE.translated(partial(_damaged, subject=subject))


def _damaged(error: BaseException, subject: str) -> ControllerError:
    return CloneDamaged(
        Localizable(
            "{subject} is damaged and will be made again: {error}", subject=subject, error=_text(error)
        )
    )
