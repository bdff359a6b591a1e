"""Reads the events of a function that yields, by httpx-sse: `yielded_events.py URL AUTHORIZATION`. The function yields
the first word, and the others after a second call, which is made when the first event is there: if somebody on the way
holds it back, there is no end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx
import httpx_sse

URL, AUTHORIZATION = sys.argv[1:]


def body(text: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "str", "data": text}]}


with httpx.Client(headers={"Authorization": AUTHORIZATION}, timeout=30) as client:
    words: list[str] = []
    with httpx_sse.connect_sse(client, "POST", URL, json=body("to be or")) as source:
        for event in source.iter_sse():
            if not words:
                client.post(URL, json=body("go")).raise_for_status()
            (output,) = json.loads(event.data)["outputs"]
            words.append(output["data"])
    (collected,) = client.post(URL, json=body("to be or")).raise_for_status().json()["outputs"]
    assert (collected["data"], collected["shape"]) == (words, [3]), collected
    print(*words, end=": all of them at once\n")
