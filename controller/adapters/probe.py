"""Asks a workload whether it is ready, behind the port `Prober`. Called by the executor while it waits for a
rollout and runs its smoke test, and by the sampling for what the serving library says of itself.

Each probe uses a new connection: the question is whether a new caller would be served.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping

from controller.domain.apps.smoke import FILES_FIELD, MAX_FILE, SmokeAnswer, SmokeCase
from controller.domain.localizable import Localizable
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
            return Readiness(False, Localizable("it is not listening yet"))
        except TimeoutError:
            return Readiness(False, Localizable("no answer within {timeout} s", timeout=timeout))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Readiness(
                False, Localizable("no HTTP answer: {error}", error=str(error) or type(error).__name__)
            )

    def read(self, endpoint: str, path: str, timeout: float) -> str:
        try:
            with fetched(endpoint, path, within=timeout) as answer:
                if answer.status != http.client.OK:
                    return ""
                return answer.read(BODY_LIMIT).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException, ValueError):
            return ""

    def call(
        self,
        endpoint: str,
        case: SmokeCase,
        headers: Mapping[str, str],
        timeout: float,
        unless: Callable[[], bool],
    ) -> SmokeAnswer:
        try:
            with fetched(
                endpoint,
                case.test.path,
                accept="application/json",
                within=timeout,
                body=case.request,
                headers=headers,
                unless=unless,
            ) as answer:
                # The JSON of a reply with files, which follow it.
                length, _, _ = (answer.headers.get(FILES_FIELD) or "").partition(";")
                most = int(length) if length.isdecimal() and len(length) < 18 else MAX_FILE + 1
                body = answer.read(most := min(most, MAX_FILE + 1))
                if len(body) < most and answer.length:
                    raise ConnectionError("in the middle of its answer")
                return SmokeAnswer(answer.status, body)
        except TimeoutError:
            return SmokeAnswer(failure=Localizable("it took longer than {timeout} s", timeout=timeout))
        except ConnectionRefusedError:
            return SmokeAnswer(failure=Localizable("it is not listening any more"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return SmokeAnswer(
                failure=Localizable(
                    "the connection was cut ({error})", error=str(error) or type(error).__name__
                )
            )


def _ask(endpoint: str, path: str, timeout: float) -> Readiness:
    with fetched(endpoint, path, accept="application/json, */*;q=0.5", within=timeout) as answer:
        if answer.status == http.client.OK:
            return Readiness(True)
        words = _words(answer.headers.get_content_type(), answer.read(BODY_LIMIT))
        return Readiness(
            False, Localizable("{path} answers {status}{words}", path=path, status=answer.status, words=words)
        )


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
