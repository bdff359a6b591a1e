"""`prichal run-local` as a person uses it, on the real engine: nothing is left behind, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import LocalEngine
from controller.config import DockerSettings
from controller.domain import labels
from tests.integration.runner.world import ROOT
from tests.support.engines import BASE_IMAGE, unique
from tests.support.waiting import wait_for

HEAD = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: ExperimentPipeline
metadata: {name: train, namespace: APP}
spec:
  vars: [{name: data}, {name: rate}, {name: model}, {name: report}]
  stages:
    - name: fit
      image: {existingImageName: IMAGE}
      command: [sh, -c, "FIT"]
      inputs: [{name: data}, {name: rate}]
      outputs: [{name: model}]
      resources: {memory: 64Mi}
      retries: {limit: 1, backoff: 10ms}
"""
TELL = """
    - name: tell
      image: {build: {context: tell, secrets: [{id: pip, secret: packages, key: token}]}}
      inputs: [{name: model}]
      outputs: [{name: report}]
      envFrom: [{secretRef: {name: keys}}]
"""
DOCKERFILE = f"""
FROM {BASE_IMAGE}
RUN --mount=type=secret,id=pip wc -c < /run/secrets/pip > /size
COPY . /here
CMD ["sh", "-c", "ls -A /here; echo $KEY; cat /size; cp $UNIP_PIPELINE_MODEL/* $UNIP_PIPELINE_REPORT/"]
"""
FIT = "echo attempt $UNIP_ATTEMPT; cat $UNIP_PIPELINE_DATA $UNIP_PIPELINE_RATE > $UNIP_PIPELINE_MODEL/m; "
INPUTS = ("--input", "data=in.csv", "--input", "rate:=0.5")


class Started:
    """The command in a process group of its own, as a terminal would have it, and all that it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "controller", "run-local", "train.yaml", *INPUTS, *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in iter(self.process.stdout.readline, ""))

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def until(self, text: str) -> None:
        wait_for(lambda: text in self.said, limit=60.0)

    def press(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        code = self.process.wait(60)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Place:
    """A module's working folder, in which runs are started."""

    def __init__(self, folder: Path, client: docker.APIClient) -> None:
        self.app = unique("app")
        self.folder = folder
        self._client = client
        self._started: list[Started] = []
        (folder / "tmp").mkdir()
        (folder / "in.csv").write_text("1,2\n")

    def declare(self, fit: str, rest: str = "") -> None:
        head = HEAD
        for name, text in (("APP", self.app), ("IMAGE", BASE_IMAGE), ("FIT", fit)):
            head = head.replace(name, text)
        (self.folder / "train.yaml").write_text(head + rest)

    def start(self, *arguments: str) -> Started:
        self._started.append(Started(self.folder, *arguments))
        return self._started[-1]

    def left(self) -> list[str]:
        ours = {"label": f"{labels.APP}={self.app}"}
        names = [entry["Names"][0] for entry in self._client.containers(all=True, filters=ours)]
        names += [entry["Name"] for entry in self._client.networks(filters=ours)]
        return names + [str(path) for path in (self.folder / "tmp").glob("*/*") if path.name != "lock"]

    def close(self) -> None:
        for started in self._started:
            if started.process.poll() is None:
                started.process.kill()
        if self.left():  # the next one removes what that has left
            self.declare("true")
            self._started.append(Started(self.folder, "--output-dir", "last"))
        for started in self._started:
            started.end()


