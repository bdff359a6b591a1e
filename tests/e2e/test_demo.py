"""`make demo`: it ends well, loses no call, and leaves nothing behind, even when it is ended in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from controller.domain import labels
from tests.support.pages import ROOT
from tests.support.waiting import wait_for


@contextmanager
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, with its output in `output` and all its files in `state`, both in `tmp_path`."""
    state = tmp_path / "state"
    state.mkdir()
    environment = {**os.environ, "DEMO_EXIT": "1", "TMPDIR": str(state), "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "examples/demo.py"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        sweep(f"demo-{process.pid}")


def sweep(instance: str) -> None:
    """For a demo that has failed to clean up, which a test has noticed by then."""
    client = docker.APIClient()
    for container in client.containers(all=True, filters=of(instance)):
        client.remove_container(container["Id"], force=True, v=True)
    for network in client.networks(filters=of(instance)):
        client.remove_network(network["Id"])
    for image in client.images(filters={"reference": f"{instance}.local/*/*"}):
        client.remove_image(image["Id"], force=True)
    client.close()


def of(instance: str) -> dict[str, str]:
    return {"label": f"{labels.INSTANCE}={instance}"}


def left_behind(process: subprocess.Popen[str], tmp_path: Path) -> list[object]:
    client, instance = docker.APIClient(), f"demo-{process.pid}"
    try:
        return [
            *client.containers(all=True, filters=of(instance)),
            *client.networks(filters=of(instance)),
            *client.images(filters={"reference": f"{instance}.local/*/*"}),
            *(tmp_path / "state").glob("prichal-demo-*"),
        ]
    finally:
        client.close()


def test_it_ends_well_and_no_call_fails(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        code = process.wait(100)
        output = (tmp_path / "output").read_text()
        assert code == 0, output
        assert "calls that failed: 0\n" in output
        answers = re.search(r"answers while it rolled out: \{'red': (\d+), 'crimson': (\d+)\}", output)
        assert answers, output
        assert all(int(count) > 0 for count in answers.groups())
        assert "crimson    4 ####\n" in output, output  # the report of the run
        assert left_behind(process, tmp_path) == []


def test_ended_in_the_middle_it_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_for(
            lambda: "-> 200" in (tmp_path / "output").read_text(), limit=100
        )  # deployed, and called once
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, (tmp_path / "output").read_text()
        assert left_behind(process, tmp_path) == []
