"""Asks a workload whether it is ready, behind the port `Prober`. Called by the executor while it waits for a
rollout.

Each probe uses a new connection: the question is whether a new caller would be served.
"""

from __future__ import annotations

import http.client
import json

from controller.fetch import fetched
from controller.ports import Readiness

#: Bytes of a response that are read; the rest is ignored.
BODY_LIMIT = 64 * 1024
#: Characters of a server's own message that are passed on.
DETAIL_LIMIT = 500


class HttpProber:
    """A workload is ready if it answers 200. Redirects are not followed: a login page does not mean ready."""

    def probe(self, endpoint: str, path: str, timeout: float) -> Readiness:
        try:
            return _ask(endpoint, path, timeout)
        except ConnectionRefusedError:
            return Readiness(False, "it is not listening yet")
        except TimeoutError:
            return Readiness(False, f"no answer within {timeout:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Readiness(False, f"no HTTP answer: {str(error) or type(error).__name__}")


def _ask(endpoint: str, path: str, timeout: float) -> Readiness:
    with fetched(endpoint, path, accept="application/json, */*;q=0.5", within=timeout) as answer:
        if answer.status == http.client.OK:
            return Readiness(True)
        words = _words(answer.headers.get_content_type(), answer.read(BODY_LIMIT))
        return Readiness(False, f"{path} answers {answer.status}{words}")


def _words(kind: str, body: bytes) -> str:
    """Return the `detail` of problem+json (RFC 9457) or `title`, or a plain text; "" for pages for browsers."""
    text = body.decode("utf-8", "replace").strip()
    if kind.endswith("json"):
        try:
            problem = json.loads(text)
        except ValueError:
            problem = None
        found = (problem.get("detail") or problem.get("title")) if isinstance(problem, dict) else None
        text = found if isinstance(found, str) else ""
    elif kind != "text/plain":
        text = ""
    text = " ".join(text.split())
    return f": {text[:DETAIL_LIMIT]}" if text else ""
