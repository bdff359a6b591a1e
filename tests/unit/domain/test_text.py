"""Whatever bytes and escapes bring: it can be stored, printed and read back."""

from __future__ import annotations

import json
import re
import unicodedata
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.requests import Outcome, Trigger
from controller.domain.apps.status import AppStatus, ComponentStatus, Event, EventType
from controller.domain.errors import ManifestInvalid, ManifestProblem, Stalled
from controller.domain.names import AppName, ComponentName
from controller.domain.reasons import Reason
from controller.domain.text import (
    MAX_MESSAGE,
    UNPRINTABLE,
    bounded,
    excerpt,
    is_storable,
    matches_glob,
    printable,
    storable,
)
from tests.support.stores import open_store

anything = st.text(st.characters(), max_size=30) | st.binary(max_size=30).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, grün, 猫 \N{GRINNING FACE}", "plain, grün, 猫 \N{GRINNING FACE}"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        (b"caf\xe9.yaml".decode("utf-8", "surrogateescape"), r"caf\xe9.yaml"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),
        ("\ud83d alone", r"\ud83d alone"),
        ("NUL \0, bell \a, C1 \x9b", r"NUL \x00, bell \x07, C1 \x9b"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07text \x1b[2J", "red text "),
        ("half an escape \x1b", r"half an escape \x1b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("Windows\r\nlines", "Windows\nlines"),
        ("ad\u200bmin", r"ad\u200bmin"),
        ("ad\u200dmin, ad\u200cmin", r"ad\u200dmin, ad\u200cmin"),
        ("main\U000e0061\U000e007f", r"main\U000e0061\U000e007f"),
        ("\u180e\u200d", r"\u180e\u200d"),
        (
            "a family \U0001f468\u200d\U0001f469\u200d\U0001f467",
            "a family \U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("twice \U0001f468\u200d\u200d", "twice \U0001f468\u200d\\u200d"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


#: Characters of the category Cf that a reader sees: signs above or around digits of Arabic, Syriac and Kaithi.
VISIBLE = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")


def test_nothing_invisible_stays() -> None:
    """Whatever Unicode calls a control or a format character, a separator of lines or half of a character."""
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not VISIBLE.match(char):
            assert UNPRINTABLE.match(char) or char in "\t\n", ascii(char)
    assert not re.search(UNPRINTABLE, "".join(filter(str.isprintable, map(chr, range(0x110000)))))


@given(anything)
def test_what_is_printable_is_utf8_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert is_storable(shown)
    assert "\x1b" not in shown
    assert printable(shown) == shown


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_globs_are_matched_as_fnmatch_does(pattern: str, text: str) -> None:
    assert matches_glob(pattern, text) == fnmatchcase(text, pattern)


@given(anything, st.integers(min_value=0, max_value=20))
def test_an_excerpt_has_both_ends(text: str, limit: int) -> None:
    short = excerpt(text, limit)
    assert short == text if len(text) <= limit else len(short) <= limit + 50
    assert short.startswith(text[: limit // 2])
    assert short.endswith(text[len(text) - (limit - limit // 2) :] if len(text) > limit else text)


@given(anything)
def test_what_is_storable_is_so_within_json_too(text: str) -> None:
    assert is_storable(storable(text))
    for ascii in (True, False):
        (read,) = json.loads(storable(json.dumps([text], ensure_ascii=ascii)))
        assert len(read) == len(text)


@given(anything)
def test_everything_that_people_are_told_is_printable(text: str) -> None:
    error = Stalled(Reason.LFS_POINTER, text)
    problem = ManifestProblem(text, 1, 1, text, text)
    condition = Condition(ConditionType.READY, False, Reason.LFS_POINTER, text)
    event = Event(AppName("demo"), EventType.NORMAL, Reason.LFS_POINTER, text)
    for told in (
        error.message,
        str(error),
        str(problem),
        str(ManifestInvalid((problem,))),
        condition.message,
    ):
        told.encode()
        assert printable(told) == told
    assert event.message == printable(text)


def test_whatever_text_reaches_the_store_is_stored_and_read_back(tmp_path: Path) -> None:
    """Past all that makes texts printable: the last resort."""
    store = open_store(tmp_path / "db" / "state.db")
    app = AppName("demo")

    @given(anything)
    def check(text: str) -> None:
        component = ComponentStatus(ComponentName("classify"), "MLComponent", failure=text)
        status = AppStatus(app, repository=text, plan=text, components=(component,))
        store.apps.save(status)
        read = store.apps.status(app)
        assert read.plan.replace("\0", "\N{REPLACEMENT CHARACTER}") == storable(text)
        request = store.requests.enqueue(app, Trigger(text))
        claimed = store.requests.claim(2e9)
        assert claimed is not None
        store.requests.finish(request, Outcome.FAILED, text, text)
        done = store.requests.get(request)
        assert done is not None
        assert done.message == storable(text)
        store.events.add([Event(app, EventType.WARNING, Reason(text), text, ComponentName(text))])
        assert store.events.list(app)[-1].message == storable(printable(text))

    check()
    store.close()


@given(anything)
def test_a_message_that_is_kept_is_printable_and_bounded(text: str) -> None:
    assert bounded(text) == printable(text)
    long = bounded(text * 5000 + "the end")
    assert len(long) <= MAX_MESSAGE + 60
    assert long.endswith("the end")
    event = Event(AppName("demo"), EventType.WARNING, Reason.BUILD_FAILED, text * 5000 + "the end")
    condition = Condition(ConditionType.STALLED, True, Reason.BUILD_FAILED, text * 5000 + "the end")
    assert (event.message, condition.message) == (long, long)
