"""The table of faults covers all of pygit2's exceptions and keeps secrets out of texts."""

from __future__ import annotations

import inspect

import pygit2
import pytest

from controller.adapters.git.faults import CLASSES, CloneDamaged, damage, rule_of, translate, translated
from controller.domain.errors import Stalled, Transient
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

EXCEPTIONS = [c for _, c in inspect.getmembers(pygit2, inspect.isclass) if issubclass(c, BaseException)]


def test_pygit2_has_the_exceptions_that_this_test_is_about() -> None:
    assert pygit2.GitError in EXCEPTIONS
    assert len(EXCEPTIONS) >= 9


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_of_pygit2_has_an_entry_of_its_own(kind: type[BaseException]) -> None:
    assert kind in CLASSES


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("failed to connect to 127.0.0.1: Connection refused", Transient, "FetchFailed"),
        (
            "failed to resolve address for nowhere.invalid: Name or service not known",
            Transient,
            "FetchFailed",
        ),
        ("could not read from socket: timed out", Transient, "FetchFailed"),
        ("SSL error: syscall failure: Resource temporarily unavailable", Transient, "FetchFailed"),
        ("failed to start SSH session: Timed out waiting on socket", Transient, "FetchFailed"),
        ("unexpected http status code: 503", Transient, "FetchFailed"),
        ("unexpected http status code: 429", Transient, "FetchFailed"),
        ("unexpected http status code: 404", Stalled, "RepositoryNotFound"),
        ("unexpected http status code: 403", Stalled, "AuthenticationFailed"),
        ("too many redirects or authentication replays", Stalled, "AuthenticationFailed"),
        ("cannot redirect from 'a' to 'b'", Stalled, "RepositoryMoved"),
        ("no content-type header in response", Stalled, "NotAGitServer"),
        ("remote error: access denied or repository not exported: /x", Stalled, "RepositoryNotFound"),
        ("fatal: '/x' does not appear to be a git repository", Stalled, "RepositoryNotFound"),
        ("user rejected certificate for example.org", Stalled, "CertificateInvalid"),
        ("failed to write: No space left on device", Transient, "DiskFull"),
        ("object not found - no match for id (deadbeef)", CloneDamaged, "CloneDamaged"),
    ],
)
def test_messages_decide(text: str, kind: type[Exception], reason: str) -> None:
    error = translate(pygit2.GitError(text), "repository demo")
    assert (type(error), error.reason) == (kind, reason)
    assert error.message.startswith(f"repository demo: {text}")


def test_an_unknown_error_of_the_network_is_not_the_clones_fault() -> None:
    error = pygit2.GitError("something new")
    assert rule_of(error).reason == "CloneDamaged"
    error.error_class = 12  # type: ignore[attr-defined]
    assert rule_of(error).reason == "FetchFailed"


def test_secrets_are_cut_out() -> None:
    with pytest.raises(Stalled) as caught, translated("repository demo", (Secret("geheim"),)):
        raise pygit2.AuthError("no access for https://ivanov:geheim@example.org")
    assert "geheim" not in caught.value.message
    assert "***" in caught.value.message


def test_errors_of_ours_pass_and_bugs_are_not_hidden() -> None:
    for context in (translated("x"), damage("x")):
        with pytest.raises(Stalled, match="ours"), context:
            raise Stalled(Reason("Ours"), "ours")
    for context in (translated("x"), damage("x")):
        with pytest.raises(ZeroDivisionError), context:
            raise ZeroDivisionError


def test_reading_a_clone_fails_for_no_other_reason_than_damage() -> None:
    with pytest.raises(CloneDamaged, match="the clone is damaged"), damage("the clone"):
        raise KeyError("connection")
