"""`FakeEngine`: the port `Engine` in memory, for tests of the core. Held to `tests/contract/engine_contract.py` like
the real one. Scripted through its public attributes and the methods under "script"; no call takes any time.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from controller.domain.apps.desired import BuildInput, ModelMount, Workload
from controller.domain.apps.observed import (
    ImageOrigin,
    ImagePin,
    ImageUse,
    LoggedContainer,
    ObservedApp,
    ObservedWorkload,
    ScratchUse,
    WorkloadState,
    WorkloadUse,
)
from controller.domain.apps.spec import BuildImage, ImageSource, Registry, SecretSpec
from controller.domain.errors import ControllerError, Stalled, Superseded, Transient
from controller.domain.names import AppName, ComponentName, network_name
from controller.domain.reasons import Reason
from controller.domain.runs.gpus import Lease
from controller.domain.volumes import Volume
from controller.ports import BuildContext, EngineEvent

Registries = tuple[tuple[Registry, SecretSpec | None], ...]


@dataclass
class FakeContainer:
    """`app` is None for a foreign container."""

    app: AppName | None
    seen: ObservedWorkload
    image: str = ""
    model: ModelMount | None = None
    logs: list[str] = field(default_factory=list)
    written: int = 0
    cpu: float = 0.0
    memory: float = 0.0


class FakeContainers(dict[str, FakeContainer]):
    """By id. Those of an app are found without a look at all of them, as an engine finds them by their labels."""

    def __init__(self) -> None:
        super().__init__()
        self._of: defaultdict[AppName | None, set[str]] = defaultdict(set)

    def __setitem__(self, id: str, container: FakeContainer) -> None:
        super().__setitem__(id, container)
        self._of[container.app].add(id)

    def __delitem__(self, id: str) -> None:
        self._of[self[id].app].discard(id)
        super().__delitem__(id)

    def of(self, app: AppName) -> Iterator[FakeContainer]:
        return (self[id] for id in self._of[app])


class FakeLogReader:
    """Positions count lines."""

    def __init__(self, engine: FakeEngine, workload_id: str, position: int) -> None:
        self._engine = engine
        self._id = workload_id
        self._position = position

    def unread(self) -> Iterator[tuple[str, bytes]]:
        for line in self._engine.lines_after(self._id, self._position):
            self._position += 1
            yield f"2026-01-31T12:00:00.000Z/1/{self._position}", f"{line}\n".encode()


def image_id(tag: str) -> str:
    """Of what `FakeEngine.build` makes."""
    return f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"


class FakeEngine:
    """Thread-safe. `images` are those on the host, `registry` maps references to digests."""

    def __init__(
        self, instance: str = "prichal", images: Iterable[str] = (), now: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.instance = instance
        self.images = set(images)
        self.pushes_to = ""  # a registry for builds
        self.pushed: set[str] = set()
        self.registry: dict[str, str] = {}
        self.registry_down = False
        self.denied: set[str] = set()
        self.build_failures: dict[str, str] = {}  # Dockerfile's path -> last line of the log
        self.start_failures: dict[str, ControllerError] = {}  # component -> what `start` raises
        self.exits_at_start: dict[str, int] = {}  # component -> exit code right after its start
        self.pends: dict[str, str] = {}  # component -> why it does not run at once
        self.pull_failures: dict[AppName, Exception] = {}
        self.refuses: dict[str, str] = {}  # component -> why it is refused after it was accepted
        self.volumes: set[Volume] = set()  # what is there to be mounted
        self.look: Callable[[Volume], object] = self._look  # looks one up; may raise
        self.writers: set[ComponentName] = set()  # that do not start where they cannot write
        self.writing: set[tuple[AppName, ComponentName, str]] = set()
        self.pulls: list[str] = []
        #: Images that had to be kept when those that were pulled for an app were removed.
        self.spared: dict[AppName, dict[str, AppName]] = {}
        self.builds: list[str] = []
        self.build_secrets: dict[str, dict[str, str]] = {}
        self.build_registries: dict[str, list[str]] = {}  # those that builds were given, by tag
        self.starts: list[str] = []
        self.last_started: Workload | None = None
        self.removals: list[str] = []
        self.down = False
        self.closed = False
        self._now = now
        self._numbers = count(1)
        self._containers = FakeContainers()
        self._addresses: dict[str, str] = {}  # ids of containers by the address that they were given last
        self._networks: set[AppName] = set()
        self._events: list[EngineEvent] = []
        self._changed = threading.Condition(threading.RLock())

    # --- script ------------------------------------------------------------------------------------------------

    def exit(self, workload_id: str, code: int = 1, oom_killed: bool = False) -> None:
        """The workload's process ends by itself."""
        with self._changed:
            container = self._containers[workload_id]
            container.seen = replace(
                container.seen,
                state=WorkloadState.STOPPED,
                address=None,
                exit_code=code,
                oom_killed=oom_killed,
            )
            self._emit(container, "die")

    def cut_off(self, workload_id: str) -> None:
        """A person takes the container off its network."""
        with self._changed:
            container = self._containers[workload_id]
            container.seen = replace(container.seen, address=None)
            self._emit(container, "disconnect")

    def admit(self, workload_id: str) -> None:
        """The engine runs what it had accepted."""
        with self._changed:
            assert self._containers[workload_id].seen.state is WorkloadState.PENDING
            self._go(workload_id)

    def refuse(self, workload_id: str, detail: str) -> None:
        """The engine will not run what it had accepted."""
        self._turn(workload_id, WorkloadState.PENDING, WorkloadState.REFUSED, detail)
        self._tell(workload_id, "refused")

    def lose(self, workload_id: str, detail: str = "") -> None:
        """The node does not answer any more."""
        self._turn(workload_id, WorkloadState.RUNNING, WorkloadState.LOST, detail)
        self._tell(workload_id, "lost")

    def find_again(self, workload_id: str) -> None:
        """The node of a lost one answers again."""
        with self._changed:
            assert self._containers[workload_id].seen.state is WorkloadState.LOST
            self._go(workload_id)
        self._tell(workload_id, "found")

    def _turn(self, workload_id: str, before: WorkloadState, after: WorkloadState, detail: str) -> None:
        with self._changed:
            container = self._containers[workload_id]
            assert container.seen.state is before
            container.seen = replace(container.seen, state=after, address=None, detail=detail)

    def _tell(self, workload_id: str, action: str) -> None:
        with self._changed:
            self._emit(self._containers[workload_id], action)

    def vanish(self, workload_id: str) -> None:
        """A person removes the container."""
        with self._changed:
            gone = self._containers[workload_id]
            del self._containers[workload_id]
            self._emit(gone, "destroy")

    def create(self, workload: Workload, name: str) -> str:
        """A crash came between create and start."""
        with self._changed:
            return self._add(workload, name, WorkloadState.CREATED)

    def take_name(self, name: str) -> str:
        """A container that is not ours has the name."""
        with self._changed:
            number = f"{next(self._numbers):064x}"
            seen = ObservedWorkload(number, name, ComponentName(""), "", "", 0, 0, WorkloadState.RUNNING)
            self._containers[number] = FakeContainer(None, seen)
            return number

    def say(self, workload_id: str, line: str) -> None:
        """The workload prints a line."""
        with self._changed:
            self._containers[workload_id].logs.append(line)
            self._changed.notify_all()

    def mount(self, workload_id: str) -> ModelMount | None:
        """What the workload was given as its model."""
        with self._changed:
            return self._containers[workload_id].model

    def names(self) -> list[str]:
        """Of all containers, foreign ones too."""
        with self._changed:
            return sorted(container.seen.name for container in self._containers.values())

    @property
    def told(self) -> int:
        """Events so far, of all that a watcher is told."""
        with self._changed:
            return len(self._events)

    # --- the port ----------------------------------------------------------------------------------------------

    def ping(self) -> str:
        self._require_up()
        return "FakeEngine 1"

    def observe(self, app: AppName) -> ObservedApp:
        self._require_up()
        with self._changed:
            ours = sorted((c.seen for c in self._containers.of(app)), key=lambda w: w.name)
            return ObservedApp(app, tuple(ours), app in self._networks)

    def at(self, endpoint: str) -> ObservedWorkload | None:
        """Return the workload that answers at an endpoint; no part of the port."""
        self._require_up()
        with self._changed:
            address, _, port = endpoint.rpartition(":")
            found = self._containers.get(self._addresses.get(address, ""))
            seen = found.seen if found else None
            return seen if seen and (seen.address, str(seen.port)) == (address, port) else None

    def apps(self) -> frozenset[AppName]:
        self._require_up()
        with self._changed:
            return frozenset(self._networks | {c.app for c in self._containers.values() if c.app})

    def pin(self, source: ImageSource, tag: str | None, registries: Registries) -> ImagePin:
        self._require_up()
        if isinstance(source, BuildImage):
            if tag is None:
                raise ValueError("an image to be built needs the tag of its content")
            if self.pushes_to:
                pinned = self._pushed(tag)
                return (
                    ImagePin(pinned, ImageOrigin.BUILD, pinned in self.images)
                    if pinned in self.pushed
                    else ImagePin(tag, ImageOrigin.BUILD, False)
                )
            built = image_id(tag)
            return (
                ImagePin(built, ImageOrigin.BUILD, True)
                if built in self.images
                else ImagePin(tag, ImageOrigin.BUILD, False)
            )
        reference = source.reference
        if "@" in reference:
            return ImagePin(reference, ImageOrigin.REGISTRY, reference in self.images)
        if reference in self.images and reference not in self.registry:
            return ImagePin(reference, ImageOrigin.LOCAL, True)
        self._require_registry(reference, "resolve")
        if reference in self.denied:
            raise Stalled(Reason.REGISTRY_DENIED, f"cannot resolve image {reference}")
        if self.registry_down:
            raise Transient(Reason.REGISTRY_UNREACHABLE, f"cannot resolve image {reference}")
        if reference not in self.registry:
            raise Stalled(Reason.IMAGE_NOT_FOUND, f"cannot resolve image {reference}")
        pinned = f"{reference.rpartition(':')[0]}@{self.registry[reference]}"
        return ImagePin(pinned, ImageOrigin.REGISTRY, pinned in self.images)

    def pull(self, app: AppName, reference: str, registries: Registries) -> None:
        self._require_up()
        if (failure := self.pull_failures.get(app)) is not None:
            raise failure
        if self.registry_down:
            raise Transient(Reason.REGISTRY_UNREACHABLE, f"cannot pull image {reference}")
        self._require_registry(reference, "pull")
        self.pulls.append(reference)
        self.images.add(reference)

    def _require_registry(self, reference: str, verb: str) -> None:
        if reference.startswith(("sha256:", f"{self.instance}.local/")):
            raise Stalled(
                Reason.IMAGE_NOT_FOUND, f"cannot {verb} image {reference}: it was made on this host"
            )

    def build(
        self,
        tag: str,
        build: BuildInput,
        context: BuildContext,
        log: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._require_up()
        for _ in context.files:
            pass
        self.builds.append(tag)
        self.build_secrets[tag] = {id: value.reveal() for id, value in build.secrets}
        self.build_registries[tag] = [registry.url for registry, _ in build.registries]
        log(f"Step 1/1 : FROM {build.source.dockerfile}")
        if stop():
            raise Superseded(f"{tag}: the build was ended, because there is a newer commit")
        if (last := self.build_failures.get(build.source.dockerfile)) is not None:
            log(last)
            raise Stalled(Reason.BUILD_FAILED, f"cannot build image {tag}\n{last}")
        self.images |= {tag, image_id(tag)}
        if self.pushes_to:
            if self.registry_down:
                raise Transient(Reason.PUSH_FAILED, f"cannot push image {tag}")
            self.pushed.add(self._pushed(tag))
            self.images.add(self._pushed(tag))

    def _pushed(self, tag: str) -> str:
        """A build under its digest in the registry."""
        return f"{self.pushes_to}/{tag.rpartition(':')[0]}@{image_id(tag)}"

    def image_sizes(self) -> Mapping[AppName, ImageUse]:
        self._require_up()
        return {}

    def scratch(self) -> tuple[ScratchUse, ...]:
        self._require_up()
        with self._changed:
            return tuple(
                ScratchUse(each.app, each.seen.component, each.seen.id, each.seen.name, each.written)
                for each in self._containers.values()
                if each.app and each.seen.state is WorkloadState.RUNNING
            )

    def use(self, ask_gpus: bool = True) -> tuple[WorkloadUse, ...]:
        self._require_up()
        with self._changed:
            return tuple(
                WorkloadUse(
                    each.app, each.seen.component, each.seen.id, each.cpu, each.memory, gpus=each.seen.gpus
                )
                for each in self._containers.values()
                if each.app and each.seen.state is WorkloadState.RUNNING
            )

    def held_gpus(self) -> tuple[Lease, ...]:
        self._require_up()
        with self._changed:
            found = [
                Lease(each.seen.name, each.app, each.seen.component, each.seen.gpus, each.seen.gpu_share)
                for each in self._containers.values()
                if each.app and each.seen.gpus
            ]
        return tuple(sorted(found, key=lambda lease: lease.workload))

    def work(self, workload_id: str, cpu: float, memory: float) -> None:
        """A process in the container computes for so many seconds, and takes so many bytes."""
        container = self._container(workload_id)
        container.cpu += cpu
        container.memory += memory

    def write(self, workload_id: str, size: int) -> None:
        """A process in the container writes so many bytes."""
        self._container(workload_id).written += size

    def prune_images(
        self,
        app: AppName,
        keep: int,
        spare: frozenset[str] = frozenset(),
        earlier: tuple[str, ...] = (),
    ) -> None:
        self._require_up()
        prefix = f"{self.instance}.local/{app}/"
        in_use = spare | {*earlier} | {c.image for c in self._containers.values()}
        tags = [tag for tag in reversed(self.builds) if tag.startswith(prefix) and tag in self.images]
        for tag in tags[keep:]:
            names = {image_id(tag), self._pushed(tag)}
            if in_use.isdisjoint(names):
                self.images -= {tag, *names}

    def remove_pulled_images(self, app: AppName, needed: Mapping[str, AppName] | None = None) -> None:
        self._require_up()
        self.spared[app] = dict(needed or {})

    def collect_builds(self, age: float) -> None:
        self._require_up()

    def ensure_network(self, app: AppName) -> None:
        self._require_up()
        with self._changed:
            self._networks.add(app)

    def let_write(self, workload: ObservedWorkload, app: AppName) -> None:
        self._require_up()
        self.writing.add((app, workload.component, workload.fingerprint))

    def hold_egress(self) -> None:
        self._require_up()

    def remove_network(self, app: AppName) -> None:
        self._require_up()
        with self._changed:
            if any(c.app == app and c.seen.state is WorkloadState.RUNNING for c in self._containers.values()):
                name = network_name(self.instance, app)
                raise Transient(
                    Reason.NETWORK_IN_USE, f"cannot remove network {name}: it has active endpoints"
                )
            self._networks.discard(app)

    def start(self, workload: Workload, name: str) -> None:
        self._require_up()
        with self._changed:
            failure = self.start_failures.get(workload.component)
            if failure is not None:
                raise failure
            if workload.image not in self.images:
                raise Transient(Reason.IMAGE_GONE, f"cannot start {name}: no such image: {workload.image}")
            if workload.app not in self._networks:
                raise Transient(Reason.NETWORK_GONE, f"cannot start {name}: its network is gone")
            if workload.model:
                self.look(workload.model.volume)
            container = self._adopt(workload, name) or self._add(workload, name, WorkloadState.CREATED)
            self._run(container, workload.component)
            self.starts.append(name)
            self.last_started = workload
            if workload.component in self.exits_at_start:
                self.exit(container, self.exits_at_start[workload.component])
            if workload.component in self.writers and self._containers[container].seen.root == "read-only":
                self.say(container, "OSError: [Errno 30] Read-only file system: '/app/cache'")
                self.exit(container)

    def remove(self, workload_id: str, grace: float, last: Callable[[], object] = lambda: None) -> None:
        self._require_up()
        with self._changed:
            container = self._containers.get(workload_id)
            if container is None:
                return
            if container.app is None:
                raise Stalled(Reason.NOT_OURS, f"cannot remove container {workload_id[:12]}: it is not ours")
            last()
            self.removals.append(container.seen.name)
            del self._containers[workload_id]
            self._changed.notify_all()

    def logs(self, workload_id: str, tail: int) -> str:
        return "".join(f"{line}\n" for line in self._container(workload_id).logs[-tail:])

    def logged(self) -> tuple[LoggedContainer, ...]:
        self._require_up()
        with self._changed:
            return tuple(
                LoggedContainer(each.seen.id, each.app, each.seen.component, each.seen.created)
                for each in self._containers.values()
                if each.app
            )

    def log_reader(self, workload_id: str, after: str) -> FakeLogReader:
        return FakeLogReader(self, workload_id, int(after.rpartition("/")[2] or 0))

    def lines_after(self, workload_id: str, position: int) -> list[str]:
        self._require_up()
        return self._container(workload_id).logs[position:]

    def watch(self, stop: Callable[[], bool]) -> Iterator[EngineEvent]:
        with self._changed:
            position = len(self._events)
        while not stop():
            with self._changed:
                if position == len(self._events):
                    self._changed.wait(0.05)
                news = self._events[position:]
                position += len(news)
            yield from news

    def close(self) -> None:
        self.closed = True

    # --- inside ------------------------------------------------------------------------------------------------

    def _look(self, volume: Volume) -> None:
        if volume not in self.volumes:
            raise Transient(Reason.MOUNT_GONE, f"{volume} does not exist")

    def _require_up(self) -> None:
        if self.down:
            raise Transient(Reason.ENGINE_UNREACHABLE, "the engine does not answer")

    def _container(self, workload_id: str) -> FakeContainer:
        self._require_up()
        try:
            return self._containers[workload_id]
        except KeyError:
            raise Transient(Reason.WORKLOAD_GONE, f"no such container: {workload_id[:12]}") from None

    def _adopt(self, workload: Workload, name: str) -> str | None:
        found = next((c for c in self._containers.values() if c.seen.name == name), None)
        if found is None:
            return None
        mine = (workload.app, workload.component, workload.fingerprint, workload.replica)
        if (found.app, found.seen.component, found.seen.fingerprint, found.seen.replica) != mine:
            raise Stalled(Reason.NAME_TAKEN, f"cannot start {name}: another container has that name")
        usable = (WorkloadState.CREATED, WorkloadState.PENDING, WorkloadState.RUNNING)
        if found.seen.state in usable and found.seen.gpus == workload.gpus:
            return found.seen.id
        del self._containers[found.seen.id]
        return None

    def _add(self, workload: Workload, name: str, state: WorkloadState) -> str:
        number = f"{next(self._numbers):064x}"
        seen = ObservedWorkload(
            id=number,
            name=name,
            component=workload.component,
            fingerprint=workload.fingerprint,
            revision=workload.revision,
            replica=workload.replica,
            port=workload.spec.port,
            state=state,
            created=self._now(),
            gpus=workload.gpus,
            gpu_share=workload.spec.resources.per_gpu if workload.gpus else 1,
            root=self._root(workload),
        )
        self._containers[number] = FakeContainer(workload.app, seen, workload.image, workload.model)
        return number

    def _root(self, workload: Workload) -> str:
        if workload.spec.read_only_root is not None:
            return ""
        version = (workload.app, workload.component, workload.fingerprint)
        return "writable" if version in self.writing else "read-only"

    def _run(self, workload_id: str, component: ComponentName) -> None:
        container = self._containers[workload_id]
        if container.seen.state is WorkloadState.RUNNING:
            return
        if component in self.refuses:
            why = self.refuses[component]
            container.seen = replace(container.seen, state=WorkloadState.REFUSED, detail=why)
        elif component in self.pends:
            why = self.pends[component]
            container.seen = replace(container.seen, state=WorkloadState.PENDING, detail=why)
        else:
            self._go(workload_id)

    def _go(self, workload_id: str) -> None:
        container = self._containers[workload_id]
        number = int(workload_id, 16)
        address = f"10.99.{number // 250 % 256}.{number % 250 + 2}"
        self._addresses[address] = workload_id
        container.seen = replace(container.seen, state=WorkloadState.RUNNING, address=address, detail="")

    def _emit(self, container: FakeContainer, action: str) -> None:
        if container.app is not None:
            seen = container.seen
            self._events.append(EngineEvent(container.app, seen.component, action, seen.id, self._now()))
        self._changed.notify_all()