@pytest.fixture
def place(tmp_path: Path, client: docker.APIClient) -> Iterator[Place]:
    """Below the system's temporary folder: that of pytest may be one that the engine does not see."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        place = Place(Path(folder), client)
        yield place
        place.close()


def test_two_stages_one_of_them_built_here(place: Place, client: docker.APIClient) -> None:
    place.declare(FIT + "test $UNIP_ATTEMPT = 2", TELL)
    (place.folder / "tell").mkdir()
    for name, text in (("Dockerfile", DOCKERFILE), ("kept", ""), ("junk", ""), (".dockerignore", "junk\n")):
        (place.folder / "tell" / name).write_text(text)
    (place.folder / "keys.env").write_text("KEY=s3cret\n")
    (place.folder / "token").write_text("t0ken\n")
    started = place.start("--secret", "keys=keys.env", "--secret", "packages/token=token")
    try:
        assert started.end() == 0, started.said
    finally:
        client.remove_image(f"prichal-run.local/{place.app}/train.tell:latest")
    assert (place.folder / "out" / "report" / "m").read_text() == "1,2\n0.5"
    assert (place.folder / "out" / "model" / "m").read_text() == "1,2\n0.5"
    written = [line for line in started.lines if " | " in line]
    assert written == [
        *("fit  | attempt 1", "fit  | attempt 2"),
        *("tell | .dockerignore", "tell | Dockerfile", "tell | kept", "tell | s3cret", "tell | 5"),
    ]
    assert "fit  * QUEUED after" in started.said
    assert started.lines[-1] == "train SUCCEEDED"
    assert place.left() == []


def test_a_failure_ends_with_1_and_keeps_what_is_asked_for(place: Place) -> None:
    place.declare(FIT + "exit 3")
    started = place.start("--keep")
    assert started.end() == 1
    assert "train FAILED, ExitCode: stage fit: the command ended with exit code 3" in started.lines[-2]
    kept = Path(started.lines[-1].removeprefix("kept: "))
    assert (kept / "fit.2" / "out" / "model" / "m").read_text() == "1,2\n0.5"
    assert (kept / "fit.1.log").read_text() == "attempt 1\n"
    shutil.rmtree(kept.parent)
    assert place.left() == []


def test_ctrl_c_cancels_and_the_command_may_end_well(place: Place) -> None:
    place.declare("trap 'echo going; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    started = place.start()
    started.until("fit | up")
    started.press()
    assert started.end() == 130
    assert "fit | going" in started.lines
    assert started.lines[-1] == "train CANCELED, Canceled: canceled by a person"
    assert place.left() == []


def test_ctrl_c_twice_kills(place: Place) -> None:
    place.declare("trap '' TERM; echo up; while :; do sleep 0.1; done")
    started = place.start()
    started.until("fit | up")
    started.press()
    started.until("canceling: ")
    started.press()
    assert wait_for(lambda: started.process.poll() is not None, limit=8.0), "the grace is ten seconds"
    assert started.end() == 130
    assert place.left() == []


def test_what_a_killed_one_has_left_is_removed_by_the_next_and_what_lives_is_not(place: Place) -> None:
    place.declare("trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done")
    killed, living = place.start(), place.start()
    for started in (killed, living):
        started.until("fit | up")
    killed.process.kill()
    killed.end()
    before = len(place.left())
    place.declare("echo x > $UNIP_PIPELINE_MODEL/m")
    assert place.start().end() == 0
    assert len(place.left()) < before
    assert living.process.poll() is None
    living.press()
    assert living.end() == 130
    assert place.left() == []


def test_what_root_has_made_in_a_container_is_opened_up_by_one(tmp_path: Path) -> None:
    closed = tmp_path / "made" / "by-root"
    closed.mkdir(parents=True, mode=0o700)
    (closed / "file").touch(mode=0o600)
    with closing(LocalEngine(DockerSettings(), "test")) as engine:
        engine.open_up(tmp_path / "made", BASE_IMAGE)
    assert (closed.stat().st_mode & 0o777, (closed / "file").stat().st_mode & 0o777) == (0o777, 0o666)


CAREFUL = """
apiVersion: unified-platform.cs.hse.ru/v1
kind: ExperimentPipeline
metadata: {name: train}
spec:
  vars: [{name: model}]
  stages:
    - name: fit
      image: {existingImageName: IMAGE}
      command: [sh, -c, "umask 077; mkdir $UNIP_PIPELINE_MODEL/deep; echo weights > $UNIP_PIPELINE_MODEL/deep/x"]
      outputs: [{name: model}]
      resources: {memory: 64Mi}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_an_ordinary_user_gets_what_root_has_closed() -> None:
    """Most images run as root; careful programs make files that nobody else may read."""
    group = str(os.stat("/var/run/docker.sock").st_gid)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o777)
        (place / "p.yaml").write_text(CAREFUL.replace("IMAGE", BASE_IMAGE))
        somebody = ["setpriv", "--reuid", "12345", "--regid", "12345", "--groups", group]
        command = [
            sys.executable,
            "-m",
            "controller",
            "run-local",
            "p.yaml",
            "--root",
            ".",
            "--output-dir",
            "out",
        ]
        environment = {**os.environ, "HOME": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*somebody, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert (place / "out" / "model" / "deep" / "x").read_text() == "weights\n"
