"""Parses JSON bodies of requests to the platform itself: webhooks, runs and the administrator's."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from controller.serving.jsontext import check_depth
from controller.web.problems import HttpProblem, ProblemKind, RequestRefused

#: Escapes of halves of surrogate pairs, and of whole pairs.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def require_json(media_type: str, detail: str) -> None:
    """Check that the body is JSON. Raises RequestRefused, with advice."""
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise RequestRefused(
            HttpProblem(ProblemKind.MEDIA_TYPE, f"{detail} This is {media_type or 'without a content type'}.")
        )


def read_json(content: bytes) -> Any:
    """Read JSON that can be stored and written again: finite numbers, valid Unicode, and no more levels than a
    call may have. Raises RequestRefused."""
    try:
        text = content.decode("utf-8-sig")
        document = json.loads(text, parse_float=_finite, parse_constant=_refuse_constant)
        check_depth(document)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _malformed("it has half a surrogate pair") from None
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except ValueError as error:
        raise _malformed(str(error)) from None
    return document


def _malformed(why: str) -> RequestRefused:
    return RequestRefused(HttpProblem(ProblemKind.MALFORMED_JSON, f"The body is not JSON: {why}."))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
