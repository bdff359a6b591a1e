"""The runner's process is killed, as by `kill -9`, right before each of its calls that change anything; the next one
brings the run to its one right end.
"""

from __future__ import annotations

import signal

import pytest

from controller.domain.runs import Run, RunState
from controller.ports import JobState
from tests.integration.runner.world import World, python
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


def test_told_to_stop_it_leaves_containers_alone(world: World) -> None:
    id = world.submit(python("fit", "import time; print(1); time.sleep(3600)"), boxes=())
    process = world.process()
    wait_for(lambda: world.log(id) == b"1\n")
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert world.container(id).state is JobState.RUNNING
    assert world.run(id).state is RunState.RUNNING
