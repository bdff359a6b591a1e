"""Follows a run by httpx-sse: `event_streams.py BASE AUTHORIZATION`. BASE is the URL of the run API."""

from __future__ import annotations

import json
import sys

import httpx
from httpx_sse import connect_sse

BASE, AUTHORIZATION = sys.argv[1:]

with httpx.Client(headers={"Authorization": AUTHORIZATION}, timeout=60) as client:
    run = client.post(f"{BASE}/runs", json={}).raise_for_status().json()["id"]
    states, retries, last = [], [], ""
    with connect_sse(client, "GET", f"{BASE}/runs/{run}/events") as source:
        for event in source.iter_sse():
            retries.append(event.retry)
            last = event.id or last
            states.append(json.loads(event.data)["state"])
            if states[-1] in ("SUCCEEDED", "FAILED", "ERROR", "CANCELED"):
                break
    assert retries[0], "the first event says when to connect again"
    print(*states)
    log = []
    with connect_sse(client, "GET", f"{BASE}/runs/{run}/logs", params={"follow": "1"}) as source:
        for event in source.iter_sse():
            if event.id == "end":
                break
            log.append(event.data)
    print(*" ".join(log).split())
