"""Commands that wait or watch go on over short failures, say so, and end when a failure lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import pytest

from controller.adapters.post_receive import RETRIES, NoAnswer, Outage
from controller.cli import waiting
from controller.cli.exits import Exit, exit_of
from controller.cli.waiting import Persistence, follow, looks, wait_for
from controller.client.platform import Platform
from controller.client.retry import QUIET, RetryPolicy
from controller.domain.backoff import Backoff
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.reasons import Reason

AWAY = Transient(Reason.SERVER_UNREACHABLE, "host:8000 cannot be reached: Connection refused")
BUSY = Transient(Reason.STATE_BUSY, "the state is locked.")
REQUEST = {"id": 7, "app": "demo", "state": "queued"}
DONE = {**REQUEST, "state": "done", "outcome": "Ready", "message": ""}


class Scripted:
    """A platform that gives each answer in turn, or raises it."""

    def __init__(self, *answers: object) -> None:
        self._answers = iter(answers)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*_: object) -> Any:
            found = next(self._answers)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


def scripted(*answers: object) -> Platform:
    return cast(Platform, Scripted(*answers))


def progress(request: object = REQUEST, daemon: bool = True) -> dict[str, object]:
    return {"request": request, "events": [], "daemon": daemon}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.0)


def raised(work: Callable[[], object]) -> ControllerError:
    with pytest.raises(ControllerError) as caught:
        work()
    return caught.value


@pytest.mark.parametrize("error", [AWAY, BUSY], ids=["server", "state"])
def test_events_are_followed_over_failures_each_told_once(
    capsys: pytest.CaptureFixture[str], error: Transient
) -> None:
    platform = scripted([{"id": 1}], error, error, error, [{"id": 2}], error, [{"id": 3}])
    assert [event["id"] for event in islice(follow(platform, "demo", 0), 3)] == [1, 2, 3]
    told = f"{error.message.rstrip('.')}. Waiting 2m at most for an answer.\n"
    assert capsys.readouterr().err == told * 2


def test_a_state_is_watched_over_failures_after_it_was_seen_once() -> None:
    looked: Iterator[object] = iter([1, AWAY, BUSY, 2])

    def look() -> object:
        found = next(looked)
        if isinstance(found, Exception):
            raise found
        return found

    changes = scripted(None, AWAY, None)
    assert list(islice(looks(changes, look), 2)) == [1, 2]


def test_what_fails_before_the_first_answer_ends_at_once() -> None:
    def look() -> None:
        raise AWAY

    assert raised(lambda: next(looks(scripted(), look))) is AWAY


@pytest.mark.parametrize(
    "error", [Stalled(Reason.UNKNOWN_APP, "no"), Stalled(Reason.ACCESS_DENIED, "no")], ids=["gone", "denied"]
)
def test_what_does_not_pass_ends_at_once(error: Stalled) -> None:
    assert raised(lambda: next(follow(scripted(error), "demo", 0))) is error


def test_what_lasts_ends_with_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_OUTAGE", 0.0)
    error = raised(lambda: next(follow(scripted(AWAY, AWAY, AWAY), "demo", 0)))
    assert exit_of(error) is Exit.UNREACHABLE
    assert raised(lambda: Persistence(deadline=0.0).ask(scripted(AWAY, AWAY).apps)) is AWAY


def test_a_request_is_awaited_over_a_restart_of_the_server_and_of_the_daemon(
    capsys: pytest.CaptureFixture[str],
) -> None:
    superseded = progress({**DONE, "outcome": "Superseded"})
    platform = scripted(
        progress(), AWAY, progress(daemon=False), progress(daemon=False), progress(),
        superseded, BUSY, REQUEST, progress(DONE),
    )  # fmt: skip
    assert wait_for(platform, REQUEST, 600.0, 0)["outcome"] == "Ready"
    told = capsys.readouterr().err
    assert told.count("the daemon does not run any more; waiting 60 s for it to come back") == 1
    assert told.count("Waiting 2m at most for an answer.") == 2


def test_a_daemon_that_does_not_run_or_stays_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(lambda: wait_for(scripted(progress(daemon=False)), REQUEST, 600.0, 0))
    assert (error.reason, exit_of(error)) == (Reason.NOT_RUNNING, Exit.UNREACHABLE)
    monkeypatch.setattr(waiting, "_RESTART", -1.0)
    away = [progress(), *[progress(daemon=False)] * 2]
    assert raised(lambda: wait_for(scripted(*away), REQUEST, 600.0, 0)).reason == Reason.NOT_RUNNING


# --- requests over HTTP, and the hook of hosted repositories ------------------------------------------------------


def test_an_outage_is_told_once_if_it_is_not_short() -> None:
    told: list[Transient] = []
    policy = RetryPolicy(Backoff(0.0, 0.0), 10, told.append)
    for failures in (QUIET, QUIET + 1, QUIET + 5):
        assert policy.retry(scripted(*[AWAY] * failures, "answer").apps) == "answer"  # type: ignore[comparison-overlap]
    assert told == [AWAY, AWAY]
    for _ in range(2):  # one outage, in which a command asks again and again
        raised(lambda: policy.retry(scripted(*[AWAY] * 11).apps))
    assert told == [AWAY] * 3


def test_a_push_waits_longer_for_a_platform_that_is_away_than_for_one_that_refuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outage = Outage()
    for error in (
        NoAnswer("away", passing=True),
        NoAnswer("late"),
        NoAnswer("503", "503", passing=True),
    ) * 10:
        outage.note(error)
    assert capsys.readouterr().err.count("trying again for up to 60 s") == 1
    refused = Outage()
    for _ in range(RETRIES):
        refused.note(NoAnswer("unknown", "404"))
    with pytest.raises(NoAnswer):
        refused.note(NoAnswer("unknown", "404"))
