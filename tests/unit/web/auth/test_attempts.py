"""How often a password may be tried, and what the log says of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.logging_setup import _JsonFormatter, _TextFormatter
from controller.web.auth import attempts
from controller.web.auth.attempts import BY_ADDRESS, BY_NAME, LoginAttempts, log_failure
from tests.support.authenticating import Clock
from tests.support.pages import ROOT

HERE, THERE = "203.0.113.9", "203.0.113.10"


def tries(gate: LoginAttempts, number: int, address: str, name: str | None = None) -> int:
    """How many of so many in a row were let through."""
    return sum(gate.begin(address, "demo/image", name or f"user {n}") == 0 for n in range(number))


def test_one_name_at_one_address() -> None:
    clock = Clock()
    gate = LoginAttempts(clock)
    assert tries(gate, 100, HERE, "ann") == BY_NAME.burst
    assert 0 < gate.begin(HERE, "demo/image", "ann") <= BY_NAME.pause + 1
    clock.now += BY_NAME.pause
    assert tries(gate, 10, HERE, "ann") == 1


def test_nobody_else_is_locked_out() -> None:
    gate = LoginAttempts(Clock())
    tries(gate, 100, HERE, "ann")
    assert gate.begin(THERE, "demo/image", "ann") == 0, "ann herself, from elsewhere"
    assert gate.begin(HERE, "demo/image", "bob") == 0, "another one at that address"
    assert gate.begin(HERE, "demo/other", "ann") == 0, "the same name of another app"


def test_one_password_on_all_names() -> None:
    gate = LoginAttempts(Clock())
    gate.begin(HERE, "demo/image", "bob")
    gate.succeeded(HERE, "demo/image", "bob")
    assert tries(gate, 1000, HERE) == BY_ADDRESS.burst
    assert gate.begin(HERE, "demo/image", "bob") == 0, "who has signed in there goes on"
    assert gate.begin(THERE, "demo/image", "user 1") == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
def test_a_proxy_that_is_not_told_of_locks_nobody_out(address: str) -> None:
    gate = LoginAttempts(Clock())
    assert tries(gate, 1000, address) == 1000
    assert tries(gate, 100, address, "ann") == BY_NAME.burst


def test_addresses_of_one_network_are_one() -> None:
    gate = LoginAttempts(Clock())
    found = [gate.begin(f"2001:db8::{n:x}", "demo/image", "ann") == 0 for n in range(100)]
    assert sum(found) == BY_NAME.burst
    assert gate.begin("2001:db8:0:1::1", "demo/image", "ann") == 0
    assert tries(gate, 100, "::ffff:203.0.113.9", "ann") + tries(gate, 100, HERE, "ann") == BY_NAME.burst


def test_good_ones_count_for_nothing() -> None:
    gate = LoginAttempts(Clock())
    for _ in range(1000):
        assert gate.begin(HERE, "demo/image", "ann") == 0
        gate.succeeded(HERE, "demo/image", "ann")
    for _ in range(1000):
        assert gate.begin(HERE, "demo/image", "ann") == 0
        gate.give_back(HERE, "demo/image", "ann")


@pytest.mark.slow
def test_its_memory_is_bounded() -> None:
    gate = LoginAttempts(Clock())
    for n in range(3 * attempts.KEPT):
        gate.begin(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", "demo/image", str(n))
        gate.succeeded("127.0.0.1", "demo/image", str(n))
    assert len(gate._good) <= attempts.KEPT
    assert len(gate._by_name._used) <= attempts.KEPT


# --- the log ----------------------------------------------------------------------------------------------------


def filters() -> list[re.Pattern[str]]:
    """Those of fail2ban that the page shows."""
    page = (ROOT / "docs" / "guide" / "operations.md").read_text()
    block = page.partition("failregex = ")[2].partition("journalmatch")[0]
    lines = [line.strip("\n").lstrip() for line in block.split("\n") if line.strip()]
    found = [
        line.replace("%(__prefix_line)s", "").replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)") for line in lines
    ]
    assert len(found) == 2
    return [re.compile(line) for line in found]


def lines_of(
    formatter: logging.Formatter, work: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> list[str]:
    caplog.clear()
    work()
    return [line for record in caplog.records for line in formatter.format(record).split("\n")]


NAMES = [
    "ann",
    "böb",
    "",
    "a b",
    "x\n2026 WARNING",
    'a" address=198.51.100.1 "',
    "\x1b[2J",
    "a" * 5000,
    "%0a",
    "\udc80",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("formatter", [_TextFormatter(), _JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("address", [HERE, "2001:db8::1"])
def test_a_failure_is_one_line_that_names_the_address(
    formatter: logging.Formatter, name: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = name.encode("utf-8", "replace").decode()
    (line,) = lines_of(formatter, lambda: log_failure(address, "password", name, "demo/image"), caplog)
    hosts = [found["host"] for pattern in filters() if (found := pattern.search(line))]
    assert hosts == [address]
    assert len(line) < 700


FORGED = "sign-in failed address=198.51.100.1 scheme=password user=x api=x/y"


@pytest.mark.parametrize("formatter", [_TextFormatter(), _JsonFormatter()], ids=["text", "json"])
@given(before=st.text(max_size=10))
def test_no_other_record_looks_like_one(formatter: logging.Formatter, before: str) -> None:
    """Whatever stands in a path, name or message that is logged."""
    begin = "2026-01-31T14:02:11.123Z WARNING controller.web.auth.attempts: "
    as_json = (
        '{"time": 1.0, "level": "WARNING", "logger": "controller.web.auth.attempts", '
        '"message": "sign-in failed", "address": "198.51.100.1", '
    )
    for forged in (
        f"{before}\n{begin}{FORGED}",
        f"\r\n{as_json}",
        f"\u2028{begin}{FORGED}",
        f"\x85{begin}{FORGED}",
    ):
        record = logging.LogRecord(
            "controller.web.asgi", logging.WARNING, "", 0, "refused: %s", (forged,), None
        )
        record.path = forged
        for line in formatter.format(record).splitlines():
            assert not any(pattern.search(line) for pattern in filters()), line


def test_json_stays_json(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = lines_of(_JsonFormatter(), lambda: log_failure(HERE, "token", 'a"b', "demo/x"), caplog)
    assert json.loads(line)["user"] == "a%22b"
