from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.engines import unique
from tests.support.platform import Module, Platform

LOG_LINES = 150  # of the platform's log, shown with a test that has failed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the platform has logged: the assertion says what is wrong, the log says why."""
    report = yield
    platform = getattr(item, "funcargs", {}).get("platform")
    if report.failed and isinstance(platform, Platform) and platform.log.exists():
        lines = platform.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        report.sections.append(("log of the platform", "\n".join(lines)))
    return report


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of a file, each with an app of its own."""
    running = Platform(tmp_path_factory.mktemp("platform"))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def app() -> str:
    return unique("pu-e2e-pa")


@pytest.fixture
def module(platform: Platform, app: str) -> Module:
    return Module(platform.home / app)
