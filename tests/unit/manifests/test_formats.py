"""What the schemas' own formats accept."""

from __future__ import annotations

import pytest

from controller.domain.cron import is_cron, is_timezone
from controller.manifests.formats import is_base64_text


@pytest.mark.parametrize(
    "text",
    ["0 3 * * *", "*/15 * * * *", "5/15 0-23/2 1,15 jan-mar,DEC mon-fri", "0 0 29 2 *", "0 0 31 * 7", "0 0 31 2 mon",
     "59 23 31 12 0", "  0   3 * *\t* "],
)  # fmt: skip
def test_cron(text: str) -> None:
    assert is_cron(text)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
     "* * * 0 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "* * * mon *", "1,,2 * * * *", "1- * * * *",
     "-1 * * * *", "* * L * *", "? * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "²3 * * * *", "* * * * *\n* * * * *",
     "*-5 * * * *", "1/2/3 * * * *", "5-5/15 * * * *"],
)  # fmt: skip
def test_what_is_no_cron(text: str) -> None:
    assert not is_cron(text)


def test_timezones() -> None:
    assert all(map(is_timezone, ["UTC", "Europe/Moscow", "Asia/Novosibirsk", "Etc/GMT+3"]))
    assert not any(
        map(
            is_timezone,
            ["", "Moscow", "Europe", "Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "a\0b"],
        )
    )


def test_base64_of_text() -> None:
    assert is_base64_text("aGVsbG8=")
    assert is_base64_text("aGVs\nbG8=\n")
    assert is_base64_text("")
    assert not any(map(is_base64_text, ["hello!", "aGVsbG8", "/w==", "aGVsbG8=x"]))
