"""The only container of a component comes to harm under callers: they wait, and none of their calls fails that may
run twice. The periodic look for drift is far away, so that only the engine's events can help."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.engines import BASE_IMAGE, build_image
from tests.support.own_engine import available, own_engine
from tests.support.platform import ECHO, Callers, Module, Platform, Reply

NEW_NETWORK = 0x40000000  # CLONE_NEWNET of setns(2)

#: A function that ends its process once if the input says "crash", and has it OOM-killed once for any other text.
FRAGILE = ECHO.replace(
    "return {",
    """deed = (inputs or [{"data": ""}])[0]["data"]
    if deed and not os.path.exists(f"/tmp/{deed}"):
        open(f"/tmp/{deed}", "w").close()
        if deed == "crash":
            os._exit(1)
        hoard = [bytearray(10_000_000) for _ in range(100)]
    return {""",
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    quick = {"driftInterval": "1h", "backoffInitial": "100ms", "crashLimit": 100}
    running = Platform(tmp_path_factory.mktemp("platform"), reconcile=quick)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def fragile(platform: Platform) -> str:
    """An app whose calls may run twice."""
    module = Module(platform.home / "fragile")
    service = {"idempotent": True, "patience": "30s"}
    revision = module.served(FRAGILE, mlService=service).push()
    platform.connect(module, "fragile")
    platform.until_ready("fragile", revision)
    return "fragile"


def _call(deed: str) -> Callable[[Platform, str], object]:
    def act(platform: Platform, container: str) -> object:
        return platform.predict("fragile", [{"name": "text", "datatype": "str", "data": deed}]).status

    return act


DEEDS: dict[str, Callable[[Platform, str], object]] = {
    "killed": lambda platform, id: platform.docker.kill(id),
    "removed": lambda platform, id: platform.docker.remove_container(id, force=True),
    "stopped": lambda platform, id: platform.docker.stop(id, timeout=0),
    "restarted by hand": lambda platform, id: platform.docker.restart(id, timeout=0),
    "paused": lambda platform, id: platform.docker.pause(id),
    "cut off": lambda platform, id: platform.docker.disconnect_container_from_network(
        id, f"{platform.instance}.fragile"
    ),
    "its worker crashes": _call("crash"),
    "its worker is OOM-killed": _call("oom"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_no_call_fails_while_it_heals(platform: Platform, fragile: str, deed: str) -> None:
    (container,) = platform.containers(fragile, running=True)
    with Callers(platform, fragile, 2) as callers:
        platform.until(lambda: len(callers.versions) > 20)
        began = time.monotonic()
        DEEDS[deed](platform, container["Id"])
        before = len(callers.versions)
        platform.until(lambda: len(callers.versions) > before + 20)
        print(f"{deed}: {time.monotonic() - began:.2f} s")  # shown with a test that has failed
        platform.until(lambda: len(platform.containers(fragile, running=True)) == 1)
    assert callers.failures == []


#: Waits until the file `/tmp/go` is there, and writes down each run.
SLOW = ECHO.replace("import os", "import os, time").replace(
    "return {",
    """print("runs", (inputs or [{"data": ""}])[0]["data"], flush=True)
    while os.environ["VERSION"] == "1" and not os.path.exists("/tmp/go"):
        time.sleep(0.01)
    return {""",
)


def test_calls_that_wait_in_the_container_are_sent_again_and_the_one_that_runs_is_not(
    platform: Platform, module: Module, app: str
) -> None:
    revision = module.served(SLOW, mlService={"concurrency": 1, "patience": "30s"}).push()
    platform.connect(module, app)
    platform.until_ready(app, revision)
    (container,) = platform.containers(app, running=True)
    metrics = _metrics(platform, app, container["Id"])
    with ThreadPoolExecutor(10) as pool:
        running = pool.submit(_named, platform, app, "first")
        platform.until(lambda: "calls_in_flight 1" in metrics())
        waiting = [pool.submit(_named, platform, app, f"call-{number}") for number in range(9)]
        platform.until(lambda: "calls_queued 9" in metrics())
        platform.docker.kill(container["Id"])
        reply = running.result()
        assert (reply.status, reply.json["type"]) == (502, "urn:prichal:problem:component-died")
        platform.until(lambda: platform.containers(app, running=True))
        platform.until(lambda: _touch(platform, app))
        assert {each.result().status for each in waiting} == {200}


def _named(platform: Platform, app: str, name: str) -> Reply:
    return platform.predict(app, [{"name": "text", "datatype": "str", "data": name}])


def _metrics(platform: Platform, app: str, id: str) -> Callable[[], str]:
    def read() -> str:
        made = platform.docker.exec_create(
            id,
            [
                "python3",
                "-c",
                "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8002/metrics').read().decode())",
            ],
        )
        return str(platform.docker.exec_start(made["Id"]).decode())

    return read


def _touch(platform: Platform, app: str) -> bool:
    (container,) = platform.containers(app, running=True)
    made = platform.docker.exec_create(container["Id"], ["touch", "/tmp/go"])
    platform.docker.exec_start(made["Id"])
    return int(platform.docker.exec_inspect(made["Id"])["ExitCode"]) == 0


def test_what_does_not_come_back_is_told(platform: Platform, module: Module, app: str) -> None:
    """Nobody repairs it while the daemon is away; the daemon does as soon as it is back."""
    revision = module.served(ECHO, mlService={"patience": "500ms"}).push()
    platform.connect(module, app)
    platform.until_ready(app, revision)
    platform.kill("daemon")
    (container,) = platform.containers(app, running=True)
    try:
        platform.docker.kill(container["Id"])
        began = time.monotonic()
        with ThreadPoolExecutor(5) as pool:
            replies = list(pool.map(lambda _: platform.predict(app), range(5)))
        assert time.monotonic() - began >= 0.5
        assert {reply.status for reply in replies} == {503}
        assert {reply.headers["retry-after"] for reply in replies} == {"5"}
        detail = replies[0].json["detail"]
        assert f"Component model of app {app} did not take calls again within 0.5 s" in detail
    finally:
        platform.start_process("daemon")
    platform.until(lambda: platform.predict(app).status == 200)


@contextmanager
def inside(network: int) -> Iterator[None]:
    """Put this thread, and the threads and processes that it starts, into the network of another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/proc/{network}/ns/net") as other:
        assert libc.setns(other.fileno(), NEW_NETWORK) == 0
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), NEW_NETWORK) == 0


