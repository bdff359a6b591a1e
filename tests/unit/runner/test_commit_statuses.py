"""Commit statuses on their way to forges over real HTTP, and forges that are not well."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.webhooks import HttpSender
from controller.domain.apps.commit_status import CommitState, CommitStatus
from controller.domain.apps.spec import CommitStatusSpec, StatusProvider
from controller.domain.apps.status import Event
from controller.domain.forges import Forge, address_of
from controller.domain.reasons import Reason
from controller.domain.runs.webhooks import PAUSES, Message, MessageKind
from controller.domain.secret import Secret
from controller.ports import WebhookUnderWay
from controller.runner.webhook_dispatcher import WebhookDispatcher
from tests.support.forges import RECORDED, SHA, TOKEN, forge_server
from tests.support.issuer import make_certificate
from tests.support.receivers import Received, Receiver, receiver
from tests.support.waiting import wait_for
from tests.unit.runner.harness import APP, Harness, in_thread

pytestmark = pytest.mark.slow

LATER = 10.0**12


class Word:
    """An outbox with commit statuses, and the daemon's dispatcher; `forge` is what the Repository asks for."""

    def __init__(self, folder: Path) -> None:
        self.harness = Harness(folder)
        self.store, self.clock = self.harness.store, self.harness.clock
        self.forge: Forge | None = None
        self.sender = HttpSender(private=True)

    def ask(
        self, there: Receiver, provider: StatusProvider = StatusProvider.GITEA, **changes: object
    ) -> None:
        root = there.url.removesuffix("/done")
        url = f"{root}/2.0" if provider is StatusProvider.BITBUCKET else ""
        repository = f"{root}/{RECORDED[provider].repository}"
        self.forge = replace(
            Forge(
                APP,
                provider,
                address_of(CommitStatusSpec(provider, "bot", url), repository),
                f"prichal/{APP}",
                f"https://ml.example.org/-/apps/{APP}",
                {"token": Secret(TOKEN)},
            ),
            **changes,  # type: ignore[arg-type]
        )

    def tell(self, state: CommitState = CommitState.SUCCESS) -> None:
        assert self.forge
        status = CommitStatus(SHA, state, Reason.READY, "ready")
        self.store.webhooks.supersede(self.forge.message(status, self.clock.now()))

    @property
    def left(self) -> tuple[Message, ...]:
        return self.store.webhooks.due(LATER, WebhookUnderWay())

    @property
    def failed(self) -> int:
        """Return how many attempts of the one message have failed."""
        return sum(message.attempts for message in self.left)

    @property
    def events(self) -> list[Event]:
        return [event for event in self.store.events.list(APP) if event.reason == "CommitStatusFailed"]

    def sending(self) -> AbstractContextManager[None]:
        deps = replace(self.harness.deps, forge=lambda app: self.forge)
        senders = dict.fromkeys(MessageKind, self.sender)
        return in_thread(WebhookDispatcher(deps, senders, rng=lambda: 0.0).run)

    def fail_twice(self) -> Event:
        """Wait for the second attempt that fails, and return the event that it leads to."""
        wait_for(lambda: self.failed == 1)
        self.clock.advance(PAUSES[0])
        (event,) = wait_for(lambda: self.events)
        return event


@pytest.fixture
def word(tmp_path: Path) -> Iterator[Word]:
    made = Word(tmp_path / "state")
    yield made
    made.harness.close()


@pytest.mark.parametrize("provider", StatusProvider)
def test_every_forge_is_told_of_every_state(word: Word, provider: StatusProvider) -> None:
    with forge_server(provider) as there, word.sending():
        word.ask(there, provider)
        for number, state in enumerate(CommitState, 1):
            word.tell(state)
            wait_for(lambda: not word.left)
            assert len(there.received) == number
    assert not word.events


def answers(status: int, **headers: str) -> Callable[[Received], tuple[int, dict[str, str]]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda received: (status, named)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "it answers 401: it does not accept the credentials"),
        (403, "it answers 403: the credentials may not set commit statuses"),
        (404, "it answers 404: it has no such repository, or hides it"),
        (302, "it answers 302, and redirects are not followed"),
        (500, "it answers 500"),
    ],
)
def test_a_refusal_is_told_once_and_tried_again(
    word: Word, caplog: pytest.LogCaptureFixture, status: int, why: str
) -> None:
    with receiver() as there, receiver() as elsewhere:
        there.answer = answers(status, Location=elsewhere.url)
        word.ask(there)
        word.tell()
        with word.sending():
            wait_for(lambda: word.failed == 1)
            assert not word.events, "a forge that is restarting is no news"
            word.clock.advance(PAUSES[0])
            (event,) = wait_for(lambda: word.events)
            assert why in event.message
            assert event.message.startswith("the commit status of 6dcb09b5b578 to http://127.0.0.1")
            there.answer = RECORDED[StatusProvider.GITEA].answer
            word.clock.advance(PAUSES[1])
            wait_for(lambda: not word.left)
        assert len(word.events) == 1
        assert not elsewhere.received, "a token goes to no other host"
    assert TOKEN not in caplog.text + event.message


