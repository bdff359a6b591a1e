"""What a container may and may not do, seen from inside and from the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.probe import HttpProber
from controller.config import DockerSettings
from controller.domain.apps.desired import ModelMount, Workload
from controller.domain.apps.observed import ObservedWorkload, WorkloadState
from controller.domain.apps.spec import Resources
from controller.domain.errors import Stalled
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.secret import Secret
from controller.domain.volumes import StagingArea, Volume
from tests.support.engines import (
    BASE_IMAGE,
    MEBIBYTE,
    build_image,
    name_of,
    own_server_workload,
    platform_workload,
    unique,
)
from tests.support.specs import make
from tests.support.waiting import wait_for

FUNCTION = '''
def predict(inputs):
    """Double it.

    :param inputs.x: a number
    :type inputs.x: INT32
    :param outputs.y: twice
    :type outputs.y: INT32
    """
    return {"y": 2 * inputs[0]["data"][0]}
'''


def run(engine: DockerEngine, instance: str, workload: Workload) -> ObservedWorkload:
    engine.ensure_network(workload.app)
    name = name_of(workload, instance)
    engine.start(workload, name)
    return next(w for w in engine.observe(workload.app).workloads if w.name == name)


def inside(client: docker.APIClient, workload: ObservedWorkload, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in the container."""
    task = client.exec_create(workload.id, list(command))["Id"]
    output = client.exec_start(task).decode()
    return client.exec_inspect(task)["ExitCode"], output


def python(client: docker.APIClient, workload: ObservedWorkload, code: str) -> tuple[int, str]:
    return inside(client, workload, "python3", "-c", code)


def wait_ready(workload: ObservedWorkload, path: str = "/") -> None:
    assert workload.endpoint
    endpoint = workload.endpoint
    wait_for(lambda: HttpProber().probe(endpoint, path, 5), lambda readiness: readiness.ready)


@pytest.fixture
def running(engine: DockerEngine, instance: str, app: AppName, image: str) -> ObservedWorkload:
    return run(engine, instance, own_server_workload(image, app))


