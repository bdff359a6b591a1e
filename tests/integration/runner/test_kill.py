"""The runner's process is killed, as by `kill -9`, right before each of its calls that change anything; the next one
brings the run to its one right end.
"""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from controller.domain.runs.run import Run, RunState
from controller.ports import JobState
from tests.integration.runner.world import ROOT, World, python
from tests.support.engines import BASE_IMAGE
from tests.support.waiting import wait_for

#: What a run of two stages calls, in this order: where it dies.
CALLS = (
    "fit: attempt written",
    "fit: container made",
    "fit: RUNNING written",
    "fit: container started",
    "fit: result written",
    "fit: SUCCEEDED written",
    "fit: container removed, or report: attempt written",
    "report: attempt written, or fit: container removed",
    "report: container made",
    "report: RUNNING written",
    "report: container started",
    "report: result written",
    "report: SUCCEEDED written",
    "report: container removed, or end of the run written",
    "end of the run written, or report: container removed",
)
FIT = "import os; open('/unip/model/starts', 'a').write('once '); print('fitting')"
REPORT = "print(open('/unip/model/starts').read())"


def check(world: World, run: Run) -> None:
    assert run.state is RunState.SUCCEEDED, run
    assert all(len(stage.attempts) == 1 for stage in run.stages), "nothing has run twice"
    assert world.log(run.id, "fit") == b"fitting\n"
    assert world.log(run.id, "report") == b"once \n"


@pytest.mark.parametrize("call", range(1, len(CALLS) + 1), ids=lambda number: CALLS[number - 1])
def test_killed_before_any_call(world: World, call: int) -> None:
    id = world.submit(
        python("fit", FIT, outputs=("model",)), python("report", REPORT, inputs=("model",)), boxes=()
    )
    assert world.process(str(call)).wait(timeout=60) == -signal.SIGKILL
    world.start()
    check(world, world.until(id))


def test_killed_while_a_stage_runs_and_ends(world: World) -> None:
    id = world.submit(python("fit", "import time; print(1); time.sleep(2); print(2); exit(5)"), boxes=())
    process = world.process()
    wait_for(lambda: world.log(id) == b"1\n")
    process.kill()
    process.wait()
    container = world.container(id)
    wait_for(lambda: world.jobs.find(container.name), lambda job: bool(job and job.state is JobState.ENDED))
    world.start()
    run = world.until(id)
    assert (run.state, run.stage("fit").attempts[0].exit_code) == (RunState.FAILED, 5)
    assert world.log(id) == b"1\n2\n"


def test_a_backlog_over_two_deaths(world: World) -> None:
    """At any moment, with several containers in the making, at work and ended."""
    ids = [world.submit(python("fit", f"print({number})"), boxes=()) for number in range(16)]
    for enough in (3, 9):
        process = world.process()
        wait_for(lambda enough=enough: sum(bool(world.log(id)) for id in ids) >= enough, limit=60.0)  # type: ignore[misc]
        process.kill()
        process.wait()
    assert any(not world.run(id).state.terminal for id in ids)
    world.start()
    for number, id in enumerate(ids):
        run = world.until(id)
        assert (run.state, len(run.stage("fit").attempts)) == (RunState.SUCCEEDED, 1), run
        assert world.log(id) == b"%d\n" % number


def test_as_the_user_of_the_unit(world: World, other_user: str) -> None:
    """Not root: with the capabilities that systemd/prichal-daemon.service gives, and no others."""
    unit = (ROOT / "systemd" / "prichal-daemon.service").read_text()
    given = (
        re.findall(r"^AmbientCapabilities=(.+)$", unit, re.MULTILINE)[0].lower().replace("cap_", "+").split()
    )
    user, only = "23456", ",".join(given)
    subprocess.run(["chown", "-R", f"{user}:{user}", world.settings.state.parent], check=True)
    limits = [f"--{kind}-caps=-all,{only}" for kind in ("inh", "ambient")] + [f"--bounding-set=-all,{only}"]
    write = """
import os, pathlib
os.umask(0o077)
(pathlib.Path("/unip/model") / "deep").mkdir()
(pathlib.Path("/unip/model") / "deep" / "weights").write_text(str(os.getuid()))
"""
    read = "import os; print(open('/unip/model/deep/weights').read(), os.getuid())"
    stages = [
        python(f"fit-{n}", write, image=i, outputs=("model",)) for n, i in enumerate((other_user, BASE_IMAGE))
    ]
    world.process(under=("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *limits))
    for stage, reader, said in zip(
        stages, (BASE_IMAGE, other_user), (b"12345 0\n", b"0 12345\n"), strict=True
    ):
        id = world.submit(stage, python("report", read, image=reader, inputs=("model",)), boxes=())
        run = world.until(id)
        assert run.state is RunState.SUCCEEDED, run
        assert world.log(id, "report") == said
        wait_for(lambda id=id: not _folders(world.settings.run_files / id))  # type: ignore[misc]
        assert (world.settings.run_files / id).stat().st_uid == int(user)


def _folders(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()]


def test_told_to_stop_it_leaves_containers_alone(world: World) -> None:
    id = world.submit(python("fit", "import time; print(1); time.sleep(3600)"), boxes=())
    process = world.process()
    wait_for(lambda: world.log(id) == b"1\n")
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert world.container(id).state is JobState.RUNNING
    assert world.run(id).state is RunState.RUNNING