@pytest.mark.skipif(not available(), reason="needs root for an engine of its own")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_no_call_fails_while_the_engine_is_restarted(tmp_path: Path) -> None:
    with own_engine() as engine, inside(engine.network), closing(engine.client()) as client:
        engine.load(BASE_IMAGE)
        build_image(
            client, "test.local/echo:1", {"Dockerfile": f"FROM {BASE_IMAGE}\nCOPY app.py .\n", "app.py": ECHO}
        )
        platform = Platform(tmp_path, docker={"host": engine.host})
        platform.docker.close()
        platform.docker = client
        try:
            platform.start()
            module = Module(platform.home / "restarted")
            service = {"inference": "app:predict", "idempotent": True, "patience": "60s"}
            env = [{"name": "VERSION", "value": "1"}]
            module.component(
                "model", image={"existingImageName": "test.local/echo:1"}, env=env, mlService=service
            )
            revision = module.api().push()
            platform.connect(module, "restarted")
            platform.until_ready("restarted", revision)
            with Callers(platform, "restarted", 2) as callers:
                platform.until(lambda: len(callers.versions) > 20)
                engine.stop()
                before = len(callers.versions)
                engine.start()
                platform.until(lambda: len(callers.versions) > before + 20)
            assert callers.failures == []
        finally:
            platform.stop()
