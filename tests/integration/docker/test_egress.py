"""What containers reach of the host, of private networks and of the internet, seen from inside.

The engine is one of the test's own, in a network of its own. A second one is the world: it has an address of each kind,
and somebody listens at all of them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from controller.adapters.docker import DockerEngine
from controller.adapters.docker.connection import EngineConnection
from controller.adapters.docker.egress import Egress
from controller.adapters.docker.host_programs import empty_archive
from controller.adapters.docker.networks import Networks
from controller.config import DockerSettings
from controller.domain import labels
from controller.domain.apps.desired import BuildInput
from controller.domain.apps.spec import BuildImage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName, network_name
from tests.integration.docker.test_containers import python, run
from tests.support.engines import BASE_IMAGE, cleaned, context_of, own_server_workload, unique
from tests.support.own_engine import OwnEngine, available, own_engine
from tests.support.specs import make
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    not available() or not shutil.which("ip") or not shutil.which("iptables"),
    reason="needs root, ip and iptables for an engine of its own",
)

PORT = 7777
#: Of the world, with the policies under which it is reached.
WORLD = {
    "203.0.113.9": {"open", "all", "internet"},
    "10.9.9.9": {"open", "all"},
    "100.64.9.9": {"open", "all"},
    "192.168.9.9": {"open", "all"},
    "169.254.169.254": {"open"},
}
#: Of the host itself: an address like any other one, and one of its link.
HOST = {"198.51.100.1": {"open"}, "169.254.7.7": {"open"}}
LISTENS = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
while True:
    server.accept()[0].close()
"""
TRIES = """
import json, socket
def reached(address):
    try:
        socket.create_connection((address, {port}), 3).close()
    except OSError:
        return False
    return True
print(json.dumps([a for a in {addresses!r} if reached(a)]))
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(firewall=True) as made, World(made):
        made.load(BASE_IMAGE)
        yield made


class World:
    """A second network, joined to the engine's by a cable."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> None:
        engine = self._engine
        self._processes.append(subprocess.Popen(["unshare", "--net", "sleep", "infinity"]))
        world = self._processes[0].pid
        wait_for(lambda: Path(f"/proc/{world}/ns/net").readlink() != Path("/proc/self/ns/net").readlink())
        for command in (
            f"ip link add cable type veth peer name cable netns {world}",
            "ip addr add 198.51.100.1/24 dev cable",
            "ip addr add 169.254.7.7/32 dev lo",
            "ip link set cable up",
            f"nsenter --net=/proc/{world}/ns/net ip addr add 198.51.100.2/24 dev cable",
            f"nsenter --net=/proc/{world}/ns/net ip link set cable up",
            f"nsenter --net=/proc/{world}/ns/net ip link set lo up",
            "ip route add default via 198.51.100.2",
        ):
            done = engine.inside(*command.split())
            assert done.returncode == 0, (command, done.stderr)
        for address in WORLD:
            command = f"nsenter --net=/proc/{world}/ns/net ip addr add {address}/32 dev lo"
            subprocess.run(command.split(), check=True)
        for pid in (world, engine.network):
            listening = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", LISTENS]
            self._processes.append(subprocess.Popen(listening))
        for address in (*WORLD, *HOST):
            probe = f"import socket; socket.create_connection(('{address}', {PORT}), 3)"
            wait_for(lambda: engine.inside(sys.executable, "-c", probe).returncode == 0)  # noqa: B023

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def client(engine: OwnEngine) -> Iterator[docker.APIClient]:
    with closing(engine.client()) as client:
        yield client


@pytest.fixture
def instance(client: docker.APIClient) -> Iterator[str]:
    name = unique()
    with cleaned(client, name):
        yield name


def seen(
    engine: OwnEngine, client: docker.APIClient, instance: str, folder: Path, settings: DockerSettings
) -> set[str]:
    """What a container reaches; `bridge` is the host, as the container's gateway."""
    app = AppName("app")
    with closing(DockerEngine(settings, instance, folder)) as ours:
        workload = run(ours, instance, own_server_workload(server(client), app))
        (network,) = client.networks(names=[network_name(instance, app)])
        bridge = network["IPAM"]["Config"][0]["Gateway"]
        code = TRIES.format(port=PORT, addresses=[*WORLD, *HOST, bridge])
        status, output = python(client, workload, code)
    assert status == 0, output
    return {"bridge" if address == bridge else address for address in json.loads(output)}


def server(client: docker.APIClient) -> str:
    """An image that only waits."""
    tag = "waits:1"
    if not client.images(tag):
        changes = ['CMD ["sleep", "infinity"]']
        made = client.create_container(BASE_IMAGE, "true")
        try:
            client.commit(made, "waits", "1", changes=changes)
        finally:
            client.remove_container(made)
    return tag


@pytest.mark.parametrize("policy", ["open", "all", "internet", "none"])
def test_what_each_policy_reaches(
    engine: OwnEngine, client: docker.APIClient, instance: str, tmp_path: Path, policy: str
) -> None:
    expected = {a for a, policies in (WORLD | HOST | {"bridge": {"open"}}).items() if policy in policies}
    settings = DockerSettings(host=engine.host, egress=policy)
    assert seen(engine, client, instance, tmp_path, settings) == expected


def test_what_is_let_through_besides(
    engine: OwnEngine, client: docker.APIClient, instance: str, tmp_path: Path
) -> None:
    """Of a private network, and of this host one port at one address, as `storage.containerUrl` names it. What other
    instances let through is not meant, nor what this one has let through before."""
    for name, address in ((instance, "169.254.169.254"), (unique(), "10.9.9.9")):
        settings = DockerSettings(host=engine.host, egress="internet", egress_allow=(address,))
        with closing(EngineConnection(engine.host, 10.0)) as connection:
            Egress(connection, settings, name).hold()
    allowed = ("192.168.0.0/16", f"http://198.51.100.1:{PORT}", "169.254.7.7:80")
    settings = DockerSettings(host=engine.host, egress="internet", egress_allow=allowed)
    assert seen(engine, client, instance, tmp_path, settings) == {
        "203.0.113.9",
        "192.168.9.9",
        "198.51.100.1",
    }


