"""Pages say in both languages what to do about every reason that the documentation has something to do about."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from controller.daemon.doctor import CHECKS
from controller.domain.apps.conditions import Condition, ConditionType
from controller.domain.apps.usage import BOX, Resource
from controller.domain.people.roles import Role
from controller.domain.reasons import Reason
from controller.domain.runs.run import RunCause
from controller.web.pages.advice import ADVICE_ABOUT
from controller.web.pages.languages import Language, wording
from controller.web.pages.names import EVENT_WORDS, NAMES, PROBLEMS_FOUND
from controller.web.pages.reason_meanings import MEANINGS
from controller.web.pages.rendering import environment
from controller.web.pages.words import ADVICE, Told, advice_for, told_of
from tests.support.pages import ROOT
from tests.support.reasons import members, sources

REFERENCE = ROOT / "docs" / "reference"
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)
EVENT = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| event \|", re.MULTILINE)
#: Nobody reads these two on a page: the first holds while the component is ready, the second while it becomes so.
NOT_SHOWN = {Reason.HIBERNATING, Reason.APPLYING}
#: The modules of commands, whose reasons a terminal shows, and those of the pages themselves.
COMMANDS = ("backup/", "cli/", "client/", "local/", "domain/reasons.py", "web/pages/")


def described() -> Iterator[Reason]:
    """The reasons of conditions and runs about which the reference says what to do."""
    status = (REFERENCE / "status.md").read_text().partition("\n## Events\n")[0]
    runs = (REFERENCE / "runs.md").read_text().partition("\n### Reasons\n")[2].partition("\n### ")[0]
    for page in (status.partition("\n## Reasons of components\n")[2], runs):
        for names, kind, to_do in ROW.findall(page):
            if to_do.strip() and kind != "event":
                yield from map(Reason, re.findall(r"\w+", names))


DESCRIBED = sorted({*described()} - NOT_SHOWN)


def test_the_tables_of_the_reference_are_found() -> None:
    assert {Reason.EXIT_CODE, Reason.ENGINE_UNREACHABLE, Reason.STATE_BUSY, Reason.CRASH_LOOP} <= {*DESCRIBED}
    assert len(DESCRIBED) > 120


@pytest.mark.parametrize("language", list(Language))
def test_no_reason_is_without_words(language: Language) -> None:
    covered = {*ADVICE_ABOUT, *ADVICE}
    missing = [reason for reason in DESCRIBED if reason not in covered]
    assert missing == [], "say in controller/web/pages/advice.py what to do"
    texts = {text: wording(language).text(text) for text in (*ADVICE_ABOUT.values(), *ADVICE.values())}
    untranslated = [text for text, said in texts.items() if said == text]
    assert untranslated == ([] if language is Language.RUSSIAN else list(texts))


def test_advice_about_the_reason_comes_before_that_about_the_condition() -> None:
    about = Condition(ConditionType.STALLED, True, Reason.SECRET_MISSING, "")
    assert advice_for(about) == ADVICE_ABOUT[Reason.SECRET_MISSING]
    other = Condition(ConditionType.STALLED, True, Reason("SomethingNew"), "")
    assert advice_for(other) == ADVICE[ConditionType.STALLED]
    assert advice_for(Condition(ConditionType.READY, True, Reason.SERVING, "")) == ""


def given() -> set[Reason]:
    """The reasons that the daemon and the web process give, so that a page may show them."""
    named = {
        reason
        for path, tree in sources()
        if not path.as_posix().startswith(COMMANDS)
        for reason in members(tree)
    }
    return {*named, Reason.DEGRADED} - {Reason.NONE} - (EVENT_WORDS.keys() - ADVICE_ABOUT.keys())


def test_pages_say_in_both_languages_what_each_reason_means() -> None:
    assert len(given()) > 200
    assert {*MEANINGS} == given(), "say in controller/web/pages/reason_meanings.py what it means"
    russian = wording(Language.RUSSIAN)
    assert [reason for reason, text in MEANINGS.items() if not re.search("[а-яё]", russian.text(text))] == []


def test_every_check_says_in_both_languages_what_its_failure_means() -> None:
    assert {*PROBLEMS_FOUND} == {*CHECKS, "database", "links"}
    russian = wording(Language.RUSSIAN)
    assert all(re.search("[а-яё]", russian.text(text)) for text in PROBLEMS_FOUND.values())


@pytest.mark.parametrize("language", list(Language))
def test_what_a_reason_means_comes_before_the_message(language: Language) -> None:
    message = "box tables has no <b>file</b>\nat models/color"
    conditions = (Condition(ConditionType.READY, False, Reason.MODEL_MISSING, message),)
    template = environment(language).from_string(
        '{% from "parts.html" import explained with context %}{{ explained(told, "key") }}'
    )
    shown = template.render(told=told_of(conditions))
    meaning = wording(language).text(MEANINGS[Reason.MODEL_MISSING])
    assert shown.index(meaning) < shown.index(wording(language).text(ADVICE_ABOUT[Reason.MODEL_MISSING]))
    assert meaning in shown.partition('<details id="key" lang="en">')[0]
    assert "<b>" not in shown
    later = template.render(told=Told.about(Reason("FromTheFuture"), "a message"))
    assert later.strip() == '<span lang="en">a message</span>'


def test_every_name_of_the_platforms_own_is_translated() -> None:
    events = (REFERENCE / "status.md").read_text().partition("\n## Events\n")[2].partition("\n## ")[0]
    reasons = {name for names in EVENT.findall(events) for name in re.findall(r"\w+", names)}
    assert len(reasons) > 20
    assert {*NAMES} == {*Resource, *RunCause, *CHECKS, BOX.strip(), "database", "links", *Role}
    assert {*EVENT_WORDS} == {*map(Reason, reasons)}
    assert len(NAMES) == len({*NAMES})
    assert wording(Language.RUSSIAN).text("box of-somebody") == "box of-somebody"
