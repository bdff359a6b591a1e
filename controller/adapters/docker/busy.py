"""Questions and orders that the engine carries out one at a time, of all who give them: what takes space on its disk,
and the removal of what is not needed. While it is busy with one, it refuses the next; it is asked again then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import docker
import docker.errors
import requests

#: What engines say; they differ in the status of this answer.
_BUSY: Final = ("disk usage operation is already running", "prune operation is already running")
#: Seconds until a busy engine is asked again.
PAUSE: Final = 0.1

Json = dict[str, Any]


def disk_usage(client: docker.APIClient, kind: str) -> list[Json]:
    """Return what is on the engine's disk of one kind, `volume` or `build-cache`. Raises errors of the SDK, also for an
    engine that is busy for longer than the timeout of the client."""
    answer = ask_again(client, "GET", "system/df", {"type": kind})  # older engines tell the rest, too
    found: list[Json] = answer.get({"volume": "Volumes", "build-cache": "BuildCache"}[kind]) or []
    return found


def ask_again(client: docker.APIClient, method: str, path: str, params: Mapping[str, str]) -> Json:
    """Send a request until the engine is not busy any more, or the timeout of the client is over."""
    timeout = float(client.timeout or 0.0)
    deadline = time.monotonic() + timeout
    url = f"{client.base_url}/v{client.api_version}/{path}"
    while True:
        answer = client.request(method, url, params=dict(params), timeout=client.timeout)
        if not any(text in answer.text for text in _BUSY) or time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    try:
        answer.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)  # raises it
    told: Json = answer.json()
    return told