def test_neighbours_of_an_app_reach_each_other_and_the_host_reaches_them(
    engine: OwnEngine, client: docker.APIClient, instance: str, tmp_path: Path
) -> None:
    settings = DockerSettings(host=engine.host, egress="internet")
    with closing(DockerEngine(settings, instance, tmp_path)) as ours:
        workload = run(ours, instance, own_server_workload(server(client), "app"))
        neighbour = run(ours, instance, own_server_workload(server(client), "app", "other"))
        assert workload.address
        task = client.exec_create(workload.id, ["python3", "-c", LISTENS])["Id"]
        client.exec_start(task, detach=True)
        probe = f"import socket; socket.create_connection(('{workload.address}', {PORT}), 3)"
        wait_for(lambda: engine.inside(sys.executable, "-c", probe).returncode == 0)
        assert python(client, neighbour, probe) == (0, "")


def test_steps_of_builds_reach_no_more(engine: OwnEngine, instance: str, tmp_path: Path) -> None:
    code = TRIES.format(port=PORT, addresses=[*WORLD, *HOST])
    files = {
        "Dockerfile": f"FROM {BASE_IMAGE}\nCOPY tries.py /\nRUN python3 /tries.py && exit 1\n",
        "tries.py": code,
    }
    for policy, reached in (("all", "all"), ("none", "internet")):
        settings = DockerSettings(host=engine.host, egress=policy)
        build = BuildInput("", make(BuildImage, "."))
        with (
            closing(DockerEngine(settings, instance, tmp_path)) as ours,
            pytest.raises(Stalled) as caught,
        ):
            ours.build(f"{instance}.local/app/build:1", build, context_of(files), lambda line: None)
        (line,) = re.findall(r"^\[.*\]$", caught.value.message, re.MULTILINE)
        assert set(json.loads(line)) == {a for a, policies in WORLD.items() if reached in policies}


def test_an_empty_network_is_made_again_for_another_policy(
    engine: OwnEngine, client: docker.APIClient, instance: str, tmp_path: Path
) -> None:
    app = AppName("app")
    with closing(DockerEngine(DockerSettings(host=engine.host, egress="open"), instance, tmp_path)) as ours:
        workload = run(ours, instance, own_server_workload(server(client), app))
    settings = DockerSettings(host=engine.host, egress="none")
    with (
        closing(DockerEngine(settings, instance, tmp_path)) as ours,
        closing(EngineConnection(engine.host, 10.0)) as connection,
    ):
        networks = Networks(connection, instance, Egress(connection, settings, instance))
        ours.ensure_network(app)  # which a container is in
        assert networks.stale() == {app}
        ours.remove(workload.id, grace=0)
        ours.ensure_network(app)
        assert networks.stale() == frozenset()
        (network,) = client.networks(names=[network_name(instance, app)])
        assert network["Internal"]


def test_rules_are_missed_and_removed_as_the_documentation_says(engine: OwnEngine, instance: str) -> None:
    """Whatever engine and daemon have done before: bringing them in twice is bringing them in once."""
    root = Path(__file__).parents[3]
    text = (root / "docs/install.md").read_text()
    (removal,) = re.findall(r"```sh\n(for ipt in .*?)```", text, re.DOTALL)
    with closing(EngineConnection(engine.host, 10.0)) as connection:
        first, again = (
            Egress(connection, DockerSettings(host=engine.host, egress_allow=(address,)), instance)
            for address in ("10.1.1.1", "10.1.1.2")
        )
        first.hold()
        before = engine.inside("iptables", "-S").stdout.replace("10.1.1.1", "10.1.1.2")
        again.hold()
        assert engine.inside("iptables", "-S").stdout == before
        again.check()
        done = engine.inside("sh", "-c", removal)
        assert done.returncode == 0, done.stderr
        for command in ("iptables", "ip6tables"):
            assert "PRICHAL" not in engine.inside(command, "-S").stdout
        with pytest.raises(Transient, match="no rule of ours"):
            again.check()
    with closing(engine.client()) as client:
        assert not client.containers(all=True)
        assert not client.images(filters={"dangling": True})


def test_what_a_killed_daemon_has_left_is_collected(
    engine: OwnEngine, client: docker.APIClient, instance: str, tmp_path: Path
) -> None:
    """It died between starting the container that sets the firewall and removing it."""
    settings = DockerSettings(host=engine.host)
    with (
        closing(EngineConnection(engine.host, 10.0)) as connection,
        closing(DockerEngine(settings, instance, tmp_path)) as ours,
    ):
        left = Egress(connection, settings, instance)
        image = client.import_image_from_data(
            empty_archive(), changes=[f"LABEL {labels.BUILT_BY}={instance}"]
        )
        image = image.split('"status":"')[-1].split('"')[0]
        config = left._config(image, "true")
        made = client.create_container_from_config(config)["Id"]  # type: ignore[no-untyped-call]
        client.start(made)
        wait_for(lambda: client.inspect_container(made)["State"]["Status"] == "exited")
        ours.collect_builds(3600.0)
        assert client.inspect_container(made), "it may still be at work"
        ours.collect_builds(0.0)
    assert client.containers(all=True, filters={"label": f"{labels.FIREWALL}={instance}"}) == []
    assert client.images(filters={"label": f"{labels.BUILT_BY}={instance}"}) == []
