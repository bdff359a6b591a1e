"""Jobs on a real engine: what their containers may do, faults, and that the rest of prichal leaves them alone."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine, DockerJobs
from controller.adapters.docker.job_log import CUT, LOST, MISSING
from controller.adapters.docker.job_mapping import LOG_FILES
from controller.adapters.staging import StagingFolders
from controller.config import DockerSettings
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.observed import ObservedApp
from controller.domain.apps.spec import BuildImage, Resources
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.volumes import StagingArea, Volume
from controller.ports import EngineEvent, Job, JobMount, JobState, ObservedJob
from tests.support.engines import (
    BASE_IMAGE,
    MEBIBYTE,
    build_image,
    context_of,
    name_of,
    own_server_workload,
    unique,
)
from tests.support.scripted_container import ScriptedContainers
from tests.support.specs import make
from tests.support.waiting import wait_for


def never() -> bool:
    return False


@pytest.fixture
def staging(tmp_path: Path) -> StagingFolders:
    return StagingFolders({StagingArea.RUNS: tmp_path})


@pytest.fixture
def jobs(instance: str, staging: StagingFolders) -> Iterator[DockerJobs]:
    # Small files, so that logs are rotated.
    with closing(DockerJobs(DockerSettings(log_max_size=4 * MEBIBYTE), instance, staging)) as jobs:
        yield jobs


@pytest.fixture
def puppets(tmp_path: Path, instance: str) -> ScriptedContainers:
    return ScriptedContainers(tmp_path, instance)


def python(job: Job, code: str, memory: int = 64 * MEBIBYTE) -> Job:
    """The same job with another program."""
    return replace(
        job, command=("python3", "-c", code), resources=make(Resources, cpus=2, memory=memory, pids=16)
    )


def begun(jobs: DockerJobs, job: Job) -> ObservedJob:
    made = jobs.create(job)
    jobs.start(made.id)
    return made


def result(jobs: DockerJobs, job: Job) -> tuple[int | None, bytes]:
    """Exit code and log of a job that is run to its end."""
    made = begun(jobs, job)
    log = b"".join(content for _, content in jobs.logs(made.id, "", never))
    seen = jobs.wait(made.id, never)
    assert seen
    return seen.exit_code, log


# --- containers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def other_user(client: docker.APIClient) -> Iterator[str]:
    """An image that runs as a user who is nobody on the host."""
    tag = f"{unique()}:1"
    build_image(client, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\nUSER 4711:4711\n"})
    yield tag
    client.remove_image(tag, force=True)


def test_another_user_writes_into_an_output(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName, tmp_path: Path, other_user: str
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "data").write_text("21")
    target.mkdir()
    target.chmod(0o777)
    mounts = (
        JobMount(Volume(StagingArea.RUNS, ("in",)), "/unip/in", read_only=True),
        JobMount(Volume(StagingArea.RUNS, ("out",)), "/unip/out", read_only=False),
    )
    code = (
        "import os\n"
        "open('/unip/out/model', 'w').write(str(2 * int(open('/unip/in/data').read())))\n"
        "try: open('/unip/in/data', 'w')\n"
        "except OSError as error: print(os.getuid(), type(error).__name__, error.errno)\n"
    )
    job = replace(python(puppets.job(app), code), image=other_user, mounts=mounts)
    code_, log = result(jobs, job)
    assert (code_, log) == (0, b"4711 OSError 30\n")  # a read-only file system
    assert (target / "model").read_text() == "42"
    assert (target / "model").stat().st_uid == 4711


def test_limits_are_in_force(
    jobs: DockerJobs, client: docker.APIClient, puppets: ScriptedContainers, app: AppName
) -> None:
    limits = make(Resources, cpus=0.5, memory=48 * MEBIBYTE, pids=20)
    made = jobs.create(replace(puppets.job(app), resources=limits))
    host = client.inspect_container(made.id)["HostConfig"]
    memory = (host["Memory"], host["MemorySwap"], host["ShmSize"])
    assert memory == (48 * MEBIBYTE,) * 3
    assert (host["NanoCpus"], host["PidsLimit"]) == (5 * 10**8, 20)
    shared = jobs.create(replace(puppets.job(app, "shared"), resources=replace(limits, shm=16 * MEBIBYTE)))
    assert client.inspect_container(shared.id)["HostConfig"]["ShmSize"] == 16 * MEBIBYTE


def test_threads_beyond_the_limit_are_refused(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    code = (
        "import threading\n"
        "up = threading.Event()\n"
        "try:\n"
        "    for n in range(100): threading.Thread(target=up.wait, daemon=True).start()\n"
        "except RuntimeError: print(n < 16)\n"
        "up.set()\n"
    )
    assert result(jobs, python(puppets.job(app), code)) == (0, b"True\n")


def test_gpus_that_the_host_has_not(
    jobs: DockerJobs, client: docker.APIClient, puppets: ScriptedContainers, app: AppName
) -> None:
    wanted = replace(puppets.job(app), resources=make(Resources, gpus=2), gpus=("0", "GPU-b"))
    made = jobs.create(wanted)
    (asked,) = client.inspect_container(made.id)["HostConfig"]["DeviceRequests"]
    assert (asked["DeviceIDs"], asked["Count"]) == (["0", "GPU-b"], 0)
    if "nvidia" in client.info()["Runtimes"]:
        pytest.skip("this host may have them")
    with pytest.raises(Stalled) as caught:
        jobs.start(made.id)
    assert caught.value.reason == "NoGpu"
    assert "`runs.gpus`" in caught.value.message


def test_a_folder_that_is_gone(jobs: DockerJobs, puppets: ScriptedContainers, app: AppName) -> None:
    gone = Volume(StagingArea.RUNS, ("gone",))
    job = replace(puppets.job(app), mounts=(JobMount(gone, "/unip/in", read_only=True),))
    with pytest.raises(Transient, match="gone") as caught:
        jobs.create(job)
    assert caught.value.reason == "MountGone"
    assert jobs.all() == ()


def test_a_link_is_not_mounted(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    link = Volume(StagingArea.RUNS, ("link",))
    with pytest.raises(Stalled, match="link") as caught:
        jobs.create(replace(puppets.job(app), mounts=(JobMount(link, "/unip/in", read_only=True),)))
    assert caught.value.reason == "PathRefused"
    assert jobs.all() == ()


def test_a_network_that_is_gone_is_made_again(
    jobs: DockerJobs, engine: DockerEngine, puppets: ScriptedContainers, app: AppName
) -> None:
    made = jobs.create(puppets.job(app))
    engine.remove_network(app)
    jobs.start(made.id)
    assert engine.observe(app).network
    seen = jobs.find(made.name)
    assert seen
    assert seen.state is JobState.RUNNING


def test_a_command_by_its_path(jobs: DockerJobs, puppets: ScriptedContainers, app: AppName) -> None:
    job = replace(puppets.job(app), command=("/usr/bin/env", "echo", "found"))
    assert result(jobs, job) == (0, b"found\n")


def test_it_ends_before_anybody_looks(
    jobs: DockerJobs, client: docker.APIClient, puppets: ScriptedContainers, app: AppName
) -> None:
    made = begun(jobs, python(puppets.job(app), "print('done'); raise SystemExit(9)"))
    client.wait(made.id)
    seen = jobs.wait(made.id, never)
    assert seen
    assert seen.exit_code == 9
    assert [content for _, content in jobs.logs(made.id, "", never)] == [b"done\n"]


# --- the rest of prichal ----------------------------------------------------------------------------------------


def test_the_engine_takes_no_job_for_a_workload(
    jobs: DockerJobs,
    engine: DockerEngine,
    instance: str,
    image: str,
    puppets: ScriptedContainers,
    app: AppName,
) -> None:
    stop = threading.Event()
    events: list[EngineEvent] = []
    by_hand = docker.APIClient()  # what the engine itself removes is no event

    def watch() -> None:
        for event in engine.watch(stop.is_set):
            events.append(event)  # noqa: PERF402 - one by one: they are looked at meanwhile

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    workload = own_server_workload(image, app)
    try:
        while not events:  # a job's end before each workload's, until the watcher has begun to see
            made = begun(jobs, puppets.job(app))
            assert engine.observe(app) == ObservedApp(app, network=True)
            jobs.remove(made.id)
            engine.start(workload, name_of(workload, instance))
            (running,) = engine.observe(app).workloads
            by_hand.remove_container(running.id, force=True)
        wait_for(lambda: events[-1].action == "destroy")
    finally:
        stop.set()
        by_hand.close()
        watcher.join(timeout=30)
    assert {event.component for event in events} == {workload.component}


def test_a_workload_is_no_job(
    jobs: DockerJobs, engine: DockerEngine, instance: str, image: str, app: AppName
) -> None:
    workload = own_server_workload(image, app)
    engine.ensure_network(app)
    engine.start(workload, name_of(workload, instance))
    assert jobs.all() == ()
    assert jobs.find(name_of(workload, instance)) is None


def test_an_image_that_a_job_uses_stays(
    jobs: DockerJobs, engine: DockerEngine, instance: str, puppets: ScriptedContainers, app: AppName
) -> None:
    source = make(BuildImage, ".")
    tags = [f"{instance}.local/{app}/train:{number}" for number in range(3)]
    for tag in tags:
        context = context_of({"Dockerfile": f"FROM {BASE_IMAGE}\nENV TAG={tag}\n"})
        engine.build(tag, BuildInput("c0ffee", source), context, lambda _: None)
    jobs.create(replace(puppets.job(app), image=engine.pin(source, tags[0], ()).deploy))
    engine.prune_images(app, keep=0)
    assert [engine.pin(source, tag, ()).present for tag in tags] == [True, False, False]


# --- stopping ---------------------------------------------------------------------------------------------------


def test_stop_is_heard_soon_and_leaves_nothing_behind(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    made = begun(jobs, puppets.job(app))
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    rounds = 6
    for _ in range(rounds):
        stop = threading.Event()
        ended: list[float] = []

        def read(stop: threading.Event = stop, ended: list[float] = ended) -> None:
            assert list(jobs.logs(made.id, "", stop.is_set)) == []
            ended.append(time.monotonic())

        def wait(stop: threading.Event = stop, ended: list[float] = ended) -> None:
            assert jobs.wait(made.id, stop.is_set) is None
            ended.append(time.monotonic())

        workers = [threading.Thread(target=work, daemon=True) for work in (read, wait)]
        for worker in workers:
            worker.start()
        wait_for(lambda: len(os.listdir("/proc/self/fd")) >= descriptors + 2)  # both are at it, about
        asked = time.monotonic()
        stop.set()
        for worker in workers:
            worker.join(30)
        assert len(ended) == 2
        assert max(ended) - asked < 5  # it is half a second; the rest is for a busy machine
    assert threading.active_count() == threads
    # One a round would be a leak; the pool keeps as many as there were calls at once.
    wait_for(lambda: len(os.listdir("/proc/self/fd")) < descriptors + rounds)
    assert [job.state for job in jobs.all()] == [JobState.RUNNING]


# --- logs -------------------------------------------------------------------------------------------------------

LINES = 36_000
WHEN_TOLD = """
import os, time
print("ready", flush=True)
while not os.path.getsize("/orders/list"): time.sleep(0.01)
"""


def test_a_log_longer_than_what_the_engine_keeps(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    """Its files hold the half of it. A line that the engine could not write, as has happened on a busy machine, is told
    behind the end; that happens seldom, and once more is enough to see all lines."""
    lost = 0
    for _ in range(3):
        lost, told, peak = _read_all(jobs, puppets, app)
        assert peak < 8 * MEBIBYTE
        assert told == ([MISSING[:-1] % lost] if lost else [])
        if not lost:
            return
    raise AssertionError(f"{lost} lines were lost the third time")


def _read_all(jobs: DockerJobs, puppets: ScriptedContainers, app: AppName) -> tuple[int, list[bytes], int]:
    """How many lines did not come, what was said instead, and the peak of our memory."""
    job = python(puppets.job(app), WHEN_TOLD + f"for number in range({LINES}): print(f'{{number:04199d}}')")
    made = begun(jobs, job)
    reader = jobs.logs(made.id, "", never)
    assert next(reader)[1] == b"ready\n"
    puppets.exit(job.name, 0)
    number, last, rest = 0, -1, b""
    others: list[bytes] = []
    tracemalloc.start()
    try:
        for _, content in reader:
            *lines, rest = (rest + content).split(b"\n")
            others += [line for line in lines if len(line) != 4199]
            numbers = [int(line) for line in lines if len(line) == 4199]
            assert numbers == sorted({*numbers})
            assert not numbers or numbers[0] > last
            number, last = number + len(numbers), numbers[-1] if numbers else last
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rest == b""
    return LINES - number, others, peak


def test_what_was_lost_while_nobody_read_is_told(
    jobs: DockerJobs, client: docker.APIClient, puppets: ScriptedContainers, app: AppName
) -> None:
    job = puppets.job(app)
    made = begun(jobs, job)
    puppets.say(job.name, b"first\n")
    with closing(jobs.logs(made.id, "", never)) as reader:  # type: ignore[type-var]
        place, first = next(reader)
    assert first == b"first\n"
    for _ in range(LOG_FILES * 5):
        puppets.say(job.name, 100 * (9_999 * b"x" + b"\n"))
    puppets.say(job.name, b"last\n")
    puppets.exit(job.name, 0)
    client.wait(made.id)
    log = b"".join(content for _, content in jobs.logs(made.id, place, never))
    assert log.startswith(LOST + b"xxx")
    assert log.endswith(b"x\nlast\n")
    assert b"first" not in log


def test_an_endless_line_is_cut(jobs: DockerJobs, puppets: ScriptedContainers, app: AppName) -> None:
    code = "import sys\nfor _ in range(120): sys.stdout.write('x' * 100_000)\nprint()\nprint('after')"
    exit_code, log = result(jobs, python(puppets.job(app), code))
    assert (exit_code, log) == (0, 2**20 * b"x" + CUT + b"after\n")


BAR = """
import os, time
for number in range(200):
    os.write(2, b"\\r%9d of many" % number)
    time.sleep(0.001)
