"""Decides whether traces are on, and makes the tracer of a process. Called by the composition roots, once, in the
process that makes spans: threads of the exporter do not survive a fork.

What is wrong with the receiver, its headers or the installation is logged and leaves traces off: nobody should be
without a service because nobody watches it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from controller.config import TracingSettings
from controller.tracing import OFF, Tracer

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)[ \t]*")
_MOST = 2**16  # bytes of the file with headers


def is_wanted(settings: TracingSettings, environment: Mapping[str, str] = os.environ) -> bool:
    """Return True if somebody has named a receiver, and nobody has switched traces off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return bool(settings.endpoint) or any(environment.get(name, "").strip() for name in _ENDPOINTS)


def start_tracing(
    settings: TracingSettings, service: str, environment: Mapping[str, str] = os.environ
) -> Tracer:
    """Return the tracer of this process; `OFF` if traces are off or cannot be made."""
    if not is_wanted(settings, environment):
        return OFF
    try:
        headers = read_headers(settings.headers) if settings.headers else {}
    except (OSError, ValueError) as error:
        log.error("traces are off: tracing.headers cannot be read: %s", error)
        return OFF
    try:
        from controller.tracing.sdk import SdkTracer
    except ImportError as error:
        log.error("traces are off: %s; install the extra prichal[otel]", error)
        return OFF
    try:
        return SdkTracer(service, settings.endpoint, headers, settings.sample_ratio)
    except Exception as error:
        log.error("traces are off: the exporter cannot be made", exc_info=error)
        return OFF


def read_headers(path: Path) -> dict[str, str]:
    """Return the headers of a file, one a line. Raises OSError, and ValueError without quoting a value."""
    with path.open("rb") as file:
        content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise ValueError(f"{path} is larger than {_MOST} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _HEADER.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"line {number} of {path} is not a header: write Name: value")
        found[match[1]] = match[2]
    return found
