"""`python -m benchmarks.submitting PORT PATH COUNT PAUSE`: submits runs one after another on one connection, and prints
the seconds that each answer took, as JSON.

A process of its own: in that of the measurement other threads would make it wait.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time


def submitted(port: int, path: str, count: int, pause: float) -> list[float]:
    """Seconds of each, by such a process."""
    command = [sys.executable, "-m", "benchmarks.submitting", str(port), path, str(count), str(pause)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return [float(seconds) for seconds in json.loads(done.stdout)]


def main(port: int, path: str, count: int, pause: float) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        seconds.append(time.perf_counter() - begun)
        if reply.status != 202:
            raise SystemExit(f"{reply.status}: {content!r}")
        time.sleep(pause)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