@pytest.mark.parametrize("status", [429, 403, 503])
def test_a_forge_says_when_to_come_again(word: Word, status: int) -> None:
    with receiver() as there:
        there.answer = answers(status, Retry_After="100")
        word.ask(there)
        word.tell()
        with word.sending():
            wait_for(lambda: word.failed == 1)
        (message,) = word.left
        assert message.due == word.clock.now() + 100


def test_what_a_forge_will_never_take_is_given_up(word: Word) -> None:
    with receiver() as there:
        there.answer = answers(422)
        word.ask(there)
        word.tell()
        with word.sending():
            (event,) = wait_for(lambda: word.events)
        assert "given up at the first attempt: it answers 422" in event.message
        assert not word.left


def test_a_status_that_gitlab_has_already_has_arrived(word: Word) -> None:
    """The daemon died, or the connection, before the answer to the first delivery was here."""
    with receiver() as there:
        there.answer = answers(400)
        there.body = (
            b'{"message":"Cannot transition status via :run from :running'
            b' (Reason(s): Status cannot transition via \\"run\\")"}'
        )
        word.ask(there, StatusProvider.GITLAB)
        word.tell(CommitState.PENDING)
        with word.sending():
            wait_for(lambda: not word.left)
        assert len(there.received) == 1
    assert not word.events


def test_a_token_that_no_header_can_carry(word: Word, caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as there:
        word.ask(there, credentials={"token": Secret(f"{TOKEN}\u2013")})
        word.tell()
        with word.sending():
            event = word.fail_twice()
        assert not there.received
    assert "the credentials hold a character that no HTTP header can carry" in event.message
    assert TOKEN not in caplog.text + event.message


def test_a_forge_that_is_down(word: Word) -> None:
    with receiver() as there:
        word.ask(there)
    word.tell()
    with word.sending():
        event = word.fail_twice()
        assert "Connection refused" in event.message


def test_a_slow_forge_is_told_one_after_another_and_only_the_newest(word: Word) -> None:
    """While `pending` is under way, `failure` and `success` come: one of them is sent, after it."""
    slow = threading.Event()

    def answer(received: Received) -> tuple[int, dict[str, str]]:
        assert slow.wait(30)
        return 201, {}

    with receiver() as there:
        there.answer = answer
        word.ask(there)
        word.tell(CommitState.PENDING)
        with word.sending():
            wait_for(lambda: there.received)
            word.tell(CommitState.FAILURE)
            word.tell(CommitState.SUCCESS)
            slow.set()
            wait_for(lambda: not word.left)
        assert [received.json["state"] for received in there.received] == ["pending", "success"]


def test_a_certificate_that_nobody_trusts(word: Word, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "forge.pem")
    with receiver(certificate=certificate) as there:
        word.ask(there)
        word.tell()
        with word.sending():
            event = word.fail_twice()
        assert "its certificate is not valid" in event.message
        assert not there.received
        word.sender = HttpSender(private=True, context=ssl.create_default_context(cafile=str(certificate)))
        word.clock.advance(PAUSES[1])
        with word.sending():
            wait_for(lambda: there.received)


def test_a_forge_of_a_private_network_has_to_be_allowed(word: Word) -> None:
    word.sender = HttpSender(False, "git.privateForges")
    with receiver() as there:
        word.ask(there)
        word.tell()
        with word.sending():
            event = word.fail_twice()
        assert "it may be used only if git.privateForges is set" in event.message
        assert not there.received
        word.sender = HttpSender(True, "git.privateForges")
        word.clock.advance(PAUSES[1])
        with word.sending():
            wait_for(lambda: not word.left)
        assert len(there.received) == 1


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (None, "the Secret with the credentials does not exist"),
        ({"user": Secret("x")}, "has no key 'username'"),
    ],
)
def test_credentials_that_are_not_there_may_come(
    word: Word, credentials: dict[str, Secret] | None, why: str
) -> None:
    with forge_server(StatusProvider.GITEA) as there:
        word.ask(there, credentials=credentials)
        word.tell()
        with word.sending():
            event = word.fail_twice()
            assert why in event.message
            word.ask(there)
            word.clock.advance(PAUSES[1])
            wait_for(lambda: not word.left)
        assert len(there.received) == 1


def test_nobody_asks_any_more(word: Word) -> None:
    with receiver() as there:
        word.ask(there)
        word.tell()
        word.forge = None
        with word.sending():
            wait_for(lambda: not word.left)
        assert not there.received
    assert not word.events
