"""Runs on a real engine: what stages see and make, and what goes wrong with real containers."""

from __future__ import annotations

import json

from controller.domain.apps.spec import Resources, Retries
from controller.domain.runs.pipeline import Stage
from controller.domain.runs.run import RunState
from tests.integration.runner.world import World, python
from tests.support.engines import BASE_IMAGE, MEBIBYTE
from tests.support.specs import make
from tests.support.waiting import wait_for

FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(3600)"


def test_a_trivial_run(driven: World) -> None:
    run = driven.finish(python("fit", "print('hello')"))
    assert run.state is RunState.SUCCEEDED, run
    assert driven.log(run.id) == b"hello\n"
    wait_for(lambda: not driven.containers())


def test_stages_side_by_side_meet(driven: World) -> None:
    work = "import time; open('/unip/{0}/here', 'w').close(); time.sleep(2)"
    left = python("left", work.format("a"), outputs=("a",))
    right = python("right", work.format("b"), outputs=("b",))
    last = python(
        "last", "import os; print(os.listdir('/unip/a') + os.listdir('/unip/b'))", inputs=("a", "b")
    )
    run = driven.finish(left, right, last)
    assert run.state is RunState.SUCCEEDED, run
    spans = [(s.history[2].at, s.history[-1].at) for s in (run.stage("left"), run.stage("right"))]
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)
    assert driven.log(run.id, "last") == b"['here', 'here']\n"


def test_variables_between_images_of_other_users(driven: World, other_user: str) -> None:
    """Written by one user with the narrowest of modes, read by another, read by root without its powers."""
    write = """
import os, pathlib
os.umask(0o077)
folder = pathlib.Path(os.environ["UNIP_PIPELINE_MODEL"])
(folder / "deep").mkdir()
(folder / "deep" / "weights").write_text(str(os.getuid()))
pathlib.Path(os.environ["UNIP_PROGRESS"]).write_text("1/1")
"""
    read = """
import os, pathlib, shutil
source, target = (pathlib.Path(os.environ["UNIP_PIPELINE_" + name]) for name in {names!r})
shutil.copytree(source / "deep", target / "deep")
(target / "log").write_text((target / "deep" / "weights").read_text() + f" read by {{os.getuid()}}")
try:
    (source / "x").write_text("x")
except OSError as error:
    print(error.errno)
"""
    run = driven.finish(
        python("fit", write, image=other_user, outputs=("model",)),
        python("again", read.format(names=("MODEL", "COPY")), inputs=("model",), outputs=("copy",)),
        python(
            "last", read.format(names=("COPY", "PAGE")), image=other_user, inputs=("copy",), outputs=("page",)
        ),
    )
    assert run.state is RunState.SUCCEEDED, run
    assert run.stage("fit").progress == "1/1"
    assert driven.log(run.id, "again") == b"30\n", "read-only file system"
    found = driven.stored(f"runs/{run.id}/page/")
    assert found["deep/weights"] == b"12345"
    assert found["log"] == b"12345 read by 12345"
    assert [f["name"] for f in json.loads(found[".manifest.json"])["files"]] == ["log", "deep/weights"]
    wait_for(lambda: not [p for p in (driven.settings.run_files / run.id).iterdir() if p.is_dir()])


def test_out_of_memory(driven: World) -> None:
    hungry = python("fit", "x = bytearray(10**9)", resources=make(Resources, memory=32 * MEBIBYTE))
    run = driven.finish(hungry)
    assert (run.state, run.reason) == (RunState.FAILED, "OOMKilled"), run


def test_too_slow(driven: World) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (print('no', flush=True), exit(0)))\n"
    run = driven.finish(python("fit", stubborn + FOREVER, timeout=1.0))
    assert (run.state, run.reason) == (RunState.FAILED, "Timeout"), "whatever its exit code"
    assert driven.log(run.id) == b"up\nno\n"


def test_canceled(driven: World) -> None:
    id = driven.submit(python("fit", FOREVER))
    wait_for(lambda: driven.log(id))
    driven.cancel(id)
    run = driven.until(id)
    assert run.state is RunState.CANCELED
    wait_for(lambda: not driven.containers())


def test_a_container_removed_by_hand(driven: World) -> None:
    id = driven.submit(python("fit", FOREVER))
    container = driven.container(id)
    driven.client.remove_container(container.id, force=True)
    wait_for(lambda: len(driven.run(id).stage("fit").attempts) == 2)
    assert driven.run(id).stage("fit").attempts[0].reason == "ContainerLost"
    driven.container(id)
    driven.cancel(id)
    assert driven.until(id).state is RunState.CANCELED


def test_killed_by_hand(driven: World) -> None:
    id = driven.submit(python("fit", FOREVER))
    driven.client.kill(driven.container(id).id, "SIGKILL")
    run = driven.until(id)
    assert (run.state, run.reason) == (RunState.FAILED, "ExitCode")
    assert "killed by SIGKILL" in run.message


def test_a_command_that_is_not_there(driven: World) -> None:
    run = driven.finish(make(Stage, "fit", BASE_IMAGE, command=("nothing",)))
    assert (run.state, run.reason) == (RunState.FAILED, "CommandNotFound")
    wait_for(lambda: not driven.containers())


def test_repeated_after_a_failure(driven: World) -> None:
    code = "import os; exit(int(os.environ['UNIP_ATTEMPT']) < 3)"
    run = driven.finish(python("fit", code, retries=make(Retries, limit=2, backoff=0.1)))
    assert run.state is RunState.SUCCEEDED
    assert [attempt.exit_code for attempt in run.stage("fit").attempts] == [1, 1, 0]


def test_a_link_out_of_the_output(driven: World) -> None:
    code = "import os; os.symlink('/etc/passwd', os.environ['UNIP_PIPELINE_MODEL'] + '/x')"
    run = driven.finish(python("fit", code, outputs=("model",)))
    assert (run.state, run.reason) == (RunState.FAILED, "OutputInvalid")
    assert driven.stored("") == {}


def test_links_as_trainers_make_them(driven: World) -> None:
    code = """
import os, pathlib
out = pathlib.Path(os.environ["UNIP_PIPELINE_MODEL"])
for step in (1, 2):
    (out / f"step-{step}").mkdir()
    (out / f"step-{step}" / "weights").write_text(str(step))
(out / "last").symlink_to(out / "step-2" / "weights")
(out / "latest").symlink_to("step-2")
"""
    run = driven.finish(python("fit", code, outputs=("model",)))
    assert run.state is RunState.SUCCEEDED, run
    found = driven.stored(f"runs/{run.id}/model/")
    del found[".manifest.json"]
    steps = {"step-1/weights": b"1", "step-2/weights": b"2"}
    assert found == {**steps, "last": b"2", "latest/weights": b"2"}


def test_a_log_that_is_too_long(driven: World) -> None:
    object.__setattr__(driven.settings.runs, "log_max", 2**20)
    run = driven.finish(python("fit", "for i in range(400_000): print('a line of a log', i)"))
    assert run.state is RunState.SUCCEEDED
    log = driven.log(run.id)
    assert len(log) <= 2**20
    assert log.endswith(b"[cut here: logs are kept up to 1Mi]\n")
