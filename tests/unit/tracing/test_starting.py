"""Whether traces are on, and what happens if they cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from controller.config import TracingSettings
from controller.tracing import OFF
from controller.tracing.starting import is_wanted, read_headers, start_tracing

HERE = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("endpoint", "environment", "wanted"),
    [
        ("", {}, False),
        (HERE, {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": HERE}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HERE}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (HERE, {"OTEL_SDK_DISABLED": "true"}, False),
        (HERE, {"OTEL_SDK_DISABLED": "false"}, True),
        (HERE, {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_who_switches_traces_on(endpoint: str, environment: dict[str, str], wanted: bool) -> None:
    settings = TracingSettings(endpoint)
    assert is_wanted(settings, environment) is wanted
    tracer = start_tracing(settings, "prichal-test", environment)
    assert tracer.is_on is wanted
    tracer.close()


def test_headers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# of the receiver\n\nAuthorization: Bearer a:b c\nX-Scope-OrgID:\tteam \n")
    assert read_headers(file) == {"Authorization": "Bearer a:b c", "X-Scope-OrgID": "team"}


@pytest.mark.parametrize("content", ["Authorization", "a b: c", ": x", "A:", "A: \u00e9", "x" * 70000])
def test_bad_headers_are_told_without_their_values(tmp_path: Path, content: str) -> None:
    file = tmp_path / "headers"
    file.write_text(f"# first\n{content}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*headers|larger than") as told:
        read_headers(file)
    assert content[:20] not in str(told.value).replace(str(file), "")


def test_headers_that_cannot_be_read_leave_traces_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        settings = TracingSettings(HERE, tmp_path / "missing")
        assert start_tracing(settings, "prichal-test", {}) is OFF
    assert "traces are off: tracing.headers cannot be read" in caplog.text


def test_variables_that_nobody_understands_leave_traces_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")
    with caplog.at_level(logging.ERROR):
        assert start_tracing(TracingSettings(HERE), "prichal-test", {}) is OFF
    assert "traces are off: the exporter cannot be made" in caplog.text
