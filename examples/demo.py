"""The main job on the example module: from `git push` to an answer, a rollout that no caller notices, and a run of its
pipeline on a file.

Run by `make demo`. Everything is real: Docker, Git, gunicorn. State lies in a temporary folder that is removed at the
end together with containers and images. `DEMO_EXIT=1` ends the demo by itself; otherwise it stays up until Ctrl-C.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

EXAMPLE = Path(__file__).parent / "colors"
APP = "demo-colors"
RED = {"inputs": [{"name": "rgb", "datatype": "INT32", "shape": [3], "data": [210, 30, 50]}]}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = Path(tempfile.mkdtemp(prefix="prichal-demo-"))
    try:
        with Platform(home) as platform:
            demo(platform)
            if not os.environ.get("DEMO_EXIT"):
                stay(platform)
    except KeyboardInterrupt:
        print("\nStopped.")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def demo(platform: Platform) -> None:
    say("1. A repository on this host, connected as an app")
    url = platform.prichal(
        "repo", "create", "colors", "--connect", "--app", APP, "--path", "manifests"
    ).split()[-1]
    clone = platform.home / "work"
    shutil.copytree(EXAMPLE, clone)
    git(clone, "init", "-q", "-b", "main")
    git(clone, "remote", "add", "origin", url)

    say("2. The first push: the image is built, the container started, the route opened")
    commit(clone, "Name colours")
    git(clone, "push", "-q", "origin", "main")

    say("3. A call")
    show_call(platform)

    say("4. A new version is pushed while clients keep calling")
    with Callers(platform, count=2) as callers:
        callers.wait_for(50)
        palette = clone / "app" / "palette.json"
        palette.write_text(palette.read_text().replace('"red"', '"crimson"'))
        commit(clone, "Call it crimson")
        git(clone, "push", "-q", "origin", "main")
        callers.wait_for(50)
    show_call(platform)
    print(
        f"   answers while it rolled out: {dict(callers.answers)}; calls that failed: {len(callers.failures)}"
    )
    if callers.failures or "crimson" not in callers.answers:
        raise SystemExit(f"the rollout was noticed: {callers.failures[:3]}")

    say("5. A table is uploaded, the module's pipeline surveys it, the report is fetched")
    survey(platform, clone / "paints.csv")

    say("6. What the platform says")
    print(platform.prichal("status", APP))


def survey(platform: Platform, table: Path) -> None:
    report = platform.home / "report.txt"
    print(f"   $ export PRICHAL_SERVER={platform.url}")
    platform.typed("file", "put", str(table), f"{APP}:tables/paints/")
    chosen = ("--input", f"table=paints/{table.name}", "--output-group", "report=results")
    platform.typed("run", "start", f"{APP}/survey", *chosen, "--follow")
    platform.typed("file", "get", f"{APP}:tables/results/report.txt", str(report))
    print(f"   $ cat {report}\n{report.read_text()}", end="")


def stay(platform: Platform) -> None:
    print(f"\nUp until Ctrl-C. Try it:\n\n   curl -s {platform.url}/{APP}/colors/predict \\")
    print(f"     -H 'Content-Type: application/json' -d '{json.dumps(RED)}'\n")
    print(f"   descriptions of the APIs {platform.url}/{APP}/colors/docs, {platform.url}/{APP}/survey/docs")
    print(f"   status page              {platform.url}/-/   (prichal doctor shows the link to sign in)")
    print(f"   the module's clone       {platform.home / 'work'}  (change it, commit, git push)")
    while True:
        time.sleep(3600)


class Platform:
    """`prichal up` on a configuration of its own, ended with its containers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port(8000)
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = home / "config.yaml"
        self._log = home / "prichal.log"

    def __enter__(self) -> Platform:
        folder = self.home / "platform"
        folder.mkdir()
        self._config.write_text(
            f"state: {self.home / 'state'}\n"
            f"instance: demo-{os.getpid()}\n"
            f"platform: {{path: {folder}}}\n"
            f"web: {{listen: '127.0.0.1:{self.port}'}}\n"
            f"storage: {{listen: '127.0.0.1:{free_port(9000)}'}}\n"
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command("up"), stdout=log, stderr=log)
        try:
            self._wait(lambda: call(self.port, "GET", "/-/readyz")[0] == 200, "the platform to be up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None:
                self._disconnect()
        finally:
            self._process.terminate()
            self._process.wait(60)

    def _disconnect(self) -> None:
        for file in (self.home / "platform").glob("*.yaml"):
            file.unlink()
        self.prichal("approve", "@platform")
        self._wait(lambda: not self._containers(), "the containers to be gone")

    def prichal(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise SystemExit(f"prichal {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def typed(self, *arguments: str) -> None:
        """Show what a user types, from any machine, and do it: nothing of it is read from this host's configuration."""
        print(f"   $ {shlex.join(('prichal', *arguments))}", flush=True)
        command = [sys.executable, "-m", "controller", *arguments]
        environment = {**os.environ, "PRICHAL_SERVER": self.url}
        if subprocess.run(command, env=environment, timeout=120).returncode:
            raise SystemExit(f"prichal {arguments[0]} failed")

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "controller", "--config", str(self._config), *arguments]

    def _containers(self) -> bool:
        return bool(json.loads(self.prichal("status", "-o", "json"))["apps"])

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if condition():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.05)
        tail = "\n".join(self._log.read_text().splitlines()[-30:])
        raise SystemExit(f"waited in vain for {what}; the log's end:\n{tail}")


class Callers:
    """Clients that call without a pause and write down what they got."""

    def __init__(self, platform: Platform, count: int) -> None:
        self._platform = platform
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Until so many more calls have been answered."""
        goal = self.answers.total() + more
        while self.answers.total() < goal and not self.failures:
            time.sleep(0.01)

    def _call(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._platform.port, timeout=30)
        while not self._stop.is_set():
            status, body = predict(connection)
            if status == 200:
                self.answers[body["outputs"][0]["data"]] += 1
            else:
                self.failures.append(f"{status} {body}")


def predict(connection: http.client.HTTPConnection) -> tuple[int, dict[str, list[dict[str, str]]]]:
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/{APP}/colors/predict", json.dumps(RED), headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def call(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def show_call(platform: Platform) -> None:
    status, body = predict(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=30))
    print(
        f"   POST /{APP}/colors/predict {json.dumps(RED['inputs'][0]['data'])} -> {status} {json.dumps(body)}"
    )
    if status != 200:
        raise SystemExit("the call failed")


def commit(clone: Path, message: str) -> None:
    git(clone, "add", "-A")
    git(clone, "-c", "user.name=demo", "-c", "user.email=demo@example.org", "commit", "-q", "-m", message)


def git(clone: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(clone), *arguments], check=True, timeout=300)


def free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("no free port on 127.0.0.1")


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