while not os.path.getsize("/orders/list"): time.sleep(0.01)
os.write(2, b"\\nafter\\n")
"""


def test_a_progress_bar_is_seen_while_it_goes_on(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    job = python(puppets.job(app), BAR)
    made = begun(jobs, job)
    text = b""
    for _, content in jobs.logs(made.id, "", never):
        text += content
        if text.endswith(b"      199 of many"):
            break
    puppets.exit(job.name, 0)
    assert text.count(b"\r") == 200


def test_what_was_seen_of_a_bar_comes_once_over_a_death(
    jobs: DockerJobs, instance: str, puppets: ScriptedContainers, app: AppName
) -> None:
    job = python(puppets.job(app), BAR)
    made = begun(jobs, job)
    with closing(jobs.logs(made.id, "", never)) as reader:  # type: ignore[type-var]
        place, text = next(reader)
    puppets.exit(job.name, 0)
    with closing(DockerJobs(DockerSettings(), instance)) as others:
        text += b"".join(content for _, content in others.logs(made.id, place, never))
    whole = b"".join(content for _, content in jobs.logs(made.id, "", never))
    assert text == whole
    assert whole.endswith(b" of many\nafter\n")


def test_nothing_is_lost_of_very_many_short_lines(
    instance: str, staging: StagingFolders, puppets: ScriptedContainers, app: AppName
) -> None:
    """The engine's log of them takes 70 times the room, and they come faster than they are read."""
    code = WHEN_TOLD + "import sys\nsys.stdout.write('\\n' * 1_000_000)"
    job = python(puppets.job(app), code)
    with closing(DockerJobs(DockerSettings(), instance, staging)) as jobs:
        made = begun(jobs, job)
        reader = jobs.logs(made.id, "", never)
        assert next(reader)[1] == b"ready\n"
        puppets.exit(job.name, 0)
        text = b"".join(content for _, content in reader)
    assert (text.strip(b"\n"), len(text)) == (b"", 1_000_000)


def test_a_container_whose_log_nobody_reads_is_stopped(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    """It fills all buffers on the way, and waits."""
    job = python(puppets.job(app), "while True: print('x' * 1000)")
    made = begun(jobs, job)
    jobs.stop(made.id, grace=1.0)
    seen = jobs.wait(made.id, never)
    assert seen
    jobs.remove(made.id)
    assert jobs.find(job.name) is None


def test_a_container_that_closes_its_output_runs_on(
    jobs: DockerJobs, puppets: ScriptedContainers, app: AppName
) -> None:
    closed = WHEN_TOLD.replace("while", "os.close(1); os.close(2)\nwhile")
    job = python(puppets.job(app), closed + "os._exit(5)")
    made = begun(jobs, job)
    reader = jobs.logs(made.id, "", never)
    assert next(reader)[1] == b"ready\n"
    puppets.exit(job.name, 0)
    assert list(reader) == []
    seen = jobs.wait(made.id, never)
    assert seen
    assert seen.exit_code == 5