def test_nothing_can_be_gained_inside(client: docker.APIClient, running: ObservedWorkload) -> None:
    _, status = inside(client, running, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert {fields[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert fields["Seccomp"] == "2"
    code, _ = inside(client, running, "test", "-e", "/var/run/docker.sock")
    assert code == 1


def test_nothing_but_scratch_is_written_and_it_goes_with_the_container(
    engine: DockerEngine, client: docker.APIClient, running: ObservedWorkload
) -> None:
    assert running.root == "read-only"
    code, said = inside(client, running, "touch", "/made")
    assert code != 0
    assert "Read-only file system" in said
    assert python(client, running, "import tempfile; tempfile.NamedTemporaryFile().write(b'x')") == (0, "")
    (volume,) = [m for m in client.inspect_container(running.id)["Mounts"] if m["Type"] == "volume"]
    assert volume["Destination"] == "/tmp"
    engine.remove(running.id, grace=0)
    with pytest.raises(docker.errors.NotFound):
        client.inspect_volume(volume["Name"])


def test_a_version_that_was_let_write_writes(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, image: str
) -> None:
    """One that runs and cannot is not taken for it, and other versions are not meant."""
    workload = own_server_workload(image, app)
    before = run(engine, instance, workload)
    engine.let_write(before, app)
    seen = run(engine, instance, workload)
    assert (seen.id == before.id, seen.root) == (False, "writable")
    assert inside(client, seen, "touch", "/made") == (0, "")
    assert run(engine, instance, workload).id == seen.id
    other = run(engine, instance, own_server_workload(image, app))
    assert other.root == "read-only"


def test_an_init_process_is_first(client: docker.APIClient, running: ObservedWorkload) -> None:
    _, command = inside(client, running, "cat", "/proc/1/comm")
    assert command.strip() in ("docker-init", "tini")


def test_limits_are_set_and_swap_is_off(client: docker.APIClient, running: ObservedWorkload) -> None:
    limits = client.inspect_container(running.id)["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 64 * MEBIBYTE
    assert limits["NanoCpus"] == 5 * 10**8
    assert limits["PidsLimit"] == 32
    assert limits["RestartPolicy"]["Name"] == "no"
    assert limits["LogConfig"]["Config"] == {"max-size": str(10 * MEBIBYTE), "max-file": "3"}
    assert not limits["PortBindings"]


def test_a_fork_bomb_meets_the_limit(client: docker.APIClient, running: ObservedWorkload) -> None:
    code, output = python(
        client,
        running,
        "import os\nfor _ in range(99):\n  if not os.fork(): os.execlp('sleep', 'sleep', '60')",
    )
    assert code == 1
    assert "BlockingIOError" in output


def test_too_much_memory_ends_in_oom(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, hog: str
) -> None:
    workload = run(engine, instance, own_server_workload(hog, app))
    seen = wait_for(lambda: engine.observe(app).workloads[0], lambda w: w.state is WorkloadState.STOPPED)
    assert seen.id == workload.id
    assert (seen.oom_killed, seen.exit_code) == (True, 137)


@pytest.fixture
def hog(client: docker.APIClient) -> Iterator[str]:
    """An image whose command wants more memory than it gets."""
    tag = f"{unique()}:1"
    command = 'CMD ["python3", "-c", "x = bytearray(10**9)"]'
    build_image(client, tag, {"Dockerfile": f"FROM {BASE_IMAGE}\n{command}\n"})
    yield tag
    client.remove_image(tag, force=True)


def test_the_host_reaches_it_and_another_app_does_not(
    engine: DockerEngine, client: docker.APIClient, instance: str, image: str, running: ObservedWorkload
) -> None:
    wait_ready(running)
    attempt = (
        "import socket, sys\n"
        f"try: socket.create_connection(('{running.address}', 8002), 2)\n"
        "except OSError: sys.exit(7)"
    )
    other = run(engine, instance, own_server_workload(image, unique("app")))
    assert python(client, other, attempt)[0] == 7
    # The attempt itself is sound: from a neighbour in the app's own network it succeeds.
    neighbour = replace(
        own_server_workload(image, AppName(running.name.split(".")[1])), component=ComponentName("neighbour")
    )
    assert python(client, run(engine, instance, neighbour), attempt) == (0, "")


def test_without_egress_calls_come_in_all_the_same(
    client: docker.APIClient, instance: str, app: AppName, image: str, tmp_path: Path
) -> None:
    """What goes out is dropped by the engine's rules for such a network."""
    with closing(DockerEngine(DockerSettings(egress="none"), instance, tmp_path)) as engine:
        workload = run(engine, instance, own_server_workload(image, app))
        wait_ready(workload)
        (network,) = client.networks(names=[network_name(instance, app)])
        assert network["Internal"]


def test_variables_reach_the_module_and_platform_ones_win(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, image: str
) -> None:
    env = (("GREETING", Secret("a=b\nc")), ("UNIP_APP", Secret("forged")))
    workload = run(engine, instance, replace(own_server_workload(image, app), env=env))
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = json.loads(python(client, workload, code)[1])
    assert (seen["GREETING"], seen["UNIP_APP"], seen["UNIP_COMPONENT"]) == ("a=b\nc", app, "web")
    assert seen["UNIP_PORT"] == "8002"


def test_logs_are_there_and_bounded(
    engine: DockerEngine, client: docker.APIClient, running: ObservedWorkload
) -> None:
    wait_ready(running)
    text = wait_for(lambda: engine.logs(running.id, tail=100), lambda t: "GET / HTTP/1.1" in t)
    assert "Serving HTTP on 0.0.0.0" in text
    assert engine.logs(running.id, tail=1).count("\n") == 1
    reader = engine.log_reader(running.id, "")
    pieces = list(reader.unread())
    assert b"GET / HTTP/1.1" in b"".join(piece for _, piece in pieces)
    assert pieces[-1][0].startswith("20")
    client.kill(running.id)
    later = b"".join(piece for _, piece in engine.log_reader(running.id, pieces[-1][0]).unread())
    assert b"Serving HTTP" not in later


@pytest.mark.parametrize(
    ("resources", "reason"),
    [(make(Resources, cpus=10_000.0), "LimitsInvalid"), (make(Resources, memory=1000), "LimitsInvalid")],
)
def test_what_the_host_cannot_give_is_said_and_leaves_nothing(
    engine: DockerEngine, instance: str, app: AppName, image: str, resources: Resources, reason: str
) -> None:
    workload = own_server_workload(image, app)
    with pytest.raises(Stalled) as caught:
        run(engine, instance, replace(workload, spec=replace(workload.spec, resources=resources)))
    assert caught.value.reason == reason
    assert engine.observe(app).workloads == ()


def test_an_image_without_a_command(engine: DockerEngine, instance: str, app: AppName, empty: str) -> None:
    with pytest.raises(Stalled) as caught:
        run(engine, instance, own_server_workload(empty, app))
    assert caught.value.reason == "NoCommand"
    assert engine.observe(app).workloads == ()


# --- served by the platform -------------------------------------------------------------------------------------


def test_the_serving_library_runs_from_its_copy(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, module: str, tmp_path: Path
) -> None:
    workload = platform_workload(module, app, "mymodule:predict")
    seen = run(engine, instance, workload)
    wait_ready(seen, "/health/ready")
    (copy,) = (tmp_path / "serving").iterdir()
    mounts = [mount for mount in client.inspect_container(seen.id)["Mounts"] if mount["Type"] == "bind"]
    assert [(m["Source"], m["Destination"], m["RW"]) for m in mounts] == [
        (str(copy), "/opt/prichal/prichal_serving", False)
    ]
    _, path = python(client, seen, "import os; print(os.environ['PYTHONPATH'])")
    assert path.strip() == "/opt/prichal:/image/lib"
    code, output = inside(client, seen, "touch", "/opt/prichal/prichal_serving/x")
    assert code != 0, output


def test_the_model_is_read_under_its_own_name_by_any_user_and_cannot_be_changed(
    engine: DockerEngine, client: docker.APIClient, instance: str, app: AppName, module: str, tmp_path: Path
) -> None:
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "weights.json").write_text("[1, 2]")
    workload = platform_workload(module, app, "mymodule:predict")
    model = ModelMount(Volume(StagingArea.MODELS, ("abc",)), "weights.json")
    seen = run(engine, instance, replace(workload, model=model))
    wait_ready(seen, "/health/ready")
    read = "import os; print(open(os.environ['UNIP_MODEL_PATH']).read())"
    task = client.exec_create(seen.id, ["python3", "-c", read], user="4711:4711")["Id"]
    tmp_path.chmod(0o755)
    assert client.exec_start(task).decode() == "[1, 2]\n"
    code, _ = inside(client, seen, "touch", "/opt/prichal/model/weights.json")
    assert code != 0


def test_a_copy_that_was_cleaned_away_is_made_again(
    engine: DockerEngine, instance: str, app: AppName, module: str, tmp_path: Path
) -> None:
    first = run(engine, instance, platform_workload(module, app, "mymodule:predict"))
    engine.remove(first.id, grace=0)
    (copy,) = (tmp_path / "serving").iterdir()
    copy.rename(tmp_path / "gone")
    seen = run(engine, instance, platform_workload(module, app, "mymodule:predict"))
    wait_ready(seen, "/health/ready")


def test_an_image_without_python(engine: DockerEngine, instance: str, app: AppName, empty: str) -> None:
    with pytest.raises(Stalled, match="server: own") as caught:
        run(engine, instance, platform_workload(empty, app, "mymodule:predict"))
    assert caught.value.reason == "NoPython"
    assert engine.observe(app).workloads == ()


@pytest.fixture(scope="module")
def module(client: docker.APIClient) -> Iterator[str]:
    """An image with an inference function, a path of its own for Python, and an ENTRYPOINT that must not run."""
    tag = f"{unique()}:1"
    dockerfile = (
        f"FROM {BASE_IMAGE}\nCOPY mymodule.py /image/lib/\nENV PYTHONPATH=/image/lib\n"
        'ENTRYPOINT ["false"]\nCMD ["never"]\n'
    )
    build_image(client, tag, {"Dockerfile": dockerfile, "mymodule.py": FUNCTION})
    yield tag
    client.remove_image(tag, force=True)


@pytest.fixture(scope="module")
def empty(client: docker.APIClient) -> Iterator[str]:
    """An image of one text file."""
    tag = f"{unique()}:1"
    build_image(client, tag, {"Dockerfile": "FROM scratch\nCOPY a.txt /\n", "a.txt": "a"})
    yield tag
    with suppress(docker.errors.NotFound):
        client.remove_image(tag, force=True)
