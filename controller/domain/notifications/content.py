"""What a message says: a JSON document, from which the texts for people are made.

Webhooks get the document as a CloudEvent (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, in the
structured mode of its HTTP binding), mail and chats a title and a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.domain.names import PLATFORM, AppName
from controller.domain.notifications.alerts import Alert, AlertType, Notice
from controller.domain.notifications.delivery import Digest, Problem
from controller.domain.notifications.spec import Severity
from controller.domain.text import excerpt, printable
from controller.domain.units import about_duration, parse_rfc3339, rfc3339

EVENT_TYPE: Final = "ru.hse.cs.unified-platform.notification"
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
MOST_LISTED: Final = 30  # problems, and as many that are over; the others are counted
MOST_REASONS: Final = 5  # of a message, in the record of its delivery
MAX_TITLE: Final = 160  # characters
MAX_TEXT: Final = 20_000

Json = dict[str, Any]


@dataclass(frozen=True)
class MessageText:
    """A message for people."""

    title: str
    text: str
    severity: Severity
    is_over: bool  # it has good news only


def document(digest: Digest, name: str, owner: AppName, url: str) -> Json:
    """Return the content of a message. `url` is the base of the platform's pages, `owner` whose Notification it is."""
    listed = digest.problems[:MOST_LISTED], digest.over[:MOST_LISTED], digest.notices[:MOST_LISTED]
    left_out = len(digest.problems) + len(digest.over) + len(digest.notices) - sum(map(len, listed))
    return {
        "notification": name,
        "app": None if owner == PLATFORM else owner,
        "at": rfc3339(digest.at),
        "test": digest.is_test,
        "problems": [{**_problem(each, url), "news": each.is_news} for each in listed[0]],
        "over": [{**_problem(each, url), "until": rfc3339(each.until)} for each in listed[1]],
        "notices": [_notice(each, url) for each in listed[2]],
        "omitted": digest.omitted + left_out,
    }


def _problem(problem: Problem, url: str) -> Json:
    return {**_about(problem.alert, url), "since": rfc3339(problem.since), "flapping": problem.flaps}


def _notice(notice: Notice, url: str) -> Json:
    run = {"run": notice.run} if notice.run else {}
    return {**_about(notice, url), "at": rfc3339(notice.at), **run}


def _about(what: Alert | Notice, url: str) -> Json:
    page = f"{url}/-/health" if what.app == PLATFORM else f"{url}/-/apps/{what.app}"
    return {
        "app": what.app,
        "type": str(what.type),
        "reason": what.reason,
        "severity": str(what.severity),
        "message": printable(what.message),
        "subject": what.subject or None,
        "revision": what.revision or None,
        "url": page,
    }


def cloud_event(id: str, content: Mapping[str, Any], url: str) -> str:
    """Return the message as a CloudEvent; its text is signed, so it is made once."""
    app = content["app"]
    event = {
        "specversion": "1.0",
        "id": id,
        "source": f"{url}/-/apps/{app}" if app else f"{url}/-/",
        "type": EVENT_TYPE,
        "subject": content["notification"],
        "time": content["at"],
        "datacontenttype": "application/json",
        "data": content,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def reasons_of(body: str) -> tuple[str, ...]:
    """Return what a message is about, each reason once, the first ones."""
    content = json.loads(body)
    told = (each["reason"] for part in ("problems", "over", "notices") for each in content.get(part, ()))
    return tuple(dict.fromkeys(map(str, told)))[:MOST_REASONS]


# --- for people -------------------------------------------------------------------------------------------------


def message_text(content: Mapping[str, Any]) -> MessageText:
    """Return the title and the text of a message."""
    problems, over, notices = content["problems"], content["over"], content["notices"]
    told = [*problems, *notices]
    worst = max((Severity(each["severity"]) for each in told), key=lambda s: s.rank, default=Severity.INFO)
    lines = [*_lines(content)]
    return MessageText(
        title=excerpt(" ".join(_title(content).split()), MAX_TITLE),
        text=excerpt("\n".join(lines).strip() + "\n", MAX_TEXT),
        severity=worst,
        is_over=bool(over) and not told,
    )


def _title(content: Mapping[str, Any]) -> str:
    problems, over, notices = content["problems"], content["over"], content["notices"]
    if content["test"]:
        return f"Test of the notification {content['notification']}"
    if len(problems) + len(over) + len(notices) == 1:
        each = next(iter([*problems, *over, *notices]))
        state = "over: " if over else "still " if problems and not each["news"] else ""
        return f"{_app(each)}: {state}{_what(each)}"
    parts = [f"{len(problems)} {_plural(problems, 'problem')}"] if problems else []
    parts += [f"{len(over)} over"] if over else []
    parts += [f"{len(notices)} {_plural(notices, 'event')}"] if notices else []
    apps = sorted({_app(each) for each in (*problems, *over, *notices)})
    where = ", ".join(apps[:3]) + (f" and {len(apps) - 3} more" if apps[3:] else "")
    return f"{where}: {', '.join(parts)}"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    if content["test"]:
        yield "This is a test. Messages about problems arrive in the same way."
    at = parse_rfc3339(content["at"])
    for title, items in (
        ("Problems", [each for each in content["problems"] if each["news"]]),
        ("Still there", [each for each in content["problems"] if not each["news"]]),
        ("Over", content["over"]),
        ("Events", content["notices"]),
    ):
        yield from _section(title, items, at)
    if content["omitted"]:
        yield f"\n{content['omitted']} more are left out."
    yield f"\nSent by the notification {content['notification']} at {content['at']}."


def _section(title: str, items: Iterable[Mapping[str, Any]], at: float) -> Iterator[str]:
    for number, each in enumerate(items):
        if not number:
            yield f"\n{title}:"
        yield f"- [{each['severity']}] {_app(each)}: {_what(each)}{_times(each, at)}"
        yield from (f"  {line}" for line in each["message"].splitlines())
        yield f"  {each['url']}"


def _times(each: Mapping[str, Any], at: float) -> str:
    if "since" not in each:
        return f" at {each['at']}"
    end = parse_rfc3339(each["until"]) if each.get("until") else at
    lasted = about_duration(end - parse_rfc3339(each["since"]))
    flaps = ", comes and goes" if each["flapping"] else ""
    return f" (lasted {lasted}{flaps})" if each.get("until") else f" (for {lasted}{flaps})"


def _what(each: Mapping[str, Any]) -> str:
    type, reason = each["type"], each["reason"]
    named = reason if type == AlertType.EVENT or reason == type else f"{type} ({reason})"
    return f"{named} {each['subject']}" if each["subject"] else str(named)


def _app(each: Mapping[str, Any]) -> str:
    return "platform" if each["app"] == PLATFORM else str(each["app"])


def _plural(items: Iterable[object], word: str) -> str:
    return word if len(list(items)) == 1 else f"{word}s"
