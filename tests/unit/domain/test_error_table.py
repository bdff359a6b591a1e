"""The order in which a table of errors decides, and the sentences that it makes."""

from __future__ import annotations

from functools import partial

import pytest

from controller.domain.error_table import MAX_TEXT, ErrorRule, ErrorTable
from controller.domain.errors import ControllerError, Stalled, Transient
from controller.domain.localizable import Localizable
from controller.domain.reasons import Reason
from controller.domain.secret import Secret

AWAY = ErrorRule(Transient, Reason("Away"))
REFUSED = ErrorRule(Stalled, Reason("Refused"))
DENIED = ErrorRule(Stalled, Reason("Denied"), "Check the password")
FULL = ErrorRule(Transient, Reason("Full"))
TABLE = ErrorTable(
    REFUSED,
    AWAY,
    codes={"AccessDenied": DENIED},
    words=((r"no space", FULL), (r"space", REFUSED)),
    status={403: DENIED, 503: FULL},
    classes={OSError: AWAY, ConnectionError: FULL},
)


@pytest.mark.parametrize(
    ("status", "code", "text", "rule"),
    [
        (507, "AccessDenied", "no space left", DENIED),
        (403, "Unknown", "No SPACE left", FULL),
        (403, "", "something else", DENIED),
        (503, "", "", FULL),
        (500, "", "", AWAY),
        (400, "", "", REFUSED),
    ],
)
def test_the_code_decides_then_words_then_the_status(
    status: int, code: str, text: str, rule: ErrorRule
) -> None:
    assert TABLE.of_response(status, code, text) is rule


def test_the_nearest_class_decides() -> None:
    assert TABLE.of_exception(ConnectionResetError()) is FULL
    assert TABLE.of_exception(FileNotFoundError()) is AWAY
    assert TABLE.of_exception(RuntimeError()) is REFUSED


def test_a_sentence_has_what_was_done_what_happened_and_what_to_do() -> None:
    assert (
        DENIED.error("cannot read x", "no access. ").message == "cannot read x: no access. Check the password"
    )
    assert AWAY.error("cannot read x", "it is away").message == "cannot read x: it is away"
    told = Localizable("the server says: {words}", words="No access!")
    assert DENIED.error("cannot read x", told).message.endswith("No access! Check the password")
    told = Localizable("the server says: {words}", words="No access.")
    assert DENIED.error("cannot read x", told).message.endswith("No access. Check the password")


def test_secrets_and_long_texts_are_cut() -> None:
    message = AWAY.error("cannot read x", "geheim " + "y" * 10 * MAX_TEXT, (Secret("geheim"),)).message
    assert "geheim" not in message
    assert len(message) < 2 * MAX_TEXT


def test_the_other_side_says_when_to_come_again() -> None:
    found = AWAY.error("cannot read x", "it is busy", retry_after=7.0)
    assert isinstance(found, Transient)
    assert found.retry_after == 7.0


def _translate(error: BaseException, doing: str) -> ControllerError:
    return TABLE.of_exception(error).error(doing, str(error))


def test_only_listed_exceptions_are_translated() -> None:
    with (
        pytest.raises(Transient, match="cannot do it: gone"),
        TABLE.translated(partial(_translate, doing="cannot do it")),
    ):
        raise ConnectionResetError("gone")
    for error in (KeyError("a bug"), Stalled(Reason("Ours"), "ours")):
        with (
            pytest.raises(type(error)) as caught,
            TABLE.translated(partial(_translate, doing="cannot do it")),
        ):
            raise error
        assert caught.value is error
