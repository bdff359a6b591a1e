"""`FakeEngine` keeps the promises of `Engine`, so tests that use it mean something."""

from __future__ import annotations

import pytest

from controller.domain.apps.desired import BuildInput, Workload
from controller.domain.apps.observed import ImageOrigin, ImagePin
from controller.domain.apps.spec import BuildImage, ExistingImage
from controller.domain.errors import Stalled, Transient
from controller.domain.names import AppName
from controller.domain.volumes import Volume
from controller.ports import Engine
from tests.contract.engine_contract import ClusterContract, ClusterScript
from tests.support.engines import context_of
from tests.support.fake_engine import FakeEngine
from tests.support.specs import make


class FakeScript:
    instance = "prichal"

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def kill(self, workload_id: str) -> None:
        self.engine.exit(workload_id, 137)

    def vanish(self, workload_id: str) -> None:
        self.engine.vanish(workload_id)

    def cut_off(self, workload_id: str) -> None:
        self.engine.cut_off(workload_id)

    def write(self, workload_id: str, size: int) -> None:
        self.engine.write(workload_id, size)

    def work(self, workload_id: str) -> None:
        self.engine.work(workload_id, 0.1, 2**20)

    def create(self, workload: Workload, name: str) -> str:
        return self.engine.create(workload, name)

    def take_name(self, name: str) -> str:
        return self.engine.take_name(name)

    def stage(self, volume: Volume) -> None:
        self.engine.volumes.add(volume)

    def stranger(self) -> Engine:
        return FakeEngine("other")

    def pend(self, component: str, detail: str) -> None:
        self.engine.pends[component] = detail

    def admit(self, workload_id: str) -> None:
        self.engine.admit(workload_id)

    def refuse(self, workload_id: str, detail: str) -> None:
        self.engine.refuse(workload_id, detail)

    def lose(self, workload_id: str, detail: str) -> None:
        self.engine.lose(workload_id, detail)

    def forget(self, image: str) -> None:
        self.engine.images.discard(image)

    def find_again(self, workload_id: str) -> None:
        self.engine.find_again(workload_id)


class TestFakeEngine(ClusterContract):
    @pytest.fixture
    def engine(self) -> FakeEngine:
        engine = FakeEngine(images={"web:1"})
        engine.pushes_to = "registry.example.org/team"
        return engine

    @pytest.fixture
    def script(self, engine: FakeEngine) -> ClusterScript:
        return FakeScript(engine)

    @pytest.fixture
    def image(self) -> str:
        return "web:1"

    @pytest.fixture
    def app(self) -> AppName:
        return AppName("demo")

    def test_registry_script(self, engine: FakeEngine) -> None:
        source = ExistingImage("hub.example.org/a:1")
        with pytest.raises(Stalled):
            engine.pin(source, None, ())
        engine.registry[source.reference] = "sha256:1"
        pin = engine.pin(source, None, ())
        assert pin == ImagePin("hub.example.org/a@sha256:1", ImageOrigin.REGISTRY, present=False)
        engine.pull(AppName("demo"), pin.deploy, ())
        assert engine.pin(source, None, ()).present
        engine.registry_down = True
        with pytest.raises(Transient):
            engine.pull(AppName("demo"), pin.deploy, ())

    def test_build_script(self, engine: FakeEngine) -> None:
        engine.build_failures["Dockerfile"] = "pip: no such package"
        lines: list[str] = []
        with pytest.raises(Stalled, match="no such package"):
            engine.build(
                "t:1", BuildInput("c", make(BuildImage, ".")), context_of({"Dockerfile": ""}), lines.append
            )
        assert lines[-1] == "pip: no such package"
        assert "t:1" not in engine.images
