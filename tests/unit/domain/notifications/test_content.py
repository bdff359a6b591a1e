"""What messages say, as documents and as texts."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.alerts import Alert, AlertType, Notice
from controller.domain.notifications.content import (
    MAX_TEXT,
    MOST_LISTED,
    cloud_event,
    document,
    message_text,
)
from controller.domain.notifications.delivery import Digest, Problem
from controller.domain.notifications.spec import Severity

APP, URL = AppName("demo"), "https://ml.example.org"
DEGRADED = Alert(APP, AlertType.DEGRADED, "CrashLoop", Severity.ERROR, "it ends\nagain", revision="7d1c60a")
DISK = Alert(PLATFORM, AlertType.CHECK_FAILED, "CheckFailed", Severity.ERROR, "1 GiB free", "disk space")
FAILED = Notice(
    APP, AlertType.RUN_FAILED, "ExitCode", Severity.ERROR, "run 1 failed", 1_790_000_000.0, "survey", run="1"
)
AT = 1_790_000_000.0


def test_one_problem_is_the_title() -> None:
    digest = Digest(1, AT, problems=(Problem(DEGRADED, AT - 90),))
    found = message_text(document(digest, "team", APP, URL))
    assert found.title == "demo: Degraded (CrashLoop)"
    assert found.severity is Severity.ERROR
    assert found.text == (
        "Problems:\n"
        "- [error] demo: Degraded (CrashLoop) (for 1m 30s)\n"
        "  it ends\n"
        "  again\n"
        "  https://ml.example.org/-/apps/demo\n"
        "\n"
        "Sent by the notification team at 2026-09-21T14:13:20.000Z.\n"
    )


def test_what_is_over_is_good_news() -> None:
    digest = Digest(2, AT, over=(Problem(DISK, AT - 7200, AT - 60, flaps=True),))
    found = message_text(document(digest, "team", PLATFORM, URL))
    assert found.title == "platform: over: CheckFailed disk space"
    assert "(lasted 1h 59m, comes and goes)" in found.text
    assert "https://ml.example.org/-/health" in found.text
    assert (found.is_over, found.severity) == (True, Severity.INFO)


def test_many_things_are_counted_in_the_title() -> None:
    again = Problem(DISK, AT, is_news=False)
    digest = Digest(3, AT, (Problem(DEGRADED, AT), again), (Problem(DEGRADED, AT, AT),), (FAILED,), omitted=4)
    found = message_text(document(digest, "team", PLATFORM, URL))
    assert found.title == "demo, platform: 2 problems, 1 over, 1 event"
    assert "Still there:" in found.text
    assert "4 more are left out." in found.text


def test_a_cloud_event_has_the_document_as_its_data() -> None:
    content = document(Digest(1, AT, notices=(FAILED,)), "team", APP, URL)
    event = json.loads(cloud_event("note_1", content, URL))
    assert event["data"] == content
    assert {key: event[key] for key in ("specversion", "id", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": "note_1",
        "source": "https://ml.example.org/-/apps/demo",
        "type": "ru.hse.cs.unified-platform.notification",
        "subject": "team",
        "time": "2026-09-21T14:13:20.000Z",
    }
    assert content["notices"][0]["run"] == "1"


def test_a_test_says_that_it_is_one() -> None:
    found = message_text(document(Digest(1, AT, is_test=True), "team", APP, URL))
    assert found.title == "Test of the notification team"
    assert found.text.startswith("This is a test.")


@given(st.text(max_size=3000), st.integers(0, 200))
def test_messages_are_bounded_and_titles_are_one_line(text: str, number: int) -> None:
    alerts = [
        Alert(APP, AlertType.NEARLY_FULL, "NearlyFull", Severity.WARNING, text[:700], f"box {n}")
        for n in range(number)
    ]
    digest = Digest(1, AT, problems=tuple(Problem(each, AT) for each in alerts))
    content = document(digest, "team", APP, URL)
    assert content["omitted"] == max(0, number - MOST_LISTED)
    found = message_text(content)
    assert len(found.text) <= MAX_TEXT + 100
    assert "\n" not in found.title
    assert len(found.title) <= 300
